//! Health checks: what they say, what is seen of it, and what follows.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Engine, Machine, docker_program, until};

/// Heeds SIGTERM; each run leaves a line in the container's own layer.
const WORKS: &str = "echo run >>/runs; trap 'exit 4' TERM; while :; do sleep 0.05; done";

fn background(engine: &Engine<'_>, name: &str, options: &[&str]) {
    let begin = ["run", "-d", "--network", "none", "--name", name, "--health-interval", "50ms"];
    engine.dozen(&[&begin[..], options, &["busybox", "sh", "-c", WORKS]].concat()).expect(0);
}

fn inspect(engine: &Engine<'_>, name: &str, format: &str) -> String {
    engine.dozen(&["inspect", "--format", format, name]).text().trim().to_owned()
}

fn becomes(engine: &Engine<'_>, name: &str, format: &str, wanted: &str) {
    let mut last = String::new();
    until(&format!("{name} becomes {wanted}"), || {
        last = inspect(engine, name, format);
        (last == wanted).then_some(())
    });
}

fn streak(engine: &Engine<'_>, name: &str) -> u32 {
    inspect(engine, name, "{{.State.Health.FailingStreak}}").parse().unwrap()
}

const STATUS: &str = "{{.State.Health.Status}}";

#[test]
fn checks_say_whether_a_container_is_well() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let path = machine.directory().join("events");
    let mut listener = machine
        .command(docker_program())
        .args(["events", "--format", "{{.Action}}"])
        .stdout(std::fs::File::create(&path).unwrap())
        .spawn()
        .unwrap();
    // What it hears of this shows that it listens.
    until("someone listens", || {
        engine.dozen(&["run", "--rm", "--network", "none", "busybox", "true"]).expect(0);
        (std::fs::metadata(&path).unwrap().len() > 0).then_some(())
    });
    background(&engine, "web", &["--health-cmd", "cat /well", "--health-retries", "2"]);
    becomes(&engine, "web", STATUS, "unhealthy");
    let row = |filter: &str| {
        let line = ["ps", "--filter", &format!("health={filter}"), "--format", "{{.Names}} {{.Status}}"];
        engine.docker(&line).text()
    };
    assert!(row("unhealthy").ends_with("(unhealthy)\n") && row("healthy").is_empty());
    let failed = inspect(&engine, "web", "{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}");
    assert_eq!(failed, "1 cat: can't open '/well': No such file or directory");
    until("five results are kept", || (inspect(&engine, "web", "{{len .State.Health.Log}}") == "5").then_some(()));
    assert!(streak(&engine, "web") >= 2);
    engine.docker(&["exec", "web", "sh", "-c", "echo fine >/well"]).expect(0);
    becomes(&engine, "web", STATUS, "healthy");
    assert!(row("healthy").ends_with("(healthy)\n"), "{}", row("healthy"));
    assert_eq!(streak(&engine, "web"), 0);
    let check = engine.docker(&["inspect", "--format", "{{json .Config.Healthcheck}}", "web"]).text();
    assert_eq!(check.trim(), r#"{"Test":["CMD-SHELL","cat /well"],"Interval":50000000,"Retries":2}"#);

    // Docker's words, as they happen: checks are many, and the engine remembers few.
    let hears = |wanted: &[&str]| {
        let heard = std::fs::read_to_string(&path).unwrap();
        let mut lines = heard.lines();
        wanted.iter().all(|action| lines.any(|line| line == *action))
    };
    let command = "/bin/sh -c cat /well";
    let (create, start) = (format!("exec_create: {command}"), format!("exec_start: {command}"));
    let actions = [&create, &start, "exec_die", "health_status: unhealthy", "exec_die", "health_status: healthy"];
    until("all of it is told", || hears(&actions).then_some(()));
    listener.kill().unwrap();
    listener.wait().unwrap();

    // Nobody looks after one that does not run, nor after one that has no check.
    engine.docker(&["stop", "web"]).expect(0);
    assert_eq!(inspect(&engine, "web", STATUS), "unhealthy");
    engine.docker(&["start", "web"]).expect(0);
    becomes(&engine, "web", STATUS, "healthy");
    engine
        .docker(&["run", "-d", "--network", "none", "--name", "plain", "--no-healthcheck", "busybox", "sleep", "1000"])
        .expect(0);
    assert_eq!(inspect(&engine, "plain", "{{if .State.Health}}checked{{end}}"), "");
    assert!(row("none").starts_with("plain Up "));
    let both = ["run", "--no-healthcheck", "--health-cmd", "true", "busybox", "true"];
    engine.docker(&both).refuses(125, &["--no-healthcheck conflicts with --health-* options"]);
}

#[test]
fn a_check_that_takes_too_long_is_killed_and_has_failed() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let slow = ["--health-cmd", "echo begun; exec sleep 777", "--health-timeout", "200ms", "--health-retries", "1"];
    background(&engine, "slow", &slow);
    becomes(&engine, "slow", STATUS, "unhealthy");
    let failed = inspect(&engine, "slow", "{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}");
    assert_eq!(failed, "-1 Health check exceeded timeout (200ms): begun");
    engine.docker(&["stop", "slow"]).expect(0);
    let left = machine.snapshot();
    assert!(!left.iter().any(|line| line.contains("sleep 777")), "{left:?}");
    // What cannot be run at all has failed as well.
    let missing = ["--health-cmd", "no-such-program", "--health-retries", "1"];
    background(&engine, "missing", &missing);
    becomes(&engine, "missing", STATUS, "unhealthy");
    assert!(inspect(&engine, "missing", "{{(index .State.Health.Log 0).Output}}").contains("not found"));
}

/// Failures of the start period do not count.
#[test]
fn a_start_period_is_waited_for() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let patient = ["--health-start-period", "1h", "--health-start-interval", "50ms", "--health-retries", "1"];
    background(&engine, "patient", &[&patient[..], &["--health-cmd", "cat /well"]].concat());
    until("it was checked", || (inspect(&engine, "patient", "{{len .State.Health.Log}}") == "5").then_some(()));
    assert_eq!((inspect(&engine, "patient", STATUS).as_str(), streak(&engine, "patient")), ("starting", 0));
    engine.docker(&["exec", "patient", "touch", "/well"]).expect(0);
    becomes(&engine, "patient", STATUS, "healthy");
}

#[test]
fn the_next_engine_goes_on_counting_and_nobody_checks_who_is_paused() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    background(&engine, "failing", &["--health-cmd", "false", "--health-retries", "1000000"]);
    until("it has failed", || (streak(&engine, "failing") >= 3).then_some(()));
    engine.kill();
    engine.restart();
    let kept = streak(&engine, "failing");
    assert!(kept >= 3, "{kept}");
    assert_eq!(inspect(&engine, "failing", STATUS), "starting");
    until("it is checked again", || (streak(&engine, "failing") > kept).then_some(()));
    engine.docker(&["pause", "failing"]).expect(0);
    let before = streak(&engine, "failing");
    for _ in 0..10 {
        assert_eq!(streak(&engine, "failing"), before);
    }
    engine.docker(&["unpause", "failing"]).expect(0);
    until("it is checked again", || (streak(&engine, "failing") > before).then_some(()));
    // Each run is judged for itself.
    engine.docker(&["restart", "failing"]).expect(0);
    assert!(streak(&engine, "failing") < before, "it has not failed so often since");
}

#[test]
fn what_is_unwell_is_restarted_stopped_or_killed_and_says_why() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let unwell = ["--health-cmd", "test $(cat /runs | wc -l) -gt 1", "--health-retries", "2", "--on-unhealthy"];
    let why = "the container was unhealthy: its health check failed 2 times in a row";
    let run = |name: &str, options: &[&str]| background(&engine, name, &[&unwell[..], options].concat());
    run("restarted", &["restart"]);
    becomes(&engine, "restarted", STATUS, "healthy");
    assert_eq!(inspect(&engine, "restarted", "{{.RestartCount}} {{.State.RestartReason}}"), format!("1 {why}"));
    assert_eq!(inspect(&engine, "restarted", "{{.HostConfig.OnUnhealthy}}"), "restart");
    // Stopped is stopped, and killed is a failure.
    run("stopped", &["stop", "--restart", "always"]);
    becomes(&engine, "stopped", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}", &format!("exited 4 {why}"));
    run("killed", &["kill", "--restart", "on-failure"]);
    becomes(&engine, "killed", STATUS, "healthy");
    assert_eq!(inspect(&engine, "killed", "{{.RestartCount}} {{.State.RestartReason}}"), format!("1 {why}"));
    run("left", &["kill"]);
    becomes(&engine, "left", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}", &format!("exited 137 {why}"));
    let nothing = ["run", "--on-unhealthy", "stop", "busybox", "true"];
    engine.dozen(&nothing).refuses(125, &["on-unhealthy needs a health check"]);
    engine
        .dozen(&["run", "--rm", "--health-cmd", "true", "--on-unhealthy", "restart", "busybox", "true"])
        .refuses(125, &["can't create 'AutoRemove' container"]);
    assert_eq!(engine.docker(&["ps", "-q"]).text().lines().count(), 2);
}
