//! Rules of retention, by the real binary: what would go is told while it serves, and then it goes, with the reason in the log.

use std::path::PathBuf;

use dozen_testbox::{Done, Machine, dozen_program, until};
use rustix::process::Signal;

use crate::server::{HOST, Server, check, curl, root};

fn rules(machine: &Machine, text: &str) -> PathBuf {
    let path = machine.directory().join("retention.toml");
    std::fs::write(&path, format!("[[rule]]\nrepositories = [\"team/**\"]\n{text}\n")).unwrap();
    path
}

fn retention(machine: &Machine, arguments: &[&str]) -> Done {
    let root = root(machine);
    let command = ["registry", "retention", "--root", root.to_str().unwrap()];
    machine.run(dozen_program(), &[&command[..], arguments].concat())
}

fn tags(machine: &Machine, name: &str) -> String {
    let list = curl(machine, &[&format!("http://{HOST}/v2/{name}/tags/list")]).text();
    list.lines().last().unwrap().to_owned()
}

#[test]
fn what_would_go_is_told_and_then_it_goes() {
    let machine = Machine::new();
    let all = rules(&machine, "");
    let server = Server::start(&machine, &["--collect-every", "50ms", "--retention", all.to_str().unwrap()]);
    for tag in ["v1", "v2", "nightly"] {
        server.push("busybox", &format!("team/box:{tag}")).expect(0);
    }
    server.push("nginx:1.22", "team/web:old").expect(0);
    server.push("nginx:1.22", "other/web:old").expect(0);
    let asked = rules(&machine, "keep-tags = [\"v*\"]\nuntagged-after = \"0s\"");
    // By the server's own rules, nothing; by others, what they say. Nothing is changed by asking.
    let own = retention(&machine, &["--dry-run"]).expect(0);
    assert!(own.out.is_empty() && own.err.contains("0 would go"), "{own:?}");
    let by_others = || retention(&machine, &["--dry-run", "--retention", asked.to_str().unwrap()]).expect(0).out;
    let told = by_others();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert!(lines[0].starts_with("team/box:nightly: pushed ") && lines[0].ends_with("ago, not called v*"), "{told}");
    assert!(lines[1].starts_with("team/web:old: ") && lines[2].starts_with("team/web@sha256:"), "{told}");
    assert_eq!(by_others().lines().count(), 3);
    assert_eq!(tags(&machine, "team/box"), "{\"name\":\"team/box\",\"tags\":[\"nightly\",\"v1\",\"v2\"]}");
    // While it serves, nobody else carries anything out.
    retention(&machine, &["--retention", asked.to_str().unwrap()]).refuses(1, &["say --dry-run"]);
    let wrong = machine.directory().join("wrong.toml");
    std::fs::write(&wrong, "[[rule]]\nrepositories = [\"a\"]\nkeep = 3\n").unwrap();
    retention(&machine, &["--dry-run", "--retention", wrong.to_str().unwrap()]).refuses(1, &["wrong.toml, line 3"]);
    // Now they are its own.
    server.signal(Signal::HUP);
    until("the rules are carried out", || server.said().contains("team/web@sha256:").then_some(()));
    assert_eq!(tags(&machine, "team/box"), "{\"name\":\"team/box\",\"tags\":[\"v1\",\"v2\"]}");
    assert!(tags(&machine, "other/web").contains("old"));
    assert!(server.said().contains("team/box:nightly went: pushed "), "{}", server.said());
    let kept = format!("docker://{HOST}/team/box:v1");
    machine.run("skopeo", &["inspect", "--tls-verify=false", &kept]).expect(0);
    server.signal(Signal::TERM);
    assert!(server.ended());
    check(&machine).expect(0);
    // Where no server runs, the command does it.
    let none = rules(&machine, "keep-tags = [\"v2\"]");
    retention(&machine, &["--dry-run"]).refuses(1, &["no server is running"]);
    let done = retention(&machine, &["--retention", none.to_str().unwrap()]).expect(0);
    assert!(done.out.starts_with("team/box:v1: ") && done.err.contains("1 went"), "{done:?}");
    let again = retention(&machine, &["--dry-run", "--retention", none.to_str().unwrap()]).expect(0);
    assert!(again.out.is_empty());
}
