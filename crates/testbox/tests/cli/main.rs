//! What people type, with the docker CLI and with dozen's own: each test runs with both.

#![allow(clippy::unwrap_used, missing_docs)]

mod life;

mod mounts;
mod network;
mod process;
mod refusals;
mod roots;
mod scripts;
mod security;
mod streams;

use std::path::PathBuf;

use dozen_testbox::{Done, Machine, Screen, docker_program, dozen_program};

/// Says that it is up, then lives until it is stopped, with this exit code.
const WORKER: &str = "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done";

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Docker,
    Dozen,
}

/// A CLI on a machine with an engine that has the busybox image.
struct Cli<'a> {
    machine: &'a Machine,
    program: PathBuf,
}

impl Program {
    fn with(self, test: impl FnOnce(&Cli<'_>)) {
        let machine = Machine::new();
        let engine = machine.engine();
        engine.load("busybox");
        let program = match self {
            Self::Docker => docker_program(),
            Self::Dozen => dozen_program(),
        };
        test(&Cli { machine: &machine, program });
    }
}

impl Cli<'_> {
    /// Runs it to its end.
    fn run(&self, arguments: &[&str]) -> Done {
        self.machine.run(&self.program, arguments)
    }

    /// The output of a command that has to succeed.
    #[track_caller]
    fn text(&self, arguments: &[&str]) -> String {
        self.run(arguments).text()
    }

    /// `run --rm` with these options, then busybox and a script: what it says.
    #[track_caller]
    fn say(&self, options: &[&str], script: &str) -> String {
        self.script(options, script).text()
    }

    fn script(&self, options: &[&str], script: &str) -> Done {
        let line: Vec<&str> =
            ["run", "--rm"].iter().chain(options).chain(&["busybox", "sh", "-c", script]).copied().collect();
        self.run(&line)
    }

    fn with_input(&self, arguments: &[&str], input: &[u8]) -> Done {
        self.machine.run_with(&self.program, arguments, input, &[])
    }

    fn screen(&self, arguments: &[&str]) -> Screen {
        self.machine.screen(&self.program, arguments)
    }

    /// Starts a container in the background.
    #[track_caller]
    fn background(&self, name: &str, options: &[&str], script: &str) -> String {
        let line: Vec<&str> = ["run", "-d", "--name", name]
            .iter()
            .chain(options)
            .chain(&["busybox", "sh", "-c", script])
            .copied()
            .collect();
        self.text(&line).trim().to_owned()
    }

    /// Waits until the log says so.
    fn says(&self, name: &str, line: &str) {
        dozen_testbox::until(&format!("{name} says {line}"), || {
            self.text(&["logs", name]).lines().any(|said| said.trim_end() == line).then_some(())
        });
    }

    /// One field of `inspect`.
    #[track_caller]
    fn inspect(&self, name: &str, template: &str) -> String {
        self.text(&["inspect", "--format", template, name]).trim().to_owned()
    }
}

/// Makes a test for each of the two programs of a function that takes one.
macro_rules! for_both {
    ($($name:ident),* $(,)?) => {
        mod docker {
            $(#[test] fn $name() { super::$name(crate::Program::Docker); })*
        }
        mod dozen {
            $(#[test] fn $name() { super::$name(crate::Program::Dozen); })*
        }
    };
}
use for_both;
