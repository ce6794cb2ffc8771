//! `volume snapshot`: on file systems that share blocks between files, and a clear no on others.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use dozen_testbox::{Machine, patience};

/// Everything that a tree is, but for what numbers its files have.
const LIST: &str = r#"
import os, stat, sys
os.chdir(sys.argv[1])
names = ['.']
for top, directories, files in os.walk('.'):
    names += [os.path.join(top, name) for name in directories + files]
first = {}
for name in sorted(names):
    s = os.lstat(name)
    same = first.setdefault(s.st_ino, name)
    attributes = {}
    if not stat.S_ISLNK(s.st_mode):
        attributes = {key: os.getxattr(name, key) for key in sorted(os.listxattr(name))}
    text = os.readlink(name) if stat.S_ISLNK(s.st_mode) else open(name, 'rb').read()[:20] if stat.S_ISREG(s.st_mode) else ''
    size = 0 if stat.S_ISDIR(s.st_mode) else s.st_size
    holes = s.st_blocks * 512 < size
    times = (s.st_mtime_ns, s.st_atime_ns if stat.S_ISFIFO(s.st_mode) else 0)
    print(name, same, oct(s.st_mode), s.st_uid, s.st_gid, size, holes, s.st_rdev, times, attributes, text)
"#;

/// One of each kind.
const FILL: &str = r#"
import os, socket, stat, sys
os.chdir(sys.argv[1])
os.makedirs('d/empty'); os.mkdir('closed', 0o700)
open('d/file', 'w').write('content'); os.chown('d/file', 1234, 5678); os.chmod('d/file', 0o4751)
os.link('d/file', 'closed/again'); os.symlink('../nowhere', 'd/link'); os.lchown('d/link', 7, 8)
with open('sparse', 'wb') as f: f.seek(50 << 20); f.write(b'end')
open('nothing', 'w'); os.mkfifo('pipe', 0o622); os.chmod('pipe', 0o622)
os.mknod('null', stat.S_IFCHR | 0o666, os.makedev(1, 3)); os.mknod('whiteout', stat.S_IFCHR, os.makedev(0, 0))
os.mknod('disk', stat.S_IFBLK | 0o600, os.makedev(7, 200)); os.chown('disk', 0, 6)
s = socket.socket(socket.AF_UNIX); s.bind('socket'); os.chown('socket', 9, 9)
os.setxattr('nothing', 'user.note', b'mine'); os.setxattr('d', 'trusted.note', b'ours')
os.setxattr('nothing', 'security.capability', bytes.fromhex('0100000200040000000000000000000000000000'))
for name in ['pipe', 'd/file', 'd/link', 'null', 'socket', 'd/empty', 'd', 'closed', '.']:
    os.utime(name, ns=(1_500_000_000_123_456_789, 1_600_000_000_987_654_321), follow_symlinks=False)
"#;

/// With the engine's data on a disk of this kind.
fn machine_on(program: &str) -> Machine {
    let machine = Machine::new();
    let disk = machine.directory().join("disk").display().to_string();
    std::fs::File::create(&disk).unwrap().set_len(400 << 20).unwrap();
    machine.run(program, &["-q", &disk]).expect(0);
    machine.run("mount", &["-o", "loop", &disk, machine.directory().join("data").to_str().unwrap()]).expect(0);
    machine
}

/// How many snapshots the volume has, and the bytes that they hold beside it, as the engine says.
fn kept_beside(machine: &Machine) -> (u64, u64) {
    let mut stream = UnixStream::connect(machine.socket()).unwrap();
    stream.write_all(b"GET /system/df HTTP/1.0\r\nHost: box\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let usage: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let snapshots = &usage["Volumes"][0]["UsageData"]["Snapshots"];
    (snapshots["Count"].as_u64().unwrap(), snapshots["Size"].as_u64().unwrap())
}

fn data(machine: &Machine) -> String {
    machine.directory().join("data/volumes/data/_data").display().to_string()
}

fn python(machine: &Machine, program: &str, place: &str) -> String {
    machine.run("python3", &["-c", program, place]).text()
}

fn everything_comes_back(program: &str) {
    let machine = machine_on(program);
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["volume", "create", "data"]).expect(0);
    let place = data(&machine);
    python(&machine, FILL, &place);
    let before = python(&machine, LIST, &place);
    assert!(
        before.contains("user.note") && before.contains("trusted.note") && before.contains("'content'"),
        "{before}"
    );
    engine.dozen(&["volume", "snapshot", "create", "data", "before"]).expect(0);
    assert_eq!(python(&machine, LIST, &place), before, "it changes nothing");
    let script =
        "cd /v; echo changed >d/file; rm -r closed pipe; mkdir -m 700 pipe; chown 3:3 .; chmod 711 .; echo >new";
    engine.dozen(&["run", "--rm", "-v", "data:/v", "busybox", "sh", "-c", script]).expect(0);
    let after = python(&machine, LIST, &place);
    assert_ne!(after, before);
    let named = engine.dozen(&["volume", "snapshot", "create", "data"]).text();
    engine.dozen(&["volume", "snapshot", "restore", "data", "before"]).expect(0);
    assert_eq!(python(&machine, LIST, &place), before);
    // Again, and on to the other.
    let script = "cat /v/d/file /v/closed/again; echo once more >/v/d/file";
    let seen = engine.dozen(&["run", "--rm", "-v", "data:/v", "busybox", "sh", "-c", script]).text();
    assert_eq!(seen, "contentcontent");
    engine.dozen(&["volume", "snapshot", "restore", "data", named.trim()]).expect(0);
    assert_eq!(python(&machine, LIST, &place), after);
    engine.dozen(&["volume", "snapshot", "restore", "data", "before"]).expect(0);
    assert_eq!(python(&machine, LIST, &place), before);

    // Blocks are shared: it takes no room, whatever it holds.
    let large = format!("{place}/large");
    machine.run("dd", &["if=/dev/urandom", &format!("of={large}"), "bs=1M", "count=64"]).expect(0);
    let free_mib = || -> u64 {
        machine.run("sync", &["-f", &place]).expect(0);
        let df = machine.run("df", &["--output=avail", "-m", &place]).text();
        df.lines().nth(1).unwrap().trim().parse().unwrap()
    };
    let free = free_mib();
    engine.dozen(&["volume", "snapshot", "create", "data", "large"]).expect(0);
    assert!(free.saturating_sub(free_mib()) < 16, "{free} MiB were free, and {} are", free_mib());
    let (count, size) = kept_beside(&machine);
    assert!(count == 3 && size < 16 << 20, "{count} take {size} bytes");
    // What is written over is the snapshot's alone from then on.
    machine
        .run("dd", &["if=/dev/urandom", &format!("of={large}"), "bs=1M", "count=64", "conv=notrunc,fsync"])
        .expect(0);
    let (_, after) = kept_beside(&machine);
    assert!((64 << 20..80 << 20).contains(&after), "{size} bytes before, and now {after}");
    let listed = engine.dozen(&["system", "df", "--format", "{{.Type}} {{.TotalCount}}"]).text();
    assert!(listed.contains("Volume Snapshots 3\n"), "{listed}");

    let listed = engine.dozen(&["volume", "snapshot", "ls", "-q", "data"]).text();
    assert_eq!(listed, format!("before\n{named}large\n"));
    let kept = engine.dozen(&["volume", "rm", "data"]);
    assert!(kept.code == 1 && kept.err.contains("remove data: volume has snapshots - [before "), "{kept:?}");
    engine.dozen(&["volume", "prune", "-af"]).expect(0);
    assert_eq!(engine.dozen(&["volume", "ls", "-q"]).text(), "data\n");
    let again = engine.dozen(&["volume", "snapshot", "create", "data", "before"]);
    assert!(again.code == 1 && again.err.contains("there is a snapshot before already"), "{again:?}");
    engine.dozen(&["volume", "snapshot", "rm", "data", "before", named.trim(), "large"]).expect(0);
    let none = engine.dozen(&["volume", "snapshot", "restore", "data", "before"]);
    assert!(none.code == 1 && none.err.contains("get data: no such snapshot: before"), "{none:?}");
    engine.dozen(&["volume", "rm", "data"]).expect(0);
    assert_eq!(machine.run("ls", &["-A", machine.directory().join("data/volumes").to_str().unwrap()]).text(), "");
}

#[test]
fn everything_comes_back_on_xfs() {
    everything_comes_back("mkfs.xfs");
}

#[test]
fn everything_comes_back_on_btrfs() {
    everything_comes_back("mkfs.btrfs");
}

/// Two files that are written one after the other, always: at one moment the first is never behind the second.
#[test]
fn who_runs_stands_still_and_a_restore_waits_for_nobody_to_run() {
    let machine = machine_on("mkfs.xfs");
    let engine = machine.engine();
    engine.load("busybox");
    let write = "n=0; while :; do n=$((n+1)); echo $n >/v/z-first; echo $n >/v/a-second; done";
    engine.dozen(&["run", "-d", "--name", "writer", "-v", "data:/v", "busybox", "sh", "-c", write]).expect(0);
    let place = data(&machine);
    let number = |path: &str| machine.run("cat", &[path]).text().trim().parse::<u64>().unwrap_or_default();
    let give_up = Instant::now() + patience(Duration::from_secs(30));
    while number(&format!("{place}/a-second")) < 100 {
        assert!(Instant::now() < give_up, "it writes nothing");
    }
    for round in 0..5 {
        let name = format!("round{round}");
        engine.dozen(&["volume", "snapshot", "create", "data", &name]).expect(0);
        let kept = place.replace("_data", &format!("_snapshots/{name}"));
        let (first, second) =
            (machine.run("cat", &[&format!("{kept}/z-first")]).text(), number(&format!("{kept}/a-second")));
        // A file that is being written may be empty at that moment.
        let first: Option<u64> = first.trim().parse().ok();
        assert!(first.is_none_or(|first| second == 0 || first == second || first == second + 1), "{first:?} {second}");
    }
    let last = number(&format!("{place}/a-second"));
    while number(&format!("{place}/a-second")) <= last {
        assert!(Instant::now() < give_up + patience(Duration::from_secs(30)), "it stands still");
    }
    engine.dozen(&["volume", "snapshot", "create", "--pause=false", "data", "moving"]).expect(0);
    let refused = engine.dozen(&["volume", "snapshot", "restore", "data", "round0"]);
    assert!(refused.code == 1 && refused.err.contains("restore data: volume is in use - ["), "{refused:?}");
    engine.dozen(&["stop", "-t", "0", "writer"]).expect(0);
    engine.dozen(&["volume", "snapshot", "restore", "data", "round0"]).expect(0);
    let kept = machine.run("cat", &[&place.replace("_data", "_snapshots/round0/a-second")]).text();
    assert!(engine.dozen(&["cp", "writer:/v/a-second", "-"]).out.contains(kept.trim()));
    engine.dozen(&["start", "writer"]).expect(0);
}

#[test]
fn where_blocks_cannot_be_shared_that_is_said() {
    let machine = machine_on("mkfs.ext4");
    let engine = machine.engine();
    engine.dozen(&["volume", "create", "data"]).expect(0);
    let refused = engine.dozen(&["volume", "snapshot", "create", "data", "one"]);
    assert!(refused.code == 1 && refused.err.contains("cannot share blocks between files (FICLONE)"), "{refused:?}");
    assert!(refused.err.contains("dozen volume export data"), "{refused:?}");
    let memory = ["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"];
    engine.dozen(&memory).expect(0);
    let refused = engine.dozen(&["volume", "snapshot", "create", "memory", "one"]);
    assert!(refused.code == 1 && refused.err.contains("is a file system of its own"), "{refused:?}");
    assert_eq!(engine.dozen(&["volume", "snapshot", "ls", "-q", "data"]).text(), "");
    let parts = machine.run("ls", &["-A", machine.directory().join("data/volumes/data").to_str().unwrap()]).text();
    assert_eq!(parts, "_data\n");
}
