use super::*;
use crate::query::tests::ask;

fn member(names: &[&str], addresses: &[&str], ports: &[u16]) -> Member {
    Member {
        names: names.iter().map(ToString::to_string).collect(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ports: ports.iter().map(|port| ServicePort { port: *port, protocol: Protocol::Tcp }).collect(),
    }
}

/// `front` with web and twice `app`; `back.end` with app1 and db; `asker` is in both, `outsider` in front alone,
/// `locked` in an internal one.
fn index() -> Index {
    let front = vec![
        member(&["web", "0123456789ab", "www"], &["172.18.0.2", "fd00::2"], &[80]),
        member(&["app1", "app", "a.dotted.name"], &["172.18.0.3"], &[8080]),
        member(&["app2", "App"], &["172.18.0.4"], &[8080]),
    ];
    let long = "x".repeat(70);
    let back = vec![
        member(&["app1"], &["172.19.0.3"], &[]),
        member(&["db", "fedcba987654"], &["172.19.0.5"], &[5432]),
        member(&[&long, "aaaaaaaaaaaa"], &["172.19.0.6"], &[]),
    ];
    let zone = |name: &str, members| NetworkZone { name: name.to_owned(), members };
    let networks = [("n1", zone("Front", front)), ("n2", zone("back.end", back)), ("n3", zone("in", vec![]))];
    let asker = |networks: &[&str], forwards| Asker {
        pid: 1,
        networks: networks.iter().map(ToString::to_string).collect(),
        forwards,
        ..Asker::default()
    };
    let askers = [
        ("asker", asker(&["n1", "n2"], true)),
        ("outsider", asker(&["n1", "gone"], true)),
        ("locked", asker(&["n3"], false)),
        ("dotted", Asker { ndots_set: true, ..asker(&["n1"], true) }),
    ];
    Index::from(Zones {
        networks: networks.into_iter().map(|(id, zone)| (id.to_owned(), zone)).collect(),
        askers: askers.into_iter().map(|(id, asker)| (id.to_owned(), asker)).collect(),
    })
}

/// The decision in words: records, `-` for none, `forward`, or the result's number.
fn decided(asker: &str, name: &str, kind: u16, turn: usize) -> String {
    let query = Query::read(&ask(name, kind, None)).unwrap();
    match index().decide(asker, &query, turn) {
        Decision::Forward => "forward".to_owned(),
        Decision::Answer(answer) => {
            let message = answer.encode(&query, 512);
            if message[3] & 15 != 0 {
                return (message[3] & 15).to_string();
            }
            let records: Vec<String> = answer.records.iter().map(|record| said(&record.data)).collect();
            let additional: Vec<String> = answer.additional.iter().map(|record| said(&record.data)).collect();
            match (records.is_empty(), additional.is_empty()) {
                (true, _) => "-".to_owned(),
                (_, true) => records.join(" "),
                (_, false) => format!("{} + {}", records.join(" "), additional.join(" ")),
            }
        }
    }
}

fn said(data: &Data) -> String {
    match data {
        Data::A(address) => address.to_string(),
        Data::Aaaa(address) => address.to_string(),
        Data::Pointer(name) => name.words().unwrap(),
        Data::Service { port, target } => format!("{port}@{}", target.words().unwrap()),
    }
}

#[test]
fn names_are_found_by_dockers_rules() {
    const MX: u16 = 15;
    const HTTPS: u16 = 65;
    for (asker, name, kind, want) in [
        ("asker", "web", kind::A, "172.18.0.2"),
        ("asker", "WEB", kind::A, "172.18.0.2"),
        ("asker", "web", kind::AAAA, "fd00::2"),
        ("asker", "www", kind::A, "172.18.0.2"),
        ("asker", "0123456789ab", kind::A, "172.18.0.2"),
        ("asker", "db", kind::A, "172.19.0.5"),
        ("outsider", "db", kind::A, "forward"),
        // The name is there, and has no address of that family: nobody else is asked.
        ("asker", "db", kind::AAAA, "-"),
        ("asker", "db", MX, "-"),
        ("asker", "db", HTTPS, "-"),
        ("asker", "a.dotted.name", kind::A, "172.18.0.3"),
        // On two networks: the first one's.
        ("asker", "app1", kind::A, "172.18.0.3"),
        ("asker", "app1.back.end", kind::A, "172.19.0.3"),
        ("asker", "app1.front", kind::A, "172.18.0.3"),
        ("asker", "a.dotted.name.front", kind::A, "172.18.0.3"),
        ("outsider", "app1.back.end", kind::A, "forward"),
        ("asker", "db.front", kind::A, "forward"),
        ("asker", "example.org", kind::A, "forward"),
        ("asker", "nobody", kind::A, "forward"),
        ("asker", "", kind::A, "forward"),
        ("asker", "example.org", kind::AXFR, "5"),
        // Nobody outside is asked.
        ("locked", "example.org", kind::A, "2"),
        ("locked", "web", kind::A, "2"),
        ("stranger", "web", kind::A, "5"),
        // The search domains come first.
        ("dotted", "nobody", kind::A, "-"),
        ("dotted", "web", kind::A, "172.18.0.2"),
        ("dotted", "example.org", kind::A, "forward"),
        ("dotted", "nobody", MX, "forward"),
    ] {
        assert_eq!(decided(asker, name, kind, 0), want, "{asker} asks for {name}, {kind}");
    }
}

#[test]
fn addresses_lead_back_to_names() {
    let ip6 = |address: &str| {
        let octets = address.parse::<Ipv6Addr>().unwrap().octets();
        let digits: Vec<String> =
            octets.iter().rev().flat_map(|o| [o & 15, o >> 4]).map(|d| format!("{d:x}")).collect();
        digits.join(".") + ".ip6.arpa"
    };
    for (asker, name, want) in [
        ("asker", "2.0.18.172.in-addr.arpa", "web.front"),
        ("asker", "2.0.18.172.IN-ADDR.ARPA", "web.front"),
        ("asker", "5.0.19.172.in-addr.arpa", "db.back.end"),
        // Its name has more than 63 bytes.
        ("asker", "6.0.19.172.in-addr.arpa", "aaaaaaaaaaaa.back.end"),
        ("outsider", "5.0.19.172.in-addr.arpa", "forward"),
        ("asker", "1.1.1.1.in-addr.arpa", "forward"),
        ("asker", "1.1.1.in-addr.arpa", "forward"),
        ("asker", "x.0.18.172.in-addr.arpa", "forward"),
        ("asker", &ip6("fd00::2"), "web.front"),
        ("asker", &ip6("fd00::3"), "forward"),
        ("asker", "a.b.ip6.arpa", "forward"),
        ("asker", "web", "forward"),
    ] {
        assert_eq!(decided(asker, name, kind::PTR, 0), want, "{asker} asks for {name}");
    }
}

#[test]
fn services_are_found_by_number_and_by_name() {
    for (name, want) in [
        ("_5432._tcp.db", "5432@db.back.end + 172.19.0.5"),
        ("_postgresql._tcp.db", "5432@db.back.end + 172.19.0.5"),
        ("_http._tcp.web.front", "80@web.front + 172.18.0.2 fd00::2"),
        ("_http-alt._tcp.app", "8080@app1.front 8080@app2.front + 172.18.0.3 172.18.0.4"),
        ("_http._udp.web", "-"),
        ("_https._tcp.web", "-"),
        ("_nonsense._tcp.web", "-"),
        ("_http._tcp.nobody", "forward"),
        ("_http._sctp.web", "forward"),
        ("web", "-"),
        ("_ldap._tcp.example.org", "forward"),
    ] {
        assert_eq!(decided("asker", name, kind::SRV, 0), want, "{name}");
    }
}

#[test]
fn those_who_share_a_name_take_turns() {
    assert_eq!(decided("asker", "app", kind::A, 0), "172.18.0.3 172.18.0.4");
    assert_eq!(decided("asker", "APP", kind::A, 1), "172.18.0.4 172.18.0.3");
    assert_eq!(decided("asker", "app", kind::A, 2), "172.18.0.3 172.18.0.4");
}
