//! Output comes in pieces that may cut a letter in two; JSON has whole letters.

use std::collections::BTreeMap;

use dozen_engine::{OutputStream, StepId};

/// The letters whose rest has not come yet, of each stream of each step.
#[derive(Debug, Default)]
pub(super) struct Pieces(BTreeMap<(StepId, bool), Vec<u8>>);

impl Pieces {
    /// What can be read with this piece; what is no UTF-8 is replaced.
    pub(super) fn read(&mut self, step: StepId, stream: OutputStream, piece: Vec<u8>) -> String {
        let key = (step, stream == OutputStream::Stderr);
        let mut bytes = self.0.remove(&key).unwrap_or_default();
        if bytes.is_empty() {
            bytes = piece;
        } else {
            bytes.extend_from_slice(&piece);
        }
        let whole = bytes.len() - unfinished(&bytes);
        if whole < bytes.len() {
            self.0.insert(key, bytes.split_off(whole));
        }
        String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// What is left of a step that says no more.
    pub(super) fn rest(&mut self, step: StepId) -> String {
        let left: Vec<u8> =
            [false, true].iter().filter_map(|stream| self.0.remove(&(step, *stream))).flatten().collect();
        String::from_utf8_lossy(&left).into_owned()
    }
}

/// How many bytes at the end begin a letter of which more may come (RFC 3629, section 4).
fn unfinished(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    for (at, byte) in tail.iter().enumerate().rev() {
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        let there = tail.len() - at;
        return if there < length { there } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_stay_whole() {
        let text = "é日𝄞 a";
        for cut in 0..=text.len() {
            let mut pieces = Pieces::default();
            let (first, second) = text.as_bytes().split_at(cut);
            let mut read = pieces.read(StepId(1), OutputStream::Stdout, first.to_vec());
            // The other stream, and other steps, do not come in between.
            read += &pieces.read(StepId(1), OutputStream::Stderr, Vec::new());
            assert_eq!(pieces.read(StepId(2), OutputStream::Stdout, b"x".to_vec()), "x");
            read += &pieces.read(StepId(1), OutputStream::Stdout, second.to_vec());
            assert_eq!(read, text, "cut at {cut}");
            assert_eq!(pieces.rest(StepId(1)), "");
        }
    }

    #[test]
    fn what_is_no_text_is_replaced_and_nothing_is_kept_back_for_ever() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.read(StepId(1), OutputStream::Stdout, b"a\xffb\x80\x80\x80\x80".to_vec()).chars().count(), 7);
        assert_eq!(pieces.read(StepId(1), OutputStream::Stdout, b"c\xe2\x82".to_vec()), "c");
        assert_eq!(pieces.rest(StepId(1)), "\u{fffd}");
    }
}
