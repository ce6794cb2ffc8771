//! Serves each connection until its client leaves, a handler takes it over, or the engine goes down.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use dozen_accept::{Ending, Limits};
use dozen_engine::Engine;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::UnixStream;

use crate::edge;
use crate::listening::{ListeningSockets, Way};
use crate::routes;
use crate::stream::socket::{ClientSocket, Control};
use crate::stream::takeover::Takeover;

/// The longest head of a request. Go's own limit is 1 MiB; filters and ids fit into far less.
const HEAD_LIMIT_BYTES: usize = 128 << 10;
/// How long requests have to finish once the engine goes down. Streams without an end are cut then.
const GRACE: Duration = Duration::from_secs(2);

type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// Serves the API to whoever comes in until `shutdown` ends: then no new connection is accepted, requests in progress
/// have [`GRACE`] to finish, and the rest (attached streams, `events`) is cut.
pub async fn serve(engine: Engine, incoming: ListeningSockets, shutdown: impl Future<Output = ()>) {
    serve_router(routes::router(engine), incoming, shutdown).await;
}

async fn serve_router(router: Router, mut incoming: ListeningSockets, shutdown: impl Future<Output = ()>) {
    let accept = move |context: &mut Context<'_>| incoming.poll_accept(context);
    let speak = |(stream, way), ending| connection(stream, way, router.clone(), ending);
    dozen_accept::serve(accept, speak, Limits { most: None, grace: GRACE }, shutdown).await;
}

/// Serves one connection to its end.
async fn connection(stream: UnixStream, way: Way, router: Router, mut ending: Ending) {
    let control = Arc::new(Control::default());
    let socket = ClientSocket::new(stream, control.clone());
    let service = service_fn({
        let control = control.clone();
        move |mut request: axum::http::Request<Incoming>| -> Answering {
            request.extensions_mut().insert(way);
            let (router, control) = (router.clone(), control.clone());
            Box::pin(async move {
                let mut response = edge::respond(router, request.map(Body::new)).await;
                if let Some(session) = Takeover::of(&mut response) {
                    // hyper lets go of the connection after this answer, which the socket drops.
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    control.take_over(session);
                }
                Ok(response)
            })
        }
    });
    let mut connection = http1::Builder::new().max_buf_size(HEAD_LIMIT_BYTES).serve_connection(socket, service);
    let mut closing = false;
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|context| connection.poll_without_shutdown(context)) => break ended,
            () = last_request(&mut ending, &control), if !closing => {
                closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let parts = connection.into_parts();
    if let Err(error) = &ended {
        tracing::debug!(%error, "a connection ended early");
    } else if let Some(session) = control.session() {
        session(parts.io.into_stream(), parts.read_buf).await;
    }
}

/// The request in progress is the connection's last: the engine goes down, or the client sends no more.
async fn last_request(ending: &mut Ending, control: &Control) {
    tokio::select! {
        () = ending.begun() => {}
        () = control.half_closed.notified() => {}
    }
}

#[cfg(test)]
mod tests;
