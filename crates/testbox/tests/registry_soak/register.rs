//! A place that holds one value or none, to which several write at the same time: what may be read there.
//!
//! Each write has a moment at which it was begun, and one at which it was over for whoever asked. In between, or never if it
//! was not answered, it has its effect. So a value may be read as long as no write that was answered has begun after the
//! value's own was over. That is a regular register (Lamport, "On interprocess communication", 1986): of writes that overlap
//! either may have been the last.

use std::collections::BTreeSet;

/// Microseconds since the model was made; no two events have the same.
pub type Moment = u64;

/// Not over yet.
pub const FOREVER: Moment = Moment::MAX;

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect<V> {
    /// The value is this from now on.
    Set(Option<V>),
    /// If the value is this, there is none from now on.
    Clear(V),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody has been answered yet.
    UnderWay,
    /// Nobody will be answered: it has its effect as long as the server lives, or never.
    Lost,
    Done,
}

#[derive(Debug, Clone)]
struct Write<V> {
    id: u64,
    begin: Moment,
    end: Moment,
    state: State,
    effect: Effect<V>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Register<V> {
    writes: Vec<Write<V>>,
}

impl<V: Copy + Ord> Register<V> {
    pub fn new(value: Option<V>, now: Moment) -> Self {
        let first = Write { id: 0, begin: now, end: now, state: State::Done, effect: Effect::Set(value) };
        Self { writes: vec![first] }
    }

    /// A write begins. Its id is its own in this register.
    pub fn begin(&mut self, id: u64, effect: Effect<V>, now: Moment) {
        self.writes.push(Write { id, begin: now, end: FOREVER, state: State::UnderWay, effect });
    }

    /// It was answered: it has had its effect.
    pub fn done(&mut self, id: u64, now: Moment) {
        self.change(id, State::Done, now);
    }

    /// It was refused: it has none.
    pub fn refused(&mut self, id: u64) {
        self.writes.retain(|write| write.id != id);
    }

    /// Nobody was answered.
    pub fn lost(&mut self, id: u64) {
        self.change(id, State::Lost, FOREVER);
    }

    /// The server is over, and with it what was lost.
    pub fn ended(&mut self, now: Moment) {
        for write in self.writes.iter_mut().filter(|write| write.state == State::Lost) {
            write.end = write.end.min(now);
        }
    }

    fn change(&mut self, id: u64, state: State, end: Moment) {
        for write in self.writes.iter_mut().filter(|write| write.id == id) {
            (write.state, write.end) = (state, end);
        }
    }

    /// What somebody may find who looks between these two moments.
    pub fn possible(&self, begin: Moment, end: Moment) -> BTreeSet<Option<V>> {
        let values = self.writes.iter().filter(|write| write.begin <= end).filter_map(|write| {
            let value = match write.effect {
                Effect::Set(value) => value,
                Effect::Clear(value) => self.could_be(value, write.begin, write.end).then_some(None)?,
            };
            (!self.is_over(write, begin)).then_some(value)
        });
        values.collect()
    }

    /// Whether nothing else can be found.
    pub fn is_certainly(&self, value: Option<V>, begin: Moment, end: Moment) -> bool {
        let possible = self.possible(begin, end);
        possible.len() == 1 && possible.contains(&value)
    }

    fn could_be(&self, value: V, begin: Moment, end: Moment) -> bool {
        let mut sets = self.writes.iter().filter(|write| write.effect == Effect::Set(Some(value)));
        sets.any(|write| write.begin <= end && !self.is_over(write, begin))
    }

    /// Whether another write has certainly taken its place before this moment.
    fn is_over(&self, write: &Write<V>, before: Moment) -> bool {
        self.writes.iter().any(|later| {
            let replaces = match later.effect {
                Effect::Set(_) => true,
                Effect::Clear(value) => write.effect == Effect::Set(Some(value)),
            };
            replaces && later.state == State::Done && later.begin > write.end && later.end < before
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Effect::{Clear, Set};
    use super::*;

    /// Writes of `(effect, begin, end)`, and how they ended: `d`one, `l`ost, `u`nder way.
    fn check(writes: &[(Effect<char>, Moment, Moment, char)], at: (Moment, Moment), expected: &str) {
        let mut register = Register::new(None, 0);
        for (id, (effect, begin, end, how)) in (1..).zip(writes) {
            register.begin(id, *effect, *begin);
            match how {
                'd' => register.done(id, *end),
                'l' => {
                    register.lost(id);
                    register.ended(*end);
                }
                _ => {}
            }
        }
        let found: String = register.possible(at.0, at.1).into_iter().map(|value| value.unwrap_or('-')).collect();
        assert_eq!(found, expected, "{writes:?} at {at:?}");
    }

    #[test]
    fn what_was_answered_is_there_and_what_was_not_may_be() {
        check(&[], (1, 2), "-");
        check(&[(Set(Some('a')), 1, 2, 'd')], (3, 4), "a");
        check(&[(Set(Some('a')), 1, 2, 'd'), (Set(None), 3, 4, 'd')], (5, 6), "-");
        check(&[(Set(Some('a')), 1, 2, 'l')], (3, 4), "-a");
        check(&[(Set(Some('a')), 1, 2, 'u')], (3, 4), "-a");
        // Before it has begun nobody finds it.
        check(&[(Set(Some('a')), 3, 4, 'd')], (1, 2), "-");
        check(&[(Set(Some('a')), 1, 2, 'd'), (Set(None), 5, 6, 'l')], (3, 4), "a");
    }

    #[test]
    fn of_two_at_the_same_time_either_may_have_been_the_last() {
        check(&[(Set(Some('a')), 1, 4, 'd'), (Set(Some('b')), 2, 3, 'd')], (5, 6), "ab");
        check(&[(Set(Some('a')), 1, 4, 'd'), (Set(Some('b')), 5, 7, 'd')], (6, 8), "ab");
        check(&[(Set(Some('a')), 1, 4, 'd'), (Set(Some('b')), 5, 7, 'd')], (8, 9), "b");
        // What was lost may come as late as its server's end.
        check(&[(Set(Some('a')), 1, 9, 'l'), (Set(Some('b')), 3, 4, 'd')], (5, 6), "ab");
        check(&[(Set(Some('a')), 1, 2, 'l'), (Set(Some('b')), 3, 4, 'd')], (5, 6), "b");
    }

    #[test]
    fn what_is_cleared_is_gone_and_nothing_else() {
        let a = (Set(Some('a')), 1, 2, 'd');
        check(&[a, (Clear('a'), 3, 4, 'd')], (5, 6), "-");
        check(&[a, (Clear('a'), 3, 4, 'l')], (5, 6), "-a");
        check(&[a, (Clear('b'), 3, 4, 'd')], (5, 6), "a");
        check(&[a, (Set(Some('b')), 3, 4, 'd'), (Clear('a'), 5, 6, 'd')], (7, 8), "b");
        check(&[a, (Set(Some('b')), 3, 6, 'd'), (Clear('a'), 4, 5, 'd')], (7, 8), "-b");
        check(&[a, (Clear('a'), 3, 4, 'd'), (Set(Some('b')), 5, 6, 'd')], (7, 8), "b");
    }

    #[test]
    fn what_was_refused_has_never_been() {
        let mut register = Register::new(Some('a'), 0);
        register.begin(1, Set(None), 1);
        assert_eq!(register.possible(2, 3).len(), 2);
        register.refused(1);
        assert!(register.is_certainly(Some('a'), 2, 3));
    }
}
