//! Signals: those that are passed on to the container, the terminal's new size, and those that end us.

use std::future::poll_fn;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// All that can be caught and mean something to a container's process. Not CHLD, PIPE, URG and WINCH, which speak to
/// this process; not those of a fault (ILL, FPE, SEGV, BUS).
const PASSED_ON: [i32; 17] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGSTKFLT,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSYS,
];

/// Those that end a program which does not catch them, at the hand of a person or an init.
const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// A set of signals that are caught while it lives.
#[derive(Debug)]
pub struct Signals {
    caught: Vec<(i32, Signal)>,
}

impl Signals {
    /// Everything that `--sig-proxy` passes on.
    pub fn to_pass_on() -> Self {
        Self::catch(&PASSED_ON)
    }

    /// What should end us, after the terminal has been put right.
    pub fn that_end_us() -> Self {
        Self::catch(&ENDING)
    }

    /// The terminal has a new size.
    pub fn of_resize() -> Self {
        Self::catch(&[libc::SIGWINCH])
    }

    fn catch(numbers: &[i32]) -> Self {
        let caught = numbers
            .iter()
            .filter_map(|number| signal(SignalKind::from_raw(*number)).ok().map(|signal| (*number, signal)))
            .collect();
        Self { caught }
    }

    /// The number of the next one.
    pub async fn next(&mut self) -> i32 {
        poll_fn(|cx| {
            for (number, signal) in &mut self.caught {
                if let Poll::Ready(Some(())) = signal.poll_recv(cx) {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn signals_that_are_passed_on_do_not_end_us() {
        let mut signals = Signals::to_pass_on();
        assert_eq!(signals.caught.len(), PASSED_ON.len());
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1).unwrap();
        assert_eq!(signals.next().await, libc::SIGUSR1);
    }
}
