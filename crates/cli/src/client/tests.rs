//! The client against a socket in this process that says exactly what each test needs.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

/// Answers the connections made, each with its bytes once a request's head has come.
async fn served(answers: Vec<&'static [u8]>) -> (tempfile::TempDir, Client, tokio::task::JoinHandle<Vec<String>>) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("test.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(async move {
        let mut heads = Vec::new();
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in answers {
            heads.push(read_head(&mut stream).await);
            stream.write_all(answer).await.unwrap();
        }
        if heads.last().is_some_and(|head| head.contains("Upgrade")) {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            stream.write_all(b"bye").await.unwrap();
            heads.push(rest);
        }
        heads
    });
    (directory, Client::new(Host { socket, care: Care::Unknown }, None, false), server)
}

async fn read_head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().replace("connection: Upgrade", "Upgrade")
}

#[tokio::test(flavor = "current_thread")]
async fn one_connection_serves_several_requests() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
    let (_directory, client, server) = served(vec![answer, answer]).await;
    for _ in 0..2 {
        let value: Value = client.get("/version").await.unwrap();
        assert_eq!(value["a"], 1);
    }
    let heads = server.await.unwrap();
    assert!(heads.iter().all(|head| head.starts_with("GET /v1.51/version HTTP/1.1\r\n")), "{heads:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_refusal_keeps_the_engines_words() {
    let (_directory, client, _server) = served(vec![
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 39\r\n\r\n{\"message\":\"in use\\n\",\"hint\":\"stop it\"} ",
    ])
    .await;
    let error = client.delete("/containers/x").await.unwrap_err();
    assert_eq!(error.to_string(), "Error response from daemon: in use");
    assert_eq!(error.hint().as_deref(), Some("stop it"));
    assert!(!error.is_not_found());
}

#[tokio::test(flavor = "current_thread")]
async fn a_connection_is_taken_over_and_half_closed() {
    let (_directory, client, server) = served(vec![
        b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
          Content-Type: application/vnd.docker.multiplexed-stream\r\n\r\nhello ",
    ])
    .await;
    let (mut stream, is_multiplexed) = client.take_over("/containers/x/attach?stream=1", None).await.unwrap();
    assert_eq!(is_multiplexed, Some(true));
    stream.write_all(b"input").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut output = String::new();
    stream.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "hello bye");
    assert_eq!(server.await.unwrap()[1], "input");
}

#[tokio::test(flavor = "current_thread")]
async fn documents_are_read_one_by_one() {
    let (_directory, client, _server) = served(vec![
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
          4\r\n{\"a\"\r\n8\r\n:1}{\"a\":\r\n4\r\n2}\r\n\r\n0\r\n\r\n",
    ])
    .await;
    let response = client.stream(Method::GET, "/events", None).await.unwrap();
    let mut lines = JsonLines::new(response, "events");
    assert_eq!(lines.next().await.unwrap().unwrap()["a"], 1);
    assert_eq!(lines.next().await.unwrap().unwrap()["a"], 2);
    assert!(lines.next().await.unwrap().is_none());
}

#[tokio::test(flavor = "current_thread")]
async fn nobody_there_is_said_in_dockers_words() {
    let host = Host { socket: "/nonexistent/dozen.sock".into(), care: Care::Unknown };
    let error = Client::new(host, None, false).get::<Value>("/info").await.unwrap_err();
    assert!(error.to_string().starts_with("Cannot connect to the Docker daemon at unix:///nonexistent/dozen.sock."));
}

#[tokio::test(flavor = "current_thread")]
async fn a_refusal_before_the_end_of_a_long_body_is_heard() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("test.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let listener = listener.into_std().unwrap();
        listener.set_nonblocking(false).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let _ = std::io::Read::read(&mut stream, &mut head).unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 24\r\n\r\n{\"message\":\"no archive\"}";
        std::io::Write::write_all(&mut stream, answer).unwrap();
    });
    let client = Client::new(Host { socket, care: Care::Unknown }, None, false);
    let body: Body = Full::new(Bytes::from(vec![0; 64 << 20])).map_err(|never| match never {}).boxed();
    let error = client.stream(Method::POST, "/images/load", Some(body)).await.unwrap_err();
    server.join().unwrap();
    assert_eq!(error.to_string(), "Error response from daemon: no archive");
}

/// Written to when the other end has answered and is gone for certain.
#[tokio::test(flavor = "current_thread")]
async fn what_is_written_to_one_who_hung_up_is_thrown_away_and_the_answer_read() {
    let (stream, mut other) = UnixStream::pair().unwrap();
    other.write_all(b"no").await.unwrap();
    drop(other);
    let mut stream = LastWords::new(stream);
    for _ in 0..2 {
        stream.write_all(&[0; 1 << 20]).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "no");
}
