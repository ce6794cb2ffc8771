//! `object_store`'s requests over the connections of `dozen-fetch`: its proxies, the host's authorities, its limits.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dozen_fetch::{Address, Authorities, Connections, FetchError, Fetching, Patience, Proxies, Question};
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use tokio::sync::mpsc;

/// A store that is silent for longer is taken to be down.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pieces of an answer that have come and are not taken yet.
const PIECES_AHEAD: usize = 2;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    fetching: Fetching,
    connections: Connections,
}

impl Connector {
    /// Whom the host trusts is trusted, and its proxies are used.
    pub(crate) fn new() -> Result<Self, String> {
        let authorities = Authorities::of_host(None).map_err(|error| error.to_string())?;
        let variables: HashMap<String, String> = std::env::vars().collect();
        let fetching = Fetching {
            proxies: Proxies::of(|name| variables.get(name).map(String::as_str)),
            authorities,
            // Whoever names the store names this host, if it is here.
            reach: dozen_fetch::Reach::Anywhere,
            may_be_plain: true,
            patience: Patience { head: PATIENCE, silence: PATIENCE },
            door: None,
        };
        Ok(Self { fetching, connections: Connections::default() })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let address = Address::parse(&parts.uri.to_string());
        let address = address.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        // A connection that has waited is used for what has no body alone.
        let has_body = body.content_length() > 0 || parts.method != http::Method::GET;
        let body = has_body.then(|| body.map_err(std::io::Error::other).boxed_unsync());
        let question = Question { method: parts.method, address: &address, headers: parts.headers, body };
        let mut answer = self.fetching.ask(question, &self.connections).await.map_err(failed)?;
        let mut response = Response::builder().status(answer.status);
        if let Some(headers) = response.headers_mut() {
            headers.extend(std::mem::take(&mut answer.headers));
        }
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(async move {
            loop {
                let piece = match answer.next().await {
                    Ok(None) => return,
                    Ok(Some(piece)) => Ok(piece),
                    Err(error) => Err(failed(error)),
                };
                let is_end = piece.is_err();
                if sender.send(piece).await.is_err() || is_end {
                    return;
                }
            }
        });
        let response = response.body(HttpResponseBody::new(Arriving(pieces)));
        response.map_err(|error| HttpError::new(HttpErrorKind::Decode, error))
    }
}

/// Whether it is tried again, and how often, is `object_store`'s to say.
fn failed(error: FetchError) -> HttpError {
    let kind = match &error {
        FetchError::NoSuchHost { .. } | FetchError::Connect { .. } => HttpErrorKind::Connect,
        _ => HttpErrorKind::Interrupted,
    };
    HttpError::new(kind, error)
}

struct Arriving(mpsc::Receiver<Result<Bytes, HttpError>>);

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
