//! `start`, when something comes in between.

use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use crate::bundle::{Bundle, failure, stdout};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::PidfdFlags;
use serde_json::{Value, json};

/// A container that is created, says in its root that it runs, and has a hook that counts its starts.
struct Waiting {
    bundle: Bundle,
}

impl Waiting {
    fn new() -> Self {
        let bundle = Bundle::new("echo > /tmp/runs; exec sleep 1000");
        let script = format!("echo started >> {}", bundle.directory.path().join("starts").display());
        let bundle = bundle.with(|spec| {
            spec["hooks"]["poststart"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
        });
        bundle.write();
        let mut create = bundle.command(&["create", "--bundle", bundle.path(), &bundle.id]);
        assert!(create.stdout(Stdio::null()).status().unwrap().success());
        Self { bundle }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.bundle.command(&[arguments, &[&self.bundle.id]].concat()).output().unwrap()
    }

    /// A `start` that is killed at a place.
    fn start_until(&self, failpoint: &str) {
        let failpoints = self.bundle.directory.path().join("failpoints");
        fs::create_dir_all(&failpoints).unwrap();
        let armed = failpoints.join(format!("runtime.{failpoint}"));
        fs::write(&armed, "").unwrap();
        let mut start = self.bundle.command(&["start", &self.bundle.id]);
        assert!(!start.env("DOZEN_FAILPOINTS", &failpoints).status().unwrap().success());
        assert!(!armed.exists(), "{failpoint} was never reached");
    }

    fn status(&self) -> String {
        let state: Value = serde_json::from_str(&stdout(&self.run(&["state"]))).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    fn state_directory(&self) -> PathBuf {
        self.bundle.directory.path().join("state").join(&self.bundle.id)
    }

    fn starts(&self) -> usize {
        fs::read_to_string(self.bundle.directory.path().join("starts")).unwrap_or_default().lines().count()
    }

    fn runs(&self) -> bool {
        self.bundle.root().join("tmp/runs").exists()
    }

    fn end(self) {
        stdout(&self.run(&["delete", "--force"]));
        self.bundle.check_nothing_is_left();
    }
}

#[test]
fn a_container_whose_start_cannot_be_recorded_is_not_started() {
    let waiting = Waiting::new();
    let obstacle = waiting.state_directory().join("state.json.new");
    fs::create_dir(&obstacle).unwrap();
    assert!(failure(&waiting.run(&["start"])).contains("state.json"));
    assert_eq!((waiting.status().as_str(), waiting.starts()), ("created", 0));
    fs::remove_dir(&obstacle).unwrap();
    // It waits: so it can be started, once.
    assert!(!waiting.runs());
    stdout(&waiting.run(&["start"]));
    assert_eq!((waiting.status().as_str(), waiting.starts()), ("running", 1));
    assert!(failure(&waiting.run(&["start"])).contains("already running"));
    waiting.end();
}

#[test]
fn whoever_may_run_is_not_deleted_without_force() {
    // Killed before the word: it waits, and is started by the next.
    let waiting = Waiting::new();
    waiting.start_until("command.start.record");
    assert_eq!(waiting.status(), "running");
    assert!(failure(&waiting.run(&["delete"])).contains("not stopped"));
    assert!(!waiting.runs());
    stdout(&waiting.run(&["start"]));
    assert_eq!(waiting.starts(), 1);
    waiting.end();
    // Killed after it.
    for failpoint in ["command.start.said", "command.start.told", "command.start.served"] {
        let waiting = Waiting::new();
        waiting.start_until(failpoint);
        assert_eq!(waiting.status(), "running");
        assert!(failure(&waiting.run(&["delete"])).contains("not stopped"));
        // Said, it is heard a moment later.
        let again = failure(&waiting.run(&["start"]));
        assert!(again.contains("already running") || again.contains("another was first"), "{again}");
        waiting.end();
    }
}

/// Of two, one has started it.
#[test]
fn a_container_is_started_once() {
    let waiting = Waiting::new();
    stdout(&waiting.run(&["pause"]));
    let start = || waiting.bundle.command(&["start", &waiting.bundle.id]).stderr(Stdio::null()).spawn().unwrap();
    let mut both = [start(), start()];
    // It stands still, and hears nobody: only who is refused comes back.
    let pidfd = |id| rustix::process::pidfd_open(rustix::process::Pid::from_raw(id).unwrap(), PidfdFlags::empty());
    let ends = [0, 1].map(|index: usize| pidfd(both[index].id() as i32).unwrap());
    let mut polled = [PollFd::new(&ends[0], PollFlags::IN), PollFd::new(&ends[1], PollFlags::IN)];
    poll(&mut polled, None).unwrap();
    let refused = usize::from(polled[0].revents().is_empty());
    assert!(!both[refused].wait().unwrap().success());
    stdout(&waiting.run(&["resume"]));
    assert!(both[1 - refused].wait().unwrap().success());
    assert_eq!(waiting.starts(), 1);
    waiting.end();
}

/// The word of one who was killed is heard when the container moves again; who comes after has not started it.
#[test]
fn the_word_of_another_is_no_start() {
    let waiting = Waiting::new();
    stdout(&waiting.run(&["pause"]));
    waiting.start_until("command.start.said");
    let mut start = waiting.bundle.command(&["start", &waiting.bundle.id]).stderr(Stdio::null()).spawn().unwrap();
    // Whether it comes before or after the resumption, it is told the truth.
    stdout(&waiting.run(&["resume"]));
    assert!(!start.wait().unwrap().success());
    assert_eq!((waiting.status().as_str(), waiting.starts()), ("running", 0));
    waiting.end();
}
