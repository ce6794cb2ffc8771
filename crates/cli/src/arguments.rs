//! What people type, parsed into what the API takes. Everything here is pure: the environment and files come in as
//! functions or texts, and tables test each syntax.

pub mod container;
pub mod detach_keys;
pub mod devices;
pub mod filters;
pub mod flags;
pub mod health;
pub mod hosts;
pub mod key_values;
pub mod mounts;
pub mod names;
pub mod network;
pub mod ports;
pub mod resources;
pub mod restart;
pub mod security;
pub mod sharing;
pub mod sizes;
pub mod time;
pub mod volumes;
