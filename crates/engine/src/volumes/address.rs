//! The address of a host that a volume's options name: the kernel mounts from addresses only.

use std::net::IpAddr;

use dozen_model::ErrorKind;
use dozen_monitor::protocol::Failure;

/// Blocks.
pub(super) fn of_host(host: &str) -> Result<IpAddr, Failure> {
    dozen_lookup::addresses_of(host).into_iter().next().ok_or_else(|| Failure {
        kind: ErrorKind::Unavailable,
        message: format!("error resolving passed in network volume address: lookup {host}: no such host"),
        hint: Some("name the server by its address, or in /etc/hosts".to_owned()),
    })
}
