//! The monitor over plain processes in place of containers, so that its streams, log and records can be tested
//! without a runtime. The spec's command runs on the host, in a session of its own.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use dozen_model::ErrorKind;
use dozen_monitor::isolate::{Isolate, Process, Streams};
use dozen_monitor::protocol::{ExecRequest, Failure, StartRequest};
use rustix::process::PidfdFlags;

#[derive(Default)]
struct Fake {
    gate: Option<OwnedFd>,
    sessions: Vec<i32>,
    program_missing: bool,
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure { kind: ErrorKind::Internal, message: error.to_string(), hint: None }
}

impl Fake {
    fn spawn(&mut self, mut command: Command, streams: Streams, gate: Option<OwnedFd>) -> Result<Process, Failure> {
        let mut terminal = None;
        let [stdin, stdout, stderr] = match streams {
            Streams::Each(streams) => streams,
            Streams::Terminal(_) => {
                use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
                let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map_err(failed)?;
                grantpt(&master).map_err(failed)?;
                unlockpt(&master).map_err(failed)?;
                let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
                    .map_err(failed)?;
                terminal = Some(master);
                [slave.try_clone().map_err(failed)?, slave.try_clone().map_err(failed)?, slave]
            }
        };
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let gate_number = gate.as_ref().map(AsRawFd::as_raw_fd);
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::setsid();
                if let Some(gate) = gate_number {
                    libc::dup2(gate, 9);
                }
                Ok(())
            });
        }
        let child = command.spawn().map_err(failed)?;
        let pid = child.id().cast_signed();
        self.sessions.push(pid);
        let handle = rustix::process::Pid::from_raw(pid).ok_or_else(|| failed("no pid"))?;
        let pidfd = rustix::process::pidfd_open(handle, PidfdFlags::empty()).map_err(failed)?;
        Ok(Process { pid, pidfd, terminal })
    }
}

impl Isolate for Fake {
    fn settle(&mut self, _: &StartRequest, _: bool) {}

    fn create(&mut self, request: StartRequest, _: Option<OwnedFd>, streams: Streams) -> Result<Process, Failure> {
        let arguments = request.spec.process().as_ref().and_then(|process| process.args().clone()).unwrap_or_default();
        if arguments.first().is_some_and(|program| program == "cannot-create") {
            return Err(Failure { kind: ErrorKind::Invalid, message: "as asked".to_owned(), hint: Some("do".into()) });
        }
        self.program_missing = arguments.first().is_some_and(|program| program == "cannot-start");
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        self.gate = Some(writer.into());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read go <&9 || exit 99; exec 9<&-; exec \"$@\"", "sh"]).args(arguments);
        self.spawn(command, streams, Some(reader.into()))
    }

    fn start(&mut self) -> Result<(), Failure> {
        if self.program_missing {
            return Err(Failure { kind: ErrorKind::NotFound, message: "no such program".to_owned(), hint: None });
        }
        let gate = self.gate.take().ok_or_else(|| failed("not created"))?;
        std::fs::File::from(gate).write_all(b"go\n").map_err(failed)
    }

    fn undo(&mut self) -> Vec<String> {
        self.kill_rest();
        for pid in self.sessions.drain(..).filter_map(rustix::process::Pid::from_raw) {
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
        Vec::new()
    }

    fn exec(&mut self, request: &ExecRequest, streams: Streams) -> Result<Process, Failure> {
        let (program, arguments) = request.arguments.split_first().ok_or_else(|| failed("no command"))?;
        let mut command = Command::new(program);
        command.args(arguments);
        self.spawn(command, streams, None)
    }

    fn signal_all(&mut self, signal: i32) -> Result<(), Failure> {
        for pid in &self.sessions {
            // SAFETY: kill(2) of the process groups that this process has made.
            unsafe { libc::kill(-*pid, signal) };
        }
        Ok(())
    }

    fn resume(&mut self) {
        let _ = self.signal_all(libc::SIGCONT);
    }

    fn kill_rest(&mut self) {
        let _ = self.signal_all(libc::SIGKILL);
    }

    fn finish(&mut self) -> u64 {
        0
    }
}

fn main() -> ExitCode {
    dozen_monitor::main_with(&mut Fake::default())
}
