//! Ranges of the host's ids for containers that have users and groups of their own.
//!
//! Which are taken is what rows say and nothing else: a range is chosen in the transaction that writes the container's row,
//! and is free again when no row has it. What the host has given to somebody is left alone.

use std::path::Path;

use dozen_ledger::rusqlite::Connection;
use dozen_ledger::{LedgerError, Migration};
use dozen_model::{ErrorKind, IdRange, UserNamespace};
use dozen_monitor::protocol::Failure;

use crate::EngineError;
use crate::rows::from_json;

/// Finds the rows that have ids without reading the others'. And an engine that knows nothing of user namespaces does not
/// open the ledger any more: it would start these containers with the host's users.
pub(crate) const MIGRATION: Migration = Migration(
    "CREATE INDEX containers_with_ids ON containers (spec ->> '$.user_namespace')
         WHERE json_type(spec, '$.user_namespace') = 'object'",
);

/// A range that a container is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// How many.
    pub(crate) count: u32,
    /// Of which.
    pub(crate) pool: IdRange,
    /// Where in the pool it is looked for first.
    pub(crate) from: u32,
    /// Not of these: the host's.
    pub(crate) claimed: Vec<IdRange>,
}

impl Wanted {
    /// Reads what the host has given away. Engines side by side, which do not know each other's rows, begin at different
    /// places: `engine` is the id of this one. Blocks.
    pub(crate) fn new(count: u32, pool: IdRange, engine: &str) -> Self {
        Self { count, pool, from: beginning(pool, engine), claimed: claimed_by_host() }
    }

    /// A free range, if there is one.
    pub(crate) fn choose(&self, taken: &[IdRange]) -> Option<IdRange> {
        let mut taken: Vec<IdRange> = taken.iter().chain(&self.claimed).copied().collect();
        taken.sort_unstable();
        first_free(self.from, self.pool.end(), self.count, &taken)
            .or_else(|| first_free(self.pool.first(), self.pool.end(), self.count, &taken))
    }

    /// Why there is none.
    pub(crate) fn exhausted(&self) -> EngineError {
        let Self { count, pool, .. } = self;
        let message = format!("no range of {count} users and groups is free in userns-pool {pool}");
        let hint = "remove containers that have users of their own, ask for fewer (--userns auto:size=), or give the engine \
                    a larger userns-pool";
        Failure { kind: ErrorKind::Exhausted, message, hint: Some(hint.into()) }.into()
    }
}

/// The lowest from `start` on, and before `end`, that meets none of `taken`, which are in order.
fn first_free(start: u32, end: u32, count: u32, taken: &[IdRange]) -> Option<IdRange> {
    let mut start = start;
    for other in taken {
        let here = IdRange::new(start, count)?;
        if here.meets(*other) {
            start = other.end();
        } else if other.first() >= here.end() {
            break;
        }
    }
    IdRange::new(start, count).filter(|range| range.end() <= end)
}

/// One of the places in the pool at which ranges of the usual size begin.
fn beginning(pool: IdRange, engine: &str) -> u32 {
    let places = (pool.count() / UserNamespace::USUAL_COUNT).max(1);
    let number = u32::from_str_radix(engine.get(..8).unwrap_or_default(), 16).unwrap_or(0);
    pool.first() + number % places * UserNamespace::USUAL_COUNT
}

/// What rows have, in whatever state their containers are.
pub(crate) fn taken(connection: &Connection) -> Result<Vec<IdRange>, LedgerError> {
    let statement =
        "SELECT spec ->> '$.user_namespace' FROM containers WHERE json_type(spec, '$.user_namespace') = 'object'";
    let mut statement = connection.prepare(statement)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    let ids = |row: Result<String, _>| Ok(from_json::<UserNamespace>("a container's user namespace", &row?)?.ids());
    rows.map(ids).filter_map(Result::transpose).collect()
}

/// The host's users and groups, and what they may give to user namespaces of their own (passwd(5), group(5), subuid(5)).
fn claimed_by_host() -> Vec<IdRange> {
    let read = |path: &str| std::fs::read_to_string(Path::new("/etc").join(path)).unwrap_or_default();
    let mut claimed = of_users(&read("passwd"));
    claimed.extend(of_users(&read("group")));
    claimed.extend(of_subordinates(&read("subuid")));
    claimed.extend(of_subordinates(&read("subgid")));
    claimed
}

/// `name:password:ID:…`.
fn of_users(text: &str) -> Vec<IdRange> {
    text.lines().filter_map(|line| IdRange::new(line.split(':').nth(2)?.trim().parse().ok()?, 1)).collect()
}

/// `user:FIRST:COUNT`.
fn of_subordinates(text: &str) -> Vec<IdRange> {
    text.lines().filter_map(|line| line.trim().split_once(':')?.1.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> IdRange {
        text.parse().unwrap()
    }

    fn wanted(count: u32, pool: &str, from: u32, claimed: &[&str]) -> Wanted {
        Wanted { count, pool: range(pool), from, claimed: claimed.iter().map(|text| range(text)).collect() }
    }

    #[test]
    fn the_first_free_range_is_chosen() {
        let pool = "100000:1000";
        for (count, from, claimed, taken, want) in [
            (100, 100_000, vec![], vec![], Some("100000:100")),
            (100, 100_000, vec![], vec!["100000:100", "100100:50"], Some("100150:100")),
            (100, 100_000, vec!["100000:1"], vec!["100050:100"], Some("100150:100")),
            // From somewhere else on, and then what is before that.
            (100, 100_900, vec![], vec![], Some("100900:100")),
            (100, 100_900, vec![], vec!["100950:1"], Some("100000:100")),
            (1000, 100_500, vec![], vec![], Some("100000:1000")),
            // In a gap, but in none that is too small.
            (100, 100_000, vec![], vec!["100099:1", "100200:800"], Some("100100:100")),
            (100, 100_000, vec![], vec!["100199:1", "100099:1", "100299:700"], None),
            (1001, 100_000, vec![], vec![], None),
            (100, 100_000, vec!["0:4294967295"], vec![], None),
            (100, 100_000, vec!["99000:1001"], vec![], Some("100001:100")),
        ] {
            let taken: Vec<IdRange> = taken.into_iter().map(range).collect();
            let chosen = wanted(count, pool, from, &claimed).choose(&taken);
            assert_eq!(chosen, want.map(range), "{count} from {from}, {claimed:?}, {taken:?}");
        }
        assert_eq!(wanted(10, "4294967280:15", 4_294_967_280, &["4294967280:8"]).choose(&[]), None);
    }

    #[test]
    fn engines_side_by_side_begin_at_different_places() {
        let pool = range("2013265920:134217728");
        let place = |engine: &str| beginning(pool, engine);
        assert_eq!([place("00000000ff"), place("00000801")], [pool.first(), pool.first() + 65536]);
        assert!(pool.inside(place("ffffffff")).is_some_and(|place| place + 65536 <= pool.count()));
        assert_eq!(beginning(range("70000:100"), "ffffffff"), 70_000);
    }

    #[test]
    fn what_the_host_has_given_away_is_read() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\na:x:70000:1::/:/bin/sh\nb:x:y:1:::\n";
        assert_eq!(of_users(users), [range("0:1"), range("70000:1")]);
        assert_eq!(
            of_subordinates("a:100000:65536\n\n1000:200000:5\nb:1\n"),
            [range("100000:65536"), range("200000:5")]
        );
    }

    proptest! {
        /// Containers come and go, and two that are there never have an id in common, nor one with the host.
        #[test]
        fn ranges_of_containers_never_meet(
            steps in prop::collection::vec((any::<bool>(), 1u32..300, 0usize..8), 1..80),
            from in 0u32..1000,
            claimed in prop::collection::vec((100_000u32..101_000, 1u32..40), 0..4),
        ) {
            let pool = range("100000:1000");
            let claimed: Vec<IdRange> =
                claimed.into_iter().map(|(first, count)| IdRange::new(first, count).unwrap()).collect();
            let mut live: Vec<IdRange> = Vec::new();
            for (comes, count, which) in steps {
                if !comes {
                    if which < live.len() {
                        live.swap_remove(which);
                    }
                    continue;
                }
                let wanted = Wanted { count, pool, from: pool.first() + from, claimed: claimed.clone() };
                let fits = |start| {
                    let here = IdRange::new(start, count).unwrap();
                    here.end() <= pool.end() && !live.iter().chain(&claimed).any(|other| other.meets(here))
                };
                match wanted.choose(&live) {
                    Some(chosen) => {
                        prop_assert_eq!(chosen.count(), count);
                        prop_assert!(chosen.first() >= pool.first() && fits(chosen.first()), "{chosen} {live:?}");
                        live.push(chosen);
                    }
                    None => prop_assert!(!(pool.first()..pool.end()).any(fits), "{count} do fit: {live:?}"),
                }
            }
        }
    }
}
