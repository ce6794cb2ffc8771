//! Sparse files in PAX archives: versions 0.0, 0.1 and 1.0 of GNU's extension (GNU tar manual, "Storing Sparse Files").

use std::io::{self, Read};

use super::{BLOCK, SPARSE_LIMIT, Sparse, TarReader, invalid};

/// What the records `GNU.sparse.…` say, by the rest of their names.
#[derive(Debug, Default)]
pub(super) struct Records {
    major: u64,
    /// The file's name: the header's own is made up for readers that do not know the format.
    pub(super) name: Option<Vec<u8>>,
    real_size: Option<u64>,
    /// Offsets and lengths in turn (0.0 and 0.1).
    numbers: Vec<u64>,
}

impl Records {
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let number = || parse(value);
        match key {
            b"major" => self.major = number()?,
            b"name" => self.name = Some(value.to_vec()),
            b"realsize" | b"size" => self.real_size = Some(number()?),
            // Version 0.0 has a pair of these for each piece.
            b"offset" if self.numbers.len().is_multiple_of(2) => self.numbers.push(number()?),
            b"numbytes" if !self.numbers.len().is_multiple_of(2) => self.numbers.push(number()?),
            b"offset" | b"numbytes" => return None,
            b"map" => {
                self.numbers.clear();
                for text in value.split(|byte| *byte == b',').take(2 * SPARSE_LIMIT + 1) {
                    self.numbers.push(parse(text)?);
                }
            }
            // The number of pieces, and the minor version, say nothing that the pieces do not.
            _ => {}
        }
        (self.numbers.len() <= 2 * SPARSE_LIMIT).then_some(())
    }
}

fn parse(text: &[u8]) -> Option<u64> {
    // Without a sign, which `parse` would take.
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

impl<R: Read> TarReader<R> {
    /// Where the data of the entry belongs. Version 1.0 has the map before the data: it is read here.
    pub(super) fn pax_sparse(&mut self, records: Records) -> io::Result<Sparse> {
        let numbers = match records.major {
            0 => records.numbers,
            1 => self.read_map()?,
            _ => return Err(invalid("a sparse file is of an unknown version")),
        };
        let real_size = records.real_size.ok_or_else(|| invalid("a sparse file has no size"))?;
        let (pairs, rest) = numbers.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(invalid("the map of a sparse file is wrong"));
        }
        self.checked_map(pairs.iter().map(|[offset, length]| (*offset, *length)).collect(), real_size)
    }

    /// Decimal numbers, a line each: how many pieces, then offset and length of each; padded to whole blocks.
    fn read_map(&mut self) -> io::Result<Vec<u64>> {
        let wrong = || invalid("the map of a sparse file is wrong");
        let mut numbers = Vec::new();
        let mut wanted = None;
        let mut line = Vec::new();
        let mut block = [0; BLOCK as usize];
        loop {
            let mut filled = 0;
            while filled < block.len() {
                match self.read_data(&mut block[filled..])? {
                    0 => return Err(wrong()),
                    read => filled += read,
                }
            }
            for byte in block {
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > 20 {
                        return Err(wrong());
                    }
                    continue;
                }
                let number = parse(&line).ok_or_else(wrong)?;
                line.clear();
                match wanted {
                    None if number > SPARSE_LIMIT as u64 => return Err(wrong()),
                    None => wanted = Some(2 * number as usize),
                    Some(_) => numbers.push(number),
                }
                if wanted == Some(numbers.len()) {
                    // What follows in this block is padding.
                    return Ok(numbers);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tar::EntryType;

    use super::*;
    use crate::pack::{Description, TarWriter};

    /// Pieces, size, and the data that is left.
    type Read<'a> = (&'a [(u64, u64)], u64, &'a [u8]);

    /// Records, data, and what comes of them (or nothing).
    #[track_caller]
    fn check(records: &[(&str, &str)], data: &[u8], want: Option<Read<'_>>) {
        let mut bytes = Vec::new();
        let mut writer = TarWriter::new(&mut bytes);
        let records: Vec<_> = records.iter().map(|(key, value)| (*key, value.as_bytes().to_vec())).collect();
        let header = Description::plain(b"made/up", EntryType::Regular, 0o644, data.len() as u64);
        writer.header_with(&header, &records).unwrap();
        writer.data(data, data.len() as u64).unwrap();
        writer.finish().unwrap();
        let mut reader = TarReader::new(bytes.as_slice());
        let entry = match (reader.next_entry(), want) {
            (Err(_), None) => return,
            (entry, _) => entry.unwrap().unwrap(),
        };
        let (pieces, real_size, rest) = want.expect("it is refused");
        assert_eq!(entry.path, b"name");
        let sparse = entry.sparse.unwrap();
        assert_eq!((sparse.pieces.as_slice(), sparse.real_size), (pieces, real_size));
        let mut read = vec![0; 4096];
        let length = reader.read_data(&mut read).unwrap();
        assert_eq!(&read[..length], rest);
    }

    #[test]
    fn all_versions_are_read_and_lies_are_refused() {
        let both: &[(u64, u64)] = &[(4096, 3), (9000, 2)];
        let name = ("GNU.sparse.name", "name");
        check(
            &[("GNU.sparse.size", "9100"), name, ("GNU.sparse.map", "4096,3,9000,2")],
            b"abcde",
            Some((both, 9100, b"abcde")),
        );
        let pair = |offset: &'static str, length| [("GNU.sparse.offset", offset), ("GNU.sparse.numbytes", length)];
        let mut old = vec![("GNU.sparse.size", "9100"), ("GNU.sparse.numblocks", "2"), ("path", "name")];
        old.extend(pair("4096", "3").into_iter().chain(pair("9000", "2")));
        check(&old, b"abcde", Some((both, 9100, b"abcde")));
        let new = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), name, ("GNU.sparse.realsize", "9100")];
        let with_map = |map: &str, data: &[u8]| {
            let mut bytes = Vec::new();
            bytes.write_all(map.as_bytes()).unwrap();
            bytes.resize(bytes.len().next_multiple_of(512), 0);
            bytes.extend(data);
            bytes
        };
        check(&new, &with_map("2\n4096\n3\n9000\n2\n", b"abcde"), Some((both, 9100, b"abcde")));
        check(&new, &with_map("1\n9100\n0\n", b""), Some((&[(9100, 0)], 9100, b"")));
        for map in [
            "3\n4096\n3\n9000\n2\n",
            "2\n9000\n3\n4096\n2\n",
            "2\n4096\n3\n9099\n2\n",
            "2\n4096\n3\n9000\n1\n",
            "65537\n",
            "-1\n",
            "2\n+4096\n3\n9000\n2\n",
            "2\n4096\n18446744073709551615\n9000\n2\n",
            "184467440737095516160\n",
            "x",
            "",
        ] {
            check(&new, &with_map(map, b"abcde"), None);
        }
        check(&new, b"1\n", None);
        check(&[("GNU.sparse.major", "2"), name, ("GNU.sparse.realsize", "5")], b"abcde", None);
        check(&[name, ("GNU.sparse.map", "0,5")], b"abcde", None);
        check(&[name, ("GNU.sparse.size", "5"), ("GNU.sparse.map", "0")], b"abcde", None);
        check(&[name, ("GNU.sparse.size", "5"), ("GNU.sparse.numbytes", "5")], b"abcde", None);
    }
}
