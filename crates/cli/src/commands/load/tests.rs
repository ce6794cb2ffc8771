//! What is sent, to a socket in this process that answers as an engine would.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::client::Client;
use crate::host::{Care, Host};

const LOADED: &str = r#"{"stream":"Loaded image: a:1\n"}"#;
const MISSING: &str = r#"{"error":"it is missing in the archive"}"#;

/// Answers requests; `known` is for `/layers/known`, whose absence is a 404. Gives the bodies of loads.
async fn serve(listener: UnixListener, known: Option<&str>, mut answers: Vec<&str>, loads: &Mutex<Vec<Vec<u8>>>) {
    loop {
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        while let Some((head, body)) = request(&mut stream).await {
            let (status, answer) = match (head.contains("/layers/known"), known) {
                (true, Some(known)) => ("200 OK", known),
                (true, None) => ("404 Not Found", "{}"),
                (false, _) => {
                    loads.lock().unwrap().push(body);
                    ("200 OK", answers.remove(0))
                }
            };
            let length = answer.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{answer}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

async fn line(stream: &mut BufReader<UnixStream>) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(line).unwrap().trim_end().to_lowercase())
}

async fn request(stream: &mut BufReader<UnixStream>) -> Option<(String, Vec<u8>)> {
    let head = line(stream).await?;
    let (mut body, mut length) = (Vec::new(), None);
    loop {
        let field = line(stream).await?;
        if field.is_empty() {
            break;
        }
        length = length.or_else(|| field.strip_prefix("content-length: ")?.parse().ok());
    }
    if let Some(length) = length {
        body.resize(length, 0);
        stream.read_exact(&mut body).await.ok()?;
        return Some((head, body));
    }
    // RFC 9112, 7.1 "Chunked Transfer Coding".
    loop {
        let mut chunk = vec![0; usize::from_str_radix(&line(stream).await?, 16).unwrap() + 2];
        stream.read_exact(&mut chunk).await.ok()?;
        chunk.truncate(chunk.len() - 2);
        if chunk.is_empty() {
            return Some((head, body));
        }
        body.extend(chunk);
    }
}

/// Loads an archive of two layers; gives it, what was sent, and the outcome.
async fn loaded(known: Option<&str>, answers: &[&str]) -> (Vec<u8>, Vec<Vec<u8>>, Outcome) {
    let directory = tempfile::tempdir().unwrap();
    let (socket, path) = (directory.path().join("test.sock"), directory.path().join("image.tar"));
    let archive = [archive::tests::image(["one", "two"]).concat(), vec![0; 1024]].concat();
    std::fs::write(&path, &archive).unwrap();
    let context = Context { client: Client::new(Host { socket: socket.clone(), care: Care::Unknown }, None, false) };
    let matches = command().get_matches_from(["load", "-q", "-i", path.to_str().unwrap()]);
    let loads = Mutex::new(Vec::new());
    let listener = UnixListener::bind(&socket).unwrap();
    let outcome = tokio::select! {
        outcome = execute(&context, &matches) => outcome,
        () = serve(listener, known, answers.to_vec(), &loads) => unreachable!("it serves for ever"),
    };
    (archive, loads.into_inner().unwrap(), outcome)
}

#[tokio::test(flavor = "current_thread")]
async fn layers_that_the_engine_has_are_not_sent() {
    let (archive, loads, outcome) = loaded(Some(r#"{"Known":["sha256:1","sha256:2"]}"#), &[LOADED]).await;
    assert_eq!(outcome.unwrap(), 0);
    // The directory before the two, and what follows them.
    assert!(loads == [[&archive[..512], &archive[3072..]].concat()]);
    let (archive, loads, outcome) = loaded(Some(r#"{"Known":[]}"#), &[LOADED]).await;
    assert_eq!(outcome.unwrap(), 0);
    assert!(loads == [archive]);
}

#[tokio::test(flavor = "current_thread")]
async fn an_engine_that_does_not_know_the_question_gets_all() {
    let (archive, loads, outcome) = loaded(None, &[LOADED]).await;
    assert_eq!(outcome.unwrap(), 0);
    assert!(loads == [archive]);
}

#[tokio::test(flavor = "current_thread")]
async fn what_fails_without_the_layers_is_sent_whole() {
    let known = Some(r#"{"Known":["sha256:1","sha256:2"]}"#);
    let (archive, loads, outcome) = loaded(known, &[MISSING, LOADED]).await;
    assert_eq!(outcome.unwrap(), 0);
    assert!(loads.len() == 2 && loads[0].len() < archive.len() && loads[1] == archive);
    let (_, loads, outcome) = loaded(known, &[MISSING, MISSING]).await;
    assert_eq!((loads.len(), outcome.unwrap_err().message.as_str()), (2, "it is missing in the archive"));
}
