//! What builds keep: looked at, limited and emptied, by our own command line and by docker's.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use dozen_testbox::{Daemon, Done, Engine, Machine, dozen_program, image_archive, next_second, until};
use serde_json::Value;

/// A directory with this Dockerfile, beside the engine's.
fn context(machine: &Machine, name: &str, dockerfile: &str) -> PathBuf {
    let at = machine.directory().join(name);
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(at.join("Dockerfile"), dockerfile).unwrap();
    at
}

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

fn build(engine: &Engine<'_>, tag: &str, at: &Path) -> Done {
    engine.dozen(&["build", "--network", "none", "-t", tag, at.to_str().unwrap()])
}

/// Of the engine: what `system df` says of the build cache.
fn kept(machine: &Machine) -> Vec<Value> {
    let usage = usage(machine);
    usage["BuildCache"].as_array().unwrap().clone()
}

fn usage(machine: &Machine) -> Value {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(machine.socket()).unwrap();
    stream.write_all(b"GET /v1.47/system/df HTTP/1.0\r\nHost: box\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn du(machine: &Machine, path: &str) -> u64 {
    let path = machine.directory().join("data").join(path);
    let text = machine.run("du", &["-s", "--block-size=1", path.to_str().unwrap()]).text();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn count(machine: &Machine, directory: &str) -> usize {
    std::fs::read_dir(machine.directory().join("data").join(directory)).map_or(0, Iterator::count)
}

const RANDOM: &str = "dd if=/dev/urandom bs=1M count=";

#[test]
fn the_build_cache_is_counted_shown_and_emptied() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let dockerfile = format!(
        "FROM busybox\nRUN {RANDOM}3 of=/large; mkdir /many; for i in $(seq 300); do echo $i >/many/$i; done\n\
         RUN --mount=type=cache,target=/cache,id=mine {RANDOM}2 of=/cache/part; echo >/noted\nRUN {RANDOM}1 of=/small\n"
    );
    let at = context(&machine, "context", &dockerfile);
    build(&engine, "made", &at).expect(0);
    build(&engine, "made", &at).expect(0);

    // Steps whose layers the image has are the image's, and so counted once.
    let near = |what: &str, told: u64, measured: u64| {
        assert!(told.abs_diff(measured) * 100 <= measured, "{what}: told {told}, du says {measured}");
    };
    let sum = |rows: &[Value], is_shared: bool| -> u64 {
        rows.iter().filter(|row| row["Shared"] == is_shared).map(|row| row["Size"].as_u64().unwrap()).sum()
    };
    let on_disk = || du(&machine, "layers") + du(&machine, "content") + du(&machine, "cache-mounts");
    let told = || {
        let usage = usage(&machine);
        usage["LayersSize"].as_u64().unwrap() + sum(usage["BuildCache"].as_array().unwrap(), false)
    };
    near("all of it", told(), on_disk());
    let rows = kept(&machine);
    let mount = rows.iter().find(|row| row["Type"] == "exec.cachemount").unwrap();
    assert_eq!((&mount["Description"], &mount["InUse"]), (&"cached mount mine".into(), &false.into()));
    near("the mount", mount["Size"].as_u64().unwrap(), du(&machine, "cache-mounts"));
    assert!(sum(&rows, true) > 4 << 20 && sum(&rows, false) < 3 << 20, "{rows:?}");
    let large = rows.iter().find(|row| row["Description"].as_str().unwrap().contains("/large")).unwrap();
    assert_eq!((&large["Type"], &large["UsageCount"]), (&"regular".into(), &1.into()));
    let format = ["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}"];
    let (own, dockers) = (engine.dozen(&format).text(), engine.docker(&format).text());
    assert!(own.starts_with(&dockers), "{own}\n{dockers}");
    assert!(engine.docker(&["system", "df", "-v"]).text().contains("exec.cachemount   2.1"));
    assert!(engine.dozen(&["system", "df", "-v"]).text().contains("exec.cachemount   2.1"));
    let listed = engine.dozen(&["builder", "du"]).text();
    assert!(listed.starts_with("ID ") && listed.contains("Private:"), "{listed}");
    let details = engine.dozen(&["buildx", "du", "--verbose", "--filter", "type=exec.cachemount"]).text();
    assert!(details.contains("Description:") && details.contains("cached mount mine"), "{details}");

    // Who is asked may say no.
    let asked = machine.run_with(dozen_program(), &["builder", "prune"], b"n\n", &[]);
    let question = "WARNING! This will remove all dangling build cache. Are you sure you want to continue? [y/N] ";
    assert_eq!((asked.code, asked.err.as_str(), asked.out.as_str()), (0, question, ""));
    engine.docker(&["builder", "prune", "-f", "--filter", "until=1h"]).expect(0);
    engine.docker(&["builder", "prune", "-f", "--filter", "parent=x"]).refuses(1, &["parent", "not built"]);
    engine.dozen(&["builder", "prune", "-f", "--filter", "type=regular"]).expect(0);
    engine.dozen(&["builder", "prune", "-f", "--reserved-space", "1gb"]).expect(0);
    assert_eq!(kept(&machine).len(), rows.len(), "none of these takes anything");

    // What no image has goes, and the steps of the image's layers are still found.
    let pruned = engine.docker(&["builder", "prune", "-f"]).text();
    let id = mount["ID"].as_str().unwrap();
    assert!(pruned.starts_with(&format!("Deleted build cache objects:\n{id}\n\n")), "{pruned}");
    assert!(pruned.contains("Total reclaimed space: 2.1"), "{pruned}");
    assert_eq!((count(&machine, "cache-mounts"), kept(&machine).len()), (0, rows.len() - 1));
    let again = build(&engine, "made", &at).expect(0).err;
    assert_eq!(count(&machine, "cache-mounts"), 0, "all was found: {again}");

    // Without its image it is the cache's alone; the rest of a disk goes with it.
    engine.dozen(&["rmi", "made"]).expect(0);
    near("all of it, without the image", told(), on_disk());
    assert_eq!(sum(&kept(&machine), true), 0);
    let before = count(&machine, "layers");
    let pruned = engine.dozen(&["system", "prune", "-f"]).text();
    assert!(pruned.contains("Deleted build cache objects:\n") && pruned.contains("reclaimed space: 5."), "{pruned}");
    assert_eq!((kept(&machine).len(), count(&machine, "layers")), (0, before - 3));
    near(
        "what is left",
        usage(&machine)["LayersSize"].as_u64().unwrap(),
        du(&machine, "layers") + du(&machine, "content"),
    );

    let until = next_second();
    let line = ["events", "--since", "1h", "--until", &until, "--filter", "type=builder", "--format"];
    let told = engine.docker(&[&line[..], &["{{.Action}} {{.Actor.Attributes.reclaimed}}"]].concat()).text();
    assert!(told.lines().count() >= 5 && told.lines().all(|line| line.starts_with("prune ")), "{told}");
}

#[test]
fn what_a_build_has_is_not_taken_from_it() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let waiting = "until [ -e /cache/go ]; do sleep 0.1; done; [ -e /large ]";
    let dockerfile = format!(
        "FROM busybox\nRUN {RANDOM}1 of=/large\nRUN --mount=type=cache,target=/cache {waiting}\nRUN [ -e /large ]\n"
    );
    let at = context(&machine, "context", &dockerfile);
    let mut command = machine.command(dozen_program());
    command.args(["build", "--network", "none", "-t", "made", at.to_str().unwrap()]);
    let building = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut building = building.unwrap();
    let in_use = || -> Vec<Value> { kept(&machine).into_iter().filter(|row| row["InUse"] == true).collect() };
    let rows = until("the step runs", || Some(in_use()).filter(|rows| rows.len() == 2));
    let pruned = engine.dozen(&["builder", "prune", "-af"]).text();
    assert_eq!(pruned, "Total reclaimed space: 0B\n");
    assert!(
        engine.docker(&["system", "df"]).text().lines().any(|line| line.starts_with("Build Cache     2         2 "))
    );
    assert_eq!(in_use().len(), 2);
    let mount = rows.iter().find(|row| row["Type"] == "exec.cachemount").unwrap()["ID"].as_str().unwrap();
    std::fs::write(machine.directory().join("data/cache-mounts").join(mount).join("go"), "").unwrap();
    assert!(building.wait().unwrap().success());
    until("the build is over", || in_use().is_empty().then_some(()));
    engine.dozen(&["rmi", "made"]).expect(0);
    engine.dozen(&["builder", "prune", "-af"]).expect(0);
    assert_eq!((kept(&machine).len(), count(&machine, "builds")), (0, 0));
}

#[test]
fn what_is_too_much_goes_by_itself() {
    let machine = Machine::new();
    let file = |limit: &str| format!(r#"{{ "builder": {{ "gc": {{ "defaultMaxUsedSpace": "{limit}" }} }} }}"#);
    let daemon = Daemon::with_file(&machine, &file("7MB"));
    daemon.load("busybox");
    let build = |name: &str| {
        let at = context(&machine, name, &format!("FROM busybox\nRUN {RANDOM}3 of=/{name}\n"));
        let line = ["build", "--network", "none", "-t", name, at.to_str().unwrap()];
        machine.run(dozen_program(), &line).expect(0);
        // What was used last is told by seconds.
        let second = next_second();
        until("the next second", || (next_second() > second).then_some(()));
    };
    // From then on its layer is the cache's alone.
    let untag = |name: &str| drop(machine.run(dozen_program(), &["rmi", name]).expect(0));
    let left = || -> Vec<String> {
        let name = |row: &Value| row["Description"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let mut steps: Vec<_> = kept(&machine).iter().map(name).collect();
        steps.sort();
        steps
    };
    for name in ["one", "two", "three"] {
        build(name);
    }
    ["one", "two", "three"].iter().for_each(|name| untag(name));
    build("four");
    until("what was not used for the longest time has gone", || (left() == ["four", "three", "two"]).then_some(()));
    // A lower limit holds from the next start on. What an image has does not count.
    drop(daemon);
    let daemon = Daemon::with_file(&machine, &file("4MB"));
    daemon.says("what builds have not used for the longest time was removed", 1);
    assert_eq!(left(), ["four", "three"]);
    drop(daemon);
    let off = r#"{ "builder": { "gc": { "enabled": false, "defaultMaxUsedSpace": "1" } } }"#;
    let daemon = Daemon::with_file(&machine, off);
    build("five");
    assert_eq!(left(), ["five", "four", "three"]);
    daemon.reload(&file("1MB"));
    build("six");
    until("the settings hold for the next build", || (left() == ["five", "four", "six"]).then_some(()));
}

/// An engine that dies wherever something is stopped: what is there is whole, and the next one removes the rest.
#[test]
fn a_removal_that_dies_is_none_or_all() {
    let machine = Machine::new();
    let failpoints = machine.directory().join("failpoints");
    let start = || Daemon::with_failpoints(&machine, &failpoints);
    let mut daemon = Some(start());
    machine.run(dozen_program(), &["load", "--input", image_archive("busybox").to_str().unwrap()]).expect(0);
    let dockerfile =
        format!("FROM busybox\nRUN --mount=type=cache,target=/cache {RANDOM}1 of=/cache/part; echo >/made\n");
    let at = context(&machine, "context", &dockerfile);
    let layers = count(&machine, "layers");
    for failpoint in [
        "engine.image.steps.before",
        "engine.image.steps.rows",
        "engine.image.collect.rows",
        "engine.image.collect.files",
        "engine.cache_remove.before",
        "engine.cache_remove.row",
        "engine.cache_remove.after",
    ] {
        let line = ["build", "--network", "none", "-t", "made", at.to_str().unwrap()];
        machine.run(dozen_program(), &line).expect(0);
        machine.run(dozen_program(), &["rmi", "made"]).expect(0);
        std::fs::write(failpoints.join(failpoint), "").unwrap();
        assert_ne!(machine.run(dozen_program(), &["builder", "prune", "-af"]).code, 0, "{failpoint}");
        assert!(!failpoints.join(failpoint).exists(), "{failpoint}");
        drop(daemon.replace(start()));
        // Rows and directories agree.
        let rows = kept(&machine);
        let of = |kind: &str| rows.iter().filter(|row| row["Type"] == kind).count();
        let found = (count(&machine, "cache-mounts"), count(&machine, "layers"));
        assert_eq!(found, (of("exec.cachemount"), layers + of("regular")), "{failpoint}");
        machine.run(dozen_program(), &["builder", "prune", "-af"]).expect(0);
        assert_eq!((kept(&machine).len(), count(&machine, "layers")), (0, layers), "{failpoint}");
    }
    // What no row knows, and a row whose directory has gone.
    machine.run(dozen_program(), &["build", "--network", "none", at.to_str().unwrap()]).expect(0);
    let mounts = machine.directory().join("data/cache-mounts");
    let known = std::fs::read_dir(&mounts).unwrap().next().unwrap().unwrap().path();
    daemon.take();
    std::fs::remove_dir_all(known).unwrap();
    std::fs::create_dir_all(mounts.join("nobodys/deep")).unwrap();
    std::fs::create_dir_all(mounts.join(".half")).unwrap();
    let _daemon = start();
    assert_eq!(count(&machine, "cache-mounts"), 0);
    assert!(kept(&machine).iter().all(|row| row["Type"] == "regular"));
}

/// A cache mount goes to another machine as an archive, and is there whole or not at all.
#[test]
fn cache_mounts_are_listed_exported_imported_and_removed() {
    let machine = Machine::new();
    let failpoints = machine.directory().join("failpoints");
    let start = || Daemon::with_failpoints(&machine, &failpoints);
    let mut daemon = Some(start());
    let cache = |arguments: &[&str]| machine.run(dozen_program(), &[&["builder", "cache"], arguments].concat());
    machine.run(dozen_program(), &["load", "--input", image_archive("busybox").to_str().unwrap()]).expect(0);
    let mount = "--mount=type=cache,target=/root/.cache,uid=7,mode=0700";
    let make = format!("FROM busybox\nRUN {mount} mkdir /root/.cache/d; echo hello >/root/.cache/d/file\n");
    let made = context(&machine, "make", &make);
    let look = format!("FROM busybox\nRUN {mount} stat -c '%u %a' /root/.cache && cat /root/.cache/d/file\n");
    let looking = context(&machine, "look", &look);
    let build = |at: &Path| {
        let line = ["build", "--network", "none", "--no-cache", "--progress", "plain", at.to_str().unwrap()];
        machine.run(dozen_program(), &line).expect(0)
    };
    build(&made);
    let name = "/root/.cache";
    let row = cache(&["ls", "--format", "{{.Name}} {{.InUse}} {{.Size}}"]).text();
    assert!(row.starts_with("/root/.cache false ") && row.lines().count() == 1, "{row}");
    let archive = machine.directory().join("cache.tar");
    let file = archive.to_str().unwrap();
    cache(&["export", "-o", file, name]).expect(0);
    let listed = machine.run("tar", &["-tvf", file]).text();
    assert!(listed.contains("d/file") && listed.contains("drwx------ 7/0"), "{listed}");

    cache(&["import", name, file]).refuses(1, &["the cache mount is not empty", "dozen builder cache rm /root/.cache"]);
    cache(&["rm", name]).expect(0);
    assert_eq!((cache(&["ls", "-q"]).text().as_str(), count(&machine, "cache-mounts")), ("", 0));
    cache(&["rm", name]).refuses(1, &["no such cache mount: /root/.cache"]);
    cache(&["export", "-o", file, "other"]).refuses(1, &["no such cache mount: other"]);
    // What is no archive leaves nothing.
    std::fs::write(machine.directory().join("broken.tar"), "x".repeat(2000)).unwrap();
    assert_ne!(cache(&["import", name, machine.directory().join("broken.tar").to_str().unwrap()]).code, 0);
    assert_eq!((cache(&["ls", "-q"]).text().as_str(), count(&machine, "cache-mounts")), ("", 0));

    for failpoint in ["engine.cache_import.filled", "engine.cache_import.row", "engine.cache_import.after"] {
        std::fs::write(failpoints.join(failpoint), "").unwrap();
        assert_ne!(cache(&["import", name, file]).code, 0, "{failpoint}");
        assert!(!failpoints.join(failpoint).exists(), "{failpoint}");
        drop(daemon.replace(start()));
        let is_there = failpoint != "engine.cache_import.filled";
        let listed = cache(&["ls", "-q"]).text();
        assert_eq!((listed == format!("{name}\n"), count(&machine, "cache-mounts")), (is_there, usize::from(is_there)));
        if !is_there {
            cache(&["import", name, file]).expect(0);
        }
        let seen = build(&looking).err;
        assert!(seen.contains("7 700") && seen.contains("hello"), "{failpoint}: {seen}");
        cache(&["rm", name]).expect(0);
    }

    // Not while a build has it.
    let wait = "--mount=type=cache,target=/x,id=busy until [ -e /x/go ]; do sleep 0.1; done";
    let waiting = context(&machine, "wait", &format!("FROM busybox\nRUN {wait}\n"));
    let mut command = machine.command(dozen_program());
    command.args(["build", "--network", "none", waiting.to_str().unwrap()]);
    let mut building = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let listed = || cache(&["ls", "--format", "{{.ID}} {{.InUse}}"]).text();
    let id = until("the step runs", || Some(listed().strip_suffix(" true\n")?.to_owned()));
    cache(&["rm", &id]).refuses(1, &["a build has the cache mount", "wait until the build is over"]);
    cache(&["export", "-o", file, "busy"]).refuses(1, &["a build has the cache mount"]);
    std::fs::write(machine.directory().join("data/cache-mounts").join(&id).join("go"), "").unwrap();
    assert!(building.wait().unwrap().success());
    until("the build is over", || listed().ends_with(" false\n").then_some(()));
    cache(&["rm", &id]).expect(0);
    daemon.take();
}
