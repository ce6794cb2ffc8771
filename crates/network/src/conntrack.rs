//! Connection tracking entries of UDP. A flow that began before a port was published, or goes to a container that is
//! gone, keeps its old translation for as long as it flows: its entry has to go (as a TCP connection ends by itself).
//!
//! Numbers from include/uapi/linux/netfilter/nfnetlink_conntrack.h.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::{Batch, DUMP, Refusal, Socket, attribute};

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1;
const NEW: u16 = SUBSYSTEM << 8;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_UDP: u8 = 17;

/// An entry for UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    family: u8,
    /// The original direction and the id, encoded: what names the entry to the kernel.
    original: Vec<u8>,
    id: Vec<u8>,
    /// Who sent the first packet.
    pub(crate) source: IpAddr,
    /// Where it was sent to.
    pub(crate) destination: IpAddr,
    pub(crate) destination_port: u16,
    /// Who answers: the container, if the destination was translated.
    pub(crate) answers: IpAddr,
    /// Whom it answers: the host, if the source was translated.
    pub(crate) answered_to: IpAddr,
}

/// Deletes the UDP entries that `stale` picks; how many.
pub(crate) fn forget(socket: &mut Socket, stale: impl Fn(&Flow) -> bool) -> Result<usize, Refusal> {
    let mut request = Batch::default();
    request.message("list the tracked connections", GET, DUMP, &[0; 4], |_| {});
    let flows = socket.dump(&request, |kind, payload| (kind == NEW).then(|| parse(payload)).flatten())?;
    let mut deleted = 0;
    for flow in flows.iter().filter(|flow| stale(flow)) {
        let mut batch = Batch::default();
        let label = format!("forget a tracked connection to {}:{}", flow.destination, flow.destination_port);
        batch.message(label, DELETE, 0, &[flow.family, 0, 0, 0], |a| {
            a.bytes(TUPLE_ORIGINAL | 0x8000, &flow.original);
            a.bytes(ID, &flow.id);
        });
        match socket.run(&mut batch) {
            Ok(()) => deleted += 1,
            // It ended by itself in between.
            Err(refusal) if refusal.is(libc::ENOENT) => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(deleted)
}

fn parse(payload: &[u8]) -> Option<Flow> {
    let attributes = payload.get(4..)?;
    let original = attribute(attributes, TUPLE_ORIGINAL)?;
    let protocol = attribute(original, TUPLE_PROTOCOL)?;
    if attribute(protocol, 1)? != [PROTOCOL_UDP] {
        return None;
    }
    let reply = attribute(attributes, TUPLE_REPLY)?;
    Some(Flow {
        family: payload[0],
        original: original.to_vec(),
        id: attribute(attributes, ID)?.to_vec(),
        source: address(original, true)?,
        destination: address(original, false)?,
        destination_port: u16::from_be_bytes(attribute(protocol, 3)?.try_into().ok()?),
        answers: address(reply, true)?,
        answered_to: address(reply, false)?,
    })
}

/// The source or destination of a tuple: attributes 1 and 2 for IPv4, 3 and 4 for IPv6.
fn address(tuple: &[u8], source: bool) -> Option<IpAddr> {
    let ip = attribute(tuple, TUPLE_IP)?;
    let (four, six) = if source { (1, 3) } else { (2, 4) };
    if let Some(bytes) = attribute(ip, four) {
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(attribute(ip, six)?).ok()?).into())
}
