//! Runs the checks of one container's run: a task that sleeps in between, and an exec for each.

use std::os::fd::OwnedFd;
use std::time::Duration;

use dozen_model::{HealthCheck, UserSpec, error_chain};
use jiff::Timestamp;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::{HealthResult, NO_RESULT};
use crate::container::Container;
use crate::container::exec::Exec;
use crate::container::owner::Command;
use crate::container::snapshot::Snapshot;
use crate::failpoint::failpoint;
use crate::{EngineError, ExecSpec};

/// How much of what a check says is kept, as Docker keeps it.
const OUTPUT_BYTES: usize = 4096;
/// The head of a frame: the stream, three zeroes, the length.
const HEAD_BYTES: usize = 8;
/// A check that was killed may leave its output to someone else, which the monitor waits for.
const LAST_WORDS: Duration = Duration::from_secs(5);

type Snapshots = watch::Receiver<std::sync::Arc<Snapshot>>;

/// Checks until the run that has started then is over. A paused container is not checked.
pub(crate) async fn watch(container: Container, check: HealthCheck, command: Vec<String>, started: Timestamp) {
    let mut snapshots = container.entry.snapshots.clone();
    loop {
        let health = container.snapshot().health.clone();
        let pause = health.map_or(check.interval(), |health| health.next_pause(&check, started, Timestamp::now()));
        tokio::select! {
            biased;
            () = is_over(&mut snapshots, started) => return,
            () = tokio::time::sleep(pause) => {}
        }
        // An error means that it is gone, which the next look sees.
        if container.snapshot().phase.is_paused() {
            drop(snapshots.wait_for(|snapshot| !snapshot.phase.is_paused()).await);
            continue;
        }
        let mut interrupted = snapshots.clone();
        let Some(result) = run(&container, &check, &command, stands_still(&mut interrupted, started)).await else {
            continue;
        };
        failpoint("health.checked");
        let (reply, noted) = oneshot::channel();
        let checked = Command::Checked { started, result, reply };
        if container.entry.mailbox.send(checked).await.is_err() || noted.await.is_err() {
            return;
        }
    }
}

fn is_of(snapshot: &Snapshot, started: Timestamp) -> bool {
    snapshot.phase.run().is_some_and(|run| run.started == started)
}

async fn is_over(snapshots: &mut Snapshots, started: Timestamp) {
    drop(snapshots.wait_for(|snapshot| !is_of(snapshot, started)).await);
}

async fn stands_still(snapshots: &mut Snapshots, started: Timestamp) {
    drop(snapshots.wait_for(|snapshot| !is_of(snapshot, started) || snapshot.phase.is_paused()).await);
}

/// One check. `None` if it was interrupted, and says nothing.
async fn run(
    container: &Container,
    check: &HealthCheck,
    command: &[String],
    interrupted: impl Future<Output = ()>,
) -> Option<HealthResult> {
    let start = Timestamp::now();
    let result = |exit_code, output| Some(HealthResult { start, end: Timestamp::now(), exit_code, output });
    let failed = |error: EngineError| error_chain(&error);
    let spec = ExecSpec {
        arguments: command.to_vec(),
        environment: Vec::new(),
        working_directory: None,
        user: UserSpec::default(),
        terminal: false,
        terminal_size: None,
        detach_keys: String::new(),
        privileged: false,
        stdin: false,
        stdout: true,
        stderr: true,
    };
    let exec = match container.exec(spec).await {
        Ok(exec) => exec,
        // It has ended, or was paused, a moment ago.
        Err(EngineError::NotRunning(_) | EngineError::Conflict { .. }) => return None,
        Err(error) => return result(NO_RESULT, failed(error)),
    };
    // What is known of it is not kept: others' execs are asked after.
    let _forgotten = Forgotten(&exec);
    let stream = match exec.start(false, None).await {
        Ok(Some(stream)) => stream.socket,
        Ok(None) | Err(EngineError::NotRunning(_) | EngineError::Conflict { .. }) => return None,
        Err(error) => return result(NO_RESULT, failed(error)),
    };
    // From here on: what the start takes is not the check's fault.
    let timeout_at = Instant::now() + check.timeout();
    let mut output = Output::default();
    tokio::select! {
        () = output.read_all(&stream) => {}
        () = tokio::time::sleep_until(timeout_at) => {
            kill(container, &exec).await;
            // Dying checks shall not pile up.
            drop(tokio::time::timeout(LAST_WORDS, output.read_all(&stream)).await);
            let (said, limit) = (output.text(), check.timeout());
            let said = if said.is_empty() { said } else { format!(": {said}") };
            return result(NO_RESULT, format!("Health check exceeded timeout ({}){said}", go_duration(limit)));
        }
        () = interrupted => {
            kill(container, &exec).await;
            return None;
        }
    }
    match exec.snapshot().await.map(|ended| ended.exit_code) {
        Ok(Some(exit_code)) => result(exit_code, output.text()),
        // The container has ended with it.
        Ok(None) => None,
        Err(error) => result(NO_RESULT, failed(error)),
    }
}

/// Takes an exec out of the engine's memory.
struct Forgotten<'a>(&'a Exec);

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        self.0.container.shared.execs.forget(&self.0.id);
    }
}

/// Ends a check's process.
async fn kill(container: &Container, exec: &Exec) {
    let Ok(Some(pid)) = exec.snapshot().await.map(|exec| exec.pid) else { return };
    match process_of(container, pid) {
        Ok(Some(process)) => {
            // It may have ended meanwhile.
            let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(container = container.id.short(), error = error_chain(&error), "a check goes on"),
    }
}

/// The process of this id, if it is the container's: the id may be somebody else's by now.
fn process_of(container: &Container, pid: i32) -> Result<Option<OwnedFd>, std::io::Error> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
    let process = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        opened => opened?,
    };
    // Looked at while the descriptor keeps the process from being another.
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()))?;
    Ok(cgroups.lines().any(|line| line.contains(container.id.as_str())).then_some(process))
}

/// The beginning of what a check says, out of the frames in which it comes.
#[derive(Debug, Default)]
struct Output {
    kept: Vec<u8>,
    is_cut: bool,
    head: Vec<u8>,
    left: usize,
}

impl Output {
    /// Until it ends. What was read before the future is dropped is kept.
    async fn read_all(&mut self, stream: &UnixStream) {
        let mut part = [0; 1024];
        loop {
            if stream.readable().await.is_err() {
                return;
            }
            match stream.try_read(&mut part) {
                Ok(0) => return,
                Ok(count) => self.take(&part[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let (head, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.head.len()));
                self.head.extend_from_slice(head);
                bytes = rest;
                if let [_, _, _, _, a, b, c, d] = self.head[..] {
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.head.clear();
                }
                continue;
            }
            let (said, rest) = bytes.split_at(bytes.len().min(self.left));
            self.left -= said.len();
            bytes = rest;
            let room = OUTPUT_BYTES - self.kept.len();
            self.kept.extend_from_slice(&said[..said.len().min(room)]);
            self.is_cut |= said.len() > room;
        }
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        if self.is_cut { format!("{text}...") } else { text.into_owned() }
    }
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `50ms`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 {
        return format!("{}ms", duration.as_secs_f64() * 1000.0);
    }
    let fraction = (duration - Duration::from_secs(seconds / 60 * 60)).as_secs_f64();
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{fraction}s"),
        (0, minutes) => format!("{minutes}m{fraction}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &[u8]) -> Vec<u8> {
        [&[1, 0, 0, 0][..], &u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat()
    }

    #[test]
    fn output_is_taken_out_of_its_frames_however_they_come() {
        let bytes = [frame(b"one "), frame(b""), frame(b"two")].concat();
        for size in 1..bytes.len() {
            let mut output = Output::default();
            bytes.chunks(size).for_each(|chunk| output.take(chunk));
            assert_eq!(output.text(), "one two", "in parts of {size}");
        }
        let mut long = Output::default();
        long.take(&frame(&[b'x'; OUTPUT_BYTES]));
        assert_eq!(long.text().len(), OUTPUT_BYTES);
        long.take(&frame(b"y"));
        assert_eq!(long.text().len(), OUTPUT_BYTES + 3);
        let mut binary = Output::default();
        binary.take(&frame(b"\xff"));
        assert_eq!(binary.text(), "\u{fffd}");
    }

    #[test]
    fn durations_are_gos() {
        for (ms, text) in
            [(50, "50ms"), (1000, "1s"), (1500, "1.5s"), (30_000, "30s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")]
        {
            assert_eq!(go_duration(Duration::from_millis(ms)), text);
        }
    }
}
