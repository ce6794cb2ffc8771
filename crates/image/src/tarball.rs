//! Reading a tar stream, header by header: ustar, GNU long names, sparse files, PAX.
//!
//! The `tar` crate parses the 512-byte headers. The rest is ours, because two things must not be left to it with
//! hostile input: a PAX value may hold newlines (a file capability is binary), and what describes the next entry
//! must not be read into memory without a limit.
//! Formats: pax(1), "pax Interchange Format"; tar(5) of libarchive; GNU tar manual, "Basic Tar Format".

use std::io::{self, Read};

use tar::{EntryType, Header};

mod sparse;

const BLOCK: u64 = 512;
/// Long names and PAX records of one entry; xattrs are 64 KiB each at the most (xattr(7)).
const DESCRIPTION_LIMIT: u64 = 1024 * 1024;
/// Pieces of one sparse file.
pub(crate) const SPARSE_LIMIT: usize = 65_536;

/// One entry's header, everything that describes it merged.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As the archive has it.
    pub path: Vec<u8>,
    /// Where a link leads, or the name that a hard link shares its file with.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: EntryType,
    /// Bytes of data in the archive.
    pub size: u64,
    /// The twelve bits of the permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Major and minor number.
    pub device: (u32, u32),
    /// Names and values from `SCHILY.xattr.`.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Its data is only that of pieces.
    pub sparse: Option<Sparse>,
}

/// Where the data of a sparse file belongs.
#[derive(Debug, Clone)]
pub struct Sparse {
    /// Offset and length of each piece, in order, not overlapping.
    pub pieces: Vec<(u64, u64)>,
    /// Of the file, in bytes, with its holes.
    pub real_size: u64,
}

/// Reads entries and their data. An `InvalidData` or `UnexpectedEof` error is the archive's fault.
#[derive(Debug)]
pub struct TarReader<R> {
    source: R,
    /// Data of the current entry that has not been read, and the padding after it.
    remaining: u64,
    padding: u64,
    needs_padding: bool,
}

impl<R: Read> TarReader<R> {
    /// Reads from a plain stream.
    pub fn new(source: R) -> Self {
        Self { source, remaining: 0, padding: 0, needs_padding: true }
    }

    /// The archive may end with the last entry's data: docker's client leaves out what fills its block and what ends the
    /// archive where it has added a Dockerfile (`ReplaceFileTarWrapper`), and Go reads that.
    pub fn may_lack_padding(mut self) -> Self {
        self.needs_padding = false;
        self
    }

    /// The next entry's header, or `None` at the end. Skips what was not read of the one before.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let (mut long_path, mut long_link, mut pax) = (None, None, Pax::default());
        loop {
            self.skip_rest()?;
            let Some(header) = self.read_header()? else {
                return if long_path.is_some() || long_link.is_some() || pax.is_some() {
                    Err(invalid("it ends after the description of an entry"))
                } else {
                    Ok(None)
                };
            };
            let kind = header.entry_type();
            self.announce(size_of(&header).ok_or_else(|| invalid("a header has no valid size"))?);
            match kind {
                EntryType::GNULongName => long_path = Some(until_nul(self.read_description()?)),
                EntryType::GNULongLink => long_link = Some(until_nul(self.read_description()?)),
                EntryType::XHeader => pax = Pax::parse(&self.read_description()?)?,
                // A global header carries comments (git archive); nothing in it can change an entry of ours.
                EntryType::XGlobalHeader => drop(self.read_description()?),
                _ => {
                    if let Some(size) = pax.size {
                        self.announce(size);
                    }
                    return self.describe(&header, long_path, long_link, pax).map(Some);
                }
            }
        }
    }

    /// Reads data of the current entry; 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let read = self.source.read(&mut buffer[..want])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= read as u64;
        Ok(read)
    }

    /// The data of the current entry, as a reader.
    pub fn data(&mut self) -> Data<'_, R> {
        Data(self)
    }

    /// Reads to the end of the stream: what follows the last entry is part of a layer's digest.
    pub fn drain(mut self) -> io::Result<()> {
        io::copy(&mut self.source, &mut io::sink()).map(drop)
    }

    fn announce(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK;
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let mut left = u128::from(self.remaining) + u128::from(self.padding);
        let padding = u128::from(self.padding);
        (self.remaining, self.padding) = (0, 0);
        let mut buffer = [0; 32 * 1024];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match self.source.read(&mut buffer[..want])? {
                0 if left == padding && !self.needs_padding => return Ok(()),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => left -= read as u128,
            }
        }
        Ok(())
    }

    fn read_header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let mut filled = 0;
        while filled < header.as_bytes().len() {
            match self.source.read(&mut header.as_mut_bytes()[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if has_its_checksum(&header) { Ok(Some(header)) } else { Err(invalid("a header's checksum is wrong")) }
    }

    fn read_description(&mut self) -> io::Result<Vec<u8>> {
        if self.remaining > DESCRIPTION_LIMIT {
            return Err(invalid("the names or attributes of an entry are larger than 1 MiB"));
        }
        let mut data = vec![0; usize::try_from(self.remaining).expect("at most 1 MiB")];
        let mut filled = 0;
        while filled < data.len() {
            filled += self.read_data(&mut data[filled..])?;
        }
        Ok(data)
    }

    fn describe(
        &mut self,
        header: &Header,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        mut pax: Pax,
    ) -> io::Result<Entry> {
        let real_name = pax.sparse.as_mut().and_then(|sparse| sparse.name.take());
        let path = real_name.or(pax.path).or(long_path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link =
            pax.link.or(long_link).or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
        let wrong = |what: &str| invalid(&format!("entry {:?} has no valid {what}", crate::names::shown(&path)));
        let mut kind = header.entry_type();
        // Before POSIX a directory was a regular file whose name ends in a slash.
        if kind == EntryType::Regular && path.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let id = |value: io::Result<u64>, pax: Option<u64>, what| {
            // The last number of 32 bits is none: to chown(2) it means that the owner stays who it is, which is root.
            let id = u32::try_from(pax.map_or(value, Ok).map_err(|_| wrong(what))?).map_err(|_| wrong(what))?;
            if id == u32::MAX { Err(wrong(what)) } else { Ok(id) }
        };
        let is_device = kind.is_character_special() || kind.is_block_special();
        let number = |value: io::Result<Option<u32>>| match (is_device, value) {
            (false, _) => Ok(0),
            (true, Ok(Some(number))) => Ok(number),
            (true, _) => Err(wrong("device number")),
        };
        let device = (number(header.device_major())?, number(header.device_minor())?);
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => (header.mtime().map_or(0, |seconds| seconds as i64), 0),
        };
        let mode = header.mode().map_err(|_| wrong("mode"))? & 0o7777;
        // Some writers leave an owner blank and mean root, as the file lists of older archivers do.
        let blank = |field: &[u8]| field.iter().all(|byte| matches!(byte, 0 | b' '));
        let uid = if blank(&header.as_old().uid) { Ok(0) } else { header.uid() };
        let gid = if blank(&header.as_old().gid) { Ok(0) } else { header.gid() };
        let (uid, gid) = (id(uid, pax.uid, "owner")?, id(gid, pax.gid, "group")?);
        let sparse = match (kind, pax.sparse) {
            (EntryType::GNUSparse, _) => Some(self.sparse_map(header)?),
            (EntryType::Regular | EntryType::Continuous, Some(records)) => Some(self.pax_sparse(records)?),
            _ => None,
        };
        // These have no data, whatever their size field says (Go's archive/tar reads them so, and wrote most images).
        if matches!(
            kind,
            EntryType::Link
                | EntryType::Symlink
                | EntryType::Char
                | EntryType::Block
                | EntryType::Directory
                | EntryType::Fifo
        ) {
            self.announce(0);
        }
        Ok(Entry { path, link, kind, size: self.remaining, mode, uid, gid, mtime, device, xattrs: pax.xattrs, sparse })
    }

    fn sparse_map(&mut self, header: &Header) -> io::Result<Sparse> {
        let wrong = || invalid("the map of a sparse file is wrong");
        let gnu = header.as_gnu().ok_or_else(wrong)?;
        let mut pieces = Vec::new();
        let mut add = |block: &tar::GnuSparseHeader| -> io::Result<()> {
            if !block.is_empty() {
                pieces.push((block.offset()?, block.length()?));
            }
            if pieces.len() > SPARSE_LIMIT { Err(wrong()) } else { Ok(()) }
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut more = gnu.is_extended();
        while more {
            let mut extension = tar::GnuExtSparseHeader::new();
            self.source.read_exact(extension.as_mut_bytes())?;
            extension.sparse().iter().try_for_each(&mut add)?;
            more = extension.is_extended();
        }
        let real_size = gnu.real_size().map_err(|_| wrong())?;
        self.checked_map(pieces, real_size)
    }

    fn checked_map(&self, pieces: Vec<(u64, u64)>, real_size: u64) -> io::Result<Sparse> {
        let wrong = || invalid("the map of a sparse file is wrong");
        let (mut end, mut data) = (0u64, 0u64);
        for (offset, length) in &pieces {
            if *offset < end {
                return Err(wrong());
            }
            end = offset.checked_add(*length).ok_or_else(wrong)?;
            data = data.checked_add(*length).ok_or_else(wrong)?;
        }
        if end > real_size || data != self.remaining {
            return Err(wrong());
        }
        Ok(Sparse { pieces, real_size })
    }
}

/// See [`TarReader::data`].
#[derive(Debug)]
pub struct Data<'a, R>(&'a mut TarReader<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_data(buffer)
    }
}

/// What a PAX extended header says of the next entry.
#[derive(Debug, Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Option<sparse::Records>,
    seen: bool,
}

impl Pax {
    fn is_some(&self) -> bool {
        self.seen
    }

    /// Records are `LENGTH KEY=VALUE\n`, the length counting all of it, so that a value may hold any byte.
    fn parse(mut data: &[u8]) -> io::Result<Self> {
        let wrong = || invalid("a PAX header is malformed");
        let mut pax = Self { seen: true, ..Self::default() };
        while !data.is_empty() && data[0] != 0 {
            let space = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(wrong)?;
            let length: usize =
                std::str::from_utf8(&data[..space]).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
            let record = data.get(space + 1..length).ok_or_else(wrong)?;
            let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
            pax.take(&record[..equals], &record[equals + 1..]).ok_or_else(wrong)?;
            data = &data[length..];
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
        // An empty value takes back what an earlier record said (pax(1)).
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(parse_time(std::str::from_utf8(value).ok()?)?),
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().take(key, value)?;
                } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// `1700000000.123456789`, also negative; digits beyond nanoseconds are cut.
fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    match (negative, nanoseconds) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

/// True if these are the first bytes of a tar stream: a whole block that is a header, or the zeros of an empty one.
pub fn begins_tar(bytes: &[u8]) -> bool {
    let Some(block) = bytes.first_chunk::<{ BLOCK as usize }>() else { return false };
    let mut header = Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    block.iter().all(|byte| *byte == 0) || has_its_checksum(&header)
}

/// The size field's number. In base 256 it has room for more than 64 bits, and for less than nothing.
fn size_of(header: &Header) -> Option<u64> {
    let field = &header.as_old().size;
    let is_binary = field[0] & 0x80 != 0;
    if is_binary && (field[0] != 0x80 || field[1..4] != [0; 3]) {
        return None;
    }
    header.entry_size().ok()
}

/// The checksum counts its own eight bytes as spaces.
fn has_its_checksum(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let sum = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    header.cksum().is_ok_and(|written| written == sum)
}

fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|byte| *byte == 0) {
        data.truncate(end);
    }
    data
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_parse() {
        for (text, want) in [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("-1.25", Some((-2, 750_000_000))),
            ("1.1234567891", Some((1, 123_456_789))),
            ("x", None),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text), want, "{text}");
        }
    }

    #[test]
    fn a_pax_value_may_hold_newlines_and_cannot_smuggle_a_record() {
        let value = b"\x01\n11 path=x\n\x00";
        let mut record = b" SCHILY.xattr.security.capability=".to_vec();
        record.extend_from_slice(value);
        record.push(b'\n');
        let length = record.len() + 2;
        let mut data = length.to_string().into_bytes();
        data.extend(record);
        let pax = Pax::parse(&data).unwrap();
        assert_eq!(pax.path, None);
        assert_eq!(pax.xattrs, [(b"security.capability".to_vec(), value.to_vec())]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..3000), kind in any::<u8>(), fix in any::<bool>()) {
            let mut data = data;
            if fix && data.len() >= 512 {
                // A right checksum and size lead further in than random bytes would.
                let mut header = Header::new_gnu();
                header.set_path("x").unwrap();
                header.set_size((data.len() - 512) as u64);
                header.set_mode(0o644);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(0);
                header.set_entry_type(EntryType::new(kind));
                header.set_cksum();
                data[..512].copy_from_slice(header.as_bytes());
            }
            let mut reader = TarReader::new(&data[..]);
            while let Ok(Some(_)) = reader.next_entry() {}
        }
    }
}
