//! The engine: containers, execs, volumes, events; one owner for each container's state.
//!
//! [`Engine`] wires the services together and hands out [`Container`]s. A container's state is decided by one
//! task (`container/owner`), by a pure function over plain data (`container/lifecycle`); everyone else reads its
//! [`Snapshot`], so `ps` and `inspect` never wait for a slow `start`. The engine is disposable: what runs belongs to
//! monitors and the keeper, and [`Engine::open`] finds it again.

mod artifacts;
mod build;
mod collection;
mod config;
mod container;
mod disk_usage;
mod engine;
mod error;
mod events;
mod failpoint;
mod farewell;
mod host_resources;
mod keeper_link;
mod manifest_list;
mod monitor_link;
mod names;
mod naming;
mod network;
mod own_registry;
mod pull;
mod push;
mod recover;
mod registry;
mod remote_manifest;
mod rows;
mod search;
mod settings;
mod shared;
mod signature;
mod volumes;

pub use artifacts::{ArtifactPull, ArtifactTransfer, ArtifactUsage, Referrer, ReferrersRequest};
pub use build::{
    Attestations, Build, BuildContext, BuildEvent, BuildFailure, BuildName, BuildRequest, CacheDestination, CacheEntry,
    CachePrune, CacheSource, CacheStep, DockerfileSource, OfferedLayer, ProvenanceWanted, PrunedCache, Secret,
    SshAgent, StepId, StepStarted, WaitingAgent,
};
pub use collection::{Collection, CollectionItem, CollectionRequest, Fate};
pub use config::EngineConfig;
pub use container::archive::{ContainerPath, ExtractOptions};
pub use container::attach::{AttachOptions, PendingAttach, StdioStream};
pub use container::commit::{CommitOptions, healthcheck_config};
pub use container::exec::{Exec, ExecSnapshot, ExecSpec};
pub use container::health::{Health, HealthResult, HealthStatus};
pub use container::logs::{LogBatch, LogEntry, LogOptions, LogStream, LogTime, OutputStream, check as check_log};
pub use container::owner::Changed;
pub use container::restart::{RestartReason, Restarts};
pub use container::snapshot::{ExitStatus, Phase, Run, RunEndpoint, Snapshot, StartFailure, Waiting};
pub use container::stats::{InterfaceStats, StatsSample, StatsStream};
pub use container::top::Top;
pub use container::update::{LogChange, ResourceChange};
pub use container::{Container, RemoveOptions, StopOptions, WaitCondition, Waiter};
pub use disk_usage::EngineUsage;
pub use dozen_network::FAILPOINTS as NETWORK_FAILPOINTS;
pub use dozen_registry::{Door, Visitors};
pub use dozen_trust::PublicKey;
pub use engine::{CreateRequest, Engine, EngineInfo, ImportOptions};
pub use error::EngineError;
pub use events::{Event, EventKind, EventStream, EventsQuery};
pub use failpoint::{CACHE_FAILPOINTS, FAILPOINTS};
pub use host_resources::{HostResources, parse_cpu_list};
pub use manifest_list::{ManifestListPush, PushedManifestList};
pub use network::direct_ports;
pub use network::objects::{Network, NetworkRequest};
pub use network::reach::{FirewallReport, PortReach, PortsReport};
pub use own_registry::OwnRegistry;
pub use pull::{Credentials, LayerStep, Pull, PullEvent, PullFailure, PullRequest, RegistrySecret};
pub use push::{Push, PushEvent, PushRequest, PushStep};
pub use remote_manifest::{Distribution, DistributionManifest, DistributionRequest};
pub use search::FoundImage;
pub use signature::{PushedSignature, SignaturePush};
pub use volumes::snapshots::VolumeSnapshot;
pub use volumes::{Claim, Volume, VolumeSpec};

// The services' own types that the API shows.
pub use dozen_image::{self as image, Image, ImageStore, Loaded, Platform, Progress, Removal};
pub use dozen_monitor::protocol::WindowSize;
pub use dozen_network::firewall_check::DroppingChain;
pub use dozen_network::reach::{Neighbourhood, Reach, Trouble};
pub use dozen_network::{BridgeAddresses, DirectPort, Endpoint, EndpointLink, MacAddress, PublishedPort};
pub use dozen_runtime as runtime;
