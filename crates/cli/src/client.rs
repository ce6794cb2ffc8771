//! The Docker Engine API over a unix socket: requests, streams, and connections taken over for attach and exec.

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::absence;
use crate::failure::Failure;
use crate::host::{Care, Host, Roots};
use crate::output;
use crate::start_engine;

mod last_words;
mod query;
mod stream;

use last_words::LastWords;
pub use query::{Query, encode_segment};
pub use stream::{JsonLines, Prefixed};

/// The version whose paths and bodies this client speaks; `DOCKER_API_VERSION` asks for another one.
pub const API_VERSION: &str = "1.51";
/// No answer that is read as a whole is longer: a guard, not a limit that anyone should meet.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// A request's body.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// A connection to one engine; made at the first request, kept for the next one.
pub struct Client {
    host: Host,
    prefix: String,
    is_debug: bool,
    idle: RefCell<Option<SendRequest<Body>>>,
    /// Why the latest connection over TCP has ended, if it was not the engine's will.
    ended: RefCell<Arc<OnceLock<String>>>,
}

/// Why a request got no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no engine, or it could not be started; the words are ready.
    #[error("{0}")]
    NoEngine(Failure),
    /// The engine refused. Docker's words for that, which scripts match.
    #[error("Error response from daemon: {message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The engine's words.
        message: String,
        /// The engine's way out.
        hint: Option<String>,
    },
    /// The connection broke.
    #[error("the connection to the engine broke during {what}: {why}")]
    Broken {
        /// Method and path.
        what: String,
        /// The cause, in full.
        why: String,
    },
    /// The answer is not what the API promises.
    #[error("the engine's answer to {what} cannot be read: {why}")]
    Unreadable {
        /// Method and path.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl ClientError {
    /// What to do next, if the engine or we know.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => hint.clone(),
            Self::NoEngine(failure) => failure.hint.clone(),
            Self::Broken { .. } => Some("the engine's log may say more".to_owned()),
            Self::Unreadable { .. } => None,
        }
    }

    /// The thing named is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, .. })
    }
}

/// What is said when nobody listens. The words are Docker's, which scripts match.
pub fn cannot_connect(socket: &Path) -> Failure {
    let words =
        format!("Cannot connect to the Docker daemon at unix://{}. Is the dozen daemon running?", socket.display());
    Failure::new(words)
}

impl Client {
    /// A client for this engine; connects when it is first used. `is_debug`: each request is told on stderr.
    pub fn new(host: Host, api_version: Option<String>, is_debug: bool) -> Self {
        let prefix = format!("/v{}", api_version.as_deref().unwrap_or(API_VERSION));
        Self { host, prefix, is_debug, idle: RefCell::new(None), ended: RefCell::default() }
    }

    /// The version that is spoken: `1.51`.
    pub fn api_version(&self) -> &str {
        &self.prefix[2..]
    }

    /// GET, answered by a JSON document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.for_json(Method::GET, path, None).await
    }

    /// GET, answered by a document that is shown as it came.
    pub async fn get_text(&self, path: &str) -> Result<String, ClientError> {
        let bytes = self.request(Method::GET, path, None).await?;
        String::from_utf8(bytes.into())
            .map_err(|_| ClientError::Unreadable { what: format!("GET {path}"), why: "it is not UTF-8".to_owned() })
    }

    /// POST, answered by a JSON document.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: Option<&Value>) -> Result<T, ClientError> {
        self.for_json(Method::POST, path, body).await
    }

    /// POST, where only success matters.
    pub async fn post_for_nothing(&self, path: &str, body: Option<&Value>) -> Result<(), ClientError> {
        self.request(Method::POST, path, body).await.map(drop)
    }

    /// DELETE, answered by a JSON document or nothing (which is `null`).
    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        let bytes = self.request(Method::DELETE, path, None).await?;
        if bytes.is_empty() { Ok(Value::Null) } else { read(&format!("DELETE {path}"), &bytes) }
    }

    /// Any method without a body, with fields of its own, answered by a stream. What stands in them is not told to anybody.
    pub async fn stream_with(
        &self,
        method: Method,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<Response<Incoming>, ClientError> {
        let request = with_secrets(self.build(&method, path, None, None, None), fields);
        Ok(self.send(&format!("{method} {path}"), request).await?.0)
    }

    /// Any method without a body, with fields that nobody is to see, answered by JSON.
    pub async fn read_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<T, ClientError> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or(path));
        let response = self.stream_with(method, path, fields).await?;
        read(&what, &collect(&what, response).await?)
    }

    /// POST of JSON, with fields that nobody is to see, answered by JSON.
    pub async fn post_with<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        fields: &[(&'static str, &str)],
    ) -> Result<T, ClientError> {
        let what = format!("POST {}", path.split('?').next().unwrap_or(path));
        let (kind, body) = ("application/json", json_body(body));
        let response = self.exchange(path, kind, "application/json", body, fields).await?;
        read(&what, &collect(&what, response).await?)
    }

    /// Any method, answered by a stream; `body` may be one as well.
    pub async fn stream(
        &self,
        method: Method,
        path: &str,
        body: Option<Body>,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = self.build(&method, path, body.is_some().then_some("application/x-tar"), None, body);
        let (response, _sender) = self.send(&format!("{method} {path}"), request).await?;
        Ok(response)
    }

    /// POST of a stream of this kind, with fields that nobody is to see, answered by a stream of the kind that is asked for.
    pub async fn exchange(
        &self,
        path: &str,
        content_type: &str,
        accept: &'static str,
        body: Body,
        fields: &[(&'static str, &str)],
    ) -> Result<Response<Incoming>, ClientError> {
        let request = self.build(&Method::POST, path, Some(content_type), None, Some(body)).map(|mut request| {
            request.headers_mut().insert(header::ACCEPT, http::HeaderValue::from_static(accept));
            request
        });
        let request = with_secrets(request, fields);
        let (response, _sender) =
            self.send(&format!("POST {}", path.split('?').next().unwrap_or(path)), request).await?;
        Ok(response)
    }

    /// POST whose answer comes when something has happened: returns once the engine has taken note, with a future
    /// for the answer.
    pub async fn post_and_wait<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<impl Future<Output = Result<T, ClientError>> + use<T>, ClientError> {
        let what = format!("POST {path}");
        let response = self.stream(Method::POST, path, None).await?;
        Ok(async move {
            let bytes = collect(&what, response).await?;
            read(&what, &bytes)
        })
    }

    /// POST that turns the connection into a two-way stream of bytes (attach, exec). Returns the stream and whether
    /// it is multiplexed, as far as the engine says so.
    pub async fn take_over(&self, path: &str, body: Option<&Value>) -> Result<(Prefixed, Option<bool>), ClientError> {
        let what = format!("POST {path}");
        let request = self.build(&Method::POST, path, Some("application/json"), Some("tcp"), body.map(json_body));
        let (response, _sender) = self.send(&what, request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let why = format!("it is {} and no stream", response.status());
            return Err(ClientError::Unreadable { what, why });
        }
        let is_multiplexed = response.headers().get(header::CONTENT_TYPE).and_then(|kind| match kind.as_bytes() {
            b"application/vnd.docker.multiplexed-stream" => Some(true),
            // Engines before 1.42 say "raw" for both kinds; then the caller knows better.
            _ => None,
        });
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| broken(&what, &error))?;
        let parts = upgraded
            .downcast::<TokioIo<LastWords>>()
            .map_err(|_| ClientError::Broken { what, why: "it is not a unix socket".to_owned() })?;
        Ok((Prefixed::new(parts.read_buf, parts.io.into_inner().into_inner()), is_multiplexed))
    }

    async fn for_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        let what = format!("{method} {path}");
        let bytes = self.request(method, path, body).await?;
        read(&what, &bytes)
    }

    /// A request whose answer is read to its end; the connection is kept.
    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, ClientError> {
        let what = format!("{method} {path}");
        let kind = body.is_some().then_some("application/json");
        let request = self.build(&method, path, kind, None, body.map(json_body));
        let (response, sender) = self.send(&what, request).await?;
        let bytes = collect(&what, response).await?;
        *self.idle.borrow_mut() = Some(sender);
        Ok(bytes)
    }
    /// By which name we call the engine. One on TCP is told who is meant: it answers to no other name.
    fn authority(&self) -> String {
        match &self.host.care {
            Care::Tcp(engine) => engine.authority(),
            _ => "dozen".to_owned(),
        }
    }

    fn build(
        &self,
        method: &Method,
        path: &str,
        content_type: Option<&str>,
        upgrade: Option<&str>,
        body: Option<Body>,
    ) -> Result<Request<Body>, http::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header(header::HOST, self.authority())
            .header(header::USER_AGENT, concat!("dozen/", env!("CARGO_PKG_VERSION")));
        if let Some(kind) = content_type {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if let Some(protocol) = upgrade {
            request = request.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, protocol);
        }
        request.body(body.unwrap_or_else(empty_body))
    }

    /// Sends, and makes a refusal an error. The sender is for the next request, once the answer has been read.
    async fn send(
        &self,
        what: &str,
        request: Result<Request<Body>, http::Error>,
    ) -> Result<(Response<Incoming>, SendRequest<Body>), ClientError> {
        let request = request.map_err(|error| broken(what, &error))?;
        let kept = self.idle.borrow_mut().take();
        let usable = match kept {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match usable {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let begun = std::time::Instant::now();
        let response = tokio::select! {
            response = sender.send_request(request) => response.map_err(|error| self.ended(what, &error))?,
            // A socket takes connections also while there is nobody to answer them.
            failure = absence::watch(&self.host) => return Err(ClientError::NoEngine(failure)),
        };
        if self.is_debug {
            let status = response.status().as_u16();
            output::say(&format!("debug: {what}: {status} after {} µs", begun.elapsed().as_micros()));
        }
        if response.status().is_success()
            || response.status() == StatusCode::SWITCHING_PROTOCOLS
            || response.status() == StatusCode::NOT_MODIFIED
        {
            return Ok((response, sender));
        }
        let status = response.status();
        let bytes = collect(what, response).await?;
        *self.idle.borrow_mut() = Some(sender);
        Err(refused(status, &bytes))
    }

    /// A connection of its own, on which nothing has been said yet.
    pub async fn open(&self) -> Result<UnixStream, ClientError> {
        if let Care::Remote(remote) = &self.host.care {
            return remote.connect().map_err(ClientError::NoEngine);
        }
        if let Care::Tcp(engine) = &self.host.care {
            let connection = engine.connect().await.map_err(ClientError::NoEngine)?;
            *self.ended.borrow_mut() = connection.ended;
            return Ok(connection.stream);
        }
        match UnixStream::connect(&self.host.socket).await {
            Ok(stream) => Ok(stream),
            Err(error) => self.connect_again(&error).await.map_err(ClientError::NoEngine),
        }
    }

    /// The directories of the engine that is meant, if it is this machine's own.
    pub fn roots(&self) -> Option<&Roots> {
        match &self.host.care {
            Care::Ours(roots) | Care::Service(roots) => Some(roots),
            Care::Unknown | Care::Remote(_) | Care::Tcp(_) => None,
        }
    }

    /// Whether somebody listens at the socket. Starts nobody.
    pub async fn is_listened_to(&self) -> bool {
        UnixStream::connect(&self.host.socket).await.is_ok()
    }

    async fn connect(&self) -> Result<SendRequest<Body>, ClientError> {
        let stream = self.open().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(LastWords::new(stream)))
            .await
            .map_err(|error| broken("the greeting", &error))?;
        // Its error is also that of the request in flight, which reports it.
        tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    /// An engine that refuses our certificate ends the connection; what it said of that says more than the end does.
    fn ended(&self, what: &str, error: &(dyn std::error::Error + 'static)) -> ClientError {
        match self.ended.borrow().get() {
            Some(why) => ClientError::Broken { what: what.to_owned(), why: why.clone() },
            None => broken(what, error),
        }
    }

    async fn connect_again(&self, error: &std::io::Error) -> Result<UnixStream, Failure> {
        let socket = &self.host.socket;
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Err(Failure::new(format!(
                "permission denied while trying to connect to the Docker daemon socket at unix://{}",
                socket.display()
            ))
            .with_hint("run this command as root, or as a member of the socket's group")),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => match &self.host.care {
                Care::Ours(roots) => start_engine::start(roots, socket).await,
                Care::Service(_) | Care::Unknown | Care::Remote(_) | Care::Tcp(_) => {
                    Err(cannot_connect(socket).with_hint("start one with 'dozen daemon', or name another with --host"))
                }
            },
            _ => Err(Failure::new(format!("cannot connect to unix://{}: {error}", socket.display()))),
        }
    }
}

fn json_body(value: &Value) -> Body {
    Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed()
}

fn empty_body() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

async fn collect(what: &str, response: Response<Incoming>) -> Result<Bytes, ClientError> {
    http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| ClientError::Broken { what: what.to_owned(), why: chain(error.as_ref()) })
}

fn read<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ClientError::Unreadable { what: what.to_owned(), why: error.to_string() })
}

fn broken(what: &str, error: &(dyn std::error::Error + 'static)) -> ClientError {
    ClientError::Broken { what: what.to_owned(), why: chain(error) }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// The body of a refusal: `{"message": …}`, and from our own engine `"hint"`.
fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| document.get(key).and_then(Value::as_str).map(|text| text.trim().to_owned());
    let message = text("message").unwrap_or_else(|| {
        let raw = String::from_utf8_lossy(body);
        let raw = raw.trim();
        if raw.is_empty() { status.to_string() } else { raw.chars().take(500).collect() }
    });
    ClientError::Refused { status, message, hint: text("hint") }
}

/// With fields that nobody is to see.
fn with_secrets(
    mut request: Result<Request<Body>, http::Error>,
    fields: &[(&'static str, &str)],
) -> Result<Request<Body>, http::Error> {
    for (name, value) in fields {
        request = request.and_then(|mut request| {
            let mut value = header::HeaderValue::from_str(value)?;
            value.set_sensitive(true);
            request.headers_mut().insert(*name, value);
            Ok(request)
        });
    }
    request
}

#[cfg(test)]
mod tests;
