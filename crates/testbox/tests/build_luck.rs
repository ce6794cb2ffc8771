//! Builds that meet bad luck: others that want the same, clients that go, hands from outside, engines that die, disks that
//! are full; and steps that leave what nobody should trust.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use dozen_testbox::{Daemon, Done, Engine, Machine, dozen_program, until};

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

/// `dozen build FLAGS -`, the Dockerfile on its standard input.
fn build(machine: &Machine, flags: &[&str], dockerfile: &str) -> Done {
    machine.run_with(
        dozen_program(),
        &[&["build", "--progress", "plain"], flags, &["-"]].concat(),
        dockerfile.as_bytes(),
        &[],
    )
}

/// The same, and does not wait for it.
fn begin(machine: &Machine, flags: &[&str], dockerfile: &str) -> Child {
    let mut command = machine.command(dozen_program());
    command.args([&["build", "-q"], flags, &["-"]].concat()).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(dockerfile.as_bytes()).unwrap();
    child
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The directory of the only cache mount, once it is there.
fn cache(machine: &Machine) -> PathBuf {
    let above = machine.directory().join("data/cache-mounts");
    until("the cache is made", || {
        let name = names_in(&above).into_iter().find(|name| !name.starts_with('.'))?;
        Some(above.join(name))
    })
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// What builds have left of themselves on the disk.
fn left_on_disk(machine: &Machine) -> BTreeSet<String> {
    let places = ["data/builds", "run/builds", "data/tmp"];
    let of = |place: &str| names_in(&machine.directory().join(place)).into_iter();
    places.iter().flat_map(|place| of(place).map(move |name| format!("{place}/{name}"))).collect()
}

/// No container, no file. Waits: what was unpacked goes after the last word.
fn nothing_is_left(machine: &Machine, engine: &Engine<'_>) {
    until("no container is left", || engine.dozen(&["ps", "-aq"]).text().is_empty().then_some(()));
    until("no file is left", || left_on_disk(machine).is_empty().then_some(()));
}

fn container_of_a_step(engine: &Engine<'_>) -> String {
    until("the step runs", || {
        let id = engine.dozen(&["ps", "-q"]).text();
        id.lines().next().map(str::to_owned)
    })
}

/// A step that tells of itself in its cache, and waits there for a file.
const WAITS: &str = "FROM busybox\nRUN --mount=type=cache,target=/c echo x >> /c/ran && until test -e /c/go; do sleep 0.1; done; \
    echo made > /made\n";

#[test]
fn what_two_want_is_done_once_and_goes_on_without_the_first() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let mut first = begin(&machine, &["-t", "one"], WAITS);
    let ran = cache(&machine).join("ran");
    until("the first runs it", || (lines(&ran) == 1).then_some(()));
    let mut second = begin(&machine, &["-t", "two"], WAITS);
    // It has sent its context, and so is at the step.
    until("the second has begun", || (names_in(&machine.directory().join("data/builds")).len() == 2).then_some(()));
    std::fs::write(cache(&machine).join("go"), "").unwrap();
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    assert_eq!(lines(&ran), 1);
    std::fs::remove_file(cache(&machine).join("go")).unwrap();

    let mut first = begin(&machine, &["--no-cache"], WAITS);
    until("the first runs it", || (lines(&ran) == 2).then_some(()));
    let mut second = begin(&machine, &["--no-cache", "-t", "three"], WAITS);
    until("the second has begun", || (names_in(&machine.directory().join("data/builds")).len() == 2).then_some(()));
    first.kill().unwrap();
    first.wait().unwrap();
    until("the second runs it", || (lines(&ran) == 3).then_some(()));
    std::fs::write(cache(&machine).join("go"), "").unwrap();
    assert!(second.wait().unwrap().success());
    assert_eq!(engine.dozen(&["run", "--rm", "--network", "none", "three", "cat", "/made"]).text(), "made\n");
    nothing_is_left(&machine, &engine);
}

#[test]
fn a_client_that_stands_still_holds_up_nobody_else() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let dockerfile = "FROM busybox\nRUN dd if=/dev/zero bs=1M count=30 2>/dev/null | tr '\\0' y; echo done > /done\n";
    let mut first = Client::of_build(&machine, dockerfile, "");
    // It hears that the step has begun, and then nothing more.
    first.read_until("Running in");
    build(&machine, &["-t", "second"], dockerfile).expect(0);
    assert_eq!(engine.dozen(&["run", "--rm", "--network", "none", "second", "cat", "/done"]).text(), "done\n");
    drop(first);
    nothing_is_left(&machine, &engine);
}

#[test]
fn twenty_builds_at_once() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let of = |number: usize| {
        format!("FROM busybox AS a\nRUN echo {number} > /a\nFROM busybox\nCOPY --from=a /a /b\nRUN cat /b > /c\n")
    };
    let mut builds: Vec<Child> =
        (0..20).map(|number| begin(&machine, &["-t", &format!("n:{number}")], &of(number))).collect();
    assert!(builds.iter_mut().all(|build| build.wait().unwrap().success()), "{}", engine.log());
    for number in 0..20 {
        let said = engine.dozen(&["run", "--rm", "--network", "none", &format!("n:{number}"), "cat", "/c"]).text();
        assert_eq!(said, format!("{number}\n"));
    }
    nothing_is_left(&machine, &engine);
}

#[test]
fn caches_that_are_had_alone_are_waited_for_in_one_order() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let mount = |id: &str| format!("--mount=type=cache,id={id},target=/{id},sharing=locked");
    let (a, b) = (mount("a"), mount("b"));
    let twice = "--mount=type=cache,id=a,target=/again,sharing=locked";
    let dockerfile = format!(
        "FROM busybox AS one\nRUN {a} {b} {twice} touch /a/x && test -e /again/x && rm /a/x\nFROM busybox AS two\n\
         RUN {b} {a} ! test -e /a/x\nFROM busybox\nRUN --mount=from=one,target=/1 --mount=from=two,target=/2 true\n"
    );
    for _ in 0..5 {
        let builds: Vec<Child> = (0..3).map(|_| begin(&machine, &["--no-cache"], &dockerfile)).collect();
        for mut build in builds {
            let ended = until("the build ends", || build.try_wait().unwrap());
            assert!(ended.success());
        }
    }
    nothing_is_left(&machine, &engine);
}

// ---- clients ----

/// A tar archive with these files (POSIX.1-1988, "ustar").
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[263..265].copy_from_slice(b"00");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Who speaks to the engine by hand.
struct Client(UnixStream);

impl Client {
    /// Asks for a build with this Dockerfile and a large file, in docker's way.
    fn of_build(machine: &Machine, dockerfile: &str, query: &str) -> Self {
        let body = archive(&[("Dockerfile", dockerfile.as_bytes()), ("large", &vec![b'x'; 1 << 20])]);
        let mut client = Self::sending(machine, query, body.len());
        client.0.write_all(&body).unwrap();
        client
    }

    /// Says how much it is going to send.
    fn sending(machine: &Machine, query: &str, length: usize) -> Self {
        let mut stream = UnixStream::connect(machine.socket()).unwrap();
        let head = format!(
            "POST /v1.45/build?{query} HTTP/1.1\r\nHost: box\r\nContent-Type: application/x-tar\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        Self(stream)
    }

    fn read_until(&mut self, words: &str) {
        let (mut all, mut piece) = (Vec::new(), [0; 512]);
        while !String::from_utf8_lossy(&all).contains(words) {
            let read = self.0.read(&mut piece).unwrap();
            assert!(read > 0, "'{words}' does not come: {}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&piece[..read]);
        }
    }
}

/// proc_pid_status(5), VmRSS, in KiB.
fn memory_kib(engine: &Engine<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn clients_that_go_in_any_phase_leave_nothing() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let script = "FROM busybox\nCOPY large /large\nRUN echo begun; dd if=/dev/zero of=/zeros bs=1M count=8 2>/dev/null; echo packing\n\
        COPY large /again\n";
    let body = archive(&[("Dockerfile", script.as_bytes()), ("large", &vec![b'x'; 1 << 20])]);
    let round = || {
        drop(UnixStream::connect(machine.socket()).unwrap());
        drop(Client::sending(&machine, "", body.len()));
        for part in [100, 512, 2000, body.len() / 2, body.len() - 1] {
            let mut client = Client::sending(&machine, "nocache=1", body.len());
            client.0.write_all(&body[..part]).unwrap();
        }
        drop(Client::of_build(&machine, script, "nocache=1"));
        for words in ["Step 2/4", "Running in", "begun", "packing", "Step 4/4"] {
            Client::of_build(&machine, script, "nocache=1").read_until(words);
        }
    };
    (0..4).for_each(|_| round());
    nothing_is_left(&machine, &engine);
    let before = memory_kib(&engine);
    (0..16).for_each(|_| round());
    nothing_is_left(&machine, &engine);
    // At the latest when it rests, which it does only if no build goes on.
    until("it has no more memory than before", || (memory_kib(&engine) < before + (8 << 10)).then_some(()));
    let descriptors = names_in(Path::new(&format!("/proc/{}/fd", engine.pid()))).len();
    assert!(descriptors < 100, "{descriptors} descriptors are open");
    build(&machine, &["-t", "well"], "FROM busybox\nRUN echo a > /a\n").expect(0);
}

/// `POST /build/cancel?id=`: the status.
fn cancel(machine: &Machine, id: &str) -> u16 {
    let mut stream = UnixStream::connect(machine.socket()).unwrap();
    stream.write_all(format!("POST /v1.45/build/cancel{id} HTTP/1.0\r\nHost: box\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_build_is_ended_by_its_id_in_any_phase() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let sleeps = "FROM busybox\nRUN echo begun; sleep 1000\n";
    assert_eq!((cancel(&machine, ""), cancel(&machine, "?id=none")), (400, 404));
    let mut running = Client::of_build(&machine, sleeps, "buildid=mine");
    running.read_until("begun");
    Client::of_build(&machine, sleeps, "buildid=mine").read_until("another build has the id");
    assert_eq!(cancel(&machine, "?id=mine"), 200);
    running.read_until("context canceled");
    // Its id is free as soon as nothing is left of it.
    until("it is gone", || (cancel(&machine, "?id=mine") == 404).then_some(()));
    nothing_is_left(&machine, &engine);
    // While it waits for its context.
    let mut sending = Client::sending(&machine, "buildid=mine", 1 << 20);
    sending.0.write_all(&[0; 100]).unwrap();
    until("it is known", || (cancel(&machine, "?id=mine") == 200).then_some(()));
    sending.read_until("context canceled");
    drop(sending);
    nothing_is_left(&machine, &engine);
    until("it is gone", || (cancel(&machine, "?id=mine") == 404).then_some(()));
    Client::of_build(&machine, "FROM busybox\nRUN true\n", "buildid=mine").read_until("Successfully built");
}

// ---- hands from outside ----

#[test]
fn a_container_of_a_step_may_be_touched_by_others() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let waits =
        "FROM busybox\nRUN trap 'exit 0' TERM; echo begun; while ! test -e /go; do sleep 0.1; done; echo ok > /ok\n";
    let go = |id: &str| engine.dozen(&["exec", id, "touch", "/go"]).expect(0);
    let failing: [(&[&str], &str); 4] = [
        (&["rm", "-f"], "returned a non-zero code: 137"),
        (&["kill"], "returned a non-zero code: 137"),
        (&["stop"], "was stopped by somebody else"),
        (&["restart"], "by somebody else"),
    ];
    for (command, words) in failing {
        std::thread::scope(|scope| {
            let built = scope.spawn(|| build(&machine, &["--no-cache", "-t", "never"], waits));
            let id = container_of_a_step(&engine);
            engine.dozen(&[command, &[&id]].concat()).expect(0);
            built.join().unwrap().refuses(1, &[words]);
        });
        nothing_is_left(&machine, &engine);
    }
    let harmless: [&[&str]; 6] = [
        &["pause", "ID"],
        &["unpause", "ID"],
        &["rename", "ID", "other"],
        &["container", "prune", "-f"],
        &["update", "--pids-limit", "50", "ID"],
        &["system", "prune", "-af"],
    ];
    std::thread::scope(|scope| {
        let built = scope.spawn(|| build(&machine, &["--no-cache", "-t", "well"], waits));
        let id = container_of_a_step(&engine);
        for command in harmless {
            let words: Vec<&str> = command.iter().map(|word| if *word == "ID" { &id } else { *word }).collect();
            engine.dozen(&words).expect(0);
        }
        engine.dozen(&["commit", &id, "stolen"]).refuses(1, &["runs a step of a build"]);
        go(&id);
        built.join().unwrap().expect(0);
    });
    assert_eq!(engine.dozen(&["run", "--rm", "--network", "none", "well", "cat", "/ok"]).text(), "ok\n");
    nothing_is_left(&machine, &engine);
}

/// Half of what a step has made is no layer of it, now or from the cache.
#[test]
fn a_container_that_is_removed_while_it_is_read_makes_no_layer() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let script = "mkdir /many && cd /many && for d in 0 1 2 3 4 5 6 7 8 9; do mkdir $d; (cd $d; \
        i=0; while [ $i -lt 60 ]; do echo $i > $i; i=$((i+1)); done); done";
    for round in 0..3 {
        let dockerfile = format!("FROM busybox\nRUN {script}; echo {round}\n");
        let done = std::thread::scope(|scope| {
            let built = scope.spawn(|| build(&machine, &["-t", "many"], &dockerfile));
            while !built.is_finished() {
                // It refuses to for as long as it runs.
                if let Some(id) = engine.dozen(&["ps", "-aq", "-f", "status=exited"]).text().lines().next() {
                    engine.dozen(&["rm", id]);
                }
            }
            built.join().unwrap()
        });
        if done.code != 0 {
            assert!(done.err.contains("was removed by somebody else"), "{}", done.err);
            build(&machine, &["-t", "many"], &dockerfile).expect(0);
        }
        let count = engine
            .dozen(&["run", "--rm", "--network", "none", "many", "sh", "-c", "find /many -type f | wc -l"])
            .text();
        assert_eq!(count, "600\n");
    }
    nothing_is_left(&machine, &engine);
}

#[test]
fn what_a_build_stands_on_stays_while_it_goes_on() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let dockerfile = "FROM busybox AS a\nRUN echo a > /a\nFROM busybox\nRUN --mount=type=cache,target=/c \
        until test -e /c/go; do sleep 0.1; done\nRUN echo more > /more\nCOPY --from=a /a /b\nCOPY --from=busybox:latest /bin/busybox /bb\n";
    let mut child = begin(&machine, &["-t", "whole"], dockerfile);
    container_of_a_step(&engine);
    engine.dozen(&["rmi", "-f", "busybox"]).expect(0);
    engine.dozen(&["image", "prune", "-af"]).expect(0);
    engine.dozen(&["system", "prune", "-af", "--volumes"]).expect(0);
    std::fs::write(cache(&machine).join("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(
        engine.dozen(&["run", "--rm", "--network", "none", "whole", "sh", "-c", "test -x /bb && cat /b /more"]).text(),
        "a\nmore\n"
    );
    nothing_is_left(&machine, &engine);
}

// ---- engines that die ----

#[test]
fn a_step_whose_engine_dies_is_ended_by_the_next_one() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    let mine = engine.dozen(&["run", "-d", "--network", "none", "busybox", "sleep", "1000"]).text();
    let token = machine.directory().join("token");
    std::fs::write(&token, "hunter2").unwrap();
    let secret = format!("id=t,src={}", token.display());
    let dockerfile =
        "FROM busybox\nRUN --mount=type=secret,id=t sleep 4343 & echo begun; test -e /run/secrets/t; wait\n";
    let sleeps = || {
        let commands = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("cmdline"));
        commands.filter(|path| std::fs::read(path).is_ok_and(|line| line == b"sleep\x004343\0")).count()
    };
    let mut client = begin(&machine, &["--secret", &secret], dockerfile);
    until("the step runs", || (sleeps() > 0).then_some(()));
    assert!(!names_in(&machine.directory().join("run/builds")).is_empty());
    engine.kill();
    assert!(sleeps() > 0);
    client.kill().unwrap();
    client.wait().unwrap();
    engine.restart();
    assert!(left_on_disk(&machine).is_empty());
    until("the step is ended", || (sleeps() == 0).then_some(()));
    until("its container goes", || (engine.dozen(&["ps", "-aq", "--no-trunc"]).text() == mine).then_some(()));
    assert_eq!(engine.dozen(&["inspect", "-f", "{{.State.Status}}", mine.trim()]).text(), "running\n");
    build(&machine, &["-t", "after"], "FROM busybox\nRUN echo ok > /ok\n").expect(0);
}

#[test]
fn an_engine_that_ends_in_order_takes_its_steps_along() {
    let machine = Machine::new();
    let before = machine.snapshot();
    let engine = with_busybox(&machine);
    let mut client = begin(&machine, &[], "FROM busybox\nRUN --network=none sleep 4444\n");
    container_of_a_step(&engine);
    drop(engine);
    client.kill().unwrap();
    client.wait().unwrap();
    until("nothing runs any more", || {
        let now = machine.snapshot();
        let left = now.difference(&before).find(|line| line.contains("sleep 4444") || line.contains("dozen "));
        left.is_none().then_some(())
    });
    assert!(left_on_disk(&machine).is_empty());
    let engine = machine.engine();
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
}

// ---- disks that are full ----

#[test]
fn a_full_disk_fails_the_build_and_leaves_nothing() {
    let machine = Machine::new();
    let (disk, data) = (machine.directory().join("disk"), machine.directory().join("data"));
    std::fs::File::create(&disk).unwrap().set_len(60 << 20).unwrap();
    machine.run("mkfs.ext4", &["-q", disk.to_str().unwrap()]).expect(0);
    machine.run("mount", &["-o", "loop", disk.to_str().unwrap(), data.to_str().unwrap()]).expect(0);
    let engine = machine.engine();
    engine.load("busybox");
    let free = || {
        let free = machine.run("stat", &["-f", "-c", "%a", data.to_str().unwrap()]).text();
        free.trim().parse::<u64>().unwrap()
    };
    let before = free();
    // The spool of the context, and the step itself: its layer takes no room beside it.
    let mut noise = vec![0; 70 << 20];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    let body = archive(&[("Dockerfile", b"FROM busybox\n"), ("large", &noise)]);
    machine
        .run_with(dozen_program(), &["build", "-"], &body, &[])
        .refuses(1, &["No space left on device", "free some space"]);
    let made = |megabytes: u32| format!("FROM busybox\nRUN dd if=/dev/urandom of=/noise bs=1M count={megabytes}\n");
    build(&machine, &[], &made(70)).refuses(1, &["No space left on device"]);
    build(&machine, &["-t", "half"], &made(28)).expect(0);
    nothing_is_left(&machine, &engine);
    engine.dozen(&["rmi", "half"]).expect(0);
    engine.dozen(&["builder", "prune", "-af"]).expect(0);
    until("the room is there again", || (free() + 256 > before).then_some(()));
    build(&machine, &["-t", "well"], &made(5)).expect(0);
    assert_eq!(
        engine.dozen(&["run", "--rm", "--network", "none", "well", "stat", "-c", "%s", "/noise"]).text(),
        "5242880\n"
    );
}

// ---- steps that nobody should trust ----

#[test]
fn what_a_step_leaves_is_not_trusted() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let host = machine.directory().join("of-the-host");
    std::fs::write(&host, "hunter2").unwrap();
    let host = host.display();
    // Names by which layers say that something is gone.
    build(&machine, &[], "FROM busybox\nRUN touch /.wh.bin\n")
        .refuses(1, &[".wh.bin", "means that another file is gone"]);
    build(&machine, &[], "FROM busybox\nRUN mkdir -p /d/.wh..wh..opq\n")
        .refuses(1, &["means that another file is gone"]);
    // Deeper than any path.
    let deep = "FROM busybox\nRUN cd / && mkdir a && p=$(yes x/ | head -1000 | tr -d '\\n') && \
        for i in 1 2 3 4 5; do mkdir -p n/$p && mv a n/${p}a && mv n a; done\n";
    build(&machine, &[], deep).refuses(1, &["its path is too long"]);
    nothing_is_left(&machine, &engine);
    // Users' names in a pipe, behind a link out of the root, in a file without an end.
    for names in ["mkfifo /etc/passwd", "ln -s /proc/1/root/etc/passwd /etc/passwd", "truncate -s 500G /etc/passwd"] {
        let dockerfile =
            format!("FROM busybox\nRUN rm /etc/passwd && {names}\nCOPY --from=busybox --chown=root /bin/busybox /b\n");
        build(&machine, &[], &dockerfile).refuses(1, &["no such user: root"]);
    }
    // A stage's directories are links to everywhere.
    let dockerfile = format!(
        "FROM busybox AS a\nRUN ln -s / /root/up && ln -s {host} /file && ln -s ../../../../../../../../{host} /up && mkdir /s && \
         mknod /s/disk b 8 0 && mkfifo /s/pipe && cp /bin/busybox /s/su && chmod 4755 /s/su\nFROM busybox\n\
         COPY --from=a /root/up/root/up/etc/hostname* /root/up/home /x/\nCOPY --from=a /s /s\n\
         RUN test \"$(stat -c '%t %T %F' /s/disk)\" = '8 0 block special file' && test -u /s/su && test -p /s/pipe && \
         ! head -c 1 /s/disk\n"
    );
    build(&machine, &["-t", "links"], &dockerfile).expect(0);
    for path in ["/file", "/up"] {
        let dockerfile = format!(
            "FROM busybox AS a\nRUN ln -s {host} /file && ln -s ../../../../..{host} /up\nFROM busybox\nCOPY --from=a {path} /x\n"
        );
        build(&machine, &[], &dockerfile).refuses(1, &["not found"]);
    }
    // Secrets over links come to nobody else's file.
    let secret = format!("id=t,src={host}");
    let dockerfile = format!(
        "FROM busybox\nRUN ln -s /etc/group /over && ln -s {host} /out\nRUN --mount=type=secret,id=t,target=/over \
         --mount=type=secret,id=t,target=/out grep -q hunter2 /over /out\nRUN ! grep -rq hunter2 /etc {host}\n"
    );
    build(&machine, &["--secret", &secret], &dockerfile).expect(0);
    assert_eq!(std::fs::read_to_string(machine.directory().join("of-the-host")).unwrap(), "hunter2");
    // Processes that would outlive their step.
    let dockerfile =
        "FROM busybox\nRUN (setsid sh -c 'trap \"\" HUP TERM; sleep 4545' &) ; echo left\nRUN ! pgrep sleep\n";
    build(&machine, &[], dockerfile).expect(0);
    let left =
        machine.run("sh", &["-c", "grep -lz 4545 /proc/[0-9]*/cmdline 2>/dev/null | xargs -r cat | tr '\\0' ' '"]).out;
    assert!(!left.contains("sleep 4545"), "{left}");
    nothing_is_left(&machine, &engine);
}

#[test]
fn a_secret_is_nowhere_but_in_its_place_while_its_step_runs() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let secret = "hunter2-of-the-south";
    let token = machine.directory().join("token");
    std::fs::write(&token, secret).unwrap();
    let flag = format!("id=t,src={}", token.display());
    let dockerfile = "FROM busybox\nRUN --mount=type=cache,target=/c --mount=type=secret,id=t grep -q hunter2 /run/secrets/t && \
        echo seen > /c/seen && until test -e /c/go; do sleep 0.1; done\n";
    let mut child = begin(&machine, &["--secret", &flag, "-t", "kept"], dockerfile);
    let cache = cache(&machine);
    until("the step has it", || cache.join("seen").exists().then_some(()));
    let id = container_of_a_step(&engine);
    let check = |said: String| assert!(!said.contains(secret), "{said}");
    check(engine.dozen(&["inspect", &id]).text());
    engine.dozen(&["logs", &id]).refuses(1, &["nothing of its output is kept"]);
    check(engine.dozen(&["events", "--since", "1h", "--until", "0s"]).text());
    check(engine.log());
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let said = std::fs::read(process.path().join(file)).unwrap_or_default();
            assert!(!said.windows(secret.len()).any(|window| window == secret.as_bytes()), "{process:?} {file}");
        }
    }
    let search = |directory: &str| {
        let files = machine
            .run("grep", &["-rlF", "--devices=skip", secret, machine.directory().join(directory).to_str().unwrap()])
            .out;
        files.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(search("data"), [""; 0]);
    let found = search("run");
    assert!(found.iter().all(|path| path.contains("/run/builds/")) && found.len() == 1, "{found:?}");
    let modes = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
    let file = Path::new(&found[0]);
    assert_eq!((modes(file), modes(file.parent().unwrap())), (0o400, 0o700));
    std::fs::write(cache.join("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(search("run"), [""; 0]);
    assert_eq!(search("data"), [""; 0]);
    check(engine.dozen(&["history", "--no-trunc", "kept"]).text());
    nothing_is_left(&machine, &engine);
}

#[test]
fn a_step_is_as_isolated_as_any_container() {
    let machine = Machine::new();
    let state = "grep -E '^(Cap(Eff|Bnd)|Seccomp|NoNewPrivs):' /proc/self/status; cat /proc/self/uid_map; ls /dev; ! mount -t tmpfs x /mnt";
    let dockerfile = format!(
        "FROM busybox\nRUN ({state}) > /state 2>/dev/null; touch /mine; chown 1000 /home; stat -c %u / /mine /home > /ids\n"
    );
    for configuration in ["{}", r#"{ "userns-remap": "auto", "userns-pool": "3000000:140000" }"#] {
        let daemon = Daemon::with_file(&machine, configuration);
        daemon.load("busybox");
        build(&machine, &["--no-cache", "-t", "state"], &dockerfile).expect(0);
        let of_image = |command: &str| {
            daemon.dozen(&["run", "--rm", "--network", "none", "--userns", "host", "state", "sh", "-c", command]).text()
        };
        // Ids of a layer are the image's own, whose they were on the host.
        assert_eq!(of_image("cat /ids; stat -c %u / /mine /home"), "0\n0\n1000\n0\n0\n1000\n");
        let of_step = of_image("cat /state");
        let of_container =
            daemon.dozen(&["run", "--rm", "busybox", "sh", "-c", &format!("({state}) 2>/dev/null")]).text();
        let blind = |text: &str| {
            let is_map = |line: &&str| line.split_whitespace().count() == 3;
            let (maps, others): (Vec<&str>, Vec<&str>) = text.lines().partition(is_map);
            let is_host = maps.iter().all(|map| map.split_whitespace().nth(1) == Some("0"));
            (is_host, others.join("\n"))
        };
        assert_eq!(blind(&of_step), blind(&of_container));
        assert_eq!(blind(&of_step).0, configuration == "{}", "{of_step}");
    }
}
