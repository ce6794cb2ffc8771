//! What everyone but its owner knows of a container.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use dozen_model::{ContainerId, ContainerName, ContainerSpec, EndpointSpec, NetworkId};
use dozen_network::{Endpoint, PublishedPort};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::container::health::Health;
use crate::container::restart::Restarts;

/// A container at one moment. Cheap to clone, never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: ContainerId,
    /// Its present name.
    pub name: ContainerName,
    /// What was asked for.
    pub spec: Arc<ContainerSpec>,
    /// When it was created.
    pub created: Timestamp,
    /// Where it is in its life.
    pub phase: Phase,
    /// How it came to its present run.
    pub restarts: Restarts,
    /// Whether it is well; `None` if nobody checks.
    pub health: Option<Arc<Health>>,
    /// How its last run ended, also while it runs again or is being removed.
    pub last_exit: Option<ExitStatus>,
    /// How many runs have ended under this engine's eyes: a wait for the next exit compares it.
    pub exits: u64,
    /// It has ended to be started again: somebody wished that while it ran.
    pub is_restarting: bool,
    /// Its directory on the data root: log, hosts, resolv.conf, hostname, upper layer.
    pub directory: PathBuf,
}

/// Where a container is in its life. Docker's booleans are derived from this, at the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Created, never started (or its only start failed: `last_failure` says why).
    Created {
        /// Why the last start failed.
        last_failure: Option<StartFailure>,
    },
    /// On its way up; with a run once its process waits for the go-ahead.
    Starting {
        /// What it holds already.
        run: Option<Run>,
    },
    /// Process 1 runs.
    Running(Run),
    /// Process 1 has ended.
    Exited(ExitStatus),
    /// Process 1 has ended, and it is about to start again by itself.
    Waiting(Waiting),
    /// On its way out.
    Removing {
        /// Its anonymous volumes go with it.
        volumes: bool,
        /// Why it is still there: that is tried again.
        #[serde(skip)]
        failure: Option<String>,
    },
}

/// The pause before a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// How the last run ended.
    pub exit: ExitStatus,
    /// Why the last try to start it again failed.
    pub failure: Option<StartFailure>,
    /// How long it is, in milliseconds. An engine that finds it waits as long again.
    pub pause_ms: u64,
}

impl Waiting {
    /// How it has ended if it is not started any more.
    pub fn outcome(&self) -> ExitStatus {
        match &self.failure {
            Some(failure) => self.exit.failing(failure.clone()),
            None => self.exit.clone(),
        }
    }
}

/// A failed start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// 126, 127 or 128, as Docker's State.ExitCode.
    pub exit_code: i32,
    /// What failed, on what.
    pub message: String,
}

/// A container's present run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Process 1, in the host's pid namespace.
    pub pid: i32,
    /// When it started.
    pub started: Timestamp,
    /// The machine's boot that it is of (random(4), `boot_id`); older versions have not noted it.
    #[serde(default)]
    pub boot: Option<String>,
    /// Its places on networks, in the order of its interfaces; none for `none`, `host` and another container's.
    #[serde(default, alias = "endpoint", deserialize_with = "endpoints_or_one")]
    pub endpoints: Vec<RunEndpoint>,
    /// Its published ports, host ports chosen.
    pub ports: Vec<PublishedPort>,
    /// Nobody in it moves, for someone wants that.
    #[serde(default)]
    pub is_paused: bool,
    /// So many of it that were killed for want of memory have been told of.
    #[serde(default)]
    pub oom_kills: u64,
}

/// A running container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEndpoint {
    /// The network's id.
    pub network: NetworkId,
    /// The network's name.
    pub network_name: String,
    /// As it was asked for: see [`EndpointSpec::gateway_priority`].
    pub gateway_priority: i64,
    /// Where ports are published by it that name no address of the host's; `None`: on all of them.
    #[serde(default)]
    pub host_binding: Option<IpAddr>,
    /// The link with its addresses.
    pub endpoint: Endpoint,
}

/// Before a container could have several there was one, on the default bridge, or null.
fn endpoints_or_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RunEndpoint>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        List(Vec<RunEndpoint>),
        One(Box<Endpoint>),
    }
    Ok(match Option::<Stored>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Stored::List(list)) => list,
        Some(Stored::One(endpoint)) => {
            let EndpointSpec { network, network_name, gateway_priority, .. } = EndpointSpec::default_bridge();
            vec![RunEndpoint { network, network_name, gateway_priority, host_binding: None, endpoint: *endpoint }]
        }
    })
}

/// How the last run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// 0 to 255; 128 and the signal's number for one that was killed.
    pub exit_code: i32,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// The kernel killed a process of it for want of memory.
    pub out_of_memory: bool,
    /// Why, if it is not the process's own doing.
    pub error: Option<String>,
}

impl Snapshot {
    /// Docker's word for where it is, as [`Phase::status`]. One that starts again by itself is still restarting.
    pub fn status(&self) -> &'static str {
        match &self.phase {
            Phase::Starting { .. } if self.restarts.is_by_itself => "restarting",
            phase => phase.status(),
        }
    }
}

impl ExitStatus {
    /// What is to be seen of a container that ended so, and could then not be started again.
    pub(crate) fn failing(&self, failure: StartFailure) -> Self {
        Self { exit_code: failure.exit_code, error: Some(failure.message), ..self.clone() }
    }
}

impl Phase {
    /// The present run, if process 1 runs; it may be paused.
    pub fn run(&self) -> Option<&Run> {
        match self {
            Self::Running(run) => Some(run),
            _ => None,
        }
    }

    /// Nobody in it moves.
    pub fn is_paused(&self) -> bool {
        self.run().is_some_and(|run| run.is_paused)
    }

    /// Docker's word for it: created, running, paused, restarting, exited, removing, and dead for what could not be
    /// removed.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Created { .. } | Self::Starting { .. } => "created",
            Self::Running(run) if run.is_paused => "paused",
            Self::Running(_) => "running",
            Self::Waiting(_) => "restarting",
            Self::Exited(_) => "exited",
            Self::Removing { failure: None, .. } => "removing",
            Self::Removing { failure: Some(_), .. } => "dead",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As engines wrote it that knew one network.
    #[test]
    fn a_run_of_an_older_dozen_is_on_the_default_bridge() {
        let run = |endpoint: &str| -> Run {
            let started = "2026-01-02T03:04:05Z";
            let text = format!(r#"{{"pid":7,"started":"{started}","endpoint":{endpoint},"ports":[]}}"#);
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(run("null").endpoints, []);
        let old =
            run(r#"{"interface":"dz0123abx0001","mac":"02:42:ac:11:00:02","ipv4":"172.17.0.2","ipv4_prefix_length":16,
                "ipv4_gateway":"172.17.0.1","ipv6":null,"ipv6_prefix_length":0,"ipv6_gateway":null}"#);
        assert_eq!(old.endpoints.len(), 1);
        let place = &old.endpoints[0];
        assert_eq!((place.network.clone(), &*place.network_name), (NetworkId::predefined("bridge"), "bridge"));
        assert_eq!((&*place.endpoint.inside, place.endpoint.internal), ("eth0", false));
        let again: Run = serde_json::from_str(&serde_json::to_string(&old).unwrap()).unwrap();
        assert_eq!(again, old);
    }
}
