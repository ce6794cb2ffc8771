//! A process that does nothing: systemd makes a scope around a process, and the container's is born into the scope.

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::error::{Context, RuntimeError};
use crate::sys;

/// Lives until it is dropped, or its parent dies.
#[derive(Debug)]
pub(crate) struct Placeholder {
    pid: i32,
    pidfd: OwnedFd,
}

impl Placeholder {
    /// The calling process must have one thread.
    pub(in crate::cgroup) fn new() -> Result<Self, RuntimeError> {
        let parent = rustix::process::getpid();
        // SAFETY: creating a container asks its callers for a process with one thread.
        let cloned = unsafe { sys::clone_process(0, None) }.context(|| "clone a process for a scope".to_owned())?;
        match cloned {
            sys::Cloned::Parent { pid, pidfd } => Ok(Self { pid, pidfd }),
            sys::Cloned::Child => {
                let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
                // It may have died before that.
                while tied && rustix::process::getppid() == Some(parent) {
                    // SAFETY: waits for a signal, without arguments.
                    unsafe { libc::pause() };
                }
                // SAFETY: ends the process at once; nothing of its parent's is undone.
                unsafe { libc::_exit(1) }
            }
        }
    }

    pub(in crate::cgroup) fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // It is ours, and has not been waited for: neither can fail.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test has more than one thread; the child makes system calls only, and takes no lock.
    #[test]
    fn it_lives_until_it_is_dropped() {
        let placeholder = Placeholder::new().unwrap();
        let directory = std::path::PathBuf::from(format!("/proc/{}", placeholder.pid()));
        assert!(directory.exists());
        drop(placeholder);
        assert!(!directory.exists());
    }
}
