//! Which of the subnet's addresses are in use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::address::Ipv4Subnet;

/// The addresses of one subnet. Hands them out in turn, so that one that has just been given back rests the longest.
#[derive(Debug)]
pub(crate) struct AddressPool {
    subnet: Ipv4Subnet,
    gateway: Ipv4Addr,
    next: u32,
    used: BTreeSet<Ipv4Addr>,
    /// Given back, but the link that had it may still be there: address → the host's side of that link.
    resting: BTreeMap<Ipv4Addr, String>,
}

impl AddressPool {
    pub(crate) fn new(subnet: Ipv4Subnet, gateway: Ipv4Addr) -> Self {
        Self { subnet, gateway, next: 1, used: BTreeSet::new(), resting: BTreeMap::new() }
    }

    /// An address that nobody has; `None` when all are in use or resting.
    pub(crate) fn take(&mut self) -> Option<Ipv4Addr> {
        let usable = self.subnet.usable();
        let busy = u32::try_from(self.used.len() + self.resting.len()).unwrap_or(u32::MAX);
        // One more look than addresses are busy is enough to find a free one, the gateway counted as busy.
        for _ in 0..usable.min(busy.saturating_add(2)) {
            let candidate = self.subnet.address(self.next);
            self.next = if self.next >= usable { 1 } else { self.next + 1 };
            if candidate != self.gateway && !self.resting.contains_key(&candidate) && self.used.insert(candidate) {
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
            if number >= self.next {
                self.next = if number >= self.subnet.usable() { 1 } else { number + 1 };
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
