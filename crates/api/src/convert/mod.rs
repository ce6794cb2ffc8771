//! Pure: Docker's JSON to the model's types, and snapshots to Docker's JSON.

pub(crate) mod build;
pub(crate) mod create;
pub(crate) mod defaults;
pub(crate) mod devices;
pub(crate) mod dns;
mod endpoint_options;
pub(crate) mod endpoints;
pub(crate) mod exec;
pub(crate) mod fields;
pub(crate) mod health;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod listing;
pub(crate) mod log;
pub(crate) mod mounts;
mod network_driver;
pub(crate) mod network_request;
pub(crate) mod networks;
pub(crate) mod ports;
pub(crate) mod request;
pub(crate) mod resources;
pub(crate) mod restart;
pub(crate) mod security;
pub(crate) mod sharing;
pub(crate) mod stats;
pub(crate) mod user_namespace;
pub(crate) mod volume_driver;
