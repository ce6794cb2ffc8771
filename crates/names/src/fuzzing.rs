//! A way in for the fuzzer (`fuzz/`), and the test that runs what it has found again.

use std::time::{Duration, Instant};

use crate::{Asker, Member, NetworkZone, Zones};
use crate::{Cache, Decision, Index, Key, LONGEST_MESSAGE_BYTES, Query, Reply, Unanswerable, for_client, forwarded};

/// A query and what a name server answers to it: the first byte says how long the query is. Whatever they are, the asker
/// gets a message that is no longer than it may be, with its own id, or nothing.
pub fn exchange(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else { return };
    let (message, reply) = rest.split_at(usize::from(*length).min(rest.len()));
    let query = match Query::read(message) {
        Ok(query) => query,
        Err(Unanswerable::Silent) => return,
        Err(Unanswerable::Refused(answer)) => {
            assert_eq!((&answer[..2], answer.len()), (&message[..2], crate::HEADER_BYTES));
            return;
        }
    };
    let most = query.datagram_bytes();
    let check = |answer: &[u8], most: usize| {
        assert!(answer.len() <= most && answer[..2] == message[..2] && answer[2] & 0x80 != 0, "{answer:?}");
        assert!(Query::read(answer).is_err(), "an answer to an answer");
    };
    if let Decision::Answer(answer) = zones().decide("asker", &query, 1) {
        check(&answer.encode(&query, most), most);
        check(&answer.encode(&query, LONGEST_MESSAGE_BYTES), LONGEST_MESSAGE_BYTES);
    }
    let id = u16::from_be_bytes([message[0], message[1]]);
    let ours = forwarded(&query, id);
    assert_eq!(Query::read(&ours).map(|it| (it.name, it.kind)), Ok((query.name.clone(), query.kind)));
    if let Some(Reply::Good { seconds, .. }) = Reply::read(reply, &query, id) {
        let (mut cache, now, key) = (Cache::default(), Instant::now(), Key::new("", &query));
        check(&for_client(reply, &query, 1, most), most);
        cache.keep(key.clone(), reply, seconds, now);
        if let Some(kept) = cache.find(&key, &query, most, now + Duration::from_secs(1)) {
            check(&kept, most);
        }
    }
}

/// One network with a name of each kind.
fn zones() -> Index {
    let member = Member {
        names: vec!["db".into(), "0123456789ab".into()],
        addresses: vec![[172, 18, 0, 2].into(), std::net::Ipv6Addr::LOCALHOST.into()],
        ports: Vec::new(),
    };
    let zone = NetworkZone { name: "net".into(), members: vec![member; 60] };
    let asker = Asker { networks: vec!["n".into()], forwards: true, ..Asker::default() };
    Index::from(Zones { networks: [("n".into(), zone)].into(), askers: [("asker".into(), asker)].into() })
}

#[cfg(test)]
mod tests {
    include!("../../../fuzz/replay.rs");

    #[test]
    fn exchanges() {
        replay("names", super::exchange);
    }
}
