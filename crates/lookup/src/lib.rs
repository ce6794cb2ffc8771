//! What addresses a name has, for the host's own sake: of an engine elsewhere, of a file server. A static binary has no
//! name service (nss(5)): /etc/hosts is read, and the name servers of /etc/resolv.conf are asked by datagram, as glibc does
//! with `hosts: files dns`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dozen_names::{Name, Query, addresses, forwarded, kind, name_servers};

/// resolv.conf(5): so many servers are asked, so often, and each is waited for so long.
const MOST_SERVERS: usize = 3;
const ROUNDS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(5);
const PORT: u16 = 53;
/// We ask without an OPT record: no more than 512 bytes come (RFC 1035, 4.2.1).
const LONGEST_BYTES: usize = 512;

/// The addresses of a host, those of version 4 first. Empty: nobody knows it. Blocks.
pub fn addresses_of(host: &str) -> Vec<IpAddr> {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    if let Some(address) = known(host, &text("/etc/hosts")) {
        return vec![address];
    }
    let configuration = text("/etc/resolv.conf");
    let mut servers = name_servers(&configuration);
    servers.truncate(MOST_SERVERS);
    // As glibc: without any, this machine's.
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    let servers: Vec<SocketAddr> = servers.into_iter().map(|server| SocketAddr::new(server, PORT)).collect();
    let asked = candidates(host, &configuration).into_iter().map(|name| ask_both(&servers, &name));
    asked.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
}

/// What needs no question: an address, and what hosts(5) says.
pub fn known(host: &str, hosts: &str) -> Option<IpAddr> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    let local = || host.eq_ignore_ascii_case("localhost").then_some(Ipv4Addr::LOCALHOST.into());
    host.parse().ok().or_else(|| hosts.lines().find_map(line)).or_else(local)
}

/// The names that may be meant, in the order in which they are asked for (resolv.conf(5): search, ndots).
fn candidates(host: &str, configuration: &str) -> Vec<Name> {
    if host.ends_with('.') {
        return Name::from_words(host).into_iter().collect();
    }
    let (mut search, mut dots) = (Vec::new(), 1);
    for line in configuration.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            // The last one counts.
            Some("search" | "domain") => search = words.collect(),
            Some("options") => {
                let option = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next_back();
                dots = option.unwrap_or(dots);
            }
            _ => {}
        }
    }
    let mut names: Vec<String> = search.iter().map(|domain| format!("{host}.{domain}")).collect();
    let place = if host.matches('.').count() >= dots { 0 } else { names.len() };
    names.insert(place, host.to_owned());
    names.iter().filter_map(|name| Name::from_words(name)).collect()
}

/// Both versions at once: a server that is dead costs its time once.
fn ask_both(servers: &[SocketAddr], name: &Name) -> Vec<IpAddr> {
    std::thread::scope(|scope| {
        let new = scope.spawn(|| ask(servers, name, kind::AAAA));
        let old = ask(servers, name, kind::A);
        old.into_iter().chain(new.join().unwrap_or_default()).collect()
    })
}

/// Asks one server after the other until one knows.
fn ask(servers: &[SocketAddr], name: &Name, kind: u16) -> Vec<IpAddr> {
    let query = Query::of(name.clone(), kind);
    let mut asked = (0..ROUNDS).flat_map(|_| servers);
    asked.find_map(|server| ask_one(*server, &query).ok().flatten()).unwrap_or_default()
}

/// `None`: this server cannot say.
fn ask_one(server: SocketAddr, query: &Query) -> std::io::Result<Option<Vec<IpAddr>>> {
    let own: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A port of the kernel's choice and an id by chance: who is not on the way has to guess both.
    let socket = UdpSocket::bind((own, 0))?;
    socket.connect(server)?;
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let id = u16::from_be_bytes(id);
    socket.send(&forwarded(query, id))?;
    let give_up = Instant::now() + PATIENCE;
    let mut message = [0; LONGEST_BYTES];
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut message)?;
        match addresses(&message[..length], query, id) {
            Some(found) => return Ok(Some(found)),
            // An answer, if only that there is none to be had.
            None if message.starts_with(&id.to_be_bytes()) => return Ok(None),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn hosts_are_known_without_asking() {
        let hosts = "10.0.0.1 far far.example # me\nbad far\n::1 six\n";
        for (host, want) in [
            ("127.0.0.2", Some("127.0.0.2")),
            ("FAR.example", Some("10.0.0.1")),
            ("six", Some("::1")),
            ("me", None),
            ("localhost", Some("127.0.0.1")),
        ] {
            assert_eq!(known(host, hosts), want.map(|text| text.parse().unwrap()), "{host}");
        }
    }

    #[test]
    fn names_are_searched_as_resolv_conf_says() {
        let words = |host: &str, configuration: &str| -> Vec<String> {
            candidates(host, configuration).iter().filter_map(Name::words).collect()
        };
        assert_eq!(words("far", ""), ["far"]);
        assert_eq!(words("far", "domain x\nsearch lan example.com\n"), ["far.lan", "far.example.com", "far"]);
        assert_eq!(words("far.away", "search lan\n"), ["far.away", "far.away.lan"]);
        assert_eq!(words("far.away", "search lan\noptions timeout:1 ndots:2\n"), ["far.away.lan", "far.away"]);
        assert_eq!(words("far.", "search lan\n"), ["far"]);
        assert!(words("a..b", "").is_empty());
    }

    #[test]
    fn a_server_that_knows_is_believed_and_one_that_fails_is_not_the_last() {
        let servers = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
        let places = servers.each_ref().map(|server| server.local_addr().unwrap());
        let answer = |server: &UdpSocket, result: u8| {
            let mut message = [0; 512];
            let (length, asker) = server.recv_from(&mut message).unwrap();
            let mut reply = message[..length].to_vec();
            (reply[2], reply[3]) = (0x81, 0x80 | result);
            if result == 0 {
                reply[7] = 1;
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
            }
            // Whoever guesses wrong is not heard.
            let mut guess = reply.clone();
            guess[0] ^= 1;
            server.send_to(&guess, asker).unwrap();
            server.send_to(&reply, asker).unwrap();
        };
        let name = Name::from_words("far.example").unwrap();
        let found = std::thread::scope(|scope| {
            scope.spawn(|| answer(&servers[0], 2));
            scope.spawn(|| answer(&servers[1], 0));
            ask(&places, &name, kind::A)
        });
        assert_eq!(found, [IpAddr::from([192, 0, 2, 7])]);
    }
}
