//! What a container is to do for names that nobody near it has.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// `--dns`, `--dns-search`, `--dns-option`. Each that says something takes the place of what the host's resolv.conf(5)
/// says of it; what says nothing leaves that as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsSpec {
    /// Name servers, in the order in which they are asked.
    pub servers: Vec<IpAddr>,
    /// Domains to search; `.` alone stands for none.
    pub search: Vec<String>,
    /// Options, as resolv.conf(5) has them: `ndots:2`.
    pub options: Vec<String>,
}

impl DnsSpec {
    /// Whether nothing was asked.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.search.is_empty() && self.options.is_empty()
    }

    /// Whether names of one label are first tried with the search domains: `ndots:N` was asked for, with N above 0.
    pub fn searches_first(&self) -> bool {
        let dots =
            self.options.iter().filter_map(|option| option.strip_prefix("ndots:")?.parse::<u32>().ok()).next_back();
        dots.is_some_and(|dots| dots > 0)
    }
}
