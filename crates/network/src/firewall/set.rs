//! The sets and maps of our table: what they are called, and what their keys and values are made of.

const SET_IS_MAP: u32 = 8;
/// `NFT_SET_INTERVAL | NFT_SET_CONCAT` (Linux 5.6).
const SET_OF_RANGES: u32 = 4 | 0x80;

// How nft(8) names types: 6 bits each, concatenated (libnftables' enum datatypes). The kernel only keeps them.
const TYPE_FAMILY: u32 = 2;
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
pub(super) const TYPE_INTERFACE: u32 = 41;

/// The sets and maps of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Map {
    /// IPv4 address, protocol, port → container.
    Published4At,
    /// Protocol, port on any IPv4 address → container.
    Published4,
    /// As for IPv4.
    Published6At,
    /// As for IPv4.
    Published6,
    /// Interfaces whose IPv4 forwarding we turned on.
    Opened4,
    /// Interfaces whose IPv6 forwarding we turned on; `all` for every one.
    Opened6,
    /// Interfaces whose `accept_ra` we raised from 1 to 2.
    Advertised,
    /// Our bridges.
    Bridges,
    /// Those of them that are internal.
    Internal,
    /// A bridge and itself: its containers reach each other.
    Within,
    /// A bridge and its subnet.
    Subnets4,
    /// As for IPv4.
    Subnets6,
    /// The subnets of all bridges, each after its family.
    Sources4,
    /// As for IPv4.
    Sources6,
    /// Those of them that are hidden behind the host's address.
    Masqueraded4,
    /// As for IPv4.
    Masqueraded6,
    /// Containers' addresses with protocol and port, which others reach without translation.
    Direct4,
    /// As for IPv4.
    Direct6,
    /// Bridges whose containers have their published ports in [`Self::Direct4`].
    Routed4,
    /// As for IPv4.
    Routed6,
    /// Bridges whose containers others reach at every port.
    Unprotected4,
    /// As for IPv4.
    Unprotected6,
    /// Bridges without IPv6 on the host's side, whose containers have it.
    Isolated6,
}

impl Map {
    pub(crate) const ALL: [Self; 23] = [
        Self::Published4At,
        Self::Published4,
        Self::Published6At,
        Self::Published6,
        Self::Opened4,
        Self::Opened6,
        Self::Advertised,
        Self::Bridges,
        Self::Internal,
        Self::Within,
        Self::Subnets4,
        Self::Subnets6,
        Self::Sources4,
        Self::Sources6,
        Self::Masqueraded4,
        Self::Masqueraded6,
        Self::Direct4,
        Self::Direct6,
        Self::Routed4,
        Self::Routed6,
        Self::Unprotected4,
        Self::Unprotected6,
        Self::Isolated6,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Published4At => "published4_at",
            Self::Published4 => "published4",
            Self::Published6At => "published6_at",
            Self::Published6 => "published6",
            Self::Opened4 => "opened4",
            Self::Opened6 => "opened6",
            Self::Advertised => "advertised",
            Self::Bridges => "bridges",
            Self::Internal => "internal",
            Self::Within => "within",
            Self::Subnets4 => "subnets4",
            Self::Subnets6 => "subnets6",
            Self::Sources4 => "sources4",
            Self::Sources6 => "sources6",
            Self::Masqueraded4 => "masqueraded4",
            Self::Masqueraded6 => "masqueraded6",
            Self::Direct4 => "direct4",
            Self::Direct6 => "direct6",
            Self::Routed4 => "routed4",
            Self::Routed6 => "routed6",
            Self::Unprotected4 => "unprotected4",
            Self::Unprotected6 => "unprotected6",
            Self::Isolated6 => "isolated6",
        }
    }

    pub(super) fn flags(self) -> u32 {
        match self {
            _ if self.value().is_some() => SET_IS_MAP,
            _ if !self.ranges().is_empty() => SET_OF_RANGES,
            _ => 0,
        }
    }

    /// The lengths in bytes of the parts of a key, for a set whose elements are ranges; empty for the others.
    pub(super) fn ranges(self) -> &'static [u32] {
        match self {
            Self::Subnets4 => &[16, 4],
            Self::Subnets6 => &[16, 16],
            Self::Sources4 | Self::Masqueraded4 => &[1, 4],
            Self::Sources6 | Self::Masqueraded6 => &[1, 16],
            _ => &[],
        }
    }

    /// Whether it says something about bridges.
    pub(crate) fn is_of_bridges(self) -> bool {
        let by_interface = [
            Self::Bridges,
            Self::Internal,
            Self::Within,
            Self::Routed4,
            Self::Routed6,
            Self::Unprotected4,
            Self::Unprotected6,
            Self::Isolated6,
        ];
        by_interface.contains(&self) || !self.ranges().is_empty()
    }

    /// The type and length of a key.
    pub(super) fn key(self) -> (u32, u32) {
        match self {
            Self::Published4At | Self::Direct4 => (concatenated(&[TYPE_IPV4, TYPE_PROTOCOL, TYPE_PORT]), 12),
            Self::Published6At | Self::Direct6 => (concatenated(&[TYPE_IPV6, TYPE_PROTOCOL, TYPE_PORT]), 24),
            Self::Published4 | Self::Published6 => (concatenated(&[TYPE_PROTOCOL, TYPE_PORT]), 8),
            Self::Opened4
            | Self::Opened6
            | Self::Advertised
            | Self::Bridges
            | Self::Internal
            | Self::Routed4
            | Self::Routed6
            | Self::Unprotected4
            | Self::Unprotected6
            | Self::Isolated6 => (TYPE_INTERFACE, 16),
            Self::Within => (concatenated(&[TYPE_INTERFACE, TYPE_INTERFACE]), 32),
            Self::Subnets4 => (concatenated(&[TYPE_INTERFACE, TYPE_IPV4]), 20),
            Self::Subnets6 => (concatenated(&[TYPE_INTERFACE, TYPE_IPV6]), 32),
            Self::Sources4 | Self::Masqueraded4 => (concatenated(&[TYPE_FAMILY, TYPE_IPV4]), 8),
            Self::Sources6 | Self::Masqueraded6 => (concatenated(&[TYPE_FAMILY, TYPE_IPV6]), 20),
        }
    }

    /// The type and length of a value; `None` for a set.
    pub(super) fn value(self) -> Option<(u32, u32)> {
        match self {
            Self::Published4At | Self::Published4 => Some((concatenated(&[TYPE_IPV4, TYPE_PORT]), 8)),
            Self::Published6At | Self::Published6 => Some((concatenated(&[TYPE_IPV6, TYPE_PORT]), 20)),
            _ => None,
        }
    }
}

fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| all << 6 | one)
}
