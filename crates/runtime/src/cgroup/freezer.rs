//! Pausing: nobody in a cgroup gets a processor (cgroup-v1/freezer-subsystem.rst; cgroup-v2.rst, "cgroup.freeze").

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::Cgroup;
use super::control::write;
use crate::error::{Context, RuntimeError};

/// How long processes may take to stand still: one that waits for a disk or a network file system does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a cgroup's freezer is.
enum Freezer {
    /// `freezer.state`.
    Version1(PathBuf),
    /// The cgroup's directory.
    Version2(PathBuf),
}

impl Cgroup {
    /// Stops everyone in it and below it where they are, and returns once they stand still. They are alive, and a
    /// SIGKILL ends them (in version 1, once they run again, see [`Cgroup::kill`]).
    ///
    /// # Errors
    /// Somebody does not stand still within ten seconds: then all run on. This machine has no freezer.
    pub fn pause(&self) -> Result<(), RuntimeError> {
        let freezer = self.freezer()?;
        let paused = freezer.set(true).and_then(|()| freezer.wait_until(true));
        paused.inspect_err(|_| {
            // The first error is the one to tell.
            let _ = freezer.set(false);
        })
    }

    /// Lets everyone run on after [`Cgroup::pause`]. Nothing happens to those who do.
    pub fn resume(&self) -> Result<(), RuntimeError> {
        self.freezer()?.set(false)
    }

    /// Whether it has been paused, or is about to be. One that is gone is not.
    pub fn is_paused(&self) -> Result<bool, RuntimeError> {
        let (path, yes): (PathBuf, &[&str]) = match self.freezer() {
            // A machine that cannot pause anybody has not.
            Err(RuntimeError::Invalid(_)) => return Ok(false),
            Err(error) => return Err(error),
            Ok(Freezer::Version1(file)) => (file, &["FROZEN", "FREEZING"]),
            Ok(Freezer::Version2(directory)) => (directory.join("cgroup.freeze"), &["1"]),
        };
        match fs::read_to_string(&path) {
            Ok(text) => Ok(yes.contains(&text.trim())),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(false),
            Err(error) => Err(RuntimeError::system(format!("read {}", path.display()), error)),
        }
    }

    /// Version 2's wherever it is mounted, and everyone of a container is in it: what it has frozen can be killed.
    fn freezer(&self) -> Result<Freezer, RuntimeError> {
        if let Some(unified) = self.layout.unified() {
            let directory = unified.directory(&self.name);
            // A kernel before 5.2 has none.
            if directory.join("cgroup.freeze").exists() {
                return Ok(Freezer::Version2(directory));
            }
        }
        let version_1 = self.layout.controller("freezer").filter(|freezer| !freezer.is_unified());
        version_1.map(|freezer| Freezer::Version1(freezer.directory(&self.name).join("freezer.state"))).ok_or_else(
            || {
                RuntimeError::Invalid(
                    "this machine has no cgroup controller \"freezer\", nor version 2's own".to_owned(),
                )
            },
        )
    }
}

impl Freezer {
    fn set(&self, frozen: bool) -> Result<(), RuntimeError> {
        match self {
            Self::Version1(file) => write(file, if frozen { "FROZEN" } else { "THAWED" }),
            Self::Version2(directory) => write(&directory.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
        }
    }

    fn wait_until(&self, frozen: bool) -> Result<(), RuntimeError> {
        let deadline = Instant::now() + PATIENCE;
        let is_so = match self {
            Self::Version1(file) => ask_version_1(file, if frozen { "FROZEN" } else { "THAWED" }, deadline)?,
            Self::Version2(directory) => {
                let events = directory.join("cgroup.events");
                wait_for_event(&events, if frozen { "frozen 1" } else { "frozen 0" }, deadline)
                    .context(|| format!("wait for {}", events.display()))?
            }
        };
        if is_so {
            return Ok(());
        }
        Err(RuntimeError::Conflict(format!(
            "processes of the container do not stand still within {} s: they wait for a disk or a network file system",
            PATIENCE.as_secs()
        )))
    }
}

/// Version 1 tells nobody: it is asked, ever more rarely, and looks itself only when it is asked.
fn ask_version_1(file: &PathBuf, wanted: &str, deadline: Instant) -> Result<bool, RuntimeError> {
    let mut pause = Duration::from_micros(50);
    loop {
        let state = fs::read_to_string(file).context(|| format!("read {}", file.display()))?;
        if state.trim() == wanted {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        // Who is born while the others freeze may be missed, and is frozen by the next word.
        write(file, wanted)?;
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Waits for a line of version 2's cgroup.events, which poll(2) tells of (cgroup-v2.rst, "Basic Operations").
fn wait_for_event(events: &PathBuf, wanted: &str, deadline: Instant) -> io::Result<bool> {
    let file = File::open(events)?;
    loop {
        let mut text = [0u8; 256];
        // Reading it is what the next notification counts from.
        let length = file.read_at(&mut text, 0)?;
        if String::from_utf8_lossy(&text[..length]).lines().any(|line| line == wanted) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
