//! A build against an engine in this process that takes what is sent and says what each test needs.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::client::Client;
use crate::host::{Care, Host};

const PING: &[u8] = b"HTTP/1.1 200 OK\r\nServer: Dozen/0.1.0 (linux)\r\nContent-Length: 2\r\n\r\nOK";

/// Head and body of the build's request; nothing of it if it broke off.
type Received = Option<(String, Vec<u8>)>;

/// Answers a ping with `ping`, and takes one build, to which it says `events`.
fn engine(socket: &Path, ping: &'static [u8], events: &'static str) -> tokio::task::JoinHandle<Received> {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(head(&mut stream).await.unwrap().starts_with("GET /v1.51/_ping "));
        stream.write_all(ping).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = head(&mut stream).await?;
        let body = chunks(&mut stream).await?;
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{events}");
        stream.write_all(answer.as_bytes()).await.unwrap();
        Some((head, body))
    })
}

async fn head(stream: &mut UnixStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// RFC 9112, 7.1.
async fn chunks(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.ok()?);
        }
        let length = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
        let at = body.len();
        body.resize(at + length + 2, 0);
        stream.read_exact(&mut body[at..]).await.ok()?;
        body.truncate(at + length);
        if length == 0 {
            return Some(body);
        }
    }
}

/// `dozen build FLAGS CONTEXT` with what the engine got of it.
async fn built(ping: &'static [u8], events: &'static str, flags: &[&str], at: &Path) -> (Outcome, Received) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let engine = engine(&socket, ping, events);
    let context = Context { client: Client::new(Host { socket, care: Care::Unknown }, None, false) };
    let words = [&["build", "--progress", "quiet"], flags, &[at.to_str().unwrap()]].concat();
    let outcome = execute(&context, &command().try_get_matches_from(words).unwrap()).await;
    drop(context);
    let received = match &outcome {
        Err(failure) if failure.message.contains("not dozen") => None,
        _ => engine.await.unwrap(),
    };
    (outcome, received)
}

fn context() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("Dockerfile"), "FROM scratch\nCOPY a /\n").unwrap();
    std::fs::write(directory.path().join(".dockerignore"), "Dockerfile\n*.log\n").unwrap();
    std::fs::write(directory.path().join("a"), vec![7; 600_000]).unwrap();
    std::fs::write(directory.path().join("b.log"), "no").unwrap();
    directory
}

#[tokio::test(flavor = "current_thread")]
async fn dockerfile_secrets_and_context_go_in_one_body() {
    let at = context();
    let beside = tempfile::tempdir().unwrap();
    let (secret, iidfile) = (beside.path().join("secret"), beside.path().join("iid"));
    std::fs::write(&secret, "s").unwrap();
    std::fs::write(&iidfile, "another's").unwrap();
    let flag = format!("id=t,src={}", secret.display());
    let flags = ["-t", "web", "--secret", &flag, "--iidfile", iidfile.to_str().unwrap()];
    let events = "{\"Warning\":\"w\"}\n{\"New\":1}\n{\"Built\":\"sha256:12\"}\n";
    let (outcome, received) = built(PING, events, &flags, at.path()).await;
    assert_eq!(outcome, Ok(0));
    assert_eq!(std::fs::read_to_string(&iidfile).unwrap(), "sha256:12");
    let (head, body) = received.unwrap();
    assert!(head.starts_with("POST /v1.51/build?t=web HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(events::CONTEXT_TYPE) && head.contains(events::EVENTS_TYPE), "{head}");
    let end = body.iter().position(|byte| *byte == b'\n').unwrap();
    let said: serde_json::Value = serde_json::from_slice(&body[..end]).unwrap();
    assert_eq!(
        (&said["Dockerfile"]["Text"], &said["Secrets"]["t"]),
        (&"FROM scratch\nCOPY a /\n".into(), &"cw==".into())
    );
    let archive = &body[end + 1..];
    assert_eq!(archive.len(), 512 + 512 + 512 + 600_064 + 1024);
    let names: Vec<&[u8]> = [0, 1024].iter().map(|at| &archive[*at..*at + 13]).collect();
    assert_eq!(names, [&b".dockerignore"[..], b"a\0\0\0\0\0\0\0\0\0\0\0\0"]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_context_that_cannot_be_read_is_what_is_said() {
    let at = context();
    let deep = "d/".repeat(520);
    std::fs::create_dir_all(at.path().join(deep)).unwrap();
    let (outcome, received) = built(PING, "", &[], at.path()).await;
    let failure = outcome.unwrap_err();
    assert!(failure.message.contains("nested more than 500 deep"), "{}", failure.message);
    // What had gone is not taken for all of it.
    assert!(received.is_none());
}

#[tokio::test(flavor = "current_thread")]
async fn failures_end_with_one_and_say_how_to_go_on() {
    let at = context();
    let failed = "{\"Step\":{\"ID\":1,\"Stage\":\"0\",\"Number\":1,\"Count\":1,\"Total\":1,\"Text\":\"FROM x\"}}\n\
        {\"Failed\":{\"Message\":\"No such image: x\",\"Excerpt\":null,\"Hint\":\"load it\",\"ExitCode\":null}}\n";
    let (outcome, _) = built(PING, failed, &[], at.path()).await;
    assert_eq!(outcome.unwrap_err().render(), "ERROR: No such image: x\nhint: load it\n");
    let (outcome, _) = built(PING, "{\"Cached\":1}\n", &[], at.path()).await;
    let failure = outcome.unwrap_err();
    assert!(failure.message.contains("ended the build without a result") && failure.exit_code == FAILED);
    let other = b"HTTP/1.1 200 OK\r\nServer: Docker/28 (linux)\r\nContent-Length: 2\r\n\r\nOK";
    let (outcome, _) = built(other, "", &[], at.path()).await;
    assert!(outcome.unwrap_err().message.contains("an engine that is not dozen is not built yet"));
}

fn checked(line: &str) -> Option<Outcome> {
    let words = std::iter::once("build").chain(line.split_whitespace());
    without_engine(&command().try_get_matches_from(words).unwrap())
}

#[test]
fn only_a_check_needs_no_engine() {
    assert!(checked("-f x -t y .").is_none());
    assert!(checked("--check /nowhere").unwrap().unwrap_err().message.contains("/nowhere"));
    assert!(checked("--call outline .").unwrap().unwrap_err().message.contains("is not built yet"));
}

#[test]
fn the_exit_status_tells_what_was_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("Dockerfile");
    let status = |text: &str, flags: &str| {
        std::fs::write(&path, text).unwrap();
        let outcome = checked(&format!("{flags} {}", directory.path().display())).unwrap();
        outcome.unwrap_or_else(|failure| failure.exit_code)
    };
    assert_eq!(status("FROM a\n", "--check"), 0);
    assert_eq!(status("FROM a\nCMD b\n", "--check"), 1);
    assert_eq!(status("FROM a\nCMD b\n", "--call check,ignorestatus=true"), 0);
    assert_eq!(status("FROM a\nCDM b\n", "--call check,ignorestatus=true"), 1);
    assert_eq!(status("ARG v\nFROM a:${v:?}\n", "--check"), 1);
    assert_eq!(status("ARG v\nFROM a:x${v:?}\n", "--check --build-arg v=1"), 0);
    assert_eq!(status("FROM a AS b\nFROM a\nCMD c\n", "--check --target b"), 0);
    assert_eq!(status("FROM a\n", "--check --target c"), 1);
    let ignored = "# check=experimental=all\nFROM a\nCOPY b c\n";
    assert_eq!(status(ignored, "--check"), 0);
    std::fs::write(directory.path().join(".dockerignore"), "b\n").unwrap();
    assert_eq!(status(ignored, "--check"), 1);
    std::fs::write(directory.path().join("Dockerfile.dockerignore"), "").unwrap();
    assert_eq!(status(ignored, "--check"), 0);
}
