//! Registries, as a client sees them: the OCI distribution-spec 1.1 and Docker's dialect of it.
//!
//! What is decided is pure, over plain data: whom to ask ([`endpoint`], `hosts`), what a challenge wants (`challenge`, `scope`,
//! `token`), what is tried again and when (`again`), what goes on where it stopped (`range`), where a redirection may lead
//! (`redirection`), what a manifest is (`document`), what a refusal means (`refusal`). [`Repository`] does it, over
//! `dozen-fetch`: a large blob by several connections ([`Download`]), what registries may not pass on from elsewhere
//! (`elsewhere`); what is sent goes by [`Uploads`]. A registry is hostile until what it sends has the digest that was asked for. Its bounds: 4 MiB for a
//! manifest, 1 MiB for the answer of a token service, 64 KiB for an error, 100,000 tags.

mod again;
mod authorization;
mod blob;
mod challenge;
mod client;
mod document;
mod download;
mod elsewhere;
mod endpoint;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hosts;
mod log_in;
mod manifest;
mod own;
mod pages;
mod pauses;
mod range;
mod rate_limit;
mod redirection;
mod referrers;
mod refusal;
mod scope;
mod search;
mod secret;
mod tags;
mod token;
mod upload;

pub use blob::Blob;
pub use client::{Access, Client, Repository, Terms};
pub use document::{Document, DocumentError};
pub use download::Download;
pub use dozen_fetch::{Authorities, Door, Patience, Proxies, Visitors};
pub use endpoint::{Endpoint, Security, Trust, endpoints};
pub use error::RegistryError;
pub use hosts::Capabilities;
pub use manifest::{Manifest, Resolved, Which};
pub use own::OwnRegistry;
pub use pauses::Pauses;
pub use rate_limit::RateLimit;
pub use referrers::Referrer;
pub use refusal::{Refusal, Said};
pub use scope::Scope;
pub use search::FoundImage;
pub use secret::{Credentials, Secret};
pub use upload::{BlobName, Found, Session, UploadedBlob, Uploads};
