//! Kernel settings of one interface of a container's, as `com.docker.network.endpoint.sysctls` has them:
//! `net.ipv4.conf.IFNAME.log_martians=1`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// More than any setting's name or value.
const LONGEST: usize = 128;

/// A setting of one interface, whatever the interface is called, and its value. Nothing in it leads to another setting:
/// what stands below /proc/sys/net is put together from a fixed directory, the interface and one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceSysctl {
    directory: Directory,
    /// Lower-case letters, digits and `_`.
    name: String,
    /// One line of what can be printed.
    value: String,
}

/// Where the kernel keeps settings by interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directory {
    Ipv4Conf,
    Ipv4Neighbours,
    Ipv6Conf,
    Ipv6Neighbours,
    MplsConf,
}

impl Directory {
    const ALL: [Self; 5] = [Self::Ipv4Conf, Self::Ipv4Neighbours, Self::Ipv6Conf, Self::Ipv6Neighbours, Self::MplsConf];

    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Ipv4Conf => ("ipv4", "conf"),
            Self::Ipv4Neighbours => ("ipv4", "neigh"),
            Self::Ipv6Conf => ("ipv6", "conf"),
            Self::Ipv6Neighbours => ("ipv6", "neigh"),
            Self::MplsConf => ("mpls", "conf"),
        }
    }
}

impl InterfaceSysctl {
    /// Where it lies below /proc/sys/net for the interface of this name.
    pub fn path(&self, interface: &str) -> String {
        let (family, kind) = self.directory.parts();
        format!("{family}/{kind}/{interface}/{}", self.name)
    }

    /// What it is set to.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether these together leave the interface without IPv6; `None` if they do not say.
    pub fn disable_ipv6(all: &[Self]) -> Option<bool> {
        let said = |one: &&Self| one.directory == Directory::Ipv6Conf && one.name == "disable_ipv6";
        all.iter().rfind(said).map(|one| one.value.trim().parse::<i64>() != Ok(0))
    }
}

impl fmt::Display for InterfaceSysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, kind) = self.directory.parts();
        write!(f, "net.{family}.{kind}.IFNAME.{}={}", self.name, self.value)
    }
}

impl From<InterfaceSysctl> for String {
    fn from(sysctl: InterfaceSysctl) -> Self {
        sysctl.to_string()
    }
}

impl TryFrom<String> for InterfaceSysctl {
    type Error = InterfaceSysctlError;
    fn try_from(text: String) -> Result<Self, InterfaceSysctlError> {
        text.parse()
    }
}

/// Text that is no setting of an interface (Docker's words, where it refuses too).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unrecognised network interface sysctl '{0}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be \
     'ipv4', 'ipv6' or 'mpls', 'Y' is 'conf' or 'neigh'"
)]
pub struct InterfaceSysctlError(String);

impl FromStr for InterfaceSysctl {
    type Err = InterfaceSysctlError;
    fn from_str(text: &str) -> Result<Self, InterfaceSysctlError> {
        let invalid = || InterfaceSysctlError(text.chars().take(LONGEST).collect());
        let (key, value) = text.split_once('=').ok_or_else(invalid)?;
        let parts: Vec<&str> = key.split('.').collect();
        // Clients have been known to write all of it in lower case.
        let ["net", family, kind, "IFNAME" | "ifname", name] = parts[..] else { return Err(invalid()) };
        let directory = Directory::ALL.into_iter().find(|it| it.parts() == (family, kind)).ok_or_else(invalid)?;
        let names = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_name = (1..=LONGEST).contains(&name.len()) && name.bytes().all(names);
        let is_value =
            (1..=LONGEST).contains(&value.len()) && value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        if !is_name || !is_value {
            return Err(invalid());
        }
        Ok(Self { directory, name: name.to_owned(), value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<InterfaceSysctl, InterfaceSysctlError> {
        text.parse()
    }

    #[test]
    fn a_setting_is_the_interfaces_own() {
        for (text, path, value) in [
            ("net.ipv4.conf.IFNAME.log_martians=1", "ipv4/conf/eth7/log_martians", "1"),
            ("net.ipv6.conf.ifname.accept_ra=2", "ipv6/conf/eth7/accept_ra", "2"),
            ("net.ipv4.neigh.IFNAME.base_reachable_time_ms=1000", "ipv4/neigh/eth7/base_reachable_time_ms", "1000"),
            ("net.ipv6.neigh.IFNAME.gc_stale_time=60", "ipv6/neigh/eth7/gc_stale_time", "60"),
            ("net.mpls.conf.IFNAME.input=1", "mpls/conf/eth7/input", "1"),
            ("net.ipv6.conf.IFNAME.stable_secret=2001:db8::1", "ipv6/conf/eth7/stable_secret", "2001:db8::1"),
        ] {
            let sysctl = read(text).unwrap();
            assert_eq!((sysctl.path("eth7").as_str(), sysctl.value()), (path, value));
            assert_eq!(read(&sysctl.to_string()), Ok(sysctl));
        }
    }

    #[test]
    fn nothing_else_is_one() {
        for text in [
            "",
            "net.ipv4.conf.IFNAME.log_martians",
            "net.ipv4.conf.eth0.log_martians=1",
            "net.ipv4.conf.all.log_martians=1",
            "net.ipv4.ip_forward=1",
            "net.core.conf.IFNAME.somaxconn=1",
            "kernel.ipv4.conf.IFNAME.x=1",
            "net.ipv4.vs.IFNAME.x=1",
            "net.ipv4.../../../kernel.IFNAME.core_pattern=|/x",
            "net.ipv4.conf.IFNAME.../../../kernel/core_pattern=|/x",
            "net.ipv4.conf.IFNAME./etc/passwd=x",
            "net.ipv4.conf.IFNAME.log_martians.more=1",
            "net.ipv4.conf.IFNAME.log_martians=",
            "net.ipv4.conf.IFNAME.log_martians=1\n2",
            "net.ipv4.conf.IFNAME.log_martians=\0",
            "net.mpls.neigh.IFNAME.x=1",
            &format!("net.ipv4.conf.IFNAME.x={}", "9".repeat(200)),
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let words = read("net.ipv4.ip_forward=1").unwrap_err().to_string();
        assert!(
            words.starts_with("unrecognised network interface sysctl 'net.ipv4.ip_forward=1'; represent"),
            "{words}"
        );
    }

    #[test]
    fn the_last_word_about_ipv6_counts() {
        let said = |texts: &[&str]| {
            InterfaceSysctl::disable_ipv6(&texts.iter().map(|text| read(text).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(said(&["net.ipv4.conf.IFNAME.log_martians=1"]), None);
        assert_eq!(said(&["net.ipv6.conf.IFNAME.disable_ipv6=1"]), Some(true));
        let both = ["net.ipv6.conf.IFNAME.disable_ipv6=1", "net.ipv6.conf.IFNAME.disable_ipv6=0"];
        assert_eq!(said(&both), Some(false));
    }
}
