//! A container that ends by itself runs again, or not, as its policy says: through engines that die and machines that go
//! down.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Engine, Machine, until};

/// Each run leaves a line in the container's own layer, and lasts as long as nobody ends it.
const COUNTS: &str = "echo run >>/runs; echo up; trap 'exit 0' TERM; while :; do sleep 0.05; done";

fn background(engine: &Engine<'_>, name: &str, options: &[&str], script: &str) {
    let begin = ["run", "-d", "--network", "none", "--name", name];
    engine.docker(&[&begin[..], options, &["busybox", "sh", "-c", script]].concat()).expect(0);
}

fn inspect(engine: &Engine<'_>, name: &str, format: &str) -> String {
    engine.docker(&["inspect", "--format", format, name]).text().trim().to_owned()
}

fn becomes(engine: &Engine<'_>, name: &str, format: &str, wanted: &str) {
    let mut last = String::new();
    until(&format!("{name} becomes {wanted}"), || {
        last = inspect(engine, name, format);
        (last == wanted).then_some(())
    });
}

fn pid(engine: &Engine<'_>, name: &str) -> u32 {
    inspect(engine, name, "{{.State.Pid}}").parse().unwrap()
}

/// Nobody has asked the engine for it. Of what comes from outside, process 1 heeds only this (pid_namespaces(7)).
fn crash(machine: &Machine, engine: &Engine<'_>, name: &str) {
    machine.run("kill", &["-KILL", &pid(engine, name).to_string()]).expect(0);
}

const COUNT: &str = "{{.State.Status}} {{.RestartCount}}";

#[test]
fn a_failure_is_retried_as_often_as_was_asked_and_inspect_says_why() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    background(&engine, "failing", &["--restart", "on-failure:2"], "echo run; exit 3");
    becomes(&engine, "failing", COUNT, "exited 2");
    assert_eq!(engine.docker(&["logs", "failing"]).text(), "run\n".repeat(3));
    // Docker's own CLI does not know of it.
    let why = engine.dozen(&["inspect", "--format", "{{.State.ExitCode}} {{.State.RestartReason}}", "failing"]).text();
    assert_eq!(why, "3 it exited with code 3\n");
    assert_eq!(
        inspect(&engine, "failing", "{{json .HostConfig.RestartPolicy}}"),
        r#"{"Name":"on-failure","MaximumRetryCount":2}"#
    );
    // A success is none.
    background(&engine, "done", &["--restart", "on-failure"], "exit 0");
    engine.docker(&["wait", "done"]).expect(0);
    assert_eq!(inspect(&engine, "done", COUNT), "exited 0");
    // Someone starts it: the count begins anew.
    engine.docker(&["start", "failing"]).expect(0);
    becomes(&engine, "failing", COUNT, "exited 2");
    engine.docker(&["run", "--rm", "--restart", "always", "busybox", "true"]).refuses(125, &["onflicting options"]);
    engine.docker(&["run", "--restart", "sometimes", "busybox", "true"]).refuses(125, &["invalid restart policy"]);
}

#[test]
fn who_waits_to_run_again_can_be_stopped_started_and_removed() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let fails = "[ -e /good ] || exit 1; echo good; exec sleep 1000";
    for name in ["waiting", "killed", "removed", "started"] {
        background(&engine, name, &["--restart", "always"], fails);
    }
    let waits = |name: &str| {
        // The pause is of 12 seconds then: longer than all that is asked within it takes, on a busy machine too.
        until("its pauses are long", || {
            inspect(&engine, name, "{{if ge .RestartCount 7}}x{{end}}").contains('x').then_some(())
        });
        becomes(&engine, name, "{{.State.Restarting}} {{.State.Running}} {{.State.Status}}", "true true restarting");
    };
    waits("waiting");
    let row = engine.docker(&["ps", "--format", "{{.Names}} {{.Status}}", "--filter", "name=waiting"]).text();
    assert!(row.starts_with("waiting Restarting (1)"), "{row}");
    let restarting = engine.docker(&["ps", "--format", "{{.Names}}", "--filter", "status=restarting"]).text();
    assert!(restarting.lines().any(|name| name == "waiting"), "{restarting}");
    engine.docker(&["exec", "waiting", "true"]).refuses(1, &["is restarting, wait until the container is running"]);
    engine.docker(&["pause", "waiting"]).refuses(1, &["is restarting"]);
    engine.docker(&["rm", "waiting"]).refuses(1, &["container is restarting: stop the container before removing"]);
    engine.docker(&["stop", "waiting"]).expect(0);
    assert_eq!(inspect(&engine, "waiting", "{{.State.Status}} {{.State.Restarting}}"), "exited false");
    engine.docker(&["rm", "waiting"]).expect(0);
    waits("killed");
    engine.docker(&["kill", "killed"]).expect(0);
    assert_eq!(inspect(&engine, "killed", "{{.State.Status}}"), "exited");
    waits("removed");
    engine.docker(&["rm", "-f", "removed"]).expect(0);
    waits("started");
    let id = inspect(&engine, "started", "{{.Id}}");
    std::fs::write(machine.directory().join("data/containers").join(id).join("upper/good"), "").unwrap();
    engine.docker(&["start", "started"]).expect(0);
    assert_eq!(inspect(&engine, "started", COUNT), "running 0");
    engine.docker(&["rm", "-f", "started", "killed"]).expect(0);
    assert_eq!(engine.docker(&["ps", "-aq"]).text(), "");
}

#[test]
fn what_someone_stops_or_kills_stays_down_and_what_crashes_does_not() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    for name in ["always", "unless-stopped"] {
        background(&engine, name, &["--restart", name], COUNTS);
        crash(&machine, &engine, name);
        becomes(&engine, name, COUNT, "running 1");
        assert_eq!(
            engine.dozen(&["inspect", "--format", "{{.State.RestartReason}}", name]).text(),
            "it exited with code 137\n"
        );
    }
    engine.docker(&["stop", "always"]).expect(0);
    engine.docker(&["kill", "unless-stopped"]).expect(0);
    assert_eq!(engine.docker(&["ps", "-q"]).text(), "");
    // Docker's rule: who says always means it, once the engine starts anew.
    engine.kill();
    engine.restart();
    becomes(&engine, "always", COUNT, "running 0");
    assert_eq!(
        engine.dozen(&["inspect", "--format", "{{.State.RestartReason}}", "always"]).text(),
        "the engine started\n"
    );
    assert_eq!(inspect(&engine, "unless-stopped", "{{.State.Status}}"), "exited");
    assert_eq!(engine.docker(&["exec", "always", "cat", "/runs"]).text().lines().count(), 3);
}

/// Nothing is decided while there is no engine; the next one catches up.
#[test]
fn what_ends_while_the_engine_is_dead_runs_again_with_the_next() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    background(&engine, "server", &["--restart", "unless-stopped"], COUNTS);
    background(&engine, "left", &[], COUNTS);
    // It joins the server's network, and cannot start before it.
    let joined = ["run", "-d", "--network", "container:server", "--name", "joined", "--restart", "always", "busybox"];
    engine.docker(&[&joined[..], &["sh", "-c", COUNTS]].concat()).expect(0);
    let pids = ["server", "left", "joined"].map(|name| pid(&engine, name).to_string());
    engine.kill();
    // All of them are gone, monitors with them.
    let monitors: Vec<String> = machine
        .snapshot()
        .into_iter()
        .filter_map(|line| {
            line.strip_prefix("process ")
                .and_then(|rest| rest.split_once(' '))
                .map(|(pid, command)| (pid.to_owned(), command.to_owned()))
        })
        .filter(|(_, command)| command.starts_with("dozen monitor"))
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(monitors.len(), 3);
    for pid in monitors.iter().chain(&pids) {
        machine.run("kill", &["-9", pid]);
    }
    engine.restart();
    for name in ["server", "joined"] {
        becomes(&engine, name, "{{.State.Status}}", "running");
    }
    let why = engine.dozen(&["inspect", "--format", "{{.State.RestartReason}}", "server"]).text();
    assert_eq!(why, "the container's monitor died\n");
    assert_eq!(inspect(&engine, "left", "{{.State.Status}} {{.State.ExitCode}}"), "exited 255");
    assert_eq!(inspect(&engine, "joined", "{{.RestartCount}}"), "1", "it was not tried before its server ran");
}

#[test]
fn an_update_gives_another_policy_which_holds_for_what_runs() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    background(&engine, "changed", &[], COUNTS);
    engine.docker(&["update", "--restart", "on-failure:7", "changed"]).expect(0);
    let policy = "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}";
    assert_eq!(inspect(&engine, "changed", policy), "on-failure 7");
    crash(&machine, &engine, "changed");
    becomes(&engine, "changed", COUNT, "running 1");
    engine.dozen(&["update", "--restart", "no", "changed"]).expect(0);
    crash(&machine, &engine, "changed");
    becomes(&engine, "changed", COUNT, "exited 1");
    background(&engine, "brief", &["--rm"], COUNTS);
    let words = "Restart policy cannot be updated because AutoRemove is enabled for the container";
    engine.docker(&["update", "--restart", "always", "brief"]).refuses(1, &[words]);
}
