//! Headers of a tar stream (tar(5), "GNU tar Archives"; pax(1), for what a file may do).

/// All that an entry says besides its data.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::commands) struct Entry<'a> {
    pub name: &'a [u8],
    /// `0` file, `1` another name of one that came before, `2` symbolic link, `3` and `4` devices, `5` directory, `6` pipe.
    pub kind: u8,
    /// Permissions alone.
    pub mode: u32,
    /// Of the data.
    pub size: u64,
    pub mtime_s: i64,
    pub link: &'a [u8],
    /// Major and minor number.
    pub device: (u32, u32),
    /// The attribute `security.capability` (capabilities(7), "File capabilities").
    pub capability: &'a [u8],
}

pub(in crate::commands) const BLOCK: usize = 512;
/// What fits into a header's name.
const NAME: usize = 100;

/// Appends the header, and before it those that hold what has no room in it.
pub(in crate::commands) fn write_header(entry: &Entry<'_>, out: &mut Vec<u8>) {
    if !entry.capability.is_empty() {
        let record = record(b"SCHILY.xattr.security.capability", entry.capability);
        block(
            &Entry { name: b"././@PaxHeader", kind: b'x', mode: 0o644, size: record.len() as u64, ..Entry::default() },
            out,
        );
        out.extend_from_slice(&record);
        pad(out, record.len());
    }
    for (kind, text) in [(b'L', entry.name), (b'K', entry.link)] {
        if text.len() > NAME {
            let size = text.len() as u64 + 1;
            block(&Entry { name: b"././@LongLink", kind, mode: 0o644, size, ..Entry::default() }, out);
            out.extend_from_slice(text);
            out.push(0);
            pad(out, text.len() + 1);
        }
    }
    block(entry, out);
}

/// Fills the last block of so many bytes.
pub(in crate::commands) fn pad(out: &mut Vec<u8>, bytes: usize) {
    out.resize(out.len() + padding(bytes as u64), 0);
}

/// How many bytes are missing to a whole block.
pub(in crate::commands) fn padding(bytes: u64) -> usize {
    (bytes.wrapping_neg() % BLOCK as u64) as usize
}

/// Bytes begin with a header: its checksum is right (tar(5), "Old-Style Archive Format").
pub(in crate::commands) fn is_header(bytes: &[u8]) -> bool {
    let Some(block) = bytes.get(..BLOCK) else { return false };
    let said = std::str::from_utf8(&block[148..156]).unwrap_or_default().trim_matches([' ', '\0']);
    let sum: u64 =
        block.iter().enumerate().map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte })).sum();
    u64::from_str_radix(said, 8) == Ok(sum)
}

/// `LENGTH NAME=VALUE\n`, where the length counts itself.
fn record(name: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} ").as_bytes(), name, b"=", value, b"\n"].concat()
}

fn block(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let at = out.len();
    out.resize(at + BLOCK, 0);
    let block = &mut out[at..];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, &entry.name[..entry.name.len().min(NAME)]);
    octal(&mut put, 100, 7, u64::from(entry.mode));
    octal(&mut put, 108, 7, 0);
    octal(&mut put, 116, 7, 0);
    // In base 256 from 8 GiB on.
    match entry.size < 1 << 33 {
        true => octal(&mut put, 124, 11, entry.size),
        false => put(124, &[&[0x80, 0, 0, 0][..], &entry.size.to_be_bytes()].concat()),
    }
    octal(&mut put, 136, 11, u64::try_from(entry.mtime_s).unwrap_or(0).min((1 << 33) - 1));
    put(148, b"        ");
    put(156, &[entry.kind]);
    put(157, &entry.link[..entry.link.len().min(NAME)]);
    put(257, b"ustar  \0");
    if matches!(entry.kind, b'3' | b'4') {
        octal(&mut put, 329, 7, u64::from(entry.device.0));
        octal(&mut put, 337, 7, u64::from(entry.device.1));
    }
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    octal(&mut put, 148, 6, sum);
    block[155] = b' ';
}

/// So many digits and a NUL.
fn octal(put: &mut impl FnMut(usize, &[u8]), at: usize, digits: usize, number: u64) {
    let mut text = [b'0'; 12];
    let mut left = number;
    for digit in text[..digits].iter_mut().rev() {
        *digit = b'0' + (left & 7) as u8;
        left >>= 3;
    }
    text[digits] = 0;
    put(at, &text[..=digits]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_itself() {
        assert_eq!(record(b"a", b"b"), b"6 a=b\n");
        // From 9 to 10 and from 99 to 101 there is no step: a digit more makes it longer.
        for length in 0..300 {
            let record = record(b"name", &vec![b'v'; length]);
            let said: usize = std::str::from_utf8(&record).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, record.len());
        }
    }

    #[test]
    fn a_header_is_known_by_its_sum() {
        let mut header = Vec::new();
        write_header(
            &Entry { name: "é".as_bytes(), kind: b'0', mode: 0o644, size: 5, ..Entry::default() },
            &mut header,
        );
        assert_eq!(header.len(), BLOCK);
        assert!(is_header(&header));
        header[0] ^= 1;
        assert!(!is_header(&header));
        assert!(!is_header(&[b'F'; BLOCK]) && !is_header(b"FROM a\n") && !is_header(&[0; BLOCK]));
    }

    #[test]
    fn paddings_fill_a_block() {
        for (bytes, missing) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)] {
            assert_eq!(padding(bytes), missing);
        }
    }
}
