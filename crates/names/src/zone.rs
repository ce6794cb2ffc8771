//! Who is where, as the engine tells it, and what a container is answered from that.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dozen_model::Protocol;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Data, Record};
use crate::name::Name;
use crate::query::{CLASS_IN, Query, kind};

/// Every network that has names, and every container that may ask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zones {
    /// By their ids, each once.
    pub networks: BTreeMap<String, NetworkZone>,
    /// By their containers' ids, each once.
    pub askers: BTreeMap<String, Asker>,
}

/// The names of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkZone {
    /// What it is called: `db.NAME` is found too.
    pub name: String,
    /// Who is in it.
    pub members: Vec<Member>,
}

/// A container on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name, its aliases and its short id; the first is the one that its addresses lead to.
    pub names: Vec<String>,
    /// At most one of each family, as a rule.
    pub addresses: Vec<IpAddr>,
    /// The ports that it says to serve, for SRV.
    #[serde(default)]
    pub ports: Vec<ServicePort>,
}

/// A port of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Its number.
    pub port: u16,
    /// Its transport.
    pub protocol: Protocol,
}

/// A container that may ask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// Its process 1, as the host numbers it.
    pub pid: i32,
    /// Ids of the networks that it is in. The first that knows a name answers.
    pub networks: Vec<String>,
    /// Whether anybody else is asked for what its networks do not know: not where all of them are internal.
    pub forwards: bool,
    /// `--dns`: whom to ask, from its own network namespace. Without any: the host's name servers, from the host's.
    #[serde(default)]
    pub servers: Vec<IpAddr>,
    /// `--dns-option ndots:N` with N above 0: single labels are not for others, the asker tries its search domains.
    #[serde(default)]
    pub ndots_set: bool,
}

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This is the answer.
    Answer(Answer),
    /// The name servers are asked.
    Forward,
}

/// [`Zones`] by name and address.
#[derive(Debug, Default)]
pub struct Index {
    networks: HashMap<String, Network>,
    askers: BTreeMap<String, Asker>,
}

#[derive(Debug)]
struct Network {
    name: String,
    members: Vec<Member>,
    /// In lower case, to positions in `members`.
    by_name: HashMap<String, Vec<usize>>,
    by_address: HashMap<IpAddr, usize>,
}

impl From<Zones> for Index {
    fn from(zones: Zones) -> Self {
        let networks = zones.networks.into_iter().map(|(id, zone)| (id, Network::from(zone))).collect();
        Self { networks, askers: zones.askers }
    }
}

impl From<NetworkZone> for Network {
    fn from(zone: NetworkZone) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        let mut by_address = HashMap::new();
        for (position, member) in zone.members.iter().enumerate() {
            for name in &member.names {
                let positions = by_name.entry(name.to_ascii_lowercase()).or_default();
                // An alias may be the name as well.
                if positions.last() != Some(&position) {
                    positions.push(position);
                }
            }
            by_address.extend(member.addresses.iter().map(|address| (*address, position)));
        }
        Self { name: zone.name.to_ascii_lowercase(), members: zone.members, by_name, by_address }
    }
}

/// Containers of one network that share a name.
type Found<'a> = (&'a Network, Vec<&'a Member>);

impl Index {
    /// The containers that may ask.
    pub fn askers(&self) -> &BTreeMap<String, Asker> {
        &self.askers
    }

    /// What this container is answered, by Docker's rules. `turn` says who comes first where several have a name; it
    /// should be another number each time.
    pub fn decide(&self, container_id: &str, query: &Query, turn: usize) -> Decision {
        let Some(asker) = self.askers.get(container_id) else { return Decision::Answer(Answer::refused()) };
        // For BADVERS, which stands in the OPT record.
        if query.extended.is_some_and(|extended| extended.version != 0) {
            return Decision::Answer(Answer::default());
        }
        if query.class != CLASS_IN || matches!(query.kind, kind::AXFR | kind::IXFR) {
            return Decision::Answer(Answer::refused());
        }
        let words = query.name.words();
        if let Some(answer) = words.as_deref().and_then(|words| self.own(asker, words, query.kind, turn)) {
            return Decision::Answer(answer);
        }
        if !asker.forwards || !query.recursion_desired {
            return Decision::Answer(Answer::failure());
        }
        let single_label = words.is_some_and(|words| !words.contains('.'));
        if asker.ndots_set && single_label && matches!(query.kind, kind::A | kind::AAAA) {
            return Decision::Answer(Answer::default());
        }
        Decision::Forward
    }

    /// `None` for what is not ours. A name of ours is: of what it has not, there is none, and nobody else is asked.
    fn own(&self, asker: &Asker, words: &str, wanted: u16, turn: usize) -> Option<Answer> {
        match wanted {
            kind::PTR => self.pointer(asker, words),
            kind::SRV => self.service(asker, words, turn),
            _ => {
                let mut records: Vec<Record> = self
                    .members(asker, words)?
                    .1
                    .into_iter()
                    .flat_map(|member| &member.addresses)
                    .filter(|address| address.is_ipv4() == (wanted == kind::A))
                    .filter(|_| matches!(wanted, kind::A | kind::AAAA))
                    .map(|address| Record { owner: None, data: data(*address) })
                    .collect();
                let count = records.len().max(1);
                records.rotate_left(turn % count);
                Some(Answer::of(records))
            }
        }
    }

    /// Who has this name for the asker: on the first of its networks that knows it. `db.mynet` is `db` on `mynet`.
    fn members(&self, asker: &Asker, words: &str) -> Option<Found<'_>> {
        let networks = || asker.networks.iter().filter_map(|id| self.networks.get(id));
        let whole = networks().find_map(|network| network.members(words));
        let split = |at: usize| {
            let of_that_name = networks().filter(move |network| network.name == words[at + 1..]);
            of_that_name.into_iter().find_map(|network| network.members(&words[..at]))
        };
        whole.or_else(|| words.rmatch_indices('.').find_map(|(at, _)| split(at)))
    }

    fn pointer(&self, asker: &Asker, words: &str) -> Option<Answer> {
        let address = reversed(words)?;
        let networks = asker.networks.iter().filter_map(|id| self.networks.get(id));
        let name = networks.into_iter().find_map(|network| {
            let member = &network.members[*network.by_address.get(&address)?];
            network.full_name(member)
        })?;
        Some(Answer::of(vec![Record { owner: None, data: Data::Pointer(name) }]))
    }

    /// `_5432._tcp.db` and `_postgresql._tcp.db`: the containers of that name that say to serve that port.
    fn service(&self, asker: &Asker, words: &str, turn: usize) -> Option<Answer> {
        let Some((service, protocol, rest)) = service_name(words) else {
            return self.members(asker, words).map(|_| Answer::default());
        };
        let (network, members) = self.members(asker, rest)?;
        let mut answer = Answer::default();
        for member in members {
            let Some(target) = network.full_name(member) else { continue };
            let Some(port) = port_of(service) else { continue };
            if member.ports.contains(&ServicePort { port, protocol }) {
                answer.records.push(Record { owner: None, data: Data::Service { port, target: target.clone() } });
                let addresses = member.addresses.iter();
                let record = |address: &IpAddr| Record { owner: Some(target.clone()), data: data(*address) };
                answer.additional.extend(addresses.map(record));
            }
        }
        let count = answer.records.len().max(1);
        answer.records.rotate_left(turn % count);
        Some(answer)
    }
}

impl Network {
    fn members(&self, name: &str) -> Option<Found<'_>> {
        let positions = self.by_name.get(name)?;
        Some((self, positions.iter().map(|position| &self.members[*position]).collect()))
    }

    /// The first of its names that can stand in a message, with the network's.
    fn full_name(&self, member: &Member) -> Option<Name> {
        member.names.iter().find_map(|name| Name::from_words(&format!("{name}.{}", self.name)))
    }
}

fn data(address: IpAddr) -> Data {
    match address {
        IpAddr::V4(address) => Data::A(address),
        IpAddr::V6(address) => Data::Aaaa(address),
    }
}

/// `2.0.18.172.in-addr.arpa` (RFC 1035, 3.5) and its like of IPv6 (RFC 3596, 2.5).
fn reversed(words: &str) -> Option<IpAddr> {
    if let Some(numbers) = words.strip_suffix(".in-addr.arpa") {
        let numbers: Vec<u8> = numbers.rsplit('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(numbers).ok()?).into());
    }
    let digits = words.strip_suffix(".ip6.arpa")?.rsplit('.');
    let digits: Vec<u8> = digits
        .map(|digit| (digit.len() == 1).then(|| u8::from_str_radix(digit, 16).ok()).flatten())
        .collect::<Option<_>>()?;
    let octets: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0)).collect();
    (digits.len() == 32).then_some(())?;
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into())
}

/// Service, transport, and whose it is (RFC 2782).
fn service_name(words: &str) -> Option<(&str, Protocol, &str)> {
    let (service, rest) = words.strip_prefix('_')?.split_once("._")?;
    let (protocol, rest) = rest.split_once('.')?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some((service, protocol, rest))
}

/// A port by its number, or by the name that IANA has given it. What people run in containers, no more: a container's
/// own /etc/services may know others.
fn port_of(service: &str) -> Option<u16> {
    let port = match service {
        "ssh" => 22,
        "smtp" => 25,
        "domain" => 53,
        "http" => 80,
        "imap" => 143,
        "ldap" => 389,
        "https" => 443,
        "ldaps" => 636,
        "ms-sql-s" => 1433,
        "mqtt" => 1883,
        "etcd-client" => 2379,
        "mysql" => 3306,
        "postgresql" | "postgres" => 5432,
        "amqp" => 5672,
        "redis" => 6379,
        "http-alt" => 8080,
        "memcache" => 11211,
        "mongodb" => 27017,
        number => number.parse().ok()?,
    };
    Some(port)
}

#[cfg(test)]
mod tests;
