//! `dozen load`.

use std::io::IsTerminal;

use clap::{ArgMatches, Command};
use futures_util::TryStreamExt;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

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
    .arg(switch("quiet", 'q', "Suppress the load output"))
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let is_quiet = is_on(matches, "quiet");
    let (reader, length): (Box<dyn AsyncRead + Send + Sync + Unpin>, Option<u64>) = match text(matches, "input") {
        Some(path) if !path.is_empty() => {
            let failed = |error| Failure::new(format!("open {path}: {error}"));
            let file = tokio::fs::File::open(path).await.map_err(failed)?;
            let metadata = file.metadata().await.map_err(failed)?;
            if metadata.is_dir() {
                return Err(Failure::new(format!("{path} is a directory"))
                    .with_hint("pack it: tar -C DIRECTORY -c . | dozen load"));
            }
            let length = metadata.is_file().then_some(metadata.len());
            (Box::new(file), length)
        }
        _ if std::io::stdin().is_terminal() => {
            return Err(Failure::new("requested load from stdin, but stdin is empty")
                .with_hint("name a file with -i, or pipe one in"));
        }
        _ => (Box::new(tokio::io::stdin()), None),
    };
    let bar = progress::bytes("Loading", length, is_quiet);
    let counted = bar.clone();
    let chunks = ReaderStream::with_capacity(reader, BUFFER_BYTES)
        .inspect_ok(move |chunk| counted.inc(chunk.len() as u64))
        .map_ok(Frame::data);
    let body: Body = BodyExt::boxed(StreamBody::new(chunks));
    let query = Query::new().with("quiet", if is_quiet { "1" } else { "0" });
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
