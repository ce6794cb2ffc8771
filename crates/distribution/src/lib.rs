//! A registry's server: the whole of the OCI distribution-spec 1.1 over HTTP, on a directory or a store of objects.
//!
//! What a request is, is decided on plain data: `route` (method and path), `range`, `page`, `manifest`, `name`; what is
//! refused, `refusal` says, one kind for one status and code. `store` keeps files and the rows that name them, and is where
//! everything durable happens; `serve` is HTTP around it. Who asks, `access` finds out by passwords and tokens, and decides whether
//! he may (`access/caller`), by rights or by what a token says. `retention` decides which tags go, `scrub` when blobs
//! are read to see whether they are damaged. `upstream` keeps what
//! registries elsewhere have, as it is asked for. `web` is a page for
//! browsers. Nothing here knows of an engine, nor of a client of HTTP.

mod access;
mod control;
mod failpoint;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hasher;
mod hosts;
mod manifest;
mod metrics;
mod name;
mod page;
mod pattern;
mod range;
mod refusal;
mod retention;
mod route;
mod scrub;
mod serve;
mod store;
mod upstream;
mod web;
mod webhook;

pub use access::authorizer::Authorizer;
pub use access::rights::{Rights, RightsError};
pub use access::secret::{Secret, SecretError};
pub use access::token::{TokenKey, TokenKeyError};
pub use access::token_service::{TokenService, TokenServiceError};
pub use access::{Access, Passwords, PasswordsError};
pub use control::{ask_retention, control, control_socket, shown};
pub use failpoint::FAILPOINTS;
pub use hosts::AllowedHosts;
pub use metrics::Metrics;
pub use refusal::{Kind, Refusal};
pub use retention::{Retention, RetentionError};
pub use scrub::{Scrub, scrub};
pub use serve::{Options, Watch, serve, serve_inside, serve_metrics};
pub use store::{
    Bucket, BucketError, BucketErrorKind, Checked, Freed, Later, LazyStore, Migrated, Object, OpenError, Pieces,
    Progress, Released, Store, StoreOptions, check, check_bucket, migrate_to_bucket, migrate_to_directory,
};
pub use upstream::{
    Asked, FetchedManifest, FetchedReferrer, Secrets, Source, Upstream, UpstreamError, UpstreamErrorKind, UpstreamPlan,
    Upstreams, UpstreamsError, read_upstreams,
};
pub use webhook::{Deliver, Delivery, Endpoint, MEDIA_TYPE, Webhooks, WebhooksError, read_endpoints};
