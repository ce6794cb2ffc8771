//! Which addresses a network gets, decided without touching the host. Docker's words where it refuses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dozen_model::{NetworkSpec, SubnetSpec};
use dozen_network::{BridgeAddresses, BridgeConfig, Ipv4Subnet};

use crate::EngineError;

/// What others have already.
pub(super) struct Surroundings<'a> {
    /// The subnets of this engine's networks.
    pub(super) taken: &'a [BridgeAddresses],
    /// A free IPv4 subnet, for who names none.
    pub(super) free_ipv4: &'a dyn Fn() -> Result<Ipv4Subnet, EngineError>,
    /// A free /64; `None` if the kernel has no IPv6.
    pub(super) free_ipv6: &'a dyn Fn() -> Option<Ipv6Addr>,
}

/// The bridge's name and its addresses.
pub(super) fn decide(
    spec: &NetworkSpec,
    bridge: String,
    around: &Surroundings<'_>,
) -> Result<BridgeAddresses, EngineError> {
    let asked = |ipv4: bool| spec.subnets.iter().find(|subnet| subnet.network.is_ipv4() == ipv4);
    let (ipv4_gateway, ipv4_prefix_length) = match asked(true) {
        Some(SubnetSpec { network: IpAddr::V4(network), prefix_length, gateway, .. }) => {
            let subnet = Ipv4Subnet::containing(*network, *prefix_length);
            if subnet.usable() < 2 {
                return Err(invalid(format!("the subnet {subnet} has no room for a container")));
            }
            if around.taken.iter().any(|other| other.ipv4_subnet().overlaps(subnet)) {
                return Err(overlap());
            }
            let gateway = match gateway {
                Some(IpAddr::V4(gateway)) => *gateway,
                _ => subnet.address(1),
            };
            (gateway, *prefix_length)
        }
        _ => {
            let subnet = (around.free_ipv4)()?;
            (subnet.address(1), subnet.prefix_length())
        }
    };
    let mut addresses =
        BridgeAddresses { name: bridge, ipv4_gateway, ipv4_prefix_length, ipv6_gateway: None, ipv6_prefix_length: 64 };
    if !spec.ipv6 {
        return Ok(addresses);
    }
    match asked(false) {
        Some(SubnetSpec { network: IpAddr::V6(network), prefix_length, gateway, .. }) => {
            addresses.ipv6_prefix_length = *prefix_length;
            addresses.ipv6_gateway = Some(match gateway {
                Some(IpAddr::V6(gateway)) => *gateway,
                _ => Ipv6Addr::from_bits(network.to_bits() | 1),
            });
            let overlaps = |other: &BridgeAddresses| {
                let common = other.ipv6_prefix_length.min(*prefix_length);
                let differ = other.ipv6_subnet().map(|subnet| (subnet.to_bits() ^ network.to_bits()).leading_zeros());
                differ.is_some_and(|bits| bits >= u32::from(common))
            };
            if around.taken.iter().any(overlaps) {
                return Err(overlap());
            }
        }
        _ => {
            let subnet = (around.free_ipv6)()
                .ok_or_else(|| invalid("IPv6 is asked for, and this kernel has none".to_owned()))?;
            addresses.ipv6_gateway = Some(Ipv6Addr::from_bits(subnet.to_bits() | 1));
        }
    }
    Ok(addresses)
}

/// The network as the host is to have it.
pub(super) fn config(spec: &NetworkSpec, addresses: &BridgeAddresses) -> BridgeConfig {
    let ipv4 = spec.subnets.iter().find(|subnet| subnet.network.is_ipv4());
    let ipv4_range = ipv4.and_then(|subnet| subnet.range).and_then(|(address, prefix_length)| match address {
        IpAddr::V4(address) => Some(Ipv4Subnet::containing(address, prefix_length)),
        IpAddr::V6(_) => None,
    });
    let kept: BTreeSet<Ipv4Addr> = ipv4
        .into_iter()
        .flat_map(|subnet| subnet.auxiliary.values())
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
        .collect();
    BridgeConfig {
        addresses: addresses.clone(),
        internal: spec.internal,
        masquerade: spec.bridge.masquerade,
        between_containers: spec.bridge.between_containers,
        mtu: spec.bridge.mtu,
        ipv4_range,
        kept,
    }
}

fn overlap() -> EngineError {
    EngineError::Forbidden {
        message: "invalid pool request: Pool overlaps with other one on this address space".into(),
    }
}

fn invalid(message: String) -> EngineError {
    EngineError::Invalid { message, hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(network: &str, prefix_length: u8, gateway: Option<&str>) -> SubnetSpec {
        SubnetSpec {
            network: network.parse().unwrap(),
            prefix_length,
            gateway: gateway.map(|text| text.parse().unwrap()),
            range: None,
            auxiliary: Default::default(),
        }
    }

    fn check(ipv6: bool, subnets: Vec<SubnetSpec>, want: &str) {
        let taken = [BridgeAddresses {
            name: "dozen0".into(),
            ipv4_gateway: [172, 17, 0, 1].into(),
            ipv4_prefix_length: 16,
            ipv6_gateway: Some("fd00::1".parse().unwrap()),
            ipv6_prefix_length: 64,
        }];
        let around = Surroundings {
            taken: &taken,
            free_ipv4: &|| Ok(Ipv4Subnet::containing([172, 18, 0, 0].into(), 16)),
            free_ipv6: &|| Some("fd99::".parse().unwrap()),
        };
        let spec = NetworkSpec { ipv6, subnets, ..NetworkSpec::default() };
        let answer = match decide(&spec, "dz-0".into(), &around) {
            Ok(BridgeAddresses { ipv4_gateway, ipv4_prefix_length, ipv6_gateway, ipv6_prefix_length, .. }) => {
                let ipv6 = ipv6_gateway.map(|gateway| format!(" {gateway}/{ipv6_prefix_length}")).unwrap_or_default();
                format!("{ipv4_gateway}/{ipv4_prefix_length}{ipv6}")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(answer, want);
    }

    #[test]
    fn subnets_are_chosen_or_taken_as_asked() {
        const OVERLAP: &str = "invalid pool request: Pool overlaps with other one on this address space";
        check(false, vec![], "172.18.0.1/16");
        check(true, vec![], "172.18.0.1/16 fd99::1/64");
        check(false, vec![subnet("10.1.0.0", 24, None)], "10.1.0.1/24");
        check(false, vec![subnet("10.1.0.0", 24, Some("10.1.0.254"))], "10.1.0.254/24");
        check(false, vec![subnet("172.17.8.0", 24, None)], OVERLAP);
        check(false, vec![subnet("172.16.0.0", 12, None)], OVERLAP);
        check(false, vec![subnet("10.1.0.0", 31, None)], "the subnet 10.1.0.0/31 has no room for a container");
        check(true, vec![subnet("fd01::", 112, None)], "172.18.0.1/16 fd01::1/112");
        check(
            true,
            vec![subnet("fd01::", 64, Some("fd01::9")), subnet("10.1.0.0", 24, None)],
            "10.1.0.1/24 fd01::9/64",
        );
        check(true, vec![subnet("fd00::", 112, None)], OVERLAP);
        check(true, vec![subnet("fd00::", 16, None)], OVERLAP);
    }
}
