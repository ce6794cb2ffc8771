//! Bzip2 and xz beside what images are compressed with, within the same bounds.

use std::cell::Cell;
use std::io::{self, Chain, Cursor, Read};
use std::rc::Rc;

use bzip2::read::MultiBzDecoder;
use dozen_image::archive::{self, Decompressed, RATIO, allowance, begins_tar};
use lzma_rust2::XzReader;

/// What xz may take: its own `-9` wants 65 MiB to decompress (xz(1), "Preset options").
const XZ_MEMORY_KIB: u32 = 72 << 10;

type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// The plain bytes of a stream.
pub(super) enum Plain<R: Read> {
    /// As images have it.
    Image(Decompressed<Peeked<R>>),
    Bzip2(Box<MultiBzDecoder<Tallied<R>>>, Tally),
    Xz(Box<XzReader<Tallied<R>>>, Tally),
}

/// How much went in, and how much came out.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    read: Rc<Cell<u64>>,
    made: u64,
    /// How much may come out of so much.
    allowance: fn(u64) -> u64,
}

/// Counts what is read.
pub(super) struct Tallied<R> {
    source: Peeked<R>,
    read: Rc<Cell<u64>>,
}

/// Looks at the first bytes and decompresses accordingly; false if they cannot be those of an archive.
pub(super) fn decompress<R: Read>(source: R) -> io::Result<(Plain<R>, bool)> {
    decompress_within(source, allowance)
}

fn decompress_within<R: Read>(mut source: R, allowance: fn(u64) -> u64) -> io::Result<(Plain<R>, bool)> {
    let mut magic = Vec::new();
    source.by_ref().take(512).read_to_end(&mut magic)?;
    let is_tar = magic.is_empty() || begins_tar(&magic);
    let is = |prefix: &[u8]| !is_tar && magic.starts_with(prefix);
    let (is_bzip2, is_xz) = (is(b"BZh"), is(b"\xfd7zXZ\0"));
    let tally = Tally { read: Rc::default(), made: 0, allowance };
    let peeked = Cursor::new(magic).chain(source);
    if !is_bzip2 && !is_xz {
        let (compression, plain) = archive::decompress(peeked)?;
        return Ok((Plain::Image(plain), is_tar || compression != archive::Compression::None));
    }
    let tallied = Tallied { source: peeked, read: tally.read.clone() };
    let plain = match is_xz {
        true => Plain::Xz(Box::new(XzReader::new_mem_limit(tallied, true, XZ_MEMORY_KIB)), tally),
        false => Plain::Bzip2(Box::new(MultiBzDecoder::new(tallied)), tally),
    };
    Ok((plain, true))
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, tally) = match self {
            Self::Image(plain) => return plain.read(buffer),
            Self::Bzip2(plain, tally) => (plain.read(buffer), tally),
            Self::Xz(plain, tally) => (plain.read(buffer), tally),
        };
        // The decoders' own words for damaged input are many; one kind says whose fault it is.
        let read = read.map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory => {
                io::Error::new(io::ErrorKind::Unsupported, "xz dictionaries of more than 64 MiB are not built")
            }
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
            | io::ErrorKind::Other => io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the compressed data is damaged or cut short: {error}"),
            ),
            _ => error,
        })?;
        tally.made += read as u64;
        if tally.made > (tally.allowance)(tally.read.get()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it swells to more than {RATIO} times its compressed size; dozen takes that for an attack"),
            ));
        }
        Ok(read)
    }
}

impl<R: Read> Read for Tallied<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_swells_is_an_attack() {
        let zeros = vec![0; 1 << 20];
        let allowance = |read: u64| 100_000.max(read * RATIO);
        for (name, bytes) in crate::copy::compressed(&zeros) {
            if !["bzip2", "xz"].contains(&name) {
                continue;
            }
            let (mut plain, _) = decompress_within(bytes.as_slice(), allowance).unwrap();
            let error = io::copy(&mut plain, &mut io::sink()).unwrap_err();
            assert!(error.to_string().starts_with("it swells to more than 200 times"), "{name}: {error}");
            let (mut plain, _) = decompress(bytes.as_slice()).unwrap();
            assert_eq!(io::copy(&mut plain, &mut io::sink()).unwrap(), 1 << 20, "{name}");
        }
    }
}
