//! The end of a cgroup, and of whoever is left in it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;

use super::control::{write, write_in};
use super::systemd::Scope;
use super::{Cgroup, below, send_signal};
use crate::error::RuntimeError;

/// How long a cgroup may stay busy after all in it were killed: a dying process that writes a large core
/// or waits for a disk is not gone at once.
const DELETE_PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Removes it where that is cheaper than to look for who is left: true if it is gone, so that there is nobody to kill.
    ///
    /// The pid namespace has killed everyone at the usual end of a container. Version 2 kills by one write; in version 1
    /// each hierarchy has a list of its own, and the kernel refuses to remove a directory with somebody in or below it.
    pub(crate) fn remove_unused(&self) -> Result<bool, RuntimeError> {
        if self.scope.is_some() || self.layout.unified().is_some() {
            return Ok(false);
        }
        if self.is_anothers()? {
            return Ok(true);
        }
        let is_used = |directory: &PathBuf| {
            !matches!(rustix::fs::unlinkat(CWD, directory, AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT))
        };
        // Of each hierarchy, whether or not it is used in another.
        Ok(self.directories().filter(is_used).count() == 0)
    }

    /// Kills everyone in it, those who are being forked meanwhile included.
    pub fn kill(&self) -> Result<(), RuntimeError> {
        if self.is_anothers()? {
            return Ok(());
        }
        if let Some(directory) = self.open_unified()? {
            match write_in(&directory, c"cgroup.kill", "1") {
                Ok(()) => return Ok(()),
                // No such cgroup any more, or a kernel before 5.14: version 1's way decides.
                Err(Errno::NOENT | Errno::NODEV) => {}
                Err(errno) => return Err(RuntimeError::system(format!("kill cgroup {}", self.name.display()), errno)),
            }
        }
        // The usual end of a container: its pid namespace has killed everyone, and nobody in here can fork any more.
        if self.pids()?.is_empty() {
            return Ok(());
        }
        let freezer =
            self.layout.controller("freezer").map(|freezer| freezer.directory(&self.name).join("freezer.state"));
        // Frozen, nobody forks away from under our list. Without a freezer we repeat until the list is empty.
        let frozen = freezer.as_ref().is_some_and(|file| fs::write(file, "FROZEN").is_ok());
        let result = (|| {
            for _ in 0..if frozen { 1 } else { 100 } {
                let pids = self.pids()?;
                if pids.is_empty() {
                    break;
                }
                for pid in pids {
                    send_signal(pid, libc::SIGKILL)?;
                }
            }
            Ok(())
        })();
        if let Some(file) = freezer.filter(|_| frozen) {
            write(&file, "THAWED")?;
        }
        result
    }

    /// Removes it and what is below it, once it is empty; waits a while for those who are dying. Goes on past a
    /// failure and reports the first.
    pub fn delete(&self) -> Result<(), RuntimeError> {
        if self.is_anothers()? {
            return Ok(());
        }
        let stopped = self.scope.as_ref().map_or(Ok(()), Scope::stop);
        let removed = self.remove_directories(Instant::now() + DELETE_PATIENCE);
        stopped.and(removed)
    }

    /// Removes it and what is below it in every hierarchy, and tries those that are busy until the deadline. Goes on past
    /// a failure and reports the first.
    pub(super) fn remove_directories(&self, deadline: Instant) -> Result<(), RuntimeError> {
        let mut first = None;
        for directory in self.directories() {
            if let Err(error) = below::remove(&directory, deadline) {
                first.get_or_insert(RuntimeError::system(format!("remove cgroup {}", directory.display()), error));
            }
        }
        first.map_or(Ok(()), Err)
    }
}
