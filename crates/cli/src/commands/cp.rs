//! `dozen cp`: files between the host and a container, both ways, as tar streams.

mod plan;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;

use clap::{ArgMatches, Command};
use dozen_image::{CopyIn, LivePath, Owner};
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

use self::plan::{Destination, Placed, Side, Source};
use super::pieces::{self, Copied, joined};
use super::{Context, container_path};
use crate::arguments::flags::{is_on, name, required, switch, verb};
use crate::client::{ClientError, Query};
use crate::failure::{Failure, Outcome};
use crate::output;

/// Links that are followed from a destination on the host; Docker's number.
const LINKS: usize = 10;

pub fn command() -> Command {
    verb(
        "cp",
        "Copy files/folders between a container and the local filesystem",
        "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       dozen cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        "dozen cp web:/var/log/nginx .\ndozen cp app.conf web:/etc/app/\ndozen cp web:/srv - | tar -t",
    )
    .arg(switch("archive", 'a', "Archive mode (copy all uid/gid information)"))
    .arg(switch("follow-link", 'L', "Always follow symbol link in SRC_PATH"))
    .arg(switch("quiet", 'q', "Suppress progress output during copy"))
    .arg(name("source", "SRC_PATH"))
    .arg(name("destination", "DEST_PATH"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let (source, destination) = (required(matches, "source"), required(matches, "destination"));
    let how = How { follow: is_on(matches, "follow-link"), archive: is_on(matches, "archive") };
    let (bytes, to) = match (Side::of(source), Side::of(destination)) {
        (Side::Container(..), Side::Container(..)) => {
            return Err(Failure::new("copying between containers is not supported")
                .with_hint("by way of a pipe: dozen cp A:/path - | dozen cp - B:/path"));
        }
        (Side::Host(_), Side::Host(_)) => {
            return Err(Failure::new("must specify at least one container source")
                .with_hint("a path in a container is CONTAINER:PATH"));
        }
        (Side::Container(_, ""), _) | (_, Side::Container(_, "")) => {
            return Err(Failure::new("source and destination must name a path").with_hint("CONTAINER:/ is its root"));
        }
        (Side::Container(container, path), Side::Host("-")) => {
            let response = find(context, container, path, how.follow).await?.0;
            return to_stdout(response).await;
        }
        (Side::Container(container, path), Side::Host(to)) => {
            (from_container(context, container, path, to, how).await?, to.to_owned())
        }
        (Side::Host(path), Side::Container(container, to)) => {
            let (bytes, to) = to_container(context, path, container, to, how).await?;
            (bytes, format!("{container}:{to}"))
        }
    };
    if !is_on(matches, "quiet") {
        let size = output::size::human(i64::try_from(bytes).unwrap_or(i64::MAX));
        output::say(&format!("Successfully copied {size} to {to}"));
    }
    Ok(0)
}

#[derive(Clone, Copy)]
struct How {
    follow: bool,
    archive: bool,
}

/// What the engine says of a path in a container.
#[derive(Debug, Deserialize)]
struct Stat {
    mode: u32,
    #[serde(rename = "linkTarget", default)]
    link_target: String,
}

impl Stat {
    /// Bits of Go's os.FileMode.
    fn is_directory(&self) -> bool {
        self.mode & 1 << 31 != 0
    }

    fn is_link(&self) -> bool {
        self.mode & 1 << 27 != 0
    }

    fn is_special(&self) -> bool {
        self.mode & (1 << 26 | 1 << 19) != 0
    }
}

fn archive_path(container: &str, query: &Query) -> String {
    container_path(container, &format!("/archive{query}"))
}

fn stat_of<T>(response: &Response<T>) -> Result<Stat, Failure> {
    let header = response.headers().get("x-docker-container-path-stat").and_then(|value| value.to_str().ok());
    let stat = header.and_then(dozen_model::base64::decode).and_then(|json| serde_json::from_slice(&json).ok());
    stat.ok_or_else(|| Failure::new("the engine did not say what stands at the path in the container"))
}

async fn stat(context: &Context, container: &str, path: &str) -> Result<Option<Stat>, Failure> {
    let path = archive_path(container, &Query::new().with("path", path));
    match context.client.stream(Method::HEAD, &path, None).await {
        Ok(response) => stat_of(&response).map(Some),
        // What is wrong is said by the request that follows, which has words for it.
        Err(ClientError::Refused { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The archive of a path in a container, what stands there, the path itself once a link was followed, and the name that
/// was asked for if that is another.
async fn find(
    context: &Context,
    container: &str,
    path: &str,
    follow: bool,
) -> Result<(Response<Incoming>, Stat, String, Option<String>), Failure> {
    let (mut path, mut rebase) = (path.to_owned(), None);
    if follow
        && let Some(stat) = stat(context, container, &path).await?
        && stat.is_link()
    {
        (path, rebase) = plan::rebased(&path, &plan::beside(&path, &stat.link_target));
    }
    let query = Query::new().with("path", &path);
    let response = context.client.stream(Method::GET, &archive_path(container, &query), None).await?;
    let stat = stat_of(&response)?;
    Ok((response, stat, path, rebase))
}

async fn to_stdout(response: Response<Incoming>) -> Outcome {
    let mut body = response.into_body();
    let mut stdout = io::stdout();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::new(format!("the archive ended early: {error}")))?;
        if let Ok(data) = frame.into_data() {
            stdout.write_all(&data)?;
        }
    }
    stdout.flush()?;
    Ok(0)
}

async fn from_container(context: &Context, container: &str, path: &str, to: &str, how: How) -> Result<u64, Failure> {
    let to = local(to)?;
    let (response, stat, path, rebase) = find(context, container, path, how.follow).await?;
    let source = Source { path: &path, is_directory: stat.is_directory(), rebase: rebase.as_deref() };
    let Placed { directory, renamed } = plan::place(&source, &host_destination(&to)?).map_err(Failure::new)?;
    let renamed = renamed.map(|(from, to)| (from.into_bytes(), to.into_bytes()));
    let how = CopyIn { keep_kinds: true, owner: Owner::Caller, renamed, ids: None };
    pieces::unpack(response, &directory, how).await
}

async fn to_container(
    context: &Context,
    path: &str,
    container: &str,
    to: &str,
    how: How,
) -> Result<(u64, String), Failure> {
    let mut found = stat(context, container, to).await?;
    let mut target = to.to_owned();
    if let Some(link) = found.as_ref().filter(|found| found.is_link()) {
        target = plan::beside(to, &link.link_target);
        found = stat(context, container, &target).await?;
    }
    if found.as_ref().is_some_and(Stat::is_special) {
        let words = format!("destination \"{container}:{to}\" must be a directory or a regular file");
        return Err(Failure::new(words));
    }
    let is_directory = found.as_ref().is_some_and(Stat::is_directory);
    let (mut out, body, sent) = pieces::outgoing();
    let (directory, packing) = if path == "-" {
        if !is_directory {
            return Err(Failure::new(format!("destination \"{container}:{to}\" must be a directory")));
        }
        let mut copy = move || io::copy(&mut io::stdin().lock(), &mut out).and_then(|_| out.flush());
        (target.clone(), tokio::task::spawn_blocking(move || -> Copied { Ok(copy()?) }))
    } else {
        let (resolved, rebase) = host_source(path, how.follow)?;
        let lstat = |error: io::Error| Failure::new(format!("lstat {resolved}: {}", super::system_words(&error)));
        let source_is_directory = Path::new(&resolved).symlink_metadata().map_err(lstat)?.is_dir();
        let source = Source { path: &resolved, is_directory: source_is_directory, rebase: rebase.as_deref() };
        let destination = Destination { path: target.clone(), exists: found.is_some(), is_directory };
        let Placed { directory, renamed } = plan::place(&source, &destination).map_err(Failure::new)?;
        let name = renamed.map(|(_, to)| to).or(rebase).unwrap_or_else(|| plan::split(&resolved).1);
        let root = File::open("/").map_err(|error| Failure::new(format!("open /: {error}")))?;
        let mut pack = move || {
            let path = LivePath::new(resolved.as_bytes())?;
            dozen_image::copy_out(root.as_fd(), &path, Some(name.as_bytes()), None, &mut out)?;
            out.flush().map_err(dozen_image::LiveError::Out)
        };
        (directory, tokio::task::spawn_blocking(move || -> Copied { Ok(pack()?) }))
    };
    let query = Query::new().with("path", &directory).with("noOverwriteDirNonDir", "true");
    let query = query.with_flag("copyUIDGID", how.archive);
    let response = context.client.stream(Method::PUT, &archive_path(container, &query), Some(body)).await;
    match response {
        Ok(_) => {}
        // The engine's words, unless it is the archive that was no good.
        Err(error @ ClientError::Refused { .. }) => return Err(error.into()),
        Err(error) => {
            joined(packing.await)?;
            return Err(error.into());
        }
    }
    Ok((sent.load(Ordering::Relaxed), target))
}

/// An absolute path; its ending, which means something, is kept.
fn local(path: &str) -> Result<String, Failure> {
    let absolute = super::directory().join(path);
    absolute.to_str().map(|absolute| plan::keep_ending(&plan::clean(absolute), path)).ok_or_else(not_text)
}

fn not_text() -> Failure {
    Failure::new("a path on this host is not UTF-8")
}

/// A source on the host with the links of its directory resolved, its own too if it is to be followed; and the name that
/// was asked for if that is another.
fn host_source(path: &str, follow: bool) -> Result<(String, Option<String>), Failure> {
    let path = local(path)?;
    let canonical = |path: &str| {
        let failed = |error: io::Error| Failure::new(format!("lstat {path}: {}", super::system_words(&error)));
        let resolved = Path::new(path).canonicalize().map_err(failed)?;
        resolved.to_str().map(str::to_owned).ok_or_else(not_text)
    };
    if follow {
        return Ok(plan::rebased(&path, &canonical(&path)?));
    }
    let (above, last) = path.rsplit_once('/').unwrap_or(("", &path));
    let above = canonical(if above.is_empty() { "/" } else { above })?;
    let resolved = format!("{}/{last}", above.trim_end_matches('/'));
    let is_other = path.ends_with('/') && plan::base(&path) != plan::base(&resolved);
    Ok((resolved, is_other.then(|| plan::base(&path))))
}

/// A destination on the host; a link is followed, and one that leads to nothing names what is to be made.
fn host_destination(path: &str) -> Result<Destination, Failure> {
    let failed = |path: &str, error: io::Error| Failure::new(format!("stat {path}: {}", super::system_words(&error)));
    let mut path = path.to_owned();
    for _ in 0..=LINKS {
        match Path::new(&path).symlink_metadata() {
            Ok(found) if found.is_symlink() => {
                let target = std::fs::read_link(&path).map_err(|error| failed(&path, error))?;
                path = plan::beside(&path, target.to_str().ok_or_else(not_text)?);
            }
            Ok(found) => return Ok(Destination { path, exists: true, is_directory: found.is_dir() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = plan::split(&path).0;
                let found = Path::new(&parent).metadata().map_err(|error| failed(&parent, error))?;
                if !found.is_dir() {
                    return Err(Failure::new("not a directory"));
                }
                return Ok(Destination { path, exists: false, is_directory: false });
            }
            Err(error) => return Err(failed(&path, error)),
        }
    }
    Err(Failure::new(format!("too many symbolic links: {path}")))
}
