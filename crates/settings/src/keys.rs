//! Every key of Docker's `daemon.json` (its documentation's list, and dockerd 28's flags): whether it acts. `allowed-hosts` is
//! ours.

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It acts.
    Acts,
    /// It is refused for this reason.
    Refused(&'static str),
}

use Fate::{Acts, Refused};

const NOT_BUILT: Fate = Refused("it is not built yet");
const FOREIGN: Fate = Refused("layers that others may not pass on are not pushed");
const PROXIES: Fate = Refused("the engine's proxies are in its environment: HTTP_PROXY, HTTPS_PROXY, NO_PROXY");
const NETWORKS: Fate = Refused("of the default bridge only bip, fixed-cidr, icc, ipv6 and mtu can be set yet");
const FIREWALL: Fate = Refused("the engine has an nftables table of its own, which is always there");
const STORAGE: Fate = Refused("there is one storage driver, overlay2");
const PLUGINS: Fate = Refused("there are no plugins");
const SWARM: Fate = Refused("there is no Swarm");
const CONTAINERD: Fate = Refused("there is no containerd");

/// All of them, by name. A slice that builds one turns its row to [`Acts`] and gives `Settings` a field.
pub(crate) const KEYS: &[(&str, Fate)] = &[
    ("allow-direct-routing", NETWORKS),
    ("allow-nondistributable-artifacts", FOREIGN),
    ("allowed-hosts", Acts),
    ("api-cors-header", Refused("Docker has removed it as well")),
    ("authorization-plugins", PLUGINS),
    ("bip", Acts),
    ("bip6", NETWORKS),
    ("bridge", NETWORKS),
    ("bridge-accept-fwmark", NETWORKS),
    ("builder", Acts),
    ("cdi-spec-dirs", Acts),
    ("certs-dirs", Acts), // dozen's own
    ("cgroup-parent", Acts),
    ("collection", Acts), // dozen's own
    ("config-file", Refused("a file cannot name another one")),
    ("containerd", CONTAINERD),
    ("containerd-namespace", CONTAINERD),
    ("containerd-plugins-namespace", CONTAINERD),
    ("cpu-rt-period", NOT_BUILT),
    ("cpu-rt-runtime", NOT_BUILT),
    ("data-root", Acts),
    ("debug", Acts),
    ("default-address-pools", Acts),
    ("default-cgroupns-mode", Acts),
    ("default-gateway", NETWORKS),
    ("default-gateway-v6", NETWORKS),
    ("default-ipc-mode", Acts),
    ("default-network-opts", NETWORKS),
    ("default-runtime", Refused("there is one runtime")),
    ("default-shm-size", Acts),
    ("default-ulimits", Acts),
    ("dns", Acts),
    ("dns-opts", Acts),
    ("dns-search", Acts),
    ("exec-opts", NOT_BUILT),
    (
        "exec-root",
        Refused(
            "the CLI has to know the run root too: it is set with --run-root, or DOZEN_RUN_ROOT in the environment",
        ),
    ),
    ("experimental", Refused("nothing is experimental")),
    ("features", NOT_BUILT),
    ("firewall-backend", FIREWALL),
    ("fixed-cidr", Acts),
    ("fixed-cidr-v6", NETWORKS),
    ("group", Acts),
    ("host-gateway-ip", NETWORKS),
    ("host-gateway-ips", NETWORKS),
    ("hosts", Acts),
    ("http-proxy", PROXIES),
    ("https-proxy", PROXIES),
    ("icc", Acts),
    ("init", Refused("a container's own --init is what counts")),
    ("init-path", Refused("dozen itself is the init")),
    ("insecure-registries", Acts),
    ("ip", Acts),
    ("ip-forward", FIREWALL),
    ("ip-forward-no-drop", FIREWALL),
    ("ip-masq", FIREWALL),
    ("ip6tables", FIREWALL),
    ("iptables", FIREWALL),
    ("ipv6", Acts),
    ("labels", Acts),
    ("live-restore", Acts),
    ("log-driver", Acts),
    ("log-format", NOT_BUILT),
    ("log-level", Acts),
    ("log-opts", Acts),
    ("max-concurrent-downloads", Acts),
    ("max-concurrent-uploads", Acts),
    ("max-download-attempts", Acts),
    ("metrics-addr", NOT_BUILT),
    ("min-api-version", Acts),
    ("mtu", Acts),
    ("network-control-plane-mtu", SWARM),
    ("no-new-privileges", Acts),
    ("no-proxy", PROXIES),
    ("node-generic-resources", SWARM),
    ("pidfile", Refused("a lock in the run root says which engine runs, and that cannot be out of date")),
    ("proxies", PROXIES),
    ("raw-logs", NOT_BUILT),
    ("registry-listen", Acts), // dozen's own
    ("registry-mirrors", Acts),
    ("runtimes", Refused("there is one runtime")),
    ("seccomp-profile", Acts),
    ("selinux-enabled", NOT_BUILT),
    ("shutdown-timeout", Refused("the engine's end does not end containers")),
    ("signature-policy", Acts), // dozen's own
    ("storage-driver", STORAGE),
    ("storage-opts", STORAGE),
    ("swarm-default-advertise-addr", SWARM),
    ("tls", Acts),
    ("tlscacert", Acts),
    ("tlscert", Acts),
    ("tlskey", Acts),
    ("tlsverify", Acts),
    ("userland-proxy", NETWORKS),
    ("userland-proxy-path", NETWORKS),
    ("userns-pool", Acts), // dozen's own
    ("userns-remap", Acts),
];

/// What becomes of this key; `None`: nobody knows it.
pub(crate) fn fate(key: &str) -> Option<Fate> {
    KEYS.iter().find(|(name, _)| *name == key).map(|(_, fate)| *fate)
}

/// The key that was meant, perhaps: at most a third of it is another.
pub(crate) fn nearest(word: &str) -> Option<&'static str> {
    let plain = word.to_ascii_lowercase().replace('_', "-");
    let distances = KEYS.iter().map(|(name, _)| (distance(&plain, name), *name));
    distances.min().filter(|(distance, name)| distance * 3 <= name.len()).map(|(_, name)| name)
}

/// How many letters have to be put in, taken out or changed (Levenshtein's distance).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_order_and_once() {
        assert!(KEYS.is_sorted_by(|(one, _), (next, _)| one < next));
    }

    #[test]
    fn a_slip_of_the_pen_finds_its_key() {
        for (word, key) in [
            ("log_driver", Some("log-driver")),
            ("loglevel", Some("log-level")),
            ("host", Some("hosts")),
            ("Debug", Some("debug")),
            ("registry-mirror", Some("registry-mirrors")),
            ("something-of-mine", None),
            ("", None),
        ] {
            assert_eq!(nearest(word), key, "{word}");
        }
    }
}
