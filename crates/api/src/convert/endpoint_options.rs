//! What is asked of an endpoint beside its addresses: Docker's DriverOpts and LinkLocalIPs. Docker's words where it refuses.

use std::net::IpAddr;

use dozen_engine::Network;
use dozen_model::EndpointSpec;

use super::endpoints::Endpoint;
use super::network_request::{contains, is_interface_name, shortened};
use crate::error::ApiError;

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
const INTERFACE: &str = "com.docker.network.endpoint.ifname";

/// More of them on one interface help nobody.
const MOST_LINK_LOCAL: usize = 64;

/// Docker takes any option and minds those that it knows; here another is refused.
pub(super) fn apply(place: &mut EndpointSpec, network: &Network, asked: &Endpoint) -> Result<(), ApiError> {
    for (name, value) in &asked.driver_opts {
        match name.as_str() {
            SYSCTLS => place.sysctls = value.split(',').map(|one| one.trim().parse()).collect::<Result<_, _>>()?,
            // `lo` is there, `all` and `default` are the kernel's words for settings.
            INTERFACE if is_interface_name(value) => place.interface = Some(value.clone()),
            INTERFACE => {
                return Err(ApiError::invalid(format!("invalid interface name {:?}", shortened(value))));
            }
            _ => {
                return Err(ApiError::not_built(format_args!("the endpoint option {:?}", shortened(name)))
                    .with_hint(format!("built are {SYSCTLS} and {INTERFACE}")));
            }
        }
    }
    place.driver_options.clone_from(&asked.driver_opts);
    if asked.addresses.link_local.len() > MOST_LINK_LOCAL {
        return Err(ApiError::invalid(format!("more than {MOST_LINK_LOCAL} link-local addresses of one interface")));
    }
    for text in asked.addresses.link_local.iter().filter(|text| !text.is_empty()) {
        let address = link_local(text, network)?;
        if !place.link_local.contains(&address) {
            place.link_local.push(address);
        }
    }
    Ok(())
}

/// Any address that an interface may have, as with Docker, but for those that the network gives out.
fn link_local(text: &str, network: &Network) -> Result<IpAddr, ApiError> {
    let invalid = || ApiError::invalid(format!("invalid link-local IP address: {}", shortened(text)));
    let address: IpAddr = text.parse().map_err(|_| invalid())?;
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_broadcast {
        return Err(invalid());
    }
    if network.spec.subnets.iter().any(|subnet| contains((subnet.network, subnet.prefix_length), address)) {
        let message = format!("the address {address} is of the network's own subnet, and no link-local one");
        return Err(ApiError::invalid(message).with_hint("ask for it with --ip or --ip6"));
    }
    if address.is_ipv6() && !network.spec.ipv6 {
        let message = format!("the network {} has no IPv6 for the address {address}", network.name);
        return Err(ApiError::invalid(message));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dozen_model::{NetworkId, NetworkSpec, SubnetSpec};
    use serde_json::{Value, json};

    use super::*;

    fn read(ipv6: bool, body: Value) -> Result<EndpointSpec, String> {
        let subnet = SubnetSpec {
            network: "10.1.0.0".parse().unwrap(),
            prefix_length: 16,
            gateway: None,
            range: None,
            auxiliary: BTreeMap::new(),
        };
        let network = Network {
            id: NetworkId::random(),
            name: "back".into(),
            created: Some(jiff::Timestamp::UNIX_EPOCH),
            spec: NetworkSpec { ipv6, subnets: vec![subnet], ..NetworkSpec::default() },
            addresses: None,
        };
        let asked: Endpoint = serde_json::from_value(body).unwrap();
        let mut place = EndpointSpec::on(network.id.clone(), "back");
        apply(&mut place, &network, &asked).map(|()| place).map_err(|error| error.message)
    }

    #[test]
    fn what_is_asked_is_understood() {
        let options = json!({
            SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.accept_ra=2", INTERFACE: "lan0",
        });
        let addresses = json!({"LinkLocalIPs": ["169.254.8.9", "57.123.22.11", "169.254.8.9", "", "fe80::9"]});
        let place = read(true, json!({"DriverOpts": options, "IPAMConfig": addresses})).unwrap();
        assert_eq!(place.interface.as_deref(), Some("lan0"));
        let paths: Vec<String> = place.sysctls.iter().map(|sysctl| sysctl.path("lan0")).collect();
        assert_eq!(paths, ["ipv4/conf/lan0/log_martians", "ipv6/conf/lan0/accept_ra"]);
        assert_eq!(json!(place.driver_options), options);
        let shown: Vec<String> = place.link_local.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["169.254.8.9", "57.123.22.11", "fe80::9"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let option = |name: &str, value: &str| json!({"DriverOpts": {name: value}});
        let local = |address: &str| json!({"IPAMConfig": {"LinkLocalIPs": [address]}});
        for (body, words) in [
            (option(SYSCTLS, "net.ipv4.ip_forward=1"), "unrecognised network interface sysctl 'net.ipv4.ip_forward=1'"),
            (option(SYSCTLS, "net.ipv4.conf.IFNAME.log_martians=1,"), "unrecognised network interface sysctl ''"),
            (option(INTERFACE, "lo"), "invalid interface name \"lo\""),
            (option(INTERFACE, "../eth0"), "invalid interface name"),
            (option(INTERFACE, ""), "invalid interface name"),
            (option("com.example.x", "1"), "the endpoint option \"com.example.x\" is not built yet"),
            (local("nonsense"), "invalid link-local IP address: nonsense"),
            (local("0.0.0.0"), "invalid link-local IP address"),
            (local("127.0.0.9"), "invalid link-local IP address"),
            (local("255.255.255.255"), "invalid link-local IP address"),
            (local("ff02::1"), "invalid link-local IP address"),
            (local("10.1.0.9"), "is of the network's own subnet"),
            (local("fe80::9"), "the network back has no IPv6"),
        ] {
            let message = read(false, body).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
