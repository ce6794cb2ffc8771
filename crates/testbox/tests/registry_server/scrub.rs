//! A scrub by the real binary: what the disk has changed is found, told, given to nobody, and comes again.

use std::path::PathBuf;

use dozen_testbox::{Machine, dozen_program, until};

use crate::server::{HOST, Server, check, curl, failpoints, push_to, root};

/// Read again and again.
const ALWAYS: [&str; 4] = ["--scrub-every", "0s", "--scrub-rate", "1g"];

/// The file of an image's largest blob below this directory.
fn largest(machine: &Machine, place: &str) -> PathBuf {
    let blobs = machine.directory().join(place).join("blobs");
    let files = machine.run("find", &[blobs.to_str().unwrap(), "-type", "f"]).text();
    files.lines().map(PathBuf::from).max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

/// One bit in the middle, as a disk that grows old changes it.
fn damage(path: &PathBuf) {
    let mut content = std::fs::read(path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(path, content).unwrap();
}

#[test]
fn what_the_disk_has_changed_is_found_and_a_push_mends_it() {
    let machine = Machine::new();
    let arguments = [&ALWAYS[..], &["--metrics-listen", "127.0.0.1:5009"]].concat();
    let server = Server::start(&machine, &arguments);
    server.push("busybox", "team/box:1").expect(0);
    let file = largest(&machine, "registry");
    damage(&file);
    until("it is found", || server.said().contains("is damaged").then_some(()));
    let said = server.said();
    assert!(said.contains("it is in team/box:1: push it again"), "{said}");
    let refused = server.pull("team/box:1");
    assert!(refused.code != 0 && refused.err.contains("404 "), "{refused:?}");
    assert!(file.exists(), "it stays");
    server.push("busybox", "team/box:1").expect(0);
    server.pull("team/box:1").expect(0);
    let engine = machine.engine();
    engine.dozen(&["run", "--rm", &format!("{HOST}/team/box:1"), "true"]).expect(0);
    let numbers = curl(&machine, &["http://127.0.0.1:5009/metrics"]).text();
    assert!(numbers.contains("\ndozen_registry_scrub_damaged_total 1\n"), "{numbers}");
    assert!(numbers.contains("\ndozen_registry_damaged_files 1\n"), "{numbers}");
    drop(server);
    let checked = check(&machine).expect(0).out;
    assert!(checked.contains("was found damaged: it is nobody's, and stays\n"), "{checked}");
    // The next server leaves it there, until somebody takes it away.
    drop(Server::start(&machine, &[]));
    assert!(file.exists());
    std::fs::remove_file(&file).unwrap();
    drop(Server::start(&machine, &[]));
    assert!(!check(&machine).expect(0).out.contains("was found damaged"));
}

#[test]
fn what_is_kept_of_an_upstream_comes_again_by_itself() {
    let machine = Machine::new();
    let there = Server::beside(&machine, "there", &["--listen", "127.0.0.1:5007"]);
    push_to(&machine, "127.0.0.1:5007", "busybox", "box:1").expect(0);
    let file = machine.directory().join("upstreams.toml");
    std::fs::write(&file, "[[upstream]]\nrepositories = \"there/**\"\nurl = \"http://127.0.0.1:5007\"\n").unwrap();
    let others = ["--upstreams", file.to_str().unwrap(), "--metrics-listen", "127.0.0.1:5009"];
    let server = Server::start(&machine, &[&ALWAYS[..], &others].concat());
    server.pull("there/box:1").expect(0);
    damage(&largest(&machine, "registry"));
    until("it is found", || server.said().contains("is damaged").then_some(()));
    server.pull("there/box:1").expect(0);
    drop(there);
    server.pull("there/box:1").expect(0);
    // Configuration and layer: brought, one of them again, and then both from here.
    let numbers = curl(&machine, &["http://127.0.0.1:5009/metrics"]).text();
    for line in
        ["what=\"blob\",result=\"miss\"} 3", "what=\"blob\",result=\"hit\"} 3", "what=\"manifest\",result=\"miss\"} 1"]
    {
        assert!(numbers.contains(&format!("\ndozen_registry_cache_requests_total{{{line}\n")), "{line} in {numbers}");
    }
    drop(server);
    check(&machine).expect(0);
}

#[test]
fn killed_while_it_scrubs_it_goes_on() {
    let machine = Machine::new();
    let names = machine.run(dozen_program(), &["registry", "serve", "--failpoints"]).text();
    let names: Vec<_> = names.lines().filter(|name| name.starts_with("registry.scrub.")).collect();
    assert!(!names.is_empty());
    for name in names {
        let server = Server::start(&machine, &[]);
        server.push("busybox", "box:1").expect(0);
        drop(server);
        let file = largest(&machine, "registry");
        damage(&file);
        std::fs::write(failpoints(&machine).join(name), "").unwrap();
        let server = Server::until_over(&machine, &ALWAYS, &[]);
        assert!(!failpoints(&machine).join(name).exists(), "{name}");
        drop(server);
        let server = Server::start(&machine, &ALWAYS);
        until("the blob is given to nobody", || (server.pull("box:1").code != 0).then_some(()));
        assert!(file.exists(), "{name}");
        server.push("busybox", "box:1").expect(0);
        server.pull("box:1").expect(0);
        drop(server);
        check(&machine).expect(0);
        std::fs::remove_dir_all(root(&machine)).unwrap();
    }
}
