//! Which name server is asked when: the first at once, the next a moment later if nothing has come, and so on. One that
//! is dead costs that moment, once: as long as it is known to be slow, it is asked last.

use std::time::{Duration, Instant};

/// Of those that are listed, so many are asked (resolv.conf(5) has 3).
pub const MOST_SERVERS: usize = 8;
/// Before the next one is asked. A dead server may cost 250 ms.
pub const HEAD_START: Duration = Duration::from_millis(200);
/// After the last has been asked, before all are asked again: a datagram may be lost.
const AGAIN: Duration = Duration::from_millis(1_000);
/// Nobody waits longer: glibc and musl ask again after 5 s (resolv.conf(5), `timeout`).
const PATIENCE: Duration = Duration::from_millis(4_500);
/// For so long, one that did not answer in time is asked last.
const SLOW: Duration = Duration::from_secs(30);

/// Name servers in their order, and which of them were slow.
#[derive(Debug, Clone)]
pub struct Upstreams<A> {
    servers: Vec<(A, Option<Instant>)>,
}

impl<A> Default for Upstreams<A> {
    fn default() -> Self {
        Self { servers: Vec::new() }
    }
}

impl<A: Clone + PartialEq> Upstreams<A> {
    /// These, in this order; the first [`MOST_SERVERS`] of them.
    pub fn new(servers: impl IntoIterator<Item = A>) -> Self {
        Self { servers: servers.into_iter().take(MOST_SERVERS).map(|server| (server, None)).collect() }
    }

    /// These from now on; true if they are not the same. Those who stay stay as slow as they were.
    pub fn change(&mut self, servers: impl IntoIterator<Item = A>) -> bool {
        let mut new = Self::new(servers);
        for (server, slow) in &mut new.servers {
            *slow = self.servers.iter().find(|(other, _)| other == server).and_then(|(_, slow)| *slow);
        }
        let same = new.servers.iter().map(|(server, _)| server).eq(self.servers.iter().map(|(server, _)| server));
        *self = new;
        !same
    }

    /// Those who are not known to be slow, then the others.
    pub fn order(&self, now: Instant) -> Vec<A> {
        let is_slow = |until: &Option<Instant>| until.is_some_and(|until| until > now);
        let (slow, good): (Vec<_>, Vec<_>) = self.servers.iter().partition(|(_, until)| is_slow(until));
        good.into_iter().chain(slow).map(|(server, _)| server.clone()).collect()
    }

    /// It did not answer in time.
    pub fn was_slow(&mut self, server: &A, now: Instant) {
        self.set(server, Some(now + SLOW));
    }

    /// It answered.
    pub fn was_good(&mut self, server: &A) {
        self.set(server, None);
    }

    fn set(&mut self, server: &A, until: Option<Instant>) {
        self.servers.iter_mut().filter(|(other, _)| other == server).for_each(|(_, slow)| *slow = until);
    }
}

/// One question, and whom it is put to.
#[derive(Debug)]
pub struct Race {
    servers: usize,
    asked: usize,
    /// How many of this round have said that they cannot answer.
    failed: usize,
    next: Instant,
    ends: Instant,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask this one, by its place in the order; then ask again for the next step.
    Ask(usize),
    /// Nothing before this moment, unless an answer comes.
    Wait(Instant),
    /// Nobody answers.
    GiveUp,
}

impl Race {
    /// Between so many servers.
    pub fn begin(servers: usize, now: Instant) -> Self {
        Self { servers, asked: 0, failed: 0, next: now, ends: now + PATIENCE }
    }

    /// What is to be done now.
    pub fn step(&mut self, now: Instant) -> Step {
        if now >= self.ends || self.failed >= self.servers {
            return Step::GiveUp;
        }
        if now < self.next {
            return Step::Wait(self.next.min(self.ends));
        }
        let server = self.asked % self.servers;
        self.asked += 1;
        let last_of_round = self.asked.is_multiple_of(self.servers);
        self.next = now + if last_of_round { AGAIN } else { HEAD_START };
        Step::Ask(server)
    }

    /// One that was asked cannot answer: the next is asked at once, unless all have been.
    pub fn failed(&mut self, now: Instant) {
        self.failed += 1;
        if self.asked < self.servers {
            self.next = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens, as (milliseconds, server), when these servers fail as soon as they are asked and nobody answers.
    fn run(servers: usize, failing: &[usize]) -> (Vec<(u64, usize)>, u64) {
        let begun = Instant::now();
        let (mut race, mut now, mut asked) = (Race::begin(servers, begun), begun, Vec::new());
        loop {
            let since = u64::try_from((now - begun).as_millis()).unwrap();
            match race.step(now) {
                Step::Ask(server) => {
                    asked.push((since, server));
                    if failing.contains(&server) {
                        race.failed(now);
                    }
                }
                Step::Wait(until) => {
                    assert!(until > now);
                    now = until;
                }
                Step::GiveUp => return (asked, since),
            }
        }
    }

    #[test]
    fn servers_are_asked_one_after_the_other_and_again() {
        assert_eq!(run(0, &[]), (vec![], 0));
        assert_eq!(run(1, &[]), (vec![(0, 0), (1000, 0), (2000, 0), (3000, 0), (4000, 0)], 4500));
        let three = [
            (0, 0),
            (200, 1),
            (400, 2),
            (1400, 0),
            (1600, 1),
            (1800, 2),
            (2800, 0),
            (3000, 1),
            (3200, 2),
            (4200, 0),
            (4400, 1),
        ];
        assert_eq!(run(3, &[]), (three.to_vec(), 4500));
    }

    #[test]
    fn one_that_fails_costs_nothing() {
        assert_eq!(run(2, &[0]).0[..3], [(0, 0), (0, 1), (1000, 0)]);
        assert_eq!(run(3, &[0, 1]).0[..3], [(0, 0), (0, 1), (0, 2)]);
        assert_eq!(run(2, &[0, 1]), (vec![(0, 0), (0, 1)], 0));
        assert_eq!(run(1, &[0]), (vec![(0, 0)], 0));
    }

    #[test]
    fn who_was_slow_is_asked_last_for_a_while() {
        let now = Instant::now();
        let mut servers = Upstreams::new(["a", "b", "c"]);
        servers.was_slow(&"a", now);
        assert_eq!(servers.order(now), ["b", "c", "a"]);
        assert_eq!(servers.order(now + SLOW), ["a", "b", "c"]);
        servers.was_slow(&"b", now);
        assert_eq!(servers.order(now), ["c", "a", "b"]);
        servers.was_good(&"a");
        assert_eq!(servers.order(now), ["a", "c", "b"]);
        assert_eq!(Upstreams::new(0..20).order(now).len(), MOST_SERVERS);
        assert!(!servers.change(["a", "b", "c"]));
        assert!(servers.change(["b", "d"]));
        assert_eq!(servers.order(now), ["d", "b"], "b is as slow as it was");
    }
}
