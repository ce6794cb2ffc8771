//! Files by HTTP, for builds: one GET, over TLS or not, through a proxy or not, along a few redirections, with a limit to
//! everything: who serves the file may mean ill. Addresses of this host itself are reached only by leave of whoever asks:
//! a Dockerfile of a stranger's sees no more of the host than its containers do.

mod address;
mod connect;
mod proxy;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use dozen_model::{Classified, ErrorKind, base64, error_chain};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

pub use address::{Address, AddressError};
pub use dozen_tls::Authorities;
pub use proxy::Proxies;

/// As Go's client has it, and so Docker's builder.
const MOST_REDIRECTIONS: usize = 10;
/// For the head of an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// In which nothing comes of what was promised.
const SILENCE: Duration = Duration::from_secs(60);
/// No file is larger: whoever sends without end fills nobody's disk.
pub const LARGEST_BYTES: u64 = 64 << 30;

/// How a file is fetched.
#[derive(Debug, Clone)]
pub struct Fetching {
    /// Through whom.
    pub proxies: Proxies,
    /// Whose certificates are believed.
    pub authorities: Authorities,
    /// Servers that listen on the host's loopback are asked too.
    pub may_reach_host: bool,
    /// A redirection may lead from https to http: what comes is verified by other means.
    pub may_be_plain: bool,
}

/// A file that comes.
#[derive(Debug)]
pub struct File {
    /// As the server says when it was changed last: the field's text.
    pub last_modified: Option<String>,
    address: Address,
    body: Incoming,
    left_bytes: u64,
}

/// Why there is no file. Passwords of addresses are not shown.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum FetchError {
    #[error("the proxy cannot be used: {0}")]
    Proxy(&'static str),
    #[error("cannot resolve {host}: no such host")]
    NoSuchHost { host: String },
    #[error("{host} is {address}, which is this host itself")]
    Host { host: String, address: IpAddr },
    #[error("cannot connect to {to}: {why}")]
    Connect { to: String, why: String },
    #[error("{address} is redirected to {location:?}: {why}")]
    Redirection { address: String, location: String, why: String },
    #[error("{address} is redirected more than {MOST_REDIRECTIONS} times")]
    Circles { address: String },
    #[error("{address}: invalid response status {status}")]
    Status { address: String, status: StatusCode },
    #[error("{address}: {why}")]
    Broken { address: String, why: String },
    #[error("{address} is larger than {LARGEST_BYTES} bytes")]
    TooLarge { address: String },
}

impl Classified for FetchError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Status { status: StatusCode::NOT_FOUND | StatusCode::GONE, .. } => ErrorKind::NotFound,
            Self::NoSuchHost { .. } | Self::Connect { .. } | Self::Status { .. } | Self::Broken { .. } => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Invalid,
        }
    }
}

impl Fetching {
    /// Asks for a file, wherever that leads, and waits for the beginning of the answer.
    ///
    /// # Errors
    /// See [`FetchError`]. Any other answer than 200 is one.
    pub async fn fetch(&self, address: &Address) -> Result<File, FetchError> {
        let mut at = address.clone();
        for _ in 0..=MOST_REDIRECTIONS {
            let answer = tokio::time::timeout(PATIENCE, self.ask(&at));
            let answer = answer.await.unwrap_or_else(|_| Err(broken(&at, "it does not answer".into())))?;
            let status = answer.status();
            let location = answer.headers().get(header::LOCATION).filter(|_| is_redirection(status));
            let Some(location) = location else {
                if status != StatusCode::OK {
                    return Err(FetchError::Status { address: at.to_string(), status });
                }
                return File::of(at, answer);
            };
            at = self.redirected(&at, location)?;
        }
        Err(FetchError::Circles { address: address.to_string() })
    }

    fn redirected(&self, at: &Address, location: &HeaderValue) -> Result<Address, FetchError> {
        let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
        let refused = |location: String, why: &str| FetchError::Redirection {
            address: at.to_string(),
            location,
            why: why.to_owned(),
        };
        match at.follow(&location) {
            Ok(next) if at.is_secure && !next.is_secure && !self.may_be_plain => {
                Err(refused(next.to_string(), "what comes from there could be anybody's"))
            }
            Ok(next) => Ok(next),
            Err(error) => Err(refused(location, &error.to_string())),
        }
    }

    async fn ask(&self, address: &Address) -> Result<http::Response<Incoming>, FetchError> {
        let proxy = self.proxies.of_address(address)?;
        let failed = |error: hyper::Error| broken(address, error_chain(&error));
        let stream = connect::to(address, proxy.as_ref(), self).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // It ends with the body, or when nobody reads that any more.
        tokio::spawn(connection);
        // A proxy is asked for the whole address, unless it only carries bytes.
        let proxy = proxy.filter(|_| !address.is_secure);
        let place = if proxy.is_some() { format!("http://{}", address.host_and_port()) } else { String::new() };
        let request = Request::get(format!("{place}{}", address.path_and_query))
            .header(header::HOST, address.host_and_port())
            .header(header::USER_AGENT, concat!("dozen/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "*/*")
            // What is named by its digest is wanted as it is.
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Empty::<Bytes>::new());
        let mut request = request.map_err(|error| broken(address, error.to_string()))?;
        authorize(request.headers_mut(), header::AUTHORIZATION, address);
        if let Some(proxy) = &proxy {
            authorize(request.headers_mut(), header::PROXY_AUTHORIZATION, proxy);
        }
        sender.send_request(request).await.map_err(failed)
    }
}

impl File {
    fn of(address: Address, answer: http::Response<Incoming>) -> Result<Self, FetchError> {
        let headers = answer.headers();
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > LARGEST_BYTES) {
            return Err(FetchError::TooLarge { address: address.to_string() });
        }
        let last_modified = headers.get(header::LAST_MODIFIED).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Self { last_modified, address, body: answer.into_body(), left_bytes: LARGEST_BYTES })
    }

    /// The next piece; `None` once all of it has come.
    ///
    /// # Errors
    /// It stops before its end, or has none.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let frame = tokio::time::timeout(SILENCE, self.body.frame());
            let frame = frame.await.map_err(|_| broken(&self.address, "nothing more comes".into()))?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| broken(&self.address, error_chain(&error)))?;
            // Trailers say nothing that anybody wants to know.
            let Ok(bytes) = frame.into_data() else { continue };
            let left = self.left_bytes.checked_sub(bytes.len() as u64);
            self.left_bytes = left.ok_or_else(|| FetchError::TooLarge { address: self.address.to_string() })?;
            return Ok(Some(bytes));
        }
    }
}

fn broken(address: &Address, why: String) -> FetchError {
    FetchError::Broken { address: address.to_string(), why }
}

fn is_redirection(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// RFC 7617.
fn authorize(headers: &mut HeaderMap, name: header::HeaderName, address: &Address) {
    let Some(credentials) = &address.credentials else { return };
    if let Ok(mut value) = HeaderValue::from_str(&format!("Basic {}", base64::encode(credentials.as_bytes()))) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}
