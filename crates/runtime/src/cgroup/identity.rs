//! Which cgroup of a name: one that is removed and made again is another, and is not to end with the first.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Cgroup;
use super::systemd::Scope;
use crate::error::{Context, RuntimeError};

/// A cgroup's directory in one hierarchy: the file system, and the number that it has there, which is not given twice
/// between two boots (kernfs_new_node() in fs/kernfs/dir.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// How long an empty cgroup may stay busy: who has just died in it is not gone at once.
const PATIENCE: Duration = Duration::from_millis(100);

impl Cgroup {
    /// The cgroup of this name, if it is the one that was [pinned](Cgroup::pin).
    pub(crate) fn open_pinned(name: &str, identity: Identity) -> Result<Option<Self>, RuntimeError> {
        let mut cgroup = Self::named(name)?;
        cgroup.identity = Some(identity);
        Ok((cgroup.current(identity)? == Some(identity)).then_some(cgroup))
    }

    /// From now on this one is meant, and no other of its name.
    pub(crate) fn pin(&mut self) -> Result<Identity, RuntimeError> {
        let unified = self.layout.unified().map(|unified| unified.directory(&self.name));
        let path = unified.or_else(|| self.directories().next());
        let path = path.ok_or_else(|| RuntimeError::NotFound("no cgroup hierarchy is mounted".to_owned()))?;
        let status = fs::metadata(&path).context(|| format!("examine cgroup {}", path.display()))?;
        Ok(*self.identity.insert(Identity { device: status.dev(), inode: status.ino() }))
    }

    /// Refuses a cgroup that somebody has, and removes what is left of one that nobody has: who had it before is told by
    /// that from who has it next.
    pub(crate) fn vacate(name: &str) -> Result<(), RuntimeError> {
        let Some(cgroup) = Self::open(name)? else { return Ok(()) };
        let in_use = || {
            RuntimeError::Conflict(format!(
                "container's cgroup is not empty: cgroup {name} is in use: processes are in it"
            ))
        };
        if !cgroup.is_free()? {
            return Err(in_use());
        }
        // Whoever enters it stands still, and says nothing.
        if cgroup.is_paused()? {
            return Err(RuntimeError::Conflict(format!("container's cgroup unexpectedly frozen: {name}")));
        }
        match cgroup.remove_empty() {
            // Somebody has entered it meanwhile.
            Err(RuntimeError::System { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => Err(in_use()),
            removed => removed,
        }
    }

    /// Removes the empty directories that somebody has left who was killed while making a cgroup, or removing the one that
    /// was pinned. One that others have by now stays.
    pub(crate) fn sweep(name: &str, pinned: Option<Identity>) -> Result<(), RuntimeError> {
        let Some(cgroup) = Self::open(name)? else { return Ok(()) };
        let others = match pinned {
            Some(identity) => cgroup.current(identity)?.is_some(),
            None => false,
        };
        if others || !cgroup.is_free()? {
            return Ok(());
        }
        cgroup.remove_empty()
    }

    fn remove_empty(&self) -> Result<(), RuntimeError> {
        // systemd hears a moment later than we that nobody is in a scope any more.
        let stopped = self.scope.as_ref().map_or(Ok(()), Scope::stop);
        stopped.and(self.remove_directories(Instant::now() + PATIENCE))
    }

    /// Whether the pinned cgroup is gone, and others have one of its name.
    pub(super) fn is_anothers(&self) -> Result<bool, RuntimeError> {
        let Some(identity) = self.identity else { return Ok(false) };
        Ok(self.current(identity)?.is_some_and(|current| current != identity))
    }

    /// Version 2's directory, `None` if it is not there, or not of the pinned cgroup.
    pub(super) fn open_unified(&self) -> Result<Option<OwnedFd>, RuntimeError> {
        let Some(unified) = self.layout.unified() else { return Ok(None) };
        let path = unified.directory(&self.name);
        let context = || format!("open cgroup {}", path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(&path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.context(context)?,
        };
        let Some(identity) = self.identity else { return Ok(Some(directory)) };
        let status = rustix::fs::fstat(&directory).context(context)?;
        let is_another = status.st_dev == identity.device && status.st_ino != identity.inode;
        Ok((!is_another).then_some(directory))
    }

    /// What has the name now where the other one was.
    fn current(&self, identity: Identity) -> Result<Option<Identity>, RuntimeError> {
        // Nearly always it is version 2's.
        let unified = self.layout.unified().map(|unified| unified.directory(&self.name));
        for path in unified.into_iter().chain(self.directories()) {
            match fs::metadata(&path) {
                Ok(status) if status.dev() == identity.device => {
                    return Ok(Some(Identity { device: status.dev(), inode: status.ino() }));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(RuntimeError::system(format!("examine cgroup {}", path.display()), error));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}
