//! The engine's side: blocking calls of a few milliseconds, for a thread that may block.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Flock, FlockOffsetType, FlockType, Pid, PidfdFlags};

use crate::error::KeeperError;
use crate::protocol::{self, Envelope, Reply, Request};
use crate::snapshot::{PortFailure, Snapshot, VERSION};

/// A keeper that hangs for so long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(20);
/// A keeper that has its lock and does not listen is about to (someone else has started it), for no longer than this.
const BEGINNING: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(2);

/// The engine's keeper. It lives on when this is dropped.
#[derive(Debug, Clone)]
pub struct Keeper {
    run_root: PathBuf,
}

impl Keeper {
    /// Finds the keeper of this run root, or starts one: `program keeper RUN_ROOT`. It is ready when this returns.
    ///
    /// # Errors
    /// The program cannot be run, or the keeper cannot have its lock and socket.
    pub fn connect_or_spawn(program: &Path, run_root: &Path) -> Result<Self, KeeperError> {
        let keeper = Self { run_root: run_root.to_owned() };
        let begun = Instant::now();
        while keeper.is_alive() && begun.elapsed() < BEGINNING {
            if keeper.connect().is_ok() {
                return Ok(keeper);
            }
            std::thread::sleep(LOOK);
        }
        keeper.spawn(program)?;
        Ok(keeper)
    }

    /// Starts one, and waits until it is ready.
    fn spawn(&self, program: &Path) -> Result<(), KeeperError> {
        let failed = |source| KeeperError::Spawn { program: program.to_owned(), source };
        let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("keeper").arg(&self.run_root).env_clear();
        dozen_failpoint::pass_on(&mut command);
        let mut child =
            command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(failed)?;
        // It holds our copy of the keeper's end, which has to be the keeper's alone.
        drop(command);
        // The process detaches and the one that was spawned ends at once.
        child.wait().map_err(failed)?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut words = String::new();
        match ours.read_to_string(&mut words) {
            Ok(_) if words == "ready\n" => Ok(()),
            Ok(_) if words.is_empty() => Err(KeeperError::NotReady { message: "it ended".to_owned() }),
            Ok(_) => Err(KeeperError::NotReady { message: words.trim_end().to_owned() }),
            Err(error) => Err(failed(error)),
        }
    }

    /// True while a keeper holds the lock of this run root.
    pub fn is_alive(&self) -> bool {
        self.holder().is_some()
    }

    /// A pidfd of the keeper's process, which becomes readable when it ends; `None` if there is none.
    pub fn process(&self) -> Option<OwnedFd> {
        let pid = self.holder()?;
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // The number may have gone to someone else before it was opened; whoever has the lock now has the number too.
        (self.holder() == Some(pid)).then_some(process)
    }

    fn holder(&self) -> Option<Pid> {
        let file = std::fs::File::open(self.run_root.join("keeper.lock")).ok()?;
        let wanted =
            Flock { start: 0, length: 0, pid: None, typ: FlockType::ReadLock, offset_type: FlockOffsetType::Set };
        rustix::process::fcntl_getlk(&file, &wanted).ok().flatten()?.pid
    }

    /// The socket that listens at `path` for the API. The keeper makes it the first time, with these permission bits
    /// and group, and keeps it while engines come and go.
    ///
    /// # Errors
    /// The path is taken by a living server (a conflict), or cannot be made.
    pub fn listener(&self, path: &Path, mode: u32, group: Option<u32>) -> Result<OwnedFd, KeeperError> {
        let action = "listen for the API";
        let request = Request::Listener { path: path.to_owned(), mode, group };
        match self.ask(action, request, None)? {
            (Reply::Done, Some(descriptor)) => Ok(descriptor),
            other => Err(unexpected(action, &other.0)),
        }
    }

    /// Gives a listening socket to a new keeper, for an engine that outlived the one that had made it.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub fn adopt(&self, path: &Path, listener: BorrowedFd<'_>) -> Result<(), KeeperError> {
        let action = "hold the API's socket";
        match self.ask(action, Request::Adopt { path: path.to_owned() }, Some(listener))? {
            (Reply::Done, _) => Ok(()),
            other => Err(unexpected(action, &other.0)),
        }
    }

    /// Writes the snapshot and has it put in force. Answers the ports that could not be had; the others are held.
    ///
    /// # Errors
    /// The snapshot cannot be written, or the keeper does not answer.
    pub fn apply(&self, snapshot: &Snapshot) -> Result<Vec<PortFailure>, KeeperError> {
        let path = self.run_root.join("keeper.json");
        let written = || -> io::Result<()> {
            let temporary = self.run_root.join("keeper.json.new");
            std::fs::write(&temporary, serde_json::to_vec(snapshot)?)?;
            std::fs::rename(temporary, &path)
        };
        written().map_err(|source| KeeperError::Write { path: path.clone(), source })?;
        let action = "take the published ports";
        match self.ask(action, Request::Reload, None)? {
            (Reply::Applied(failures), _) => Ok(failures),
            other => Err(unexpected(action, &other.0)),
        }
    }

    /// Ends the keeper: every port is free and every socket file gone when this returns.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub fn shutdown(self) -> Result<(), KeeperError> {
        let action = "end";
        match self.ask(action, Request::Shutdown, None)? {
            (Reply::Done, _) => Ok(()),
            other => Err(unexpected(action, &other.0)),
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        // By descriptor: the path may be longer than the 108 bytes of an address (unix(7)).
        let directory = std::fs::File::open(&self.run_root)?;
        let stream = UnixStream::connect(format!("/proc/self/fd/{}/keeper.sock", directory.as_raw_fd()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn ask(
        &self,
        action: &'static str,
        request: Request,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(Reply, Option<OwnedFd>), KeeperError> {
        let talk = || -> io::Result<_> {
            let stream = self.connect()?;
            protocol::send(&stream, &Envelope { version: VERSION, request }, descriptor)?;
            protocol::receive(&stream)
        };
        match talk() {
            Ok((Reply::Failed { message, errno }, _)) => Err(KeeperError::Refused { action, message, errno }),
            Ok(answer) => Ok(answer),
            Err(source) => Err(KeeperError::Talk { path: self.run_root.join("keeper.sock"), source }),
        }
    }
}

fn unexpected(action: &'static str, reply: &Reply) -> KeeperError {
    KeeperError::Refused { action, message: format!("unexpected answer {reply:?}"), errno: 0 }
}

/// The lock that proves a keeper's life: a record lock (fcntl(2)), which the kernel drops with the process and which
/// no child inherits.
///
/// # Errors
/// Another keeper has it.
pub(crate) fn lock(run_root: &Path) -> io::Result<std::fs::File> {
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(run_root.join("keeper.lock"))?;
    rustix::fs::fcntl_lock(file.as_fd(), rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}
