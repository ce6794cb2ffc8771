//! What /etc/hosts of a container says.

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
}
