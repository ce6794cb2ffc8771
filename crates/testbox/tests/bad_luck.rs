//! Disks that fail: full, or read-only.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

use dozen_testbox::{Engine, Machine, image_archive, until};

/// Mounts a small file system where the engine keeps its data.
fn small_disk(machine: &Machine, megabytes: u32) {
    let data = machine.directory().join("data");
    let options = format!("size={megabytes}m,mode=711");
    machine.run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", data.to_str().unwrap()]).expect(0);
}

/// What lies on that disk, seen from the machine, without the ledger's own files.
fn stored(machine: &Machine) -> BTreeSet<String> {
    let data = machine.directory().join("data");
    let found = machine.run("find", &[data.to_str().unwrap(), "-not", "-name", "state.db*"]).text();
    found.lines().map(str::to_owned).collect()
}

fn rest(machine: &Machine) -> BTreeSet<String> {
    let mut last = machine.snapshot();
    let mut same = 0;
    until("the machine comes to rest", || {
        let now = machine.snapshot();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same > 5).then_some(())
    });
    last
}

fn fill(machine: &Machine) {
    let file = machine.directory().join("data/ballast");
    machine.run("sh", &["-c", &format!("cat /dev/zero >{}", file.display())]).expect(1);
}

fn make_room(machine: &Machine) {
    machine.run("rm", &[machine.directory().join("data/ballast").to_str().unwrap()]).expect(0);
}

fn images(engine: &Engine<'_>) -> usize {
    engine.dozen(&["images", "-q"]).text().lines().count()
}

#[test]
fn no_space_for_an_image() {
    let machine = Machine::new();
    small_disk(&machine, 6);
    let engine = machine.engine();
    let before = (rest(&machine), stored(&machine));
    let archive = image_archive("debian:bookworm-slim");
    engine.dozen(&["load", "-i", archive.to_str().unwrap()]).refuses(1, &["o space left on device"]);
    assert_eq!(images(&engine), 0);
    assert_eq!((rest(&machine), stored(&machine)), before);
    // There is room for a smaller one.
    engine.load("busybox");
    engine.dozen(&["run", "--rm", "--network", "none", "busybox", "true"]).expect(0);
}

#[test]
fn no_space_for_a_container() {
    let machine = Machine::new();
    small_disk(&machine, 16);
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["run", "--rm", "busybox", "true"]).expect(0);
    let before = rest(&machine);
    fill(&machine);
    let done = engine.dozen(&["run", "--rm", "--name", "unlucky", "busybox", "true"]);
    assert!(done.code == 125, "{done:?}");
    assert!(done.err.contains("o space left on device") || done.err.contains("disk is full"), "{done:?}");
    make_room(&machine);
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
    let after = rest(&machine);
    assert!(after.is_subset(&before), "{:?}", after.difference(&before).collect::<Vec<_>>());
    engine.dozen(&["run", "--rm", "--name", "unlucky", "busybox", "true"]).expect(0);
}

#[test]
fn a_process_that_fills_the_disk_hears_of_it() {
    let machine = Machine::new();
    small_disk(&machine, 16);
    let engine = machine.engine();
    engine.load("busybox");
    let greedy = "cat /dev/zero >/large; echo $?; rm /large; exit 5";
    let done = engine.dozen(&["run", "--name", "greedy", "--network", "none", "busybox", "sh", "-c", greedy]).expect(5);
    assert!(done.err.contains("No space left on device") && done.out == "1\n", "{done:?}");
    assert_eq!(engine.dozen(&["wait", "greedy"]).text(), "5\n");
    engine.dozen(&["rm", "greedy"]).expect(0);
    engine.dozen(&["run", "--rm", "--network", "none", "busybox", "true"]).expect(0);
}

/// An ext4 that the kernel makes read-only, as it does after an error of the disk (ext4(5), `errors`), however much is
/// open on it.
#[test]
fn a_disk_that_has_become_read_only() {
    let machine = Machine::new();
    let disk = machine.directory().join("disk");
    let data = machine.directory().join("data");
    std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    machine.run("mkfs.ext4", &["-q", disk.to_str().unwrap()]).expect(0);
    let options = "loop,errors=remount-ro";
    machine.run("mount", &["-o", options, disk.to_str().unwrap(), data.to_str().unwrap()]).expect(0);
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["run", "-d", "--name", "lucky", "--network", "none", "busybox", "sleep", "1000"]).expect(0);
    engine.dozen(&["run", "--rm", "busybox", "true"]).expect(0);
    let before = rest(&machine);
    let device = machine.run("findmnt", &["-no", "SOURCE", data.to_str().unwrap()]).text();
    let device = device.trim().rsplit('/').next().unwrap();
    machine.run("sh", &["-c", &format!("echo test >/sys/fs/ext4/{device}/trigger_fs_error")]).expect(0);

    let done = engine.dozen(&["run", "--rm", "--name", "unlucky", "--network", "none", "busybox", "true"]);
    assert!(done.code == 125, "{done:?}");
    let words = done.err.to_lowercase();
    assert!(words.contains("read-only") || words.contains("readonly") || words.contains("i/o error"), "{done:?}");
    // What needs no writing goes on.
    assert_eq!(engine.dozen(&["ps", "--format", "{{.Names}}"]).text(), "lucky\n");
    assert_eq!(engine.dozen(&["exec", "lucky", "echo", "alive"]).text(), "alive\n");
    assert_eq!(engine.dozen(&["ps", "-a", "--format", "{{.Names}}"]).text(), "lucky\n");
    let after = rest(&machine);
    assert!(after.is_subset(&before), "{:?}", after.difference(&before).collect::<Vec<_>>());
}
