//! Ways out of a container that were open once. Each test fails with the code of that time.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use dozen_testbox::{Machine, patience, until};

/// Stops whatever appears in its pid namespace, looks through it for a file of the host's, and lets it go on.
const HUNTER: &str = r#"
while :; do
    kill -STOP -1
    for process in /proc/[0-9]*; do
        [ "$process" = /proc/1 ] && continue
        [ -e "$process/root/$MARKER" ] && { echo escaped; exit 1; }
        kill -CONT "${process#/proc/}"
    done
done 2>/dev/null
"#;

/// A process on its way into a container must have nothing of the host's from the moment on at which it can be seen
/// inside: a root that may trace (CAP_SYS_PTRACE) would take its root directory, its descriptors and its rights.
#[test]
fn an_exec_shows_nothing_of_the_host() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let marker = machine.directory().join("marker");
    std::fs::write(&marker, "").unwrap();
    let marker = format!("MARKER={}", marker.display());
    engine
        .dozen(&[
            "run",
            "-d",
            "--name",
            "hunter",
            "--cap-add",
            "SYS_PTRACE",
            "-e",
            &marker,
            "busybox",
            "sh",
            "-c",
            HUNTER,
        ])
        .expect(0);
    for _ in 0..20 {
        // It may be stopped for good, before its program (an error after a while) or in it (nobody waits for that one);
        // it must not be looked through.
        engine.dozen(&["exec", "-d", "hunter", "true"]);
        assert_eq!(engine.dozen(&["logs", "hunter"]).expect(0).out, "");
    }
    engine.dozen(&["rm", "-f", "hunter"]).expect(0);
}

/// A stream that nobody wants is the null device of the container: with the host's, `chmod 0 /dev/stdin` would take it
/// from every program of the host that is not root's.
#[test]
fn no_stream_is_the_hosts_null_device() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let script = "stat -Lc %d:%i /proc/self/fd/0 >/streams; stat -c %d:%i /dev/null >>/streams; exec sleep 1000";
    engine.dozen(&["run", "-d", "--name", "quiet", "busybox", "sh", "-c", script]).expect(0);
    let seen = |file: &str, count: usize| {
        until("the streams are looked at", || {
            let text = engine.dozen(&["exec", "quiet", "cat", file]).text();
            (text.lines().count() == count).then_some(text)
        })
    };
    let lines: Vec<String> = seen("/streams", 2).lines().map(str::to_owned).collect();
    assert_eq!(lines[0], lines[1], "standard input of a container that nobody feeds: {lines:?}");
    let script = "all=$(stat -Lc %d:%i /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2 /dev/null); echo \"$all\" >/detached";
    engine.dozen(&["exec", "-d", "quiet", "sh", "-c", script]).expect(0);
    let lines: Vec<String> = seen("/detached", 4).lines().map(str::to_owned).collect();
    assert!(lines.iter().all(|line| *line == lines[3]), "streams of a detached exec: {lines:?}");
    engine.dozen(&["rm", "-f", "quiet"]).expect(0);
}

/// An exec that is stopped from inside must not take the monitor, and with it `rm -f`, along.
#[test]
fn a_container_that_stops_its_execs_can_be_removed() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let stopper = "while :; do kill -STOP -1; done 2>/dev/null";
    engine.dozen(&["run", "-d", "--name", "stopper", "busybox", "sh", "-c", stopper]).expect(0);
    let begun = Instant::now();
    // Detached: one that is stopped after it has begun its program is the container's own affair, and whoever is
    // attached to it waits for as long as it stands.
    let stopped = engine.dozen(&["exec", "-d", "stopper", "true"]);
    assert!(stopped.code == 0 || stopped.err.contains("may have stopped it"), "{stopped:?}");
    engine.dozen(&["rm", "-f", "stopper"]).expect(0);
    // Not a figure: without a limit of the exec's both hang for ever.
    assert!(begun.elapsed() < patience(Duration::from_secs(60)));
}

/// An image that has a link where a volume is to be mounted must not have it mounted in /proc, over what decides about
/// rights and labels.
#[test]
fn a_volume_is_not_mounted_in_proc() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    for (place, leads) in [("/data", "/proc/sys"), ("/data", "/proc"), ("/up/data", "../proc/1/attr")] {
        let script = format!("mkdir -p ${{0%/*}}/. && ln -s {leads} $0");
        engine.dozen(&["run", "--name", "maker", "busybox", "sh", "-c", &script, place]).expect(0);
        engine.dozen(&["commit", "maker", "hostile"]).expect(0);
        engine.dozen(&["rm", "maker"]).expect(0);
        engine.dozen(&["volume", "create", "stuff"]).expect(0);
        let before = machine.snapshot();
        let volume = format!("stuff:{place}");
        let done = engine.dozen(&["run", "--rm", "-v", &volume, "hostile", "true"]);
        assert!(done.code != 0 && done.err.contains("leads into /proc"), "{leads}: {done:?}");
        // The kernel takes a dead network namespace's links along when it finds the time, also those of the maker.
        dozen_testbox::until("nothing is left", || machine.snapshot().is_subset(&before).then_some(()));
        engine.dozen(&["volume", "rm", "stuff"]).expect(0);
        engine.dozen(&["rmi", "hostile"]).expect(0);
    }
}

/// Labels come from images: what would command a terminal is spelled out on one.
#[test]
fn a_label_does_not_command_the_terminal() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let label = "evil=\x1b]0;title\x07\nfake-row";
    engine.dozen(&["create", "--name", "labelled", "--label", label, "busybox", "true"]).expect(0);
    for (arguments, shown) in [
        (
            &["ps", "-a", "--format", "table {{.Names}}\\t{{.Labels}}"][..],
            "labelled   evil=\\x1b]0;title\\x07\\nfake-row\r\n",
        ),
        (&["inspect", "-f", "{{.Config.Labels.evil}}", "labelled"], "\\x1b]0;title\\x07\r\nfake-row\r\n"),
    ] {
        let mut screen = machine.screen(&dozen_testbox::dozen_program(), arguments);
        screen.shows(shown);
        screen.end();
    }
    // A pipe gets the label as it is; a table stays one.
    let plain = engine.dozen(&["inspect", "-f", "{{.Config.Labels.evil}}", "labelled"]).text();
    assert_eq!(plain, "\x1b]0;title\x07\nfake-row\n");
    assert_eq!(engine.dozen(&["ps", "-a", "--format", "table {{.Labels}}"]).text().lines().count(), 2);
}
