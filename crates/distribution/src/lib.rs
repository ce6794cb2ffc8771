//! A registry's server: the whole of the OCI distribution-spec 1.1 over HTTP, on a directory.
//!
//! What a request is, is decided on plain data: `route` (method and path), `range`, `page`, `manifest`, `name`; what is
//! refused, `refusal` says, one kind for one status and code. `store` keeps files and the rows that name them, and is where
//! everything durable happens; `serve` is HTTP around it, and `access` lets people in. Nothing here knows of an engine.

mod access;
mod failpoint;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hasher;
mod hosts;
mod manifest;
mod name;
mod page;
mod range;
mod refusal;
mod route;
mod serve;
mod store;

pub use access::{Access, Passwords, PasswordsError};
pub use failpoint::FAILPOINTS;
pub use hosts::AllowedHosts;
pub use refusal::{Kind, Refusal};
pub use serve::{Options, serve};
pub use store::{Checked, Freed, OpenError, Store, StoreOptions, check};
