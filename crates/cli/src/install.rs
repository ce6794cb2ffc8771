//! What `dozen system install` puts on a machine, and how all of it goes away again.
//!
//! [`plan`] decides which files a machine gets, from plain data; [`apply`] writes them and remembers each in a manifest,
//! from which `uninstall` takes them away. Everything is below one root, `/` unless `--root` names another one.

pub mod apply;
pub mod group;
pub mod manifest;
pub mod plan;
