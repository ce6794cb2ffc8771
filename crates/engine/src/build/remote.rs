//! ADD of a URL: the file, fetched by the engine into the build's own place, and known by its contents from then on. Modes and
//! times are BuildKit's: 0600, and what Last-Modified says, or 1970.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use dozen_build::copy::Fetched;
use dozen_build::operation::{Copy, Source};
use dozen_build::tree::{Content, Node, NodeKind, PlainTree};
use dozen_fetch::{Address, Authorities, FetchError, Fetching, Patience, Proxies};
use dozen_model::{Digest, error_chain};
use jiff::fmt::rfc2822::DateTimeParser;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::failure::StepError;
use super::job::Job;
use crate::EngineError;

/// The file's name where the URL has none, as with BuildKit.
const UNNAMED: &str = "__unnamed__";
/// What a RUN needs too that sees the host's network.
const ENTITLEMENT: &str = "network.host";
/// Pieces between the network and the disk.
const PIECES: usize = 16;

/// A file that has been fetched.
#[derive(Debug)]
pub(super) struct Remote {
    name: String,
    tree: PlainTree,
}

impl Remote {
    pub(super) fn fetched(&self) -> Fetched<'_> {
        Fetched { tree: &self.tree, path: self.name.as_bytes() }
    }

    fn new(address: &Address, kind: NodeKind, mtime_s: i64) -> Self {
        let name = address.file_name().unwrap_or_else(|| UNNAMED.to_owned());
        let node = Node { kind, mode: 0o600, ..Node::directory((mtime_s, 0)) };
        Self { tree: PlainTree::empty().with(name.as_bytes(), node), name }
    }
}

/// All that an instruction names by a URL, in order.
pub(super) async fn fetch_all(job: &Arc<Job>, copy: &Copy) -> Result<Vec<Remote>, StepError> {
    let mut all = Vec::new();
    for source in &copy.sources {
        if let Source::Url(url) = source {
            all.push(fetch(job, url, checksum(copy)).await?);
        }
    }
    Ok(all)
}

/// What has to come, if that is said: then nothing need be fetched to know the step. Its contents are not to be read.
pub(super) fn promised(copy: &Copy) -> Option<Remote> {
    let (Some(digest), [Source::Url(url)]) = (checksum(copy), copy.sources.as_slice()) else { return None };
    let kind = NodeKind::File { size: 0, digest, content: Content::of_bytes(&[]) };
    Some(Remote::new(&Address::parse(url).ok()?, kind, 0))
}

fn checksum(copy: &Copy) -> Option<Digest> {
    copy.add.as_ref()?.checksum.as_ref()?.parse().ok()
}

async fn fetch(job: &Arc<Job>, url: &str, checksum: Option<Digest>) -> Result<Remote, StepError> {
    let wrong = |error: dozen_fetch::AddressError| StepError::said(format!("cannot fetch what ADD names: {error}"));
    let address = Address::parse(url).map_err(wrong)?;
    let (host, extra) = (job.shared.clone(), job.request.authorities.clone());
    let unusable = |error| EngineError::Invalid { message: error_chain(&error), hint: None };
    let trusted = move || Authorities::of_host(extra.as_deref()).map_err(unusable);
    let fetching = Fetching {
        proxies: proxies(job),
        authorities: host.blocking(trusted).await?,
        may_reach_host: job.check_entitled(ENTITLEMENT).is_ok(),
        // It is known what has to come.
        may_be_plain: checksum.is_some(),
        patience: Patience::default(),
    };
    let mut file = fetching.fetch(&address).await.map_err(refused)?;
    let (pieces, arriving) = mpsc::channel(PIECES);
    let spool = job.site.nameless_file()?;
    let written = tokio::task::spawn_blocking(move || write(spool, arriving));
    let mut came = Ok(());
    loop {
        match file.next().await {
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
    let kept = written.map_err(EngineError::system(|| format!("keep what {address} sends")))?;
    came?;
    if let Some(wanted) = checksum.filter(|wanted| *wanted != kept.digest) {
        return Err(StepError::with_hint(
            format!("{address}: digest mismatch {}: {wanted}", kept.digest),
            "what --checksum promises is not what is there now",
        ));
    }
    let Kept { file: spool, size, digest } = kept;
    let kind = NodeKind::File { size, digest, content: Content::of_part(spool.into(), 0, size) };
    let said = file.last_modified.as_deref();
    Ok(Remote::new(&address, kind, said.and_then(modified_s).unwrap_or(0)))
}

/// Those that the build was given, else the engine's own.
fn proxies(job: &Job) -> Proxies {
    let given: Vec<(&str, &str)> = job.request.given.proxies().collect();
    let of_build = |name: &str| given.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let own: Vec<(String, String)> = std::env::vars().collect();
    let of_engine = |name: &str| own.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    Proxies::of(of_build).or(Proxies::of(of_engine))
}

fn refused(error: FetchError) -> StepError {
    let message = format!("cannot fetch what ADD names: {}", error_chain(&error));
    match error {
        FetchError::Host { .. } => StepError::with_hint(
            message,
            format!(
                "a build reaches no server on its host's loopback; if you trust this Dockerfile: --allow {ENTITLEMENT}"
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
    Ok(Kept { file, size, digest: Digest::from_sha256(sum.finalize().into()) })
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7); the old forms of it nobody sends any more.
fn modified_s(text: &str) -> Option<i64> {
    let parsed = DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(parsed.as_second()).filter(|seconds| *seconds >= 0)
}

#[cfg(test)]
mod tests {
    use dozen_build::tree::Tree;

    use super::*;

    #[test]
    fn the_time_is_what_the_server_says() {
        for (text, want) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(modified_s(text), want, "{text}");
        }
    }

    #[test]
    fn a_file_has_its_name_and_is_roots_alone() {
        for (url, name) in [("http://h/a/b.tar?x", "b.tar"), ("http://h/", "__unnamed__")] {
            let remote = Remote::new(&Address::parse(url).unwrap(), NodeKind::file(b"x"), 7);
            let node = remote.tree.node(name.as_bytes()).unwrap().unwrap();
            assert_eq!((remote.name.as_str(), node.mode, node.uid, node.mtime), (name, 0o600, 0, (7, 0)));
        }
    }
}
