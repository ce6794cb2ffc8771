//! Output as it comes, cut into lines and encoded as log entries.
//!
//! The rules are Docker's: an entry per line, its newline included; a line longer than [`LONGEST_PIECE_BYTES`]
//! becomes several entries of which only the last ends with a newline; what has no newline yet is held back
//! until it has one, or until the stream ends. How the output was chunked on its way never shows.

use super::Stream;
use super::timestamp::LENGTH_BYTES;

/// The most bytes of output in one entry, as in Docker's copier.
pub const LONGEST_PIECE_BYTES: usize = 16 * 1024;

/// Cuts one stream into entries.
#[derive(Debug)]
pub struct LineEncoder {
    stream: Stream,
    /// An unfinished line, never longer than [`LONGEST_PIECE_BYTES`].
    held: Vec<u8>,
}

impl LineEncoder {
    /// An encoder at the beginning of a stream.
    pub fn new(stream: Stream) -> Self {
        Self { stream, held: Vec::new() }
    }

    /// An unfinished line, which is in no entry yet.
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// Appends to `entries` every entry that `chunk` completes.
    pub fn push(&mut self, mut chunk: &[u8], time: &[u8; LENGTH_BYTES], entries: &mut Vec<u8>) {
        while !chunk.is_empty() {
            let room = LONGEST_PIECE_BYTES - self.held.len();
            match chunk.iter().take(room).position(|byte| *byte == b'\n') {
                Some(newline) => {
                    let (line, rest) = chunk.split_at(newline + 1);
                    if self.held.is_empty() {
                        encode(line, self.stream, time, entries);
                    } else {
                        self.held.extend_from_slice(line);
                        encode(&self.held, self.stream, time, entries);
                        self.held = Vec::new();
                    }
                    chunk = rest;
                }
                None => {
                    let (part, rest) = chunk.split_at(room.min(chunk.len()));
                    self.held.extend_from_slice(part);
                    if self.held.len() == LONGEST_PIECE_BYTES {
                        let whole = whole_characters(&self.held);
                        encode(&self.held[..whole], self.stream, time, entries);
                        self.held.drain(..whole);
                    }
                    chunk = rest;
                }
            }
        }
    }

    /// The stream has ended: appends what was held back.
    pub fn finish(&mut self, time: &[u8; LENGTH_BYTES], entries: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            encode(&held, self.stream, time, entries);
        }
    }
}

/// How much of `piece` to cut, so that no character is torn: all of it, unless it ends in the beginning of one.
fn whole_characters(piece: &[u8]) -> usize {
    let tail_start = piece.len().saturating_sub(4);
    for back in (tail_start..piece.len()).rev() {
        if piece[back] & 0xc0 == 0x80 {
            continue;
        }
        return match std::str::from_utf8(&piece[back..]) {
            Err(error) if error.error_len().is_none() && back > 0 => back,
            _ => piece.len(),
        };
    }
    piece.len()
}

/// Appends one entry.
fn encode(text: &[u8], stream: Stream, time: &[u8; LENGTH_BYTES], entries: &mut Vec<u8>) {
    entries.reserve(text.len() + 80);
    entries.extend_from_slice(b"{\"log\":\"");
    escape(text, entries);
    entries.extend_from_slice(b"\",\"stream\":\"");
    entries.extend_from_slice(stream.name().as_bytes());
    entries.extend_from_slice(b"\",\"time\":\"");
    entries.extend_from_slice(time);
    entries.extend_from_slice(b"\"}\n");
}

/// Escapes as Go's encoding/json does: the HTML characters and U+2028, U+2029 as \u escapes, each byte that is
/// not UTF-8 as U+FFFD.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for part in text.utf8_chunks() {
        let valid = part.valid().as_bytes();
        let mut plain_from = 0;
        for (index, byte) in valid.iter().enumerate() {
            let named: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                b'<' => b"\\u003c",
                b'>' => b"\\u003e",
                b'&' => b"\\u0026",
                0xe2 => match valid[index + 1..] {
                    [0x80, 0xa8, ..] => b"\\u2028",
                    [0x80, 0xa9, ..] => b"\\u2029",
                    _ => continue,
                },
                0..0x20 => b"",
                _ => continue,
            };
            out.extend_from_slice(&valid[plain_from..index]);
            plain_from = index + if *byte == 0xe2 { 3 } else { 1 };
            if named.is_empty() {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(&[
                    b'\\',
                    b'u',
                    b'0',
                    b'0',
                    HEX[usize::from(byte >> 4)],
                    HEX[usize::from(byte & 15)],
                ]);
            } else {
                out.extend_from_slice(named);
            }
        }
        out.extend_from_slice(&valid[plain_from..]);
        for _ in part.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: &[u8; LENGTH_BYTES] = b"2026-01-01T00:00:00.000000000Z";

    fn log(chunks: &[&[u8]]) -> String {
        let mut encoder = LineEncoder::new(Stream::Stdout);
        let mut entries = Vec::new();
        for chunk in chunks {
            encoder.push(chunk, TIME, &mut entries);
        }
        encoder.finish(TIME, &mut entries);
        String::from_utf8(entries).unwrap()
    }

    fn texts(log: &str) -> Vec<String> {
        log.lines()
            .map(|line| {
                let entry: serde_json::Value = serde_json::from_str(line).unwrap();
                entry["log"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn entries_are_dockers() {
        for (input, want) in [
            ("hello\n", r#""hello\n""#),
            ("a<b>&c\"\\\t\r\u{1}\n", r#""a\u003cb\u003e\u0026c\"\\\t\r\u0001\n""#),
            ("\u{2028}x\u{2029}é€\u{7f}\n", "\"\\u2028x\\u2029é€\u{7f}\\n\""),
            ("no newline", r#""no newline""#),
        ] {
            let want =
                format!("{{\"log\":{want},\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00.000000000Z\"}}\n");
            assert_eq!(log(&[input.as_bytes()]), want);
        }
    }

    #[test]
    fn bytes_that_are_not_text_become_replacement_characters() {
        assert_eq!(texts(&log(&[b"a\xff\xc3(\xe2\x82\n"])), ["a\u{fffd}\u{fffd}(\u{fffd}\u{fffd}\n"]);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let long = "x".repeat(LONGEST_PIECE_BYTES);
        assert_eq!(texts(&log(&[long.as_bytes(), b"\n"])), [long.clone(), "\n".to_owned()]);
        let odd = format!("{}€tail\n", "x".repeat(LONGEST_PIECE_BYTES - 1));
        assert_eq!(texts(&log(&[odd.as_bytes()])), ["x".repeat(LONGEST_PIECE_BYTES - 1), "€tail\n".to_owned()]);
    }

    proptest! {
        /// Any chunking gives the same log, and the log has every character.
        #[test]
        fn chunking_never_shows(
            text in "([a-z€é\n\"]{0,40}|\n|x{9000}){0,8}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&bytes[from..cut]);
                from = cut;
            }
            chunks.push(&bytes[from..]);
            let log_of_chunks = log(&chunks);
            prop_assert_eq!(&log_of_chunks, &log(&[bytes]));
            prop_assert_eq!(texts(&log_of_chunks).concat(), text);
        }

        /// Whatever the bytes, every entry is JSON, and says what a lossy conversion, byte by byte, would say.
        #[test]
        fn any_bytes_encode(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut want = String::new();
            for part in bytes.utf8_chunks() {
                want.push_str(part.valid());
                want.extend(part.invalid().iter().map(|_| '\u{fffd}'));
            }
            // A character torn by a newline is not one: compare line by line.
            prop_assert_eq!(texts(&log(&[&bytes])).concat(), want);
        }
    }
}
