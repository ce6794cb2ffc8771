//! `/metrics`, on an address of its own: who may reach that is the network's to say.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use dozen_accept::Limits;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::Watch;
use crate::store::Store;

/// Who asks may be connected at once with so many others.
const MOST_CONNECTIONS: usize = 16;
/// Who neither asks nor reads for so long is let go.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells a registry's numbers for ever.
pub async fn serve_metrics(listener: TcpListener, store: Arc<Store>, watch: Watch) {
    let accept = move |context: &mut Context<'_>| listener.poll_accept(context);
    let limits = Limits { most: Some(MOST_CONNECTIONS), grace: Duration::ZERO };
    let speak = |(stream, _), _| speak(stream, store.clone(), watch.clone());
    dozen_accept::serve(accept, speak, limits, std::future::pending()).await;
}

async fn speak(stream: TcpStream, store: Arc<Store>, watch: Watch) {
    let service = service_fn(move |request| {
        let (store, watch) = (store.clone(), watch.clone());
        Box::pin(async move { Ok::<_, Infallible>(answer(&request, &store, &watch).await) })
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    let _ = tokio::time::timeout(PATIENCE * 2, builder.serve_connection(TokioIo::new(stream), service)).await;
}

async fn answer(request: &Request<Incoming>, store: &Store, watch: &Watch) -> Response<Full<Bytes>> {
    let told = |status, text: String| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        response
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => match watch.metrics.text(store, watch.webhooks.as_ref()).await {
            Ok(text) => told(StatusCode::OK, text),
            Err(refusal) => told(refusal.kind.told().0, format!("{refusal}\n")),
        },
        (_, "/metrics") => told(StatusCode::METHOD_NOT_ALLOWED, "GET is for this path\n".to_owned()),
        _ => told(StatusCode::NOT_FOUND, "the numbers are at /metrics\n".to_owned()),
    }
}
