//! Which bytes: of an upload's chunk, and of a blob that is asked for in part.

use crate::refusal::{Kind, Refusal};

/// The bytes of a chunk, the last one included: `Content-Range: 0-1023` (distribution-spec 1.1, "Pushing a blob in chunks").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRange {
    /// Of the first byte.
    pub first: u64,
    /// Of the last one, not before the first.
    pub last: u64,
}

impl ChunkRange {
    /// `bytes 0-1023/2048`, as HTTP has it, is taken too: some clients send it.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let range = text.strip_prefix("bytes").map_or(text, |rest| rest.trim_start_matches([' ', '=']));
        let range = range.split_once('/').map_or(range, |(range, _)| range);
        let invalid = || Refusal::new(Kind::UploadInvalid, format!("Content-Range {text:?}: write FIRST-LAST"));
        let (first, last) = range.split_once('-').ok_or_else(invalid)?;
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last && last < u64::MAX => Ok(Self { first, last }),
            _ => Err(invalid()),
        }
    }

    /// How many.
    pub fn length(self) -> u64 {
        self.last - self.first + 1
    }

    /// Whether the chunk goes on where an upload of this length ends, and is as long as the request says.
    pub fn check(self, offset: u64, content_length: Option<u64>) -> Result<(), Refusal> {
        if self.first != offset {
            let words = format!("the chunk begins at byte {}, the next one to come is {offset}", self.first);
            return Err(Refusal::new(Kind::OutOfOrder, words));
        }
        match content_length {
            Some(length) if length != self.length() => {
                let words = format!("Content-Range is of {} bytes, Content-Length says {length}", self.length());
                Err(Refusal::new(Kind::SizeInvalid, words))
            }
            _ => Ok(()),
        }
    }
}

/// How much of an upload is there, as its `Range` field says it; of an empty one nothing else can be said.
pub fn received(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

/// What a `GET` with a `Range` field gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it: nothing else was asked for, or in a way that nobody has to know (RFC 9110, section 14.2).
    Whole,
    /// This many bytes from this one on; at least one.
    Bytes {
        /// Of the first byte.
        first: u64,
        /// How many.
        length: u64,
    },
    /// There are none there.
    Nothing,
}

/// `bytes=0-99`, `bytes=100-`, `bytes=-100` of so many bytes (RFC 9110, section 14.1.2). Several at once are not for us.
pub fn part(text: Option<&str>, size: u64) -> Part {
    let Some(range) = text.and_then(|text| text.trim().strip_prefix("bytes=")) else { return Part::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Part::Whole };
    match (first, last) {
        ("", last) => match number(last) {
            None => Part::Whole,
            Some(0) => Part::Nothing,
            Some(_) if size == 0 => Part::Nothing,
            Some(count) => Part::Bytes { first: size - count.min(size), length: count.min(size) },
        },
        (first, last) => {
            let last = if last.is_empty() { Some(u64::MAX) } else { number(last) };
            match (number(first), last) {
                (Some(first), Some(last)) if first > last => Part::Whole,
                (Some(first), Some(_)) if first >= size => Part::Nothing,
                (Some(first), Some(last)) => Part::Bytes { first, length: last.min(size - 1) - first + 1 },
                _ => Part::Whole,
            }
        }
    }
}

/// Digits and nothing else: no sign, no blank.
fn number(text: &str) -> Option<u64> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_chunk_says_which_bytes_it_has() {
        for (text, expected) in [
            ("0-0", Some((0, 0))),
            ("10-1023", Some((10, 1023))),
            ("bytes 0-9/10", Some((0, 9))),
            ("bytes=0-9", Some((0, 9))),
            ("9-0", None),
            ("", None),
            ("-", None),
            ("0-", None),
            ("+1-2", None),
            ("0-18446744073709551615", None),
            ("0-99999999999999999999", None),
        ] {
            let found = ChunkRange::parse(text).ok().map(|range| (range.first, range.last));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_chunk_follows_the_one_before_and_is_as_long_as_it_says() {
        let range = ChunkRange { first: 10, last: 19 };
        let kind = |offset, length| range.check(offset, length).err().map(|refusal| refusal.kind);
        assert_eq!(kind(10, Some(10)), None);
        assert_eq!(kind(10, None), None);
        assert_eq!(kind(0, Some(10)), Some(Kind::OutOfOrder));
        assert_eq!(kind(20, Some(10)), Some(Kind::OutOfOrder));
        assert_eq!(kind(10, Some(9)), Some(Kind::SizeInvalid));
        assert_eq!((received(0), received(1), received(100)), ("0-0".into(), "0-0".into(), "0-99".into()));
    }

    #[test]
    fn a_part_of_a_blob() {
        let bytes = |first, length| Part::Bytes { first, length };
        for (text, size, expected) in [
            (None, 100, Part::Whole),
            (Some("bytes=0-9"), 100, bytes(0, 10)),
            (Some("bytes=90-"), 100, bytes(90, 10)),
            (Some("bytes=90-1000"), 100, bytes(90, 10)),
            (Some("bytes=-10"), 100, bytes(90, 10)),
            (Some("bytes=-1000"), 100, bytes(0, 100)),
            (Some("bytes=99-99"), 100, bytes(99, 1)),
            (Some("bytes=100-"), 100, Part::Nothing),
            (Some("bytes=-0"), 100, Part::Nothing),
            (Some("bytes=0-"), 0, Part::Nothing),
            (Some("bytes=-5"), 0, Part::Nothing),
            (Some("bytes=9-0"), 100, Part::Whole),
            (Some("bytes=0-1,5-6"), 100, Part::Whole),
            (Some("lines=0-1"), 100, Part::Whole),
            (Some("bytes=a-b"), 100, Part::Whole),
        ] {
            assert_eq!(part(text, size), expected, "{text:?} of {size}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_whole(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", size: u64) {
            if let Part::Bytes { first, length } = part(Some(&text), size) {
                prop_assert!(length > 0 && first.checked_add(length).is_some_and(|end| end <= size));
            }
            if let Ok(range) = ChunkRange::parse(&text) {
                prop_assert!(range.length() > 0);
            }
        }
    }
}
