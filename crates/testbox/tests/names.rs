//! Names: what a container's resolv.conf says, and what it is answered.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Engine, Machine};

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

/// The lines of its resolv.conf that are no comments.
fn resolv_conf(engine: &Engine<'_>, flags: &[&str]) -> Vec<String> {
    let words = [&["run", "--rm"][..], flags, &["busybox", "cat", "/etc/resolv.conf"]].concat();
    let text = engine.dozen(&words).expect(0).out;
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn what_is_asked_of_dns_stands_in_resolv_conf_and_in_inspect() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let host = machine.run("cat", &["/etc/resolv.conf"]).text();
    let asked = ["--dns", "192.0.2.7", "--dns", "fd00::7", "--dns-search", "x.org", "--dns-option", "ndots:3"];
    let want = ["nameserver 192.0.2.7", "nameserver fd00::7", "search x.org", "options ndots:3"];
    for network in ["bridge", "none", "host"] {
        let flags = [&["--network", network][..], &asked].concat();
        assert_eq!(resolv_conf(&engine, &flags), want, "{network}");
    }
    let without_search = resolv_conf(&engine, &["--dns-search", ".", "--dns-opt", "use-vc"]);
    assert!(without_search.iter().all(|line| !line.starts_with("search") && !line.starts_with("domain")));
    assert_eq!(without_search.last().unwrap(), "options use-vc");
    assert_eq!(engine.dozen(&["run", "--rm", "--network", "host", "busybox", "cat", "/etc/resolv.conf"]).text(), host);

    engine.dozen(&[&["create", "--name", "one"][..], &asked, &["busybox", "true"]].concat()).expect(0);
    let format = "{{json .HostConfig.Dns}} {{json .HostConfig.DnsSearch}} {{json .HostConfig.DnsOptions}}";
    let shown = engine.dozen(&["inspect", "--format", format, "one"]).expect(0).out;
    assert_eq!(shown, "[\"192.0.2.7\",\"fd00::7\"] [\"x.org\"] [\"ndots:3\"]\n");
    for (flags, words) in [
        (&["--dns", "nonsense"][..], "IP address is not correctly formatted"),
        (&["--dns-search", "a b"], "is not a single word"),
        (&["--network", "container:one", "--dns", "1.1.1.1"], "conflicting options: dns and the network mode"),
    ] {
        let done = engine.dozen(&[&["create"][..], flags, &["busybox"]].concat());
        assert!(done.code != 0 && done.err.contains(words), "{done:?}");
    }
}
