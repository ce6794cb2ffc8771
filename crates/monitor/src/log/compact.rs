//! The format of `local`: a line for each entry, small, quick to write and to read, and kept byte for byte.
//!
//! ```text
//! 187a5b3c2d1e0f00ohello
//! ```
//!
//! Sixteen hexadecimal digits are nanoseconds since 1970; then `o` for standard output or `e` for standard error, as a
//! capital where the text has no newline; then the text, whose only newline, at its end, is the line's own.

use rustix::time::Timespec;

use super::Stream;
use super::lines::Piece;

/// Before the text.
pub const HEAD_BYTES: usize = 17;

/// Appends one entry.
pub fn encode(piece: Piece<'_>, stream: Stream, time: Timespec, entries: &mut Vec<u8>) {
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    let nanoseconds = u64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { 0 } else { u64::MAX });
    let digit = |shift: u32| b"0123456789abcdef"[(nanoseconds >> shift & 15) as usize];
    entries.reserve(piece.text.len() + HEAD_BYTES + 1);
    entries.extend((0..16).rev().map(|index| digit(index * 4)));
    let torn = piece.is_torn();
    entries.push(match (stream, torn) {
        (Stream::Stdout, false) => b'o',
        (Stream::Stdout, true) => b'O',
        (Stream::Stderr, false) => b'e',
        (Stream::Stderr, true) => b'E',
    });
    entries.extend_from_slice(piece.text);
    if torn {
        entries.push(b'\n');
    }
}

/// An entry, without the line's end: when, where, and the text; `true` if a newline belongs to it. `None` for what is
/// no entry.
pub fn decode(line: &[u8]) -> Option<(Timespec, Stream, &[u8], bool)> {
    let (head, text) = line.split_at_checked(HEAD_BYTES)?;
    let (digits, flag) = head.split_at(HEAD_BYTES - 1);
    let mut nanoseconds = 0_u64;
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        nanoseconds = nanoseconds << 4 | u64::from(value);
    }
    let (stream, newline) = match flag {
        b"o" => (Stream::Stdout, true),
        b"O" => (Stream::Stdout, false),
        b"e" => (Stream::Stderr, true),
        b"E" => (Stream::Stderr, false),
        _ => return None,
    };
    let time = Timespec {
        tv_sec: (nanoseconds / 1_000_000_000).cast_signed(),
        tv_nsec: (nanoseconds % 1_000_000_000).cast_signed(),
    };
    Some((time, stream, text, newline))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_is_its_line() {
        let mut entries = Vec::new();
        let time = Timespec { tv_sec: 1, tv_nsec: 255 };
        encode(Piece { text: b"hello\n", part: 0 }, Stream::Stdout, time, &mut entries);
        encode(Piece { text: b"half", part: 1 }, Stream::Stderr, time, &mut entries);
        assert_eq!(entries, b"000000003b9acaffohello\n000000003b9acaffEhalf\n");
        for nonsense in ["", "000000003b9acaff", "x00000003b9acaffo", "000000003b9acaff?"] {
            assert_eq!(decode(nonsense.as_bytes()), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            text in proptest::collection::vec(any::<u8>().prop_filter("a newline ends a line", |byte| *byte != b'\n'), 0..50),
            newline in any::<bool>(),
            seconds in 0_i64..18_000_000_000,
            nanoseconds in 0_i64..1_000_000_000,
        ) {
            let mut piece = text.clone();
            piece.extend(newline.then_some(b'\n'));
            let (mut line, time) = (Vec::new(), Timespec { tv_sec: seconds, tv_nsec: nanoseconds });
            encode(Piece { text: &piece, part: 0 }, Stream::Stderr, time, &mut line);
            prop_assert_eq!(line.pop(), Some(b'\n'));
            prop_assert_eq!(decode(&line), Some((time, Stream::Stderr, &text[..], newline)));
        }
    }
}
