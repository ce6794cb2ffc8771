//! What stays while engines come and go, and what is put right again.

use super::*;

#[test]
fn a_restart_finds_everything_again() {
    on_a_host(|neighbour| {
        let network = open();
        let (container, gone) = (attach(&network), attach(&network));
        let listener = listen(&container.namespace, 80);
        network.publish(&container.endpoint, &tcp(8080)).unwrap();
        network.publish(&gone.endpoint, &tcp(8081)).unwrap();
        let mut client = dial(neighbour, HOST, 8080, SOON).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let addresses = network.addresses().clone();
        drop(network);

        // Even when the host has since taken an address in the way, and with nothing remembered.
        run("ip addr add 172.17.200.1/24 dev up0");
        let network = open();
        assert_eq!(*network.addresses(), addresses);
        assert_eq!(links(), 5, "lo, up0, dozen0 and two links");
        reach(neighbour, HOST, 8080, &listener).unwrap();
        network.restore(&container.endpoint, &tcp(8080)).unwrap();
        assert!(network.restore(&container.endpoint, &[]).is_err(), "the address has an owner");
        network.retain(std::slice::from_ref(&container.endpoint)).unwrap();
        assert!(!run("nft list table inet dozen").contains("8081"));
        assert_eq!(links(), 4);
        std::io::Write::write_all(&mut client, b"x").unwrap();
        std::io::Read::read_exact(&mut server, &mut [0]).unwrap();
        assert_ne!(attach(&network).endpoint.ipv4, container.endpoint.ipv4);
        reach(neighbour, HOST, 8080, &listener).unwrap();
    });
}

#[test]
fn no_connection_is_refused_while_the_next_engine_starts() {
    on_a_host(|neighbour| {
        const ENGINES: usize = 60;
        let network = open();
        let container = attach(&network);
        let listener = listen(&container.namespace, 80);
        network.publish(&container.endpoint, &tcp(8080)).unwrap();
        let mut lasting = [HOST, HOST_6].map(|to| {
            let client = dial(neighbour, to, 8080, SOON).unwrap();
            (client, listener.accept().unwrap().0)
        });
        drop(network);
        let intended = run("nft list ruleset");
        let (over, left) = (&AtomicBool::new(false), &AtomicBool::new(false));
        let visits = std::thread::scope(|scope| {
            scope.spawn(|| listener.incoming().find(|_| left.load(Ordering::Relaxed)));
            let callers = [HOST, HOST_6].map(|to| scope.spawn(move || within(neighbour, || visit(to, 8080, over))));
            for _ in 0..ENGINES {
                open();
            }
            over.store(true, Ordering::Relaxed);
            let visits = callers.map(|caller| caller.join().unwrap());
            left.store(true, Ordering::Relaxed);
            dial(neighbour, HOST, 8080, SOON).unwrap();
            visits
        });
        for (made, refused) in visits {
            assert!(made > ENGINES, "{made} visits in the lifetimes of {ENGINES} engines");
            assert_eq!(refused, 0, "refused, of {made} visits");
        }
        for (client, server) in &mut lasting {
            std::io::Write::write_all(client, b"x").unwrap();
            std::io::Read::read_exact(server, &mut [0]).unwrap();
        }
        assert_eq!(run("nft list ruleset"), intended);
    });
}

/// In some hundreds of starts one visit at the most comes at the wrong moment; so this is what counts.
#[test]
fn a_start_takes_nothing_away_that_a_packet_might_look_for() {
    on_a_host(|_| {
        let network = open();
        let container = attach(&network);
        network.publish(&container.endpoint, &tcp(8080)).unwrap();
        drop(network);
        let mut monitor = Monitor::start();
        let next = open();
        next.restore(&container.endpoint, &tcp(8080)).unwrap();
        next.retain(std::slice::from_ref(&container.endpoint)).unwrap();
        let gone: Vec<_> = monitor.changes().into_iter().filter(|change| change.starts_with("delete")).collect();
        let of_rules = |change: &&String| change.starts_with("delete rule inet dozen ");
        assert_eq!(gone.iter().find(|change| !of_rules(change)), None);
        assert!(!gone.is_empty(), "rules are put anew");
    });
}

/// Connects again and again until it is over; how often, and how often in vain.
fn visit(to: &str, port: u16, over: &AtomicBool) -> (usize, usize) {
    let to = std::net::SocketAddr::new(to.parse().unwrap(), port);
    let (mut made, mut refused) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        made += 1;
        // Until the server closes: a visitor who is faster than it fills its queue, and the kernel then drops what comes.
        let is_answered = std::net::TcpStream::connect_timeout(&to, SOON).and_then(|mut client| {
            // A reset instead of a farewell, which would keep the port for a minute.
            rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO))?;
            client.set_read_timeout(Some(SOON))?;
            std::io::Read::read(&mut client, &mut [0])
        });
        refused += usize::from(is_answered.is_err());
    }
    (made, refused)
}

/// `nft monitor`, from its start on.
struct Monitor {
    nft: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Monitor {
    fn start() -> Self {
        let mut nft =
            std::process::Command::new("nft").arg("monitor").stdout(std::process::Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(nft.stdout.take().unwrap()));
        // It says nothing when it listens; a change that it tells of says so.
        let heard = &AtomicBool::new(false);
        let mut monitor = Self { nft, lines };
        let here = here();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                within(&here, || {
                    while !heard.load(Ordering::Relaxed) {
                        run("nft add table inet listening ; delete table inet listening");
                    }
                });
            });
            monitor.lines.next().unwrap().unwrap();
            heard.store(true, Ordering::Relaxed);
        });
        monitor
    }

    /// What has changed so far, a line each.
    fn changes(&mut self) -> Vec<String> {
        run("nft add table inet last ; delete table inet last");
        let lines = self.lines.by_ref().map(Result::unwrap).take_while(|line| line != "add table inet last");
        lines.filter(|line| !line.ends_with("table inet listening")).collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.nft.kill().unwrap();
        self.nft.wait().unwrap();
    }
}

/// Rules that an administrator changed stay so until the next engine, whatever happens to the host's addresses.
#[test]
fn what_was_changed_of_the_table_is_put_right_at_the_next_start() {
    on_a_host(|neighbour| {
        let network = open();
        let container = attach(&network);
        let listener = listen(&container.namespace, 80);
        network.publish(&container.endpoint, &tcp(8080)).unwrap();
        let intended = run("nft list ruleset");
        for change in [
            "flush chain inet dozen guard",
            "insert rule inet dozen forward drop",
            "add rule inet dozen published drop",
            "add chain inet dozen forward { policy drop; }",
            "add chain inet dozen mine { type filter hook forward priority 0; policy drop; }",
            "flush map inet dozen published4",
            "add element inet dozen published4 { tcp . 8081 : 192.0.2.7 . 80 }",
            "flush set inet dozen opened4",
            "add table inet dozen { flags dormant; }",
        ] {
            run(&format!("nft {change}"));
            let changed = run("nft list ruleset");
            assert_ne!(changed, intended, "{change}");
            let _late = add_neighbour("up1", ("198.51.100.1", "198.51.100.2"), ("2001:db8:2::1", "2001:db8:2::2"));
            network.refresh().unwrap();
            run("ip link del up1");
            network.refresh().unwrap();
            if !change.contains("opened") {
                assert_eq!(run("nft list ruleset"), changed);
            }
            let next = open();
            next.restore(&container.endpoint, &tcp(8080)).unwrap();
            next.retain(std::slice::from_ref(&container.endpoint)).unwrap();
            assert_eq!(run("nft list ruleset"), intended, "{change}");
            reach(neighbour, HOST, 8080, &listener).unwrap();
        }
    });
}

#[test]
fn a_flushed_firewall_is_made_again_by_itself() {
    on_a_host(|neighbour| {
        let network = open();
        let (first, second) = (attach(&network), attach(&network));
        let (listener, outside) = (listen(&first.namespace, 80), listen(neighbour, 80));
        network.publish(&first.endpoint, &tcp(8080)).unwrap();
        let before = run("nft list ruleset");
        for _ in 0..3 {
            // As a restart of nftables.service does.
            run("nft flush ruleset");
            until_ruleset_is(&before);
            reach(neighbour, HOST, 8080, &listener).unwrap();
            reach(&first.namespace, NEIGHBOUR, 80, &outside).unwrap();
        }
        // Published in the same moment.
        run("nft flush ruleset");
        network.publish(&second.endpoint, &tcp(8081)).unwrap();
        network.unpublish(&second.endpoint, &tcp(8081)).unwrap();
        until_ruleset_is(&before);
        // What is ours alone to remove is not mended against us.
        network.teardown().unwrap();
        assert_eq!(run("nft list ruleset"), "");
        assert_eq!(get("ipv4/conf/up0/forwarding"), "0");
    });
}

fn until_ruleset_is(wanted: &str) {
    let begin = Instant::now();
    while run("nft list ruleset") != wanted {
        assert!(begin.elapsed() < SOON, "the ruleset is {}", run("nft list ruleset"));
    }
}

/// A flow of datagrams that went on without the table is translated again, though it never pauses.
#[test]
fn a_flow_follows_the_firewall_that_was_flushed() {
    on_a_host(|neighbour| {
        let network = open();
        let container = attach(&network);
        let address = container.endpoint.ipv4.unwrap();
        within(neighbour, || run(&format!("ip route add {address}/32 via {HOST}")));
        network.publish(&container.endpoint, &[port("0.0.0.0", 5300, 53, Protocol::Udp)]).unwrap();
        let (inside, host) = (udp(&container.namespace, "0.0.0.0", 53), udp(here(), "0.0.0.0", 5300));
        let outside = udp(neighbour, NEIGHBOUR, 40000);
        let deliver = |from: &UdpSocket, to: &UdpSocket, address: (&str, u16)| {
            from.send_to(b"?", address).unwrap();
            to.recv_from(&mut [0; 8]).unwrap().1
        };
        // The table is there and empty, so nobody mends it; another one's translation decides meanwhile.
        run("nft flush ruleset ; add table inet dozen ; add table ip other ; \
             add chain ip other out { type nat hook postrouting priority 100 ; }");
        assert_eq!(deliver(&outside, &host, (HOST, 5300)).to_string(), format!("{NEIGHBOUR}:40000"));
        assert_eq!(deliver(&host, &outside, (NEIGHBOUR, 40000)).to_string(), format!("{HOST}:5300"));
        let second = udp(neighbour, NEIGHBOUR, 40001);
        assert_eq!(deliver(&inside, &second, (NEIGHBOUR, 40001)).to_string(), format!("{address}:53"));
        assert_eq!(deliver(&second, &inside, (&address.to_string(), 53)).to_string(), format!("{NEIGHBOUR}:40001"));

        run("nft delete table inet dozen");
        inside.set_nonblocking(true).unwrap();
        let begin = Instant::now();
        let (mut from_outside, mut to_outside) = (None, None);
        while from_outside.is_none() || to_outside != Some(HOST.parse::<IpAddr>().unwrap()) {
            assert!(begin.elapsed() < SOON, "{from_outside:?} {to_outside:?}");
            outside.send_to(b"?", (HOST, 5300)).unwrap();
            from_outside = from_outside.or(inside.recv_from(&mut [0; 8]).ok());
            to_outside = Some(deliver(&inside, &second, (NEIGHBOUR, 40001)).ip());
        }
        assert_eq!(from_outside.unwrap().1.to_string(), format!("{NEIGHBOUR}:40000"));
    });
}
