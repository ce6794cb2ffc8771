//! Gzip and zstd, told by their first bytes, and a limit on how far they may swell.

use std::io::{self, BufReader, Chain, Cursor, Read};

use crate::tarball::begins_tar;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// By the first bytes of a stream.
    pub(crate) fn of(magic: &[u8]) -> io::Result<Self> {
        match magic {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            // RFC 8878, 3.1.1 "Magic_Number", and 3.1.2 for a skippable frame in front.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(not_built("xz")),
            [b'B', b'Z', b'h', ..] => Err(not_built("bzip2")),
            _ => Ok(Self::None),
        }
    }

    /// The media type of a layer that is compressed so (OCI image-spec, media-types.md).
    pub(crate) fn layer_media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// What may come out whatever went in.
const FREE_BYTES: u64 = 1 << 30;
/// Beyond that, how many bytes may come out for one that went in. Real layers stay below twenty; gzip cannot pass 1032,
/// zstd has no bound of its own.
pub const RATIO: u64 = 200;

/// Bytes that may be made of `compressed_bytes`.
pub fn allowance(compressed_bytes: u64) -> u64 {
    FREE_BYTES.max(compressed_bytes.saturating_mul(RATIO))
}

/// How far back zstd may look, as a power of two: 32 MiB, which is what its decoder then takes of memory. More than any
/// level below `--ultra` needs, and four times what RFC 8878 (3.1.1.1.2, "Window_Descriptor") wants supported.
const ZSTD_WINDOW_LOG: u32 = 25;

type Peeked<R> = BufReader<Chain<Cursor<Vec<u8>>, Counted<R>>>;

/// The plain bytes of a stream that may be compressed.
pub struct Decompressed<R: Read>(Decoder<R>);

enum Decoder<R: Read> {
    None(Peeked<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Peeked<R>>>, u64),
    Zstd(Box<zstd::stream::read::Decoder<'static, Peeked<R>>>, u64),
}

/// Looks at the first bytes and decompresses accordingly; unknown bytes are passed through, and so is a tar stream: the
/// name of its first entry may begin as anything.
pub fn decompress<R: Read>(mut source: R) -> io::Result<(Compression, Decompressed<R>)> {
    let mut magic = Vec::new();
    source.by_ref().take(512).read_to_end(&mut magic)?;
    let kind = if begins_tar(&magic) { Compression::None } else { Compression::of(&magic)? };
    let length = magic.len() as u64;
    let peeked = BufReader::with_capacity(64 * 1024, Cursor::new(magic).chain(Counted { source, read: length }));
    let decompressed = match kind {
        Compression::None => Decoder::None(peeked),
        Compression::Gzip => Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(peeked)), 0),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(peeked)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Decoder::Zstd(Box::new(decoder), 0)
        }
    };
    Ok((kind, Decompressed(decompressed)))
}

fn not_built(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("{name} compression is not built yet; compress it with gzip or zstd, or not at all"),
    )
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, consumed, made) = match &mut self.0 {
            Decoder::None(source) => return source.read(buffer),
            Decoder::Gzip(source, made) => (source.read(buffer), source.get_ref().get_ref().get_ref().1.read, made),
            Decoder::Zstd(source, made) => (source.read(buffer), source.get_ref().get_ref().get_ref().1.read, made),
        };
        // The decoders' own words for damaged input are many; one kind says whose fault it is.
        let read = read.map_err(|error| match error.kind() {
            // zstd's words (zstd_errors.h, ZSTD_error_frameParameter_windowTooLarge).
            io::ErrorKind::Other if error.to_string().contains("too much memory") => io::Error::new(
                io::ErrorKind::Unsupported,
                "zstd windows of more than 32 MiB are not built; compress it without --long and --ultra",
            ),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Other => io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the compressed data is damaged or cut short: {error}"),
            ),
            _ => error,
        })?;
        *made += read as u64;
        if *made > allowance(consumed) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it swells to more than {RATIO} times its compressed size; dozen takes that for an attack"),
            ));
        }
        Ok(read)
    }
}

/// Counts what is read.
pub(crate) struct Counted<R> {
    source: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}
