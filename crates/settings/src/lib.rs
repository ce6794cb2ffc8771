//! What an engine is told by its configuration file and its flags, read once and valid from then on.
//!
//! The file is JSON with the keys of Docker's `daemon.json` (docs.docker.com, "dockerd": daemon configuration file). A
//! key acts, or is refused by name with the reason ([`keys`]); one that nobody knows is refused with the nearest that
//! is known. [`merge`] lays file, environment and flags over each other; [`Settings`] is what comes out.

mod builder;
mod collection;
mod containers;
mod error;
mod file;
mod keys;
mod merge;
mod networks;
mod own_registry;
mod registries;
mod settings;
mod shared;
mod signatures;
mod users;

pub use builder::{BuilderSettings, CacheRule, Space};
pub use collection::{CollectedImages, CollectionSettings};
pub use containers::{ContainerSettings, DnsSettings, UlimitSettings};
pub use error::SettingsError;
pub use file::{DEFAULT_PATH, read};
pub use merge::{Layers, merge};
pub use networks::{Ipv4Network, NetworkSettings};
pub use own_registry::OwnRegistrySettings;
pub use registries::{InsecureRegistry, Mirror, RegistrySettings};
pub use settings::{LogLevel, LoggingSettings, Settings, TlsSettings};
pub use shared::SharedSettings;
pub use signatures::SignaturePolicy;
pub use users::UserSettings;

/// Keys and values, by Docker's names: a file's, or the same said by flags.
pub type Keys = serde_json::Map<String, serde_json::Value>;
