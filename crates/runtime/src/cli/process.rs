//! A process from outside: its streams, its number, its signals, its end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus};

use super::terminal::users_size;
use crate::Spec;
use crate::create::{self, Stdio};
use crate::error::{Context, RuntimeError};

/// Our own streams, or a terminal: of the spec's size, else, if it is `carried` to the user's own, of that one's.
pub(super) fn stdio(spec: &Spec, terminal: bool, carried: bool) -> Result<Stdio, RuntimeError> {
    if terminal {
        let size = create::console_size(spec)?;
        return Ok(Stdio::Terminal { size: if carried { size.or_else(users_size) } else { size } });
    }
    let copy = |stream: &dyn AsFd| {
        rustix::io::fcntl_dupfd_cloexec(stream.as_fd(), 3).context(|| "copy a standard stream".to_owned())
    };
    Ok(Stdio::Streams([copy(&io::stdin())?, copy(&io::stdout())?, copy(&io::stderr())?]))
}

/// By rename: an engine that waits for the file never reads half of it.
pub(super) fn write_pid(file: &Path, pid: i32) -> Result<(), RuntimeError> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, pid.to_string())
        .and_then(|()| fs::rename(&new, file))
        .context(|| format!("write {}", file.display()))
}

/// The terminal's master to an engine that listens.
pub(super) fn send_terminal(socket: &Path, master: &OwnedFd) -> Result<(), RuntimeError> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let context = || format!("send the terminal to {}", socket.display());
    let stream = std::os::unix::net::UnixStream::connect(socket).context(context)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [master.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(&stream, &[io::IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::NOSIGNAL).map(drop).context(context)
}

/// Waits for a child of ours, and hands on to it the signals that we get.
pub(super) fn wait_and_forward(pidfd: &OwnedFd) -> Result<u8, RuntimeError> {
    let signals = Signals::take()?;
    loop {
        let mut polled = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match rustix::event::poll(&mut polled, None) {
            Err(Errno::INTR) => continue,
            result => result.context(|| "wait for the container".to_owned())?,
        };
        if polled[1].revents().contains(PollFlags::IN) {
            send(pidfd, signals.read()?)?;
        } else if !polled[0].revents().is_empty() {
            return exit_code(pidfd);
        }
    }
}

/// The signals that are meant for the container, kept from us (signalfd(2)).
pub(super) struct Signals(File);

impl Signals {
    pub(super) fn take() -> Result<Self, RuntimeError> {
        // SAFETY: sigset_t is plain data that sigemptyset fills; the descriptor is new and ours.
        unsafe {
            use std::os::fd::FromRawFd;
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in
                [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH]
            {
                libc::sigaddset(&raw mut set, signal);
            }
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            let descriptor = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC);
            if descriptor < 0 {
                return Err(RuntimeError::system("make a signalfd", io::Error::last_os_error()));
            }
            Ok(Self(File::from(OwnedFd::from_raw_fd(descriptor))))
        }
    }

    /// The next one's number; waits for it.
    pub(super) fn read(&self) -> Result<i32, RuntimeError> {
        // struct signalfd_siginfo begins with the number (signalfd(2)).
        let mut information = [0u8; 128];
        (&self.0).read_exact(&mut information).context(|| "read a signal".to_owned())?;
        Ok(i32::from_ne_bytes([information[0], information[1], information[2], information[3]]))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reaps a child; 128 and the signal's number if one has killed it.
pub(super) fn exit_code(pidfd: &OwnedFd) -> Result<u8, RuntimeError> {
    let status: Option<WaitIdStatus> = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        .context(|| "wait for the process".to_owned())?;
    let code = status.map_or(0, |status| match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (_, Some(signal)) => 128 + signal,
        _ => 255,
    });
    Ok(code as u8)
}

pub(super) fn send(pidfd: &OwnedFd, signal: i32) -> Result<(), RuntimeError> {
    // SAFETY: plain integers, and no siginfo.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(RuntimeError::system(format!("send signal {signal}"), error)),
        },
    }
}
