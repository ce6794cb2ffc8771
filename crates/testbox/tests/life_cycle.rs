//! A container's life as others see it: in which order they hear of it, what they may do the moment they have, and what
//! a restart is.

#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Child, Stdio};

use dozen_testbox::{Engine, Machine, docker_program, dozen_program, next_second, until};

/// Heeds SIGTERM.
const WORKER: &str = "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done";
/// Does not.
const DEAF: &str = "trap '' TERM; echo up; while :; do sleep 0.05; done";

fn background(engine: &Engine<'_>, options: &[&str], script: &str) {
    let line = [&["run", "-d", "--network", "none"], options, &["busybox", "sh", "-c", script]].concat();
    engine.dozen(&line).expect(0);
}

fn says(engine: &Engine<'_>, name: &str, line: &str, times: usize) {
    until(&format!("{name} says {line} {times} times"), || {
        let log = engine.dozen(&["logs", name]).out;
        (log.lines().filter(|said| *said == line).count() >= times).then_some(())
    });
}

fn state(engine: &Engine<'_>, name: &str) -> String {
    engine.dozen(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name]).text().trim().to_owned()
}

/// What docker's own CLI hears of a container, with the attributes that tell one event from another.
fn events(engine: &Engine<'_>, name: &str) -> Vec<String> {
    let (until, container) = (next_second(), format!("container={name}"));
    let format =
        "{{.Action}}{{with .Actor.Attributes.signal}} {{.}}{{end}}{{with .Actor.Attributes.exitCode}} {{.}}{{end}}";
    let line = ["events", "--since", "1h", "--until", &until, "--filter", &container, "--format", format];
    engine.docker(&line).text().lines().map(str::to_owned).collect()
}

/// The order is Docker's (docs.docker.com/reference/cli/docker/system/events).
#[test]
fn events_come_in_order() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");

    let run = ["run", "--rm", "--name", "brief", "--network", "none", "busybox", "sh", "-c", "exit 3"];
    engine.docker(&run).expect(3);
    assert_eq!(events(&engine, "brief"), ["create", "attach", "start", "die 3", "destroy"]);

    background(&engine, &["--name", "polite"], WORKER);
    says(&engine, "polite", "up", 1);
    engine.docker(&["exec", "polite", "sh", "-c", "exit 7"]).expect(7);
    engine.docker(&["stop", "polite"]).expect(0);
    engine.docker(&["rm", "polite"]).expect(0);
    let (exec, life): (Vec<String>, Vec<String>) =
        events(&engine, "polite").into_iter().partition(|event| event.starts_with("exec"));
    assert_eq!(exec, ["exec_create: sh -c exit 7", "exec_start: sh -c exit 7", "exec_die 7"]);
    assert_eq!(life, ["create", "start", "kill 15", "die 4", "stop", "destroy"]);

    background(&engine, &["--rm", "--name", "deaf"], DEAF);
    says(&engine, "deaf", "up", 1);
    engine.docker(&["stop", "--time", "0", "deaf"]).expect(0);
    until("it has removed itself", || engine.dozen(&["ps", "-aq"]).text().is_empty().then_some(()));
    let killed = ["kill 15", "kill 9", "die 137", "stop", "destroy"];
    assert_eq!(events(&engine, "deaf"), [&["create", "start"][..], &killed].concat());

    background(&engine, &["--name", "killed"], DEAF);
    engine.docker(&["kill", "--signal", "USR1", "killed"]).expect(0);
    engine.docker(&["kill", "killed"]).expect(0);
    engine.docker(&["rm", "killed"]).expect(0);
    // Without a handler the first signal may be the end of it, and then there is no second.
    let heard = events(&engine, "killed");
    assert_eq!(heard[..3], ["create", "start", "kill 10"], "{heard:?}");
    assert!(heard[3..] == ["die 138", "destroy"] || heard[3..] == ["kill 9", "die 137", "destroy"], "{heard:?}");

    background(&engine, &["--name", "forced"], DEAF);
    engine.docker(&["rm", "-f", "forced"]).expect(0);
    assert_eq!(events(&engine, "forced"), ["create", "start", "kill 9", "die 137", "destroy"]);

    background(&engine, &["--name", "again"], WORKER);
    says(&engine, "again", "up", 1);
    engine.docker(&["restart", "again"]).expect(0);
    let restarted = ["create", "start", "kill 15", "die 4", "stop", "start", "restart"];
    assert_eq!(events(&engine, "again"), restarted);
    engine.docker(&["rm", "-f", "again"]).expect(0);
}

/// Who sees the end may have the port, the address and the name at once.
#[test]
fn what_a_container_had_is_free_when_its_end_is_seen() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let done = engine.python(
        "import docker
client = docker.from_env()
options = dict(detach=True, ports={'80/tcp': 8080})
for i in range(15):
    container = client.containers.run('busybox', ['true'], **options)
    container.wait()
    assert container.attrs and client.containers.get(container.id).status == 'exited'
for i in range(15):
    container = client.containers.create('busybox', ['sleep', '1000'], name='same', auto_remove=True, **options)
    container.start()
    container.kill()
    try:
        container.wait(condition='removed')
    except docker.errors.NotFound:
        pass
for i in range(15):
    container = client.containers.run('busybox', ['sleep', '1000'], name='same', **options)
    container.remove(force=True)
print('ok')",
    );
    assert_eq!(done.text(), "ok\n");
}

/// Each run leaves a line in the container's own layer.
const COUNTS: &str = "echo run >>/runs; trap 'echo told; exit 0' TERM; echo up; while :; do sleep 0.05; done";

fn runs(engine: &Engine<'_>, name: &str) -> usize {
    engine.dozen(&["exec", name, "cat", "/runs"]).text().lines().count()
}

#[test]
fn a_restart_keeps_a_container_that_would_remove_itself() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    background(&engine, &["--rm", "--name", "kept", "-v", "/scratch"], COUNTS);
    says(&engine, "kept", "up", 1);
    for restarts in 1..4 {
        engine.docker(&["restart", "kept"]).expect(0);
        says(&engine, "kept", "up", restarts + 1);
        assert_eq!(runs(&engine, "kept"), restarts + 1);
    }
    // It removes itself when nobody wants it back.
    engine.docker(&["stop", "kept"]).expect(0);
    until("it is gone", || engine.dozen(&["ps", "-aq"]).text().is_empty().then_some(()));
    assert_eq!(engine.dozen(&["volume", "ls", "-q"]).text(), "");

    // One that does not run is started, and one that cannot be started is treated as one that was started.
    background(&engine, &["--name", "ended"], "true");
    engine.dozen(&["wait", "ended"]).expect(0);
    engine.dozen(&["restart", "ended"]).expect(0);
    engine.dozen(&["create", "--rm", "--name", "broken", "busybox", "no-such-program"]).expect(0);
    engine.dozen(&["restart", "broken"]).refuses(1, &["no-such-program"]);
    assert_eq!(engine.dozen(&["ps", "-a", "--format", "{{.Names}}"]).text(), "ended\n");
}

/// Many at a time, and of two wishes the later holds.
#[test]
fn restarts_and_stops_at_the_same_time_agree() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    background(&engine, &["--name", "busy"], COUNTS);
    says(&engine, "busy", "up", 1);
    let restart = || machine.command(dozen_program()).args(["restart", "busy"]).spawn().unwrap();
    let clients: Vec<Child> = (0..6).map(|_| restart()).collect();
    for mut client in clients {
        assert!(client.wait().unwrap().success());
    }
    assert_eq!(state(&engine, "busy"), "running 0");
    let heard = events(&engine, "busy");
    let count = |what: &str| heard.iter().filter(|event| event.starts_with(what)).count();
    assert_eq!((count("start"), count("die")), (runs(&engine, "busy"), runs(&engine, "busy") - 1), "{heard:?}");

    // It will not end by being asked: whoever comes second decides.
    background(&engine, &["--name", "deaf"], DEAF);
    says(&engine, "deaf", "up", 1);
    let mut restart = machine.command(dozen_program());
    let restart = restart.args(["restart", "-t", "100", "deaf"]).stderr(Stdio::piped()).spawn().unwrap();
    until("the restart is under way", || events(&engine, "deaf").contains(&"kill 15".to_owned()).then_some(()));
    assert_eq!(engine.dozen(&["start", "deaf"]).expect(0).out, "deaf\n", "it runs");
    engine.dozen(&["rm", "deaf"]).refuses(1, &["container is running"]);
    engine.dozen(&["stop", "-t", "0", "deaf"]).expect(0);
    let restart = restart.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&restart.stderr).into_owned();
    assert!(!restart.status.success() && words.contains("before it could start again"), "{words}");
    assert_eq!(state(&engine, "deaf"), "exited 137");
    engine.dozen(&["start", "deaf"]).expect(0);
    let mut restart = machine.command(docker_program()).args(["restart", "-t", "100", "deaf"]).spawn().unwrap();
    until("that, too", || (events(&engine, "deaf").iter().filter(|e| *e == "kill 15").count() == 3).then_some(()));
    engine.dozen(&["rm", "-f", "deaf"]).expect(0);
    assert!(!restart.wait().unwrap().success());
    assert_eq!(engine.dozen(&["ps", "-a", "--format", "{{.Names}}"]).text(), "busy\n");
}

/// The next engine finishes what was asked of the one that died.
#[test]
fn what_was_wished_comes_true_though_the_engine_dies() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    // Ends when it is asked for the second time, which is by another engine.
    let stubborn =
        "n=0; trap 'n=$((n+1)); echo told; [ $n = 1 ] || exit 3' TERM; echo up; while :; do sleep 0.05; done";
    // Ends while there is none: it is let go then.
    let go = machine.directory().join("go");
    std::fs::create_dir(&go).unwrap();
    let slow = "trap 'echo told; until [ -e /go/now ]; do sleep 0.05; done; exit 3' TERM;
        echo run >>/runs; echo up; while :; do sleep 0.05; done";
    let go_volume = format!("{}:/go", go.display());
    for (name, script, options) in [
        ("stopped", stubborn, &[][..]),
        ("restarted", stubborn, &["--rm"]),
        ("slow", slow, &["--rm", "-v", go_volume.as_str()]),
        ("removed", "trap '' TERM; echo up; while :; do sleep 0.05; done", &["--rm", "-v", "/scratch"]),
    ] {
        background(&engine, &[&["--name", name], options].concat(), script);
        says(&engine, name, "up", 1);
    }
    let verbs = [("stopped", "stop"), ("restarted", "restart"), ("slow", "restart"), ("removed", "restart")];
    let clients = verbs.map(|(name, verb)| {
        machine.command(dozen_program()).args([verb, "-t", "100", name]).stderr(Stdio::null()).spawn().unwrap()
    });
    for name in ["stopped", "restarted", "slow"] {
        says(&engine, name, "told", 1);
    }
    until("all were asked", || events(&engine, "removed").contains(&"kill 15".to_owned()).then_some(()));
    engine.kill();
    for mut client in clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    std::fs::write(go.join("now"), "").unwrap();
    until("slow has ended", || {
        let ended = |path: &std::path::Path| path.join("exit.json").exists();
        let containers = std::fs::read_dir(machine.directory().join("data/containers")).unwrap().flatten();
        containers.map(|entry| entry.path()).any(|path| ended(&path)).then_some(())
    });
    engine.restart();
    assert_eq!(engine.dozen(&["wait", "stopped"]).text(), "3\n");
    says(&engine, "restarted", "up", 2);
    says(&engine, "slow", "up", 2);
    assert_eq!(runs(&engine, "slow"), 2);
    assert_eq!(state(&engine, "restarted"), "running 0");
    engine.dozen(&["rm", "-f", "removed"]).expect(0);
    for name in ["restarted", "slow"] {
        engine.dozen(&["rm", "-f", name]).expect(0);
    }
    assert_eq!(engine.dozen(&["ps", "-a", "--format", "{{.Names}}"]).text(), "stopped\n");
    assert_eq!(engine.dozen(&["volume", "ls", "-q"]).text(), "");
}
