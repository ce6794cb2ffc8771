//! User namespaces as the outside makes them: mapped by who has the host's rights.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use dozen_model::IdRange;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

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

/// A user namespace with this map that nobody is in: what an idmapped mount is given, and what a container joins.
///
/// May be called in a process with many threads.
pub(crate) fn namespace_of(map: &IdMap) -> Result<OwnedFd, RuntimeError> {
    let helper = Helper::start(libc::CLONE_NEWUSER as u64, || Ok(()))?;
    write(helper.process.pid, map).and_then(|()| of_process(helper.process.pid))
}

/// The same for users and groups of one range: the container's 0 is the first of it.
///
/// # Errors
/// The kernel makes no user namespaces, or no more of them (namespaces(7), `max_user_namespaces`).
pub fn user_namespace(ids: IdRange) -> Result<OwnedFd, RuntimeError> {
    namespace_of(&IdMap::of(ids))
}

/// A network namespace in which nothing is yet, and which belongs to a user namespace: only who is root there has a sysfs
/// that shows it (network_namespaces(7)).
///
/// May be called in a process with many threads.
pub fn network_namespace_of(user_namespace: BorrowedFd<'_>) -> Result<OwnedFd, RuntimeError> {
    let helper = Helper::start(0, || {
        sys::setns(user_namespace, libc::CLONE_NEWUSER)?;
        sys::unshare(libc::CLONE_NEWNET)
    })?;
    let path = format!("/proc/{}/ns/net", helper.process.pid);
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context(|| "open a network namespace".to_owned())
}

/// A process that is in a namespace until somebody else has it open, and does nothing.
struct Helper {
    process: Process,
    _lifeline: UnixStream,
}

impl Helper {
    /// `enter` is the child's: it makes system calls and nothing else, so that it does not matter what locks other threads
    /// of ours have.
    fn start(namespaces: u64, enter: impl FnOnce() -> Result<(), Errno>) -> Result<Self, RuntimeError> {
        let (mut lifeline, mut theirs) = UnixStream::pair().context(|| "make a pair of sockets".to_owned())?;
        // SAFETY: until it ends the child makes system calls only. It takes no lock and has no memory from the allocator.
        let cloned = unsafe { sys::clone_process(namespaces, None) };
        let process = match cloned.map_err(not_made)? {
            sys::Cloned::Child => {
                // It lives as long as our end is open, and so never longer than we do: it keeps nobody else's.
                let answer = match enter().and_then(|()| close_all_but(theirs.as_raw_fd())) {
                    Ok(()) => 0,
                    Err(errno) => errno.raw_os_error(),
                };
                let _ = theirs.write(&answer.to_ne_bytes());
                let _ = theirs.read(&mut [0]);
                crate::child::exit()
            }
            sys::Cloned::Parent { pid, pidfd } => Process { pid, pidfd },
        };
        drop(theirs);
        let mut answer = [0; 4];
        let entered = lifeline.read_exact(&mut answer);
        let helper = Self { process, _lifeline: lifeline };
        entered.context(|| "hear of a process in a user namespace".to_owned())?;
        match i32::from_ne_bytes(answer) {
            0 => Ok(helper),
            errno => Err(RuntimeError::system("enter a user namespace", Errno::from_raw_os_error(errno))),
        }
    }
}

/// ENOSPC and EUSERS of clone(2): the limit of namespaces(7).
fn not_made(errno: Errno) -> RuntimeError {
    match errno {
        Errno::NOSPC | Errno::USERS => RuntimeError::Invalid(
            "the kernel makes no more user namespaces: sysctl user.max_user_namespaces says how many".to_owned(),
        ),
        errno => RuntimeError::system("clone a process into a user namespace", errno),
    }
}

fn close_all_but(kept: RawFd) -> Result<(), Errno> {
    let kept = kept as u32;
    if kept > 0 {
        sys::close_range(0, kept - 1, false)?;
    }
    sys::close_range(kept + 1, u32::MAX, false)
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.process.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, FromRawFd};

    use super::*;
    use crate::namespace;

    #[test]
    fn namespaces_are_made_for_a_container_and_belong_to_one_another() {
        let ids: IdRange = "3000000:65536".parse().unwrap();
        let user = user_namespace(ids).unwrap();
        assert_eq!(sys::namespace_kind(&user).unwrap(), libc::CLONE_NEWUSER);
        assert!(!namespace::is_that_of(&user, "/proc/self/ns/user").unwrap());
        let network = network_namespace_of(user.as_fd()).unwrap();
        assert_eq!(sys::namespace_kind(&network).unwrap(), libc::CLONE_NEWNET);
        const NS_GET_USERNS: libc::Ioctl = 0xb701;
        // SAFETY: this request has no argument (ioctl_nsfs(2)), and its answer is a new descriptor that nobody owns.
        let owner = unsafe { OwnedFd::from_raw_fd(libc::ioctl(network.as_raw_fd(), NS_GET_USERNS)) };
        assert_eq!(namespace::identity(&owner).unwrap(), namespace::identity(&user).unwrap());
    }

    #[test]
    fn what_a_helper_is_refused_is_told() {
        let file = std::fs::File::open("/proc/self/ns/net").unwrap();
        let error = network_namespace_of(file.as_fd()).unwrap_err().to_string();
        assert!(error.contains("enter a user namespace"), "{error}");
    }
}
