//! What name servers answer: checked, aged, and passed on as it is. Hostile: whoever can send to our socket may answer.

use crate::HEADER_BYTES;
use crate::answer::{Answer, put_extended};
use crate::name::{self, Name};
use crate::query::{CLASS_IN, DNSSEC_OK, NO_SUCH_NAME, Query, flag, kind, word};

/// More than a message has room for.
const MOST_RECORDS: usize = 6_000;
/// The fixed part of a record after its name.
const FIXED_BYTES: usize = 10;

/// What an answer is, beside what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It is good for so many seconds, 0 if it must not be kept.
    Good {
        /// The shortest time to live; for a name or kind that is not there, what RFC 2308 says.
        seconds: u32,
        /// It says that it is cut short.
        truncated: bool,
    },
    /// This server cannot or will not say: another might.
    Failed,
}

/// The question for a name server: the asker's, with an id of our own and nothing else that it has sent.
pub fn forwarded(query: &Query, id: u16) -> Vec<u8> {
    let mut flags = flag::RECURSION_DESIRED;
    flags |= if query.checking_disabled { flag::CHECKING_DISABLED } else { 0 };
    let words = [id, flags, 1, 0, 0, u16::from(query.extended.is_some())];
    let mut message: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    message.extend_from_slice(query.name.wire());
    message.extend_from_slice(&query.kind.to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    if let Some(extended) = query.extended {
        put_extended(&mut message, if extended.dnssec_ok { DNSSEC_OK } else { 0 });
    }
    message
}

impl Reply {
    /// Looks at what came for the question with this id; `None` if it is no answer to that.
    pub fn read(message: &[u8], query: &Query, id: u16) -> Option<Self> {
        let flags = word(message, 2)?;
        let is_answer = flags & flag::RESPONSE != 0 && flags & flag::OPERATION == 0;
        if word(message, 0)? != id || !is_answer {
            return None;
        }
        let result = flags & flag::RESULT;
        let good = matches!(result, 0 | NO_SUCH_NAME);
        match word(message, 4)? {
            // Those who cannot read a question may not repeat it.
            0 if !good => return Some(Self::Failed),
            1 => {}
            _ => return None,
        }
        let (name, length) = Name::read(message, HEADER_BYTES)?;
        let end = HEADER_BYTES + length;
        if name != query.name || word(message, end)? != query.kind || word(message, end + 2)? != query.class {
            return None;
        }
        if !good {
            return Some(Self::Failed);
        }
        let answers = usize::from(word(message, 6)?);
        let truncated = flags & flag::TRUNCATED != 0;
        let (mut shortest, mut negative) = (None, None);
        let whole = each_record(message, |number, record| {
            if number < answers {
                shortest = Some(shortest.unwrap_or(u32::MAX).min(record.time_to_live()));
            } else if record.kind == kind::SOA {
                negative = negative.or_else(|| record.negative());
            }
        });
        let seconds = match (whole, shortest) {
            // What is cut short need not be whole, but is not kept either.
            _ if truncated => 0,
            // What is damaged is not passed on: to be a forwarder for attacks on those who ask us is nobody's wish.
            (None, _) => return None,
            (Some(()), Some(shortest)) if result == 0 => shortest,
            (Some(()), _) => negative.unwrap_or(0),
        };
        Some(Self::Good { seconds, truncated })
    }
}

pub(crate) struct Seen<'a> {
    pub(crate) kind: u16,
    /// Where its time to live stands.
    time_to_live_at: usize,
    raw_time_to_live: u32,
    pub(crate) data: &'a [u8],
}

impl Seen<'_> {
    /// One with the highest bit is none (RFC 2181, 8).
    fn time_to_live(&self) -> u32 {
        if self.raw_time_to_live > i32::MAX.cast_unsigned() { 0 } else { self.raw_time_to_live }
    }

    /// For how long it may be believed that something is not there: of an SOA record (RFC 2308, 5).
    fn negative(&self) -> Option<u32> {
        let minimum = self.data.last_chunk::<4>()?;
        Some(self.time_to_live().min(u32::from_be_bytes(*minimum)))
    }
}

/// Every record behind the question, with its number; `None` if the message is cut short.
pub(crate) fn each_record<'a>(message: &'a [u8], mut take: impl FnMut(usize, Seen<'a>)) -> Option<()> {
    let count: usize = [6, 8, 10].iter().filter_map(|at| word(message, *at)).map(usize::from).sum();
    let mut at = name::skip(message, HEADER_BYTES)? + 4;
    for number in 0..count.min(MOST_RECORDS) {
        let fixed = name::skip(message, at)?;
        let length = usize::from(word(message, fixed + 8)?);
        let data = message.get(fixed + FIXED_BYTES..fixed + FIXED_BYTES + length)?;
        let (high, low) = (word(message, fixed + 4)?, word(message, fixed + 6)?);
        let raw_time_to_live = u32::from(high) << 16 | u32::from(low);
        take(number, Seen { kind: word(message, fixed)?, time_to_live_at: fixed + 4, raw_time_to_live, data });
        at = fixed + FIXED_BYTES + length;
    }
    Some(())
}

/// A name server's good answer for the one who asked: its id, its spelling of the question, the times to live `age`
/// seconds shorter, and at most so many bytes.
pub fn for_client(reply: &[u8], query: &Query, age_seconds: u32, most_bytes: usize) -> Vec<u8> {
    if reply.len() > most_bytes {
        let mut message = Answer::default().encode(query, most_bytes);
        message[2] |= flag::TRUNCATED.to_be_bytes()[0];
        return message;
    }
    let mut message = reply.to_vec();
    let mut places = Vec::new();
    let _ = each_record(reply, |_, record| {
        // Of an OPT record, it is none.
        if record.kind != kind::OPT {
            places.push((record.time_to_live_at, record.time_to_live().saturating_sub(age_seconds)));
        }
    });
    for (at, seconds) in places {
        message[at..at + 4].copy_from_slice(&seconds.to_be_bytes());
    }
    message[..2].copy_from_slice(&query.id.to_be_bytes());
    let end = HEADER_BYTES + query.question.len();
    // It was read before, and repeats the question: that long it is.
    if let Some(question) = message.get_mut(HEADER_BYTES..end) {
        question.copy_from_slice(&query.question);
    }
    let mut flags = word(&message, 2).unwrap_or(0) | flag::RECURSION_AVAILABLE;
    flags &= !flag::RECURSION_DESIRED;
    flags |= if query.recursion_desired { flag::RECURSION_DESIRED } else { 0 };
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::query::tests::ask;

    fn query() -> Query {
        Query::read(&ask("Example.org", kind::A, None)).unwrap()
    }

    /// An answer with this result, answers of these times to live, and an SOA record (its own and its minimum).
    pub(crate) fn replied(query: &Query, id: u16, result: u8, seconds: &[u32], soa: Option<(u32, u32)>) -> Vec<u8> {
        let [high, low] = id.to_be_bytes();
        let mut message = vec![high, low, 0x81, 0x80 | result, 0, 1, 0, seconds.len() as u8, 0, 0, 0, 0];
        message[9] = u8::from(soa.is_some());
        message.extend_from_slice(query.name.wire());
        message.extend_from_slice(&[query.kind.to_be_bytes(), [0, 1]].concat());
        for time in seconds {
            message.extend([&[0xc0, 12, 0, 1, 0, 1][..], &time.to_be_bytes(), &[0, 4, 192, 0, 2, 1]].concat());
        }
        if let Some((time, minimum)) = soa {
            let data = [&[0xc0, 12, 0xc0, 12][..], &[0; 16], &minimum.to_be_bytes()].concat();
            message.extend([&[0xc0, 12, 0, 6, 0, 1][..], &time.to_be_bytes(), &[0, 24], &data].concat());
        }
        message
    }

    #[test]
    fn how_long_an_answer_is_good() {
        let query = query();
        for (result, seconds, soa, want) in [
            (0, &[300, 60, 7200][..], None, 60),
            (0, &[0], None, 0),
            (0, &[0x8000_0001], None, 0),
            (0, &[300], Some((10, 10)), 300),
            // Not there: the shorter of both.
            (3, &[], Some((900, 60)), 60),
            (3, &[], Some((30, 60)), 30),
            (0, &[], Some((900, 60)), 60),
            (3, &[], None, 0),
            (0, &[], None, 0),
            // An alias of something that is not there.
            (3, &[300], Some((900, 60)), 60),
        ] {
            let message = replied(&query, 7, result, seconds, soa);
            let want = Some(Reply::Good { seconds: want, truncated: false });
            assert_eq!(Reply::read(&message, &query, 7), want, "{result} {seconds:?} {soa:?}");
            for end in 0..message.len() {
                assert_eq!(Reply::read(&message[..end], &query, 7), None, "{end} of {}", message.len());
            }
        }
        for result in [1, 2, 4, 5] {
            assert_eq!(Reply::read(&replied(&query, 7, result, &[], None), &query, 7), Some(Reply::Failed));
        }
    }

    #[test]
    fn only_an_answer_to_the_question_is_one() {
        let query = query();
        let good = replied(&query, 7, 0, &[60], None);
        assert_eq!(Reply::read(&good, &query, 8), None, "another id");
        for (at, value) in [(2, 0x01), (2, 0xa9), (5, 0), (5, 2), (13, b'f'), (26, 28), (28, 3)] {
            let mut message = good.clone();
            message[at] = value;
            assert_eq!(Reply::read(&message, &query, 7), None, "byte {at} is {value}");
        }
        let mut truncated = good[..30].to_vec();
        truncated[2] |= 2;
        assert_eq!(Reply::read(&truncated, &query, 7), Some(Reply::Good { seconds: 0, truncated: true }));
    }

    #[test]
    fn an_answer_is_passed_on_with_the_askers_id_and_spelling_and_aged() {
        let query = query();
        let reply = replied(&query, 7, 0, &[300, 5], None);
        let passed = for_client(&reply, &query, 10, 512);
        let mut want = replied(&query, query.id, 0, &[290, 0], None);
        want[12..29].copy_from_slice(&query.question);
        assert_eq!(passed, want);
        let cut = for_client(&reply, &query, 10, 40);
        assert_eq!((cut.len(), cut[2] & 2, cut[7]), (29, 2, 0));
    }

    #[test]
    fn nothing_of_the_asker_but_its_question_is_passed_on() {
        let mut message = ask("Example.org", kind::A, Some(4096));
        // An option: its subnet, say.
        let end = message.len();
        message[end - 1] = 4;
        message.extend([0, 8, 0, 0]);
        let query = Query::read(&message).unwrap();
        let mut want = ask("example.org", kind::A, Some(1232));
        want[..2].copy_from_slice(&[0, 9]);
        assert_eq!(forwarded(&query, 9), want);
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_is_read_without_a_panic(
            mut message in proptest::collection::vec(any::<u8>(), 0..200),
            whole in any::<bool>(),
            age in any::<u32>(),
        ) {
            let query = query();
            if whole {
                let good = replied(&query, 7, 0, &[60], Some((1, 2)));
                let random = message.clone();
                message = good;
                for pair in random.chunks_exact(2) {
                    let at = usize::from(pair[0]) % message.len();
                    if at > 29 { message[at] = pair[1]; }
                }
            }
            if let Some(Reply::Good { .. }) = Reply::read(&message, &query, 7) {
                let passed = for_client(&message, &query, age, 512);
                prop_assert_eq!(passed.len(), message.len());
                prop_assert_eq!(&passed[..2], &query.id.to_be_bytes());
            }
        }
    }
}
