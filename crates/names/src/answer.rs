//! Answers of our own.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::name::Name;
use crate::query::{
    self, CLASS_IN, DNSSEC_OK, NO_SUCH_NAME, NOT_IMPLEMENTED, Query, REFUSED, SERVER_FAILURE, flag, kind,
};
use crate::{HEADER_BYTES, OUR_DATAGRAM_BYTES};

/// How long an address may be believed, as Docker has it.
const TIME_TO_LIVE_SECONDS: u32 = 600;
/// A pointer to the question's name, which stands behind the header.
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER_BYTES as u8];
/// An OPT record without options.
const OPT_BYTES: usize = 11;
/// The upper bits of BADVERS, in an OPT record (RFC 6891, 6.1.3).
const BAD_VERSION: u32 = 1 << 24;

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    result: u16,
    /// What was asked for; empty if there is nothing of that kind.
    pub records: Vec<Record>,
    /// What will be asked for next.
    pub additional: Vec<Record>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose it is; `None` for the name that was asked for.
    pub owner: Option<Name>,
    /// What it says.
    pub data: Data,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are called so")]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Pointer(Name),
    Service { port: u16, target: Name },
}

impl Answer {
    /// These records.
    pub fn of(records: Vec<Record>) -> Self {
        Self { records, ..Self::default() }
    }

    /// It could not be found out.
    pub fn failure() -> Self {
        Self { result: SERVER_FAILURE, ..Self::default() }
    }

    /// There is no such name.
    pub fn no_such_name() -> Self {
        Self { result: NO_SUCH_NAME, ..Self::default() }
    }

    /// Nobody gets an answer to this.
    pub fn refused() -> Self {
        Self { result: REFUSED, ..Self::default() }
    }

    /// Nobody knows how to answer this.
    pub fn not_implemented() -> Self {
        Self { result: NOT_IMPLEMENTED, ..Self::default() }
    }

    /// As a message of at most so many bytes: what does not fit is left out, and said to be.
    pub fn encode(&self, query: &Query, most_bytes: usize) -> Vec<u8> {
        let mut message = vec![0; HEADER_BYTES];
        message.extend_from_slice(&query.question);
        let room = most_bytes.saturating_sub(if query.extended.is_some() { OPT_BYTES } else { 0 });
        let mut put = |records: &[Record]| {
            let mut count = 0_u16;
            for record in records {
                let before = message.len();
                record.encode(&mut message);
                if message.len() > room {
                    message.truncate(before);
                    break;
                }
                count += 1;
            }
            count
        };
        let answers = put(&self.records);
        let truncated = usize::from(answers) < self.records.len();
        // Nobody misses these (RFC 2181, 9).
        let mut additional = if truncated { 0 } else { put(&self.additional) };
        if let Some(extended) = query.extended {
            let bad_version = if extended.version == 0 { 0 } else { BAD_VERSION };
            put_extended(&mut message, bad_version | if extended.dnssec_ok { DNSSEC_OK } else { 0 });
            additional += 1;
        }
        let mut flags = flag::RESPONSE | flag::RECURSION_AVAILABLE | self.result;
        flags |= if truncated { flag::TRUNCATED } else { 0 };
        flags |= if query.recursion_desired { flag::RECURSION_DESIRED } else { 0 };
        flags |= if query.checking_disabled { flag::CHECKING_DISABLED } else { 0 };
        for (at, word) in [query.id, flags, 1, answers, 0, additional].into_iter().enumerate() {
            message[at * 2..at * 2 + 2].copy_from_slice(&word.to_be_bytes());
        }
        message
    }
}

impl Record {
    fn encode(&self, message: &mut Vec<u8>) {
        message.extend_from_slice(self.owner.as_ref().map_or(&QUESTION_NAME[..], Name::wire));
        let (kind, data) = match &self.data {
            Data::A(address) => (kind::A, address.octets().to_vec()),
            Data::Aaaa(address) => (kind::AAAA, address.octets().to_vec()),
            Data::Pointer(name) => (kind::PTR, name.wire().to_vec()),
            // Priority and weight are 0: there is nothing to choose by. The target is not compressed (RFC 2782).
            Data::Service { port, target } => (kind::SRV, [&[0; 4][..], &port.to_be_bytes(), target.wire()].concat()),
        };
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&CLASS_IN.to_be_bytes());
        message.extend_from_slice(&TIME_TO_LIVE_SECONDS.to_be_bytes());
        // A name has at most 255 bytes, and nothing here is longer than two of them.
        message.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
        message.extend_from_slice(&data);
    }
}

/// An OPT record with these flags.
pub(crate) fn put_extended(message: &mut Vec<u8>, flags: u32) {
    message.push(0);
    message.extend_from_slice(&query::kind::OPT.to_be_bytes());
    message.extend_from_slice(&OUR_DATAGRAM_BYTES.to_be_bytes());
    message.extend_from_slice(&flags.to_be_bytes());
    message.extend_from_slice(&[0; 2]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::tests::ask;

    fn address(number: u8) -> Record {
        Record { owner: None, data: Data::A(Ipv4Addr::new(172, 18, 0, number)) }
    }

    #[test]
    fn an_answer_is_laid_out_as_rfc_1035_says() {
        let query = Query::read(&ask("Db", kind::A, None)).unwrap();
        #[rustfmt::skip]
        let want = [
            0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0,
            2, b'D', b'b', 0, 0, 1, 0, 1,
            0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 172, 18, 0, 2,
        ];
        assert_eq!(Answer::of(vec![address(2)]).encode(&query, 512), want);
        let none = Answer::no_such_name().encode(&query, 512);
        assert_eq!((none[3], none[7], none.len()), (0x83, 0, 20));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_said_to_be() {
        let query = Query::read(&ask("db", kind::A, Some(600))).unwrap();
        let answer = Answer { additional: vec![address(1)], ..Answer::of((0..100).map(address).collect()) };
        let message = answer.encode(&query, query.datagram_bytes());
        assert!(message.len() <= 600 && message.len() > 570, "{}", message.len());
        assert_eq!(message[2] & 2, 2, "truncated");
        // Header, question, records, OPT.
        assert_eq!(message.len(), 20 + usize::from(message[7]) * 16 + 11);
        assert_eq!(message[11], 1, "OPT alone");
        let whole = answer.encode(&query, 65_535);
        assert_eq!((whole[2] & 2, whole[7], whole[11]), (0, 100, 2));
    }

    #[test]
    fn another_version_of_the_extensions_is_told_so() {
        let mut message = ask("db", kind::A, Some(600));
        let version = message.len() - 5;
        message[version] = 1;
        let query = Query::read(&message).unwrap();
        assert_eq!(query.extended.unwrap().version, 1);
        let answer = Answer::default().encode(&query, 512);
        assert_eq!(answer[answer.len() - 6], 1, "{answer:?}");
    }
}
