//! What a container asks. Hostile: anybody inside may send any bytes.

use crate::name::{self, Name};
use crate::{HEADER_BYTES, LEAST_DATAGRAM_BYTES};

/// Kinds of records (RFC 1035, 3596, 2782, 6891, 5936, 1995).
#[expect(missing_docs, reason = "they are called so")]
pub mod kind {
    pub const A: u16 = 1;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
}

/// The Internet's class.
pub(crate) const CLASS_IN: u16 = 1;
/// Of the second word of a header.
pub(crate) mod flag {
    pub const RESPONSE: u16 = 0x8000;
    pub const OPERATION: u16 = 0x7800;
    pub const TRUNCATED: u16 = 0x0200;
    pub const RECURSION_DESIRED: u16 = 0x0100;
    pub const RECURSION_AVAILABLE: u16 = 0x0080;
    pub const CHECKING_DISABLED: u16 = 0x0010;
    pub const RESULT: u16 = 0x000f;
}
/// Of an OPT record's time to live: signatures are wanted (RFC 3225).
pub(crate) const DNSSEC_OK: u32 = 0x8000;
/// More than any query has that is not made to keep us busy.
const MOST_ADDITIONAL: u16 = 8;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// To be repeated.
    pub id: u16,
    /// In lower case.
    pub name: Name,
    /// The question as it was asked: name, kind and class. To be repeated letter by letter.
    pub question: Vec<u8>,
    /// What is asked for.
    pub kind: u16,
    /// Only the Internet's is answered.
    pub class: u16,
    /// Whether others may be asked.
    pub recursion_desired: bool,
    /// Whether signatures that are wrong are the asker's own business.
    pub checking_disabled: bool,
    /// What its OPT record says, if it has one.
    pub extended: Option<Extended>,
}

/// Of an OPT record (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extended {
    /// The largest datagram that the asker takes.
    pub datagram_bytes: u16,
    /// Signatures are wanted.
    pub dnssec_ok: bool,
    /// Only 0 is known.
    pub version: u8,
}

/// What is no question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswerable {
    /// Not even that can be said: too short, or an answer (to which an answer could be answered for ever).
    Silent,
    /// This can be answered, as a whole message.
    Refused(Vec<u8>),
}

impl Query {
    /// Reads a message.
    ///
    /// # Errors
    /// It is none, or not a question that can be answered.
    pub fn read(message: &[u8]) -> Result<Self, Unanswerable> {
        let word = |at| word(message, at).ok_or(Unanswerable::Silent);
        let (id, flags) = (word(0)?, word(2)?);
        let [questions, answers, _, additional] = [word(4)?, word(6)?, word(8)?, word(10)?];
        if flags & flag::RESPONSE != 0 {
            return Err(Unanswerable::Silent);
        }
        let refused = |result| Unanswerable::Refused(refusal(id, flags, result));
        if flags & flag::OPERATION != 0 {
            return Err(refused(NOT_IMPLEMENTED));
        }
        if questions != 1 || answers != 0 || additional > MOST_ADDITIONAL {
            return Err(refused(FORMAT_ERROR));
        }
        let format_error = || refused(FORMAT_ERROR);
        let (name, length) = Name::read(message, HEADER_BYTES).ok_or_else(format_error)?;
        let end = HEADER_BYTES + length;
        let question = message.get(HEADER_BYTES..end + 4).ok_or_else(format_error)?.to_vec();
        let (kind, class) = (word(end).map_err(|_| format_error())?, word(end + 2).map_err(|_| format_error())?);
        let authorities = word(8)?;
        let extended = extended(message, end + 4, authorities, additional).ok_or_else(format_error)?;
        Ok(Self {
            id,
            name,
            question,
            kind,
            class,
            recursion_desired: flags & flag::RECURSION_DESIRED != 0,
            checking_disabled: flags & flag::CHECKING_DISABLED != 0,
            extended,
        })
    }

    /// What an answer by datagram may have.
    pub fn datagram_bytes(&self) -> usize {
        self.extended.map_or(LEAST_DATAGRAM_BYTES, |it| usize::from(it.datagram_bytes).max(LEAST_DATAGRAM_BYTES))
    }
}

/// Result codes (RFC 1035, 4.1.1).
pub(crate) const FORMAT_ERROR: u16 = 1;
pub(crate) const SERVER_FAILURE: u16 = 2;
pub(crate) const NO_SUCH_NAME: u16 = 3;
pub(crate) const NOT_IMPLEMENTED: u16 = 4;
pub(crate) const REFUSED: u16 = 5;

/// `None` where the records are cut short; `Some(None)` where none of them is OPT.
fn extended(message: &[u8], at: usize, authorities: u16, additional: u16) -> Option<Option<Extended>> {
    let mut found = None;
    let mut at = at;
    for _ in 0..authorities.checked_add(additional)?.min(2 * MOST_ADDITIONAL) {
        let fixed = name::skip(message, at)?;
        let (kind, class) = (word(message, fixed)?, word(message, fixed + 2)?);
        let (high, low) = (word(message, fixed + 4)?, word(message, fixed + 6)?);
        let rest = fixed + 10 + usize::from(word(message, fixed + 8)?);
        if rest > message.len() {
            return None;
        }
        if kind == kind::OPT {
            // A second one is a format error (RFC 6891, 6.1.1).
            if found.is_some() {
                return None;
            }
            let [_, version] = high.to_be_bytes();
            let dnssec_ok = u32::from(low) & DNSSEC_OK != 0;
            found = Some(Extended { datagram_bytes: class, dnssec_ok, version });
        }
        at = rest;
    }
    Some(found)
}

/// A header that says no, and nothing else.
fn refusal(id: u16, flags: u16, result: u16) -> Vec<u8> {
    let kept = flags & (flag::OPERATION | flag::RECURSION_DESIRED);
    let words = [id, flag::RESPONSE | flag::RECURSION_AVAILABLE | kept | result, 0, 0, 0, 0];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

pub(crate) fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A question as glibc asks it, with an OPT record if a size is given.
    pub(crate) fn ask(name: &str, kind: u16, datagram_bytes: Option<u16>) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, u8::from(datagram_bytes.is_some())];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            message.push(label.len() as u8);
            message.extend(label.bytes());
        }
        message.push(0);
        message.extend([kind.to_be_bytes(), [0, 1]].concat());
        if let Some(size) = datagram_bytes {
            message.extend([&[0, 0, 41][..], &size.to_be_bytes(), &[0, 0, 0x80, 0, 0, 0]].concat());
        }
        message
    }

    #[test]
    fn a_question_is_read() {
        let query = Query::read(&ask("Db.MyNet", kind::A, Some(1400))).unwrap();
        assert_eq!((query.id, query.kind, query.class), (0x1234, kind::A, CLASS_IN));
        assert_eq!(query.name.words().unwrap(), "db.mynet");
        assert_eq!(query.question, b"\x02Db\x05MyNet\0\0\x01\0\x01");
        assert!(query.recursion_desired && !query.checking_disabled);
        assert_eq!(query.extended, Some(Extended { datagram_bytes: 1400, dnssec_ok: true, version: 0 }));
        assert_eq!(query.datagram_bytes(), 1400);
        let plain = Query::read(&ask("db", kind::AAAA, None)).unwrap();
        assert_eq!((plain.extended, plain.datagram_bytes()), (None, 512));
        assert_eq!(Query::read(&ask("db", kind::A, Some(10))).unwrap().datagram_bytes(), 512);
        assert_eq!(Query::read(&ask("", kind::A, None)).unwrap().name.wire(), b"\0");
    }

    #[test]
    fn what_is_no_question_is_told_so_or_nothing() {
        let good = ask("db", kind::A, Some(512));
        let with = |at: usize, value: u8| {
            let mut message = good.clone();
            message[at] = value;
            message
        };
        let result = |message: &[u8]| match Query::read(message) {
            Err(Unanswerable::Refused(answer)) => {
                assert_eq!((&answer[..2], answer.len()), (&message[..2], 12));
                Some(u16::from(answer[3] & 15))
            }
            Err(Unanswerable::Silent) => None,
            Ok(query) => panic!("{query:?}"),
        };
        assert_eq!(result(&good[..11]), None);
        assert_eq!(result(b""), None);
        assert_eq!(result(&with(2, 0x80)), None, "an answer");
        assert_eq!(result(&with(2, 0x28)), Some(NOT_IMPLEMENTED), "an update");
        for message in [
            with(5, 0),
            with(5, 2),
            with(7, 1),
            with(10, 1),
            with(11, 2),
            with(12, 0xc0),
            with(12, 60),
            good[..18].to_vec(),
            good[..good.len() - 1].to_vec(),
        ] {
            assert_eq!(result(&message), Some(FORMAT_ERROR), "{message:?}");
        }
        let mut twice = ask("db", kind::A, Some(512));
        let opt = twice[20..].to_vec();
        twice.extend(opt);
        twice[11] = 2;
        assert_eq!(result(&twice), Some(FORMAT_ERROR));
    }
}
