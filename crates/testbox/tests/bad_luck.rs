//! Disks that fail: full, or read-only, or only for the ledger.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use dozen_testbox::{Engine, Machine, dozen_program, image_archive, until};

/// Mounts a small file system where the engine keeps its data.
fn small_disk(machine: &Machine, megabytes: u32) {
    let data = machine.directory().join("data");
    let options = format!("size={megabytes}m,mode=711");
    machine.run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", data.to_str().unwrap()]).expect(0);
}

/// An ext4 there, in a file of its own.
fn ext4(machine: &Machine, megabytes: u64) {
    let disk = machine.directory().join("disk");
    let data = machine.directory().join("data");
    std::fs::File::create(&disk).unwrap().set_len(megabytes << 20).unwrap();
    machine.run("mkfs.ext4", &["-q", disk.to_str().unwrap()]).expect(0);
    let options = "loop,errors=remount-ro";
    machine.run("mount", &["-o", options, disk.to_str().unwrap(), data.to_str().unwrap()]).expect(0);
}

/// The kernel makes that ext4 read-only, as it does after an error of the disk (ext4(5), `errors`), however much is open
/// on it.
fn fail(machine: &Machine) {
    let data = machine.directory().join("data");
    let device = machine.run("findmnt", &["-no", "SOURCE", data.to_str().unwrap()]).text();
    let device = device.trim().rsplit('/').next().unwrap();
    machine.run("sh", &["-c", &format!("echo test >/sys/fs/ext4/{device}/trigger_fs_error")]).expect(0);
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
    // Writes of 128 KiB, of which the last may fail as a whole, then small ones.
    let script = format!("exec >{}; cat /dev/zero; dd if=/dev/zero bs=1k", file.display());
    machine.run("sh", &["-c", &script]).expect(1);
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

#[test]
fn a_disk_that_has_become_read_only() {
    let machine = Machine::new();
    ext4(&machine, 64);
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["run", "-d", "--name", "lucky", "--network", "none", "busybox", "sleep", "1000"]).expect(0);
    engine.dozen(&["run", "--rm", "busybox", "true"]).expect(0);
    let before = rest(&machine);
    fail(&machine);

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

/// Directories within each other, far deeper than any path can say, in the directory it is started in.
const NEST: &str = "p=d; for i in 1 2 3 4 5 6 7 8 9 10; do p=$p/$p; done
    for i in 1 2 3 4 5 6 7 8; do mkdir -p $p && cd -P $p 2>/dev/null || exit 1; done; echo 1 >bottom";

/// It needs no right to nest its directories, and the engine must live through all that is done with them.
#[test]
fn a_container_that_nests_its_directories() {
    let machine = Machine::new();
    small_disk(&machine, 256);
    let mut engine = machine.engine();
    engine.load("busybox");
    let before = stored(&machine);
    let nest = format!("cd /srv; {NEST}; cd /data; {NEST}");
    let line = ["run", "--name", "deep", "--network", "none", "-v", "depth:/data", "-w", "/srv", "busybox", "sh", "-c"];
    engine.dozen(&[&line[..], &[&nest]].concat()).expect(0);
    let size = engine.dozen(&["inspect", "-s", "-f", "{{.SizeRw}}", "deep"]).text();
    assert_eq!(size, "2\n");
    engine.dozen(&["commit", "deep", "deeper"]).refuses(1, &["path is too long"]);
    assert_eq!(images(&engine), 1);
    // What a crash leaves of it is no more than that.
    engine.kill();
    let data = machine.directory().join("data");
    for directory in ["containers", "volumes"] {
        let script = format!("cd {} && mv * garbage", data.join(directory).display());
        machine.run("sh", &["-c", &script]).expect(0);
    }
    engine.restart();
    for directory in ["containers", "volumes"] {
        machine.run("ls", &[data.join(directory).join("garbage").to_str().unwrap()]).expect(2);
    }
    engine.dozen(&["rm", "deep"]).expect(0);
    engine.dozen(&["volume", "rm", "depth"]).expect(0);
    engine.dozen(&[&line[..], &[&nest]].concat()).expect(0);
    engine.dozen(&["rm", "deep"]).expect(0);
    engine.dozen(&["volume", "rm", "depth"]).expect(0);
    engine.dozen(&["run", "--rm", "--network", "none", "busybox", "true"]).expect(0);
    assert_eq!(stored(&machine), before);
}

/// What belongs to nobody and cannot be removed: a mount keeps its directory.
#[test]
fn garbage_that_resists_keeps_no_engine_from_opening() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["volume", "create", "kept"]).expect(0);
    let before = stored(&machine);
    engine.kill();
    let places: Vec<_> = ["containers", "volumes", "layers", "content/sha256", "tmp"]
        .map(|directory| machine.directory().join("data").join(directory).join("garbage"))
        .into();
    for place in &places {
        let mounted = place.join("a/_data");
        machine.run("mkdir", &["-p", mounted.to_str().unwrap(), place.join("b").to_str().unwrap()]).expect(0);
        machine.run("mount", &["-t", "tmpfs", "tmpfs", mounted.to_str().unwrap()]).expect(0);
        machine.run("touch", &[mounted.join("precious").to_str().unwrap()]).expect(0);
    }
    engine.restart();
    engine.dozen(&["run", "--rm", "--network", "none", "-v", "kept:/data", "busybox", "true"]).expect(0);
    // A volume of that name is not that one.
    engine.dozen(&["volume", "create", "garbage"]).refuses(1, &["garbage/a/_data"]);
    assert_eq!(engine.dozen(&["volume", "ls", "-q"]).text(), "kept\n");
    for place in &places {
        machine.run("ls", &[place.join("a/_data/precious").to_str().unwrap()]).expect(0);
        machine.run("ls", &[place.join("b").to_str().unwrap()]).expect(2);
        machine.run("umount", &[place.join("a/_data").to_str().unwrap()]).expect(0);
    }
    engine.restart();
    assert_eq!(stored(&machine), before);
}

/// Lives until it is told to end, or until there is a file, with this exit code.
const WORKER: &str = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done";

fn background(engine: &Engine<'_>, options: &[&str]) {
    let line = [&["run", "-d", "--network", "none"], options, &["busybox", "sh", "-c", WORKER]].concat();
    engine.dozen(&line).expect(0);
}

fn says_up(engine: &Engine<'_>, name: &str) {
    until("it is up", || engine.dozen(&["logs", name]).out.contains("up").then_some(()));
}

/// A client in the background, and what it says at its end.
fn client(machine: &Machine, arguments: &[&str]) -> Child {
    let mut command = machine.command(dozen_program());
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn outcome(client: Child) -> (i32, String, String) {
    let output = client.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn status(engine: &Engine<'_>, name: &str) -> String {
    let filter = format!("name={name}");
    engine.dozen(&["ps", "-a", "--filter", &filter, "--format", "{{.Status}}"]).text()
}

fn an_end_on_a_full_disk(machine: &Machine) {
    let mut engine = machine.engine();
    engine.load("busybox");
    background(&engine, &["--name", "last"]);
    background(&engine, &["--name", "other"]);
    says_up(&engine, "last");
    let waiting = client(machine, &["wait", "last"]);
    fill(machine);
    engine.dozen(&["stop", "last"]).expect(0);
    assert_eq!(outcome(waiting), (0, "5\n".to_owned(), String::new()));
    assert!(status(&engine, "last").starts_with("Exited (5)"), "{}", status(&engine, "last"));
    engine.dozen(&["create", "--name", "new", "busybox"]).refuses(125, &["disk is full"]);
    // Whether it goes down in order or dies, and while the disk is as full as before.
    engine.kill();
    engine.restart();
    assert_eq!(engine.dozen(&["wait", "last"]).text(), "5\n");
    engine.restart();
    assert!(status(&engine, "last").starts_with("Exited (5)"), "{}", status(&engine, "last"));
    assert!(status(&engine, "other").starts_with("Up "), "{}", status(&engine, "other"));
    // A removal is what makes room.
    engine.dozen(&["rm", "-f", "other"]).expect(0);
    make_room(machine);
    engine.kill();
    engine.restart();
    assert_eq!(engine.dozen(&["wait", "last"]).text(), "5\n");
    engine.dozen(&["rm", "last"]).expect(0);
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
    engine.dozen(&["run", "--rm", "--network", "none", "busybox", "true"]).expect(0);
}

#[test]
fn an_end_on_a_full_disk_is_not_forgotten() {
    let machine = Machine::new();
    small_disk(&machine, 16);
    an_end_on_a_full_disk(&machine);
}

#[test]
fn an_end_on_a_full_ext4_is_not_forgotten() {
    let machine = Machine::new();
    ext4(&machine, 64);
    an_end_on_a_full_disk(&machine);
}

#[test]
fn a_container_removes_itself_from_a_full_disk() {
    let machine = Machine::new();
    small_disk(&machine, 16);
    let engine = machine.engine();
    engine.load("busybox");
    // It has filled the disk itself,
    let greedy = ["run", "--rm", "--network", "none", "-v", "/scratch", "busybox", "sh", "-c"];
    engine.dozen(&[&greedy[..], &["cat /dev/zero >/large; cat /dev/zero >/scratch/more; exit 6"]].concat()).expect(6);
    assert_eq!(engine.dozen(&["ps", "-aq"]).text() + &engine.dozen(&["volume", "ls", "-q"]).text(), "");
    // or someone else has while it ran.
    let line = ["run", "--rm", "--name", "brief", "--network", "none", "-v", "/scratch", "busybox", "sh", "-c", WORKER];
    let running = client(&machine, &line);
    until("it runs", || status(&engine, "brief").starts_with("Up ").then_some(()));
    says_up(&engine, "brief");
    fill(&machine);
    engine.dozen(&["kill", "-s", "TERM", "brief"]).expect(0);
    let (code, _, words) = outcome(running);
    assert_eq!(code, 5, "{words}");
    assert_eq!(engine.dozen(&["ps", "-aq"]).text() + &engine.dozen(&["volume", "ls", "-q"]).text(), "");
}

#[test]
fn an_image_is_removed_from_a_full_disk() {
    let machine = Machine::new();
    small_disk(&machine, 16);
    let engine = machine.engine();
    engine.load("busybox");
    fill(&machine);
    engine.dozen(&["rmi", "busybox"]).expect(0);
    assert_eq!(images(&engine), 0);
    make_room(&machine);
    engine.load("busybox");
}

/// Images that are made or kept when there is no room for them, while a container writes its log.
#[test]
fn no_space_for_an_image_that_is_made_here() {
    let machine = Machine::new();
    small_disk(&machine, 32);
    let engine = machine.engine();
    engine.load("busybox");
    let own = "localhost:12012/team/web:1";
    engine.dozen(&["tag", "busybox", own]).expect(0);
    let counting = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done";
    let logger = ["run", "-d", "--name", "logger", "--network", "none", "--log-opt", "max-size=64k", "busybox"];
    engine.dozen(&[&logger[..], &["sh", "-c", counting]].concat()).expect(0);
    let noise = "dd if=/dev/urandom of=/noise bs=1M count=6; echo made; sleep 1000";
    engine.dozen(&["run", "-d", "--name", "made", "--network", "none", "busybox", "sh", "-c", noise]).expect(0);
    until("it is made", || engine.dozen(&["logs", "made"]).out.contains("made").then_some(()));
    let exported = machine.directory().join("exported.tar").display().to_string();
    engine.dozen(&["export", "-o", &exported, "made"]).expect(0);
    let line = || engine.dozen(&["logs", "--tail", "1", "logger"]).out;
    let before = (stored(&machine), images(&engine));

    let ballast = machine.directory().join("data/ballast").display().to_string();
    machine.run("sh", &["-c", "cat /dev/zero >$0; truncate -s -2M $0", &ballast]).expect(0);
    let room = ["No space left on device", "free some space"];
    engine.dozen(&["commit", "made", "committed"]).refuses(1, &room);
    engine.dozen(&["commit", "--pause=false", "made", "committed"]).refuses(1, &room);
    engine.dozen(&["import", &exported, "imported"]).refuses(1, &room);
    make_room(&machine);
    fill(&machine);
    engine.dozen(&["push", own]).refuses(1, &["507 Insufficient Storage"]);
    // Nobody is held still, or lost.
    assert_eq!(engine.dozen(&["ps", "--format", "{{.Names}}"]).text(), "made\nlogger\n");
    make_room(&machine);
    let known = line();
    until("its log goes on", || (line() != known).then_some(()));
    assert_eq!(images(&engine), before.1);
    until("nothing is left of them", || {
        let is_log = |path: &&String| path.contains("/containers/") || path.contains("/registry");
        stored(&machine).difference(&before.0).all(|path| is_log(&path)).then_some(())
    });
    engine.dozen(&["commit", "made", "committed"]).expect(0);
    engine.dozen(&["rm", "-f", "made"]).expect(0);
    engine.dozen(&["import", &exported, "imported"]).expect(0);
    engine.dozen(&["push", own]).expect(0);
    engine.dozen(&["rm", "-f", "logger"]).expect(0);
}

/// Someone who watches the engine's system calls, and can change what comes of them, until this is dropped.
struct Tracer(Child);

impl Tracer {
    fn of(engine: &Engine<'_>, arguments: &[&str]) -> Self {
        let mut strace = Command::new("strace");
        strace.arg("-f").args(arguments).args(["-p", &engine.pid().to_string()]);
        let mut strace = strace.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut words = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        // Its first words come when it has hold of all threads.
        while !line.contains("attached") {
            line.clear();
            assert_ne!(words.read_line(&mut line).unwrap(), 0, "strace has ended");
        }
        // Read on, so that it never waits for us.
        std::thread::spawn(move || std::io::copy(&mut words, &mut std::io::sink()));
        Self(strace)
    }

    /// Every write to the ledger's log fails, as on a full disk without any reserve.
    fn without_room(machine: &Machine, engine: &Engine<'_>) -> Self {
        let log = machine.directory().join("data/state.db-wal");
        let inject = ["-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC", "-P"];
        Self::of(engine, &[&inject[..], &[log.to_str().unwrap()]].concat())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It lets go of the engine before it ends.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM);
        self.0.wait().unwrap();
    }
}

/// Nothing can be written down, and everyone is told the truth all the same; it is written as soon as that is possible.
#[test]
fn what_cannot_be_written_now_is_written_later() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    for name in ["last", "again"] {
        background(&engine, &["--name", name]);
        says_up(&engine, name);
    }
    let line = ["run", "--rm", "--name", "brief", "--network", "none", "-v", "/scratch", "busybox", "sh", "-c", WORKER];
    let running = client(&machine, &line);
    until("it runs", || status(&engine, "brief").starts_with("Up ").then_some(()));
    says_up(&engine, "brief");
    let waiting = client(&machine, &["wait", "last"]);
    {
        let _tracer = Tracer::without_room(&machine, &engine);
        engine.dozen(&["stop", "last"]).expect(0);
        assert_eq!(outcome(waiting).1, "5\n");
        assert!(status(&engine, "last").starts_with("Exited (5)"), "{}", status(&engine, "last"));
        // Whoever waits for the removal is told that it has not come.
        engine.dozen(&["kill", "-s", "TERM", "brief"]).expect(0);
        let (code, _, words) = outcome(running);
        assert!(code == 5 && words.contains("is not removed yet"), "{code} {words}");
        assert_eq!(status(&engine, "brief"), "Dead\n");
        assert_eq!(engine.dozen(&["inspect", "-f", "{{.State.Dead}}", "brief"]).text(), "true\n");
        engine.dozen(&["start", "brief"]).refuses(1, &["already in progress"]);
        engine.dozen(&["rm", "brief"]).refuses(1, &["full"]);
        // What needs to be written before it is done is not done.
        engine.dozen(&["restart", "again"]).refuses(1, &["full"]);
        assert!(status(&engine, "again").starts_with("Up "), "{}", status(&engine, "again"));
        engine.dozen(&["start", "last"]).refuses(1, &["full"]);
        assert!(status(&engine, "last").starts_with("Exited (5)"), "{}", status(&engine, "last"));
        engine.dozen(&["create", "--name", "new", "busybox"]).refuses(125, &["disk is full"]);
        engine.dozen(&["volume", "create", "new"]).refuses(1, &["disk is full"]);
        machine.run("ls", &[machine.directory().join("data/volumes/new").to_str().unwrap()]).expect(2);
    }
    // Nobody asks, and it is removed.
    until("it is gone", || status(&engine, "brief").is_empty().then_some(()));
    assert_eq!(engine.dozen(&["volume", "ls", "-q"]).text(), "");
    // The next command writes what is left to write. The exit record is not there to help.
    engine.dozen(&["rename", "last", "first"]).expect(0);
    for entry in std::fs::read_dir(machine.directory().join("data/containers")).unwrap().flatten() {
        let _ = std::fs::remove_file(entry.path().join("exit.json"));
    }
    engine.kill();
    engine.restart();
    assert!(status(&engine, "first").starts_with("Exited (5)"), "{}", status(&engine, "first"));
    engine.dozen(&["restart", "again"]).expect(0);
}

/// On a disk that takes nothing any more everyone is told the truth for as long as the engine lives, and nobody hangs.
#[test]
fn an_end_on_a_read_only_disk() {
    let machine = Machine::new();
    ext4(&machine, 64);
    let engine = machine.engine();
    engine.load("busybox");
    background(&engine, &["--name", "last"]);
    background(&engine, &["--rm", "--name", "brief"]);
    says_up(&engine, "last");
    let waiting = client(&machine, &["wait", "last"]);
    fail(&machine);
    engine.dozen(&["stop", "last", "brief"]).expect(0);
    assert_eq!(outcome(waiting).1, "5\n");
    assert!(status(&engine, "last").starts_with("Exited (5)"), "{}", status(&engine, "last"));
    until("its removal has failed", || (status(&engine, "brief") == "Dead\n").then_some(()));
}

/// The threads of the engine, as strace names them.
fn threads(engine: &Engine<'_>) -> BTreeSet<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", engine.pid())).unwrap().flatten();
    tasks.map(|task| task.file_name().into_string().unwrap()).collect()
}

/// To make the row, and to remove it. The monitor's exit record is synced beside them.
#[test]
fn a_run_waits_for_two_syncs_of_the_ledger() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let run = ["run", "--rm", "--network", "none", "busybox", "true"];
    engine.dozen(&run).expect(0);
    let syncs = syncs_of(&machine, &engine, &run);
    assert!((1..=2).contains(&syncs.len()), "{syncs:?}");
}

/// The engine's own, while a command is carried out.
fn syncs_of(machine: &Machine, engine: &Engine<'_>, command: &[&str]) -> Vec<String> {
    let path = machine.directory().join("trace");
    let syncs = ["-o", path.to_str().unwrap(), "-e", "trace=fsync,fdatasync,sync_file_range,syncfs,sync"];
    let tracer = Tracer::of(engine, &syncs);
    let mut ours = threads(engine);
    engine.dozen(command).expect(0);
    ours.append(&mut threads(engine));
    drop(tracer);
    let trace = std::fs::read_to_string(path).unwrap();
    let of_engine = |line: &&str| ours.contains(line.split(' ').next().unwrap_or_default());
    let is_sync = |line: &&str| line.contains("sync(") || line.contains("syncfs(");
    trace.lines().filter(of_engine).filter(is_sync).map(str::to_owned).collect()
}

/// What someone has started or stopped is so after a power cut too, if the container's policy is to run it again; and
/// nothing else of a life is synced.
#[test]
fn what_is_to_run_after_a_power_cut_is_synced_when_it_is_answered() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let script = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    // A further start syncs the removal of the last run's exit record, and nothing else.
    for (policy, of_start, of_restart, of_stop) in
        [("no", 0, 1, 0), ("always", 1, 1, 0), ("unless-stopped", 1, 1, 1), ("on-failure", 1, 1, 1)]
    {
        let name = format!("is-{policy}");
        let create =
            ["create", "--name", &name, "--network", "none", "--restart", policy, "busybox", "sh", "-c", script];
        engine.dozen(&create).expect(0);
        let syncs = |verb: &str| syncs_of(&machine, &engine, &[verb, &name]).len();
        assert_eq!([syncs("start"), syncs("restart"), syncs("stop")], [of_start, of_restart, of_stop], "{policy}");
    }
}

/// The row of a volume is safe from a power cut, and so is what the volume was filled with: a volume that is not empty is
/// not filled again.
#[test]
fn what_a_volume_is_filled_with_is_synced() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let create = |volume: &str, at: &str| {
        let volume = format!("{volume}:{at}");
        engine.dozen(&["create", "--network", "none", "-v", &volume, "busybox", "ls", at])
    };
    engine.dozen(&["volume", "create", "older"]).expect(0);
    {
        let _tracer = Tracer::of(&engine, &["-e", "trace=syncfs", "-e", "inject=syncfs:error=EIO"]);
        create("new", "/bin").refuses(125, &["cannot sync", "nput/output error"]);
        create("older", "/bin").refuses(125, &["cannot sync", "nput/output error"]);
        // Nothing is copied, and nothing has to be synced.
        create("empty", "/nowhere").expect(0);
    }
    assert_eq!(engine.dozen(&["volume", "ls", "-q"]).text(), "empty\nolder\n");
    for volume in ["new", "older"] {
        let id = create(volume, "/bin").text();
        let shown = engine.dozen(&["start", "-a", id.trim()]).text();
        assert!(shown.contains("busybox"), "{shown}");
    }
}
