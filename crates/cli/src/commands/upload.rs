//! An archive on its way to the engine, from a file or from stdin, and what the engine says of it.

use std::io::IsTerminal;

use futures_util::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::client::Body;
use crate::failure::Failure;
use crate::output::progress;

const BUFFER_BYTES: usize = 256 << 10;

/// A request's body, and the bar that shows how much of it has gone. Without a path it is stdin. `verb` is ours, for
/// what is said where there is nothing to read.
pub async fn body(path: Option<&str>, verb: &str, title: &str, is_quiet: bool) -> Result<(Body, ProgressBar), Failure> {
    let (reader, length): (Box<dyn AsyncRead + Send + Sync + Unpin>, Option<u64>) = match path {
        Some(path) if !path.is_empty() => {
            let failed = |error| Failure::new(format!("open {path}: {}", super::system_words(&error)));
            let file = tokio::fs::File::open(path).await.map_err(failed)?;
            let metadata = file.metadata().await.map_err(failed)?;
            if metadata.is_dir() {
                let from = if verb == "import" { "import -" } else { verb };
                return Err(Failure::new(format!("{path} is a directory"))
                    .with_hint(format!("pack it: tar -C DIRECTORY -c . | dozen {from}")));
            }
            let length = metadata.is_file().then_some(metadata.len());
            (Box::new(file), length)
        }
        _ if std::io::stdin().is_terminal() => {
            return Err(Failure::new(format!("requested {verb} from stdin, but stdin is empty"))
                .with_hint("name a file, or pipe one in"));
        }
        _ => (Box::new(tokio::io::stdin()), None),
    };
    let bar = progress::bytes(title, length, is_quiet);
    let counted = bar.clone();
    let chunks = ReaderStream::with_capacity(reader, BUFFER_BYTES)
        .inspect_ok(move |chunk| counted.inc(chunk.len() as u64))
        .map_ok(Frame::data);
    Ok((BodyExt::boxed(StreamBody::new(chunks)), bar))
}

/// A line of the answer may be an error.
pub fn check(message: &Value) -> Result<(), Failure> {
    let Some(error) = message.get("error").and_then(Value::as_str) else { return Ok(()) };
    let hint = message.get("hint").and_then(Value::as_str).map(str::to_owned);
    Err(Failure { hint, ..Failure::new(error.trim()) })
}
