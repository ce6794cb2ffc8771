//! What a container is asked to be: one validated request, from which inspect, the runtime's spec and the
//! ledger's row all follow. The API's wire types and the runtime's types are others, with conversions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::dns::DnsSpec;
use crate::health::HealthCheck;
use crate::id::ImageId;
use crate::log::LogSpec;
use crate::mount::Mount;
use crate::network::{NetworkMode, PortBinding, Protocol};
use crate::network_spec::EndpointSpec;
use crate::resources::ResourceSpec;
use crate::restart::RestartPolicy;
use crate::sharing::SharingSpec;
use crate::signal::Signal;
use crate::user::UserSpec;
use crate::user_namespace::UserNamespace;

/// Everything that was asked of a container, the image's own configuration already merged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The image that it is made from.
    pub image: ImageId,
    /// The image as the user named it; listings show this.
    pub image_name: String,
    /// What runs in it.
    pub process: ProcessSpec,
    /// `None`: the short id.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Labels, those of the image included.
    pub labels: BTreeMap<String, String>,
    /// How it is asked to stop.
    pub stop: StopSpec,
    /// Binds, volumes and tmpfs; no two have one target.
    pub mounts: Vec<Mount>,
    /// The network that it joins.
    pub network: NetworkMode,
    /// Its places on networks, in the order of its interfaces. `None`: what `network` says, from before it could have
    /// several.
    #[serde(default)]
    pub endpoints: Option<Vec<EndpointSpec>>,
    /// Ports that the image or the user declares, published or not.
    pub exposed_ports: BTreeSet<(u16, Protocol)>,
    /// Published ports.
    pub ports: Vec<PortBinding>,
    /// `-P`: publish every exposed port on a free port of the host.
    pub publish_all: bool,
    /// Lines of /etc/hosts beside the usual ones.
    pub extra_hosts: Vec<HostEntry>,
    /// Lines of /etc/resolv.conf in place of the host's.
    #[serde(default)]
    pub dns: DnsSpec,
    /// What keeps it apart from the host.
    pub isolation: Isolation,
    /// `--init`: dozen itself is process 1, reaps orphans and forwards signals.
    pub init: bool,
    /// Remove it, and its anonymous volumes, once it has ended.
    pub auto_remove: bool,
    /// Bytes of /dev/shm.
    pub shm_size_bytes: u64,
    /// How much of the host it may use, and which devices.
    #[serde(default)]
    pub resources: ResourceSpec,
    /// Whether it runs again when it has ended by itself.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Where its output goes, and how much of it is kept.
    pub log: LogSpec,
    /// How it is found out whether it is well.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// What it shares with the host and with others.
    #[serde(default)]
    pub sharing: SharingSpec,
    /// Whose users and groups it has.
    #[serde(default)]
    pub user_namespace: UserNamespace,
    /// It runs a step of a build.
    #[serde(default)]
    pub build_step: Option<BuildStep>,
}

/// What a container that runs a step of a build stands on, in place of its image. It is its builder's alone: who commits,
/// prunes or compares leaves it alone, and an engine that finds one whose builder has died removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildStep {
    /// The layers, lowest first. The builder holds them.
    pub layers: Vec<Digest>,
}

/// The container's first process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Comes first on the command line.
    pub entrypoint: Vec<String>,
    /// Follows the entrypoint. Both together are never empty.
    pub command: Vec<String>,
    /// `NAME=value`, the image's and the user's, each name once.
    pub environment: Vec<String>,
    /// An absolute path inside; made if it is missing.
    pub working_directory: String,
    /// Whom it runs as.
    pub user: UserSpec,
    /// `-t`: a terminal of its own.
    pub terminal: bool,
    /// The terminal's first size, in rows and columns.
    #[serde(default)]
    pub terminal_size: Option<(u16, u16)>,
    /// What becomes of its standard input.
    pub stdin: StdinMode,
    /// Streams that `start --attach` and `run` follow (Docker's AttachStdin, AttachStdout, AttachStderr).
    pub attach: [bool; 3],
}

impl ProcessSpec {
    /// The whole command line: entrypoint, then command.
    pub fn arguments(&self) -> impl Iterator<Item = &String> {
        self.entrypoint.iter().chain(&self.command)
    }
}

/// What becomes of a process's standard input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdinMode {
    /// It is /dev/null.
    #[default]
    Closed,
    /// It stays open for whoever attaches, again and again.
    Open,
    /// It ends when the first client that attached to it leaves.
    Once,
}

/// How a container is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSpec {
    /// The first signal; SIGKILL follows.
    pub signal: Signal,
    /// Seconds between the two; `None`: the default of 10; negative: for ever.
    pub timeout_s: Option<i64>,
}

impl Default for StopSpec {
    fn default() -> Self {
        Self { signal: Signal::TERM, timeout_s: None }
    }
}

/// A line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// The name.
    pub name: String,
    /// `None` stands for `host-gateway`: the host as seen from the container's network.
    pub address: Option<IpAddr>,
}

/// What keeps a container apart from its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// All capabilities, all devices, no seccomp, nothing masked.
    pub privileged: bool,
    /// Changes to the default set of capabilities.
    pub capabilities: CapabilityChange,
    /// `--read-only`: the root file system.
    pub read_only_root: bool,
    /// `no-new-privileges` (prctl(2), PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: SeccompChoice,
    /// `systempaths=unconfined`: /proc and /sys without masks.
    pub unmasked_system_paths: bool,
}

/// Capabilities by name, upper case, without `CAP_`; `ALL` is one of them.
pub type Capabilities = BTreeSet<String>;

/// `--cap-add` and `--cap-drop`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityChange {
    /// Added to the default set.
    pub add: Capabilities,
    /// Taken from it; `ALL` takes all but those added.
    pub drop: Capabilities,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompChoice {
    /// Docker's default profile.
    #[default]
    Default,
    /// All of them.
    Unconfined,
    /// A profile in Docker's JSON format, as given; it compiled when it was accepted.
    Profile(String),
}
