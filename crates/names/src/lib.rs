//! What the containers of a network call each other, and who else is asked: DNS without a socket.
//!
//! A query becomes an answer of our own ([`Index::decide`] over [`Zones`], the engine's snapshot of who is where) or is
//! passed on to name servers: a [`Race`] says whom to ask when, [`Upstreams`] in which order, a [`Cache`] keeps what
//! they said. Time and randomness come in as arguments; the keeper has the sockets.
//!
//! Messages are RFC 1035's, with the extensions of RFC 6891. What a name server answers is checked and passed on byte for
//! byte (but for its id, the spelling of the question and the times to live), so that records which nobody here knows
//! arrive as they were.

mod addresses;
mod answer;
mod cache;
pub mod fuzzing;
mod name;
mod query;
mod race;
mod reply;
mod resolv_conf;
mod zone;

pub use addresses::addresses;
pub use answer::{Answer, Data, Record};
pub use cache::{Cache, Key};
pub use name::Name;
pub use query::{Extended, Query, Unanswerable, kind};
pub use race::{HEAD_START, MOST_SERVERS, Race, Step, Upstreams};
pub use reply::{Reply, for_client, forwarded};
pub use resolv_conf::name_servers;
pub use zone::{Asker, Decision, Index, Member, NetworkZone, ServicePort, Zones};

/// The longest message: its length before it in a stream has two bytes (RFC 1035, 4.2.2).
pub const LONGEST_MESSAGE_BYTES: usize = 65_535;
/// What a datagram may have unless its asker says otherwise (RFC 1035, 4.2.1).
pub const LEAST_DATAGRAM_BYTES: usize = 512;
/// What we take and ask for by datagram: what fits an IPv6 packet on any way (RFC 9715, and DNS Flag Day 2020).
pub const OUR_DATAGRAM_BYTES: u16 = 1232;

pub(crate) const HEADER_BYTES: usize = 12;
