//! An engine with arguments of the test's own: what it is configured with is what is tested.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::Machine;
use crate::tools::{Done, dozen_program, image_archive};
use crate::wait::until;

/// `dozen daemon` on a machine in a box. Dropping it ends it in order.
#[derive(Debug)]
pub struct Daemon<'a> {
    machine: &'a Machine,
    process: Child,
    log: PathBuf,
}

impl<'a> Daemon<'a> {
    /// With these arguments; waits until it listens.
    pub fn start(machine: &'a Machine, arguments: &[&str]) -> Self {
        let mut command = machine.command(dozen_program());
        command.arg("daemon").args(arguments);
        Self::of(machine, command)
    }

    /// By a command that becomes it.
    pub fn of(machine: &'a Machine, mut command: Command) -> Self {
        let log = machine.directory().join("daemon.log");
        let file = std::fs::File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let mut process = command.spawn().unwrap();
        until("the engine listens", || {
            let said = std::fs::read_to_string(&log).unwrap();
            assert!(process.try_wait().unwrap().is_none(), "the engine has ended: {said}");
            said.contains("listening on").then_some(())
        });
        Self { machine, process, log }
    }

    /// One that dies where a file of this directory says so (crates/failpoint).
    pub fn with_failpoints(machine: &'a Machine, directory: &Path) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let mut command = machine.command(dozen_program());
        command.arg("daemon").env("DOZEN_FAILPOINTS", directory);
        Self::of(machine, command)
    }

    /// With this configuration file.
    pub fn with_file(machine: &'a Machine, text: &str) -> Self {
        let path = configuration(machine);
        std::fs::write(&path, text).unwrap();
        Self::start(machine, &["--config-file", path.to_str().unwrap()])
    }

    /// Gives it another file to read; waits until it has.
    pub fn reload(&self, text: &str) {
        std::fs::write(configuration(self.machine), text).unwrap();
        let words = "the settings have been read again";
        let before = self.said().matches(words).count();
        self.signal(Signal::HUP);
        self.says(words, before + 1);
    }

    /// Runs our command line against it.
    pub fn dozen(&self, arguments: &[&str]) -> Done {
        self.machine.run(dozen_program(), arguments)
    }

    /// Gives it an image of the cache.
    pub fn load(&self, image: &str) {
        self.dozen(&["load", "--input", image_archive(image).to_str().unwrap()]).expect(0);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.process.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Its log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until its log has said this so often.
    pub fn says(&self, words: &str, times: usize) {
        until(words, || (self.said().matches(words).count() >= times).then_some(()));
    }
}

fn configuration(machine: &Machine) -> PathBuf {
    Path::join(machine.directory(), "daemon.json")
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("-- daemon.log\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        if matches!(self.process.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let _ = self.process.wait();
        }
    }
}
