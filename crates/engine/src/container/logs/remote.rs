//! Which log server a driver means, and where it is.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use dozen_model::{LogAddress, LogDriver};
use dozen_monitor::protocol::{Protocol, RemoteAddress};

use crate::EngineError;

/// A server, as its driver's options say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) protocol: Protocol,
    pub(super) address: RemoteAddress,
    pub(super) may_be_absent: bool,
    pub(super) retry_wait_ms: u64,
}

/// systemd's "Native Journal Protocol".
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where the host's own syslog listens, in the order in which Docker tries.
const SYSLOG: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const RETRY_WAIT_MS: u64 = 500;

/// `None`: the driver has no server.
pub(super) fn destination(driver: &LogDriver) -> Result<Option<Destination>, EngineError> {
    let destination = match driver {
        LogDriver::JsonFile | LogDriver::Local | LogDriver::None => return Ok(None),
        LogDriver::Syslog(options) => Destination {
            protocol: Protocol::Syslog { format: options.format, facility: options.facility, hostname: hostname() },
            address: match &options.address {
                Some(address) => resolve(address)?,
                None => {
                    let socket = SYSLOG.iter().find(|path| Path::new(path).exists()).unwrap_or(&SYSLOG[0]);
                    RemoteAddress::UnixDatagram(socket.into())
                }
            },
            may_be_absent: false,
            retry_wait_ms: RETRY_WAIT_MS,
        },
        LogDriver::Fluentd(options) => Destination {
            protocol: Protocol::Fluentd { sub_second_precision: options.sub_second_precision },
            address: resolve(&options.address)?,
            may_be_absent: options.asynchronous,
            retry_wait_ms: options.retry_wait_ms,
        },
        LogDriver::Journald => Destination {
            protocol: Protocol::Journald,
            address: RemoteAddress::UnixDatagram(JOURNAL.into()),
            may_be_absent: false,
            retry_wait_ms: RETRY_WAIT_MS,
        },
        LogDriver::Gelf(options) => Destination {
            protocol: Protocol::Gelf { host: hostname(), compression: options.compression },
            address: resolve(&options.address)?,
            may_be_absent: false,
            retry_wait_ms: options.retry_wait_ms,
        },
    };
    Ok(Some(destination))
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn resolve(address: &LogAddress) -> Result<RemoteAddress, EngineError> {
    Ok(match address {
        LogAddress::Unix(path) => RemoteAddress::Unix(path.clone()),
        LogAddress::UnixDatagram(path) => RemoteAddress::UnixDatagram(path.clone()),
        LogAddress::Udp(host, port) => RemoteAddress::Udp(SocketAddr::new(address_of(host)?, *port)),
        LogAddress::Tcp(host, port) => RemoteAddress::Tcp(SocketAddr::new(address_of(host)?, *port)),
    })
}

/// An address as it is, or as /etc/hosts (hosts(5)) knows it. A name server is not asked: one that is dead would keep every
/// container from starting, and glibc's own resolver cannot be used from a static binary.
fn address_of(host: &str) -> Result<IpAddr, EngineError> {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    dozen_lookup::known(host, &hosts).ok_or_else(|| EngineError::Invalid {
        message: format!("failed to initialize logging driver: lookup {host}: no such host"),
        hint: Some("name the log server by its address, or in /etc/hosts".to_owned()),
    })
}
