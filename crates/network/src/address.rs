//! Addresses: subnets and whether they overlap, the one that a bridge gets, and what a container has of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use dozen_model::InterfaceSysctl;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The addresses of a bridge. The engine keeps them in the ledger, so that a restart finds the same ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeAddresses {
    /// The interface: `dozen0`, or `dz-` and the engine's tag.
    pub name: String,
    /// The host as containers see it; `None` without IPv4.
    pub ipv4_gateway: Option<Ipv4Addr>,
    /// Length of the subnet's prefix.
    pub ipv4_prefix_length: u8,
    /// The host as containers see it; `None` without IPv6.
    pub ipv6_gateway: Option<Ipv6Addr>,
    /// Length of the subnet's prefix: 64 unless the user chose another.
    pub ipv6_prefix_length: u8,
}

impl BridgeAddresses {
    /// The bridge's IPv4 subnet.
    pub fn ipv4_subnet(&self) -> Option<Ipv4Subnet> {
        self.ipv4_gateway.map(|gateway| Ipv4Subnet::containing(gateway, self.ipv4_prefix_length))
    }

    /// The bridge's own hardware address: one with a name of the user's choice is known by it.
    pub(crate) fn mac(&self) -> MacAddress {
        match (self.ipv4_gateway, self.ipv6_gateway) {
            (Some(ipv4), _) => MacAddress::beside(ipv4),
            (None, Some(ipv6)) => MacAddress::beside_ipv6(ipv6),
            (None, None) => MacAddress::beside(Ipv4Addr::UNSPECIFIED),
        }
    }

    /// The bridge's IPv6 subnet.
    pub fn ipv6_subnet(&self) -> Option<Ipv6Subnet> {
        self.ipv6_gateway.map(|gateway| Ipv6Subnet::containing(gateway, self.ipv6_prefix_length))
    }

    /// The IPv6 address that goes with an IPv4 address of the subnet: the same number, counted from its start. `None`
    /// without either, and where the IPv6 subnet has no such number.
    pub(crate) fn ipv6_beside(&self, ipv4: Ipv4Addr) -> Option<Ipv6Addr> {
        let number = u128::from(ipv4.to_bits().wrapping_sub(self.ipv4_subnet()?.network().to_bits()));
        let fits = number & ipv6_mask(self.ipv6_prefix_length) == 0;
        self.ipv6_subnet().filter(|_| fits).map(|subnet| Ipv6Addr::from_bits(subnet.network | number))
    }

    /// Whether one of its subnets has the address.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4_subnet().is_some_and(|subnet| subnet.contains(address)),
            IpAddr::V6(address) => self.ipv6_subnet().is_some_and(|subnet| subnet.contains(address)),
        }
    }
}

/// One end of a container's link to the bridge, with all that is set on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The host's side of the link; of one that lies on an interface of the host's, what it is called before it has its
    /// name inside.
    pub interface: String,
    /// The container's side.
    #[serde(default = "eth0")]
    pub inside: String,
    /// The container's hardware address.
    pub mac: MacAddress,
    /// The container's IPv4 address, where the network has IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// Length of its prefix; 0 without IPv4.
    pub ipv4_prefix_length: u8,
    /// Its default route.
    pub ipv4_gateway: Option<Ipv4Addr>,
    /// The container's IPv6 address, where the network has IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// Length of its prefix; 0 without IPv6.
    pub ipv6_prefix_length: u8,
    /// Its default route.
    pub ipv6_gateway: Option<Ipv6Addr>,
    /// The network leads nowhere: no default route goes by it, and no port is published to it.
    #[serde(default)]
    pub internal: bool,
    /// What it is linked to.
    #[serde(default)]
    pub link: EndpointLink,
    /// What is published is reached at its IPv4 address, and no port of the host's leads there.
    #[serde(default)]
    pub routed_ipv4: bool,
    /// As for IPv4.
    #[serde(default)]
    pub routed_ipv6: bool,
    /// Kernel settings of the container's side, beside our own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<InterfaceSysctl>,
    /// Further addresses of the container's side, with prefixes as Docker gives them: 16 bits of IPv4, 64 of IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_local: Vec<IpAddr>,
}

/// What a container's link is linked to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointLink {
    /// The network's bridge, where the host routes for it and translates ports.
    #[default]
    Bridge,
    /// An interface of the host's, past which the host does not see it.
    Parent,
    /// The same, and the default route goes to the link itself: ipvlan at layer 3.
    RoutedParent,
}

/// Endpoints that were made before a container could have several have no name of their own.
fn eth0() -> String {
    "eth0".to_owned()
}

impl Endpoint {
    /// The container's addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6)].into_iter().flatten()
    }
}

/// Where a container's published ports lead: its address of each family, which may be on different networks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Destination {
    /// Where ports of the host's IPv4 addresses lead; `None`: nowhere.
    pub ipv4: Option<Ipv4Addr>,
    /// Where ports of the host's IPv6 addresses lead; `None`: nowhere.
    pub ipv6: Option<Ipv6Addr>,
}

impl Destination {
    /// The addresses.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        [self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6)].into_iter().flatten()
    }

    /// The container's address of the same family as `like`.
    pub fn address_like(&self, like: IpAddr) -> Option<IpAddr> {
        match like {
            IpAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        }
    }
}

impl From<&Endpoint> for Destination {
    fn from(endpoint: &Endpoint) -> Self {
        Self { ipv4: endpoint.ipv4, ipv6: endpoint.ipv6 }
    }
}

/// A hardware address; text is `02:42:ac:11:00:02`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Docker's rule: locally administered, `02:42`, then the IPv4 address. So a new holder of an address
    /// has its predecessor's hardware address too, and no neighbour keeps a stale entry.
    pub fn beside(ipv4: Ipv4Addr) -> Self {
        let [a, b, c, d] = ipv4.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// As [`Self::beside`] for who has no IPv4 address: locally administered, and the beginning of the address's hash,
    /// since users choose both ends of one. Of a thousand on one network two share it once in two million times.
    pub fn beside_ipv6(ipv6: Ipv6Addr) -> Self {
        let hash = Sha256::new().chain_update(b"dozen mac\0").chain_update(ipv6.octets()).finalize();
        Self([0x02, hash[0], hash[1], hash[2], hash[3], hash[4]])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

/// Text that is no hardware address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid hardware address {0:?}: want six bytes as in 02:42:ac:11:00:02")]
pub struct MacAddressError(String);

impl FromStr for MacAddress {
    type Err = MacAddressError;
    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let invalid = || MacAddressError(text.chars().take(40).collect());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() { Err(invalid()) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacAddressError;
    fn try_from(text: String) -> Result<Self, MacAddressError> {
        text.parse()
    }
}

/// An IPv4 subnet; the bits after the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ipv4Subnet {
    network: u32,
    prefix_length: u8,
}

impl Ipv4Subnet {
    /// The subnet that this address is in. A prefix longer than 32 counts as 32.
    pub fn containing(address: Ipv4Addr, prefix_length: u8) -> Self {
        let prefix_length = prefix_length.min(32);
        Self { network: address.to_bits() & mask(prefix_length), prefix_length }
    }

    /// Its first address.
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network)
    }

    /// Length of the prefix.
    pub fn prefix_length(self) -> u8 {
        self.prefix_length
    }

    /// Whether the address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix_length) == self.network
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        let common = mask(self.prefix_length.min(other.prefix_length));
        self.network & common == other.network & common
    }

    /// How many addresses a bridge and its containers can have: all but the first and the last.
    pub fn usable(self) -> u32 {
        (!mask(self.prefix_length)).saturating_sub(1)
    }

    /// Its last address.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network | !mask(self.prefix_length))
    }

    /// The address with this number, counted from the first.
    pub fn address(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.wrapping_add(number))
    }
}

impl fmt::Display for Ipv4Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix_length)
    }
}

/// An IPv6 subnet; the bits after the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ipv6Subnet {
    network: u128,
    prefix_length: u8,
}

impl Ipv6Subnet {
    /// The subnet that this address is in. A prefix longer than 128 counts as 128.
    pub fn containing(address: Ipv6Addr, prefix_length: u8) -> Self {
        let prefix_length = prefix_length.min(128);
        Self { network: address.to_bits() & ipv6_mask(prefix_length), prefix_length }
    }

    /// Its first address, which is for routers (RFC 4291, 2.6.1).
    pub fn network(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.network)
    }

    /// Its last address.
    pub fn last(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.network | !ipv6_mask(self.prefix_length))
    }

    /// Whether the address is in it.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & ipv6_mask(self.prefix_length) == self.network
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        let common = ipv6_mask(self.prefix_length.min(other.prefix_length));
        self.network & common == other.network & common
    }
}

impl fmt::Display for Ipv6Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix_length)
    }
}

fn mask(prefix_length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_length)).unwrap_or(0)
}

fn ipv6_mask(prefix_length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix_length.min(128))).unwrap_or(0)
}

/// Where a bridge's subnet is looked for when nobody says: Docker's own list (172.17.0.0/16 to 172.31.0.0/16,
/// then 192.168.0.0/20 to 192.168.240.0/20).
pub fn default_pools() -> Vec<(Ipv4Addr, u8)> {
    let sixteens = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let twenties = (0..=240).step_by(16).map(|third| (Ipv4Addr::new(192, 168, third, 0), 20));
    sixteens.chain(twenties).collect()
}

/// The first of `pools` that has room for a bridge and a container and overlaps nothing in `taken`.
pub(crate) fn choose_subnet(pools: &[(Ipv4Addr, u8)], taken: &[Ipv4Subnet]) -> Option<Ipv4Subnet> {
    pools
        .iter()
        .map(|(address, prefix_length)| Ipv4Subnet::containing(*address, *prefix_length))
        .find(|pool| pool.usable() >= 2 && !taken.iter().any(|other| other.overlaps(*pool)))
}

/// A unique local /64 (RFC 4193): the 40 bits of the global id and the 16 of the subnet are a hash of the machine's
/// id and the engine's tag, so the same engine finds the same subnet again even without its ledger.
pub(crate) fn unique_local_subnet(machine: &[u8], instance: &str) -> Ipv6Addr {
    let hash = Sha256::new().chain_update(b"dozen ipv6\0").chain_update(machine).chain_update([0]);
    let hash = hash.chain_update(instance).finalize();
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&hash[..7]);
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Ipv4Subnet {
        let (address, prefix_length) = text.split_once('/').unwrap();
        Ipv4Subnet::containing(address.parse().unwrap(), prefix_length.parse().unwrap())
    }

    #[test]
    fn the_first_pool_that_overlaps_nothing_is_chosen() {
        for (taken, want) in [
            (vec![], "172.17.0.0/16"),
            (vec!["10.0.0.0/8", "192.0.2.0/24"], "172.17.0.0/16"),
            (vec!["172.17.0.0/16"], "172.18.0.0/16"),
            (vec!["172.17.4.9/32"], "172.18.0.0/16"),
            (vec!["172.16.0.0/14"], "172.20.0.0/16"),
            (vec!["172.16.0.0/12"], "192.168.0.0/20"),
            (vec!["172.16.0.0/12", "192.168.1.0/24"], "192.168.16.0/20"),
        ] {
            let taken: Vec<_> = taken.into_iter().map(subnet).collect();
            assert_eq!(choose_subnet(&default_pools(), &taken).map(|s| s.to_string()).as_deref(), Some(want));
        }
        assert_eq!(choose_subnet(&default_pools(), &[subnet("0.0.0.0/0")]), None);
        assert_eq!(choose_subnet(&[(Ipv4Addr::new(10, 0, 0, 0), 31)], &[]), None);
    }

    #[test]
    fn subnets_count_their_addresses() {
        assert_eq!(subnet("10.1.2.3/30").usable(), 2);
        assert_eq!(subnet("10.1.2.3/32").usable(), 0);
        assert_eq!(subnet("10.1.2.3/0").usable(), u32::MAX - 1);
        assert!(subnet("10.1.2.3/30").contains(Ipv4Addr::new(10, 1, 2, 0)));
        assert!(!subnet("10.1.2.3/30").contains(Ipv4Addr::new(10, 1, 2, 4)));
    }

    #[test]
    fn a_hardware_address_follows_the_address_and_parses_back() {
        let mac = MacAddress::beside(Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        assert_eq!("02:42:ac:11:00:02".parse(), Ok(mac));
        let of_ipv6 = |text: &str| MacAddress::beside_ipv6(text.parse().unwrap());
        assert_ne!(of_ipv6("fd00::1"), of_ipv6("fd00:1::1"));
        assert_eq!(of_ipv6("fd00::1").0[0], 0x02, "no group address, and locally administered");
        for bad in ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "2:42:ac:11:00:02", "02:42:ac:11:00:zz"] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ipv6_is_stable_local_and_differs_by_engine() {
        let one = unique_local_subnet(b"machine", "");
        assert_eq!(one, unique_local_subnet(b"machine", ""));
        assert_ne!(one, unique_local_subnet(b"machine", "test"));
        assert_ne!(one, unique_local_subnet(b"other", ""));
        assert_eq!((one.octets()[0], &one.octets()[8..]), (0xfd, &[0; 8][..]));
        let addresses = BridgeAddresses {
            name: "dozen0".into(),
            ipv4_gateway: Some(Ipv4Addr::new(172, 17, 0, 1)),
            ipv4_prefix_length: 16,
            ipv6_gateway: Some("fd00::1".parse().unwrap()),
            ipv6_prefix_length: 64,
        };
        assert_eq!(addresses.ipv6_beside(Ipv4Addr::new(172, 17, 1, 2)), Some("fd00::102".parse().unwrap()));
        let small = BridgeAddresses { ipv6_prefix_length: 120, ..addresses };
        assert_eq!(small.ipv6_beside(Ipv4Addr::new(172, 17, 0, 2)), Some("fd00::2".parse().unwrap()));
        assert_eq!(small.ipv6_beside(Ipv4Addr::new(172, 17, 1, 2)), None);
        let subnet = small.ipv6_subnet().unwrap();
        assert_eq!((subnet.to_string().as_str(), subnet.last()), ("fd00::/120", "fd00::ff".parse().unwrap()));
        let other = |text: &str, length| Ipv6Subnet::containing(text.parse().unwrap(), length);
        assert!(subnet.overlaps(other("fd00::80", 126)) && subnet.overlaps(other("fd00::", 16)));
        assert!(!subnet.overlaps(other("fd00::100", 120)));
        assert!(small.contains("fd00::fe".parse().unwrap()) && !small.contains("fd00::100".parse().unwrap()));
        let alone = BridgeAddresses { ipv4_gateway: None, ..small };
        assert_eq!((alone.ipv4_subnet(), alone.ipv6_beside(Ipv4Addr::new(172, 17, 0, 2))), (None, None));
        assert!(!alone.contains(Ipv4Addr::new(172, 17, 0, 2).into()));
        assert_eq!(alone.mac(), MacAddress::beside_ipv6("fd00::1".parse().unwrap()));
    }
}
