//! The engine's side: blocking calls of a few milliseconds, for a thread that may block.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dozen_names::Zones;
use dozen_runtime::detach::NAME;
use dozen_runtime::{Cgroup, RuntimeError};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Flock, FlockOffsetType, FlockType, Pid, PidfdFlags, Signal};

use crate::error::KeeperError;
use crate::names::{NameFailure, NamesSnapshot};
use crate::protocol::{self, Envelope, Reply, Request};
use crate::snapshot::{PortFailure, Snapshot, VERSION};

/// A keeper answers within milliseconds. One that says nothing for so long hangs, and so does one that has its lock and
/// does not listen (someone else has just started it).
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a killed keeper may take to be gone: longer only if the kernel itself hangs with it.
const DYING: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(2);

/// The engine's keeper. It lives on when this is dropped.
#[derive(Debug, Clone)]
pub struct Keeper {
    run_root: PathBuf,
}

impl Keeper {
    /// Finds the keeper of this run root, or starts one: `program keeper RUN_ROOT [CGROUP]`. It is ready when this
    /// returns. One that is started lives in that cgroup, and not in the caller's.
    ///
    /// # Errors
    /// The program cannot be run, or the keeper cannot have its lock and socket.
    pub fn connect_or_spawn(program: &Path, run_root: &Path, cgroup: Option<&str>) -> Result<Self, KeeperError> {
        let keeper = Self { run_root: run_root.to_owned() };
        let begun = Instant::now();
        while keeper.is_alive() {
            if keeper.connect().is_ok() {
                return Ok(keeper);
            }
            if begun.elapsed() >= PATIENCE {
                return Err(keeper.hangs("begin"));
            }
            std::thread::sleep(LOOK);
        }
        keeper.spawn(program, cgroup)?;
        Ok(keeper)
    }

    /// Starts one, and waits until it is ready.
    fn spawn(&self, program: &Path, cgroup: Option<&str>) -> Result<(), KeeperError> {
        let failed = |source| KeeperError::Spawn { program: program.to_owned(), source };
        let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg0(NAME).arg("keeper").arg(&self.run_root).args(cgroup).env_clear();
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
            Err(error) if is_timeout(&error) => Err(self.hangs("begin")),
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

    /// Moves it to this cgroup, if it is in none of that name: an older build left it in its starter's. True if it
    /// was moved.
    ///
    /// # Errors
    /// The cgroup cannot be made, or does not take it.
    pub fn settle(&self, cgroup: &str) -> Result<bool, RuntimeError> {
        let Some(pid) = self.holder().map(Pid::as_raw_pid) else { return Ok(false) };
        let Ok(present) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return Ok(false) };
        if is_in(&present, cgroup) {
            return Ok(false);
        }
        Cgroup::create(cgroup)?.add(pid)?;
        Ok(true)
    }

    /// Ends the keeper of this run root as nobody can refuse to end, if there is one: for one that hangs. Its ports are
    /// free when this returns; the snapshot stays for the next one.
    ///
    /// # Errors
    /// It does not die.
    pub fn kill(run_root: &Path) -> Result<(), KeeperError> {
        let keeper = Self { run_root: run_root.to_owned() };
        let Some(process) = keeper.process() else { return Ok(()) };
        let pid = keeper.holder();
        // It may have died by itself in between.
        let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        while rustix::event::poll(&mut ended, Some(&DYING)) == Err(Errno::INTR) {}
        if ended[0].revents().is_empty() {
            return Err(KeeperError::Unkillable { pid: pid.map_or(0, Pid::as_raw_pid) });
        }
        Ok(())
    }

    fn hangs(&self, action: &'static str) -> KeeperError {
        KeeperError::Hangs { action, pid: self.holder().map_or(0, Pid::as_raw_pid), seconds: PATIENCE.as_secs() }
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
        match self.ask(action, request, None) {
            Ok((Reply::Done, Some(descriptor))) => Ok(descriptor),
            Ok(other) => Err(unexpected(action, &other.0)),
            Err(KeeperError::Refused { message, errno, .. }) => {
                Err(KeeperError::Listen { path: path.to_owned(), message, errno })
            }
            Err(error) => Err(error),
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

    /// Whether the keeper's process runs the program in this file. True if it cannot be seen.
    pub fn runs(&self, program: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let file = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
        let Some(pid) = self.holder() else { return true };
        let running = file(Path::new(&format!("/proc/{}/exe", pid.as_raw_pid())));
        running.is_none() || running == file(program)
    }

    /// Has the keeper become this program, with all that it holds: no port is free and no connection lost meanwhile.
    ///
    /// # Errors
    /// It cannot, or is too old to know how, and goes on as it was; or it died of it.
    pub fn upgrade(&self, program: &Path) -> Result<(), KeeperError> {
        let action = "become another program";
        let opened = rustix::fs::open(program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let program =
            opened.map_err(|error| KeeperError::Spawn { program: program.to_owned(), source: error.into() })?;
        match self.ask(action, Request::Upgrade, Some(program.as_fd()))? {
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

    /// Whether a keeper of this run root has been told names, dead or alive.
    pub fn has_names(run_root: &Path) -> bool {
        NamesSnapshot::is_there(run_root)
    }

    /// Says who is called what, and who may ask. Answers the containers that cannot; one whose process has ended is
    /// none of them.
    ///
    /// # Errors
    /// It cannot be written, or the keeper does not answer.
    pub fn name(&self, zones: &Zones) -> Result<Vec<NameFailure>, KeeperError> {
        let path = || self.run_root.join("names.json");
        NamesSnapshot::write(&self.run_root, zones).map_err(|source| KeeperError::Write { path: path(), source })?;
        let action = "answer for names";
        match self.ask(action, Request::Names, None)? {
            (Reply::Named(failures), _) => Ok(failures),
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
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/keeper.sock", directory.as_raw_fd()))?;
        let stream = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let stream = UnixStream::from(stream);
        stream.set_read_timeout(Some(PATIENCE))?;
        // Before connect, which it bounds too, should the queue of a keeper that hangs be full (socket(7), SO_SNDTIMEO).
        stream.set_write_timeout(Some(PATIENCE))?;
        rustix::net::connect(&stream, &address)?;
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
            Err(error) if is_timeout(&error) => Err(self.hangs(action)),
            Err(source) => Err(KeeperError::Talk { path: self.run_root.join("keeper.sock"), source }),
        }
    }
}

/// Whether a process of this `/proc/PID/cgroup` (cgroups(7)) is in a cgroup of this name.
fn is_in(present: &str, cgroup: &str) -> bool {
    present.lines().any(|line| line.splitn(3, ':').nth(2) == Some(cgroup))
}

/// Of a socket with a timeout: EAGAIN (socket(7)).
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
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

#[cfg(test)]
mod tests {
    use super::is_in;

    #[test]
    fn in_which_cgroup_a_process_is() {
        let hybrid = "12:pids:/dozen/monitors\n2:name=systemd:/dozen/monitors\n0::/\n";
        for (present, wanted) in [
            ("0::/dozen/monitors\n", true),
            (hybrid, true),
            ("0::/system.slice/dozen.service\n", false),
            ("0::/dozen/monitors/below\n", false),
            ("0::/machine/dozen/monitors\n", false),
            ("", false),
        ] {
            assert_eq!(is_in(present, "/dozen/monitors"), wanted, "{present:?}");
        }
    }
}
