//! Which addresses a network gets, decided without touching the host. Docker's words where it refuses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dozen_model::{NetworkSpec, SubnetSpec};
use dozen_network::{BridgeAddresses, BridgeConfig, Ipv4Subnet, Ipv6Subnet};

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
    if !spec.ipv4 && !spec.ipv6 {
        return Err(invalid("a network needs IPv4, IPv6 or both".to_owned()));
    }
    let ipv4 = spec.ipv4.then(|| decide_ipv4(spec, around)).transpose()?;
    let ipv6 = spec.ipv6.then(|| decide_ipv6(spec, around)).transpose()?;
    Ok(BridgeAddresses {
        name: bridge,
        ipv4_gateway: ipv4.map(|(gateway, _)| gateway),
        ipv4_prefix_length: ipv4.map_or(0, |(_, prefix_length)| prefix_length),
        ipv6_gateway: ipv6.map(|(gateway, _)| gateway),
        ipv6_prefix_length: ipv6.map_or(64, |(_, prefix_length)| prefix_length),
    })
}

/// The gateway, and the length of the subnet's prefix.
fn decide_ipv4(spec: &NetworkSpec, around: &Surroundings<'_>) -> Result<(Ipv4Addr, u8), EngineError> {
    let Some((SubnetSpec { prefix_length, gateway, .. }, IpAddr::V4(network))) = asked(spec, true) else {
        let subnet = (around.free_ipv4)()?;
        return Ok((subnet.address(1), subnet.prefix_length()));
    };
    let subnet = Ipv4Subnet::containing(network, *prefix_length);
    if subnet.usable() < 2 {
        return Err(invalid(format!("the subnet {subnet} has no room for a container")));
    }
    if around.taken.iter().filter_map(BridgeAddresses::ipv4_subnet).any(|other| other.overlaps(subnet)) {
        return Err(overlap());
    }
    let gateway = match gateway {
        Some(IpAddr::V4(gateway)) => *gateway,
        _ => subnet.address(1),
    };
    Ok((gateway, *prefix_length))
}

/// As for IPv4.
fn decide_ipv6(spec: &NetworkSpec, around: &Surroundings<'_>) -> Result<(Ipv6Addr, u8), EngineError> {
    let first = |network: Ipv6Addr| Ipv6Addr::from_bits(network.to_bits() | 1);
    let Some((SubnetSpec { prefix_length, gateway, .. }, IpAddr::V6(network))) = asked(spec, false) else {
        let subnet =
            (around.free_ipv6)().ok_or_else(|| invalid("IPv6 is asked for, and this kernel has none".to_owned()))?;
        return Ok((first(subnet), 64));
    };
    let subnet = Ipv6Subnet::containing(network, *prefix_length);
    if around.taken.iter().filter_map(BridgeAddresses::ipv6_subnet).any(|other| other.overlaps(subnet)) {
        return Err(overlap());
    }
    let gateway = match gateway {
        Some(IpAddr::V6(gateway)) => *gateway,
        _ => first(network),
    };
    Ok((gateway, *prefix_length))
}

/// The subnet of this family that was asked for, and its first address.
fn asked(spec: &NetworkSpec, ipv4: bool) -> Option<(&SubnetSpec, IpAddr)> {
    let subnet = spec.subnets.iter().find(|subnet| subnet.network.is_ipv4() == ipv4);
    subnet.map(|subnet| (subnet, subnet.network))
}

/// The network as the host is to have it.
pub(super) fn config(spec: &NetworkSpec, addresses: &BridgeAddresses) -> BridgeConfig {
    let range = |ipv4| asked(spec, ipv4).and_then(|(subnet, _)| subnet.range);
    let ipv4_range = range(true).and_then(|(address, prefix_length)| match address {
        IpAddr::V4(address) => Some(Ipv4Subnet::containing(address, prefix_length)),
        IpAddr::V6(_) => None,
    });
    let ipv6_range = range(false).and_then(|(address, prefix_length)| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(Ipv6Subnet::containing(address, prefix_length)),
    });
    BridgeConfig {
        addresses: addresses.clone(),
        internal: spec.internal,
        masquerade: spec.bridge.masquerade,
        between_containers: spec.bridge.between_containers,
        mtu: spec.bridge.mtu,
        inhibit_ipv4: spec.bridge.inhibit_ipv4,
        gateway_mode_ipv4: spec.bridge.gateway_mode_ipv4,
        gateway_mode_ipv6: spec.bridge.gateway_mode_ipv6,
        ipv4_range,
        ipv6_range,
        kept: spec.subnets.iter().flat_map(|subnet| subnet.auxiliary.values().copied()).collect(),
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
        decided(NetworkSpec { ipv6, subnets, ..NetworkSpec::default() }, want);
    }

    #[track_caller]
    fn decided(spec: NetworkSpec, want: &str) {
        let taken = [BridgeAddresses {
            name: "dozen0".into(),
            ipv4_gateway: Some([172, 17, 0, 1].into()),
            ipv4_prefix_length: 16,
            ipv6_gateway: Some("fd00::1".parse().unwrap()),
            ipv6_prefix_length: 64,
        }];
        let around = Surroundings {
            taken: &taken,
            free_ipv4: &|| Ok(Ipv4Subnet::containing([172, 18, 0, 0].into(), 16)),
            free_ipv6: &|| Some("fd99::".parse().unwrap()),
        };
        let answer = match decide(&spec, "dz-0".into(), &around) {
            Ok(BridgeAddresses { ipv4_gateway, ipv4_prefix_length, ipv6_gateway, ipv6_prefix_length, .. }) => {
                let ipv4 = ipv4_gateway.map(|gateway| format!("{gateway}/{ipv4_prefix_length}"));
                let ipv6 = ipv6_gateway.map(|gateway| format!("{gateway}/{ipv6_prefix_length}"));
                ipv4.into_iter().chain(ipv6).collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(answer, want);
    }

    #[test]
    fn a_network_may_have_ipv6_alone() {
        let alone = |subnets| NetworkSpec { ipv4: false, ipv6: true, subnets, ..NetworkSpec::default() };
        decided(alone(vec![]), "fd99::1/64");
        decided(alone(vec![subnet("fd01::", 112, Some("fd01::9"))]), "fd01::9/112");
        decided(alone(vec![subnet("fd00::", 112, None)]), &overlap().to_string());
        decided(NetworkSpec { ipv6: false, ..alone(vec![]) }, "a network needs IPv4, IPv6 or both");
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
