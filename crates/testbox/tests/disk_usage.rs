//! `system df` and du(1) agree.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write;
use std::os::unix::net::UnixStream;

use dozen_testbox::{Counted, Machine, image_archive, until};
use serde_json::Value;

fn du(machine: &Machine, path: &str) -> u64 {
    let path = machine.directory().join("data").join(path);
    let text = machine.run("du", &["-s", "--block-size=1", path.to_str().unwrap()]).text();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// The sizes in a list of the answer's.
fn sizes(list: &Value) -> u64 {
    list.as_array().into_iter().flatten().filter_map(|row| row["Size"].as_u64()).sum()
}

/// Makes an image of files of its own, a step whose layer no image has, and a cache mount.
const DOCKERFILE: &str = r#"
FROM busybox
RUN --mount=type=cache,target=/cache dd if=/dev/urandom of=/cache/file bs=1M count=4
RUN dd if=/dev/urandom of=/big bs=1M count=6
RUN rm /big; for i in $(seq 200); do echo $i >/$i; done
"#;

#[test]
fn all_that_is_counted_is_what_du_says_of_the_data_root() {
    let machine = Machine::new();
    // Where snapshots can be made.
    let disk = machine.directory().join("disk").display().to_string();
    std::fs::File::create(&disk).unwrap().set_len(1 << 30).unwrap();
    machine.run("mkfs.xfs", &["-q", &disk]).expect(0);
    machine.run("mount", &["-o", "loop", &disk, machine.directory().join("data").to_str().unwrap()]).expect(0);
    let mut engine = machine.engine();
    engine.load("busybox");
    let site = machine.directory().join("site");
    std::fs::create_dir(&site).unwrap();
    std::fs::write(site.join("Dockerfile"), DOCKERFILE).unwrap();
    let site = site.to_str().unwrap();
    engine.dozen(&["build", "-q", "--network", "none", "-t", "kept", site]).expect(0);
    engine.dozen(&["build", "-q", "--network", "none", "--no-cache", "-t", "gone", site]).expect(0);
    engine.dozen(&["rmi", "gone"]).expect(0);
    let script = "dd if=/dev/urandom of=/data/x bs=1M count=3; dd if=/dev/urandom of=/mine bs=1M count=3; \
                  dd if=/dev/urandom bs=1M count=2 | od";
    engine.dozen(&["run", "--name", "one", "-v", "data:/data", "busybox", "sh", "-c", script]).expect(0);
    engine.dozen(&["run", "-d", "--name", "two", "busybox", "sleep", "1000"]).expect(0);
    engine.dozen(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"]).expect(0);
    engine.dozen(&["volume", "snapshot", "create", "data", "before"]).expect(0);
    let fresh = "dd if=/dev/urandom of=/data/x bs=1M count=2 conv=notrunc";
    engine.dozen(&["run", "--rm", "-v", "data:/data", "-v", "memory:/m", "busybox", "sh", "-c", fresh]).expect(0);
    // An archive of which a half has come.
    let archive = std::fs::read(image_archive("debian:bookworm-slim")).unwrap();
    let mut load = UnixStream::connect(machine.socket()).unwrap();
    let head = format!("POST /v1.47/images/load HTTP/1.1\r\nHost: box\r\nContent-Length: {}\r\n\r\n", archive.len());
    load.write_all(head.as_bytes()).unwrap();
    load.write_all(&archive[..archive.len() / 2]).unwrap();
    let half = u64::try_from(archive.len() / 2).unwrap();
    until("some of it is there", || {
        (sizes(&Counted::of(&machine).usage["Engine"]["Unfinished"]) > half / 4).then_some(())
    });
    let agree = |what: &str| {
        let counted = Counted::of(&machine);
        assert!(counted.agree(), "{what}: {counted:#?}");
        counted
    };
    let told = agree("while an image arrives");
    assert_eq!(told.paths("Unowned"), [""; 0]);
    let snapshots = told.usage["Volumes"].as_array().unwrap().iter().find(|volume| volume["Name"] == "data").unwrap();
    assert_eq!(snapshots["UsageData"]["Snapshots"]["Count"], 1);
    let logs = told.usage["Engine"]["Logs"].as_array().unwrap();
    assert!(logs.iter().any(|log| log["Size"].as_u64().unwrap() > 4 << 20), "{logs:?}");
    // What nobody has a row of is said, and goes at the next start, if it lies where the engine keeps things.
    let data = machine.directory().join("data").display().to_string();
    // What is about to go has no row any more, and nobody is told to delete the file system's own, or the log.
    let erased = format!("containers/{}", "0123456789abcdef".repeat(4));
    let script = "cd $0; mkdir lost+found; cp /bin/sh lost+found; cp /bin/sh engine.log; cp -r lost+found $1; \
                  for place in layers/stray content/sha256/stray containers/stray mine; do \
                  dd if=/dev/zero of=$place bs=1M count=2 2>/dev/null; done";
    machine.run("sh", &["-ec", script, &data, &erased]).expect(0);
    let told = agree("with strays");
    assert!(told.paths("Unfinished").contains(&erased), "{told:#?}");
    assert_eq!(told.paths("Unowned"), ["containers/stray", "content/sha256/stray", "layers/stray", "mine"]);
    let shown = engine.dozen(&["system", "df"]).text();
    let last: Vec<&str> = shown.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(last, ["Unowned", "4", "0", "8.389MB", "8.389MB", "(100%)"], "{shown}");
    let details = engine.dozen(&["system", "df", "-v"]).text();
    assert!(details.contains("container log   one ") && details.contains("unowned         mine "), "{details}");
    drop(load);
    engine.kill();
    engine.restart();
    let told = agree("after a crash");
    assert_eq!((told.paths("Unowned"), told.paths("Unfinished")), (vec!["mine".to_owned()], Vec::new()));
    engine.dozen(&["rm", "-f", "one", "two"]).expect(0);
}

#[test]
fn sizes_are_within_a_hundredth_of_what_du_says() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let debian = image_archive("debian:bookworm-slim");
    engine.dozen(&["load", "--input", debian.to_str().unwrap()]).expect(0);
    // Some of it sparse, some of it small, some with two names.
    let script = "dd if=/dev/urandom of=/file bs=1M count=5 2>/dev/null; ln /file /again; dd if=/dev/zero of=/sparse \
                  bs=1 count=1 seek=200000000 2>/dev/null; cp -r /etc /data/; dd if=/dev/urandom of=/data/x bs=1M count=3 \
                  2>/dev/null; mkdir /many; for i in $(seq 300); do echo $i >/many/$i; done";
    engine.dozen(&["run", "--name", "one", "-v", "data:/data", "busybox", "sh", "-c", script]).expect(0);
    engine.dozen(&["commit", "one", "two:1"]).expect(0);
    engine.dozen(&["volume", "create", "unused"]).expect(0);
    let json = engine.docker(&["system", "df", "--format", "{{json .}}"]).text();
    assert_eq!(json.lines().count(), 4, "{json}");
    let own = engine.dozen(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}}"]).text();
    let docker = engine.docker(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}}"]).text();
    // Docker's four lines, and ours behind them.
    let beside = own.strip_prefix(&docker).unwrap_or_else(|| panic!("{own}\n{docker}"));
    let kinds: Vec<&str> = beside.lines().map(|line| line.split_once(" 1 ").map_or(line, |(kind, _)| kind)).collect();
    assert_eq!(kinds, ["Container Logs", "Unfinished 0 0 0B", "Engine Records"], "{beside}");
    assert!(
        own.contains("Images 3 1 ") && own.contains("Containers 1 0 ") && own.contains("Local Volumes 2 1 "),
        "{own}"
    );
    let usage = Counted::of(&machine).usage;
    let near = |what: &str, told: u64, measured: u64| {
        assert!(told.abs_diff(measured) * 100 <= measured, "{what}: told {told}, du says {measured}");
    };
    near("images", usage["LayersSize"].as_u64().unwrap(), du(&machine, "layers") + du(&machine, "content"));
    let id = engine.dozen(&["inspect", "--format", "{{.Id}}", "one"]).text();
    let upper = format!("containers/{}/upper", id.trim());
    near("container", usage["Containers"][0]["SizeRw"].as_u64().unwrap(), du(&machine, &upper));
    let volumes = usage["Volumes"].as_array().unwrap();
    let of = |name: &str| volumes.iter().find(|volume| volume["Name"] == name).unwrap()["UsageData"].clone();
    near("volume", of("data")["Size"].as_u64().unwrap(), du(&machine, "volumes/data/_data"));
    assert_eq!(of("data")["RefCount"], 1);
    assert_eq!(of("unused"), serde_json::json!({"Size": 0, "RefCount": 0}));
    // What one image shares with another is counted once.
    let images = usage["Images"].as_array().unwrap();
    let unique: u64 =
        images.iter().map(|image| image["Size"].as_u64().unwrap() - image["SharedSize"].as_u64().unwrap()).sum();
    let shared = images.iter().map(|image| image["SharedSize"].as_u64().unwrap()).max().unwrap();
    assert!(shared > 0);
    near("images' parts", unique + shared, usage["LayersSize"].as_u64().unwrap());
    engine.docker(&["system", "df", "-v"]).expect(0);
    let details = engine.dozen(&["system", "df", "-v"]).text();
    assert!(details.contains("Local Volumes space usage:") && details.contains("two"), "{details}");
}
