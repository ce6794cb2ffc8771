//! Hearing of it when memory has run out and the kernel kills.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, PollFlags};
use rustix::io::Errno;

use super::Cgroup;
use super::control::write;
use crate::error::{Context, RuntimeError};

/// A descriptor that becomes ready when a cgroup's memory has run out.
#[derive(Debug)]
pub struct OomWatch {
    descriptor: OwnedFd,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// An eventfd (cgroup-v1/memory.rst, "OOM Control"), and a file that is there as long as the cgroup is.
    Version1(PathBuf),
    /// memory.events (cgroup-v2.rst), and how many had been killed when it was last looked at.
    Version2(u64),
}

impl Cgroup {
    /// Listens for want of memory in this cgroup and below it.
    ///
    /// # Errors
    /// This machine has no controller of memory, or the cgroup is gone.
    pub fn watch_oom(&self) -> Result<OomWatch, RuntimeError> {
        let memory = self.layout.controller("memory").ok_or_else(|| {
            RuntimeError::Invalid("this machine has no cgroup controller \"memory\", which would run out".to_owned())
        })?;
        let directory = memory.directory(&self.name);
        let open = |name: &str| {
            let path = directory.join(name);
            File::open(&path).context(|| format!("open {}", path.display()))
        };
        if memory.is_unified() {
            let descriptor: OwnedFd = open("memory.events")?.into();
            let killed = killed(&descriptor)?.unwrap_or(0);
            return Ok(OomWatch { descriptor, kind: Kind::Version2(killed) });
        }
        let control = open("memory.oom_control")?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let descriptor = rustix::event::eventfd(0, flags).context(|| "make an eventfd".to_owned())?;
        let event_control = directory.join("cgroup.event_control");
        write(&event_control, &format!("{} {}", descriptor.as_raw_fd(), control.as_raw_fd()))?;
        Ok(OomWatch { descriptor, kind: Kind::Version1(event_control) })
    }
}

impl OomWatch {
    /// What to wait for with poll(2).
    pub fn flags(&self) -> PollFlags {
        match self.kind {
            Kind::Version1(_) => PollFlags::IN,
            Kind::Version2(_) => PollFlags::PRI,
        }
    }

    /// Whether the descriptor is ready before somebody has been killed, and even if nobody is: version 1's.
    pub fn is_early(&self) -> bool {
        matches!(self.kind, Kind::Version1(_))
    }

    /// Once the descriptor is ready: whether memory has run out since the last call. Version 1 makes it ready when the
    /// cgroup is removed, version 2 at other events too.
    pub fn happened(&mut self) -> Result<bool, RuntimeError> {
        match &mut self.kind {
            Kind::Version1(event_control) => {
                let mut count = [0u8; 8];
                match rustix::io::read(&self.descriptor, &mut count) {
                    Err(Errno::AGAIN) => return Ok(false),
                    read => read.context(|| "read an eventfd".to_owned())?,
                };
                Ok(event_control.exists())
            }
            Kind::Version2(before) => {
                let Some(now) = killed(&self.descriptor)? else { return Ok(false) };
                Ok(now > std::mem::replace(before, now))
            }
        }
    }
}

/// How many have been killed; `None` if the cgroup is gone.
fn killed(events: &OwnedFd) -> Result<Option<u64>, RuntimeError> {
    let mut text = [0u8; 512];
    let length = match rustix::io::pread(events, &mut text, 0) {
        Err(Errno::NODEV) => return Ok(None),
        length => length.context(|| "read memory.events".to_owned())?,
    };
    let text = String::from_utf8_lossy(&text[..length]);
    Ok(Some(count(&text)))
}

/// Of memory.events, or of version 1's memory.oom_control, which says nothing of it before Linux 4.13.
pub(super) fn count(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

impl AsRawFd for OomWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_say_how_many() {
        assert_eq!(count("low 0\nhigh 0\nmax 71\noom 3\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(count("oom_kill_disable 1\nunder_oom 0\noom_kill 17\n"), 17);
        assert_eq!(count("oom_kill_disable 0\nunder_oom 1\n"), 0);
    }
}
