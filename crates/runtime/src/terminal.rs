//! A process's terminal (pty(7)).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::termios::Winsize;

use crate::create::WindowSize;
use crate::error::{Context, RuntimeError};

/// A master, and its slave opened by it: no path is looked up (ioctl_tty(2), TIOCGPTPEER).
pub(crate) fn open_pair(master: &OwnedFd, size: Option<WindowSize>) -> Result<OwnedFd, RuntimeError> {
    rustix::pty::unlockpt(master).context(|| "unlock the terminal".to_owned())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is an integer, the answer a new descriptor.
    let slave: RawFd = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if slave < 0 {
        return Err(RuntimeError::system("open the terminal", std::io::Error::last_os_error()));
    }
    // SAFETY: a new descriptor that nobody else owns.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    if let Some(WindowSize { rows, columns }) = size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size).context(|| "set the terminal's size".to_owned())?;
    }
    Ok(slave)
}

/// Makes it the controlling terminal of the calling session leader.
pub(crate) fn control(terminal: impl AsFd) -> Result<(), Errno> {
    rustix::process::ioctl_tiocsctty(terminal)
}
