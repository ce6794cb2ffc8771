//! The address of a host that a volume's options name: the kernel mounts from addresses only.
//!
//! glibc's resolver cannot be used from a static binary: /etc/hosts is read, and then the host's name servers are asked by
//! datagram, one after the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dozen_model::ErrorKind;
use dozen_monitor::protocol::Failure;
use dozen_names::{
    Extended, LONGEST_MESSAGE_BYTES, Name, OUR_DATAGRAM_BYTES, Query, Reply, addresses, forwarded, kind, name_servers,
};

use crate::container::logs::remote::find;

/// How long a name server is waited for, and how often all are asked: resolv.conf(5) has 5 s and 2.
const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
const DNS_PORT: u16 = 53;

/// Blocks.
pub(super) fn of_host(host: &str) -> Result<IpAddr, Failure> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    if let Some(address) = find(&read("/etc/hosts"), host) {
        return Ok(address);
    }
    let resolv_conf = read("/etc/resolv.conf");
    let servers: Vec<SocketAddr> =
        name_servers(&resolv_conf).into_iter().map(|server| SocketAddr::new(server, DNS_PORT)).collect();
    let found = candidates(host, &resolv_conf).iter().find_map(|name| ask(name, &servers));
    found.ok_or_else(|| Failure {
        kind: ErrorKind::Unavailable,
        message: format!("error resolving passed in network volume address: lookup {host}: no such host"),
        hint: Some("name the server by its address, or in /etc/hosts".to_owned()),
    })
}

/// The names that a word may mean (resolv.conf(5), `search`): one with a dot is first taken as it is.
fn candidates(host: &str, resolv_conf: &str) -> Vec<Name> {
    let mut lists = resolv_conf.lines().rev().filter_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("search" | "domain")).then(|| words.map(str::to_owned).collect::<Vec<_>>())
    });
    let search = if host.ends_with('.') { Vec::new() } else { lists.next().unwrap_or_default() };
    let mut names: Vec<String> = search.iter().map(|domain| format!("{host}.{domain}")).collect();
    names.insert(if host.contains('.') { 0 } else { names.len() }, host.to_owned());
    names.iter().filter_map(|name| Name::from_words(name)).collect()
}

/// Version 4 before 6, as Docker's `ip`.
fn ask(name: &Name, servers: &[SocketAddr]) -> Option<IpAddr> {
    [kind::A, kind::AAAA].into_iter().find_map(|kind| {
        let mut question = name.wire().to_vec();
        question.extend([kind, 1].iter().flat_map(|word: &u16| word.to_be_bytes()));
        let extended = Some(Extended { datagram_bytes: OUR_DATAGRAM_BYTES, dnssec_ok: false, version: 0 });
        let (recursion_desired, checking_disabled) = (true, false);
        let name = name.clone();
        let query = Query { id: 0, name, question, kind, class: 1, recursion_desired, checking_disabled, extended };
        let rounds = (0..ROUNDS).flat_map(|_| servers);
        rounds.into_iter().find_map(|server| exchange(*server, &query))?.into_iter().next()
    })
}

/// `None`: it does not say.
fn exchange(server: SocketAddr, query: &Query) -> Option<Vec<IpAddr>> {
    let local: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((local, 0)).ok()?;
    socket.connect(server).ok()?;
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).ok()?;
    let id = u16::from_be_bytes(id);
    socket.send(&forwarded(query, id)).ok()?;
    let give_up = Instant::now() + PATIENCE;
    let mut message = vec![0; LONGEST_MESSAGE_BYTES];
    loop {
        let left = give_up.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        socket.set_read_timeout(Some(left)).ok()?;
        let length = socket.recv(&mut message).ok()?;
        match Reply::read(&message[..length], query, id) {
            Some(Reply::Good { .. }) => return Some(addresses(&message[..length])),
            Some(Reply::Failed) => return None,
            // Not for us.
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_looked_for_where_the_host_looks() {
        let words = |host: &str, text: &str| {
            candidates(host, text).iter().map(|name| name.words().unwrap()).collect::<Vec<_>>()
        };
        let conf = "search old\nnameserver 10.0.0.1\nsearch lan example.org\n";
        assert_eq!(words("nas", conf), ["nas.lan", "nas.example.org", "nas"]);
        assert_eq!(words("nas.home", conf), ["nas.home", "nas.home.lan", "nas.home.example.org"]);
        assert_eq!(words("nas.", conf), ["nas"]);
        assert_eq!(words("nas", ""), ["nas"]);
    }

    #[test]
    fn a_name_server_is_asked_and_who_answers_for_another_is_not_believed() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = server.local_addr().unwrap();
        let served = std::thread::spawn(move || {
            let mut message = [0; 512];
            let (length, asker) = server.recv_from(&mut message).unwrap();
            let question = message[12..length].to_vec();
            let end = question.iter().position(|byte| *byte == 0).unwrap() + 5;
            let answer = |id: [u8; 2], last: u8| {
                let mut answer = [&id[..], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0], &question[..end]].concat();
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, last]);
                answer
            };
            server.send_to(&answer([message[0] ^ 1, message[1]], 66), asker).unwrap();
            server.send_to(&answer([message[0], message[1]], 9), asker).unwrap();
        });
        let found = ask(&Name::from_words("nas.lan").unwrap(), &[at]);
        assert_eq!(found, Some("10.0.0.9".parse().unwrap()));
        served.join().unwrap();
    }
}
