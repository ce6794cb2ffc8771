//! What the engine has a monitor do with a container's output: resolved, so that the monitor decides nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use dozen_model::{GelfCompression, LogDelivery, LogFiles, SyslogFormat};
use serde::{Deserialize, Serialize};

/// Where output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// Files, which `logs` reads.
    pub file: Option<LogFileSettings>,
    /// A server beside them.
    #[serde(default)]
    pub remote: Option<RemoteSettings>,
}

/// A log server, and what it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteSettings {
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it is.
    pub address: RemoteAddress,
    /// Under which name messages go.
    pub tag: String,
    /// The container's id.
    pub container_id: String,
    /// The container's name.
    pub container_name: String,
    /// The image, as the user named it.
    pub image_name: String,
    /// What goes with every message.
    pub attributes: BTreeMap<String, String>,
    /// What happens when messages come faster than they are taken.
    pub delivery: LogDelivery,
    /// The container starts though nobody is there.
    pub may_be_absent: bool,
    /// Between two attempts to connect, doubled each time.
    pub retry_wait_ms: u64,
}

/// What a log server speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A line for each message.
    Syslog {
        /// Of these.
        format: SyslogFormat,
        /// 0 to 23.
        facility: u8,
        /// This host's name.
        hostname: String,
    },
    /// fluentd's forward protocol.
    Fluentd {
        /// Times with nanoseconds.
        sub_second_precision: bool,
    },
    /// systemd's native journal protocol.
    Journald,
    /// Graylog's. All attributes are additional fields, whose names begin with `_`.
    Gelf {
        /// This host's name.
        host: String,
        /// Of datagrams.
        compression: GelfCompression,
    },
}

/// Where a log server is: no name is looked up here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "as in dozen_model::LogAddress")]
pub enum RemoteAddress {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Unix(PathBuf),
    UnixDatagram(PathBuf),
}

impl fmt::Display for RemoteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::UnixDatagram(path) => write!(f, "unixgram://{}", path.display()),
        }
    }
}

/// The log on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFileSettings {
    /// How entries are written.
    pub format: LogFormat,
    /// How much is kept.
    pub files: LogFiles,
    /// What goes with every entry.
    pub attributes: BTreeMap<String, String>,
}

/// How entries are written, each on a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Docker's json-file.
    Json,
    /// Our own ([`super::compact`]).
    Compact,
}

impl LogFormat {
    /// The newest file in a container's directory. The one before it has `.1` after its name, and `.gz` after that if it
    /// is compressed; and so on.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Json => "log.json",
            Self::Compact => "log.local",
        }
    }
}
