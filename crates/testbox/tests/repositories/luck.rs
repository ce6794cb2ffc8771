//! Bad luck with repositories and URLs: servers that stall, clients that go away, engines that die, archives that swell,
//! machines without git.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use dozen_testbox::{Daemon, Engine, Machine, NEIGHBOUR_ADDRESS, Side, dozen_program, until};

use super::server::{GitDaemon, Work, answer, serve};
use super::{build, repositories, with_busybox};

/// A server on the neighbour that takes connections and says nothing; told of each that it has, and of each that ends.
fn silent(machine: &Machine) -> Receiver<&'static str> {
    let (told, heard) = channel();
    let listener = machine.on(Side::Neighbour, || TcpListener::bind("0.0.0.0:9418")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (told, mut stream) = (told.clone(), stream.unwrap());
            std::thread::spawn(move || {
                let _ = told.send("asked");
                let mut bytes = [0; 4096];
                while stream.read(&mut bytes).is_ok_and(|read| read > 0) {}
                let _ = told.send("gone");
            });
        }
    });
    heard
}

fn begin(machine: &Machine, words: &[&str]) -> Child {
    let mut command = machine.command(dozen_program());
    command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// No container, no file of a build's.
fn nothing_is_left(machine: &Machine, engine: &Engine<'_>) {
    until("no container is left", || engine.dozen(&["ps", "-aq"]).text().is_empty().then_some(()));
    let names = |place: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(machine.directory().join(place)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    until("no file is left", || {
        ["data/builds", "run/builds", "data/tmp"].iter().all(|place| names(place).is_empty()).then_some(())
    });
}

#[test]
fn who_waits_for_a_silent_server_may_go() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    let heard = silent(&machine);
    let context = format!("git://{NEIGHBOUR_ADDRESS}/a.git");
    let before = {
        // What the first container on a network leaves for the next is there.
        engine.dozen(&["run", "--rm", "busybox", "true"]).expect(0);
        machine.snapshot()
    };
    let mut client = begin(&machine, &["build", &context]);
    assert_eq!(heard.recv().unwrap(), "asked");
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(heard.recv().unwrap(), "gone");
    nothing_is_left(&machine, &engine);
    // Of the first container something may still be going away when it is looked at before.
    until("nothing is left", || machine.snapshot().is_subset(&before).then_some(()));

    // An engine that dies in the middle.
    let mut client = begin(&machine, &["build", &context]);
    assert_eq!(heard.recv().unwrap(), "asked");
    engine.kill();
    client.wait().unwrap();
    engine.restart();
    assert_eq!(heard.recv().unwrap(), "gone");
    nothing_is_left(&machine, &engine);

    // Somebody else who takes its container away.
    let mut client = begin(&machine, &["build", &context]);
    assert_eq!(heard.recv().unwrap(), "asked");
    let id = engine.dozen(&["ps", "-q"]).text();
    engine.dozen(&["rm", "-f", id.trim()]).expect(0);
    assert!(!client.wait().unwrap().success());
    nothing_is_left(&machine, &engine);
}

#[test]
fn git_runs_where_it_can_do_no_harm() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let heard = silent(&machine);
    let context = format!("git://{NEIGHBOUR_ADDRESS}/a.git");
    let mut client = begin(&machine, &["build", &context]);
    assert_eq!(heard.recv().unwrap(), "asked");
    let id = engine.dozen(&["ps", "-q"]).text();
    let inside = |script: &str| engine.dozen(&["exec", id.trim(), "/bin/sh", "-c", script]);
    assert_eq!(
        inside("id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status | tr -d '\\t'").text(),
        "65534\nCapEff:0000000000000000\nNoNewPrivs:1\n"
    );
    // Neither the host's files nor its secrets are there, and nothing can be written but in one place.
    assert_eq!(inside("ls -d /root /home /var /etc/shadow /etc/ssl 2>/dev/null; true").text(), "");
    inside("touch /usr/x || touch /run/git/x || touch /x").expect(1);
    client.kill().unwrap();
    client.wait().unwrap();
    nothing_is_left(&machine, &engine);
}

#[test]
fn what_swells_is_refused() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    // Behind a small archive zeros without end, 16 MiB at a time.
    let script = "cd $1 && echo x >x && tar -cz x >bomb && head -c 16M /dev/zero | gzip >zeros && \
        for i in $(seq 200); do cat zeros >>bomb; done";
    machine.run("sh", &["-c", script, "sh", machine.directory().to_str().unwrap()]).expect(0);
    let bomb = std::fs::read(machine.directory().join("bomb")).unwrap();
    assert!(bomb.len() < 8 << 20, "{}", bomb.len());
    serve(&machine, Side::Neighbour, move |_| answer("200 OK", &["Content-Type: application/x-tar"], &bomb));
    let url = format!("http://{NEIGHBOUR_ADDRESS}:8000/bomb.tar.gz");
    engine.dozen(&["build", &url]).refuses(1, &["it swells to more than 200 times its compressed size"]);
    nothing_is_left(&machine, &engine);
}

#[test]
fn trees_that_mean_ill_are_refused() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let root = repositories(&machine);
    let app = Work::new(&root, "app.git");
    app.file("f", "x\n");
    app.link("l", "/etc");
    app.commit();
    let (file, link) = (app.git(&["rev-parse", "HEAD:f"]), app.git(&["rev-parse", "HEAD:l"]));
    let _daemon = GitDaemon::new(&machine, &root);
    let bytes = |hexadecimal: &str| -> Vec<u8> {
        (0..20).map(|at| u8::from_str_radix(&hexadecimal[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    // A tree as git keeps it (gitformat-pack(5)): no program of git's would write such ones.
    let tree = |entries: &[(&str, &str, &str)]| {
        let mut all = Vec::new();
        for (mode, name, number) in entries {
            all.extend(format!("{mode} {name}\0").as_bytes());
            all.extend(bytes(number));
        }
        app.raw("tree", &all)
    };
    let inner = tree(&[("100644", "passwd", &file)]);
    for (name, entries) in [
        ("dot-git", vec![("40000", ".git", inner.as_str())]),
        ("up", vec![("40000", "..", &inner)]),
        ("slash", vec![("100644", "../../a", &file)]),
        ("absolute", vec![("100644", "/etc/a", &file)]),
        ("nothing", vec![("100644", "", &file)]),
    ] {
        let commit = app.git(&["commit-tree", "-m", name, &tree(&entries)]);
        for keep in ["", "--keep-git-dir "] {
            let line = format!("FROM busybox\nADD {keep}git://{NEIGHBOUR_ADDRESS}/app.git#{commit} /a/\n");
            let refused = build(&machine, &[], &line).expect(1);
            assert!(refused.err.contains("ERROR: "), "{name}: {}", refused.err);
        }
    }
    // A link, and files behind it: they come to no other place than that one.
    let commit = app.git(&["commit-tree", "-m", "both", &tree(&[("120000", "l", &link), ("40000", "l", &inner)])]);
    let line =
        format!("FROM busybox\nADD git://{NEIGHBOUR_ADDRESS}/app.git#{commit} /a/\nRUN ! grep -q x /etc/passwd\n");
    let done = build(&machine, &[], &line);
    assert!(done.code == 0 || done.err.contains("ADD git://"), "{}", done.err);
    assert!(!std::fs::read_to_string("/etc/passwd").unwrap().starts_with("x\n"));
    nothing_is_left(&machine, &engine);
}

#[test]
fn without_git_it_is_said() {
    let machine = Machine::new();
    let root = repositories(&machine);
    let app = Work::new(&root, "app.git");
    app.file("a", "one\n");
    app.commit();
    let _daemon = GitDaemon::new(&machine, &root);
    let mut command = machine.command("env");
    command.arg(format!("PATH={}", machine.directory().display())).arg(dozen_program()).arg("daemon");
    let daemon = Daemon::of(&machine, command);
    daemon.load("busybox");
    let url = format!("git://{NEIGHBOUR_ADDRESS}/app.git");
    let says =
        ["repositories are fetched by git, and the engine finds no such program in its PATH", "apt-get install git"];
    build(&machine, &[], &format!("FROM busybox\nADD {url} /a\n")).refuses(1, &says);
    daemon.dozen(&["build", &url]).refuses(1, &says);
}
