//! The server is killed: after each of its effects, and in the middle of an upload. What it had said is so afterwards, and
//! what it had not finished is undone, or goes on.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

use dozen_testbox::{Machine, Side, dozen_program, until};
use rustix::process::Signal;

use crate::server::{HOST, Server, check, curl, failpoints, push, root};

fn sha256(machine: &Machine, content: &str) -> String {
    let digest = machine.run_with("sha256sum", &[], content.as_bytes(), &[]).text();
    format!("sha256:{}", digest.split(' ').next().unwrap())
}

fn uploads(machine: &Machine) -> usize {
    std::fs::read_dir(root(machine).join("uploads")).unwrap().count()
}

/// The files of all blobs.
fn blobs(machine: &Machine) -> usize {
    let blobs = root(machine).join("blobs");
    machine.run("find", &[blobs.to_str().unwrap(), "-type", "f"]).text().lines().count()
}

/// A small artifact, by an upload in two requests and a manifest: whether all of it was taken.
pub fn push_artifact(machine: &Machine, name: &str, content: &str) -> bool {
    let took = |arguments: &[&str], status: &str| {
        let done = curl(machine, arguments);
        (done.code == 0 && done.out.contains(status)).then_some(done.out)
    };
    let Some(begun) = took(&["-X", "POST", &format!("http://{HOST}/v2/{name}/blobs/uploads/")], "202 Accepted") else {
        return false;
    };
    let location = begun.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().trim();
    let digest = sha256(machine, content);
    let to = format!("http://{HOST}{location}?digest={digest}");
    let size = content.len();
    let manifest = format!(
        "{{\"schemaVersion\":2,\"layers\":[],\
         \"config\":{{\"mediaType\":\"text/plain\",\"digest\":\"{digest}\",\"size\":{size}}}}}"
    );
    let json = "Content-Type: application/vnd.oci.image.manifest.v1+json";
    let tag = format!("http://{HOST}/v2/{name}/manifests/new");
    took(&["-X", "PUT", "--data-binary", content, &to], "201 Created").is_some()
        && took(&["-X", "PUT", "-H", json, "--data-binary", &manifest, &tag], "201 Created").is_some()
}

/// What brings a server to each of its failpoints: a push, a deletion, a collection.
#[test]
fn killed_after_any_effect_it_is_whole() {
    let machine = Machine::new();
    let names = machine.run(dozen_program(), &["registry", "serve", "--failpoints"]).text();
    let (kept, loose) = ("kept", sha256(&machine, "loose"));
    // Collected at once: nothing is named but by manifests.
    let collecting = ["--grace", "0s", "--collect-every", "20ms"];
    let rules = machine.directory().join("retention.toml");
    std::fs::write(&rules, "[[rule]]\nrepositories = [\"passing\"]\nkeep-tags = [\"none\"]\n").unwrap();
    let retaining = ["--collect-every", "20ms", "--retention", rules.to_str().unwrap()];
    // Those of a journal are a bucket's; for those of a scrub something has to be damaged (`scrub.rs`).
    let is_elsewhere = |name: &str| name.starts_with("registry.journal.") || name.starts_with("registry.scrub.");
    for name in names.lines().filter(|name| !is_elsewhere(name)) {
        let collects = name.starts_with("registry.collect.");
        let retains = name.starts_with("registry.retention.");
        let arguments: &[&str] = match (collects, retains) {
            (true, _) => &collecting,
            (_, true) => &retaining,
            _ => &[],
        };
        let mut server = Server::start(&machine, arguments);
        if !collects {
            server.push("busybox", &format!("{kept}:1")).expect(0);
        }
        let loose_path = format!("http://{HOST}/v2/{kept}/blobs/{loose}");
        let post = format!("http://{HOST}/v2/{kept}/blobs/uploads/?digest={loose}");
        if name == "registry.blob.deleted" {
            curl(&machine, &["--data-binary", "loose", &post]).expect(0);
        }
        std::fs::write(failpoints(&machine).join(name), "").unwrap();
        match name {
            "registry.manifest.deleted" => {
                curl(&machine, &["-X", "DELETE", &format!("http://{HOST}/v2/{kept}/manifests/1")]);
            }
            "registry.blob.deleted" => {
                curl(&machine, &["-X", "DELETE", &loose_path]);
            }
            // The next round finds it.
            _ if retains => {
                push_artifact(&machine, "passing", "artifact");
            }
            // Each collection comes to the first; the second wants something to collect.
            _ if collects => {
                curl(&machine, &["--data-binary", "loose", &post]);
            }
            _ => {
                assert!(!push_artifact(&machine, kept, "artifact"), "{name}");
            }
        }
        until(name, || server.is_over().then_some(()));
        assert!(!failpoints(&machine).join(name).exists(), "{name}");
        drop(server);
        let checked = check(&machine).expect(0);
        assert!(checked.out.contains(" 0 problems"), "{name}: {}", checked.out);
        // The next one goes on: nothing half done is left, and everything can be done.
        let server = Server::start(&machine, &[]);
        let open = uploads(&machine);
        assert!(open <= 1, "{name}: {open} uploads");
        let kept_image = format!("docker://{HOST}/{kept}:1");
        if name == "registry.manifest.deleted" || collects {
            server.push("busybox", &format!("{kept}:1")).expect(0);
        }
        machine.run("skopeo", &["inspect", "--tls-verify=false", &kept_image]).expect(0);
        assert!(push_artifact(&machine, kept, "artifact"), "{name}");
        drop(server);
        check(&machine).expect(0);
        let root = root(&machine);
        std::fs::remove_dir_all(root).unwrap();
    }
}

#[test]
fn an_upload_that_was_cut_by_a_kill_goes_on() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    let began = curl(&machine, &["-X", "POST", &format!("http://{HOST}/v2/a/blobs/uploads/")]).text();
    let location = began.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().trim();
    // More than is written at once, and not all of it.
    let content = "0123456789abcdef".repeat(100_000);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
    let mut stream = machine.connect(Side::Machine, address).unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", content.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&content.as_bytes()[..1_000_000]).unwrap();
    let url = format!("http://{HOST}{location}");
    let offset = || {
        let status = curl(&machine, &[&url]).text();
        let range = status.lines().find_map(|line| line.strip_prefix("range: 0-")).unwrap().trim().to_owned();
        range.parse::<usize>().unwrap() + 1
    };
    until("some of it is written", || (offset() > 1).then_some(()));
    server.signal(Signal::KILL);
    assert!(!server.ended());
    drop(stream);
    let _server = Server::start(&machine, &[]);
    let offset = offset();
    assert!((2..=1_000_000).contains(&offset), "{offset}");
    let digest = sha256(&machine, &content);
    let (rest, range) = (machine.directory().join("rest"), format!("Content-Range: {offset}-{}", content.len() - 1));
    std::fs::write(&rest, &content[offset..]).unwrap();
    let data = format!("@{}", rest.display());
    let done = curl(&machine, &["-X", "PUT", "-H", &range, "--data-binary", &data, &format!("{url}?digest={digest}")]);
    assert!(done.text().contains("201 Created"));
    let pulled = machine.run("curl", &["--silent", "--fail", &format!("http://{HOST}/v2/a/blobs/{digest}")]).text();
    assert!(pulled == content);
    assert_eq!(uploads(&machine), 0);
}

/// While images are pushed and deleted, everything that nothing names is collected at once: what is pushed is there.
#[test]
fn who_pushes_while_all_is_collected_has_what_was_pushed() {
    let machine = Machine::new();
    let server = Server::start(&machine, &["--grace", "2s", "--collect-every", "10ms"]);
    for round in 0..5 {
        server.push("busybox", "box:1").expect(0);
        server.push("nginx:1.22", "web:1").expect(0);
        let to = format!("dir:{}", machine.directory().join(format!("pulled-{round}")).display());
        let from = format!("docker://{HOST}/web:1");
        let pull = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &from, &to];
        machine.run("skopeo", &pull).expect(0);
        machine.run("skopeo", &["delete", "--tls-verify=false", &from]).expect(0);
    }
    let left = || blobs(&machine);
    // Those of the box, which has its tag.
    until("what was deleted is collected", || (left() == 2).then_some(()));
    server.signal(Signal::TERM);
    assert!(server.ended());
    check(&machine).expect(0);
    // Whoever comes later finds it.
    let _server = Server::start(&machine, &[]);
    push(&machine, "busybox", "box:1").expect(0);
}

#[test]
fn a_full_disk_refuses_what_comes_and_lets_go_what_goes() {
    let machine = Machine::new();
    let place = root(&machine);
    std::fs::create_dir_all(&place).unwrap();
    machine.run("mount", &["-t", "tmpfs", "-o", "size=24m", "tmpfs", place.to_str().unwrap()]).expect(0);
    let server = Server::start(&machine, &[]);
    assert!(push_artifact(&machine, "kept", "artifact"));
    let blob = machine.directory().join("blob");
    std::fs::File::create(&blob).unwrap().set_len(64 << 20).unwrap();
    let upload = |to: &str| {
        let data = format!("@{}", blob.display());
        curl(&machine, &["-X", "PATCH", "-H", "Expect:", "--data-binary", &data, &format!("http://{HOST}{to}")])
    };
    let begun = curl(&machine, &["-X", "POST", &format!("http://{HOST}/v2/large/blobs/uploads/")]).text();
    let location = begun.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().trim();
    let refused = upload(location);
    assert!(refused.out.contains("507 ") && refused.out.contains("disk is full"), "{refused:?}");
    // Until nothing at all can be written.
    let ballast = format!("of={}", place.join("ballast").display());
    machine.run("dd", &["if=/dev/zero", &ballast, "bs=4096"]).expect(1);
    assert!(!push_artifact(&machine, "small", "small"));
    let gone = curl(&machine, &["-X", "DELETE", &format!("http://{HOST}/v2/kept/manifests/new")]).text();
    assert!(gone.contains("202 Accepted"), "{gone}");
    curl(&machine, &["-X", "DELETE", &format!("http://{HOST}{location}")]).expect(0);
    until("there is room again", || push_artifact(&machine, "kept", "another").then_some(()));
    drop(server);
    check(&machine).expect(0);
    machine.run("umount", &[place.to_str().unwrap()]).expect(0);
}
