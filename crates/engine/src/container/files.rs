//! hostname, hosts and resolv.conf: the container's own, bound over the image's.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use dozen_model::NetworkMode;
use dozen_network::{files, name_translation, resolv_conf};

use crate::EngineError;
use crate::container::snapshot::{RunEndpoint, Snapshot};
use crate::shared::Shared;

/// The files, by their names in the container's directory, and where each is bound.
pub(crate) const BOUND: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")];

/// The name that the container knows itself by.
pub(crate) fn hostname(shared: &Shared, snapshot: &Snapshot) -> String {
    match (&snapshot.spec.hostname, &snapshot.spec.network) {
        (Some(name), _) => name.clone(),
        (None, _) if snapshot.spec.sharing.host_uts => {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        }
        (None, NetworkMode::Host) => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        // One network, one name: it is the other's. That one cannot be in a third one's, or the chain ends there.
        (None, NetworkMode::Container(other)) => match shared.registry.get(other).map(|entry| entry.snapshot()) {
            Some(other) if !matches!(other.spec.network, NetworkMode::Container(_)) => hostname(shared, &other),
            _ => other.short().to_owned(),
        },
        (None, NetworkMode::Bridge | NetworkMode::None | NetworkMode::Network(_)) => snapshot.id.short().to_owned(),
    }
}

/// Where the files lie: a container in another's network sees the other's.
pub(crate) fn directory(shared: &Shared, snapshot: &Snapshot) -> PathBuf {
    match &snapshot.spec.network {
        NetworkMode::Container(other) => shared.data_directory(other),
        _ => snapshot.directory.clone(),
    }
}

/// Writes all three anew, in place: a file that is bound into a container keeps its inode.
pub(crate) fn write(
    shared: &Shared,
    snapshot: &Snapshot,
    endpoints: &[RunEndpoint],
    gateway: &Option<IpAddr>,
) -> Result<(), EngineError> {
    if matches!(snapshot.spec.network, NetworkMode::Container(_)) {
        return Ok(());
    }
    let hostname = hostname(shared, snapshot);
    let domain = snapshot.spec.domainname.as_deref();
    let addresses: Vec<IpAddr> = endpoints.iter().flat_map(|place| place.endpoint.addresses()).collect();
    // The host as it sees it: by the network that leads out.
    let own = endpoints.iter().map(|place| &place.endpoint).filter(|endpoint| !endpoint.internal);
    let by_ipv4 = own.clone().find_map(|endpoint| endpoint.ipv4_gateway.map(IpAddr::V4));
    let by_ipv6 = || own.clone().find_map(|endpoint| endpoint.ipv6_gateway.map(IpAddr::V6));
    let gateway = by_ipv4.or_else(by_ipv6).or(*gateway);
    let mut extra = Vec::new();
    for entry in &snapshot.spec.extra_hosts {
        let address = entry.address.or(gateway).ok_or_else(|| EngineError::Invalid {
            message: format!("host-gateway of --add-host {} needs the bridge network", entry.name),
            hint: Some("give the address itself, or use --network bridge".into()),
        })?;
        extra.push((entry.name.clone(), address));
    }
    let host_resolv = read_or_empty("/etc/resolv.conf")?;
    let systemd_resolv = std::fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
    let shares_host = snapshot.spec.network == NetworkMode::Host;
    let has_names = crate::naming::has_names(endpoints);
    let resolv = resolv_conf(snapshot, has_names, &host_resolv, systemd_resolv.as_deref());
    let host_hosts = if shares_host { read_or_empty("/etc/hosts")? } else { String::new() };
    let hosts = host_hosts
        + &if shares_host { extra_lines(&extra) } else { files::hosts(&hostname, domain, &addresses, &extra) };
    for (name, text) in [("resolv.conf", resolv), ("hostname", format!("{hostname}\n")), ("hosts", hosts)] {
        let path = snapshot.directory.join(name);
        std::fs::write(&path, text).map_err(EngineError::system(|| format!("write {}", path.display())))?;
    }
    Ok(())
}

fn resolv_conf(snapshot: &Snapshot, has_names: bool, host: &str, systemd: Option<&str>) -> String {
    let dns = &snapshot.spec.dns;
    let overrides = resolv_conf::Overrides { servers: &dns.servers, search: &dns.search, options: &dns.options };
    match &snapshot.spec.network {
        NetworkMode::Host => resolv_conf::shared_with_host(host, overrides),
        _ if has_names => resolv_conf::of_resolver(name_translation::NAME_SERVER, host, overrides),
        _ => resolv_conf::of_host(host, systemd, overrides),
    }
}

fn extra_lines(extra: &[(String, IpAddr)]) -> String {
    extra.iter().map(|(name, address)| format!("{address}\t{name}\n")).collect()
}

fn read_or_empty(path: impl AsRef<Path>) -> Result<String, EngineError> {
    match std::fs::read_to_string(path.as_ref()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(EngineError::System { action: format!("read {}", path.as_ref().display()), source: error })
        }
        other => Ok(other.unwrap_or_default()),
    }
}
