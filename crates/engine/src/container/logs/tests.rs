use std::io::Write;
use std::path::Path;

use dozen_monitor::protocol::LogFormat;
use tokio::sync::oneshot;

use super::*;

fn line(text: &str) -> String {
    format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00.000000000Z\"}}\n")
}

/// A follower, and what ends its run.
fn follow(logs: &Logs, path: &Path) -> (LogStream, oneshot::Sender<()>) {
    let notice = logs.notices.subscribe(path.parent().unwrap()).unwrap();
    let (end, ended) = oneshot::channel();
    let follower = Follower { notice, end: Box::pin(async move { drop(ended.await) }), over: false };
    let options = LogOptions { stdout: true, follow: true, ..LogOptions::default() };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(serve(
        Cursor::new(path.to_owned(), LogFormat::Json, options),
        Some(follower),
        logs.reading.clone(),
        sender,
    ));
    (receiver, end)
}

async fn next(stream: &mut LogStream) -> Option<String> {
    let entries = stream.recv().await?.unwrap();
    Some(entries.iter().map(|entry| String::from_utf8_lossy(entry.line.trim_ascii_end())).collect::<Vec<_>>().join(" "))
}

/// More than there are inotify instances for a user, on no more threads than read a log at one moment.
#[test]
fn three_hundred_followers() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(READING).build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.json");
    std::fs::write(&path, line("a")).unwrap();
    runtime.block_on(async {
        let logs = Logs::default();
        let mut followers: Vec<_> = (0..300).map(|_| follow(&logs, &path)).collect();
        // One who does not read is in nobody's way.
        let stalled = follow(&logs, &path);
        for (stream, _) in &mut followers {
            assert_eq!(next(stream).await.as_deref(), Some("a"));
        }
        std::fs::File::options().append(true).open(&path).unwrap().write_all(line("b").as_bytes()).unwrap();
        for (stream, _) in &mut followers {
            assert_eq!(next(stream).await.as_deref(), Some("b"));
        }
        // What was written before the end comes before it.
        std::fs::File::options().append(true).open(&path).unwrap().write_all(line("c").as_bytes()).unwrap();
        for (mut stream, end) in followers {
            end.send(()).unwrap();
            assert_eq!(next(&mut stream).await.as_deref(), Some("c"));
            assert_eq!(next(&mut stream).await, None);
        }
        drop(stalled);
    });
}
