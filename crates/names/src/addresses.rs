//! A question of our own, and the addresses in what is answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::Name;
use crate::query::{CLASS_IN, Query, kind};
use crate::reply::{Reply, each_record};

impl Query {
    /// Asks for a name's records of a kind; others may be asked.
    pub fn of(name: Name, kind: u16) -> Self {
        let question = [name.wire(), &kind.to_be_bytes(), &CLASS_IN.to_be_bytes()].concat();
        Self {
            id: 0,
            name,
            question,
            kind,
            class: CLASS_IN,
            recursion_desired: true,
            checking_disabled: false,
            extended: None,
        }
    }
}

/// The addresses that a name server says, in its order, behind whatever other names (RFC 1034, 3.6.2): it has followed
/// them. `None`: this is no answer to the question with this id, or another server might know more.
pub fn addresses(message: &[u8], query: &Query, id: u16) -> Option<Vec<IpAddr>> {
    let Reply::Good { .. } = Reply::read(message, query, id)? else { return None };
    let answers = usize::from(crate::query::word(message, 6)?);
    let mut found = Vec::new();
    // What is cut short has said some of them.
    let _ = each_record(message, |number, record| {
        let address: Option<IpAddr> = match record.kind {
            kind::A => <[u8; 4]>::try_from(record.data).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
            kind::AAAA => <[u8; 16]>::try_from(record.data).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
            _ => None,
        };
        if number < answers && record.kind == query.kind {
            found.extend(address);
        }
    });
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::forwarded;
    use crate::reply::tests::replied;

    #[test]
    fn addresses_are_those_of_the_question() {
        let query = Query::of(Name::from_words("Far.Example").unwrap(), kind::A);
        let asked = Query::read(&forwarded(&query, 7)).unwrap();
        assert_eq!((asked.id, asked.name.words().as_deref(), asked.kind), (7, Some("far.example"), kind::A));
        let reply = replied(&query, 7, 0, &[60, 60], None);
        assert_eq!(addresses(&reply, &query, 7), Some(vec![[192, 0, 2, 1].into(); 2]));
        assert_eq!(addresses(&reply, &query, 8), None, "somebody else's answer");
        assert_eq!(addresses(&replied(&query, 7, 2, &[], None), &query, 7), None, "the server failed");
        assert_eq!(addresses(&replied(&query, 7, 3, &[], Some((1, 1))), &query, 7), Some(Vec::new()));
        // An address of the wrong kind, and one that is cut short.
        let other = Query::of(Name::from_words("far.example").unwrap(), kind::AAAA);
        assert_eq!(addresses(&replied(&other, 7, 0, &[60], None), &other, 7), Some(Vec::new()));
        let cut = &reply[..reply.len() - 3];
        assert!(addresses(cut, &query, 7).is_none_or(|found| found.len() < 2));
    }
}
