//! Whom the host asks.

use std::net::IpAddr;

/// The name servers of a resolv.conf(5), in order, each once. Those on the host's loopback too: they are asked from the
/// host. One with a zone (`fe80::1%eth0`) is left out.
pub fn name_servers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(Ok(server)) = words.next().map(str::parse::<IpAddr>)
            && !servers.contains(&server)
        {
            servers.push(server);
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_a_resolv_conf() {
        let text = "# nameserver 192.0.2.9\nsearch lan\nnameserver 127.0.0.53\n nameserver\t192.0.2.1 \n\
                    nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver\nnameserver x\n";
        let servers: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.53", "192.0.2.1", "2001:db8::1"]);
        assert!(name_servers("").is_empty());
    }
}
