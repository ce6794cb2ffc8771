//! `GET /containers/{id}/logs`: the log, as frames or, with a terminal, as it is.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::{BufMut, Bytes, BytesMut};
use dozen_engine::{Engine, EngineError, LogBatch, LogOptions, OutputStream};
use dozen_model::error_chain;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::edge::ApiVersion;
use crate::error::{Answer, ApiError};
use crate::extract::Query;
use crate::{shims, time};

pub(super) async fn logs(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    query: Query,
) -> Answer {
    let options = options(&query)?;
    let container = engine.container(&id)?;
    let format = Format {
        // Ours: a frame for each entry, though there is a terminal. Who follows knows then what has come whole.
        terminal: container.snapshot().spec.process.terminal && !query.flag("framed"),
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
    };
    let entries = ReceiverStream::new(container.logs(options).await?);
    let body = Body::from_stream(entries.map(move |batch| Ok::<_, std::io::Error>(format.batch(batch))));
    Ok(([(header::CONTENT_TYPE, shims::stream_content_type(version, format.terminal))], body).into_response())
}

/// The engine's own words on a stream that is the process's: on its standard error, or on the terminal.
pub(super) fn complaint(message: &str, terminal: bool) -> Bytes {
    let format = Format { terminal, timestamps: false, details: false };
    let mut out = BytesMut::new();
    format.put(&mut out, OutputStream::Stderr, b"", None, format!("{message}\r\n").as_bytes());
    out.freeze()
}

fn options(query: &Query) -> Result<LogOptions, ApiError> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !(stdout || stderr) {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    Ok(LogOptions {
        stdout,
        stderr,
        since: time::moment(query, "since")?,
        until: time::moment(query, "until")?,
        end: None,
        // Anything that is not a number means all, as Docker has it.
        tail: query.text("tail").and_then(|text| text.parse().ok()),
        follow: query.flag("follow"),
    })
}

#[derive(Clone, Copy)]
pub(super) struct Format {
    pub(super) terminal: bool,
    pub(super) timestamps: bool,
    pub(super) details: bool,
}

impl Format {
    pub(super) fn batch(self, batch: Result<LogBatch, EngineError>) -> Bytes {
        let mut out = BytesMut::new();
        match batch {
            Ok(entries) => {
                out.reserve(entries.text_bytes() + entries.len() * 48);
                for entry in entries.iter() {
                    let details = self.details.then(|| details(&entry.attributes()));
                    self.put(&mut out, entry.stream, entry.time, details.as_deref(), entry.line);
                }
            }
            // The head is sent: the failure goes where errors are read.
            Err(error) => {
                let plain = Self { timestamps: false, details: false, ..self };
                plain.put(
                    &mut out,
                    OutputStream::Stderr,
                    b"",
                    None,
                    format!("Error grabbing logs: {}\n", error_chain(&error)).as_bytes(),
                );
            }
        }
        out.freeze()
    }

    /// Docker's frame: a byte for the stream, three zeros, the length as big-endian u32, the bytes.
    fn put(self, out: &mut BytesMut, stream: OutputStream, time: &[u8], details: Option<&str>, line: &[u8]) {
        let begin = out.len();
        if !self.terminal {
            out.put_u32(match stream {
                OutputStream::Stdout => 1 << 24,
                OutputStream::Stderr => 2 << 24,
            });
            out.put_u32(0);
        }
        let head = out.len();
        if self.timestamps {
            out.put_slice(time);
            out.put_u8(b' ');
        }
        if let Some(details) = details {
            out.put_slice(details.as_bytes());
            out.put_u8(b' ');
        }
        out.put_slice(line);
        if !self.terminal {
            let length = u32::try_from(out.len() - head).unwrap_or(u32::MAX);
            out[begin + 4..begin + 8].copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// What goes with a line, as Docker writes it: `name=value,…`, each escaped as in a query.
fn details(attributes: &BTreeMap<String, String>) -> String {
    let pair = |(name, value): (&String, &String)| format!("{}={}", query_escape(name), query_escape(value));
    attributes.iter().map(pair).collect::<Vec<_>>().join(",")
}

/// Go's url.QueryEscape.
fn query_escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_framed_unless_there_is_a_terminal() {
        let put = |format: Format, details| {
            let mut out = BytesMut::new();
            format.put(&mut out, OutputStream::Stdout, b"T", details, b"hi\n");
            format.put(&mut out, OutputStream::Stderr, b"T", details, b"");
            out
        };
        let format = Format { terminal: false, timestamps: false, details: false };
        assert_eq!(&put(format, None)[..], b"\x01\0\0\0\0\0\0\x03hi\n\x02\0\0\0\0\0\0\0");
        let format = Format { terminal: true, timestamps: true, details: true };
        assert_eq!(&put(format, Some(""))[..], b"T  hi\nT  ");
        assert_eq!(&put(format, Some("a=b"))[..], b"T a=b hi\nT a=b ");
    }

    #[test]
    fn details_are_escaped_as_in_a_query() {
        let attributes = [("tag", "a b,c=d"), ("é", "~"), ("b", "")];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(details(&attributes), "b=,tag=a+b%2Cc%3Dd,%C3%A9=~");
    }

    #[test]
    fn options_parse_or_are_refused() {
        let options = |query: &str| super::options(&Query::from(query));
        assert!(options("").unwrap_err().message.contains("at least one stream"));
        let all = options("stdout=1&stderr=true&tail=all&since=1700000000.5&until=1700000001&follow=1").unwrap();
        assert!(all.stdout && all.stderr && all.follow && all.tail.is_none());
        assert!(all.since.is_some() && all.since < all.until);
        assert_eq!(options("stdout=1&tail=10").unwrap().tail, Some(10));
        assert!(options("stdout=1&since=soon").is_err());
    }
}
