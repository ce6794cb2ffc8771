//! What /etc/hosts and /etc/resolv.conf of a container say.

use std::fmt::Write;
use std::net::IpAddr;

/// The text of a container's /etc/hosts, with Docker's lines.
///
/// `addresses` are the container's own; each gets a line with the host name, and the domain's full name before it.
/// `extra` are `--add-host` entries, in order.
pub fn hosts(hostname: &str, domain: Option<&str>, addresses: &[IpAddr], extra: &[(String, IpAddr)]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::\tip6-localnet\n\
        ff00::\tip6-mcastprefix\n\
        ff02::1\tip6-allnodes\n\
        ff02::2\tip6-allrouters\n"
        .to_owned();
    for (name, address) in extra {
        let _ = writeln!(text, "{address}\t{name}");
    }
    for address in addresses {
        let _ = match domain.filter(|domain| !domain.is_empty()) {
            Some(domain) => writeln!(text, "{address}\t{hostname}.{domain} {hostname}"),
            None => writeln!(text, "{address}\t{hostname}"),
        };
    }
    text
}

/// The text of a container's /etc/resolv.conf, from the host's.
///
/// Name servers on the host's loopback mean nothing in the container's namespace: they are left out. If that leaves
/// none, the host most likely runs systemd-resolved, whose upstream servers stand in
/// `/run/systemd/resolve/resolv.conf` (systemd-resolved.service(8)): `upstream` is that file's text, if it is there.
/// If that has none either, the container gets none. Docker would fill in a public resolver; that would send the names
/// that the user looks up to a third party unasked, so dozen does not. `search` and `options` are kept.
///
/// A link-local server (`fe80::1%eth0`) is left out too: its zone names an interface of the host's.
pub fn resolv_conf(host: &str, upstream: Option<&str>) -> String {
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
    let mut text = "# Made by dozen from the host's /etc/resolv.conf; written anew at each start.\n".to_owned();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    for line in source.lines().map(str::trim) {
        let keyword = line.split_whitespace().next();
        if matches!(keyword, Some("search" | "domain" | "options" | "sortlist")) {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

fn usable_servers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        // With a zone it does not parse, which is right: see above.
        if let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>)
            && !address.is_loopback()
            && !address.is_unspecified()
            && !servers.contains(&address)
        {
            servers.push(address);
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_has_dockers_lines() {
        let addresses: [IpAddr; 2] = ["172.17.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let extra = [("db".to_owned(), "10.0.0.9".parse().unwrap())];
        let text = hosts("web", Some("example.org"), &addresses, &extra);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"));
        assert!(text.ends_with("10.0.0.9\tdb\n172.17.0.2\tweb.example.org web\nfd00::2\tweb.example.org web\n"));
        assert!(hosts("web", None, &addresses[..1], &[]).ends_with("ff02::2\tip6-allrouters\n172.17.0.2\tweb\n"));
    }

    #[test]
    fn resolv_conf_follows_the_host_without_its_loopback() {
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
            (STUB, None, "options edns0 trust-ad\nsearch lan\n"),
            (STUB, Some("nameserver 127.0.0.1\n"), "options edns0 trust-ad\nsearch lan\n"),
            ("nameserver fe80::1%eth0\nnameserver 2001:db8::1\n", None, "nameserver 2001:db8::1\n"),
            ("nameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver rubbish\n", None, "nameserver 192.0.2.1\n"),
            ("", None, ""),
        ] {
            let text = resolv_conf(host, upstream);
            let (comment, rest) = text.split_once('\n').unwrap();
            assert!(comment.starts_with('#'));
            assert_eq!(rest, want, "{host:?}");
        }
    }
}
