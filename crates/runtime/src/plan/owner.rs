//! Owners in the container for what has one owner on disk: the container's user 1000 has what root of the host has.

use super::ids::{IdMap, IdRange};
use super::invalid;
use crate::error::RuntimeError;

/// Who is to own in the container what the owner of a mount's root owns on disk. Where neither is said nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
}

impl Owner {
    /// `UID:GID`, `UID:`, `:GID`.
    pub(crate) fn of_option(text: &str) -> Result<Self, RuntimeError> {
        let wrong = || invalid(format!("owner {text:?}: want UID:GID, each from 0 to {}", u32::MAX - 1));
        let id = |text: &str| match text {
            "" => Ok(None),
            text => text.parse().ok().filter(|id| *id != u32::MAX).map(Some).ok_or_else(wrong),
        };
        let (user, group) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self { user: id(user)?, group: id(group)? })
    }

    /// The map that makes it so for a source that belongs to `user` and `group` on disk; `None` if it is so already.
    pub(crate) fn map(self, user: u32, group: u32) -> Option<IdMap> {
        let (wanted_user, wanted_group) = (self.user.unwrap_or(user), self.group.unwrap_or(group));
        if (user, group) == (wanted_user, wanted_group) {
            return None;
        }
        Some(IdMap { users: exchanged(user, wanted_user), groups: exchanged(group, wanted_group) })
    }
}

/// Every id stands for itself, but for these two, each of which stands for the other. Nobody is lost: whoever owns
/// something on disk is somebody in the container, and who makes something there has a name for it on disk.
fn exchanged(one: u32, other: u32) -> Vec<IdRange> {
    let (low, high) = (one.min(other), one.max(other));
    let range = |inside, outside, count| IdRange { inside, outside, count };
    // The last id, which means none, has no place in a map (user_namespaces(7)).
    if low == high {
        return vec![range(0, 0, u32::MAX)];
    }
    let mut ranges = vec![range(0, 0, low), range(low, high, 1), range(low + 1, low + 1, high - low - 1)];
    ranges.extend([range(high, low, 1), range(high + 1, high + 1, u32::MAX - 1 - high)]);
    ranges.retain(|range| range.count > 0);
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_owners_are_exchanged_and_nobody_is_lost() {
        let lines = |one, other| crate::plan::map_text(&exchanged(one, other));
        let last = u32::MAX - 1;
        assert_eq!(lines(0, 1000), "0 1000 1\n1 1 999\n1000 0 1\n1001 1001 4294966294\n");
        assert_eq!(lines(1000, 0), lines(0, 1000));
        assert_eq!(lines(0, 1), "0 1 1\n1 0 1\n2 2 4294967293\n");
        assert_eq!(lines(5, last), format!("0 0 5\n5 {last} 1\n6 6 {}\n{last} 5 1\n", last - 6));
        assert_eq!(lines(7, 7), "0 0 4294967295\n");
        for (one, other) in [(0, 0), (0, 1000), (3, 4), (5, last)] {
            let count: u64 = exchanged(one, other).iter().map(|range| u64::from(range.count)).sum();
            assert_eq!(count, u64::from(u32::MAX));
            let map = IdMap { users: exchanged(one, other), groups: exchanged(other, one) };
            assert!(map.checked("test").is_ok());
        }
    }

    #[test]
    fn an_owner_is_read_and_what_is_so_already_needs_no_map() {
        let owner = |text: &str| Owner::of_option(text).ok().map(|owner| (owner.user, owner.group));
        assert_eq!(owner("1:2"), Some((Some(1), Some(2))));
        assert_eq!((owner("1:"), owner(":2")), (Some((Some(1), None)), Some((None, Some(2)))));
        for wrong in ["", "1", "a:b", "-1:0", "4294967295:0", "1:2:3"] {
            assert_eq!(owner(wrong), None, "{wrong}");
        }
        assert_eq!(Owner { user: Some(1), group: None }.map(1, 5), None);
        let map = Owner { user: Some(1), group: None }.map(0, 5).unwrap();
        assert_eq!(map.groups, exchanged(5, 5));
    }
}
