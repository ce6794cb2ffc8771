//! A context that the engine fetches itself: a repository, an archive, or a Dockerfile alone
//! (docs.docker.com/build/concepts/context, "Git repositories", "Remote tarballs"; docs.docker.com/reference/api/engine,
//! "Build an image", `remote`).

use std::io::{Read, Seek};
use std::sync::Arc;

use dozen_build::context::{Context, ContextError};
use dozen_build::repository::Repository;
use dozen_dockerfile::Remote;
use dozen_fetch::{Address, Validators};

use super::failure::StepError;
use super::job::Job;
use super::remote::{Download, download};
use super::repository;
use super::source::LIMIT_BYTES;
use crate::EngineError;

/// For messages.
const WHAT: &str = "the build context";
/// The argument of who wants `.git` in it, too (docs.docker.com/build/concepts/context, "Keep .git directory").
const KEEP: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
/// What Docker takes for a repository without a scheme.
const SHORT: &str = "github.com/";

/// Where a context is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Repository(Box<Repository>),
    File(Address),
}

/// What was there.
#[derive(Debug)]
pub(super) enum Came {
    Files(Context),
    /// A Dockerfile, and no files.
    Dockerfile(String),
}

impl Place {
    /// Reads an address.
    pub(super) fn parse(text: &str) -> Result<Self, EngineError> {
        let refused = |why: String, hint: Option<&str>| EngineError::Invalid {
            message: format!("cannot fetch {WHAT}: {why}"),
            hint: hint.map(str::to_owned),
        };
        match Remote::of(text) {
            Remote::None if !text.starts_with(SHORT) => Err(EngineError::Invalid {
                message: format!(
                    "remoteURL ({}) could not be recognized as URL",
                    text.chars().take(200).collect::<String>()
                ),
                hint: Some(
                    "it begins with https://, http:// or git://; one of a repository by http ends in .git".into(),
                ),
            }),
            Remote::None | Remote::Git => match Repository::parse(text) {
                Ok(repository) => Ok(Self::Repository(Box::new(repository))),
                Err(error) => Err(refused(error.to_string(), error.hint())),
            },
            Remote::Http => Address::parse(text).map(Self::File).map_err(|error| refused(error.to_string(), None)),
        }
    }
}

/// Fetches it.
pub(super) async fn fetch(job: &Arc<Job>, place: Place) -> Result<Came, StepError> {
    match place {
        Place::Repository(repository) => {
            let is_kept = |value: &String| !matches!(value.as_str(), "" | "0" | "false");
            let keep = job.request.given.arguments.get(KEEP).is_some_and(is_kept);
            let resolved = repository::resolve(job, *repository, None).await?;
            let checkout = repository::fetch(job, resolved, keep).await?;
            let part = move || checkout.files.below(&checkout.directory).map_err(super::context_failed);
            let files = job.shared.blocking(part).await?;
            Ok(Came::Files(files.ok_or_else(|| StepError::said("the repository has no such directory"))?))
        }
        Place::File(address) => {
            let came = download(job, &address, WHAT, false, &Validators::default()).await?;
            let came = came.ok_or_else(|| StepError::said(format!("{address}: it is not sent")))?;
            let (site, shown) = (job.clone(), address.to_string());
            let read = move || {
                let spool = site.site.nameless_file()?;
                Ok(read(came, &shown, spool))
            };
            job.shared.blocking(read).await?
        }
    }
}

/// An archive is known by how it begins, whatever it is called; what is none is a Dockerfile, if its server says nothing
/// against it. Blocks.
fn read(came: Download, address: &str, spool: std::fs::File) -> Result<Came, StepError> {
    let Download { mut file, size, content_type, .. } = came;
    if size == 0 {
        return Err(StepError::said(format!("cannot fetch {WHAT}: {address}: empty response")));
    }
    match Context::read(&mut file, spool) {
        Err(ContextError::NotAnArchive) => {}
        read => return Ok(Came::Files(read.map_err(super::context_failed)?)),
    }
    let content_type = content_type.unwrap_or_default();
    if !may_be_text(&content_type) {
        return Err(StepError::with_hint(
            format!("cannot fetch {WHAT}: {address}: unsupported Content-Type {content_type:?}"),
            "it is neither a tar archive nor, as text/plain, a Dockerfile; a repository's URL ends in .git",
        ));
    }
    let text = || -> std::io::Result<Vec<u8>> {
        file.rewind()?;
        let mut bytes = Vec::new();
        file.take(LIMIT_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = text().map_err(EngineError::system(|| format!("read what {address} has sent")))?;
    let is_small = bytes.len() as u64 <= LIMIT_BYTES;
    match String::from_utf8(bytes).ok().filter(|text| is_small && !text.contains('\0')) {
        Some(text) => Ok(Came::Dockerfile(text)),
        None => Err(StepError::said(format!(
            "cannot fetch {WHAT}: {address}: it is no tar archive, and no Dockerfile in UTF-8 of {} MiB at the most",
            LIMIT_BYTES >> 20
        ))),
    }
}

/// What servers say of files that they know nothing of is no word against it.
fn may_be_text(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(kind.as_str(), "" | "text/plain" | "application/octet-stream")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        for (text, want) in [
            ("https://h/a.git#v1:x", "repository https://h/a.git"),
            ("github.com/a/b", "repository https://github.com/a/b"),
            ("git://h/a", "repository git://h/a"),
            ("https://h/a.tar.gz", "file https://h/a.tar.gz"),
            ("http://me:pw@h/Dockerfile", "file http://xxxxx@h/Dockerfile"),
            ("git@h:a.git", "cannot fetch the build context: repositories by ssh are not built yet"),
            ("https://h/a.git#-x", "cannot fetch the build context: invalid reference \"-x\""),
            ("http:///", "cannot fetch the build context: it is no URL"),
            ("client-session", "remoteURL (client-session) could not be recognized as URL"),
            ("/srv/x", "remoteURL (/srv/x) could not be recognized as URL"),
            ("file:///srv/x.git", "remoteURL (file:///srv/x.git) could not be recognized as URL"),
        ] {
            let shown = match Place::parse(text) {
                Ok(Place::Repository(it)) => format!("repository {}", it.location),
                Ok(Place::File(address)) => format!("file {address}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, want, "{text}");
        }
    }

    #[test]
    fn a_server_may_say_that_it_is_no_dockerfile() {
        for (kind, may) in [
            ("text/plain; charset=utf-8", true),
            ("TEXT/PLAIN", true),
            ("", true),
            ("application/octet-stream", true),
            ("text/html", false),
            ("text/plainer", false),
        ] {
            assert_eq!(may_be_text(kind), may, "{kind}");
        }
    }
}
