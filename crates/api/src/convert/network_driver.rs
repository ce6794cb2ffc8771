//! `Driver` and `Options` of a network that lies on an interface of the host's: macvlan and ipvlan. Docker's words where
//! it refuses.

use std::collections::BTreeMap;

use dozen_model::{BridgeOptions, IpvlanFlag, IpvlanMode, MacvlanMode, NetworkDriver, Parent};

use super::network_request::{is_interface_name, mtu, shortened};
use crate::error::ApiError;

/// The drivers whose containers lie on an interface of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Macvlan,
    Ipvlan,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }
}

/// What the options mean. Docker takes any name and minds those that it knows; here another is refused.
pub(super) fn options(
    kind: Kind,
    given: &BTreeMap<String, String>,
) -> Result<(NetworkDriver, BridgeOptions), ApiError> {
    let mut general = BridgeOptions::default();
    let (mut parent, mut mode, mut flag) = (Parent::Nowhere, "", "");
    for (name, value) in given {
        match (kind, name.as_str()) {
            (_, "parent") => parent = parent_named(kind, value)?,
            (Kind::Macvlan, "macvlan_mode") | (Kind::Ipvlan, "ipvlan_mode") => mode = value,
            (Kind::Ipvlan, "ipvlan_flag") => flag = value,
            (_, "com.docker.network.driver.mtu") => general.mtu = mtu(name, value)?,
            _ => {
                let built = match kind {
                    Kind::Macvlan => "parent, macvlan_mode",
                    Kind::Ipvlan => "parent, ipvlan_mode, ipvlan_flag",
                };
                let what = format!("the {} option {:?}", kind.as_str(), shortened(name));
                return Err(
                    ApiError::not_built(what).with_hint(format!("built are {built} and com.docker.network.driver.mtu"))
                );
            }
        }
    }
    let invalid = |what: &str, value: &str, default: &str| {
        let (value, kind) = (shortened(value), kind.as_str());
        let kind_of = what.split(' ').next_back().unwrap_or_default();
        ApiError::invalid(format!(
            "requested {what} '{value}' is not valid, '{default}' {kind_of} is the {kind} driver default"
        ))
    };
    let driver = match kind {
        Kind::Macvlan => {
            let mode = MacvlanMode::named(mode).ok_or_else(|| invalid("macvlan mode", mode, "bridge"))?;
            NetworkDriver::Macvlan { parent, mode }
        }
        Kind::Ipvlan => {
            let mode = IpvlanMode::named(mode).ok_or_else(|| invalid("ipvlan mode", mode, "l2"))?;
            let flag = IpvlanFlag::named(flag).ok_or_else(|| invalid("ipvlan flag", flag, "bridge"))?;
            NetworkDriver::Ipvlan { parent, mode, flag }
        }
    };
    Ok((driver, general))
}

/// Whether the host has the interface is the engine's to see.
fn parent_named(kind: Kind, name: &str) -> Result<Parent, ApiError> {
    match name {
        "" => Ok(Parent::Nowhere),
        "lo" => {
            let message = format!("loopback interface is not a valid {} parent link", kind.as_str());
            Err(ApiError::invalid(message))
        }
        name if is_interface_name(name) => Ok(Parent::Interface(name.to_owned())),
        name => Err(ApiError::invalid(format!("invalid parent interface {:?}", shortened(name)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, given: &[(&str, &str)]) -> Result<NetworkDriver, String> {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        options(kind, &given).map(|(driver, _)| driver).map_err(|error| error.message)
    }

    #[test]
    fn options_mean_what_docker_means_by_them() {
        let eth0 = || Parent::Interface("eth0.10".to_owned());
        assert_eq!(
            read(Kind::Macvlan, &[("parent", "eth0.10"), ("macvlan_mode", "vepa")]),
            Ok(NetworkDriver::Macvlan { parent: eth0(), mode: MacvlanMode::Vepa })
        );
        assert_eq!(
            read(Kind::Macvlan, &[]),
            Ok(NetworkDriver::Macvlan { parent: Parent::Nowhere, mode: MacvlanMode::Bridge })
        );
        assert_eq!(
            read(Kind::Ipvlan, &[("parent", "eth0.10"), ("ipvlan_mode", "l3s"), ("ipvlan_flag", "private")]),
            Ok(NetworkDriver::Ipvlan { parent: eth0(), mode: IpvlanMode::L3s, flag: IpvlanFlag::Private })
        );
        let given = BTreeMap::from([("com.docker.network.driver.mtu".to_owned(), "1400".to_owned())]);
        assert_eq!(options(Kind::Macvlan, &given).unwrap().1.mtu, Some(1400));
    }

    #[test]
    fn what_cannot_be_is_refused_in_dockers_words() {
        for (kind, name, value, words) in [
            (
                Kind::Macvlan,
                "macvlan_mode",
                "l2",
                "requested macvlan mode 'l2' is not valid, 'bridge' mode is the macvlan driver default",
            ),
            (
                Kind::Ipvlan,
                "ipvlan_mode",
                "l4",
                "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan driver default",
            ),
            (
                Kind::Ipvlan,
                "ipvlan_flag",
                "x",
                "requested ipvlan flag 'x' is not valid, 'bridge' flag is the ipvlan driver default",
            ),
            (Kind::Ipvlan, "parent", "lo", "loopback interface is not a valid ipvlan parent link"),
            (Kind::Macvlan, "parent", "a/b", "invalid parent interface \"a/b\""),
            (Kind::Macvlan, "ipvlan_mode", "l2", "the macvlan option \"ipvlan_mode\" is not built yet"),
            (Kind::Ipvlan, "com.docker.network.bridge.name", "x", "is not built yet"),
        ] {
            let message = read(kind, &[(name, value)]).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
