//! `system gc`, and what goes by itself when the disk fills up.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Daemon, Engine, Machine, next_second, until};

/// A directory of which an image is built with a cache mount, a step that others have, too, and one of its own.
fn site(machine: &Machine, name: &str) -> String {
    let site = machine.directory().join(name);
    std::fs::create_dir(&site).unwrap();
    let dockerfile = format!(
        "FROM busybox\nRUN --mount=type=cache,target=/cache dd if=/dev/urandom of=/cache/file bs=1M count=2\n\
         RUN dd if=/dev/urandom of=/{name} bs=1M count=3\n"
    );
    std::fs::write(site.join("Dockerfile"), dockerfile).unwrap();
    site.display().to_string()
}

/// What becomes of each thing: `TYPE NAME FATE WHY`.
fn collect(engine: &Engine<'_>, arguments: &[&str]) -> Vec<String> {
    let line = [&["system", "gc", "-f", "--format", "{{.Type}} {{.Name}} {{.Fate}} {{.Why}}"], arguments].concat();
    engine.dozen(&line).text().lines().map(str::to_owned).collect()
}

fn images(engine: &Engine<'_>) -> Vec<String> {
    let mut names: Vec<String> =
        engine.dozen(&["images", "--format", "{{.Repository}}"]).text().lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn what_goes_and_what_stays_is_said_and_why() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    for name in ["gone", "kept"] {
        engine.dozen(&["build", "-q", "--network", "none", "-t", name, &site(&machine, name)]).expect(0);
    }
    engine.dozen(&["rmi", "gone"]).expect(0);
    let labels = ["--label", "com.docker.compose.project=shop"];
    engine.dozen(&[&["create", "--name", "db", "-v", "data:/data"], &labels[..], &["busybox"]].concat()).expect(0);
    engine.dozen(&["volume", "create", "alone"]).expect(0);
    engine.dozen(&["run", "--name", "one", "busybox", "touch", "/made"]).expect(0);
    engine.dozen(&["commit", "one"]).expect(0);
    engine.dozen(&["rm", "one"]).expect(0);

    // There is room enough, and nothing has to go.
    assert_eq!(collect(&engine, &[]), [""; 0]);
    let said = engine.dozen(&["system", "gc", "--dry-run"]).text();
    assert!(said.starts_with("Total reclaimable space: 0B (") && said.contains(" of the disk were free, "), "{said}");
    // To explain is to remove nothing: what would go is removed below.
    let all = collect(&engine, &["--explain", "--free-space", "100%"]);
    let has = |words: &str| assert!(all.iter().any(|line| line.starts_with(words)), "{words}: {all:#?}");
    has("build-cache cached mount /cache goes room is missing");
    has("image busybox:latest stays container db of the Compose project shop stands on it");
    has("image kept:latest stays no image goes by itself (images is \"none\")");
    has("container db stays no container goes by itself: it does not run; it is of the Compose project shop");
    has("volume data stays no volume goes by itself: container db of the Compose project shop has it");
    has("volume alone stays no volume goes by itself: no container has it");
    let steps = all.iter().filter(|line| line.starts_with("build-cache RUN dd ")).collect::<Vec<_>>();
    let goes = |line: &&&String| line.contains(" goes ");
    assert_eq!(
        (steps.len(), steps.iter().filter(goes).count()),
        (2, 1),
        "of the one an image has the layer: {steps:?}"
    );
    engine.dozen(&["system", "gc", "-f", "--images", "all"]).refuses(1, &["invalid images \"all\""]);
    engine.dozen(&["system", "gc", "--free-space", "much"]).refuses(1, &["invalid free-space \"much\""]);
    engine
        .dozen(&["system", "gc", "--unused-for", "1h"])
        .refuses(1, &["unused-for does not act while no image may go"]);

    // What can be made again goes; it is told as Docker tells of a prune.
    let before = machine.run("du", &["-s", machine.directory().join("data").to_str().unwrap()]).text();
    let gone = collect(&engine, &["--free-space", "100%"]);
    assert!(gone.iter().all(|line| line.starts_with("build-cache ") && line.contains(" removed ")), "{gone:?}");
    let kilobytes = |text: &str| text.split_whitespace().next().unwrap().parse::<u64>().unwrap();
    let after = machine.run("du", &["-s", machine.directory().join("data").to_str().unwrap()]).text();
    assert!(kilobytes(&before) > kilobytes(&after) + 4 * 1024, "{before}, {after}");
    assert_eq!(images(&engine), ["<none>", "busybox", "kept"]);
    engine.dozen(&["run", "--rm", "kept", "ls", "/kept"]).expect(0);

    // Images go if one says so: those without a tag first, and none that somebody has wanted of late.
    let young = collect(&engine, &["--explain", "--free-space", "100%", "--images", "unused"]);
    let is_young = |line: &String| line.starts_with("image kept:latest stays somebody has wanted it within 24h");
    assert!(young.iter().any(is_young), "{young:#?}");
    let unused = ["--free-space", "100%", "--unused-for", "0s", "--images"];
    collect(&engine, &[&unused[..], &["dangling"]].concat());
    assert_eq!(images(&engine), ["busybox", "kept"]);
    let gone = collect(&engine, &[&unused[..], &["unused"]].concat());
    assert_eq!(images(&engine), ["busybox"], "{gone:?}");
    engine.dozen(&["start", "db"]).expect(0);
    assert_eq!(engine.dozen(&["volume", "ls", "-q"]).text(), "alone\ndata\n");
}

#[test]
fn who_is_asked_says_no() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let asked = engine.dozen(&["system", "gc", "--images", "unused", "--unused-for", "0s", "--free-space", "100%"]);
    assert!(asked.expect(0).err.contains("WARNING! This will remove images without at least one container"));
    assert_eq!(images(&engine), ["busybox"]);
}

#[test]
fn a_full_disk_makes_room_by_itself() {
    let machine = Machine::new();
    let data = machine.directory().join("data");
    let disk = machine.directory().join("disk").display().to_string();
    std::fs::File::create(&disk).unwrap().set_len(200 << 20).unwrap();
    machine.run("mkfs.ext4", &["-q", &disk]).expect(0);
    machine.run("mount", &["-o", "loop", &disk, data.to_str().unwrap()]).expect(0);
    let daemon = Daemon::with_file(&machine, "{}");
    daemon.load("busybox");
    daemon.dozen(&["create", "--name", "one", "busybox", "true"]).expect(0);
    for name in ["old", "new"] {
        let path = machine.directory().join(name);
        std::fs::create_dir(&path).unwrap();
        let dockerfile = format!("FROM busybox\nRUN dd if=/dev/urandom of=/{name} bs=1M count=30\n");
        std::fs::write(path.join("Dockerfile"), dockerfile).unwrap();
        daemon.dozen(&["build", "-q", "--network", "none", "-t", name, path.to_str().unwrap()]).expect(0);
        // The next is of another second.
        let then = next_second();
        until("another second", || (next_second() != then).then_some(()));
    }
    let names = || {
        let mut names: Vec<String> =
            daemon.dozen(&["images", "--format", "{{.Repository}}"]).text().lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    let free = || {
        let text = machine.run("df", &["-B1", "--output=avail", data.to_str().unwrap()]).text();
        text.split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    // Of what is there some five megabytes are missing, and none of the images may go.
    let settings = |images: &str, free: u64| {
        let (least, target) = (free + (5 << 20), free + (20 << 20));
        let said = format!(r#""minFreeSpace": {least}, "targetFreeSpace": {target}, "images": "{images}""#);
        match images {
            "none" => format!(r#"{{ "collection": {{ {said} }} }}"#),
            _ => format!(r#"{{ "collection": {{ {said}, "imagesUnusedFor": "0s" }} }}"#),
        }
    };
    let now = free();
    daemon.reload(&settings("none", now));
    assert_eq!(names(), ["busybox", "new", "old"]);
    daemon.reload(&settings("unused", now));
    until("the older image goes", || (names() == ["busybox", "new"]).then_some(()));
    until("so does what builds have kept of it", || (free() > now + (25 << 20)).then_some(()));
    // That was enough.
    daemon.dozen(&["run", "--rm", "new", "ls", "/new"]).expect(0);
    // Somebody else fills the disk. The next thing that comes is looked at.
    machine.run("dd", &["if=/dev/zero", &format!("of={}/other", data.display()), "bs=1M", "count=30"]).expect(0);
    assert_eq!(names(), ["busybox", "new"]);
    daemon.dozen(&["tag", "busybox", "another"]).expect(0);
    until("the other one goes, too", || (names() == ["another", "busybox"]).then_some(()));
    // A container stands on this one.
    daemon.dozen(&["start", "one"]).expect(0);
    let said = daemon.said();
    let collected = said.lines().filter(|line| line.contains(" collected ")).count();
    assert!(collected >= 4 && said.contains("old:latest") && said.contains("new:latest"), "{said}");
}
