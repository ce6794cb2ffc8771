//! The host's name servers, as its resolv.conf(5) says at this moment.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use dozen_names::{Upstreams, name_servers};

const PATH: &str = "/etc/resolv.conf";

/// Read again whenever the file is another or has changed.
#[derive(Default)]
pub struct HostServers {
    servers: Upstreams<IpAddr>,
    seen: Option<Stamp>,
}

/// Device, inode, size, and when it changed.
type Stamp = (u64, u64, u64, i64, i64);

impl HostServers {
    /// True if they are others than they were. Looking costs a microsecond, so that nobody has to be told.
    pub fn look(&mut self) -> bool {
        let stamp = |meta: std::fs::Metadata| (meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec());
        let present = std::fs::metadata(PATH).ok().map(stamp);
        if present == self.seen {
            return false;
        }
        self.seen = present;
        let servers = std::fs::read_to_string(PATH).map(|text| name_servers(&text)).unwrap_or_default();
        self.servers.change(servers)
    }

    /// In the order in which to ask them.
    pub fn order(&self, now: Instant) -> Vec<IpAddr> {
        self.servers.order(now)
    }

    /// To note who was slow.
    pub fn servers(&mut self) -> &mut Upstreams<IpAddr> {
        &mut self.servers
    }
}
