//! As much of X.690's distinguished encoding as public keys need.

/// Of a list of elements.
pub const SEQUENCE: u8 = 0x30;
/// Of bytes, with the number of bits that the last one has too many before them.
pub const BIT_STRING: u8 = 0x03;

/// The tag and content of what comes first, and what comes behind. Lengths below 16 MiB alone.
pub fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((*tag, content, behind))
}

/// An element with this content.
pub fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = &length[length.iter().take_while(|byte| **byte == 0).count().min(length.len() - 1)..];
    let head = match digits {
        [short @ 0..=0x7f] => vec![tag, *short],
        digits => [&[tag, 0x80 | u8::try_from(digits.len()).unwrap_or(8)][..], digits].concat(),
    };
    [&head[..], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x1_0000] {
            let content = vec![7; length];
            let written = [tagged(SEQUENCE, &content), vec![9]].concat();
            assert_eq!(element(&written), Some((SEQUENCE, &content[..], &[9][..])), "{length}");
            assert_eq!(element(&written[..written.len() - 2]), None, "{length}: cut");
        }
    }

    #[test]
    fn a_length_that_is_not_there_is_none() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x80, 0, 0], &[0x30, 0x84, 0, 0, 0, 0], &[0x30, 0x82, 1]] {
            assert_eq!(element(bytes), None, "{bytes:?}");
        }
    }
}
