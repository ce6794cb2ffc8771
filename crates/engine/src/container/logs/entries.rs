//! Entries of a log, by the batch: one buffer for all of their texts.

use std::collections::BTreeMap;
use std::ops::Range;

use dozen_monitor::log::{Stream, compact, timestamp};
use dozen_monitor::protocol::LogFormat;
use jiff::Timestamp;
use rustix::time::Timespec;
use serde::Deserialize;

/// RFC 3339 with nine digits of fraction, UTC: such texts are in the order of their times.
pub type LogTime = [u8; timestamp::LENGTH_BYTES];

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the streams' own names")]
pub enum OutputStream {
    Stdout,
    Stderr,
}

/// A piece of a log: a line with its newline, or a part of a very long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry<'a> {
    /// When it was read from the container.
    pub time: &'a LogTime,
    /// Where it was written.
    pub stream: OutputStream,
    /// The text; in a json-file log, what is not UTF-8 was replaced when it was written, as Docker does.
    pub line: &'a [u8],
    /// What goes with it, a JSON object of strings, or empty.
    attributes: &'a [u8],
}

impl LogEntry<'_> {
    /// What goes with it: labels and variables that were asked for, the tag.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        // It is as the monitor wrote it; a line that somebody has meddled with has none.
        if self.attributes.is_empty() {
            BTreeMap::new()
        } else {
            serde_json::from_slice(self.attributes).unwrap_or_default()
        }
    }
}

/// Some entries, in order.
#[derive(Debug, Default)]
pub struct LogBatch {
    text: Vec<u8>,
    places: Vec<Place>,
}

/// Where an entry is in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) time: LogTime,
    pub(super) stream: OutputStream,
    line: Range<usize>,
    attributes: Range<usize>,
}

impl LogBatch {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = LogEntry<'_>> {
        self.places.iter().map(|place| LogEntry {
            time: &place.time,
            stream: place.stream,
            line: &self.text[place.line.clone()],
            attributes: &self.text[place.attributes.clone()],
        })
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The length of all texts together.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Reads a line of a log. What it says is in the batch once it is [kept](Self::keep). `None` for a line that is none,
    /// torn by a power cut: its neighbours are whole.
    pub(super) fn parse(&mut self, line: &[u8], format: LogFormat) -> Option<Place> {
        let begin = self.places.last().map_or(0, |place| place.attributes.end);
        self.text.truncate(begin);
        match format {
            LogFormat::Compact => compact_entry(line, &mut self.text),
            LogFormat::Json => json_entry(line, &mut self.text).or_else(|| {
                self.text.truncate(begin);
                any_json_entry(line, &mut self.text)
            }),
        }
    }

    /// Keeps the entry that was just read.
    pub(super) fn keep(&mut self, place: Place) {
        self.places.push(place);
    }

    /// Forgets what was read and not kept.
    pub(super) fn end(&mut self) {
        self.text.truncate(self.places.last().map_or(0, |place| place.attributes.end));
    }
}

fn compact_entry(line: &[u8], text: &mut Vec<u8>) -> Option<Place> {
    let (time, stream, words, newline) = compact::decode(line.strip_suffix(b"\n")?)?;
    let begin = text.len();
    text.extend_from_slice(words);
    text.extend(newline.then_some(b'\n'));
    let stream = match stream {
        Stream::Stdout => OutputStream::Stdout,
        Stream::Stderr => OutputStream::Stderr,
    };
    let end = text.len();
    Some(Place { time: timestamp::format(time), stream, line: begin..end, attributes: end..end })
}

/// An entry as the monitor writes it, byte for byte; anything else that is JSON is left to [`any_json_entry`].
fn json_entry(line: &[u8], text: &mut Vec<u8>) -> Option<Place> {
    let begin = text.len();
    let rest = unescape(line.strip_prefix(b"{\"log\":\"")?, text)?;
    let end = text.len();
    let rest = rest.strip_prefix(b",\"stream\":\"std")?;
    let (stream, rest) = match rest.split_first_chunk::<4>()? {
        (b"out\"", rest) => (OutputStream::Stdout, rest),
        (b"err\"", rest) => (OutputStream::Stderr, rest),
        _ => return None,
    };
    let (attributes, rest) = rest.split_at_checked(rest.len().checked_sub(9 + timestamp::LENGTH_BYTES + 3)?)?;
    let (time, rest) = rest.strip_prefix(b",\"time\":\"")?.split_first_chunk()?;
    if rest != b"\"}\n" || time[10] != b'T' || time[timestamp::LENGTH_BYTES - 1] != b'Z' {
        return None;
    }
    if !attributes.is_empty() {
        text.extend_from_slice(attributes.strip_prefix(b",\"attrs\":")?);
    }
    Some(Place { time: *time, stream, line: begin..end, attributes: end..text.len() })
}

/// A JSON string up to its closing quotation mark, and what comes after that.
fn unescape<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let special = memchr::memchr2(b'"', b'\\', rest)?;
        let (plain, after) = rest.split_at(special);
        text.extend_from_slice(plain);
        let (mark, after) = after.split_first()?;
        if *mark == b'"' {
            return Some(after);
        }
        let (escape, after) = after.split_first()?;
        rest = after;
        match escape {
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'"' | b'\\' => text.push(*escape),
            b'u' => {
                let (digits, after) = rest.split_first_chunk::<4>()?;
                let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
                let character = char::from_u32(number)?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            _ => return None,
        }
    }
}

#[derive(Deserialize)]
struct AnyEntry {
    log: String,
    stream: OutputStream,
    time: Timestamp,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

fn any_json_entry(line: &[u8], text: &mut Vec<u8>) -> Option<Place> {
    let entry: AnyEntry = serde_json::from_slice(line).ok()?;
    let begin = text.len();
    text.extend_from_slice(entry.log.as_bytes());
    let end = text.len();
    if !entry.attrs.is_empty() {
        serde_json::to_writer(&mut *text, &entry.attrs).ok()?;
    }
    Some(Place { time: log_time(entry.time), stream: entry.stream, line: begin..end, attributes: end..text.len() })
}

/// A moment as a log has it.
pub(super) fn log_time(time: Timestamp) -> LogTime {
    let (mut seconds, mut nanoseconds) = (time.as_second(), i64::from(time.subsec_nanosecond()));
    if nanoseconds < 0 {
        (seconds, nanoseconds) = (seconds - 1, nanoseconds + 1_000_000_000);
    }
    timestamp::format(Timespec { tv_sec: seconds, tv_nsec: nanoseconds })
}

#[cfg(test)]
mod tests {
    use dozen_monitor::log::json;
    use dozen_monitor::log::lines::Piece;
    use proptest::prelude::*;

    use super::*;

    const TIME: &LogTime = b"2026-01-01T00:00:01.000000000Z";

    #[track_caller]
    fn check(line: &str, want: Option<(&str, &str)>) {
        let mut batch = LogBatch::default();
        let place = batch.parse(format!("{line}\n").as_bytes(), LogFormat::Json);
        assert_eq!(place.is_some(), want.is_some(), "{line}");
        let (Some(place), Some((text, attributes))) = (place, want) else { return };
        batch.keep(place);
        let entry = batch.iter().next().unwrap();
        assert_eq!((std::str::from_utf8(entry.line).unwrap(), entry.time), (text, TIME));
        assert_eq!(serde_json::to_string(&entry.attributes()).unwrap(), attributes);
    }

    #[test]
    fn entries_of_any_shape_are_read() {
        let end = r#""stream":"stderr","time":"2026-01-01T00:00:01.000000000Z"}"#;
        check(&format!(r#"{{"log":"a\"\\\u003c\u2028\n",{end}"#), Some(("a\"\\<\u{2028}\n", "{}")));
        check(
            r#"{"log":"a","stream":"stdout","attrs":{"k":"\"v"},"time":"2026-01-01T00:00:01.000000000Z"}"#,
            Some(("a", r#"{"k":"\"v"}"#)),
        );
        // Not as ours is written, and yet an entry.
        check(
            r#"{"time":"2026-01-01T00:00:01Z", "stream":"stdout","log":"\ud83d\ude00","attrs":{"a":"b"}}"#,
            Some(("😀", r#"{"a":"b"}"#)),
        );
        for nonsense in ["", "{", "garbage", r#"{"log":"a"}"#, r#"{"log":"\x",x"#, r#"{"log":"a","stream":"std"#] {
            check(nonsense, None);
        }
    }

    proptest! {
        /// Both ways of reading say the same of what is written.
        #[test]
        fn what_is_written_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..100), tag in "\\PC{0,5}") {
            let attributes = json::attributes(&BTreeMap::from([("tag".to_owned(), tag.clone())]));
            let mut line = Vec::new();
            json::encode(Piece { text: &bytes, part: 0 }, Stream::Stderr, TIME, &attributes, &mut line);
            let (mut fast, mut slow) = (Vec::new(), Vec::new());
            let place = json_entry(&line, &mut fast).unwrap();
            let other = any_json_entry(&line, &mut slow).unwrap();
            prop_assert_eq!(&fast[place.line.clone()], &slow[other.line.clone()]);
            prop_assert_eq!((place.time, place.stream), (other.time, other.stream));
            let mut batch = LogBatch::default();
            let place = batch.parse(&line, LogFormat::Json).unwrap();
            batch.keep(place);
            prop_assert_eq!(&batch.iter().next().unwrap().attributes()["tag"], &tag);
        }

        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..80), cut in 0_usize..120) {
            let mut text = Vec::new();
            let _ = json_entry(&line, &mut text);
            let whole = br#"{"log":"a\u00e9\n","stream":"stdout","attrs":{"a":"b"},"time":"2026-01-01T00:00:01.000000000Z"}"#;
            let _ = json_entry(&whole[..cut.min(whole.len())], &mut text);
            let _ = compact_entry(&line, &mut text);
        }
    }
}
