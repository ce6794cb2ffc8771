//! Docker's json-file format, one JSON object a line:
//!
//! ```text
//! {"log":"hello\n","stream":"stdout","attrs":{"tag":"web"},"time":"2026-01-01T00:00:00.000000000Z"}
//! ```
//!
//! `attrs` is there if there are any.

use std::collections::BTreeMap;

use super::Stream;
use super::lines::Piece;
use super::timestamp::LENGTH_BYTES;

/// What stands between stream and time, made once: `,"attrs":{…}`, or nothing.
pub fn attributes(attributes: &BTreeMap<String, String>) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in attributes {
        text.extend_from_slice(if text.is_empty() { b",\"attrs\":{\"" } else { b",\"" });
        escape(name.as_bytes(), &mut text);
        text.extend_from_slice(b"\":\"");
        escape(value.as_bytes(), &mut text);
        text.push(b'"');
    }
    if !text.is_empty() {
        text.push(b'}');
    }
    text
}

/// Appends one entry.
pub fn encode(piece: Piece<'_>, stream: Stream, time: &[u8; LENGTH_BYTES], attributes: &[u8], entries: &mut Vec<u8>) {
    entries.reserve(piece.text.len() + attributes.len() + 80);
    entries.extend_from_slice(b"{\"log\":\"");
    escape(piece.text, entries);
    entries.extend_from_slice(b"\",\"stream\":\"");
    entries.extend_from_slice(stream.name().as_bytes());
    entries.push(b'"');
    entries.extend_from_slice(attributes);
    entries.extend_from_slice(b",\"time\":\"");
    entries.extend_from_slice(time);
    entries.extend_from_slice(b"\"}\n");
}

/// Escapes as Go's encoding/json does: the HTML characters and U+2028, U+2029 as \u escapes, each byte that is
/// not UTF-8 as U+FFFD.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain_length(rest));
        out.extend_from_slice(plain);
        let Some(first) = special.first() else { return };
        // A character is whole between two bytes of ASCII, or nowhere.
        let length = if first.is_ascii() { 1 } else { special.iter().take_while(|byte| !byte.is_ascii()).count() };
        let (special, after) = special.split_at(length);
        if first.is_ascii() {
            escape_ascii(*first, out)
        } else {
            escape_wide(special, out)
        }
        rest = after;
    }
}

/// Bytes that stand for themselves: most of what is ever logged.
fn is_plain(byte: u8) -> bool {
    // Without a branch, so that the compiler looks at many bytes at once.
    matches!(byte, 0x20..0x80) & !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

/// How many of them `text` begins with.
fn plain_length(text: &[u8]) -> usize {
    const BLOCK_BYTES: usize = 16;
    let is_plain_block = |block: &&[u8; BLOCK_BYTES]| block.iter().fold(true, |plain, byte| plain & is_plain(*byte));
    let blocks = text.as_chunks().0.iter().take_while(is_plain_block).count() * BLOCK_BYTES;
    blocks + text[blocks..].iter().take_while(|byte| is_plain(**byte)).count()
}

fn escape_ascii(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let named = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', named]);
}

/// What has no byte of ASCII in it.
fn escape_wide(text: &[u8], out: &mut Vec<u8>) {
    for part in text.utf8_chunks() {
        for character in part.valid().chars() {
            match character {
                '\u{2028}' => out.extend_from_slice(b"\\u2028"),
                '\u{2029}' => out.extend_from_slice(b"\\u2029"),
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
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

    fn entry(text: &[u8], extra: &[u8]) -> String {
        let mut entries = Vec::new();
        encode(Piece { text, part: 0 }, Stream::Stdout, TIME, extra, &mut entries);
        String::from_utf8(entries).unwrap()
    }

    fn text(entry: &str) -> String {
        let entry: serde_json::Value = serde_json::from_str(entry).unwrap();
        entry["log"].as_str().unwrap().to_owned()
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
            assert_eq!(entry(input.as_bytes(), b""), want);
        }
    }

    #[test]
    fn attributes_stand_before_the_time() {
        let attributes = attributes(&BTreeMap::from([("b".into(), "\"".into()), ("a".into(), "1".into())]));
        assert_eq!(
            entry(b"x", &attributes),
            "{\"log\":\"x\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"1\",\"b\":\"\\\"\"},\"time\":\"2026-01-01T00:00:00.000000000Z\"}\n"
        );
        assert_eq!(super::attributes(&BTreeMap::new()), b"");
    }

    #[test]
    fn bytes_that_are_not_text_become_replacement_characters() {
        assert_eq!(text(&entry(b"a\xff\xc3(\xe2\x82\n", b"")), "a\u{fffd}\u{fffd}(\u{fffd}\u{fffd}\n");
    }

    proptest! {
        /// Whatever the bytes, every entry is JSON, and says what a lossy conversion, byte by byte, would say.
        #[test]
        fn any_bytes_encode(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut want = String::new();
            for part in bytes.utf8_chunks() {
                want.push_str(part.valid());
                want.extend(part.invalid().iter().map(|_| '\u{fffd}'));
            }
            prop_assert_eq!(text(&entry(&bytes, b"")), want);
        }
    }
}
