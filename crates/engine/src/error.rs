//! What can go wrong in the engine, in Docker's words where scripts match them.

use dozen_image::ImageError;
use dozen_ledger::LedgerError;
use dozen_model::{Classified, ErrorKind, error_chain};
use dozen_monitor::protocol::Failure;
use dozen_network::{NetworkError, PortsError};

use crate::pull::PullFailure;

/// A failed request, or a part of it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("No such container: {0}")]
    #[allow(missing_docs)]
    NoSuchContainer(String),
    #[error("No such exec instance: {0}")]
    #[allow(missing_docs)]
    NoSuchExec(String),
    #[error("get {0}: no such volume")]
    #[allow(missing_docs)]
    NoSuchVolume(String),
    #[error("no such cache mount: {0}")]
    #[allow(missing_docs)]
    NoSuchCacheMount(String),
    #[error("no such build: {0}")]
    #[allow(missing_docs)]
    NoSuchBuild(String),
    #[error("network {0} not found")]
    #[allow(missing_docs)]
    NoSuchNetwork(String),
    /// A rule of Docker's forbids it, whatever the state.
    #[error("{message}")]
    Forbidden {
        /// The rule.
        message: String,
    },
    /// More than one container's id begins so.
    #[error("Multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// Another container has the name.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// The wanted name.
        name: String,
        /// The id of the one that has it.
        holder: String,
    },
    /// The operation needs a running container.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The state of the container, or of what it uses, forbids it: the sentence says why.
    #[error("{message}")]
    Conflict {
        /// What is in the way.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The request cannot be right.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Known by name, and not built.
    #[error("{message}")]
    NotBuilt {
        /// What is not built.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// It is stopped, or its disk hangs.
    #[error("the container's monitor{} has not answered for {patience_s} s", .pid.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    MonitorHangs {
        /// Its process id on the host, if it is known.
        pid: Option<i32>,
        /// How long it was waited for, in seconds.
        patience_s: u64,
    },
    /// A monitor reported a failure.
    #[error(transparent)]
    Monitor(#[from] Failure),
    #[error(transparent)]
    #[allow(missing_docs)]
    Image(#[from] ImageError),
    #[error(transparent)]
    #[allow(missing_docs)]
    Network(#[from] NetworkError),
    /// Docker puts these words around the bind's own.
    #[error("driver failed programming external connectivity on endpoint: {0}")]
    Ports(#[from] PortsError),
    #[error(transparent)]
    #[allow(missing_docs)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    #[allow(missing_docs)]
    Pull(#[from] PullFailure),
    /// A system call failed.
    #[error("cannot {action}")]
    System {
        /// What was attempted, and on what.
        action: String,
        #[source]
        #[allow(missing_docs)]
        source: std::io::Error,
    },
    /// The engine is going down.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

impl From<dozen_runtime::RuntimeError> for EngineError {
    /// As the monitor tells it: whoever asked need not know which process found out.
    fn from(error: dozen_runtime::RuntimeError) -> Self {
        Failure { kind: error.kind(), message: error_chain(&error), hint: error.hint() }.into()
    }
}

impl EngineError {
    /// Wraps a failed system call: `.map_err(EngineError::system(|| format!("make {path}")))`.
    pub(crate) fn system<E: Into<std::io::Error>>(action: impl FnOnce() -> String) -> impl FnOnce(E) -> Self {
        move |source| Self::System { action: action(), source: source.into() }
    }
}

impl Classified for EngineError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchContainer(_)
            | Self::NoSuchExec(_)
            | Self::NoSuchVolume(_)
            | Self::NoSuchCacheMount(_)
            | Self::NoSuchBuild(_)
            | Self::NoSuchNetwork(_) => ErrorKind::NotFound,
            Self::Forbidden { .. } => ErrorKind::Forbidden,
            Self::Ambiguous(_) | Self::Invalid { .. } => ErrorKind::Invalid,
            Self::NameInUse { .. } | Self::NotRunning(_) | Self::Conflict { .. } => ErrorKind::Conflict,
            Self::NotBuilt { .. } => ErrorKind::NotBuilt,
            Self::Monitor(failure) => failure.kind,
            Self::Image(error) => error.kind(),
            Self::Network(error) => error.kind(),
            Self::Ports(error) => error.kind(),
            Self::Ledger(error) => error.kind(),
            Self::Pull(error) => error.kind(),
            Self::System { source, .. } => match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT | rustix::io::Errno::ROFS) => {
                    ErrorKind::Exhausted
                }
                _ => ErrorKind::Internal,
            },
            Self::ShuttingDown | Self::MonitorHangs { .. } => ErrorKind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NameInUse { name, .. } => Some(format!("dozen rm -f {name}, or choose another --name")),
            Self::NotRunning(name) => Some(format!("dozen start {name}")),
            Self::NoSuchNetwork(_) => Some("dozen network ls lists them".into()),
            Self::NoSuchCacheMount(_) => Some("dozen builder cache ls lists them".into()),
            Self::NoSuchBuild(_) => Some("it is over, or was begun without buildid=".into()),
            Self::Ambiguous(_) => Some("give more digits of the id, or the name".into()),
            Self::Conflict { hint, .. } | Self::Invalid { hint, .. } | Self::NotBuilt { hint, .. } => hint.clone(),
            Self::MonitorHangs { pid, .. } => Some(match pid {
                Some(pid) => format!(
                    "if it was stopped, kill -CONT {pid} lets it go on; dozen kill ends the container without it"
                ),
                None => "dozen kill ends the container without it".into(),
            }),
            Self::Monitor(failure) => failure.hint.clone(),
            Self::Image(error) => error.hint(),
            Self::Network(error) => error.hint(),
            Self::Ports(error) => error.hint(),
            Self::Ledger(error) => error.hint(),
            Self::Pull(error) => error.hint(),
            Self::System { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("free some space on the file system of the data root".into())
            }
            _ => None,
        }
    }
}
