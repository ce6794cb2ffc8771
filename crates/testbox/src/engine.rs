//! An engine on the machine, and the clients that talk to it.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::Machine;
use crate::tools::{self, Done};
use crate::wait::{patience, until};

/// A running engine. Dropping it asks it to end; what it started may live on until the [`Machine`] is dropped.
#[derive(Debug)]
pub struct Engine<'a> {
    machine: &'a Machine,
    process: Child,
    number: u32,
}

impl<'a> Engine<'a> {
    pub(crate) fn start(machine: &'a Machine, number: u32) -> Self {
        let log = File::create(machine.directory().join(format!("engine-{number}.log"))).unwrap();
        let mut command = machine.command(tools::dozen_program());
        command.arg("daemon").stdout(log.try_clone().unwrap()).stderr(log);
        let mut engine = Self { machine, process: command.spawn().unwrap(), number };
        engine.wait_until_it_answers();
        engine
    }

    /// The socket may be there before the engine (the keeper holds it), so it is the answer to a request that counts.
    fn wait_until_it_answers(&mut self) {
        until("the engine answers", || {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("the engine has ended ({status}): its log is below");
            }
            self.ping().ok()
        });
    }

    fn ping(&self) -> std::io::Result<()> {
        use std::io::{Read, Write};
        let mut stream = UnixStream::connect(self.machine.socket())?;
        stream.set_read_timeout(Some(patience(std::time::Duration::from_secs(5))))?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.contains("200 OK") { Ok(()) } else { Err(std::io::Error::other(answer)) }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The `dozen` CLI.
    pub fn dozen(&self, arguments: &[&str]) -> Done {
        self.machine.run(tools::dozen_program(), arguments)
    }

    /// The docker CLI.
    pub fn docker(&self, arguments: &[&str]) -> Done {
        self.machine.run(tools::docker_program(), arguments)
    }

    /// A python program that may `import docker`; `docker.from_env()` finds the engine.
    pub fn python(&self, program: &str) -> Done {
        self.machine.run(tools::python_program(), &["-c", program])
    }

    /// Loads an image of `cargo xtask images`.
    pub fn load(&self, name: &str) {
        let archive = tools::image_archive(name);
        self.dozen(&["load", "--input", archive.to_str().unwrap()]).expect(0);
    }

    /// `kill -9`: containers live on.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, after [`Self::kill`] or in its place.
    pub fn restart(&mut self) {
        self.end();
        *self = self.machine.engine();
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.machine.directory().join(format!("engine-{}.log", self.number)))
            .unwrap_or_default()
    }

    fn end(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            let pid = Pid::from_raw(self.process.id() as i32).expect("a child has a pid");
            let _ = kill_process(pid, Signal::TERM);
            let mut tries = 0;
            // An engine that does not end by itself is a failure of the test that looks at it, not of its tidying up.
            while matches!(self.process.try_wait(), Ok(None)) {
                tries += 1;
                if tries > 1000 {
                    eprintln!("the engine does not heed SIGTERM: killed");
                    let _ = self.process.kill();
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
