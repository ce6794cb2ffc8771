//! `dozen load`.

mod archive;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use bytes::Bytes;
use clap::{ArgMatches, Command};
use futures_util::{Stream, TryStreamExt};
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::io::AsyncRead;
use tokio::task::JoinHandle;
use tokio_util::io::ReaderStream;

use self::archive::Archive;
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
        "dozen load -i debian.tar\nzstdcat app.tar.zst | dozen load",
    )
    .arg(value("input", 'i', "string", "Read from tar archive file, instead of STDIN"))
    .arg(value("platform", None, "string", "Load only the given platform (os/arch[/variant])"))
    .arg(switch("quiet", 'q', "Suppress the load output"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let is_quiet = is_on(matches, "quiet");
    let platform = text(matches, "platform");
    let source = match text(matches, "input") {
        Some(path) if !path.is_empty() => Source::open(path)?,
        _ if std::io::stdin().is_terminal() => {
            return Err(Failure::new("requested load from stdin, but stdin is empty")
                .with_hint("name a file with -i, or pipe one in"));
        }
        _ => return send(context, (is_quiet, platform), stream(tokio::io::stdin()), None).await,
    };
    if let Some(parts) = source.missing(context).await
        && let Ok(code) = send(context, (is_quiet, platform), source.parts(&parts)?, Some(length(&parts))).await
    {
        return Ok(code);
    }
    // Whole, for whatever went wrong with a part: a layer may have gone meanwhile. What else is wrong shows again.
    match source.length {
        Some(length) => {
            send(context, (is_quiet, platform), source.parts(&[Range { start: 0, end: length }])?, Some(length)).await
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
        if metadata.is_dir() {
            return Err(
                Failure::new(format!("{path} is a directory")).with_hint("pack it: tar -C DIRECTORY -c . | dozen load")
            );
        }
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

    fn parts(&self, parts: &[Range<u64>]) -> Result<Parts, Failure> {
        let file = self.file.try_clone().map_err(|error| Failure::new(format!("open {}: {error}", self.path)))?;
        Ok(Parts { file: Arc::new(file), parts: parts.to_vec().into(), reading: None })
    }
}

fn length(parts: &[Range<u64>]) -> u64 {
    parts.iter().map(|part| part.end - part.start).sum()
}

/// Parts of a file, one after the other.
struct Parts {
    file: Arc<std::fs::File>,
    parts: VecDeque<Range<u64>>,
    reading: Option<JoinHandle<std::io::Result<Vec<u8>>>>,
}

impl Parts {
    /// Reads the next piece, in a thread where waiting for a disk hurts nobody.
    fn read(&mut self) -> Option<JoinHandle<std::io::Result<Vec<u8>>>> {
        let part = self.parts.front_mut()?;
        let (offset, length) = (part.start, (part.end - part.start).min(BUFFER_BYTES as u64));
        part.start += length;
        if part.is_empty() {
            self.parts.pop_front();
        }
        let file = self.file.clone();
        Some(tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; length as usize];
            file.read_exact_at(&mut buffer, offset)?;
            Ok(buffer)
        }))
    }
}

impl Stream for Parts {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let mut reading = match self.reading.take().or_else(|| self.read()) {
            Some(reading) => reading,
            None => return Poll::Ready(None),
        };
        match Pin::new(&mut reading).poll(context) {
            Poll::Pending => {
                self.reading = Some(reading);
                Poll::Pending
            }
            Poll::Ready(read) => {
                // The next one is read while this one is sent.
                self.reading = self.read();
                Poll::Ready(Some(read.unwrap_or_else(|error| Err(std::io::Error::other(error))).map(Bytes::from)))
            }
        }
    }
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
