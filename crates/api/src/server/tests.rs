//! The connection itself, with a router that needs no engine: takeover, half-close, going down.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

use super::*;
use crate::stream::takeover::{Head, response};

struct Served {
    path: std::path::PathBuf,
    stop: Option<oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Served {
    fn new(router: Router) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let listener = ListeningSockets::new(vec![tokio::net::UnixListener::bind(&path).unwrap()]);
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve_router(router, listener, async {
            let _ = stopped.await;
        }));
        Self { path, stop: Some(stop), server, _directory: directory }
    }

    async fn client(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }
}

/// Echoes what the taken-over connection sends, then says goodbye.
fn echo() -> Router {
    let attach = |headers: HeaderMap| async move {
        response(Head::for_request(&headers, "application/x-test"), |mut client, early| async move {
            let mut input = early.to_vec();
            client.read_to_end(&mut input).await.unwrap();
            client.write_all(&input).await.unwrap();
            client.write_all(b" bye").await.unwrap();
        })
    };
    Router::new().route("/attach", post(attach)).route("/hello", get(|| async { "hello" }))
}

async fn head(client: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn the_second_request_takes_over_without_an_upgrade() {
    let served = Served::new(echo());
    let mut client = served.client().await;
    client.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200 OK"));
    let mut body = [0; 5];
    client.read_exact(&mut body).await.unwrap();
    // Bytes that come with the request are standard input already.
    client.write_all(b"POST /v1.40/attach HTTP/1.1\r\nHost: x\r\n\r\nearly ").await.unwrap();
    assert_eq!(head(&mut client).await, "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n");
    client.write_all(b"late").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "early late bye");
}

#[tokio::test]
async fn an_upgrade_is_answered_by_101() {
    let served = Served::new(echo());
    let mut client = served.client().await;
    client
        .write_all(
            b"POST /attach HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        )
        .await
        .unwrap();
    assert_eq!(
        head(&mut client).await,
        "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/x-test\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    );
    client.write_all(b"in").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "in bye");
}

#[tokio::test]
async fn a_half_closed_client_gets_its_answer_and_then_the_end() {
    let served = Served::new(echo());
    let mut client = served.client().await;
    client.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("\r\n\r\nhello"), "{text}");
}

#[tokio::test]
async fn a_handler_is_dropped_when_its_client_goes() {
    struct Dropped(Arc<Notify>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (entered, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (entered, dropped) = (entered.clone(), dropped.clone());
        move || async move {
            let _guard = Dropped(dropped);
            entered.notify_one();
            std::future::pending::<()>().await;
        }
    };
    let served = Served::new(Router::new().route("/wait", get(handler)));
    let mut client = served.client().await;
    client.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    entered.notified().await;
    drop(client);
    dropped.notified().await;
}

#[tokio::test]
async fn going_down_ends_idle_connections_and_refuses_new_ones() {
    let mut served = Served::new(echo());
    let mut idle = served.client().await;
    idle.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    head(&mut idle).await;
    served.stop.take().unwrap().send(()).unwrap();
    served.server.await.unwrap();
    let mut rest = String::new();
    idle.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "hello");
    assert!(UnixStream::connect(&served.path).await.is_err());
}
