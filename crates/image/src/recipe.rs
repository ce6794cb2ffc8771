//! A layer's recipe: what makes its plain tar stream again, to the byte, of the files that lie unpacked.
//!
//! It holds everything of the stream but the contents of files: headers and their order, long names and attributes,
//! padding, what stands after the end of the archive. All of that is small and much alike, so that zstd leaves some
//! ten bytes of an entry. In the place of a file's content stands where it lies: the path below the layer's directory, the
//! offset in the file (a sparse file is in pieces), and the length.
//!
//! Compressed with zstd lie, after [`MAGIC`], steps one after the other. A number is a LEB128 varint.
//! ```text
//! step    = (length << 1) bytes                          these bytes themselves; of length 0: the end
//!         | (length << 1 | 1) offset path-length path    so many bytes of a file; without a path: of the same file again
//! ```
//! The files of a layer are written once and never again, by nobody: containers see them through an overlay. A recipe
//! is therefore good for as long as no entry of its own layer takes another one's place; see [`crate::recording`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::chunks::{Chunk, Pool};
use crate::names::shown;
use crate::tree;

const MAGIC: &[u8] = b"dozen recipe 1\n";
const ZSTD_LEVEL: i32 = 3;
/// Bytes of the stream's own that are gathered to one step.
const GATHERED_BYTES: usize = 64 * 1024;
/// NONBLOCK and NOCTTY: whatever a damaged store has in the file's place, opening it waits for nobody.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Why a layer could not be made again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecipeError {
    /// The recipe or a file is not what it was.
    #[error("{0}")]
    Damaged(String),
    /// Whoever takes the stream did not.
    #[error("the stream cannot be passed on")]
    Out(io::Error),
}

/// Writes a recipe.
pub(crate) struct Writer {
    out: zstd::stream::write::Encoder<'static, File>,
    /// The stream's own bytes that are not written yet.
    gathered: Vec<u8>,
    path: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let mut out = zstd::stream::write::Encoder::new(file, ZSTD_LEVEL)?;
        out.write_all(MAGIC)?;
        Ok(Self { out, gathered: Vec::new(), path: Vec::new() })
    }

    /// The stream goes on with these bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED_BYTES { self.write_gathered() } else { Ok(()) }
    }

    /// The stream goes on with what lies in this file.
    pub(crate) fn content(&mut self, path: &[u8], offset: u64, length: u64) -> io::Result<()> {
        self.write_gathered()?;
        let path_again = if path == self.path { &[] } else { path };
        let mut step = Vec::with_capacity(path_again.len() + 30);
        number(&mut step, u128::from(length) << 1 | 1);
        number(&mut step, offset.into());
        number(&mut step, path_again.len() as u128);
        step.extend_from_slice(path_again);
        self.path = path.to_vec();
        self.out.write_all(&step)
    }

    /// Ends it; gives its size.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        self.write_gathered()?;
        self.out.write_all(&[0])?;
        Ok(self.out.finish()?.metadata()?.len())
    }

    fn write_gathered(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut step = Vec::with_capacity(10);
        number(&mut step, (self.gathered.len() as u128) << 1);
        self.out.write_all(&step)?;
        self.out.write_all(&self.gathered)?;
        self.gathered.clear();
        Ok(())
    }
}

/// Makes the plain stream again of a recipe and the layer's directory, and passes it on in chunks, all but the last full.
pub(crate) fn reproduce(
    recipe: File,
    root: BorrowedFd<'_>,
    pool: &Pool,
    pass: impl FnMut(Chunk) -> io::Result<()>,
) -> Result<(), RecipeError> {
    let mut steps = zstd::stream::read::Decoder::new(recipe).map(BufReader::new).map_err(unreadable)?;
    let mut magic = [0; MAGIC.len()];
    steps.read_exact(&mut magic).map_err(unreadable)?;
    if magic != MAGIC {
        return Err(RecipeError::Damaged("the recipe is none that this dozen knows".into()));
    }
    let mut out = Out { chunk: pool.chunk(), pool, pass };
    let mut files = Files { root, parent: None, open: None };
    loop {
        let step = read_number(&mut steps)?;
        let length = u64::try_from(step >> 1).map_err(|_| malformed())?;
        match step & 1 {
            0 if length == 0 => break,
            0 => {
                let mut own = steps.by_ref().take(length);
                if out.copy(|chunk| chunk.read_from(&mut own).map_err(unreadable))? != length {
                    return Err(malformed());
                }
            }
            _ => {
                let offset = u64::try_from(read_number(&mut steps)?).map_err(|_| malformed())?;
                let path_length = usize::try_from(read_number(&mut steps)?).map_err(|_| malformed())?;
                if path_length > tree::PATH_LIMIT {
                    return Err(malformed());
                }
                let mut path = vec![0; path_length];
                steps.read_exact(&mut path).map_err(unreadable)?;
                files.copy(&path, offset, length, &mut out)?;
            }
        }
    }
    if !steps.fill_buf().map_err(unreadable)?.is_empty() {
        return Err(malformed());
    }
    out.flush()
}

/// The stream on its way out.
struct Out<'a, F> {
    chunk: Chunk,
    pool: &'a Pool,
    pass: F,
}

impl<F: FnMut(Chunk) -> io::Result<()>> Out<'_, F> {
    /// Takes what `read` puts into chunks until it puts nothing; how much that was.
    fn copy(&mut self, mut read: impl FnMut(&mut Chunk) -> Result<usize, RecipeError>) -> Result<u64, RecipeError> {
        let mut copied = 0;
        loop {
            if self.chunk.is_full() {
                self.flush()?;
            }
            match read(&mut self.chunk)? {
                0 => return Ok(copied),
                read => copied += read as u64,
            }
        }
    }

    fn flush(&mut self) -> Result<(), RecipeError> {
        let full = std::mem::replace(&mut self.chunk, self.pool.chunk());
        if full.bytes().is_empty() { Ok(()) } else { (self.pass)(full).map_err(RecipeError::Out) }
    }
}

/// The files that are read from.
struct Files<'a> {
    root: BorrowedFd<'a>,
    /// The directory of the file before: archives come sorted, so it is mostly that of the next one too.
    parent: Option<(Vec<u8>, OwnedFd)>,
    open: Option<(Vec<u8>, File)>,
}

impl Files<'_> {
    fn copy<F: FnMut(Chunk) -> io::Result<()>>(
        &mut self,
        path: &[u8],
        mut offset: u64,
        length: u64,
        out: &mut Out<'_, F>,
    ) -> Result<(), RecipeError> {
        if !path.is_empty() {
            let file = self.find(path).map_err(|error| lost(path, error.into()))?;
            self.open = Some((path.to_vec(), file));
        }
        let Some((path, file)) = &self.open else { return Err(malformed()) };
        let end = offset.checked_add(length).ok_or_else(malformed)?;
        out.copy(|chunk| {
            let read = chunk.read_from(At { file, offset, end }).map_err(|error| lost(path, error))?;
            offset += read as u64;
            Ok(read)
        })?;
        if offset == end { Ok(()) } else { Err(lost(path, io::ErrorKind::UnexpectedEof.into())) }
    }

    /// Opens a file as it was written: beneath the layer's root, links of the layer's own on the way resolved in it,
    /// the file itself no link.
    fn find(&mut self, path: &[u8]) -> Result<File, Errno> {
        let (above, name) = tree::split(path);
        let parent = match self.parent.take() {
            Some((cached, parent)) if cached == above => parent,
            _ => tree::open_in_root(self.root, above, tree::DIRECTORY)?,
        };
        let file = tree::open_no_links(parent.as_fd(), name, READ);
        self.parent = Some((above.to_vec(), parent));
        file.map(File::from)
    }
}

/// A part of a file as a reader, of one read.
struct At<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX).min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        Ok(rustix::io::retry_on_intr(|| rustix::io::pread(self.file, &mut buffer[..length], self.offset))?)
    }
}

fn number(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// At most 65 bits: a length and the bit below it.
fn read_number(source: &mut impl Read) -> Result<u128, RecipeError> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let mut byte = [0];
        source.read_exact(&mut byte).map_err(unreadable)?;
        value |= u128::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(value);
        }
    }
    Err(malformed())
}

fn malformed() -> RecipeError {
    RecipeError::Damaged("the recipe is malformed".into())
}

fn unreadable(error: io::Error) -> RecipeError {
    RecipeError::Damaged(format!("the recipe cannot be read: {error}"))
}

fn lost(path: &[u8], error: io::Error) -> RecipeError {
    let shown = shown(path);
    RecipeError::Damaged(format!("the file {shown:?} of the layer cannot be read as it was written: {error}"))
}

#[cfg(test)]
pub(crate) mod tests;
