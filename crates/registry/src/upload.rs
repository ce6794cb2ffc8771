//! What is sent to a registry (OCI distribution-spec 1.1, "Push"): blobs that it has not got, then the manifests that name them.
//!
//! A blob goes in one request; one that is still being made goes while it is, and gets its name in a second one ("Pushing a blob
//! in chunks", in one chunk of a length that nobody knows, as docker sends all of them). Where that breaks, the server is asked how far it came, and gets the rest; one that keeps
//! nothing gets all of it again. A registry that was there before and is not now is waited for, like one that has enough of
//! us. What does not move on is given up after as many attempts as the settings say.

mod decide;
mod session;
mod small;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dozen_fetch::{Answer, Body, Reach, pieces, pieces_until_end, whole};
use dozen_model::Digest;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::sync::{mpsc, watch};

use self::decide::{Kept, Then, kept, then, wants_length};
pub use self::session::Session;
use crate::again::{Again, Failed, again};
use crate::client::sending::{Sending, Sent};
use crate::client::{Asked, random};
use crate::manifest::digest_of;
use crate::{Endpoint, RegistryError, Repository, Scope};

/// So much more than ever before was no failure, whatever became of it.
const PROGRESS_BYTES: u64 = 4 * 1024 * 1024;

/// A repository that is written to.
#[derive(Debug)]
pub struct Uploads {
    pub(crate) repository: Repository,
    /// The registry has answered: it is there, though it may be away for a moment.
    has_answered: AtomicBool,
}

/// A blob that is to be sent.
#[derive(Clone)]
pub struct UploadedBlob {
    /// What it is; `None` for as long as it is being made. Who makes it and gives that up drops the other end.
    pub name: watch::Receiver<Option<BlobName>>,
    /// Reads it from this place to its end.
    pub open: Arc<dyn Fn(u64) -> mpsc::Receiver<io::Result<Bytes>> + Send + Sync>,
    /// Is told how many bytes have gone, from the beginning.
    pub watch: Arc<dyn Fn(u64) + Send + Sync>,
    /// Set by who reads it: it cannot be read, so nothing is tried again.
    pub is_unreadable: Arc<AtomicBool>,
}

/// What a blob is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobName {
    /// Of all of it.
    pub digest: Digest,
    /// Of all of it.
    pub size_bytes: u64,
}

/// Whether a registry has a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// In this repository.
    Here,
    /// It has taken it over from another one.
    Mounted {
        /// That one's path.
        from: String,
    },
    /// It has not; what it has opened for it meanwhile.
    Nowhere(Option<Session>),
}

impl Uploads {
    /// To a repository that is opened to push.
    pub fn new(repository: Repository) -> Self {
        Self { repository, has_answered: AtomicBool::new(false) }
    }

    /// Looks for a blob, in this repository and then in those that may have it.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn find(&self, digest: &Digest, elsewhere: &[String]) -> Result<Found, RegistryError> {
        let below = format!("{}/blobs/{digest}", self.repository.name());
        if self.has(below, format!("the question for the blob {digest}")).await? {
            return Ok(Found::Here);
        }
        for from in elsewhere {
            match self.mount(digest, from).await {
                Ok(Found::Nowhere(None)) => {}
                Ok(found) => return Ok(found),
                // Who may write here may not read there, or is not told so.
                Err(error @ (RegistryError::Refused { .. } | RegistryError::NoToken { .. })) => {
                    tracing::info!(%digest, from, error = %error, "a blob is not taken over");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Found::Nowhere(None))
    }

    /// Whether this repository has a manifest.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn has_manifest(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let below = format!("{}/manifests/{digest}", self.repository.name());
        self.has(below, format!("the question for the manifest {digest}")).await
    }

    async fn has(&self, below: String, what: String) -> Result<bool, RegistryError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(crate::document::ACCEPTED));
        match self.ask(&self.repository, Asked { method: Method::HEAD, below, headers, what }).await {
            Ok(_) => Ok(true),
            // No answer to HEAD says why: that is for who sends something.
            Err(RegistryError::Refused { refusal, .. }) if refusal.status < 500 && refusal.status != 429 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// OCI distribution-spec, "Mounting a blob from another repository".
    async fn mount(&self, digest: &Digest, from: &str) -> Result<Found, RegistryError> {
        let both = self.repository.allowed_also(Scope::pull(from));
        let query = format!("mount={}&from={}", encoded(digest.as_str()), encoded(from));
        let answer = self.begin(&both, &format!("?{query}"), answer_to(Some(digest))).await?;
        if answer.status == StatusCode::CREATED {
            return Ok(Found::Mounted { from: from.to_owned() });
        }
        Ok(Found::Nowhere(Session::of(&both, self.repository.server().await?, &answer)?))
    }

    async fn begin(&self, repository: &Repository, query: &str, what: String) -> Result<Answer, RegistryError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        let below = format!("{}/blobs/uploads/{query}", repository.name());
        self.ask(repository, Asked { method: Method::POST, below, headers, what }).await
    }

    /// As [`Repository::ask`]; and a registry that was there is waited for.
    async fn ask(&self, repository: &Repository, asked: Asked) -> Result<Answer, RegistryError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match repository.ask(repository.server().await?, &asked).await {
                Err(error @ RegistryError::Unreachable { .. }) => self.wait(error, attempts).await?,
                asked => {
                    self.has_answered.fetch_or(asked.is_ok(), Ordering::Relaxed);
                    return asked;
                }
            }
        }
    }

    /// Waits after so many failures without an answer, or gives it up.
    async fn wait(&self, error: RegistryError, failures: u32) -> Result<(), RegistryError> {
        let pause = again(failed(&error), failures, self.repository.attempts(), random());
        let Again::After(pause) = pause else { return Err(error) };
        if matches!(error, RegistryError::Unreachable { .. }) && !self.has_answered.load(Ordering::Relaxed) {
            return Err(error);
        }
        tracing::info!(error = %error, failures, "sending again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Sends a blob, into an upload that is open or a new one.
    ///
    /// # Errors
    /// See [`RegistryError`]. The registry has nothing of it then that anybody sees.
    pub async fn upload(&self, blob: &UploadedBlob, session: Option<Session>) -> Result<(), RegistryError> {
        let (endpoint, session) = (self.repository.server().await?, session);
        let mut upload = Upload {
            uploads: self,
            endpoint,
            blob,
            session,
            at: 0,
            is_resumed: false,
            is_to_look: false,
            has_no_length: false,
        };
        let (mut failures, mut best) = (0, 0);
        loop {
            let error = match upload.go_on().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let next = match &error {
                _ if blob.is_unreadable.load(Ordering::Relaxed) || blob.is_given_up() => Then::GiveUp,
                RegistryError::Broken { .. } | RegistryError::Unreachable { .. } => Then::Ask,
                // It goes with its length, once that is known.
                RegistryError::Refused { refusal, .. } if upload.has_no_length && wants_length(refusal.status) => {
                    tracing::info!(error = %error, "sending it once it has a length");
                    upload.lose();
                    continue;
                }
                RegistryError::Refused { refusal, .. } => then(refusal, upload.is_resumed),
                _ => Then::GiveUp,
            };
            match next {
                Then::GiveUp => return Err(error),
                Then::Ask => upload.is_to_look = true,
                Then::Anew => upload.lose(),
            }
            if upload.at >= best + PROGRESS_BYTES {
                (failures, best) = (0, upload.at);
            }
            failures += 1;
            self.wait(error, failures).await?;
        }
    }

    /// Puts a manifest there, by a tag or by its digest; gives the digest by which it is known there, which may be by another
    /// algorithm.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn put_manifest(
        &self,
        name: &str,
        digest: &Digest,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        self.put(name, digest, media_type, bytes).await.map(|(known, _)| known)
    }

    /// The same, with the answer.
    pub(crate) async fn put(
        &self,
        name: &str,
        digest: &Digest,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(Digest, Answer), RegistryError> {
        let (repository, endpoint) = (&self.repository, self.repository.server().await?);
        let what = format!("the answer to the manifest {name}");
        let address = repository.address_of(endpoint, &format!("{}/manifests/{name}", repository.name()))?;
        let bytes = Bytes::copy_from_slice(bytes);
        let mut failures = 0;
        loop {
            let mut headers = HeaderMap::new();
            let media_type = HeaderValue::from_str(media_type);
            headers.extend(media_type.map(|media_type| (header::CONTENT_TYPE, media_type)));
            let body = Some(whole(bytes.clone()));
            let (method, is_trusted, reach) = (Method::PUT, true, Reach::Anywhere);
            let sending = Sending { method, address: &address, headers, body, what: &what, is_trusted, reach };
            failures += 1;
            let error = match repository.send(endpoint, sending).await {
                Ok(Sent::LetInNow) if failures < repository.attempts() => continue,
                Ok(Sent::LetInNow) => return Err(repository.broken(endpoint, &what, NEVER_LET_IN.to_owned())),
                Ok(Sent::Answered(answer)) if answer.status.is_success() => {
                    let known = match answer.field("docker-content-digest") {
                        // Without a word it is known by its name, and what has only a tag by sha256, as everywhere.
                        None if name == digest.as_str() => digest.clone(),
                        None => digest_of(&bytes, "sha256"),
                        Some(said) => said
                            .parse()
                            .ok()
                            .filter(|said: &Digest| digest_of(&bytes, said.algorithm()) == *said)
                            .ok_or_else(|| {
                                let said: String = said.chars().take(100).collect();
                                repository.broken(endpoint, &what, format!("it has the digest {said:?} there"))
                            })?,
                    };
                    return Ok((known, answer));
                }
                Ok(Sent::Answered(answer)) => repository.refused_to_send(endpoint, &what, answer).await,
                Err(error @ (RegistryError::Broken { .. } | RegistryError::Unreachable { .. })) => error,
                Err(error) => return Err(error),
            };
            self.wait(error, failures).await?;
        }
    }
}

const NEVER_LET_IN: &str = "it wants another token each time";

/// For whether it is tried again.
fn failed(error: &RegistryError) -> Failed {
    match error {
        // What is begun anew may go well whatever was said.
        RegistryError::Refused { refusal, .. } if matches!(refusal.status, 400 | 404 | 410 | 416) => Failed::Connection,
        RegistryError::Refused { refusal, pause, .. } => Failed::Answer(refusal.status, *pause),
        _ => Failed::Connection,
    }
}

impl UploadedBlob {
    fn known(&self) -> Option<BlobName> {
        self.name.borrow().clone()
    }

    /// Nobody will ever know what it is.
    fn is_given_up(&self) -> bool {
        self.name.has_changed().is_err() && self.known().is_none()
    }

    /// For errors.
    fn answer(&self) -> String {
        answer_to(self.known().map(|name| name.digest).as_ref())
    }
}

fn answer_to(digest: Option<&Digest>) -> String {
    match digest {
        Some(digest) => format!("the answer to the blob {digest}"),
        None => "the answer to a layer that is still being compressed".to_owned(),
    }
}

/// One blob on its way.
struct Upload<'u> {
    uploads: &'u Uploads,
    endpoint: &'u Endpoint,
    blob: &'u UploadedBlob,
    session: Option<Session>,
    /// Bytes that the server has.
    at: u64,
    is_resumed: bool,
    /// Nobody knows how far it is.
    is_to_look: bool,
    /// What went last was still being made.
    has_no_length: bool,
}

type Step<'s> = Pin<Box<dyn Future<Output = Result<(), RegistryError>> + Send + 's>>;

impl Upload<'_> {
    /// From where it is to the end.
    fn go_on(&mut self) -> Step<'_> {
        Box::pin(async {
            let repository = &self.uploads.repository;
            if self.is_to_look && self.look().await? {
                return Ok(());
            }
            (self.is_to_look, self.has_no_length) = (false, false);
            if self.session.is_none() {
                let answer = self.uploads.begin(repository, "", self.blob.answer()).await?;
                self.continue_at(&answer)?;
                (self.at, self.is_resumed) = (0, false);
            }
            let BlobName { digest, size_bytes } = match self.blob.known() {
                Some(name) => name,
                None => self.send_what_there_is().await?,
            };
            let digest = format!("digest={}", encoded(digest.as_str()));
            if self.at == 0 {
                // All at once: "Pushing a blob monolithically", POST then PUT.
                let body = (size_bytes > 0).then(|| self.body(size_bytes));
                return self.send(Method::PUT, &digest, body, None).await.map(drop);
            }
            if self.at < size_bytes {
                let range = format!("{}-{}", self.at, size_bytes.saturating_sub(1));
                let answer = self.send(Method::PATCH, "", Some(self.body(size_bytes)), Some(range)).await?;
                self.at = size_bytes;
                self.continue_at(&answer)?;
            }
            self.send(Method::PUT, &digest, None, None).await.map(drop)
        })
    }

    /// Sends what is still being made, to its end; gives what it is called then. If that breaks, it is waited for before
    /// anything goes again.
    async fn send_what_there_is(&mut self) -> Result<BlobName, RegistryError> {
        (self.is_to_look, self.has_no_length) = (true, true);
        let watch = self.blob.watch.clone();
        let mut sent = 0;
        let body = pieces_until_end((self.blob.open)(0), move |bytes| {
            sent += bytes;
            watch(sent);
        });
        let answer = self.send(Method::PATCH, "", Some(body), None).await?;
        self.continue_at(&answer)?;
        let name = self.name().await?;
        (self.at, self.is_to_look, self.has_no_length) = (name.size_bytes, false, false);
        Ok(name)
    }

    /// What it is, once that is known.
    async fn name(&self) -> Result<BlobName, RegistryError> {
        let mut name = self.blob.name.clone();
        let known = name.wait_for(Option::is_some).await.ok().and_then(|name| name.clone());
        let given_up = || "it cannot be compressed".to_owned();
        known.ok_or_else(|| self.uploads.repository.broken(self.endpoint, &self.blob.answer(), given_up()))
    }

    fn body(&self, size_bytes: u64) -> Body {
        let (watch, mut at) = (self.blob.watch.clone(), self.at);
        pieces((self.blob.open)(at), size_bytes - at, move |bytes| {
            at += bytes;
            watch(at);
        })
    }

    /// What goes into the upload; gives an answer that is none of refusal.
    /// `range`: which bytes of the whole they are.
    async fn send(
        &self,
        method: Method,
        query: &str,
        body: Option<Body>,
        range: Option<String>,
    ) -> Result<Answer, RegistryError> {
        let repository = &self.uploads.repository;
        let what = self.blob.answer();
        let Some(session) = &self.session else {
            return Err(repository.broken(self.endpoint, &what, "it says of no upload where it is".to_owned()));
        };
        let address = if query.is_empty() { session.address.clone() } else { session.address.with_query(query) };
        let mut headers = HeaderMap::new();
        if body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        } else if method != Method::GET {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let range = range.and_then(|range| HeaderValue::from_str(&range).ok());
        headers.extend(range.map(|range| (header::CONTENT_RANGE, range)));
        let (is_trusted, reach) = (session.is_trusted, session.reach);
        let sending = Sending { method, address: &address, headers, body, what: &what, is_trusted, reach };
        match repository.send(self.endpoint, sending).await? {
            Sent::Answered(answer) if answer.status.is_success() => Ok(answer),
            Sent::Answered(answer) => Err(repository.refused_to_send(self.endpoint, &what, answer).await),
            // It is sent again, from where it is.
            Sent::LetInNow => Err(repository.broken(self.endpoint, &what, NEVER_LET_IN.to_owned())),
        }
    }

    /// Where the next request goes: servers may say it anew each time.
    fn continue_at(&mut self, answer: &Answer) -> Result<(), RegistryError> {
        let next = Session::of(&self.uploads.repository, self.endpoint, answer)?;
        self.session = next.or_else(|| self.session.take());
        Ok(())
    }

    fn lose(&mut self) {
        (self.session, self.at, self.is_resumed) = (None, 0, false);
    }

    /// Asks how far it is; whether all of it is there and has its name already: an answer may have been lost.
    async fn look(&mut self) -> Result<bool, RegistryError> {
        let BlobName { digest, size_bytes } = self.name().await?;
        if self.session.is_some() {
            let answer = match self.send(Method::GET, "", None, None).await {
                Ok(answer) => Some(answer),
                // It may still be there when the server is.
                Err(error @ (RegistryError::Broken { .. } | RegistryError::Unreachable { .. })) => return Err(error),
                Err(_) => None,
            };
            if let Some(answer) = answer
                && let Kept::Bytes(at) = kept(answer.status.as_u16(), answer.field("range"), size_bytes)
            {
                self.continue_at(&answer)?;
                (self.at, self.is_resumed) = (at, at > 0);
                return Ok(false);
            }
        }
        self.lose();
        Ok(self.uploads.find(&digest, &[]).await? == Found::Here)
    }
}

/// RFC 3986's unreserved letters stay, and the slash, which may stand in a query.
pub(crate) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut all = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => all.push(char::from(byte)),
            _ => _ = write!(all, "%{byte:02X}"),
        }
    }
    all
}
