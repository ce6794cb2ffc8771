//! Other people's firewalls, named where they are in the way.

use super::*;

#[test]
fn a_foreign_chain_that_drops_is_named() {
    on_a_host(|_| {
        let _network = open();
        assert_eq!(firewall_check::dropping_chains("dozen0").unwrap(), []);
        run("nft add table ip filter");
        run("nft add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }");
        run("nft add table inet mine");
        run("nft add chain inet mine forward { type filter hook forward priority 10; policy accept; }");
        let found = firewall_check::dropping_chains("dozen0").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "the firewall chain ip filter FORWARD drops forwarded packets by policy");
        assert_eq!(found[0].commands[0], "iptables -I FORWARD -i dozen0 -j ACCEPT");
        run("nft insert rule ip filter FORWARD iifname dozen0 accept");
        assert_eq!(firewall_check::dropping_chains("dozen0").unwrap(), []);
    });
}

/// As the tools of today's distributions leave them, with what is of no matter left out.
#[test]
fn the_firewalls_that_people_have_are_named() {
    let ufw = "table ip filter { chain INPUT { type filter hook input priority 0; policy drop; }
        chain FORWARD { type filter hook forward priority 0; policy drop;
            counter jump ufw-before-forward; counter jump ufw-after-forward; counter jump ufw-reject-forward; }
        chain ufw-before-forward { ct state related,established counter accept; icmp type echo-request accept;
            counter jump ufw-user-forward; }
        chain ufw-after-forward { } chain ufw-reject-forward { } chain ufw-user-forward { } }";
    let docker = "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop;
            counter jump DOCKER-USER; oifname docker0 ct state established counter accept;
            iifname docker0 oifname != docker0 counter accept; }
        chain DOCKER-USER { counter return; } }";
    let firewalld = "table inet firewalld { chain filter_PREROUTING { type filter hook prerouting priority 10; }
        chain filter_FORWARD { type filter hook forward priority 10; policy accept;
            ct state established,related accept; ct status dnat accept; iifname lo accept;
            ct state invalid drop; jump filter_FORWARD_ZONES; reject with icmpx type admin-prohibited; }
        chain filter_FORWARD_ZONES { iifname up0 goto filter_FWD_public; goto filter_FWD_public; }
        chain filter_FWD_public { jump filter_FWD_public_deny; } chain filter_FWD_public_deny { } }";
    let by_jump = "table ip mine { chain forward { type filter hook forward priority 0; policy accept;
            ct state established accept; counter log prefix no goto everything; }
        chain everything { counter drop; } }";
    let none = "table inet mine { chain forward { type filter hook forward priority 0; policy drop;
            ct state invalid drop; jump rest; } chain rest { tcp dport 25 drop; counter accept; } }
        table inet conditional { chain forward { type filter hook forward priority 0; ip saddr 192.0.2.0/24 drop; } }
        table inet input { chain input { type filter hook input priority 0; policy drop; } }
        table bridge frames { chain forward { type filter hook forward priority 0; policy drop; } }";
    let opened = "table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept;
            jump zones; reject; } chain zones { iifname dozen0 accept; } }";
    for (rules, chain, command) in [
        (ufw, "ip filter FORWARD drops forwarded packets by policy", "ufw route allow in on dozen0"),
        (docker, "ip filter FORWARD drops forwarded packets by policy", "iptables -I DOCKER-USER -i dozen0 -j ACCEPT"),
        (
            firewalld,
            "inet firewalld filter_FORWARD drops forwarded packets that none of its rules accepts",
            "firewall-cmd --permanent --zone=trusted --add-interface=dozen0",
        ),
        (
            by_jump,
            "ip mine forward drops forwarded packets that none of its rules accepts",
            "nft insert rule ip mine forward iifname dozen0 accept",
        ),
        (none, "", ""),
        (opened, "", ""),
    ] {
        on_a_host(|_| {
            let _network = support::open();
            // In one line, nft wants a semicolon after each block.
            let words: Vec<&str> = rules.split_whitespace().collect();
            run(&format!("nft {}", words.join(" ").replace('}', "} ;")));
            let found = firewall_check::dropping_chains("dozen0").unwrap();
            let said: Vec<String> = found.iter().map(ToString::to_string).collect();
            match chain {
                "" => assert_eq!(said, Vec::<String>::new()),
                _ => {
                    assert_eq!(said, [format!("the firewall chain {chain}")]);
                    assert_eq!(found[0].commands[0], command);
                }
            }
        });
    }
}
