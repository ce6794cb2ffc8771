//! What engine and monitor say to each other.
//!
//! ```text
//! engine                                              monitor
//!   │ spawn, stdin = one end of a SOCK_SEQPACKET pair    │
//!   ├─ StartRequest  (+ netns descriptor) ──────────────▶│ detaches itself, creates the container,
//!   │◀───────────────────────── StartReply::Created ─────┤ listens on <run_directory>/monitor.sock
//!   │   (attaches clients through monitor.sock)          │
//!   ├─ Go ──────────────────────────────────────────────▶│ lets the process exec
//!   │◀─────────────── StartReply::Started | Failed ──────┤ and the pair is closed
//!
//! any engine, any number of connections to monitor.sock (SOCK_STREAM), one request each:
//!   ├─ Request, one line of JSON ───────────────────────▶│
//!   │◀──────────────────────────── Reply, one line ──────┤
//!   │   then for Attach and Exec with streams, both ways │
//!   ├─ bytes of stdin, shutdown(WR) is end of file ─────▶│
//!   │◀── output: raw with a terminal, else Docker's ─────┤
//!   │    frames (1 byte stream, 3 zero, 4 length)        │
//!   for Watch the Replies go on, a line per event, until the container has ended
//! ```
//!
//! The protocol is versioned by [`VERSION`]: an engine talks to monitors that an older dozen started, so a
//! field is only ever added, with a default.

use std::path::PathBuf;

use dozen_model::{ErrorKind, UserSpec};
use dozen_runtime::{Root, Spec};
use serde::{Deserialize, Serialize};

pub use crate::log::settings::{LogFileSettings, LogFormat, LogSettings, Protocol, RemoteAddress, RemoteSettings};

/// Raised when an older monitor could misunderstand a request.
pub const VERSION: u32 = 1;

/// Everything that a monitor has to know, sent once, before it detaches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRequest {
    /// [`VERSION`] of the engine that asks.
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// On the data root: log, exit record. Survives a reboot.
    pub data_directory: PathBuf,
    /// On the run root: monitor.sock and its lock.
    pub run_directory: PathBuf,
    /// What to run. Names of users are looked up inside, by `user`.
    pub spec: Box<Spec>,
    /// The root file system.
    pub root: Root,
    /// The container's cgroup, below each hierarchy's mount point: `/dozen/<id>`.
    pub cgroup: String,
    /// The cgroup of monitors: `/dozen/monitors`.
    pub monitor_cgroup: String,
    /// Whom the process runs as, looked up in the container's own /etc/passwd and /etc/group.
    pub user: UserSpec,
    /// Further groups of it, by names of the same file.
    #[serde(default)]
    pub group_names: Vec<String>,
    /// Standard input stays open for clients; without it, /dev/null.
    pub stdin_open: bool,
    /// Standard input ends with the first client that had attached to it.
    pub stdin_once: bool,
    /// `--init`: dozen's own init is process 1.
    pub init: bool,
    /// What becomes of its output.
    pub log: LogSettings,
    /// A network namespace descriptor comes with this message, to be joined in place of the spec's.
    pub network_namespace_attached: bool,
    /// Variables that process 1 has besides, and nobody else: no exec, and nothing that is written down.
    #[serde(default)]
    pub secret_environment: SecretEnvironment,
}

/// `NAME=VALUE`s of which the values are nobody's to see. They win over those of the spec.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEnvironment(pub Vec<String>);

impl std::fmt::Debug for SecretEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretEnvironment({})", self.0.len())
    }
}

impl SecretEnvironment {
    /// Others with these among them. Of those with one name the last is left.
    pub fn over(&self, mut others: Vec<String>) -> Vec<String> {
        let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
        for entry in &self.0 {
            others.retain(|other| name(other) != name(entry));
            others.push(entry.clone());
        }
        others
    }
}

/// What the monitor answers while it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum StartReply {
    /// The container stands and waits; the socket listens.
    Created {
        /// Process 1, in the host's pid namespace.
        pid: i32,
    },
    /// The process runs the wanted program.
    Started,
    /// Nothing is left: the monitor has undone everything.
    Failed(Failure),
}

/// A failure that crosses the process boundary with its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// What failed, on what, and why: the whole chain in one line.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// The engine's go-ahead on the start pair.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Go;

/// A request on monitor.sock: the first line of a connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// The state now, then a line per event: answers [`Reply::State`], then events.
    Watch,
    /// Send a signal to process 1, or to every process of the container.
    Signal {
        /// 1 to 64.
        signal: i32,
        /// The whole cgroup, by cgroup.kill where there is one.
        all: bool,
    },
    /// Size of the container's terminal.
    Resize(WindowSize),
    /// Follow and feed the container's streams from now on.
    Attach {
        /// The bytes that follow are standard input.
        stdin: bool,
        /// Send standard output.
        stdout: bool,
        /// Send standard error.
        stderr: bool,
        /// Tell where the log ends, and begin with what it does not have yet: answers [`Reply::Attached`].
        #[serde(default)]
        log: bool,
    },
    /// Whoever asks may have the container's processes stand still ([`dozen_runtime::Cgroup::pause`]) for as long as this
    /// connection lives: after [`Reply::Done`] it stays open, and when it ends, by whatever death, they run on. A signal
    /// ends it, so that it can be heeded; an exec is refused meanwhile.
    Hold,
    /// Run a further process in the container.
    Exec(Box<ExecRequest>),
    /// Size of an exec's terminal.
    ResizeExec {
        /// Which exec.
        exec_id: String,
        /// Its new size.
        size: WindowSize,
    },
    /// The state of an exec, also after it has ended.
    InspectExec {
        /// Which exec.
        exec_id: String,
    },
    /// Other options for the log, of the same driver, from the next entry on. A monitor that is older than this request
    /// refuses it as one that it does not understand ([`ErrorKind::Invalid`], which it is refused with for no other reason).
    ChangeLog(Box<LogSettings>),
}

/// A place in the log: all before it has been written, and nothing after it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// The newest file, by its inode's number: a rotation gives it another name.
    pub inode: u64,
    /// Its size.
    pub size_bytes: u64,
}

/// Rows and columns of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters on a line.
    pub columns: u16,
}

/// A further process in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Its id.
    pub exec_id: String,
    /// Command line; never empty.
    pub arguments: Vec<String>,
    /// The whole environment, `NAME=value`.
    pub environment: Vec<String>,
    /// Absolute path inside; `None`: the container's own.
    pub working_directory: Option<String>,
    /// Empty: the container's own user.
    pub user: UserSpec,
    /// A terminal of its own.
    pub terminal: bool,
    /// Its first size.
    pub size: Option<WindowSize>,
    /// All capabilities, and no seccomp.
    pub privileged: bool,
    /// The bytes that follow are standard input; without it, /dev/null.
    pub stdin: bool,
    /// Send standard output.
    pub stdout: bool,
    /// Send standard error.
    pub stderr: bool,
}

/// The monitor's answers and events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done; for Attach and Exec the streams follow.
    Done,
    /// Answer of Attach with `log`: the streams follow, from this place in the log on. A monitor that is older than the
    /// question answers [`Reply::Done`].
    Attached(LogEnd),
    /// First answer of Watch.
    State {
        /// Process 1, in the host's pid namespace.
        pid: i32,
        /// The go-ahead was given and the wanted program runs. A monitor that is not yet so far ends by itself
        /// when the engine that was starting it is gone.
        started: bool,
        /// Execs that run now.
        execs: Vec<String>,
    },
    /// An exec's process was started.
    ExecStarted {
        /// Which.
        exec_id: String,
        /// Its process id on the host.
        pid: i32,
    },
    /// An exec's process has ended and its output is complete.
    ExecExited {
        /// Which.
        exec_id: String,
        /// 0 to 255; 128 and the signal's number for one that was killed.
        exit_code: i32,
    },
    /// The container has ended; its record is on disk. The last line of a Watch.
    Exited(ExitRecord),
    /// The request failed.
    Failed(Failure),
}

/// How a container ended: `<data_directory>/exit.json`, written by rename before anyone hears of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// 0 to 255; 128 and the signal's number for one that was killed.
    pub exit_code: i32,
    /// When, as RFC 3339 with nanoseconds, UTC.
    pub finished_at: String,
    /// The kernel killed a process of it for want of memory.
    pub out_of_memory: bool,
    /// How many processes of it. Older monitors did not count.
    #[serde(default)]
    pub oom_kills: u64,
    /// Why, if it is not the process's own doing: "the monitor died".
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_win_and_are_not_shown() {
        let list = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>();
        let secrets = SecretEnvironment(list(&["A=1", "B=hunter2", "A=2"]));
        assert_eq!(secrets.over(list(&["PATH=/bin", "AB=x", "A=0"])), ["PATH=/bin", "AB=x", "B=hunter2", "A=2"]);
        assert_eq!(format!("{secrets:?}"), "SecretEnvironment(3)");
    }
}
