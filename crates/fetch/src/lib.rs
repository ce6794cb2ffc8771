//! HTTP to servers elsewhere. `exchange` is one request and its answer, for who speaks to a registry; the rest is files, for
//! builds: one GET, over TLS or not, through a proxy or not, along a few redirections, with a limit to
//! everything: who serves the file may mean ill. Addresses of this host itself, and of its links, are reached only by leave of whoever asks:
//! a Dockerfile of a stranger's sees no more of the host than its containers do.

mod address;
mod connect;
mod door;
mod exchange;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod proxy;
mod reach;
mod sending;
mod validators;

use std::net::IpAddr;

use bytes::Bytes;
use dozen_model::{Classified, ErrorKind, base64};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

pub use address::{Address, AddressError};
pub use door::{Door, Visitors};
pub use dozen_tls::{Authorities, ClientCertificate, certificates_of_host};
pub use exchange::{Answer, Body, Connections, Patience, Question, whole};
pub use proxy::Proxies;
pub use reach::{Place, Reach};
pub use sending::{pieces, pieces_until_end};
pub use validators::Validators;

/// As Go's client has it, and so Docker's builder.
const MOST_REDIRECTIONS: usize = 10;
/// No file is larger: whoever sends without end fills nobody's disk.
pub const LARGEST_BYTES: u64 = 64 << 30;

/// How a file is fetched.
#[derive(Debug, Clone)]
pub struct Fetching {
    /// Through whom.
    pub proxies: Proxies,
    /// Whose certificates are believed.
    pub authorities: Authorities,
    /// Whom an address, or a redirection, may mean.
    pub reach: Reach,
    /// A redirection may lead from https to http: what comes is verified by other means.
    pub may_be_plain: bool,
    /// How long.
    pub patience: Patience,
    /// The server is in this process: it is reached by this, whatever its address, and by no proxy.
    pub door: Option<Door>,
}

/// A file that comes.
#[derive(Debug)]
pub struct File {
    /// What it is known by.
    pub validators: Validators,
    /// The field Date.
    pub date: Option<String>,
    /// The field Content-Type.
    pub content_type: Option<String>,
    answer: Answer,
}

/// Why there is no file. Passwords of addresses are not shown.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum FetchError {
    #[error("the proxy cannot be used: {0}")]
    Proxy(&'static str),
    #[error("cannot resolve {host}: no such host")]
    NoSuchHost { host: String },
    #[error("{host} is {address}, which is {}", Place::of(*.address).words())]
    OutOfReach { host: String, address: IpAddr },
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
    #[error("{address} is larger than {limit_bytes} bytes")]
    TooLarge { address: String, limit_bytes: u64 },
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
        let answer = self.follow(address, HeaderMap::new()).await?;
        if answer.status == StatusCode::OK { File::of(answer) } else { Err(refused(&answer)) }
    }

    /// The same, unless the file is still what it was when the server said this of it: `None`.
    ///
    /// # Errors
    /// See [`FetchError`]. Any other answer than 200 and 304 is one.
    pub async fn fetch_unless(&self, address: &Address, known: &Validators) -> Result<Option<File>, FetchError> {
        let conditions = known.conditions();
        let is_asked = !conditions.is_empty();
        let answer = self.follow(address, conditions).await?;
        match answer.status {
            StatusCode::OK => File::of(answer).map(Some),
            StatusCode::NOT_MODIFIED if is_asked => Ok(None),
            _ => Err(refused(&answer)),
        }
    }

    /// Asks with these fields, along redirections, until somebody answers.
    async fn follow(&self, address: &Address, headers: HeaderMap) -> Result<Answer, FetchError> {
        let connections = Connections::default();
        let mut at = address.clone();
        for _ in 0..=MOST_REDIRECTIONS {
            let question = Question { method: Method::GET, address: &at, headers: headers.clone(), body: None };
            let answer = self.ask(question, &connections).await?;
            let Some(next) = answer.redirection()? else { return Ok(answer) };
            if at.is_secure && !next.is_secure && !self.may_be_plain {
                return Err(FetchError::Redirection {
                    address: at.to_string(),
                    location: next.to_string(),
                    why: "what comes from there could be anybody's".to_owned(),
                });
            }
            at = next;
        }
        Err(FetchError::Circles { address: address.to_string() })
    }
}

impl File {
    fn of(answer: Answer) -> Result<Self, FetchError> {
        if answer.length().is_some_and(|length| length > LARGEST_BYTES) {
            let address = answer.address().to_string();
            return Err(FetchError::TooLarge { address, limit_bytes: LARGEST_BYTES });
        }
        let field = |name| answer.field(name).map(str::to_owned);
        let validators = Validators { etag: field("etag"), last_modified: field("last-modified") };
        let (date, content_type) = (field("date"), field("content-type"));
        Ok(Self { validators, date, content_type, answer })
    }

    /// The next piece; `None` once all of it has come.
    ///
    /// # Errors
    /// It stops before its end, or has none.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        self.answer.next().await
    }
}

fn refused(answer: &Answer) -> FetchError {
    FetchError::Status { address: answer.address().to_string(), status: answer.status }
}

fn broken(address: &Address, why: String) -> FetchError {
    FetchError::Broken { address: address.to_string(), why }
}

/// RFC 7617.
fn authorize(headers: &mut HeaderMap, name: header::HeaderName, address: &Address) {
    let Some(credentials) = &address.credentials else { return };
    if let Ok(mut value) = HeaderValue::from_str(&format!("Basic {}", base64::encode(credentials.as_bytes()))) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}
