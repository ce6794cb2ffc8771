//! The way from port 53 of 127.0.0.11 to whoever answers names there: in a container's own network namespace, so that
//! the container can run a name server on port 53 of every address of its own.
//!
//! As `nft` would write it:
//! ```text
//! table ip dozen-names {
//!   chain output { type nat hook output priority dstnat; policy accept
//!     ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40123
//!     ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40124
//!   }
//! }
//! ```

use std::net::{Ipv4Addr, SocketAddr};

use super::expression::{Expression, Meta, REGISTER_1};
use super::table::{NEW_CHAIN, NEW_TABLE, SUBSYSTEM, begin, commit};
use crate::error::NetworkError;
use crate::netlink::{APPEND, Attributes, Batch, CREATE, Socket};

/// Where a container asks, as in Docker.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Where it thinks to ask (RFC 1035, 4.2).
const PORT: u16 = 53;

const TABLE: &str = "dozen-names";
const CHAIN: &str = "output";
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
/// `NFPROTO_IPV4`.
const FAMILY: u8 = 2;
/// `struct nfgenmsg`.
const MESSAGE: [u8; 4] = [FAMILY, 0, 0, 0];
const HOOK_OUTPUT: u32 = 3;
/// `NF_IP_PRI_NAT_DST`.
const PRIORITY: i32 = -100;
const LIST_ELEMENT: u16 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
/// The second register, where the port of the new destination goes.
const REGISTER_2: u32 = 2;

/// Translates what is sent to port 53 of [`NAME_SERVER`], in the network namespace of the calling thread, to these
/// sockets on the same address. What an earlier call made is replaced at one stroke.
///
/// # Errors
/// The kernel refuses it.
pub fn translate(datagrams: SocketAddr, streams: SocketAddr) -> Result<(), NetworkError> {
    let mut socket = Socket::netfilter()?;
    let mut batch = begin();
    // Created first, because deleting what is not there is an error.
    for (doing, kind) in [("make", NEW_TABLE), ("replace", DELETE_TABLE), ("make", NEW_TABLE)] {
        let flags = if kind == NEW_TABLE { CREATE } else { 0 };
        message(&mut batch, doing, kind, flags, |a| a.text(1, TABLE));
    }
    message(&mut batch, "make a chain of", NEW_CHAIN, CREATE, |a| {
        a.text(1, TABLE);
        a.text(3, CHAIN);
        a.nest(4, |a| {
            a.u32_be(1, HOOK_OUTPUT);
            a.u32_be(2, PRIORITY.cast_unsigned());
        });
        // NF_ACCEPT.
        a.u32_be(5, 1);
        a.text(7, "nat");
    });
    for (protocol, to) in [(PROTOCOL_UDP, datagrams), (PROTOCOL_TCP, streams)] {
        message(&mut batch, "add a rule to", NEW_RULE, CREATE | APPEND, |a| {
            a.text(1, TABLE);
            a.text(2, CHAIN);
            a.nest(4, |a| rule(a, protocol, to.port()));
        });
    }
    Ok(commit(&mut socket, batch)?)
}

fn rule(list: &mut Attributes<'_>, protocol: u8, port: u16) {
    let compare = |value: Vec<u8>| Expression::Compare { equal: true, value };
    for expression in [
        Expression::Network { offset: 16, length: 4, register: REGISTER_1 },
        compare(NAME_SERVER.octets().to_vec()),
        Expression::Meta { key: Meta::Transport, register: REGISTER_1 },
        compare(vec![protocol]),
        Expression::Transport { offset: 2, length: 2, register: REGISTER_1 },
        compare(PORT.to_be_bytes().to_vec()),
    ] {
        expression.encode(list);
    }
    load(list, REGISTER_1, &NAME_SERVER.octets());
    load(list, REGISTER_2, &port.to_be_bytes());
    Expression::TranslateDestination { family: FAMILY, port: REGISTER_2 }.encode(list);
}

/// Puts a value into a register (`immediate`).
fn load(list: &mut Attributes<'_>, register: u32, value: &[u8]) {
    list.nest(LIST_ELEMENT, |a| {
        a.text(1, "immediate");
        a.nest(2, |a| {
            a.u32_be(1, register);
            a.nest(2, |a| a.bytes(1, value));
        });
    });
}

fn message(batch: &mut Batch, doing: &str, kind: u16, flags: u16, attributes: impl FnOnce(&mut Attributes<'_>)) {
    batch.message(format!("{doing} the nftables table ip {TABLE}"), kind, flags, &MESSAGE, attributes);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn port_53_leads_to_the_sockets_and_nobody_elses_port_does() {
        let test = || {
            // SAFETY: the thread is fresh, and only its own network namespace changes.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
            let mut batch = Batch::default();
            crate::link::bring_up(&mut batch, crate::link::LOOPBACK_INDEX);
            Socket::route().unwrap().run(&mut batch).unwrap();
            // The container's own name server has every address.
            let own = UdpSocket::bind("0.0.0.0:53").unwrap();
            let _own_streams = TcpListener::bind("0.0.0.0:53").unwrap();
            for round in 0..2 {
                let (datagrams, streams) =
                    (UdpSocket::bind("127.0.0.11:0").unwrap(), TcpListener::bind("127.0.0.11:0").unwrap());
                translate(datagrams.local_addr().unwrap(), streams.local_addr().unwrap()).unwrap();
                let client = UdpSocket::bind("0.0.0.0:0").unwrap();
                client.connect("127.0.0.11:53").unwrap();
                client.send(b"?").unwrap();
                let (_, asker) = datagrams.recv_from(&mut [0]).unwrap();
                datagrams.send_to(b"!", asker).unwrap();
                // Connected: from another address it would not arrive.
                assert_eq!(client.recv(&mut [0]).unwrap(), 1, "{round}");
                let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
                streams.accept().unwrap().0.write_all(b"!").unwrap();
                stream.read_exact(&mut [0]).unwrap();
                for address in ["127.0.0.1:53", "127.0.0.12:53"] {
                    client.connect(address).unwrap();
                    client.send(b"own").unwrap();
                    assert_eq!(own.recv(&mut [0; 3]).unwrap(), 3);
                }
            }
        };
        std::thread::spawn(test).join().unwrap();
    }
}
