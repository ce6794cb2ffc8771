//! A keeper that becomes another program (execve(2)) with all that it holds: the descriptors stay open, and a
//! description of them, in a memory file that stays open too, says which is which. Process, lock, sockets and the bytes
//! on their way are the same before and after; nobody outside can tell.
//!
//! ```text
//! engine of a newer build                keeper, older program              keeper, newer program
//!   ├─ upgrade (the program) ────────────▶│ writes the description
//!   │                                     │ execve ─────────────────────────▶│ takes everything over
//!   │◀───────────────────────────────────────────────────────────────── done ┤
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dozen_runtime::detach::NAME;
use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};

use crate::failpoint::failpoint;
use crate::snapshot::{PortKey, PortReservation};

/// The environment variable: the number of the description's descriptor.
const VARIABLE: &str = "DOZEN_KEEPER_HANDOVER";

/// All that a keeper holds. Descriptors are numbers.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Handover {
    pub lock: i32,
    pub control: i32,
    /// The engine that asked, and waits for the answer.
    pub reply_to: i32,
    pub listeners: Vec<HandedListener>,
    pub ports: Vec<HandedPort>,
    pub forwards: Vec<HandedForward>,
    pub flows: Vec<HandedFlow>,
    pub names: Vec<HandedNames>,
    pub questions: Vec<HandedQuestion>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct HandedListener {
    pub path: PathBuf,
    pub socket: i32,
    pub file: Option<(u64, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct HandedPort {
    pub port: PortReservation,
    pub socket: i32,
    pub loopback: Option<i32>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct HandedForward {
    pub key: PortKey,
    pub client: i32,
    pub container: i32,
    pub directions: [HandedDirection; 2],
}

#[derive(Debug, Serialize, Deserialize)]
pub struct HandedDirection {
    pub reader: i32,
    pub writer: i32,
    pub in_pipe: usize,
    pub ended: bool,
    pub passed_on: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct HandedFlow {
    pub key: PortKey,
    pub client: SocketAddrV6,
    pub socket: i32,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct HandedNames {
    pub container_id: String,
    pub pid: i32,
    pub process: i32,
    pub datagrams: i32,
    pub listener: i32,
}

/// A question that waits for name servers.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedQuestion {
    pub container_id: String,
    pub client: SocketAddrV4,
    pub message: Vec<u8>,
}

impl Handover {
    /// Becomes the program. Returns only if that fails; then nothing has changed.
    pub fn carry_out(&self, program: &OwnedFd, run_root: &Path) -> io::Error {
        let numbers = self.numbers();
        let attempt = || -> io::Result<io::Error> {
            let description = rustix::fs::memfd_create("keeper", MemfdFlags::CLOEXEC)?;
            let mut file = File::from(description);
            serde_json::to_writer(&mut file, self)?;
            file.flush()?;
            file.rewind()?;
            let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
            // Its cgroup too, which it is in: whoever reads the list of processes sees the same keeper.
            command.arg0(NAME).arg("keeper").arg(run_root).args(std::env::args_os().nth(3)).env_clear();
            command.env(VARIABLE, file.as_raw_fd().to_string());
            dozen_failpoint::pass_on(&mut command);
            let inherit = numbers.iter().copied().chain([file.as_raw_fd()]);
            inherit.clone().try_for_each(|number| set_inherited(number, true))?;
            failpoint("upgrade.handed");
            Ok(command.exec())
        };
        let error = attempt().unwrap_or_else(|error| error);
        for number in numbers {
            let _ = set_inherited(number, false);
        }
        error
    }

    /// What the program before this one has left for it, if there was one.
    pub fn found() -> io::Result<Option<(Self, Descriptors)>> {
        let Some(number) = std::env::var(VARIABLE).ok() else { return Ok(None) };
        let number = number.parse().map_err(|_| io::Error::other(format!("{VARIABLE} is no number")))?;
        let mut descriptors = Descriptors::default();
        let mut text = Vec::new();
        File::from(descriptors.take(number)?).read_to_end(&mut text)?;
        Ok(Some((serde_json::from_slice(&text)?, descriptors)))
    }

    fn numbers(&self) -> Vec<i32> {
        let mut numbers = vec![self.lock, self.control, self.reply_to];
        numbers.extend(self.listeners.iter().map(|listener| listener.socket));
        numbers.extend(self.ports.iter().flat_map(|port| [Some(port.socket), port.loopback]).flatten());
        for forward in &self.forwards {
            numbers.extend([forward.client, forward.container]);
            numbers.extend(forward.directions.iter().flat_map(|direction| [direction.reader, direction.writer]));
        }
        numbers.extend(self.flows.iter().map(|flow| flow.socket));
        numbers.extend(self.names.iter().flat_map(|names| [names.process, names.datagrams, names.listener]));
        numbers
    }
}

/// Takes the descriptors that were left over, each once.
#[derive(Debug, Default)]
pub struct Descriptors(BTreeSet<i32>);

impl Descriptors {
    /// # Errors
    /// It is not open, or somebody has it already.
    pub fn take(&mut self, number: i32) -> io::Result<OwnedFd> {
        if number <= 2 || !self.0.insert(number) {
            return Err(io::Error::other(format!("descriptor {number} is somebody else's")));
        }
        set_inherited(number, false)?;
        // SAFETY: it is open, as the kernel has just said, and no standard one; this process has only begun, so that
        // nothing but the description knows of it, and it is taken once.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

/// Whether the next program has it too.
fn set_inherited(number: i32, inherited: bool) -> io::Result<()> {
    let flags = if inherited { FdFlags::empty() } else { FdFlags::CLOEXEC };
    // SAFETY: used for one call of fcntl(2), which refuses a number that is not open.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_setfd(descriptor, flags)?)
}
