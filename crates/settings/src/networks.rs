//! The addresses of networks, and what the default bridge is.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::SettingsError;
use crate::settings::Reader;

/// No pool gives more subnets: there are never so many networks.
const MOST_SUBNETS: u32 = 1 << 16;
/// RFC 791's least, and what a length of 16 bits can say.
const MTU: std::ops::RangeInclusive<u64> = 68..=65535;

/// An IPv4 network: an address in it and the length of its prefix.
pub type Ipv4Network = (Ipv4Addr, u8);

/// What an engine reads when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// `default-address-pools`: subnets for networks that name none, in order. Empty: Docker's.
    pub pools: Vec<Ipv4Network>,
    /// `bip`: the default bridge's address.
    pub bridge: Option<Ipv4Network>,
    /// `fixed-cidr`: from which part of its subnet its containers get addresses.
    pub range: Option<Ipv4Network>,
    /// `mtu` of the default bridge, bytes.
    pub mtu: Option<u32>,
    /// `ipv6`: the default bridge has IPv6.
    pub ipv6: bool,
    /// `icc`: containers on the default bridge reach each other.
    pub between_containers: bool,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self { pools: Vec::new(), bridge: None, range: None, mtu: None, ipv6: true, between_containers: true }
    }
}

impl NetworkSettings {
    pub(crate) fn of(reader: &Reader<'_>) -> Result<Self, SettingsError> {
        let bridge = reader.text("bip")?.map(|text| bridge(&text)).transpose()?;
        let range = reader.text("fixed-cidr")?.map(|text| range(&text, bridge)).transpose()?;
        let mtu = match reader.get("mtu") {
            None => None,
            // Docker's default, by its own word.
            Some(value) if value.as_u64() == Some(0) => None,
            Some(value) => match value.as_u64().filter(|bytes| MTU.contains(bytes)) {
                Some(bytes) => u32::try_from(bytes).ok(),
                None => return Err(SettingsError::value("mtu", format!("{value} is not from 68 to 65535 bytes"))),
            },
        };
        Ok(Self {
            pools: pools(reader.get("default-address-pools"))?,
            bridge,
            range,
            mtu,
            ipv6: reader.switch("ipv6")?.unwrap_or(true),
            between_containers: reader.switch("icc")?.unwrap_or(true),
        })
    }
}

/// An address that a host may have, with its subnet's length.
fn bridge(text: &str) -> Result<Ipv4Network, SettingsError> {
    let bad = |why: &str| SettingsError::value("bip", format!("{text:?} {why}"));
    let (address, length) =
        network(text).ok_or_else(|| bad("is no IPv4 address with a prefix, as in 172.30.0.1/24"))?;
    if length > 30 {
        return Err(bad("has no room for a container"));
    }
    let is_hosts = address != first(address, length) && address != last(address, length);
    if is_hosts {
        Ok((address, length))
    } else {
        Err(bad("is the subnet's own address: name the bridge's, as in 172.30.0.1/24"))
    }
}

fn range(text: &str, bridge: Option<Ipv4Network>) -> Result<Ipv4Network, SettingsError> {
    let bad = |why: &str| SettingsError::value("fixed-cidr", format!("{text:?} {why}"));
    let (address, length) = network(text).ok_or_else(|| bad("is no IPv4 subnet, as in 172.30.0.128/25"))?;
    let (own, own_length) = bridge.ok_or_else(|| bad("needs bip, whose subnet it is a part of"))?;
    let is_part = length >= own_length && first(address, own_length) == first(own, own_length);
    if is_part { Ok((first(address, length), length)) } else { Err(bad("is no part of bip's subnet")) }
}

/// `[{"base": "172.30.0.0/16", "size": 24}]`: every subnet of that size in that base.
fn pools(value: Option<&Value>) -> Result<Vec<Ipv4Network>, SettingsError> {
    let key = "default-address-pools";
    let bad = |pool: &Value, why: &str| SettingsError::value(key, format!("{pool}: {why}"));
    let want = "write {\"base\": \"172.30.0.0/16\", \"size\": 24}";
    let Some(value) = value else { return Ok(Vec::new()) };
    let mut subnets = Vec::new();
    for pool in value.as_array().ok_or_else(|| bad(value, want))? {
        let is_known = pool.as_object().is_some_and(|keys| keys.keys().all(|key| key == "base" || key == "size"));
        let (Some(base), Some(size)) = (pool["base"].as_str(), pool["size"].as_u64()) else {
            return Err(bad(pool, want));
        };
        if base.split('/').next().is_some_and(|address| matches!(address.parse(), Ok(IpAddr::V6(_)))) {
            return Err(bad(pool, "subnets of IPv6 are the engine's own choice: a pool of them is not built yet"));
        }
        let (address, length) = network(base).filter(|_| is_known).ok_or_else(|| bad(pool, want))?;
        let size = u8::try_from(size).ok().filter(|size| (length..=30).contains(size));
        let size = size.ok_or_else(|| bad(pool, "the size is a prefix's length, from the base's to 30"))?;
        let step = 1u64 << (32 - size);
        let count = 1u32.checked_shl(u32::from(size - length)).unwrap_or(MOST_SUBNETS).min(MOST_SUBNETS);
        let begin = u64::from(first(address, length).to_bits());
        subnets.extend((0..u64::from(count)).map(|number| {
            let address = u32::try_from(begin + number * step).expect("it is in the base");
            (Ipv4Addr::from_bits(address), size)
        }));
    }
    Ok(subnets)
}

fn network(text: &str) -> Option<Ipv4Network> {
    let (address, length) = text.split_once('/')?;
    Some((address.parse().ok()?, length.parse().ok().filter(|length| (1..=32).contains(length))?))
}

fn first(address: Ipv4Addr, length: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & mask(length))
}

fn last(address: Ipv4Addr, length: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() | !mask(length))
}

/// Of a length from 1 to 32.
fn mask(length: u8) -> u32 {
    u32::MAX << (32 - u32::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<NetworkSettings, String> {
        NetworkSettings::of(&Reader(value.as_object().unwrap())).map_err(|error| error.to_string())
    }

    fn four(text: &str) -> Ipv4Network {
        network(text).unwrap()
    }

    #[test]
    fn what_is_said_holds() {
        let settings = read(json!({
            "bip": "172.30.0.1/24", "fixed-cidr": "172.30.0.130/25", "mtu": 1400, "ipv6": false, "icc": false,
            "default-address-pools": [{ "base": "10.1.0.0/16", "size": 17 }, { "base": "10.9.9.7/24", "size": 24 }],
        }));
        let want = NetworkSettings {
            pools: vec![four("10.1.0.0/17"), four("10.1.128.0/17"), four("10.9.9.0/24")],
            bridge: Some(four("172.30.0.1/24")),
            range: Some(four("172.30.0.128/25")),
            mtu: Some(1400),
            ipv6: false,
            between_containers: false,
        };
        assert_eq!(settings, Ok(want));
        assert_eq!(read(json!({ "mtu": 0 })), Ok(NetworkSettings::default()));
        let many = read(json!({ "default-address-pools": [{ "base": "0.0.0.0/1", "size": 30 }] })).unwrap().pools;
        assert_eq!((many.len(), many[1]), (1 << 16, four("0.0.0.4/30")));
        let top = read(json!({ "default-address-pools": [{ "base": "255.255.255.0/24", "size": 30 }] })).unwrap().pools;
        assert_eq!(top.last(), Some(&four("255.255.255.252/30")));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (value, words) in [
            (json!({ "bip": "172.30.0.1" }), "option bip: \"172.30.0.1\" is no IPv4 address with a prefix"),
            (json!({ "bip": "fd00::1/64" }), "is no IPv4 address"),
            (json!({ "bip": "172.30.0.0/24" }), "is the subnet's own address"),
            (json!({ "bip": "172.30.0.255/24" }), "is the subnet's own address"),
            (json!({ "bip": "172.30.0.1/31" }), "has no room for a container"),
            (json!({ "fixed-cidr": "172.30.0.128/25" }), "needs bip"),
            (json!({ "bip": "172.30.0.1/24", "fixed-cidr": "172.31.0.0/25" }), "is no part of bip's subnet"),
            (json!({ "bip": "172.30.0.1/24", "fixed-cidr": "172.30.0.0/16" }), "is no part of bip's subnet"),
            (json!({ "mtu": 20 }), "20 is not from 68 to 65535 bytes"),
            (json!({ "mtu": "1400" }), "\"1400\" is not from 68"),
            (json!({ "default-address-pools": "10.0.0.0/8" }), "write {\"base\""),
            (json!({ "default-address-pools": [{ "base": "10.0.0.0/8" }] }), "write {\"base\""),
            (
                json!({ "default-address-pools": [{ "base": "10.0.0.0/8", "size": 7 }] }),
                "the size is a prefix's length",
            ),
            (
                json!({ "default-address-pools": [{ "base": "10.0.0.0/8", "size": 31 }] }),
                "the size is a prefix's length",
            ),
            (json!({ "default-address-pools": [{ "base": "10.0.0.0/8", "size": 24, "x": 1 }] }), "write {\"base\""),
            (
                json!({ "default-address-pools": [{ "base": "fd00::/48", "size": 64 }] }),
                "IPv6 are the engine's own choice",
            ),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains(words), "{value}: {error}");
        }
    }
}
