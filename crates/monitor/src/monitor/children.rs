//! System calls about children: who has ended, and signals.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::WaitOptions;

use super::Monitor;

impl Monitor<'_> {
    /// Waits for children that are no session's: orphans that came to us as the subreaper, and the log's own.
    pub(super) fn reap_orphans(&mut self) {
        while let Some(pid) = ended_child() {
            if self.sessions.values().any(|session| session.pid == pid && session.exit_code.is_none()) {
                // It has its own event; what waits behind it is seen next time.
                return;
            }
            let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
            let Ok(status) = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) else { return };
            let successful = status.is_some_and(|(_, status)| status.exit_status() == Some(0));
            self.files.log.child_ended(pid, successful);
        }
    }
}

/// Sends a signal to a process.
pub(super) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> rustix::io::Result<()> {
    // rustix refuses the real-time signals, so the call is made by hand.
    // SAFETY: pidfd_send_signal(2) with a null siginfo reads no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null_mut::<libc::siginfo_t>(),
            0_u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}

/// A child that has ended and was not waited for yet.
fn ended_child() -> Option<i32> {
    // SAFETY: an all-zero siginfo is valid, waitid(2) fills it in, and si_pid may be read after it has: 0 if no child
    // has ended.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let result = libc::waitid(libc::P_ALL, 0, &mut info, flags);
        (result == 0 && info.si_pid() != 0).then(|| info.si_pid())
    }
}
