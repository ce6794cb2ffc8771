//! Whatever is killed, at whatever moment: what runs never notices, what was interrupted is finished or gone, and the
//! engine that comes next knows what is on the host.
//!
//! A round arms one failpoint (`dozen daemon --failpoints` lists them), runs a scenario until the process has died
//! there, starts the engine again if it was the engine, and looks. Another test kills at random.

#![allow(clippy::unwrap_used, missing_docs)]
#![allow(clippy::print_stdout, reason = "a test that fails shows where it was")]

mod agree;
mod bench;
mod builds;
mod innocent;
mod random;
mod scenario;
mod snapshots;
mod soak;
mod transfers;

use std::collections::BTreeSet;
use std::process::Command;

use dozen_testbox::dozen_program;
use rustix::process::{Signal, kill_process};

use crate::bench::{Bench, kill, stop, until_none};
use crate::innocent::Innocent;

/// Runs a container that lives until it is killed.
const VICTIM: [&str; 9] = ["run", "-d", "--name", "victim", "-p", "8081:80", "busybox", "sleep", "1000"];

/// A machine on which rounds are played.
struct Ring {
    bench: Bench,
    innocent: Innocent,
    /// What is on it between two rounds.
    before: BTreeSet<String>,
    /// The scenario's chapter in which the last one died: where the next failpoint of the list is likely to be, too.
    chapter: usize,
    /// How often all was as it ought to be.
    checked: usize,
}

/// After so many rounds the whole scenario is played instead of the chapter in which something was killed.
const WHOLE_AFTER: usize = 10;

impl Ring {
    fn new() -> Self {
        let mut bench = Bench::new();
        let innocent = Innocent::new(&mut bench);
        scenario::run(&mut bench);
        agree::check(&mut bench);
        let before = agree::traces(&bench);
        Self { bench, innocent, before, chapter: 0, checked: 0 }
    }

    /// Something has been killed: all is as it ought to be, works, and leaves nothing.
    fn check(&mut self) {
        self.innocent.check(&self.bench);
        self.bench.revive();
        agree::check(&mut self.bench);
        self.innocent.check_engine(&mut self.bench);
        scenario::clear(&mut self.bench);
        self.checked += 1;
        if self.checked.is_multiple_of(WHOLE_AFTER) {
            scenario::run(&mut self.bench);
        } else {
            scenario::run_chapter(&mut self.bench, scenario::CHAPTERS[self.chapter]);
        }
        agree::check(&mut self.bench);
        self.innocent.check(&self.bench);
        self.nothing_is_left();
    }

    /// What is on the machine is what was on it in the beginning.
    fn nothing_is_left(&self) {
        let (before, bench) = (&self.before, &self.bench);
        until_none("something is left, or missing", 15, || {
            let now = agree::traces(bench);
            let mut differences: Vec<String> = now.difference(before).map(|line| format!("left: {line}")).collect();
            differences.extend(before.difference(&now).map(|line| format!("missing: {line}")));
            differences
        });
    }

    /// Plays the scenario until whoever is to die there has died.
    fn reach(&mut self, failpoint: &str) {
        let chapters = scenario::CHAPTERS.iter().enumerate().cycle().skip(self.chapter).take(scenario::CHAPTERS.len());
        for (index, chapter) in chapters {
            if scenario::try_chapter(&mut self.bench, chapter, |bench| !bench.is_armed(failpoint)) {
                self.chapter = index;
                return;
            }
        }
    }

    /// Waits until whoever was to die has died there.
    fn await_death(&self, failpoint: &str) {
        until_none(&format!("{failpoint} was never reached"), 10, || {
            self.bench.is_armed(failpoint).then(String::new).into_iter().collect()
        });
    }
}

/// The failpoints of one process, in one of two halves: the halves run at the same time.
fn failpoints(process: &str, half: Option<usize>) -> Vec<String> {
    let output = Command::new(dozen_program()).args(["daemon", "--failpoints"]).output().unwrap();
    let all = String::from_utf8(output.stdout).unwrap();
    if let Ok(one) = std::env::var("DOZEN_TEST_FAILPOINT") {
        assert!(all.lines().any(|name| name == one), "{one} is no failpoint; these are:\n{all}");
        return if one.starts_with(process) && half != Some(1) { vec![one] } else { Vec::new() };
    }
    let of_process: Vec<String> =
        all.lines().filter(|name| name.split('.').next() == Some(process)).map(str::to_owned).collect();
    assert!(of_process.len() > 10, "{all}");
    let in_half = |index: usize| half.is_none_or(|half| index % 2 == half);
    let (share, shares) = share();
    let is_chosen = |index: usize| in_half(index) && index / 2 % shares == share;
    of_process.into_iter().enumerate().filter(|(index, _)| is_chosen(*index)).map(|(_, name)| name).collect()
}

/// `DOZEN_TEST_SHARE=2/5` plays the third of five parts: on an emulated machine all of it takes hours.
fn share() -> (usize, usize) {
    let Ok(text) = std::env::var("DOZEN_TEST_SHARE") else { return (0, 1) };
    let parts = text.split_once('/').and_then(|(share, of)| Some((share.parse().ok()?, of.parse().ok()?)));
    parts.filter(|(share, of)| share < of).expect("DOZEN_TEST_SHARE is N/M, with N from 0 to M - 1")
}

fn the_engine_dies(half: usize) {
    let mut ring = Ring::new();
    let all = failpoints("engine", Some(half));
    let begins_with = |name: &str, beginnings: &[&str]| beginnings.iter().any(|beginning| name.starts_with(beginning));
    let of_the_end = ["engine.retire.", "engine.network.teardown.", "engine.network.mend."];
    let of_the_begin = ["engine.recover.", "engine.network.open.", "engine.network.retain."];
    let (at_the_end, others): (Vec<&String>, Vec<_>) = all.iter().partition(|name| begins_with(name, &of_the_end));
    for failpoint in &others {
        println!("-- {failpoint}");
        ring.bench.arm(failpoint);
        if begins_with(failpoint, &of_the_begin) {
            ring.bench.kill_engine();
            assert!(!ring.bench.start(), "{failpoint} was never reached");
        } else if *failpoint == "engine.keeper.upgraded" {
            ring.bench.kill_engine();
            ring.bench.install_another_build();
            assert!(!ring.bench.start(), "{failpoint} was never reached");
        } else if *failpoint == "engine.keeper.settled" {
            // As an older build had left it.
            ring.bench.kill_engine();
            let keeper = ring.bench.keeper().unwrap();
            ring.bench.machine.move_to_commands(keeper.as_raw_pid());
            assert!(!ring.bench.start(), "{failpoint} was never reached");
        } else if *failpoint == "engine.keeper.spawned" {
            kill(ring.bench.keeper().unwrap());
        } else if ["engine.keeper.hangs", "engine.keeper.killed"].contains(&failpoint.as_str()) {
            // The engine that comes next finds it as it is, if the first got no further.
            stop(ring.bench.keeper().unwrap());
            ring.reach(failpoint);
        } else if failpoint.starts_with("engine.rescue.") {
            let id = ring.bench.dozen(&VICTIM).expect(0);
            let monitor = ring.bench.monitor(&id[..12]).expect("it runs");
            stop(monitor);
            ring.bench.try_dozen(&["kill", "victim"]);
            ring.await_death(failpoint);
            // It goes on beside the next engine, if it still lives.
            let _ = kill_process(monitor, Signal::CONT);
        } else {
            ring.reach(failpoint);
        }
        ring.await_death(failpoint);
        ring.bench.end_engine(false);
        ring.check();
    }
    let Ring { mut bench, innocent, .. } = ring;
    innocent.remove(&mut bench);
    for failpoint in at_the_end {
        println!("-- {failpoint}");
        bench.arm(failpoint);
        let mends = failpoint.starts_with("engine.network.mend.");
        if mends {
            // No container has its port on the host at this moment: nobody notices.
            bench.machine.run("nft", &["flush ruleset"]).expect(0);
        }
        bench.end_engine(!mends);
        assert!(!bench.is_armed(failpoint), "{failpoint} was never reached");
        assert!(bench.start());
        scenario::run(&mut bench);
        agree::check(&mut bench);
    }
    // The bridge is made anew, not found.
    for failpoint in others.into_iter().filter(|name| name.starts_with("engine.network.open.")) {
        bench.end_engine(true);
        println!("-- {failpoint}, from nothing");
        bench.arm(failpoint);
        assert!(!bench.start(), "{failpoint} was never reached");
        assert!(bench.start());
        scenario::run(&mut bench);
        agree::check(&mut bench);
    }
    bench.end_engine(true);
    let left = bench.machine.snapshot();
    let ours = ["interface dz", "firewall table", "cgroup dozen"];
    let is_ours = |line: &&String| ours.iter().any(|begin| line.starts_with(begin)) || line.contains(" keeper ");
    let left: Vec<&String> = left.iter().filter(is_ours).collect();
    assert!(left.is_empty(), "left of an engine that ended in order: {left:?}");
}

#[test]
fn an_engine_that_dies_is_not_missed() {
    the_engine_dies(0);
}

#[test]
fn an_engine_that_dies_in_between_is_not_missed() {
    the_engine_dies(1);
}

#[test]
fn a_monitor_that_dies_takes_only_its_own_container_along() {
    a_monitor_dies("monitor");
}

/// The monitor dies in the runtime, or the process that it has cloned, of which the monitor has to tell.
#[test]
fn a_container_that_dies_while_it_is_made_was_never_there() {
    a_monitor_dies("runtime");
}

fn a_monitor_dies(process: &str) {
    let mut ring = Ring::new();
    for failpoint in failpoints(process, None) {
        println!("-- {failpoint}");
        ring.bench.arm(&failpoint);
        let undoes = failpoint.contains(".undo.");
        if undoes {
            // What makes a monitor undo a container is an engine that dies before the go-ahead.
            ring.bench.arm("engine.launch.created");
        }
        ring.reach(&failpoint);
        ring.await_death(&failpoint);
        if undoes {
            // The monitor hears of the end of its connections, which comes a moment before its own.
            until_none("what the monitor undoes", 10, || {
                ring.bench.engine_lives().then(|| "the engine lives".to_owned()).into_iter().collect()
            });
        } else {
            assert!(ring.bench.engine_lives(), "the engine died of its monitor's death");
        }
        ring.check();
    }
}

#[test]
fn a_container_whose_monitor_dies_ends_with_it() {
    let mut ring = Ring::new();
    for engine_dies_too in [false, true] {
        let id = ring.bench.dozen(&VICTIM).expect(0);
        let monitor = ring.bench.monitor(&id[..12]).expect("it runs");
        if engine_dies_too {
            ring.bench.kill_engine();
        }
        kill(monitor);
        ring.innocent.check(&ring.bench);
        ring.bench.revive();
        assert_eq!(ring.bench.dozen(&["wait", "victim"]).expect(0), "255\n");
        let why = ring.bench.dozen(&["inspect", "--format", "{{.State.Status}} {{.State.Error}}", "victim"]).expect(0);
        assert!(why.starts_with("exited the container's monitor died"), "{why}");
        ring.check();
    }
}

/// Nobody else could let it run while there is no engine.
#[test]
fn who_stands_still_for_an_engine_runs_when_that_dies() {
    let mut ring = Ring::new();
    let script = "while :; do echo >>/file; done";
    let writer = ["run", "-d", "--name", "victim", "-p", "8081:80", "busybox", "sh", "-c", script];
    let id = ring.bench.dozen(&writer).expect(0);
    let file = ring.bench.machine.directory().join("data/containers").join(id.trim()).join("upper/file");
    let length = || std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
    until_none("it writes nothing", 15, || (length() == 0).then(String::new).into_iter().collect());
    ring.bench.arm("engine.hold.still");
    ring.bench.try_dozen(&["commit", "victim", "alive:1"]);
    ring.await_death("engine.hold.still");
    ring.bench.end_engine(false);
    let before = length();
    until_none("it stands still", 15, || (length() == before).then(String::new).into_iter().collect());
    ring.check();
}

/// It began without a way out, so its port comes with the first network: with it or not at all.
#[test]
fn a_port_that_comes_with_a_network_is_there_with_it() {
    let mut ring = Ring::new();
    let of_a_connect = ["engine.connect.", "engine.publish."];
    let is_of_a_connect = |name: &&String| of_a_connect.iter().any(|begin| name.starts_with(begin));
    let mut reached = 0;
    for failpoint in failpoints("engine", None).iter().filter(is_of_a_connect) {
        println!("-- {failpoint}");
        ring.bench.dozen(&VICTIM).expect(0);
        ring.bench.dozen(&["network", "disconnect", "bridge", "victim"]).expect(0);
        ring.bench.dozen(&["restart", "-t", "0", "victim"]).expect(0);
        ring.bench.arm(failpoint);
        ring.bench.try_dozen(&["network", "connect", "bridge", "victim"]);
        ring.await_death(failpoint);
        ring.bench.end_engine(false);
        ring.check();
        reached += 1;
    }
    assert!(reached > 5 || std::env::var("DOZEN_TEST_FAILPOINT").is_ok(), "{reached}");
}

#[test]
fn a_keeper_that_dies_is_replaced() {
    let mut ring = Ring::new();
    let all = failpoints("keeper", None);
    let (at_the_end, others): (Vec<_>, Vec<_>) = all.iter().partition(|name| name.starts_with("keeper.shutdown."));
    for failpoint in others {
        println!("-- {failpoint}");
        ring.bench.arm(failpoint);
        if failpoint.starts_with("keeper.begin") || failpoint.starts_with("keeper.adopt") {
            kill(ring.bench.keeper().unwrap());
        } else if failpoint.starts_with("keeper.upgrade") {
            ring.bench.kill_engine();
            ring.bench.install_another_build();
            assert!(ring.bench.start());
        } else if failpoint.starts_with("keeper.listener") {
            // A new keeper has to make the socket only for an engine that does not hold it.
            ring.bench.kill_engine();
            kill(ring.bench.keeper().unwrap());
            assert!(ring.bench.start());
        } else {
            ring.reach(failpoint);
        }
        ring.await_death(failpoint);
        assert!(ring.bench.engine_lives(), "the engine died of its keeper's death");
        ring.check();
    }
    let Ring { mut bench, innocent, .. } = ring;
    innocent.remove(&mut bench);
    for failpoint in at_the_end {
        println!("-- {failpoint}");
        bench.arm(failpoint);
        bench.end_engine(true);
        assert!(!bench.is_armed(failpoint), "{failpoint} was never reached");
        assert!(bench.keeper().is_none(), "a keeper is left");
        assert!(bench.start());
        scenario::run(&mut bench);
        agree::check(&mut bench);
    }
}
