//! ADD of a URL: the file, fetched by the engine into the build's own place, and known by its contents from then on. Modes and
//! times are BuildKit's: 0600, and what Last-Modified says, or 1970.

pub(crate) mod known;

use std::fs::File;
use std::io::{Seek, Write};
use std::sync::Arc;

use bytes::Bytes;
use dozen_build::copy::Fetched;
use dozen_build::operation::{Copy, Source};
use dozen_build::repository::{Location, Scheme};
use dozen_build::tree::{Content, Node, NodeKind, PlainTree, Tree};
use dozen_fetch::{Address, Authorities, FetchError, Fetching, Patience, Place, Proxies, Reach, Validators};
use dozen_model::{Digest, error_chain, without_credentials};
use jiff::fmt::rfc2822::DateTimeParser;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use self::known::KnownFile;
use super::failure::StepError;
use super::job::Job;
use super::repository::{self, Resolved};
use crate::EngineError;

/// The file's name where the URL has none, as with BuildKit.
const UNNAMED: &str = "__unnamed__";
/// What a RUN needs too that sees the host's network.
pub(super) const ENTITLEMENT: &str = "network.host";
/// Without it.
const NOT_THE_HOST: Reach = Reach::Beside(Place::Network);
/// Pieces between the network and the disk.
const PIECES: usize = 16;

/// Something that has been fetched.
pub(super) struct Remote {
    path: String,
    tree: Arc<dyn Tree>,
}

impl Remote {
    pub(super) fn fetched(&self) -> Fetched<'_> {
        Fetched { tree: &*self.tree, path: self.path.as_bytes() }
    }

    fn file(address: &Address, kind: NodeKind, mtime_s: i64) -> Self {
        let path = address.file_name().unwrap_or_else(|| UNNAMED.to_owned());
        let node = Node { kind, mode: 0o600, ..Node::directory((mtime_s, 0)) };
        Self { tree: Arc::new(PlainTree::empty().with(path.as_bytes(), node)), path }
    }

    /// One of which nothing but the digest is known: its contents are not to be read.
    fn promised(address: &Address, digest: Digest) -> Self {
        Self::file(address, NodeKind::File { size: 0, digest, content: Content::of_bytes(&[]) }, 0)
    }
}

/// All that an instruction names by URLs and repositories, in order; of these the commits are chosen already.
pub(super) async fn fetch_all(
    job: &Arc<Job>,
    copy: &Copy,
    repositories: Vec<Resolved>,
) -> Result<Vec<Remote>, StepError> {
    let mut all = Vec::new();
    let mut repositories = repositories.into_iter();
    for source in &copy.sources {
        match source {
            Source::Url(url) => all.push(fetch(job, url, checksum(copy)).await?),
            Source::Git(_) => {
                let Some(resolved) = repositories.next() else { continue };
                let keep = copy.add.as_ref().is_some_and(|add| add.keep_git_directory);
                let checkout = repository::fetch(job, resolved, keep).await?;
                all.push(Remote { path: checkout.directory, tree: Arc::new(checkout.files) });
            }
            Source::Path(_) | Source::Inline { .. } => {}
        }
    }
    Ok(all)
}

/// What has to come, if that is said: then nothing need be fetched to know the step. Its contents are not to be read.
pub(super) fn promised(copy: &Copy) -> Option<Remote> {
    let (Some(digest), [Source::Url(url)]) = (checksum(copy), copy.sources.as_slice()) else { return None };
    Some(Remote::promised(&Address::parse(url).ok()?, digest))
}

/// A file that was fetched before: it may be the same still, which its server can say without sending it.
pub(super) struct Known {
    url: String,
    validators: Validators,
    /// As it was. Its contents are not to be read.
    pub(super) before: Remote,
}

/// The one file that an instruction names, if it was fetched before and nobody has said what it has to be.
pub(super) async fn known(job: &Arc<Job>, copy: &Copy) -> Result<Option<Known>, StepError> {
    let (None, [Source::Url(url)]) = (checksum(copy), copy.sources.as_slice()) else { return Ok(None) };
    let Ok(address) = Address::parse(url) else { return Ok(None) };
    let (shared, name) = (job.shared.clone(), known::name_of(url));
    let found = job.shared.blocking(move || Ok(known::find(&shared.ledger, &name)?)).await?;
    Ok(found.map(|KnownFile { validators, digest }| Known {
        url: url.clone(),
        validators,
        before: Remote::promised(&address, digest),
    }))
}

/// Asks whether it is the same still: `None`. If it is not, it has been fetched.
pub(super) async fn changed(job: &Arc<Job>, known: &Known) -> Result<Option<Remote>, StepError> {
    fetch_unless(job, &known.url, None, &known.validators).await
}

fn checksum(copy: &Copy) -> Option<Digest> {
    copy.add.as_ref()?.checksum.as_ref()?.parse().ok()
}

async fn fetch(job: &Arc<Job>, url: &str, checksum: Option<Digest>) -> Result<Remote, StepError> {
    let came = fetch_unless(job, url, checksum, &Validators::default()).await?;
    came.ok_or_else(|| StepError::said(format!("{}: it is not sent", without_credentials(url))))
}

async fn fetch_unless(
    job: &Arc<Job>,
    url: &str,
    checksum: Option<Digest>,
    known: &Validators,
) -> Result<Option<Remote>, StepError> {
    const WHAT: &str = "what ADD names";
    let wrong = |error: dozen_fetch::AddressError| StepError::said(format!("cannot fetch {WHAT}: {error}"));
    let address = Address::parse(url).map_err(wrong)?;
    // It is known what has to come.
    let may_be_plain = checksum.is_some();
    let Some(came) = download(job, &address, WHAT, may_be_plain, known).await? else { return Ok(None) };
    if let Some(wanted) = checksum.filter(|wanted| *wanted != came.digest) {
        return Err(StepError::with_hint(
            format!("{address}: digest mismatch {}: {wanted}", came.digest),
            "what --checksum promises is not what is there now",
        ));
    }
    if let Some(validators) = known::worth_keeping(&came.validators, came.date.as_deref()) {
        known::keep(&job.shared.ledger, known::name_of(url), KnownFile { validators, digest: came.digest.clone() });
    }
    let Download { file, size, digest, validators, .. } = came;
    let kind = NodeKind::File { size, digest, content: Content::of_part(file.into(), 0, size) };
    let said = validators.last_modified.as_deref();
    Ok(Some(Remote::file(&address, kind, said.and_then(seconds).filter(|seconds| *seconds >= 0).unwrap_or(0))))
}

/// A file that has come: at its beginning, and nobody else's.
pub(super) struct Download {
    pub(super) file: File,
    pub(super) size: u64,
    digest: Digest,
    validators: Validators,
    date: Option<String>,
    pub(super) content_type: Option<String>,
}

/// Fetches a file, unless it is what it was: `None`. `what`: for messages. `may_be_plain`: what comes is verified by other
/// means than by whom it comes from.
pub(super) async fn download(
    job: &Arc<Job>,
    address: &Address,
    what: &str,
    may_be_plain: bool,
    known: &Validators,
) -> Result<Option<Download>, StepError> {
    let (host, extra) = (job.shared.clone(), job.request.authorities.clone());
    let unusable = |error| EngineError::Invalid { message: error_chain(&error), hint: None };
    let trusted = move || Authorities::of_host(extra.as_deref()).map_err(unusable);
    let fetching = Fetching {
        proxies: proxies(job),
        authorities: host.blocking(trusted).await?,
        reach: if job.check_entitled(ENTITLEMENT).is_ok() { Reach::Anywhere } else { NOT_THE_HOST },
        may_be_plain,
        patience: Patience::default(),
        door: None,
    };
    let refused = |error| refused(error, what);
    let Some(mut coming) = fetching.fetch_unless(address, known).await.map_err(refused)? else { return Ok(None) };
    let (pieces, arriving) = mpsc::channel(PIECES);
    let spool = job.site.nameless_file()?;
    let written = tokio::task::spawn_blocking(move || write(spool, arriving));
    let mut came = Ok(());
    loop {
        match coming.next().await {
            Ok(Some(piece)) => match pieces.send(piece).await {
                Ok(()) => {}
                // It cannot be written: that is told below.
                Err(_) => break,
            },
            Ok(None) => break,
            Err(error) => {
                came = Err(refused(error));
                break;
            }
        }
    }
    drop(pieces);
    let written = written.await.map_err(std::io::Error::other).and_then(|written| written);
    let Kept { file, size, digest } = written.map_err(EngineError::system(|| format!("keep what {address} sends")))?;
    came?;
    let dozen_fetch::File { validators, date, content_type, .. } = coming;
    Ok(Some(Download { file, size, digest, validators, date, content_type }))
}

/// Those that the build was given, else the engine's own.
pub(super) fn proxies(job: &Job) -> Proxies {
    let given: Vec<(&str, &str)> = job.request.given.proxies().collect();
    let of_build = |name: &str| given.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let own: Vec<(String, String)> = std::env::vars().collect();
    let of_engine = |name: &str| own.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    Proxies::of(of_build).or(Proxies::of(of_engine))
}

/// Refuses a repository on the host's own loopback in the words in which a file there is refused. No more than that: what
/// keeps git from it is where git runs (`repository/sandbox.rs`).
pub(super) async fn check_host(job: &Arc<Job>, location: &Location) -> Result<(), StepError> {
    const WHAT: &str = "the repository";
    if job.check_entitled(ENTITLEMENT).is_ok() {
        return Ok(());
    }
    if location.scheme != Scheme::Git
        && let Ok(address) = Address::parse(&location.url())
        && proxies(job).of_address(&address).map_err(|error| refused(error, WHAT))?.is_some()
    {
        return Ok(());
    }
    let host = location.host.clone();
    let found = tokio::task::spawn_blocking(move || dozen_lookup::addresses_of(&host)).await.unwrap_or_default();
    match found.into_iter().find(|address| !NOT_THE_HOST.covers(Place::of(*address))) {
        Some(address) => Err(refused(FetchError::OutOfReach { host: location.host.clone(), address }, WHAT)),
        None => Ok(()),
    }
}

fn refused(error: FetchError, what: &str) -> StepError {
    let message = format!("cannot fetch {what}: {}", error_chain(&error));
    match error {
        FetchError::OutOfReach { .. } => StepError::with_hint(
            message,
            format!(
                "a build reaches no server on its host's loopback or links; if you trust this Dockerfile: --allow {ENTITLEMENT}"
            ),
        ),
        FetchError::Redirection { .. } => {
            StepError::with_hint(message, "say with --checksum=sha256:… what has to come")
        }
        _ => StepError::said(message),
    }
}

struct Kept {
    file: File,
    size: u64,
    digest: Digest,
}

/// Blocks.
fn write(mut file: File, mut arriving: mpsc::Receiver<Bytes>) -> std::io::Result<Kept> {
    let (mut size, mut sum) = (0, Sha256::new());
    while let Some(piece) = arriving.blocking_recv() {
        file.write_all(&piece)?;
        sum.update(&piece);
        size += piece.len() as u64;
    }
    file.rewind()?;
    Ok(Kept { file, size, digest: Digest::from_sha256(sum.finalize().into()) })
}

/// Since 1970: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7); the old forms of it nobody sends any more.
fn seconds(text: &str) -> Option<i64> {
    Some(DateTimeParser::new().parse_timestamp(text.trim()).ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_what_the_server_says() {
        for (text, want) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", Some(-1)),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), want, "{text}");
        }
    }

    #[test]
    fn a_file_has_its_name_and_is_roots_alone() {
        for (url, name) in [("http://h/a/b.tar?x", "b.tar"), ("http://h/", "__unnamed__")] {
            let remote = Remote::file(&Address::parse(url).unwrap(), NodeKind::file(b"x"), 7);
            let node = remote.tree.node(name.as_bytes()).unwrap().unwrap();
            assert_eq!((remote.path.as_str(), node.mode, node.uid, node.mtime), (name, 0o600, 0, (7, 0)));
        }
    }
}
