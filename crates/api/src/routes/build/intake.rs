//! A body of our own kind: one line of JSON with what must be in no header and no log (secrets) and what is not of the
//! context (a Dockerfile that lies elsewhere, certificate authorities, what contexts with names there are), and behind it
//! the archive, or several (`contexts`).
//!
//! ```text
//! {"Dockerfile":{"Name":"../web.Dockerfile","Text":"FROM …"},"Secrets":{"token":"BASE64"}}
//! <the archive>
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use axum::http::{HeaderMap, header};
use dozen_engine::{CacheDestination, CacheSource, CacheStep, DockerfileSource, Secret};
use dozen_model::{ErrorKind, base64};
use serde::Deserialize;

use super::carried::Carried;
use super::contexts::Named;
use super::remote_caches::{CacheFrom, CacheTo};
use crate::error::ApiError;
use crate::listening::Way;

/// The body's kind.
const MEDIA_TYPE: &str = "application/vnd.dozen.build-context.v1";
/// A Dockerfile of 4 MiB, of which every letter is escaped, and some secrets.
const LIMIT_BYTES: u64 = 32 << 20;
/// Of one secret, as BuildKit has it.
const SECRET_LIMIT_BYTES: usize = 500 << 10;
const BUFFER_BYTES: usize = 256 << 10;

/// What comes before the archive.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) dockerfile: Option<DockerfileSource>,
    pub(super) secrets: BTreeMap<String, Secret>,
    /// By id, the secret names of agents whose connections are there.
    pub(super) agents: BTreeMap<String, String>,
    /// In PEM.
    pub(super) authorities: Option<String>,
    pub(super) contexts: Vec<Named>,
    /// What caches that the client carries say of steps.
    pub(super) cache_steps: Vec<CacheStep>,
    /// Caches in registries.
    pub(super) cache_from: Vec<CacheSource>,
    pub(super) cache_to: Vec<CacheDestination>,
}

/// As it is sent. A field that is not known may be about something that must not be passed over.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Written {
    #[serde(default)]
    dockerfile: Option<WrittenDockerfile>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    #[serde(default)]
    agents: BTreeMap<String, String>,
    #[serde(default)]
    authorities: Option<String>,
    #[serde(default)]
    contexts: Vec<Named>,
    #[serde(default)]
    cache_steps: Vec<Carried>,
    #[serde(default)]
    cache_from: Vec<CacheFrom>,
    #[serde(default)]
    cache_to: Vec<CacheTo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct WrittenDockerfile {
    name: String,
    text: String,
}

pub(super) fn has_head(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().eq_ignore_ascii_case(MEDIA_TYPE.as_bytes()))
}

pub(super) fn buffered<R: Read>(body: R) -> BufReader<R> {
    BufReader::with_capacity(BUFFER_BYTES, body)
}

/// Reads the line and leaves the archive. Blocks. No error tells anything of what was sent.
pub(super) fn read_head(body: &mut impl BufRead, way: Way) -> Result<Head, ApiError> {
    let mut line = Vec::new();
    let read = body.take(LIMIT_BYTES).read_until(b'\n', &mut line);
    read.map_err(|error| ApiError::invalid(format!("the build context broke off: {error}")))?;
    if line.last() != Some(&b'\n') {
        return Err(ApiError::invalid("the build context does not begin with a line of JSON"));
    }
    let written: Written = serde_json::from_slice(&line).map_err(|error| {
        ApiError::invalid(format!(
            "the first line of the build context cannot be read (at character {})",
            error.column()
        ))
        .with_hint("a client of another version than the engine's may know more than it")
    })?;
    if !written.secrets.is_empty() {
        check_way(way, "secrets")?;
    }
    let mut secrets = BTreeMap::new();
    for (id, encoded) in written.secrets {
        let bytes = base64::decode(&encoded)
            .ok_or_else(|| ApiError::invalid(format!("the secret {id:?} is not base 64 (RFC 4648)")))?;
        if bytes.len() > SECRET_LIMIT_BYTES {
            let limit = SECRET_LIMIT_BYTES >> 10;
            return Err(ApiError::invalid(format!("the secret {id:?} is larger than {limit} KiB")));
        }
        secrets.insert(id, Secret(bytes));
    }
    let dockerfile = written.dockerfile.map(|WrittenDockerfile { name, text }| DockerfileSource::Text { name, text });
    let cache_steps = written.cache_steps.into_iter().map(CacheStep::from).collect();
    let cache_from = written.cache_from.into_iter().map(CacheFrom::read).collect::<Result<_, _>>()?;
    let cache_to = written.cache_to.into_iter().map(CacheTo::read).collect::<Result<_, _>>()?;
    let Written { agents, authorities, contexts, .. } = written;
    Ok(Head { dockerfile, secrets, agents, authorities, contexts, cache_steps, cache_from, cache_to })
}

/// Others are not to read it on its way, nor to put something else in its place.
pub(super) fn check_way(way: Way, what: &str) -> Result<(), ApiError> {
    if let Way::Bare { .. } = way {
        return Err(ApiError::new(ErrorKind::Forbidden, format!("{what} are not taken over TCP without TLS"))
            .with_hint("reach the engine by its socket, by ssh://, or with --tlsverify"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8], way: Way) -> Result<(Head, Vec<u8>), ApiError> {
        let mut body = buffered(body);
        let head = read_head(&mut body, way)?;
        let mut archive = Vec::new();
        body.read_to_end(&mut archive).unwrap();
        Ok((head, archive))
    }

    #[test]
    fn the_archive_begins_behind_the_line() {
        let body = b"{\"Dockerfile\":{\"Name\":\"-\",\"Text\":\"FROM a\\n\"},\"Secrets\":{\"t\":\"AAEC\"}}\n\0tar\n";
        let (head, archive) = read(body, Way::Local).unwrap();
        assert_eq!(archive, b"\0tar\n");
        assert_eq!(head.dockerfile, Some(DockerfileSource::Text { name: "-".into(), text: "FROM a\n".into() }));
        assert_eq!(head.secrets["t"], Secret(vec![0, 1, 2]));
        assert!(!format!("{head:?}").contains("[0, 1, 2]"));
        let (head, archive) = read(b"{}\n", Way::Bare { loopback: true }).unwrap();
        assert!(head.dockerfile.is_none() && head.secrets.is_empty() && archive.is_empty());
    }

    #[test]
    fn secrets_do_not_go_in_the_clear() {
        let body = b"{\"Secrets\":{\"t\":\"AAEC\"}}\n";
        for loopback in [false, true] {
            let error = read(body, Way::Bare { loopback }).unwrap_err();
            assert_eq!((error.status().as_u16(), error.hint.is_some()), (403, true));
        }
        assert!(read(body, Way::Certified).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said_and_not_shown() {
        for (body, words) in [
            (&b"{\"Secrets\":{\"t\":\"hunter2\"}}\n"[..], "the secret \"t\" is not base 64"),
            (b"{\"Secrets\":[\"hunter2\"]}\n", "cannot be read (at character"),
            (b"{\"More\":\"hunter2\"}\n", "cannot be read"),
            (b"{\"Secrets\":{}}", "does not begin with a line"),
            (b"", "does not begin with a line"),
        ] {
            let error = read(body, Way::Local).unwrap_err();
            assert!(error.message.contains(words) && !error.message.contains("hunter"), "{}", error.message);
        }
        let large = format!("{{\"Secrets\":{{\"t\":\"{}\"}}}}\n", base64::encode(&vec![0; SECRET_LIMIT_BYTES + 1]));
        assert!(read(large.as_bytes(), Way::Local).unwrap_err().message.contains("larger than 500 KiB"));
    }
}
