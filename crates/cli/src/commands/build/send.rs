//! What goes to the engine: a line of JSON with the Dockerfile and the secrets, and the context as an archive behind it,
//! packed while it is sent.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Method, Response, header};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::interval;

use super::contexts::{self, Contexts, Named};
use super::events::{CONTEXT_TYPE, EVENTS_TYPE};
use super::frames::Framed;
use super::packing::{self, PackError};
use super::progress::Progress;
use super::source::{self, Source};
use crate::client::{ClientError, Query};
use crate::commands::Context;
use crate::commands::pieces::{Outgoing, outgoing};
use crate::credentials::RegistryAuth;
use crate::failure::Failure;

const BUFFER_BYTES: usize = 256 << 10;
/// A thread that has broken a body off has ended soon after.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Sending {
    pub query: Query,
    /// By id, in base 64.
    pub secrets: BTreeMap<String, String>,
    /// By id, the names of the connections behind which they are.
    pub agents: BTreeMap<String, String>,
    /// What RUN trusts beside what the image does.
    pub authorities: Option<String>,
    /// Those with names.
    pub contexts: Contexts,
    /// What there is to say of caches.
    pub caches: Vec<(&'static str, Value)>,
    pub from: source::Context,
    /// With gzip, unless it is an archive already.
    pub compress: bool,
    /// Who we are for registries.
    pub auth: Option<RegistryAuth>,
}

/// What is sent is understood by dozen alone.
pub(super) async fn check(context: &Context) -> Result<(), Failure> {
    let answer = context.client.stream(Method::GET, "/_ping", None).await?;
    let server = answer.headers().get(header::SERVER).map(http::HeaderValue::as_bytes).unwrap_or_default();
    if server.starts_with(b"Dozen/") {
        return Ok(());
    }
    Err(Failure::not_built("building on an engine that is not dozen")
        .with_hint("docker's own client does it: docker build"))
}

/// Sends; the engine has all of it once there is an answer.
pub(super) async fn send(
    context: &Context,
    sending: Sending,
    progress: &mut Progress,
) -> Result<Response<Incoming>, Failure> {
    let Sending { mut query, secrets, agents, authorities, contexts, caches, from, compress, auth } = sending;
    query = query.with_some("dockerfile", from.file());
    if let source::Context::Remote { address, .. } = &from {
        query = query.with("remote", address);
    }
    let mut head = head(&from, &secrets, &agents, authorities.as_deref(), &contexts);
    for (name, said) in caches {
        head[name] = said;
    }
    let head = line(&head);
    let (out, body, sent) = outgoing();
    let filling = tokio::task::spawn_blocking(move || fill(out, &head, from, &contexts, compress));
    let path = format!("/build{query}");
    let fields: Vec<_> = auth.iter().map(|auth| ("X-Registry-Config", auth.header())).collect();
    let mut sending = std::pin::pin!(context.client.exchange(&path, CONTEXT_TYPE, EVENTS_TYPE, body, &fields));
    let mut ticks = interval(super::TICK);
    let answer = loop {
        tokio::select! {
            answer = &mut sending => break answer,
            _ = ticks.tick() => progress.sending(sent.load(Ordering::Relaxed)),
        }
    };
    match answer {
        Ok(response) => {
            progress.sent(sent.load(Ordering::Relaxed));
            Ok(response)
        }
        // The engine's words, unless it is the context that was no good.
        Err(error @ ClientError::Refused { .. }) => Err(error.into()),
        Err(error) => match tokio::time::timeout(PATIENCE, filling).await {
            Ok(Ok(Err(PackError::Context(failure)))) => Err(failure),
            _ => Err(error.into()),
        },
    }
}

/// The line before the archive.
fn head(
    from: &source::Context,
    secrets: &BTreeMap<String, String>,
    agents: &BTreeMap<String, String>,
    authorities: Option<&str>,
    contexts: &Contexts,
) -> Value {
    let mut head = json!({ "Secrets": secrets });
    // An older engine knows none.
    if !agents.is_empty() {
        head["Agents"] = json!(agents);
    }
    if !contexts.is_empty() {
        head["Contexts"] = json!(contexts::described(contexts));
    }
    if let Some(authorities) = authorities {
        head["Authorities"] = json!(authorities);
    }
    if let Some(Source { name, text, .. }) = from.dockerfile() {
        head["Dockerfile"] = json!({ "Name": name, "Text": text });
    }
    head
}

fn line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

fn fill(
    mut out: Outgoing,
    head: &[u8],
    from: source::Context,
    contexts: &Contexts,
    compress: bool,
) -> Result<(), PackError> {
    let mut all = || -> Result<(), PackError> {
        out.write_all(head)?;
        if contexts.values().any(Named::is_archive) {
            let mut framed = Framed::new(&mut out);
            context(&from, &mut framed, compress)?;
            framed.finish()?;
            for named in contexts.values().filter(|named| named.is_archive()) {
                let mut framed = Framed::new(&mut out);
                compressed(&mut framed, compress, |out| named.pack(out))?;
                framed.finish()?;
            }
        } else {
            context(&from, &mut out, compress)?;
        }
        Ok(out.flush()?)
    };
    let result = all();
    if result.is_err() {
        out.abort("the build context is not whole");
    }
    result
}

/// The context without a name.
fn context(from: &source::Context, out: &mut impl Write, compress: bool) -> Result<(), PackError> {
    match from {
        source::Context::Archive { begun, .. } => copy(begun, out),
        source::Context::Directory { path, source } => {
            compressed(out, compress, |out| packing::pack(path, &source.ignore, out))
        }
        source::Context::Remote { .. } => Ok(()),
        source::Context::Nothing(_) => compressed(out, compress, |out| Ok(packing::empty(out)?)),
    }
}

fn compressed(
    out: &mut dyn Write,
    compress: bool,
    pack: impl FnOnce(&mut dyn Write) -> Result<(), PackError>,
) -> Result<(), PackError> {
    if !compress {
        return pack(out);
    }
    let mut packed = GzEncoder::new(out, Compression::fast());
    pack(&mut packed)?;
    packed.finish()?;
    Ok(())
}

/// What has been read of stdin, and the rest.
fn copy(begun: &[u8], out: &mut impl Write) -> Result<(), PackError> {
    out.write_all(begun)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut stdin = std::io::stdin().lock();
    loop {
        match stdin.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => out.write_all(&buffer[..read])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                let words = format!("ERROR: failed to read the build context from stdin: {error}");
                return Err(PackError::Context(Failure::new(words)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dozen_dockerfile::ignore::IgnoreFile;

    use super::*;

    #[test]
    fn the_head_is_one_line_whatever_is_in_it() {
        let source = Source { name: "a\nb".into(), text: "FROM a\nRUN \"b\"\n".into(), ignore: IgnoreFile::default() };
        let secrets = BTreeMap::from([("t".to_owned(), "AAEC".to_owned())]);
        let head = line(&head(&source::Context::Nothing(source), &secrets, &BTreeMap::new(), None, &Contexts::new()));
        assert_eq!(head.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: Value = serde_json::from_slice(&head).unwrap();
        assert_eq!(read["Dockerfile"]["Text"], "FROM a\nRUN \"b\"\n");
        assert_eq!(read["Secrets"]["t"], "AAEC");
    }
}
