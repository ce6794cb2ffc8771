//! The engine: containers, execs, volumes, events; one owner for each container's state.
//!
//! [`Engine`] wires the services together and hands out [`Container`]s. A container's state is decided by one
//! task (`owner`), by a pure function over plain data (`lifecycle`); everyone else reads its [`Snapshot`],
//! so `ps` and `inspect` never wait for a slow `start`. The engine is disposable: what runs belongs to
//! monitors and the keeper, and [`Engine::open`] finds it again.

mod attach;
mod commit;
mod config;
mod engine;
mod error;
mod events;
mod exec;
mod failpoint;
mod files;
mod handle;
mod keeper_link;
mod launch;
mod lifecycle;
mod logs;
mod monitor_link;
mod names;
mod network;
mod oci;
mod owner;
mod recover;
mod registry;
mod rescue;
mod roots;
mod roots_lock;
mod rows;
mod shared;
mod snapshot;
mod top;
mod volumes;

pub use attach::{AttachOptions, PendingAttach, StdioStream};
pub use commit::CommitOptions;
pub use config::EngineConfig;
pub use dozen_network::FAILPOINTS as NETWORK_FAILPOINTS;
pub use engine::{CreateRequest, Engine, EngineInfo};
pub use error::EngineError;
pub use events::{Event, EventKind, EventStream, EventsQuery};
pub use exec::{Exec, ExecSnapshot, ExecSpec};
pub use failpoint::FAILPOINTS;
pub use handle::{Container, RemoveOptions, StopOptions, WaitCondition, Waiter};
pub use logs::{LogEntry, LogOptions, LogStream, OutputStream};
pub use owner::Changed;
pub use snapshot::{ExitStatus, Phase, Run, Snapshot, StartFailure};
pub use top::Top;
pub use volumes::{Volume, VolumeSpec};

// The services' own types that the API shows.
pub use dozen_image::{self as image, Image, ImageStore, Loaded, Progress, Removal};
pub use dozen_monitor::protocol::WindowSize;
pub use dozen_network::{BridgeAddresses, Endpoint, PublishedPort};
