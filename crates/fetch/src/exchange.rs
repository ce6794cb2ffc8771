//! One request and its answer, as it comes: whoever speaks more of HTTP than "give me this file" decides himself what a status
//! means, where a redirection may lead, and who is told a password.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dozen_model::error_chain;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use crate::address::Address;
use crate::door::Door;
use crate::sending::Moved;
use crate::{FetchError, Fetching, LARGEST_BYTES, Place, authorize, broken, connect};

/// What is sent with a request.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Connections that wait for another request, for each place.
const MOST_IDLE: usize = 4;
/// For one that has just been used.
const UNTIL_READY: Duration = Duration::from_millis(100);

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For its head.
    pub head: Duration,
    /// In which nothing comes of what was promised.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(60), silence: Duration::from_secs(60) }
    }
}

/// Connections that can be used again. They are closed with the last clone.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<HashMap<String, Vec<Idle>>>>);

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connections(…)")
    }
}

/// What is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// GET, HEAD, PUT…
    pub method: Method,
    /// Where. A password in it is sent.
    pub address: &'a Address,
    /// Beside those that every request has. A field of a secret is to be marked as one.
    pub headers: HeaderMap,
    /// `None`: nothing.
    pub body: Option<Body>,
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    /// Any.
    pub status: StatusCode,
    /// All of them: no more than hyper takes (100, and 400 KiB).
    pub headers: HeaderMap,
    /// Where who answers is. Behind a proxy: in the network.
    pub place: Place,
    address: Address,
    body: Incoming,
    left_bytes: u64,
    silence: Duration,
    /// Where the connection goes when all has come.
    home: Option<(Connections, String, SendRequest<Body>)>,
}

/// All of some bytes.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Fetching {
    /// Asks once, and waits for the head of the answer. No redirection is followed.
    ///
    /// # Errors
    /// Nobody answers, or what comes is no HTTP. Any status is an answer.
    pub async fn ask(&self, question: Question<'_>, connections: &Connections) -> Result<Answer, FetchError> {
        let Question { method, address, mut headers, body } = question;
        let late = || Err(broken(address, "it does not answer".into()));
        let proxy = if self.door.is_none() { self.proxies.of_address(address)? } else { None };
        let through = proxy.as_ref().map(Address::endpoint);
        let (reach, identity) = (self.reach, self.authorities.identity());
        let door = self.door.as_ref().map(Door::identity);
        let (scheme, endpoint) = (address.scheme(), address.endpoint());
        let key = format!("{scheme} {endpoint} {through:?} {reach:?} {identity:?} {door:?}");
        fill(&mut headers, address, proxy.as_ref());
        // A proxy is asked for the whole address, unless it only carries bytes.
        let is_asked_whole = proxy.is_some() && !address.is_secure;
        let place = if is_asked_whole { format!("http://{}", address.host_and_port()) } else { String::new() };
        let request = |body: Body| {
            let request = Request::builder().method(method.clone()).uri(format!("{place}{}", address.path_and_query));
            let mut request = request.body(body).map_err(|error| broken(address, error.to_string()))?;
            *request.headers_mut() = headers.clone();
            Ok::<_, FetchError>(request)
        };
        let nothing = || Empty::new().map_err(|never| match never {}).boxed_unsync();
        // A connection that has waited may end at any moment. What is sent once only gets one of its own.
        if body.is_none() {
            while let Some(Idle { mut sender, place: of_answer }) = connections.take(&key).await {
                let asked = tokio::time::timeout(self.patience.head, sender.send_request(request(nothing())?));
                if let Ok(Ok(answer)) = asked.await {
                    let home = (connections.clone(), key, sender);
                    return Ok(Answer::new(address, answer, of_answer, self.patience.silence, home));
                }
            }
        }
        // What is long takes its time: nobody is late while something of it goes.
        let moved = Moved::default();
        let request = request(body.map_or_else(nothing, |body| moved.watch(body)))?;
        let asked = async {
            let (stream, of_answer) = connect::to(address, proxy.as_ref(), self).await?;
            let failed = |error: hyper::Error| broken(address, error_chain(&error));
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
            // It ends with the last sender, or when nobody reads the body any more.
            tokio::spawn(connection);
            let answer = sender.send_request(request).await.map_err(failed)?;
            Ok((answer, of_answer, sender))
        };
        let asked = moved.patient(asked, self.patience.head).await;
        let (answer, of_answer, sender) = asked.unwrap_or_else(late)?;
        let home = (connections.clone(), key, sender);
        Ok(Answer::new(address, answer, of_answer, self.patience.silence, home))
    }
}

/// The fields that every request has.
fn fill(headers: &mut HeaderMap, address: &Address, proxy: Option<&Address>) {
    let host = HeaderValue::from_str(&address.host_and_port());
    headers.extend(host.map(|host| (header::HOST, host)));
    let usual = [
        (header::USER_AGENT, concat!("dozen/", env!("CARGO_PKG_VERSION"))),
        (header::ACCEPT, "*/*"),
        // What is named by its digest is wanted as it is.
        (header::ACCEPT_ENCODING, "identity"),
    ];
    for (name, value) in usual {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::AUTHORIZATION) {
        authorize(headers, header::AUTHORIZATION, address);
    }
    if let Some(proxy) = proxy.filter(|_| !address.is_secure) {
        authorize(headers, header::PROXY_AUTHORIZATION, proxy);
    }
}

impl Answer {
    fn new(
        address: &Address,
        answer: http::Response<Incoming>,
        place: Place,
        silence: Duration,
        home: (Connections, String, SendRequest<Body>),
    ) -> Self {
        let (parts, body) = answer.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            place,
            address: address.clone(),
            body,
            left_bytes: LARGEST_BYTES,
            silence,
            home: Some(home),
        }
    }

    /// Who answers.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A field of the head, as far as it is text.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long the body is to be; `None` if the head does not say.
    pub fn length(&self) -> Option<u64> {
        self.field("content-length")?.parse().ok()
    }

    /// Where a redirection leads; `None` if it is none.
    ///
    /// # Errors
    /// It leads nowhere.
    pub fn redirection(&self) -> Result<Option<Address>, FetchError> {
        let location = self.headers.get(header::LOCATION).filter(|_| is_redirection(self.status));
        let Some(location) = location else { return Ok(None) };
        let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
        self.address.follow(&location).map(Some).map_err(|error| FetchError::Redirection {
            address: self.address.to_string(),
            location,
            why: error.to_string(),
        })
    }

    /// The next piece of the body; `None` once all of it has come.
    ///
    /// # Errors
    /// It stops before its end, or has none.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let frame = tokio::time::timeout(self.silence, self.body.frame());
            let frame = frame.await.map_err(|_| broken(&self.address, "nothing more comes".into()))?;
            let Some(frame) = frame else {
                self.go_home();
                return Ok(None);
            };
            let frame = frame.map_err(|error| broken(&self.address, error_chain(&error)))?;
            // Trailers say nothing that anybody wants to know.
            let Ok(bytes) = frame.into_data() else { continue };
            let left = self.left_bytes.checked_sub(bytes.len() as u64);
            self.left_bytes = left.ok_or_else(|| too_large(&self.address, LARGEST_BYTES))?;
            return Ok(Some(bytes));
        }
    }

    /// All of the body, which has no more than so many bytes.
    ///
    /// # Errors
    /// As [`Answer::next`]; it is larger.
    pub async fn whole(&mut self, most_bytes: u64) -> Result<Vec<u8>, FetchError> {
        if self.length().is_some_and(|length| length > most_bytes) {
            return Err(too_large(&self.address, most_bytes));
        }
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            if all.len() as u64 + piece.len() as u64 > most_bytes {
                return Err(too_large(&self.address, most_bytes));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    fn go_home(&mut self) {
        if let Some((connections, key, sender)) = self.home.take() {
            connections.put(key, Idle { sender, place: self.place });
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // Nothing more comes on this connection, as after HEAD.
        if self.body.is_end_stream() {
            self.go_home();
        }
    }
}

fn too_large(address: &Address, limit_bytes: u64) -> FetchError {
    FetchError::TooLarge { address: address.to_string(), limit_bytes }
}

fn is_redirection(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

struct Idle {
    sender: SendRequest<Body>,
    place: Place,
}

impl Connections {
    /// One that is still there.
    async fn take(&self, key: &str) -> Option<Idle> {
        loop {
            let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(key)?.pop()?;
            if let Ok(Ok(())) = tokio::time::timeout(UNTIL_READY, idle.sender.ready()).await {
                return Some(idle);
            }
        }
    }

    fn put(&self, key: String, idle: Idle) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = all.entry(key).or_default();
        if others.len() < MOST_IDLE && !idle.sender.is_closed() {
            others.push(idle);
        }
    }
}
