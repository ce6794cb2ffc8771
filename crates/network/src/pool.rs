//! Which of the subnet's addresses are in use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::address::{BridgeAddresses, Ipv4Subnet, Ipv6Subnet};

/// The addresses of one subnet. Hands them out in turn, so that one that has just been given back rests the longest.
#[derive(Debug)]
pub(crate) struct AddressPool {
    subnet: Ipv4Subnet,
    gateway: Ipv4Addr,
    /// Whoever asks for none gets one of these numbers, counted from the subnet's first address.
    first: u32,
    last: u32,
    /// The user keeps them for others.
    kept: BTreeSet<Ipv4Addr>,
    next: u32,
    used: BTreeSet<Ipv4Addr>,
    /// Given back, but the link that had it may still be there: address → the host's side of that link.
    resting: BTreeMap<Ipv4Addr, String>,
}

impl AddressPool {
    pub(crate) fn new(subnet: Ipv4Subnet, gateway: Ipv4Addr) -> Self {
        let (first, last) = (1, subnet.usable());
        let (kept, used, resting) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        Self { subnet, gateway, first, last, kept, next: first, used, resting }
    }

    /// Gives out addresses of this part of the subnet alone (Docker's `--ip-range`), and never those that are kept
    /// for others (`--aux-address`). The first and the last address of a range may be had, unless they are the subnet's.
    pub(crate) fn within(mut self, range: Option<Ipv4Subnet>, kept: BTreeSet<Ipv4Addr>) -> Self {
        if let Some(range) = range {
            let number = |address: Ipv4Addr| address.to_bits().wrapping_sub(self.subnet.network().to_bits());
            self.first = number(range.network()).clamp(1, self.last);
            self.last = number(range.last()).clamp(self.first, self.last);
            self.next = self.first;
        }
        self.kept = kept;
        self
    }

    /// How many addresses there are for those who ask for none.
    pub(crate) fn size(&self) -> u32 {
        let gateway = self.gateway.to_bits().wrapping_sub(self.subnet.network().to_bits());
        (self.last - self.first + 1).saturating_sub(u32::from((self.first..=self.last).contains(&gateway)))
    }

    /// An address that nobody has; `None` when all are in use or resting.
    pub(crate) fn take(&mut self) -> Option<Ipv4Addr> {
        let busy = u32::try_from(self.used.len() + self.resting.len() + self.kept.len()).unwrap_or(u32::MAX);
        // One more look than addresses are busy is enough to find a free one, the gateway counted as busy.
        for _ in 0..(self.last - self.first).saturating_add(1).min(busy.saturating_add(2)) {
            let candidate = self.subnet.address(self.next);
            self.next = if self.next >= self.last { self.first } else { self.next + 1 };
            let is_free = candidate != self.gateway && !self.kept.contains(&candidate);
            if is_free && !self.resting.contains_key(&candidate) && self.used.insert(candidate) {
                return Some(candidate);
            }
        }
        None
    }

    /// Marks the address as in use; false when it is not the subnet's to give or has an owner already.
    pub(crate) fn reserve(&mut self, address: Ipv4Addr) -> bool {
        let number = address.to_bits().wrapping_sub(self.subnet.network().to_bits());
        let ours = self.subnet.contains(address) && number >= 1 && number <= self.subnet.usable();
        let free = ours && address != self.gateway && self.used.insert(address);
        if free {
            self.resting.remove(&address);
            // New ones come after those that were in use before a restart.
            if number >= self.next && number <= self.last {
                self.next = if number >= self.last { self.first } else { number + 1 };
            }
        }
        free
    }

    /// Gives the address back; it rests until [`wake`](Self::wake) learns that its link is gone.
    pub(crate) fn release(&mut self, address: Ipv4Addr, interface: &str) {
        if self.used.remove(&address) {
            self.resting.insert(address, interface.to_owned());
        }
    }

    /// Frees the resting addresses whose link is not in `links` any more.
    pub(crate) fn wake(&mut self, links: &BTreeSet<String>) {
        self.resting.retain(|_, interface| links.contains(interface));
    }

    pub(crate) fn has_resting(&self) -> bool {
        !self.resting.is_empty()
    }
}

/// The IPv6 addresses of one subnet. They follow from IPv4 addresses where they can, and so rest when those do. The others
/// are handed out in turn, as those are.
#[derive(Debug)]
pub(crate) struct Ipv6Pool {
    subnet: Ipv6Subnet,
    gateway: Ipv6Addr,
    /// Whoever asks for none gets one of these, both ends included.
    first: u128,
    last: u128,
    kept: BTreeSet<Ipv6Addr>,
    next: u128,
    used: BTreeSet<Ipv6Addr>,
}

/// How far a free IPv6 address is looked for: more than containers fit on a bridge.
const IPV6_LOOKS: u128 = 1 << 16;

impl Ipv6Pool {
    /// As [`AddressPool::within`]. `None` without IPv6.
    pub(crate) fn of(addresses: &BridgeAddresses, range: Option<Ipv6Subnet>, kept: BTreeSet<Ipv6Addr>) -> Option<Self> {
        let (subnet, gateway) = (addresses.ipv6_subnet()?, addresses.ipv6_gateway?);
        let whole = (subnet.network().to_bits() + 1, subnet.last().to_bits());
        let (first, last) = match range {
            Some(range) => {
                let first = range.network().to_bits().clamp(whole.0, whole.1);
                (first, range.last().to_bits().clamp(first, whole.1))
            }
            None => whole,
        };
        Some(Self { subnet, gateway, first, last, kept, next: first, used: BTreeSet::new() })
    }

    /// How many addresses there are for those who ask for none.
    pub(crate) fn size(&self) -> u128 {
        let has_gateway = (self.first..=self.last).contains(&self.gateway.to_bits());
        (self.last - self.first).saturating_add(1).saturating_sub(u128::from(has_gateway))
    }

    /// The address that is wished for, or the next one that is free; `None` if none is.
    pub(crate) fn take(&mut self, wish: Option<Ipv6Addr>) -> Option<Ipv6Addr> {
        let is_to_give =
            |pool: &Self, one: Ipv6Addr| (pool.first..=pool.last).contains(&one.to_bits()) && !pool.kept.contains(&one);
        if let Some(wish) = wish.filter(|wish| is_to_give(self, *wish))
            && self.reserve(wish)
        {
            return Some(wish);
        }
        for _ in 0..self.size().saturating_add(1).min(IPV6_LOOKS) {
            let candidate = Ipv6Addr::from_bits(self.next);
            self.next = if self.next >= self.last { self.first } else { self.next + 1 };
            if is_to_give(self, candidate) && self.reserve(candidate) {
                return Some(candidate);
            }
        }
        None
    }

    /// As [`AddressPool::reserve`]. The first address of a subnet is for routers (RFC 4291, 2.6.1).
    pub(crate) fn reserve(&mut self, address: Ipv6Addr) -> bool {
        let ours = self.subnet.contains(address) && self.subnet.network() != address;
        ours && self.gateway != address && self.used.insert(address)
    }

    pub(crate) fn release(&mut self, address: Ipv6Addr) {
        self.used.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(prefix_length: u8) -> AddressPool {
        let gateway = Ipv4Addr::new(10, 0, 0, 1);
        AddressPool::new(Ipv4Subnet::containing(gateway, prefix_length), gateway)
    }

    #[test]
    fn a_small_subnet_is_used_up_and_comes_back() {
        let mut pool = pool(29);
        let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(all, (2..=6).map(|last| Ipv4Addr::new(10, 0, 0, last)).collect::<Vec<_>>());
        pool.release(all[2], "a");
        assert_eq!(pool.take(), None, "its link is still there");
        pool.wake(&BTreeSet::from(["a".to_owned()]));
        assert_eq!(pool.take(), None, "its link is still there");
        pool.wake(&BTreeSet::new());
        assert_eq!(pool.take(), Some(all[2]));
    }

    #[test]
    fn what_is_not_the_subnets_to_give_cannot_be_reserved() {
        let mut pool = pool(29);
        for address in ["10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.0.8", "9.9.9.9"] {
            assert!(!pool.reserve(address.parse().unwrap()), "{address}");
        }
        assert!(pool.reserve(Ipv4Addr::new(10, 0, 0, 4)));
        assert!(!pool.reserve(Ipv4Addr::new(10, 0, 0, 4)));
        assert_eq!(pool.take(), Some(Ipv4Addr::new(10, 0, 0, 5)));
    }

    #[test]
    fn a_range_is_given_out_and_what_is_kept_is_not() {
        let subnet = |text: &str, prefix_length| Ipv4Subnet::containing(text.parse().unwrap(), prefix_length);
        let kept = BTreeSet::from([Ipv4Addr::new(10, 0, 0, 18)]);
        let mut pool = AddressPool::new(subnet("10.0.0.0", 24), Ipv4Addr::new(10, 0, 0, 17))
            .within(Some(subnet("10.0.0.16", 30)), kept);
        let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(all, [Ipv4Addr::new(10, 0, 0, 16), Ipv4Addr::new(10, 0, 0, 19)]);
        assert!(pool.reserve(Ipv4Addr::new(10, 0, 0, 200)), "a fixed address is of the subnet, not of the range");
        assert!(pool.reserve(Ipv4Addr::new(10, 0, 0, 18)), "it is kept for who asks for it");
        assert_eq!(pool.take(), None);
    }

    fn ipv6(prefix_length: u8, range: Option<(&str, u8)>, kept: &[&str]) -> (BridgeAddresses, Ipv6Pool) {
        let addresses = BridgeAddresses {
            name: "a".into(),
            ipv4_gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
            ipv4_prefix_length: 16,
            ipv6_gateway: Some("fd00::1".parse().unwrap()),
            ipv6_prefix_length: prefix_length,
        };
        let range = range.map(|(first, length)| Ipv6Subnet::containing(first.parse().unwrap(), length));
        let kept = kept.iter().map(|text| text.parse().unwrap()).collect();
        let pool = Ipv6Pool::of(&addresses, range, kept).unwrap();
        (addresses, pool)
    }

    #[test]
    fn ipv6_goes_with_ipv4_where_it_can() {
        let (addresses, mut pool) = ipv6(126, None, &[]);
        let mut take = |last| {
            let beside = addresses.ipv6_beside(Ipv4Addr::new(10, 0, 0, last));
            pool.take(beside).map(|address| address.to_string())
        };
        assert_eq!([take(9), take(3), take(4)], [Some("fd00::2".into()), Some("fd00::3".into()), None]);
        pool.release("fd00::2".parse().unwrap());
        assert!(!pool.reserve("fd00::1".parse().unwrap()));
        assert!(pool.reserve("fd00::2".parse().unwrap()));
    }

    #[test]
    fn ipv6_alone_is_handed_out_in_turn_and_what_is_kept_is_not() {
        let (_, mut pool) = ipv6(64, Some(("fd00::8", 126)), &["fd00::9"]);
        let mut take = || pool.take(None).map(|address| address.to_string());
        assert_eq!(
            [take(), take(), take(), take()],
            [Some("fd00::8".into()), Some("fd00::a".into()), Some("fd00::b".into()), None]
        );
        assert!(pool.reserve("fd00::9".parse().unwrap()), "it is kept for who asks for it");
        assert!(pool.reserve("fd00::77".parse().unwrap()), "a fixed address is of the subnet, not of the range");
        assert!(!pool.reserve("fd00::".parse().unwrap()) && !pool.reserve("fd01::7".parse().unwrap()));
        let (_, mut wide) = ipv6(64, None, &[]);
        let first = wide.take(None).unwrap();
        wide.release(first);
        assert_eq!(
            [first, wide.take(None).unwrap()],
            ["fd00::2".parse::<Ipv6Addr>().unwrap(), "fd00::3".parse().unwrap()]
        );
        assert_eq!(wide.size(), (1 << 64) - 2);
    }

    proptest! {
        #[test]
        fn no_address_has_two_owners(steps in proptest::collection::vec((0u8..4, any::<u8>()), 1..200), prefix in 26u8..=30) {
            let mut pool = pool(prefix);
            let mut owned: Vec<Ipv4Addr> = Vec::new();
            for (step, pick) in steps {
                match step {
                    0 | 1 => match pool.take() {
                        Some(address) => {
                            prop_assert!(!owned.contains(&address));
                            prop_assert!(address != pool.gateway && pool.subnet.contains(address));
                            owned.push(address);
                        }
                        None => prop_assert!(pool.has_resting() || owned.len() as u32 == pool.subnet.usable() - 1),
                    },
                    2 if !owned.is_empty() => {
                        let address = owned.swap_remove(usize::from(pick) % owned.len());
                        pool.release(address, "gone");
                    }
                    3 => {
                        let address = Ipv4Addr::new(10, 0, 0, pick);
                        if pool.reserve(address) {
                            prop_assert!(!owned.contains(&address));
                            owned.push(address);
                        }
                        pool.wake(&BTreeSet::new());
                    }
                    _ => {}
                }
            }
        }
    }
}
