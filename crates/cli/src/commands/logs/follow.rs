//! `logs -f` outlives the engine: when the stream breaks, it goes on with the next engine where it was.
//!
//! Every entry comes in a frame of its own and begins with its time. Entries of one time are in one order, so the place in a
//! log is the time of the last entry that was shown and how many of that time there were.

use std::time::Duration;

use futures_util::TryStreamExt;
use http::{Method, StatusCode};
use http_body_util::BodyStream;
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::is_raw;
use crate::client::{ClientError, Query};
use crate::commands::{Context, container_path};
use crate::demultiplex::Target;
use crate::failure::Failure;

/// `2026-01-01T00:00:00.000000000Z`, and the space after it.
const TIME_BYTES: usize = 30;
/// Between two attempts where the last one brought nothing.
const PAUSE: Duration = Duration::from_millis(200);
/// So many of those in a row, and there is something wrong with the engine.
const ATTEMPTS: u32 = 100;

/// Which part of a log.
pub(super) struct Wanted {
    pub(super) details: bool,
    pub(super) timestamps: bool,
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    pub(super) tail: String,
}

impl Wanted {
    pub(super) fn query(&self) -> Query {
        Query::new()
            .with("stdout", "1")
            .with("stderr", "1")
            .with_flag("details", self.details)
            .with_some("since", self.since.as_deref())
            .with_some("until", self.until.as_deref())
            .with("tail", &self.tail)
    }
}

/// A place in a log.
#[derive(Debug, Default)]
struct Place {
    time: Option<[u8; TIME_BYTES]>,
    /// So many entries of that time were shown.
    shown: u64,
    /// So many of them come again.
    again: u64,
}

impl Place {
    /// What to show of a frame; nothing of one that was shown before. The engine's own words have no time.
    fn pass<'a>(&mut self, frame: &'a [u8], timestamps: bool) -> &'a [u8] {
        let Some((time, rest)) = frame.split_first_chunk::<TIME_BYTES>() else { return frame };
        let Some(rest) = rest.strip_prefix(b" ").filter(|_| time[10] == b'T' && time[TIME_BYTES - 1] == b'Z') else {
            return frame;
        };
        if self.time.as_ref() == Some(time) {
            if self.again > 0 {
                self.again -= 1;
                return b"";
            }
            self.shown += 1;
        } else {
            *self = Self { time: Some(*time), shown: 1, again: 0 };
        }
        if timestamps { frame } else { rest }
    }

    fn query(&mut self, wanted: &Wanted) -> Query {
        self.again = self.shown;
        let query = match &self.time {
            None => wanted.query(),
            Some(time) => {
                let time = String::from_utf8_lossy(time).into_owned();
                Wanted { since: Some(time), until: wanted.until.clone(), tail: "all".to_owned(), ..*wanted }.query()
            }
        };
        query.with("follow", "1").with("timestamps", "1").with("framed", "1")
    }
}

/// Follows a log to its end. False if the engine cannot do it so: it is none of ours, and there is a terminal.
pub(super) async fn follow(context: &Context, name: &str, wanted: &Wanted) -> Result<bool, Failure> {
    let run = started(context, name).await?;
    let mut place = Place::default();
    let mut attempts = 0;
    loop {
        let path = container_path(name, &format!("/logs{}", place.query(wanted)));
        let response = match context.client.stream(Method::GET, &path, None).await {
            Ok(response) => response,
            // The engine died while it answered.
            Err(ClientError::Broken { .. }) if attempts < ATTEMPTS => {
                attempts += 1;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if is_raw(&response) {
            return Ok(false);
        }
        let chunks = BodyStream::new(response.into_body()).try_filter_map(async |frame| Ok(frame.into_data().ok()));
        let mut chunks = std::pin::pin!(chunks);
        // What was torn by the last break comes again, whole.
        let mut frames = Frames::default();
        let broke = loop {
            match chunks.try_next().await {
                Ok(Some(chunk)) => {
                    attempts = 0;
                    show(&mut frames, &chunk, &mut place, wanted.timestamps).await?;
                }
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        // An engine that ends in good order ends its streams so, too; and then the run is not over.
        let is_over = !broke && (wanted.until.is_some() || run.is_none() || started(context, name).await? != run);
        if is_over {
            return Ok(true);
        }
        attempts += 1;
        if attempts > ATTEMPTS {
            return Err(Failure::new("the connection to the engine breaks again and again"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// When the container's present run began; `None`: it does not run, or is gone.
async fn started(context: &Context, name: &str) -> Result<Option<String>, Failure> {
    match context.client.get::<Value>(&container_path(name, "/json")).await {
        Ok(container) => {
            let state = &container["State"];
            let started = state["StartedAt"].as_str().filter(|_| state["Running"] == true);
            Ok(started.map(str::to_owned))
        }
        Err(ClientError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Frames out of a stream, each whole.
#[derive(Debug, Default)]
struct Frames(Vec<u8>);

impl Frames {
    fn next(&mut self, from: &mut usize) -> Result<Option<(Target, std::ops::Range<usize>)>, Failure> {
        let Some((header, rest)) = self.0[*from..].split_first_chunk::<8>() else { return Ok(None) };
        let [stream, _, _, _, a, b, c, d] = *header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if rest.len() < length {
            return Ok(None);
        }
        let payload = *from + 8..*from + 8 + length;
        *from = payload.end;
        match stream {
            0 | 1 => Ok(Some((Target::Stdout, payload))),
            2 => Ok(Some((Target::Stderr, payload))),
            _ => Err(Failure::new(format!("the log is garbled: unrecognized stream {stream}"))),
        }
    }
}

async fn show(frames: &mut Frames, chunk: &[u8], place: &mut Place, timestamps: bool) -> Result<(), Failure> {
    frames.0.extend_from_slice(chunk);
    let (mut from, mut out, mut err) = (0, Vec::new(), Vec::new());
    while let Some((target, payload)) = frames.next(&mut from)? {
        let text = place.pass(&frames.0[payload], timestamps);
        match target {
            Target::Stdout => out.extend_from_slice(text),
            Target::Stderr => err.extend_from_slice(text),
        }
    }
    frames.0.drain(..from);
    write(tokio::io::stdout(), &out).await?;
    write(tokio::io::stderr(), &err).await
}

async fn write(mut to: impl AsyncWrite + Unpin, text: &[u8]) -> Result<(), Failure> {
    let written = async {
        to.write_all(text).await?;
        to.flush().await
    };
    written.await.map_err(|error| Failure::new(format!("cannot write the container's output: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(second: u32, text: &str) -> Vec<u8> {
        format!("2026-01-01T00:00:{second:02}.000000000Z {text}").into_bytes()
    }

    #[test]
    fn what_was_shown_is_not_shown_again() {
        let mut place = Place::default();
        let entries = [entry(1, "a"), entry(2, "b"), entry(2, "b"), entry(2, "c"), entry(3, "d")];
        let shown = |place: &mut Place, entries: &[Vec<u8>]| {
            entries
                .iter()
                .map(|entry| String::from_utf8_lossy(place.pass(entry, false)).into_owned())
                .collect::<String>()
        };
        assert_eq!(shown(&mut place, &entries[..3]), "abb");
        let wanted = Wanted { details: false, timestamps: false, since: None, until: None, tail: "5".to_owned() };
        let query = place.query(&wanted).to_string();
        assert!(
            query.contains("since=2026-01-01T00") && query.contains("02.000000000Z") && query.contains("tail=all"),
            "{query}"
        );
        // From that moment on, inclusive.
        assert_eq!(shown(&mut place, &entries[1..]), "cd");
        assert_eq!(place.pass(b"Error grabbing logs: gone", false), b"Error grabbing logs: gone");
        assert_eq!(place.pass(&entry(4, "e"), true), entry(4, "e"));
    }

    #[test]
    fn frames_survive_any_cut() {
        let bytes = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err";
        for cut in 0..bytes.len() {
            let (mut frames, mut all) = (Frames::default(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                frames.0.extend_from_slice(part);
                let mut from = 0;
                while let Some((target, payload)) = frames.next(&mut from).unwrap() {
                    all.push((target, frames.0[payload].to_vec()));
                }
                frames.0.drain(..from);
            }
            assert_eq!(all, [(Target::Stdout, b"out".to_vec()), (Target::Stderr, b"err".to_vec())]);
        }
        assert!(Frames(b"\x09\0\0\0\0\0\0\0".to_vec()).next(&mut 0).is_err());
    }
}
