//! `POST /networks/create` → what the engine makes. Docker's words where it refuses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use dozen_engine::NetworkRequest;
use dozen_model::{BridgeOptions, ErrorKind, GatewayMode, NetworkDriver, NetworkSpec, SubnetSpec};
use serde::Deserialize;

use super::fields::{Field, Fields};
use super::network_driver::{self, Kind};
use crate::error::ApiError;
use Field::{Acts, Each, Ignored, Refused, RefusedUnless, Within};

/// The body of `POST /networks/create`.
pub(crate) const NETWORK: Fields = &[
    ("Name", Acts),
    ("CheckDuplicate", Ignored), // names are unique
    ("Driver", Acts),
    ("Scope", RefusedUnless(&[r#""local""#])),
    ("EnableIPv4", Acts),
    ("EnableIPv6", Acts),
    ("IPAM", Within(IPAM)),
    ("Internal", Acts),
    ("Attachable", Acts),
    ("Ingress", Refused),
    ("ConfigOnly", Refused),
    ("ConfigFrom", Within(CONFIG_FROM)),
    ("Options", Acts),
    ("Labels", Acts),
];

pub(crate) const IPAM: Fields =
    &[("Driver", RefusedUnless(&[r#""default""#])), ("Options", Refused), ("Config", Each(IPAM_CONFIG))];

pub(crate) const IPAM_CONFIG: Fields =
    &[("Subnet", Acts), ("IPRange", Acts), ("Gateway", Acts), ("AuxiliaryAddresses", Acts)];

const CONFIG_FROM: Fields = &[("Network", Refused)];

/// The body.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateNetwork {
    pub(crate) name: String,
    pub(crate) driver: String,
    #[serde(rename = "EnableIPv4")]
    pub(crate) enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub(crate) enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub(crate) ipam: Ipam,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Addresses, as they are asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Ipam {
    pub(crate) config: Vec<IpamConfig>,
}

/// A subnet and what belongs to it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct IpamConfig {
    pub(crate) subnet: String,
    #[serde(rename = "IPRange")]
    pub(crate) ip_range: String,
    pub(crate) gateway: String,
    pub(crate) auxiliary_addresses: BTreeMap<String, String>,
}

/// Everything is checked that does not depend on other networks.
pub(crate) fn network(request: CreateNetwork) -> Result<NetworkRequest, ApiError> {
    let kind = match request.driver.as_str() {
        "" | "default" | "bridge" => None,
        "macvlan" => Some(Kind::Macvlan),
        "ipvlan" => Some(Kind::Ipvlan),
        "host" | "null" => {
            let message = format!("only one instance of \"{}\" network is allowed", request.driver);
            return Err(ApiError::new(ErrorKind::Forbidden, message));
        }
        "overlay" => {
            let message = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                           connect this node to swarm and try again.";
            return Err(ApiError::new(ErrorKind::Forbidden, message));
        }
        driver => {
            let driver: String = driver.chars().take(200).collect();
            let message =
                format!("could not find plugin {driver} in v1 plugin registry: plugin \"{driver}\" not found");
            return Err(ApiError::new(ErrorKind::NotFound, message)
                .with_hint("dozen has no plugins; bridge, macvlan and ipvlan are built"));
        }
    };
    let ipv4 = request.enable_ipv4 != Some(false);
    if !ipv4 && !request.enable_ipv6 {
        return Err(ApiError::not_built("a network with neither IPv4 nor IPv6").with_hint("enable IPv6: --ipv6"));
    }
    if request.name.trim().is_empty() {
        return Err(ApiError::invalid("network name cannot be empty"));
    }
    let mut subnets = Vec::new();
    for config in &request.ipam.config {
        // Clients send an empty one where nothing is asked.
        if let Some(subnet) = subnet(config)? {
            if subnets.iter().any(|other: &SubnetSpec| other.network.is_ipv4() == subnet.network.is_ipv4()) {
                return Err(match kind {
                    None => ApiError::invalid("bridge driver doesn't support multiple subnets"),
                    Some(_) => ApiError::not_built("a network with several subnets of one family"),
                });
            }
            if !subnet.network.is_ipv4() && !request.enable_ipv6 {
                return Err(ApiError::invalid("an IPv6 subnet is given, and EnableIPv6 is not set")
                    .with_hint("set it too: --ipv6"));
            }
            if subnet.network.is_ipv4() && !ipv4 {
                return Err(ApiError::invalid("an IPv4 subnet is given, and EnableIPv4 is false")
                    .with_hint("leave the subnet or --ipv4=false out"));
            }
            subnets.push(subnet);
        }
    }
    let (driver, bridge) = match kind {
        None => {
            let bridge = options(&request.options)?;
            let modes = [bridge.gateway_mode_ipv4, bridge.gateway_mode_ipv6];
            if modes.contains(&GatewayMode::Isolated) && !request.internal {
                let message = "gateway mode 'isolated' can only be used for an internal network";
                return Err(ApiError::invalid(message).with_hint("make it one: --internal"));
            }
            (NetworkDriver::Bridge, bridge)
        }
        Some(kind) => network_driver::options(kind, &request.options)?,
    };
    let spec = NetworkSpec {
        internal: request.internal,
        attachable: request.attachable,
        ipv4,
        ipv6: request.enable_ipv6,
        labels: request.labels,
        driver,
        bridge,
        options: request.options,
        subnets,
    };
    Ok(NetworkRequest { name: request.name.parse()?, spec })
}

fn subnet(config: &IpamConfig) -> Result<Option<SubnetSpec>, ApiError> {
    let IpamConfig { subnet, ip_range, gateway, auxiliary_addresses } = config;
    if subnet.is_empty() {
        return match ip_range.is_empty() && gateway.is_empty() && auxiliary_addresses.is_empty() {
            true => Ok(None),
            false => Err(ApiError::invalid("user specified gateway, range or address needs a subnet")),
        };
    }
    let (network, prefix_length) = cidr(subnet, "subnet")?;
    let inside = |what: &str, text: &str, address: IpAddr| match contains((network, prefix_length), address) {
        true => Ok(address),
        false => Err(ApiError::invalid(format!(
            "invalid {what} {text}: parent subnet {subnet} doesn't contain this address"
        ))),
    };
    let range = match ip_range.as_str() {
        "" => None,
        text => {
            let range = cidr(text, "ip-range")?;
            if !contains((network, prefix_length), range.0) || range.1 < prefix_length {
                let message = format!("invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range");
                return Err(ApiError::invalid(message));
            }
            Some(range)
        }
    };
    let gateway = match gateway.as_str() {
        "" => None,
        text => {
            let address = inside("gateway", text, address(text)?)?;
            if address == network || Some(address) == broadcast(network, prefix_length) {
                return Err(ApiError::invalid(format!(
                    "invalid gateway {text}: it is not a host's address in {subnet}"
                )));
            }
            Some(address)
        }
    };
    let auxiliary = auxiliary_addresses
        .iter()
        .map(|(name, text)| Ok((name.clone(), inside("auxiliary address", text, address(text)?)?)));
    let auxiliary = auxiliary.collect::<Result<_, ApiError>>()?;
    Ok(Some(SubnetSpec { network, prefix_length, gateway, range, auxiliary }))
}

fn address(text: &str) -> Result<IpAddr, ApiError> {
    text.parse().map_err(|_| ApiError::invalid(format!("invalid address {:?}", shortened(text))))
}

/// `10.1.0.0/16`, without bits behind the prefix.
fn cidr(text: &str, what: &str) -> Result<(IpAddr, u8), ApiError> {
    let bad = || ApiError::invalid(format!("invalid {what} {}: invalid CIDR address", shortened(text)));
    let (address, prefix_length) = text.split_once('/').ok_or_else(bad)?;
    let (address, prefix_length): (IpAddr, u8) =
        (address.parse().map_err(|_| bad())?, prefix_length.parse().map_err(|_| bad())?);
    let (longest, first) = match address {
        IpAddr::V4(ipv4) => (32, IpAddr::V4(Ipv4Addr::from_bits(ipv4.to_bits() & mask(32, prefix_length) as u32))),
        IpAddr::V6(ipv6) => (128, IpAddr::V6((ipv6.to_bits() & mask(128, prefix_length)).into())),
    };
    if prefix_length > longest || prefix_length == 0 {
        return Err(bad());
    }
    if first != address {
        return Err(ApiError::invalid(format!("invalid {what} {text}: it should be {first}/{prefix_length}")));
    }
    if longest == 128 && what == "subnet" && prefix_length > 126 {
        return Err(ApiError::invalid(format!("the subnet {text} has no room for a container")));
    }
    Ok((address, prefix_length))
}

/// The bits of a prefix in an address of so many bits.
fn mask(bits: u32, prefix_length: u8) -> u128 {
    let host = u32::saturating_sub(bits, prefix_length.into());
    (u128::MAX >> (128 - bits)) & u128::MAX.checked_shl(host).unwrap_or(0)
}

pub(super) fn contains((network, prefix_length): (IpAddr, u8), address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            u128::from(network.to_bits() ^ address.to_bits()) & mask(32, prefix_length) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            (network.to_bits() ^ address.to_bits()) & mask(128, prefix_length) == 0
        }
        _ => false,
    }
}

fn broadcast(network: IpAddr, prefix_length: u8) -> Option<IpAddr> {
    match network {
        IpAddr::V4(network) => Some(Ipv4Addr::from_bits(network.to_bits() | !(mask(32, prefix_length) as u32)).into()),
        IpAddr::V6(_) => None,
    }
}

/// The driver's options. Docker's bridge takes any name and minds those that it knows; here another is refused.
fn options(given: &BTreeMap<String, String>) -> Result<BridgeOptions, ApiError> {
    let mut options = BridgeOptions::default();
    for (name, value) in given {
        let bad = || ApiError::invalid(format!("invalid value for the option {name}: {:?}", shortened(value)));
        let flag = || match value.as_str() {
            "true" | "1" | "True" | "TRUE" | "t" | "T" => Ok(true),
            "false" | "0" | "False" | "FALSE" | "f" | "F" => Ok(false),
            _ => Err(bad()),
        };
        match name.as_str() {
            "com.docker.network.bridge.name" if is_interface_name(value) => options.interface = Some(value.clone()),
            "com.docker.network.bridge.name" => return Err(bad()),
            "com.docker.network.bridge.enable_icc" => options.between_containers = flag()?,
            "com.docker.network.bridge.enable_ip_masquerade" => options.masquerade = flag()?,
            "com.docker.network.bridge.host_binding_ipv4" => {
                let address: IpAddr = value.parse().map_err(|_| bad())?;
                options.host_binding = Some(address).filter(|address| *address != Ipv4Addr::UNSPECIFIED);
            }
            "com.docker.network.bridge.gateway_mode_ipv4" => options.gateway_mode_ipv4 = gateway_mode(name, value)?,
            "com.docker.network.bridge.gateway_mode_ipv6" => options.gateway_mode_ipv6 = gateway_mode(name, value)?,
            "com.docker.network.bridge.inhibit_ipv4" => options.inhibit_ipv4 = flag()?,
            // Twelve characters leave room for the number.
            "com.docker.network.container_iface_prefix" if is_interface_name(value) && value.len() <= 12 => {
                options.interface_prefix = Some(value.clone());
            }
            "com.docker.network.container_iface_prefix" => return Err(bad()),
            "com.docker.network.driver.mtu" => options.mtu = mtu(name, value)?,
            // What it says of the default bridge is said of no other.
            "com.docker.network.bridge.default_bridge" if flag() == Ok(false) => {}
            _ => {
                return Err(ApiError::not_built(format_args!("the network option {:?}", shortened(name))).with_hint(
                    "built are com.docker.network.bridge.{name,enable_icc,enable_ip_masquerade,host_binding_ipv4,\
                     gateway_mode_ipv4,gateway_mode_ipv6,inhibit_ipv4}, com.docker.network.container_iface_prefix and com.docker.network.driver.mtu",
                ));
            }
        }
    }
    Ok(options)
}

fn gateway_mode(name: &str, value: &str) -> Result<GatewayMode, ApiError> {
    GatewayMode::named(value).ok_or_else(|| {
        let value = shortened(value);
        ApiError::invalid(format!("failed to parse {name} value: {value} (unknown gateway mode {value})"))
            .with_hint("there are nat, nat-unprotected, routed and isolated")
    })
}

/// In bytes; 0 is the kernel's own choice.
pub(super) fn mtu(name: &str, value: &str) -> Result<Option<u32>, ApiError> {
    // RFC 791: every link carries 68 bytes; 65535 is the longest packet.
    let mtu = value.parse::<u32>().ok().filter(|mtu| *mtu == 0 || (68..=65535).contains(mtu));
    let bad = || ApiError::invalid(format!("invalid value for the option {name}: {:?}", shortened(value)));
    Ok(Some(mtu.ok_or_else(bad)?).filter(|mtu| *mtu != 0))
}

/// What the kernel takes for one (`dev_valid_name`), and no more than scripts can take either.
pub(super) fn is_interface_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=15).contains(&text.len()) && text.bytes().all(fits) && !matches!(text, "." | ".." | "lo" | "all" | "default")
}

pub(super) fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::convert::request;

    fn made(body: Value) -> Result<NetworkRequest, String> {
        request::read(body, NETWORK).and_then(network).map_err(|error| error.message)
    }

    #[track_caller]
    fn refused(body: Value, words: &str) {
        let mut whole = json!({ "Name": "n" });
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let message = made(whole).unwrap_err();
        assert!(message.contains(words), "{message}");
    }

    #[test]
    fn what_is_asked_is_understood() {
        let request = made(json!({
            "Name": "backend", "Driver": "bridge", "EnableIPv6": true, "Internal": true, "Labels": {"a": "b"},
            "IPAM": {"Driver": "default", "Options": {}, "Config": [
                {"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.254", "IPRange": "10.1.2.0/24",
                 "AuxiliaryAddresses": {"router": "10.1.2.9"}},
                {"Subnet": "fd01::/64"},
            ]},
            "Options": {"com.docker.network.bridge.enable_icc": "false", "com.docker.network.driver.mtu": "1400",
                        "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"},
        }))
        .unwrap();
        let NetworkSpec { internal, ipv6, bridge, subnets, .. } = &request.spec;
        assert_eq!((request.name.as_str(), *internal, *ipv6, subnets.len()), ("backend", true, true, 2));
        assert_eq!(subnets[0].range, Some(("10.1.2.0".parse().unwrap(), 24)));
        assert_eq!(subnets[0].auxiliary["router"], "10.1.2.9".parse::<IpAddr>().unwrap());
        assert!(!bridge.between_containers && bridge.masquerade);
        assert_eq!((bridge.mtu, bridge.host_binding), (Some(1400), Some(Ipv4Addr::LOCALHOST.into())));
        let alone = made(json!({
            "Name": "n", "EnableIPv4": false, "EnableIPv6": true,
            "IPAM": {"Config": [{"Subnet": "fd01::/64", "IPRange": "fd01::100/120"}]},
            "Options": {"com.docker.network.bridge.host_binding_ipv4": "::1",
                        "com.docker.network.container_iface_prefix": "lan",
                        "com.docker.network.bridge.inhibit_ipv4": "true"},
        }))
        .unwrap()
        .spec;
        assert_eq!(
            (alone.ipv4, alone.ipv6, alone.subnets[0].range),
            (false, true, "fd01::100".parse().ok().zip(Some(120)))
        );
        let BridgeOptions { host_binding, interface_prefix, inhibit_ipv4, .. } = alone.bridge;
        assert_eq!((host_binding, interface_prefix, inhibit_ipv4), ("::1".parse().ok(), Some("lan".to_owned()), true));
        let plain = made(json!({ "Name": "n", "IPAM": {"Config": [{}]} })).unwrap();
        assert_eq!(plain.spec, NetworkSpec::default());
    }

    #[test]
    fn what_cannot_be_is_refused_in_dockers_words() {
        let subnet = |config: Value| json!({ "IPAM": { "Config": [config] } });
        refused(subnet(json!({"Subnet": "10.1.0.1/16"})), "invalid subnet 10.1.0.1/16: it should be 10.1.0.0/16");
        refused(subnet(json!({"Subnet": "nonsense"})), "invalid subnet nonsense: invalid CIDR address");
        refused(subnet(json!({"Subnet": "10.0.0.0/33"})), "invalid CIDR address");
        refused(
            subnet(json!({"Subnet": "10.1.0.0/16", "Gateway": "10.2.0.1"})),
            "invalid gateway 10.2.0.1: parent subnet 10.1.0.0/16 doesn't contain this address",
        );
        refused(subnet(json!({"Subnet": "10.1.0.0/16", "IPRange": "10.0.0.0/8"})), "doesn't contain ip-range");
        refused(
            subnet(json!({"Subnet": "10.1.0.0/16", "AuxiliaryAddresses": {"a": "10.2.0.9"}})),
            "invalid auxiliary address 10.2.0.9: parent subnet",
        );
        refused(subnet(json!({"Gateway": "10.1.0.1"})), "needs a subnet");
        refused(subnet(json!({"Subnet": "fd00::/64"})), "EnableIPv6 is not set");
        let two = json!({"IPAM": {"Config": [{"Subnet": "10.1.0.0/16"}, {"Subnet": "10.2.0.0/16"}]}});
        refused(two, "bridge driver doesn't support multiple subnets");
        let two =
            json!({"Driver": "macvlan", "IPAM": {"Config": [{"Subnet": "10.1.0.0/16"}, {"Subnet": "10.2.0.0/16"}]}});
        refused(two, "several subnets of one family is not built yet");
        refused(json!({"Driver": "ipvlan", "Options": {"parent": "lo"}}), "not a valid ipvlan parent link");
        refused(json!({"Driver": "weave"}), "plugin \"weave\" not found");
        refused(json!({"Driver": "overlay"}), "not a swarm manager");
        refused(json!({"Driver": "host"}), "only one instance of \"host\" network is allowed");
        refused(json!({"EnableIPv4": false}), "a network with neither IPv4 nor IPv6 is not built yet");
        let both = json!({"EnableIPv4": false, "EnableIPv6": true, "IPAM": {"Config": [{"Subnet": "10.1.0.0/16"}]}});
        refused(both, "an IPv4 subnet is given, and EnableIPv4 is false");
        let mode = |value: &str| json!({"Options": {"com.docker.network.bridge.gateway_mode_ipv6": value}});
        refused(mode("bridged"), "gateway_mode_ipv6 value: bridged (unknown gateway mode bridged)");
        refused(mode("isolated"), "gateway mode 'isolated' can only be used for an internal network");
        let modes = json!({
            "Name": "n", "Internal": true, "Options": {
                "com.docker.network.bridge.gateway_mode_ipv4": "isolated",
                "com.docker.network.bridge.gateway_mode_ipv6": "nat-unprotected",
            },
        });
        let BridgeOptions { gateway_mode_ipv4, gateway_mode_ipv6, .. } = made(modes).unwrap().spec.bridge;
        assert_eq!((gateway_mode_ipv4, gateway_mode_ipv6), (GatewayMode::Isolated, GatewayMode::NatUnprotected));
        refused(
            json!({"Options": {"com.docker.network.container_iface_prefix": "a/b"}}),
            "invalid value for the option com.docker.network.container_iface_prefix",
        );
        refused(json!({"ConfigOnly": true}), "ConfigOnly is not built yet");
        refused(json!({"Options": {"com.example": "1"}}), "the network option \"com.example\" is not built yet");
        refused(json!({"Options": {"com.docker.network.driver.mtu": "many"}}), "invalid value for the option");
        refused(json!({"Options": {"com.docker.network.bridge.name": "a/b"}}), "invalid value for the option");
        refused(json!({"Name": "a b"}), "Invalid network name (a b)");
        refused(json!({"Name": ""}), "network name cannot be empty");
    }
}
