//! Maps of ids: which users and groups of the host are behind those inside (user_namespaces(7), "User and group ID
//! mappings").

use std::fmt::Write;

use oci_spec::runtime::LinuxIdMapping;

use super::invalid;
use crate::error::RuntimeError;

/// A range of ids, as one line of /proc/PID/uid_map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdRange {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) count: u32,
}

/// Users and groups of one user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMap {
    pub(crate) users: Vec<IdRange>,
    pub(crate) groups: Vec<IdRange>,
}

/// The kernel takes no more lines (user_namespaces(7)).
const MOST_RANGES: usize = 340;

impl IdMap {
    /// Users and groups of one range, from 0 on.
    pub(crate) fn of(ids: dozen_model::IdRange) -> Self {
        let ranges = vec![IdRange { inside: 0, outside: ids.first(), count: ids.count() }];
        Self { users: ranges.clone(), groups: ranges }
    }

    /// What is mapped by this and then by another: who is behind the ids inside of this, on the outside of that. Who is
    /// nobody to the second is nobody.
    pub(crate) fn then(&self, next: &Self) -> Self {
        Self { users: composed(&self.users, &next.users), groups: composed(&self.groups, &next.groups) }
    }

    /// A spec's two lists; `None` if both are empty. `what` names them: "linux".
    pub(super) fn new(
        what: &str,
        users: &Option<Vec<LinuxIdMapping>>,
        groups: &Option<Vec<LinuxIdMapping>>,
    ) -> Result<Option<Self>, RuntimeError> {
        let ranges = |list: &Option<Vec<LinuxIdMapping>>| -> Vec<IdRange> {
            let range = |mapping: &LinuxIdMapping| IdRange {
                inside: mapping.container_id(),
                outside: mapping.host_id(),
                count: mapping.size(),
            };
            list.iter().flatten().map(range).collect()
        };
        let (users, groups) = (ranges(users), ranges(groups));
        if users.is_empty() && groups.is_empty() {
            return Ok(None);
        }
        Self { users, groups }.checked(what).map(Some)
    }

    /// Refuses what the kernel would, by name.
    pub(super) fn checked(self, what: &str) -> Result<Self, RuntimeError> {
        for (list, name) in [(&self.users, "uidMappings"), (&self.groups, "gidMappings")] {
            if list.is_empty() {
                return Err(invalid(format!(
                    "{what}: uidMappings and gidMappings are given together: {name} is empty"
                )));
            }
            if list.len() > MOST_RANGES {
                return Err(invalid(format!("{what}.{name}: more than {MOST_RANGES} ranges")));
            }
            let fits = |start: u32, count: u32| count > 0 && start.checked_add(count).is_some();
            if !list.iter().all(|range| fits(range.inside, range.count) && fits(range.outside, range.count)) {
                return Err(invalid(format!("{what}.{name}: a range is empty, or reaches beyond the last id")));
            }
            let meet = |one: (u32, u32), other: (u32, u32)| one.0 < other.0 + other.1 && other.0 < one.0 + one.1;
            let overlap = list.iter().enumerate().any(|(index, one)| {
                list[..index].iter().any(|other| {
                    meet((one.inside, one.count), (other.inside, other.count))
                        || meet((one.outside, one.count), (other.outside, other.count))
                })
            });
            if overlap {
                return Err(invalid(format!("{what}.{name}: ranges overlap")));
            }
        }
        Ok(self)
    }
}

fn composed(first: &[IdRange], second: &[IdRange]) -> Vec<IdRange> {
    let pairs = first.iter().flat_map(|one| second.iter().map(move |other| (one, other)));
    let common = |(one, other): (&IdRange, &IdRange)| {
        let start = one.outside.max(other.inside);
        let end = (one.outside + one.count).min(other.inside + other.count);
        let count = end.checked_sub(start).filter(|count| *count > 0)?;
        let (inside, outside) = (one.inside + (start - one.outside), other.outside + (start - other.inside));
        Some(IdRange { inside, outside, count })
    };
    pairs.filter_map(common).collect()
}

/// The text of a uid_map or gid_map.
pub(crate) fn map_text(ranges: &[IdRange]) -> String {
    ranges.iter().fold(String::new(), |mut text, range| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {} {}", range.inside, range.outside, range.count);
        text
    })
}

/// Reads what the kernel shows of a uid_map or gid_map.
pub(crate) fn read_map(text: &str) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(IdRange { inside: next()?, outside: next()?, count: next()? })
    };
    text.lines().filter_map(range).collect()
}

/// Who an id of the inside is outside; `None` if nobody.
pub(crate) fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.inside)?;
        (offset < range.count).then(|| range.outside.checked_add(offset))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(inside: u32, outside: u32, count: u32) -> IdRange {
        IdRange { inside, outside, count }
    }

    #[test]
    fn ids_are_looked_up_in_ranges() {
        let map = [range(0, 1000, 1), range(1, 100_000, 10)];
        assert_eq!([0, 1, 10].map(|id| outside(&map, id)), [Some(1000), Some(100_000), Some(100_009)]);
        assert_eq!([11, u32::MAX].map(|id| outside(&map, id)), [None, None]);
        assert_eq!(map_text(&map), "0 1000 1\n1 100000 10\n");
        assert_eq!(read_map("         0       1000          1\n\nx\n         1     100000         10\n"), map);
    }

    #[test]
    fn two_maps_are_one_after_the_other() {
        // 0 and 1000 exchanged, in a container whose ids begin at 100000.
        let exchanged = [range(0, 1000, 1), range(1, 1, 999), range(1000, 0, 1), range(1001, 1001, 1_000_000)];
        let container = [range(0, 100_000, 1500)];
        let both = composed(&exchanged, &container);
        let expected =
            [range(0, 101_000, 1), range(1, 100_001, 999), range(1000, 100_000, 1), range(1001, 101_001, 499)];
        assert_eq!(both, expected);
        assert_eq!(
            [0, 1000, 1499, 1500].map(|id| outside(&both, id)),
            [Some(101_000), Some(100_000), Some(101_499), None]
        );
        assert_eq!(composed(&[range(0, 5, 5)], &[range(10, 0, 5)]), []);
        let map = IdMap::of("100000:1500".parse().unwrap());
        assert_eq!((map.users.as_slice(), &map.groups), (&container[..], &map.users));
    }

    #[test]
    fn maps_that_the_kernel_would_refuse_are_refused() {
        let check = |users: Vec<IdRange>, words: &str| {
            let error = IdMap { users, groups: vec![range(0, 0, 1)] }.checked("linux").unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(vec![], "uidMappings is empty");
        check(vec![range(0, 5, 0)], "a range is empty");
        check(vec![range(0, u32::MAX, 1)], "beyond the last id");
        check(vec![range(0, 10, 5), range(4, 100, 5)], "ranges overlap");
        check(vec![range(0, 10, 5), range(100, 14, 5)], "ranges overlap");
        check((0..341).map(|id| range(id, id, 1)).collect(), "more than 340");
        assert!(
            IdMap { users: vec![range(0, 10, 5), range(5, 0, 10)], groups: vec![range(0, 0, 1)] }.checked("x").is_ok()
        );
    }
}
