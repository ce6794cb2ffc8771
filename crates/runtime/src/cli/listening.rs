//! Sockets that who starts us has opened for the container (sd_listen_fds(3)): descriptors 3 and up, before those of
//! `--preserve-fds`. The process is told that they are its own.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};

use oci_spec::runtime::Process;
use rustix::io::Errno;

use crate::error::{Context, RuntimeError};

/// How many there are.
pub(super) fn count() -> u32 {
    let Ok(count) = std::env::var("LISTEN_FDS") else { return 0 };
    decide(&count, std::env::var("LISTEN_PID").ok().as_deref(), std::process::id())
}

/// Those meant for another process are not ours to hand on. Whom they are meant for need not be said.
fn decide(count: &str, pid: Option<&str>, own: u32) -> u32 {
    /// More than anyone may have open, and few enough to be counted on from.
    const MOST: u32 = 1 << 20;
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    count.parse().ok().filter(|count| is_ours && *count <= MOST).unwrap_or(0)
}

/// Tells a process of them; by which number it is meant it learns when it has one.
pub(super) fn tell(process: &mut Process, count: u32) {
    const OURS: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES"];
    let is_ours = |entry: &str| entry.split_once('=').is_some_and(|(name, _)| OURS.contains(&name));
    let mut environment = process.env().clone().unwrap_or_default();
    environment.retain(|entry| !is_ours(entry));
    environment.push(format!("LISTEN_FDS={count}"));
    environment.extend(std::env::var("LISTEN_FDNAMES").ok().map(|names| format!("LISTEN_FDNAMES={names}")));
    process.set_env(Some(environment));
}

/// Before we open anything: numbers that are to be handed on and that nobody has opened are taken, until execve(2). Or what
/// we open would have them, and be in the container's hands for a while.
pub(super) fn reserve(preserved: u32) -> Result<(), RuntimeError> {
    let count = count();
    // No number above can be had.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let end = u64::from(preserved.saturating_add(count).saturating_add(3)).min(limit);
    for number in 3..i32::try_from(end).unwrap_or(i32::MAX) {
        // SAFETY: it may be closed, which is what is asked; nothing is done with it.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        if rustix::io::fcntl_getfd(descriptor) != Err(Errno::BADF) {
            continue;
        }
        if number - 3 < count as i32 {
            return Err(RuntimeError::Invalid(format!("LISTEN_FDS={count}: descriptor {number} is not open")));
        }
        let null = File::open("/dev/null").context(|| "open /dev/null".to_owned())?;
        let taken = match null.as_raw_fd() == number {
            true => null.into(),
            false => rustix::io::fcntl_dupfd_cloexec(null, number)
                .context(|| format!("take the place of descriptor {number}"))?,
        };
        // It is the number's own from now on.
        let _ = taken.into_raw_fd();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_others_are_not_counted() {
        for (count, pid, expected) in [
            ("2", None, 2),
            ("2", Some("7"), 2),
            ("2", Some("8"), 0),
            ("2", Some(""), 0),
            ("", None, 0),
            ("-1", None, 0),
            ("4000000000", None, 0),
        ] {
            assert_eq!(decide(count, pid, 7), expected, "{count:?} {pid:?}");
        }
    }
}
