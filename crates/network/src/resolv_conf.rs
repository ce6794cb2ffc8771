//! What /etc/resolv.conf of a container says.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// What takes the place of what the host's says; each only if it says something.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides<'a> {
    /// `--dns`.
    pub servers: &'a [IpAddr],
    /// `--dns-search`; `.` stands for none.
    pub search: &'a [String],
    /// `--dns-option`.
    pub options: &'a [String],
}

/// The text of a container's /etc/resolv.conf, from the host's, for one that asks name servers itself.
///
/// Name servers on the host's loopback mean nothing in the container's namespace: they are left out. If that leaves
/// none, the host most likely runs systemd-resolved, whose upstream servers stand in
/// `/run/systemd/resolve/resolv.conf` (systemd-resolved.service(8)): `upstream` is that file's text, if it is there.
/// If that has none either, the container gets none. Docker would fill in a public resolver; that would send the names
/// that the user looks up to a third party unasked, so dozen does not. `search` and `options` are kept.
///
/// A link-local server (`fe80::1%eth0`) is left out too: its zone names an interface of the host's.
pub fn of_host(host: &str, upstream: Option<&str>, overrides: Overrides<'_>) -> String {
    let mut servers = usable_servers(host);
    let mut source = host;
    if servers.is_empty()
        && let Some(upstream) = upstream
    {
        servers = usable_servers(upstream);
        if !servers.is_empty() {
            source = upstream;
        }
    }
    if !overrides.servers.is_empty() {
        servers = overrides.servers.to_vec();
    }
    text(&servers, source, overrides, &[])
}

/// The text for a container that shares the host's network: the host's own, unless something is asked for.
pub fn shared_with_host(host: &str, overrides: Overrides<'_>) -> String {
    let is_host = overrides.servers.is_empty() && overrides.search.is_empty() && overrides.options.is_empty();
    if is_host {
        return host.to_owned();
    }
    let servers = if overrides.servers.is_empty() { servers(host) } else { overrides.servers.to_vec() };
    text(&servers, host, overrides, &[])
}

/// The text for a container that is answered at this address, and says in a comment whom that asks. Single labels are
/// tried as they are first (`ndots:0`): they are its neighbours' names.
pub fn of_resolver(resolver: Ipv4Addr, host: &str, overrides: Overrides<'_>) -> String {
    let mut text = text(&[resolver.into()], host, overrides, &["ndots:0"]);
    let (of, servers) =
        if overrides.servers.is_empty() { ("host", servers(host)) } else { ("container", overrides.servers.to_vec()) };
    let servers: Vec<String> = servers.iter().map(|server| format!("{of}({server})")).collect();
    let _ = writeln!(text, "\n# Based on host file: '/etc/resolv.conf' (internal resolver)");
    let _ = writeln!(text, "# ExtServers: [{}]", servers.join(" "));
    text
}

/// `required` are options that are added, unless they are set.
fn text(servers: &[IpAddr], source: &str, overrides: Overrides<'_>, required: &[&str]) -> String {
    let mut text = "# Made by dozen from the host's /etc/resolv.conf; written anew at each start.\n".to_owned();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    let mut options: Vec<&str> = overrides.options.iter().map(String::as_str).collect();
    for line in source.lines().map(str::trim) {
        match line.split_whitespace().next() {
            Some("search" | "domain") if overrides.search.is_empty() => drop(writeln!(text, "{line}")),
            Some("sortlist") => drop(writeln!(text, "{line}")),
            Some("options") if overrides.options.is_empty() => options.extend(line.split_whitespace().skip(1)),
            _ => {}
        }
    }
    let search: Vec<&str> = overrides.search.iter().map(String::as_str).filter(|domain| *domain != ".").collect();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    let name = |option: &str| option.split(':').next().map(str::to_owned);
    for option in required {
        if !options.iter().any(|set| name(set) == name(option)) {
            options.push(option);
        }
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

fn servers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        // With a zone it does not parse, which is right: see above.
        if words.next() == Some("nameserver")
            && let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>)
            && !servers.contains(&address)
        {
            servers.push(address);
        }
    }
    servers
}

fn usable_servers(text: &str) -> Vec<IpAddr> {
    let is_usable = |address: &IpAddr| !address.is_loopback() && !address.is_unspecified();
    servers(text).into_iter().filter(is_usable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "; a comment\nsearch a b\nnameserver 127.0.0.53\nnameserver 192.0.2.1\noptions edns0 trust-ad\n";

    /// Without the comment at its head.
    #[track_caller]
    fn check(text: &str, want: &str) {
        let (comment, rest) = text.split_once('\n').unwrap();
        assert!(comment.starts_with('#'));
        assert_eq!(rest, want);
    }

    #[test]
    fn it_follows_the_host_without_its_loopback() {
        const STUB: &str = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n";
        const UPSTREAM: &str = "nameserver 192.0.2.53\nsearch example.org\n";
        for (host, upstream, want) in [
            ("nameserver 192.0.2.1\n", None, "nameserver 192.0.2.1\n"),
            (
                "; a comment\nsearch a b\nnameserver\t127.0.0.1\nnameserver 192.0.2.1\nnameserver ::1\noptions ndots:2\n",
                Some(UPSTREAM),
                "nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n",
            ),
            (STUB, Some(UPSTREAM), "nameserver 192.0.2.53\nsearch example.org\n"),
            (STUB, None, "search lan\noptions edns0 trust-ad\n"),
            (STUB, Some("nameserver 127.0.0.1\n"), "search lan\noptions edns0 trust-ad\n"),
            ("nameserver fe80::1%eth0\nnameserver 2001:db8::1\n", None, "nameserver 2001:db8::1\n"),
            ("nameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver rubbish\n", None, "nameserver 192.0.2.1\n"),
            ("", None, ""),
        ] {
            check(&of_host(host, upstream, Overrides::default()), want);
        }
    }

    #[test]
    fn what_is_asked_takes_the_place_of_what_the_host_says() {
        let servers = ["127.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let (search, none) = (["x.org".to_owned(), "y".to_owned()], [".".to_owned()]);
        let options = ["ndots:2".to_owned(), "use-vc".to_owned()];
        let nothing = Overrides::default();
        for (overrides, want) in [
            (nothing, "nameserver 192.0.2.1\nsearch a b\noptions edns0 trust-ad\n"),
            (
                // Its own loopback is meant.
                Overrides { servers: &servers, ..nothing },
                "nameserver 127.0.0.1\nnameserver fd00::1\nsearch a b\noptions edns0 trust-ad\n",
            ),
            (
                Overrides { search: &search, ..nothing },
                "nameserver 192.0.2.1\nsearch x.org y\noptions edns0 trust-ad\n",
            ),
            (Overrides { search: &none, ..nothing }, "nameserver 192.0.2.1\noptions edns0 trust-ad\n"),
            (Overrides { options: &options, ..nothing }, "nameserver 192.0.2.1\nsearch a b\noptions ndots:2 use-vc\n"),
        ] {
            check(&of_host(HOST, None, overrides), want);
        }
        assert_eq!(shared_with_host(HOST, nothing), HOST);
        check(
            &shared_with_host(HOST, Overrides { search: &none, ..nothing }),
            "nameserver 127.0.0.53\nnameserver 192.0.2.1\noptions edns0 trust-ad\n",
        );
    }

    #[test]
    fn a_resolver_is_asked_for_single_labels_first() {
        let resolver = Ipv4Addr::new(127, 0, 0, 11);
        let about = "\n# Based on host file: '/etc/resolv.conf' (internal resolver)\n# ExtServers: ";
        check(
            &of_resolver(resolver, HOST, Overrides::default()),
            &format!(
                "nameserver 127.0.0.11\nsearch a b\noptions edns0 trust-ad ndots:0\n{about}[host(127.0.0.53) host(192.0.2.1)]\n"
            ),
        );
        let (servers, options) = (["192.0.2.9".parse().unwrap()], ["ndots:1".to_owned()]);
        let overrides = Overrides { servers: &servers, options: &options, search: &[] };
        check(
            &of_resolver(resolver, HOST, overrides),
            &format!("nameserver 127.0.0.11\nsearch a b\noptions ndots:1\n{about}[container(192.0.2.9)]\n"),
        );
    }
}
