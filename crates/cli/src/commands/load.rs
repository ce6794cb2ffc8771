//! `dozen load`: an archive, from a file or a pipe, or a directory with an image in it.

mod archive;
mod directory;
mod parts;
#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use clap::{ArgMatches, Command};
use futures_util::{Stream, TryStreamExt};
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use self::archive::Archive;
use self::parts::{Part, Parts};
use super::Context;
use crate::arguments::flags::{is_on, switch, text, value, verb};
use crate::client::{Body, JsonLines, Query};
use crate::failure::{Failure, Outcome};
use crate::output::{self, progress};

const BUFFER_BYTES: usize = 256 << 10;

pub fn command() -> Command {
    verb(
        "load",
        "Load an image from a tar archive or STDIN",
        "load [OPTIONS]",
        "dozen load -i debian.tar\ndozen load -i layout/\nzstdcat app.tar.zst | dozen load",
    )
    .arg(value("input", 'i', "string", "Read from tar archive file or directory, instead of STDIN"))
    .arg(value("platform", None, "string", "Load only the given platform (os/arch[/variant])"))
    .arg(switch("quiet", 'q', "Suppress the load output"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let is_quiet = is_on(matches, "quiet");
    let platform = text(matches, "platform");
    let source = match text(matches, "input") {
        Some(path) if std::fs::metadata(path).is_ok_and(|found| found.is_dir()) => {
            return send_parts(context, (is_quiet, platform), directory::parts(path)?).await;
        }
        Some(path) if !path.is_empty() => Source::open(path)?,
        _ if std::io::stdin().is_terminal() => {
            return Err(Failure::new("requested load from stdin, but stdin is empty")
                .with_hint("name a file with -i, or pipe one in"));
        }
        _ => return send(context, (is_quiet, platform), stream(tokio::io::stdin()), None).await,
    };
    if let Some(parts) = source.missing(context).await
        && let Ok(code) = send_parts(context, (is_quiet, platform), source.parts(parts)?).await
    {
        return Ok(code);
    }
    // Whole, for whatever went wrong with a part: a layer may have gone meanwhile. What else is wrong shows again.
    match source.length {
        Some(length) => {
            send_parts(context, (is_quiet, platform), source.parts([Range { start: 0, end: length }])?).await
        }
        None => send(context, (is_quiet, platform), stream(tokio::fs::File::from_std(source.file)), None).await,
    }
}

fn stream<R: AsyncRead>(reader: R) -> ReaderStream<R> {
    ReaderStream::with_capacity(reader, BUFFER_BYTES)
}

/// A file that was named.
struct Source {
    path: String,
    file: std::fs::File,
    /// Of a regular file.
    length: Option<u64>,
}

impl Source {
    fn open(path: &str) -> Result<Self, Failure> {
        let failed = |error| Failure::new(format!("open {path}: {error}"));
        let file = std::fs::File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let length = metadata.is_file().then_some(metadata.len());
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// What of it the engine has not got; `None` if that is all, or cannot be told.
    async fn missing(&self, context: &Context) -> Option<Vec<Range<u64>>> {
        self.length?;
        let archive = Archive::look(&self.file)?;
        let request = json!({ "Digests": archive.digests() });
        // Another engine than dozen does not know the question.
        let known: Value = context.client.post("/layers/known", Some(&request)).await.ok()?;
        let known = known["Known"].as_array()?.iter().filter_map(|digest| Some(digest.as_str()?.to_owned())).collect();
        archive.without(&known)
    }

    fn parts(&self, parts: impl IntoIterator<Item = Range<u64>>) -> Result<Vec<Part>, Failure> {
        let file = self.file.try_clone().map_err(|error| Failure::new(format!("open {}: {error}", self.path)))?;
        let file = Arc::new(file);
        Ok(parts.into_iter().map(|range| Part { source: parts::Source::File(file.clone()), range }).collect())
    }
}

async fn send_parts(context: &Context, how: (bool, Option<&str>), parts: Vec<Part>) -> Outcome {
    let length = parts::length(&parts);
    send(context, how, Parts::new(parts), Some(length)).await
}

/// Sends an archive of so many bytes, if that is known, and prints what came in.
async fn send(
    context: &Context,
    (is_quiet, platform): (bool, Option<&str>),
    archive: impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static,
    length: Option<u64>,
) -> Outcome {
    let bar = progress::bytes("Loading", length, is_quiet);
    let counted = bar.clone();
    let chunks = archive.inspect_ok(move |chunk| counted.inc(chunk.len() as u64)).map_ok(Frame::data);
    let body: Body = BodyExt::boxed(StreamBody::new(chunks));
    let query = Query::new().with("quiet", if is_quiet { "1" } else { "0" });
    let query = query.with_some("platform", platform);
    let response = context.client.stream(Method::POST, &format!("/images/load{query}"), Some(body)).await;
    bar.finish_and_clear();
    let mut messages = JsonLines::new(response?, "POST /images/load");
    while let Some(message) = messages.next().await? {
        if let Some(error) = message.get("error").and_then(Value::as_str) {
            let hint = message.get("hint").and_then(Value::as_str).map(str::to_owned);
            return Err(Failure { hint, ..Failure::new(error.trim()) });
        }
        // Which names came in is the answer, not the output that --quiet suppresses.
        if let Some(text) = message.get("stream").and_then(Value::as_str) {
            output::print(text)?;
        }
    }
    Ok(0)
}
