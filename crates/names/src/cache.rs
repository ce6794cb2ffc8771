//! What name servers have said, for as long as it is good, within bounds.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::name::Name;
use crate::query::Query;
use crate::reply;

/// How many answers are kept.
const MOST_ANSWERS: usize = 4_096;
/// How many bytes they may have together.
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// The longest answer that is kept.
const LONGEST_BYTES: usize = 4_096;
/// However long a server says: a day, as RFC 8767 suggests no more than some.
const LONGEST_SECONDS: u32 = 86_400;

/// What makes two questions the same for a name server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Whom the servers belong to: a container's id, or nothing for the host's.
    pub servers_of: String,
    name: Name,
    kind: u16,
    checking_disabled: bool,
    /// Has an OPT record, and wants signatures.
    extended: Option<bool>,
}

impl Key {
    /// Of a question for these servers.
    pub fn new(servers_of: &str, query: &Query) -> Self {
        Self {
            servers_of: servers_of.to_owned(),
            name: query.name.clone(),
            kind: query.kind,
            checking_disabled: query.checking_disabled,
            extended: query.extended.map(|extended| extended.dnssec_ok),
        }
    }
}

/// Answers by question.
#[derive(Debug, Default)]
pub struct Cache {
    kept: HashMap<Key, Kept>,
    /// The first that is no longer good comes first.
    by_end: BTreeMap<(Instant, u64), Key>,
    bytes: usize,
    number: u64,
}

#[derive(Debug)]
struct Kept {
    message: Vec<u8>,
    since: Instant,
    ends: (Instant, u64),
}

impl Cache {
    /// The answer for this asker, of at most so many bytes, if there is one that is still good.
    pub fn find(&self, key: &Key, query: &Query, most_bytes: usize, now: Instant) -> Option<Vec<u8>> {
        let kept = self.kept.get(key)?;
        if kept.ends.0 <= now {
            return None;
        }
        let age = u32::try_from(now.saturating_duration_since(kept.since).as_secs()).unwrap_or(u32::MAX);
        Some(reply::for_client(&kept.message, query, age, most_bytes))
    }

    /// Keeps an answer for so long; what is soonest over makes room for it.
    pub fn keep(&mut self, key: Key, message: &[u8], seconds: u32, now: Instant) {
        if seconds == 0 || message.len() > LONGEST_BYTES {
            return;
        }
        self.forget(&key);
        while let Some((&(end, number), _)) = self.by_end.first_key_value()
            && (end <= now || self.kept.len() >= MOST_ANSWERS || self.bytes + message.len() > MOST_BYTES)
        {
            if let Some(oldest) = self.by_end.remove(&(end, number)) {
                self.forget(&oldest);
            }
        }
        self.number += 1;
        let ends = (now + Duration::from_secs(u64::from(seconds.min(LONGEST_SECONDS))), self.number);
        self.bytes += message.len();
        self.by_end.insert(ends, key.clone());
        self.kept.insert(key, Kept { message: message.to_vec(), since: now, ends });
    }

    /// Forgets what these servers have said: they are others now.
    pub fn forget_servers(&mut self, servers_of: &str) {
        let theirs: Vec<Key> = self.kept.keys().filter(|key| key.servers_of == servers_of).cloned().collect();
        theirs.iter().for_each(|key| self.forget(key));
    }

    fn forget(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.by_end.remove(&kept.ends);
            self.bytes -= kept.message.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::kind;
    use crate::query::tests::ask;
    use crate::reply::tests::replied;

    fn query(name: &str) -> Query {
        Query::read(&ask(name, kind::A, None)).unwrap()
    }

    #[test]
    fn an_answer_is_kept_for_as_long_as_it_is_good() {
        let (mut cache, begun, query) = (Cache::default(), Instant::now(), query("Example.org"));
        let after = |seconds| begun + Duration::from_secs(seconds);
        let key = Key::new("", &query);
        let good = replied(&query, 1, 0, &[60], None);
        assert_eq!(cache.find(&key, &query, 512, begun), None);
        cache.keep(key.clone(), &good, 0, begun);
        assert_eq!(cache.find(&key, &query, 512, begun), None, "good for no time");
        cache.keep(key.clone(), &good, 60, begun);
        let found = cache.find(&key, &query, 512, after(59)).unwrap();
        assert_eq!(found, reply::for_client(&good, &query, 59, 512));
        assert_eq!(cache.find(&key, &query, 512, after(60)), None);
        assert_eq!(cache.find(&Key::new("c1", &query), &query, 512, begun), None, "other servers");
        // A new one takes its place.
        cache.keep(key.clone(), &good, 60, after(50));
        assert!(cache.find(&key, &query, 512, after(70)).is_some());
        cache.forget_servers("c1");
        assert!(cache.find(&key, &query, 512, after(70)).is_some());
        cache.forget_servers("");
        assert_eq!(cache.find(&key, &query, 512, after(70)), None);
        assert_eq!((cache.bytes, cache.by_end.len(), cache.kept.len()), (0, 0, 0));
    }

    #[test]
    fn what_is_kept_has_bounds() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for number in 0..MOST_ANSWERS + 100 {
            let query = query(&format!("n{number}.org"));
            let message = vec![0; if number % 2 == 0 { 100 } else { 1_000 }];
            cache.keep(Key::new("", &query), &message, 100 + u32::try_from(number).unwrap(), now);
            assert!(cache.kept.len() <= MOST_ANSWERS && cache.bytes <= MOST_BYTES);
            assert_eq!(cache.kept.len(), cache.by_end.len());
        }
        // The newest is there, the one that would have been over first is not.
        let there = |number: usize| cache.kept.contains_key(&Key::new("", &query(&format!("n{number}.org"))));
        assert!(there(MOST_ANSWERS + 99) && !there(0));
        cache.keep(Key::new("", &query("long.org")), &[0; LONGEST_BYTES + 1], 60, now);
        assert!(!cache.kept.contains_key(&Key::new("", &query("long.org"))));
    }
}
