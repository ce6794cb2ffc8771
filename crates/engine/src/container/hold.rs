//! A running container's processes stand still for a while, for `commit`.
//!
//! ```text
//! engine                                  monitor
//!   ├─ Hold ──────────────────────────────▶│  from here on: if the connection ends, all run
//!   │  freezes the cgroup, reads           │
//!   ├─ shutdown(WR) ──────────────────────▶│  lets all run
//!   │◀──────────────────────── end of file ┤
//! ```
//!
//! So an engine that dies leaves no container frozen. The monitor ends a hold by itself when a signal is to be heeded.

use std::os::fd::OwnedFd;

use dozen_model::{ErrorKind, error_chain};
use dozen_monitor::protocol::Request;
use dozen_runtime::Cgroup;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown};
use tokio::sync::OwnedRwLockReadGuard;

use crate::EngineError;
use crate::container::Container;
use crate::container::snapshot::Snapshot;
use crate::failpoint::failpoint;
use crate::monitor_link::{MonitorLink, PATIENCE};

/// The right to make a container's processes stand still. Dropped, they run.
#[derive(Debug)]
pub(crate) struct Hold {
    connection: OwnedFd,
    cgroup: Option<Cgroup>,
    container: String,
    /// Nobody pauses it meanwhile: the end of the hold would be the end of that.
    _moves: Option<OwnedRwLockReadGuard<()>>,
}

impl Container {
    /// `None`: it does not run, or is paused, and nobody needs to stand still.
    pub(crate) async fn hold(&self) -> Result<Option<Hold>, EngineError> {
        let moves = self.entry.moves.clone().read_owned().await;
        let snapshot = self.snapshot();
        if snapshot.phase.run().is_none_or(|run| run.is_paused) {
            return Ok(None);
        }
        let link = match MonitorLink::request(&self.shared.run_directory(&self.id), &Request::Hold).await {
            Ok((link, _)) => link,
            // It has ended a moment ago.
            Err(EngineError::System { .. }) => return Ok(None),
            Err(EngineError::Monitor(failure)) if failure.kind == ErrorKind::Conflict => return Ok(None),
            Err(error) => return Err(error),
        };
        failpoint("hold.granted");
        let lost = EngineError::system(|| "keep the connection to a monitor".to_owned());
        let connection = link.into_stream().into_std().map_err(lost)?.into();
        let cgroup = Cgroup::open(&self.shared.container_cgroup(&self.id, &self.snapshot().spec))?;
        Ok(Some(Hold { connection, cgroup, container: snapshot.name.to_string(), _moves: Some(moves) }))
    }
}

impl Hold {
    /// Returns once nobody moves. Blocks.
    ///
    /// # Errors
    /// Somebody does not stand still within ten seconds. This machine has no freezer.
    pub(crate) fn stand_still(&self) -> Result<(), EngineError> {
        let Some(cgroup) = &self.cgroup else { return Ok(()) };
        let paused = cgroup.pause();
        // The monitor has let them run for a signal, and does not do so again.
        if !self.is_granted() {
            cgroup.resume()?;
        }
        failpoint("hold.still");
        Ok(paused?)
    }

    /// Lets them run, and waits until they do. False: they have moved before. Blocks.
    pub(crate) fn release(&self) -> bool {
        let stood_still = self.is_granted();
        if stood_still && let Err(error) = self.let_run() {
            tracing::error!(container = self.container, error = error_chain(&error), "a container may stand still");
        }
        failpoint("hold.over");
        stood_still
    }

    fn is_granted(&self) -> bool {
        let mut byte = [0];
        let looked = rustix::net::recv(&self.connection, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(looked, Err(Errno::AGAIN | Errno::INTR))
    }

    fn let_run(&self) -> Result<(), EngineError> {
        let failed = || "hear from a monitor that a container runs on".to_owned();
        rustix::net::shutdown(&self.connection, Shutdown::Write).map_err(EngineError::system(failed))?;
        let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        loop {
            match rustix::event::poll(&mut [PollFd::new(&self.connection, PollFlags::IN)], Some(&patience)) {
                Ok(1..) => return Ok(()),
                Err(Errno::INTR) => {}
                // A monitor that hangs. It will do so again, which harms nobody.
                Ok(0) => return Ok(self.cgroup.as_ref().map_or(Ok(()), Cgroup::resume)?),
                Err(error) => return Err(EngineError::system(failed)(error)),
            }
        }
    }
}

/// A signal was sent, or it has ended, while it was to stand still.
pub(crate) fn moved(snapshot: &Snapshot) -> EngineError {
    EngineError::Conflict {
        message: format!("cannot commit container {}: it was sent a signal, or ended, meanwhile", snapshot.name),
        hint: Some("commit it again, or with --pause=false as it is from moment to moment".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_hold_lasts_until_it_is_released_or_the_monitor_ends_it() {
        let held = || {
            let (connection, monitor) = UnixStream::pair().unwrap();
            (Hold { connection: connection.into(), cgroup: None, container: "c".to_owned(), _moves: None }, monitor)
        };
        let (hold, mut monitor) = held();
        assert!(hold.is_granted());
        // The monitor's answer is the end of the connection.
        let answers = std::thread::spawn(move || monitor.read(&mut [0]).unwrap());
        assert!(hold.release());
        assert_eq!(answers.join().unwrap(), 0);
        assert!(!hold.is_granted());

        let (hold, monitor) = held();
        drop(monitor);
        assert!(!hold.release(), "it was ended before");
    }
}
