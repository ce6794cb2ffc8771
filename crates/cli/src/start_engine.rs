//! Starts an engine in the background when there is none, and waits until it answers.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dozen_model::run_root::{LOG_NAME, UNSUPERVISED_VARIABLE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::failure::Failure;
use crate::host::Roots;

/// How long an engine may take to answer for the first time.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait between two attempts: the engine is up in milliseconds.
const RETRY: Duration = Duration::from_millis(2);
/// How often to look whether the engine still runs that has not answered yet.
const LOOK: Duration = Duration::from_millis(20);
/// After our engine ended, how long another one, started by someone else at the same moment, may take.
const GRACE: Duration = Duration::from_millis(500);
/// How much of the end of the log is shown on a failure.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 10;

/// Starts the engine of these roots and connects to it.
pub async fn start(roots: &Roots, socket: &Path) -> Result<UnixStream, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(crate::client::cannot_connect(socket)
            .with_hint("start an engine as root with 'dozen daemon', or run this command as root"));
    }
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr(), "starting the engine…");
    }
    let log_path = roots.data_root.join(LOG_NAME);
    let (mut log, log_start) = open_log(&roots.data_root, &log_path)?;
    let mut engine =
        spawn(roots, socket, &log).map_err(|error| Failure::new(format!("cannot start the engine: {error}")))?;
    wait_until_it_answers(&mut engine, socket).await.map_err(|why| {
        let said = tail(&mut log, log_start);
        let gap = if said.is_empty() { "" } else { "\n" };
        Failure::new(format!("the engine did not start: {why}{gap}{said}"))
            .with_hint(format!("its log is {}; 'dozen daemon' runs it in the foreground", log_path.display()))
    })
}

fn open_log(data_root: &Path, path: &Path) -> Result<(File, u64), Failure> {
    let failed = |error| Failure::new(format!("cannot start the engine: cannot write {}: {error}", path.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o710).create(data_root).map_err(|error| {
        Failure::new(format!("cannot start the engine: cannot make its data root {}: {error}", data_root.display()))
            .with_hint("--data-root, or DOZEN_DATA_ROOT in the environment, names a directory")
    })?;
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(failed)?;
    let end = file.seek(SeekFrom::End(0)).map_err(failed)?;
    Ok((file, end))
}

fn spawn(roots: &Roots, socket: &Path, log: &File) -> std::io::Result<Child> {
    let mut address = std::ffi::OsString::from("unix://");
    address.push(socket);
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("dozen")
        .arg("daemon")
        // By the environment, which goes before the engine's configuration file; a flag would contradict it. The
        // address in full, because DOZEN_HOST in ours may name another one.
        .env("DOZEN_RUN_ROOT", &roots.run_root)
        .env("DOZEN_HOST", address)
        .env(UNSUPERVISED_VARIABLE, "1")
        // Whoever runs this command as a service is not to hear from the engine.
        .env_remove("NOTIFY_SOCKET")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    // Where nobody has named one, the file may.
    if roots.data_root != Path::new(crate::host::DEFAULT_DATA_ROOT) {
        command.env("DOZEN_DATA_ROOT", &roots.data_root);
    }
    // A session of its own: neither ^C nor the end of this terminal reaches it.
    //
    // SAFETY: between fork and exec only setsid(2) is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(())
        });
    }
    command.spawn()
}

/// A connection alone is no answer: the one who holds the published ports holds the socket too.
async fn wait_until_it_answers(engine: &mut Child, socket: &Path) -> Result<UnixStream, String> {
    let begun = Instant::now();
    let mut ended: Option<(Instant, String)> = None;
    let mut answer = Box::pin(ping(socket));
    loop {
        match tokio::time::timeout(LOOK, &mut answer).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(_)) => {
                tokio::time::sleep(RETRY).await;
                answer = Box::pin(ping(socket));
            }
            Err(_) => {}
        }
        if ended.is_none()
            && let Ok(Some(status)) = engine.try_wait()
        {
            ended = Some((Instant::now(), status.to_string()));
        }
        match &ended {
            Some((when, status)) if when.elapsed() > GRACE => return Err(format!("it ended with {status}")),
            _ if begun.elapsed() > DEADLINE => {
                return Err(format!("{} does not answer after {} s", socket.display(), DEADLINE.as_secs()));
            }
            _ => {}
        }
    }
}

/// Asks, and connects once more when there was an answer, whatever it was.
async fn ping(socket: &Path) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: dozen\r\nConnection: close\r\n\r\n").await?;
    stream.read_u8().await?;
    UnixStream::connect(socket).await
}

/// The last lines that the engine wrote since `start`.
fn tail(log: &mut File, start: u64) -> String {
    let length = log.metadata().map(|metadata| metadata.len()).unwrap_or(start);
    let from = start.max(length.saturating_sub(TAIL_BYTES));
    let mut bytes = Vec::new();
    if log.seek(SeekFrom::Start(from)).is_err() || log.take(TAIL_BYTES).read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_of_this_start_are_shown() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("data");
        let path = root.join("engine.log");
        let (mut first, start) = open_log(&root, &path).unwrap();
        assert_eq!(start, 0);
        writeln!(first, "an older start").unwrap();
        let (mut second, start) = open_log(&root, &path).unwrap();
        for number in 0..20 {
            writeln!(second, "line {number}").unwrap();
        }
        let said = tail(&mut second, start);
        assert!(said.starts_with("line 10\n") && said.ends_with("line 19"), "{said}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_engine_that_ends_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("/bin/false").spawn().unwrap();
        let why = wait_until_it_answers(&mut child, &directory.path().join("none.sock")).await.unwrap_err();
        assert_eq!(why, "it ended with exit status: 1");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_engine_that_someone_else_started_will_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dozen.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let mut child = Command::new("/bin/false").spawn().unwrap();
        let other = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            std::future::pending().await
        };
        tokio::select! {
            result = wait_until_it_answers(&mut child, &path) => assert!(result.is_ok()),
            () = other => {}
        }
        let _ = child.wait();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_socket_that_takes_connections_is_no_engine() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dozen.sock");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let mut child = Command::new("/bin/false").spawn().unwrap();
        let why = wait_until_it_answers(&mut child, &path).await.unwrap_err();
        assert_eq!(why, "it ended with exit status: 1");
    }
}
