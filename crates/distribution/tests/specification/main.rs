//! The OCI distribution-spec 1.1, rule by rule, over a socket. Each test is named after what it shows.

#![allow(clippy::unwrap_used, missing_docs)]

mod client;
mod delete;
mod discover;
mod hostile;
mod pull;
mod push;
mod rights;
