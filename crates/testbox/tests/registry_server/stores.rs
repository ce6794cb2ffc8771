//! A registry whose data lies in a store of objects, by other people's servers: one that checks who has signed a request,
//! and one that puts an object only where there is none. (No store that can be had here does both.)

use std::net::SocketAddr;
use std::process::{Child, Stdio};

use dozen_testbox::{Done, Machine, Side, dozen_program, python_program, until};
use rustix::process::Signal;

use crate::crash::push_artifact;
use crate::server::{HOST, Server, curl, push, root};

const PLACE: &str = "s3://images/team/registry";
const ENDPOINT: &str = "http://127.0.0.1:9000";
const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "an-id"), ("AWS_SECRET_ACCESS_KEY", "not-for-logs")];

/// An S3-compatible server with the bucket `images`.
struct Store {
    process: Child,
}

impl Store {
    /// It checks signatures (AWS Signature Version 4).
    fn signed(machine: &Machine) -> Self {
        let arguments = ["-m", "nanio", "serve", "--host", "127.0.0.1", "--port", "9000", "--data-dir"];
        Self::start(machine, &arguments)
    }

    /// It heeds `If-None-Match: *`.
    fn conditional(machine: &Machine) -> Self {
        Self::start(machine, &["-m", "localbucket", "--port", "9000"])
    }

    fn start(machine: &Machine, arguments: &[&str]) -> Self {
        let data = machine.directory().join("store");
        std::fs::create_dir_all(data.join("images")).unwrap();
        let mut command = machine.command(python_program());
        command.args(arguments).arg(data).stdout(Stdio::null()).stderr(Stdio::null());
        command.env("NANIO_ACCESS_KEY", KEYS[0].1).env("NANIO_SECRET_KEY", KEYS[1].1);
        let process = command.spawn().unwrap();
        let address: SocketAddr = "127.0.0.1:9000".parse().unwrap();
        until("the store listens", || machine.connect(Side::Machine, address).ok());
        Self { process }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const AT: [&str; 4] = ["--store", PLACE, "--store-endpoint", ENDPOINT];

fn registry(machine: &Machine, arguments: &[&str]) -> Done {
    machine.run_with(dozen_program(), &[&["registry"][..], arguments].concat(), b"", &KEYS)
}

fn check(machine: &Machine) -> Done {
    registry(machine, &[&["check"][..], &AT].concat())
}

fn inspect(machine: &Machine, name: &str) -> Done {
    machine.run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{HOST}/{name}")])
}

#[test]
fn images_are_pushed_to_a_store_and_outlast_this_machine() {
    let machine = Machine::new();
    let store = Store::conditional(&machine);
    let server = Server::with(&machine, &AT, &KEYS);
    server.push("nginx:1.22", "team/web:1").expect(0);
    let manifest = inspect(&machine, "team/web:1").text();
    let engine = machine.engine();
    engine.dozen(&["run", "--rm", &format!("{HOST}/team/web:1"), "nginx", "-v"]).expect(0);
    // Killed, and its disk is lost.
    server.signal(Signal::KILL);
    assert!(!server.ended());
    std::fs::remove_dir_all(root(&machine)).unwrap();
    let directory = root(&machine);
    let serve = [&["serve", "--root", directory.to_str().unwrap()][..], &AT].concat();
    registry(&machine, &serve)
        .refuses(1, &["another registry serves what is in s3://images/team/registry", "--take-over"]);
    let server = Server::with(&machine, &[&AT[..], &["--take-over"]].concat(), &KEYS);
    assert_eq!(inspect(&machine, "team/web:1").text(), manifest);
    server.push("busybox", "team/box:1").expect(0);
    // In order: the next one need not be told.
    server.signal(Signal::TERM);
    assert!(server.ended());
    std::fs::remove_dir_all(root(&machine)).unwrap();
    let server = Server::with(&machine, &AT, &KEYS);
    assert_eq!(inspect(&machine, "team/web:1").text(), manifest);
    // The store goes down.
    drop(store);
    let blob = format!("http://{HOST}/v2/team/web/blobs/uploads/?digest=sha256:{}", "0".repeat(64));
    curl(&machine, &["-X", "POST", "--data-binary", "x", &blob]).expect(0);
    let refused = push(&machine, "nginx:1.22", "other/web:1");
    assert!(refused.code != 0, "{refused:?}");
    assert!(server.said().contains("see whether the store is up"), "{}", server.said());
    let _store = Store::conditional(&machine);
    server.push("nginx:1.22", "other/web:1").expect(0);
    assert!(!server.said().contains(KEYS[1].1), "a secret is in the log");
    drop(server);
    let checked = check(&machine).expect(0);
    assert!(checked.out.contains(" 0 problems"), "{checked:?}");
}

#[test]
fn a_second_server_takes_the_store_over_and_the_first_one_ends() {
    let machine = Machine::new();
    let _store = Store::conditional(&machine);
    let mut first = Server::with(&machine, &AT, &KEYS);
    first.push("busybox", "box:1").expect(0);
    let other = machine.directory().join("other");
    let place = [&["--root", other.to_str().unwrap(), "--listen", "127.0.0.1:5001", "--take-over"][..], &AT].concat();
    let mut command = machine.command(dozen_program());
    command.args(["registry", "serve"]).args(&place).envs(KEYS).stderr(Stdio::null());
    let mut second = command.spawn().unwrap();
    until("the second one listens", || machine.connect(Side::Machine, "127.0.0.1:5001".parse().unwrap()).ok());
    let refused = first.push("busybox", "box:2");
    assert!(refused.code != 0 && refused.err.contains("503"), "{refused:?}");
    until("the first one ends", || first.is_over().then_some(()));
    assert!(first.said().contains("another registry has taken over s3://images/team/registry"), "{}", first.said());
    let tags = curl(&machine, &["http://127.0.0.1:5001/v2/box/tags/list"]).text();
    assert!(tags.contains("[\"1\"]"), "{tags}");
    second.kill().unwrap();
    second.wait().unwrap();
}

/// Signed addresses, which the store checks.
#[test]
fn who_pulls_is_sent_to_the_store_and_gets_it_there() {
    let machine = Machine::new();
    let _store = Store::signed(&machine);
    let server = Server::with(&machine, &[&AT[..], &["--store-redirect", "-D"]].concat(), &KEYS);
    server.push("nginx:1.22", "team/web:1").expect(0);
    let manifest: serde_json::Value = serde_json::from_str(&inspect(&machine, "team/web:1").text()).unwrap();
    let layer = &manifest["layers"][0];
    let path = format!("http://{HOST}/v2/team/web/blobs/{}", layer["digest"].as_str().unwrap());
    let answer = curl(&machine, &[&path]).text();
    let there = answer.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().trim();
    assert!(answer.contains("307 Temporary Redirect") && there.starts_with(ENDPOINT), "{answer}");
    let length = |address: &str| {
        let got = ["--silent", "--output", "/dev/null", "--write-out", "%{http_code} %{size_download}", address];
        machine.run("curl", &got).text()
    };
    assert_eq!(length(there), format!("200 {}", layer["size"]));
    // Of this one object, and for whoever has it alone.
    let (bare, _) = there.split_once('?').unwrap();
    assert!(length(bare).starts_with("403 "));
    let other = manifest["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:");
    let digits = layer["digest"].as_str().unwrap().trim_start_matches("sha256:");
    assert!(length(&there.replace(digits, other)).starts_with("403 "));
    // Those whom nobody has told anything of a store pull, and run what they have pulled.
    server.pull("team/web:1").expect(0);
    let engine = machine.engine();
    engine.dozen(&["run", "--rm", &format!("{HOST}/team/web:1"), "nginx", "-v"]).expect(0);
    assert!(!server.said().contains("X-Amz-Signature"), "an address that is a secret is in the log");
    assert!(!answer.contains(KEYS[1].1));
}

/// Both ways, by the commands, and what is served in the end is what was pushed in the beginning.
#[test]
fn a_registry_moves_to_a_store_and_back() {
    let machine = Machine::new();
    let _store = Store::signed(&machine);
    let server = Server::start(&machine, &[]);
    server.push("nginx:1.22", "team/web:1").expect(0);
    server.push("busybox", "box:1").expect(0);
    let manifests = ["team/web:1", "box:1"].map(|name| inspect(&machine, name).text());
    let directory = root(&machine);
    let migrate = |from: &str, to: &str| {
        registry(&machine, &["migrate", "--from", from, "--to", to, "--store-endpoint", ENDPOINT])
    };
    let from = directory.to_str().unwrap();
    migrate(from, PLACE).refuses(1, &["another registry serves what is in"]);
    drop(server);
    let moved = migrate(from, PLACE).expect(0);
    assert!(moved.out.contains("moved ") && moved.out.contains("0 of them were there already"), "{moved:?}");
    migrate(from, PLACE).refuses(1, &["has a registry in it already"]);
    migrate(from, "/elsewhere").refuses(1, &["between a directory and a store"]);
    check(&machine).expect(0);
    // It is served from there, with the other directory out of the way.
    std::fs::rename(&directory, machine.directory().join("before")).unwrap();
    let server = Server::with(&machine, &AT, &KEYS);
    assert_eq!(["team/web:1", "box:1"].map(|name| inspect(&machine, name).text()), manifests);
    server.push("busybox", "box:2").expect(0);
    server.signal(Signal::TERM);
    assert!(server.ended());
    std::fs::remove_dir_all(&directory).unwrap();
    migrate(PLACE, from).expect(0);
    crate::server::check(&machine).expect(0);
    let server = Server::start(&machine, &[]);
    assert_eq!(["team/web:1", "box:2"].map(|name| inspect(&machine, name).text()), manifests);
    let engine = machine.engine();
    engine.dozen(&["run", "--rm", &format!("{HOST}/team/web:1"), "nginx", "-v"]).expect(0);
    drop(server);
}

#[test]
fn a_store_that_lets_nobody_in_is_said_without_a_secret() {
    let machine = Machine::new();
    let _store = Store::signed(&machine);
    let serve = ["registry", "serve", "--root", "/nowhere", "--store", PLACE, "--store-endpoint", ENDPOINT];
    machine.run(dozen_program(), &serve).refuses(1, &["there are no keys", "AWS_ACCESS_KEY_ID"]);
    let root = root(&machine);
    let serve = |credentials: &str| {
        let file = machine.directory().join("keys");
        std::fs::write(&file, credentials).unwrap();
        let place =
            ["registry", "serve", "--root", root.to_str().unwrap(), "--store-credentials", file.to_str().unwrap()];
        machine.run(dozen_program(), &[&place[..], &AT].concat())
    };
    let refused = serve("[default]\naws_access_key_id = an-id\naws_secret_access_key = the-wrong-one\n");
    assert!(!refused.err.contains("the-wrong-one"), "{refused:?}");
    refused.refuses(1, &["cannot use s3://images/team/registry", "403"]);
    serve("[other]\n").refuses(1, &["has no aws_access_key_id"]);
    let alone = machine.run(dozen_program(), &["registry", "serve", "--store-region", "x"]);
    alone.refuses(1, &["say which with --store"]);
}

/// What brings a server with a journal to each of its places: a push, a deletion, a collection.
#[test]
fn killed_after_any_effect_on_a_store_it_is_whole() {
    let machine = Machine::new();
    let _store = Store::conditional(&machine);
    let names = machine.run(dozen_program(), &["registry", "serve", "--failpoints"]).text();
    // A snapshot takes a thousand changes, a scrub something damaged: `distribution` has tests of both.
    let is_unwanted = |name: &str| ["snapshot", "blob.synced", "scrub"].iter().any(|word| name.contains(word));
    let is_wanted = |name: &&str| !is_unwanted(name);
    for name in names.lines().filter(is_wanted) {
        // Each in a place of its own: what others have left makes the next ones slower.
        let place = format!("s3://images/{name}");
        let at = ["--store", place.as_str(), "--store-endpoint", ENDPOINT];
        let check = || registry(&machine, &[&["check"][..], &at].concat());
        let collecting = [&at[..], &["--grace", "0s", "--collect-every", "20ms"]].concat();
        let arm = || std::fs::write(crate::server::failpoints(&machine).join(name), "").unwrap();
        let collects = name.starts_with("registry.collect.");
        let retains = name.starts_with("registry.retention.");
        let rules = machine.directory().join("retention.toml");
        std::fs::write(&rules, "[[rule]]\nrepositories = [\"passing\"]\nkeep-tags = [\"none\"]\n").unwrap();
        let retaining = [&at[..], &["--collect-every", "20ms", "--retention", rules.to_str().unwrap()]].concat();
        let arguments: &[&str] = match (collects, retains) {
            (true, _) => &collecting,
            (_, true) => &retaining,
            _ => &at,
        };
        let server = Server::with(&machine, arguments, &KEYS);
        if !collects {
            server.push("busybox", "kept:1").expect(0);
        }
        let loose = machine.run_with("sha256sum", &[], b"loose", &[]).text();
        let loose = format!("sha256:{}", loose.split(' ').next().unwrap());
        let post = format!("http://{HOST}/v2/kept/blobs/uploads/?digest={loose}");
        if name == "registry.blob.deleted" {
            curl(&machine, &["--data-binary", "loose", &post]).expect(0);
        }
        arm();
        let mut server = server;
        match name {
            "registry.journal.opened" => {
                drop(server);
                server = Server::until_over(&machine, &at, &KEYS);
            }
            "registry.manifest.deleted" => {
                curl(&machine, &["-X", "DELETE", &format!("http://{HOST}/v2/kept/manifests/1")]);
            }
            "registry.blob.deleted" => {
                curl(&machine, &["-X", "DELETE", &format!("http://{HOST}/v2/kept/blobs/{loose}")]);
            }
            // The next round finds it.
            _ if retains => {
                push_artifact(&machine, "passing", "artifact");
            }
            _ if collects => {
                curl(&machine, &["--data-binary", "loose", &post]);
            }
            _ => {
                assert!(!push_artifact(&machine, "kept", "artifact"), "{name}");
            }
        }
        until(name, || server.is_over().then_some(()));
        assert!(!crate::server::failpoints(&machine).join(name).exists(), "{name}");
        drop(server);
        let checked = check().expect(0);
        assert!(checked.out.contains(" 0 problems"), "{name}: {}", checked.out);
        // The next one goes on, by what is on its disk or by what is in the store alone.
        for is_lost in [false, true] {
            let take_over = [&at[..], &["--take-over"]].concat();
            if is_lost {
                std::fs::remove_dir_all(root(&machine)).unwrap();
            }
            let server = Server::with(&machine, if is_lost { &take_over } else { &at }, &KEYS);
            if name == "registry.manifest.deleted" || collects {
                server.push("busybox", "kept:1").expect(0);
            }
            inspect(&machine, "kept:1").expect(0);
            assert!(push_artifact(&machine, "kept", "artifact"), "{name}");
            drop(server);
            check().expect(0);
        }
        std::fs::remove_dir_all(root(&machine)).unwrap();
    }
}
