//! Programs that people run, from Debian's packages.

#![allow(clippy::unwrap_used, missing_docs)]

mod apt;
mod nested;
mod postgres;
mod redis;
mod web;

use std::sync::atomic::{AtomicBool, Ordering};

use dozen_testbox::{Engine, Machine, until};
use rustix::process::{Flock, FlockOffsetType, FlockType, Pid, Signal};

fn with<'a>(machine: &'a Machine, image: &str) -> Engine<'a> {
    let engine = machine.engine();
    engine.load(image);
    engine
}

/// `kill -9` of the keeper, and a word with the one that takes its place: the engine starts it.
fn kill_the_keeper(machine: &Machine) {
    let keeper = || -> Option<Pid> {
        let lock = std::fs::File::open(machine.directory().join("run/keeper.lock")).unwrap();
        let any = Flock { start: 0, length: 0, pid: None, typ: FlockType::ReadLock, offset_type: FlockOffsetType::Set };
        rustix::process::fcntl_getlk(&lock, &any).unwrap()?.pid
    };
    let old = keeper().unwrap();
    rustix::process::kill_process(old, Signal::KILL).unwrap();
    until("the engine has a keeper again", || keeper().filter(|new| *new != old));
}

/// Set when this is dropped: a failure among threads ends those that go on until they are told.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
