//! Sockets that who starts us has opened for the container (sd_listen_fds(3)): descriptors 3 and up, before those of
//! `--preserve-fds`. The process is told that they are its own.

use oci_spec::runtime::Process;
use rustix::io::Errno;

use crate::error::RuntimeError;

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

/// Before we open anything: what is to be handed on has to be there, or it would be something of ours.
pub(super) fn check_preserved(preserved: u32) -> Result<(), RuntimeError> {
    let count = count();
    for number in 3..preserved.saturating_add(count).saturating_add(3) {
        // SAFETY: it may be closed, which is what is asked; nothing is done with it.
        let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(number as i32) };
        if rustix::io::fcntl_getfd(descriptor) == Err(Errno::BADF) {
            return Err(RuntimeError::Invalid(format!(
                "descriptor {number} is to be handed on (LISTEN_FDS={count}, --preserve-fds {preserved}), and is not open"
            )));
        }
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
