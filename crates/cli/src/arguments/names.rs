//! `--dns`, `--dns-option`, `--dns-search`.

use std::net::IpAddr;

use clap::{Arg, ArgMatches};
use serde_json::{Map, Value};

use crate::arguments::flags::{invalid, list, texts};
use crate::failure::Failure;

/// In the order of Docker's help.
pub fn flags() -> [Arg; 3] {
    [
        list("dns", None, "Set custom DNS servers"),
        list("dns-option", None, "Set DNS options").alias("dns-opt"),
        list("dns-search", None, "Set custom DNS search domains"),
    ]
}

/// Fills `Dns`, `DnsOptions` and `DnsSearch`.
pub fn apply(matches: &ArgMatches, host: &mut Map<String, Value>) -> Result<(), Failure> {
    let servers = texts(matches, "dns");
    for server in &servers {
        let address = server.parse::<IpAddr>();
        address.map_err(|_| invalid(server, "dns", format!("IP address is not correctly formatted: {server}")))?;
    }
    let options = texts(matches, "dns-option");
    for (key, words) in [("Dns", servers), ("DnsOptions", options), ("DnsSearch", texts(matches, "dns-search"))] {
        if !words.is_empty() {
            host.insert(key.to_owned(), words.into());
        }
    }
    Ok(())
}
