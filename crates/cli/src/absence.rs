//! Notices that the engine is gone while its socket still takes connections.
//!
//! The keeper holds the socket, so that a request waits through an upgrade or a crash of the engine and is answered by
//! the next one. If nobody else starts that, we do; a connection that waits already is served by it.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use dozen_model::run_root::{LOCK_NAME, UNSUPERVISED_NAME};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::client::cannot_connect;
use crate::failure::Failure;
use crate::host::{Care, Host, Roots};
use crate::start_engine;

/// When the first look is; nearly every request is answered before.
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// How long between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long a supervisor, of whom nobody knows whether there is one, has to start an engine before we do.
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(1);
/// How long a request waits for an engine that only its service may start.
const SERVICE_PATIENCE: Duration = Duration::from_secs(30);

/// Runs beside a request that waits for its answer. Ends only if there will be none, and says why.
pub async fn watch(host: &Host) -> Failure {
    let (Care::Ours(roots) | Care::Service(roots)) = &host.care else { return std::future::pending().await };
    let mut gone_since: Option<Instant> = None;
    let mut pause = FIRST_LOOK;
    loop {
        tokio::time::sleep(std::mem::replace(&mut pause, LOOK)).await;
        if is_there(&roots.run_root) {
            gone_since = None;
            continue;
        }
        let gone_for = gone_since.get_or_insert_with(Instant::now).elapsed();
        match step(&host.care, gone_for, is_unsupervised(&roots.run_root)) {
            Step::Wait => {}
            Step::Start(roots) => match start_engine::start(roots, &host.socket).await {
                Ok(_) => gone_since = None,
                Err(failure) => return failure,
            },
            Step::GiveUp => {
                return cannot_connect(&host.socket)
                    .with_hint("the engine has ended and its service has not started it again: see the service's log");
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Wait,
    Start(&'a Roots),
    GiveUp,
}

fn step(care: &Care, gone_for: Duration, is_unsupervised: bool) -> Step<'_> {
    match care {
        Care::Ours(roots) if is_unsupervised || gone_for >= SUPERVISOR_PATIENCE => Step::Start(roots),
        Care::Service(_) if gone_for >= SERVICE_PATIENCE => Step::GiveUp,
        _ => Step::Wait,
    }
}

/// Whether an engine uses this run root. Where that cannot be known (the lock is root's), there is one.
fn is_there(run_root: &Path) -> bool {
    let Ok(lock) = File::open(run_root.join(LOCK_NAME)) else { return true };
    // Shared: it is ours for a moment, which an engine that begins bears.
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

/// Whether the engine that was here last had been started by a client.
fn is_unsupervised(run_root: &Path) -> bool {
    run_root.join(UNSUPERVISED_NAME).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_goes_first_and_a_service_alone() {
        let roots = Roots { run_root: "/r".into(), data_root: "/d".into() };
        let (ours, service) = (Care::Ours(roots.clone()), Care::Service(roots.clone()));
        for (care, gone_for_ms, is_unsupervised, expected) in [
            (&ours, 0, false, Step::Wait),
            (&ours, 999, false, Step::Wait),
            (&ours, 1000, false, Step::Start(&roots)),
            (&ours, 0, true, Step::Start(&roots)),
            (&service, 29_999, false, Step::Wait),
            (&service, 29_999, true, Step::Wait),
            (&service, 30_000, false, Step::GiveUp),
        ] {
            assert_eq!(step(care, Duration::from_millis(gone_for_ms), is_unsupervised), expected);
        }
    }

    #[test]
    fn an_engine_is_there_while_it_holds_its_lock() {
        let directory = tempfile::tempdir().unwrap();
        assert!(is_there(directory.path()), "nothing is known of it");
        let lock = File::create(directory.path().join(LOCK_NAME)).unwrap();
        assert!(!is_there(directory.path()));
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(is_there(directory.path()));
        drop(lock);
        assert!(!is_there(directory.path()));
    }
}
