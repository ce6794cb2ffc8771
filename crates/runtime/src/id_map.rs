//! User namespaces as the outside makes them: mapped by who has the host's rights.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags};

use crate::error::{Context, RuntimeError};
use crate::plan::{IdMap, map_text};
use crate::process::Process;
use crate::sys;

/// Writes the maps of a process's new user namespace. Each can be written once.
pub(crate) fn write(pid: i32, map: &IdMap) -> Result<(), RuntimeError> {
    for (name, ranges) in [("uid_map", &map.users), ("gid_map", &map.groups)] {
        let text = map_text(ranges);
        fs::write(format!("/proc/{pid}/{name}"), &text)
            .context(|| format!("map the ids of a user namespace ({name}: {:?})", text.trim_end()))?;
    }
    Ok(())
}

/// The user namespace that a child of ours is in.
pub(crate) fn of_process(pid: i32) -> Result<OwnedFd, RuntimeError> {
    rustix::fs::open(format!("/proc/{pid}/ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context(|| "open a user namespace".to_owned())
}

/// A user namespace with this map that nobody is in: what an idmapped mount is given.
///
/// The calling process must have one thread.
pub(crate) fn namespace_of(map: &IdMap) -> Result<OwnedFd, RuntimeError> {
    let (ours, mut theirs) = UnixStream::pair().context(|| "make a pair of sockets".to_owned())?;
    // SAFETY: the caller promises one thread.
    let cloned = unsafe { sys::clone_process(libc::CLONE_NEWUSER as u64, None) };
    let process = match cloned.context(|| "clone a process into a user namespace".to_owned())? {
        sys::Cloned::Child => {
            // It lives as long as our end is open, and so never longer than we do.
            drop(ours);
            let _ = theirs.read(&mut [0]);
            crate::child::exit()
        }
        sys::Cloned::Parent { pid, pidfd } => Process { pid, pidfd },
    };
    let namespace = write(process.pid, map).and_then(|()| of_process(process.pid));
    drop(ours);
    process.kill();
    namespace
}
