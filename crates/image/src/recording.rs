//! A layer's plain stream on its way to the extractor, and what is kept to give it again.
//!
//! What passes by [`Tap`] is recorded: contents of files by where the extractor puts them, all else as it is. A recipe
//! refers to paths, and a path leads to the same file for as long as nothing on it is taken away. So before the
//! extractor takes anything away (an entry that comes a second time, as something else), what has passed is made from the
//! recipe so far, while all of it is still there, and from then on the stream itself is kept, as a blob.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use flate2::Crc;

use crate::chunks::Pool;
use crate::recipe::{self, RecipeError};

/// What is kept of a stream beside its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nothing: its blob lies elsewhere.
    Nothing,
    /// At [`Recording::recipe`].
    Recipe {
        /// Of the recipe itself.
        size_bytes: u64,
    },
    /// At [`Recording::blob`].
    Blob,
}

/// What has been recorded of one stream.
pub(crate) struct Recording<'a> {
    root: BorrowedFd<'a>,
    paths: Option<Paths>,
    to: To,
    /// Bytes to come that lie in a file.
    content_bytes: u64,
    failed: Option<io::Error>,
}

/// Where recordings go.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) recipe: PathBuf,
    pub(crate) blob: PathBuf,
}

enum To {
    Nothing,
    Recipe(Box<recipe::Writer>),
    Blob(File),
}

impl<'a> Recording<'a> {
    /// Records what is unpacked below `root`. Without paths it records nothing.
    pub(crate) fn new(root: BorrowedFd<'a>, paths: Option<Paths>) -> io::Result<Self> {
        let to = match &paths {
            Some(paths) => To::Recipe(recipe::Writer::new(File::create_new(&paths.recipe)?)?.into()),
            None => To::Nothing,
        };
        Ok(Self { root, paths, to, content_bytes: 0, failed: None })
    }

    /// The next bytes of the stream are the content of a file, from this offset on.
    pub(crate) fn content(&mut self, path: &[u8], offset: u64, length: u64) -> io::Result<()> {
        match &mut self.to {
            To::Recipe(recipe) if length > 0 => {
                self.content_bytes = length;
                recipe.content(path, offset, length)
            }
            _ => Ok(()),
        }
    }

    /// To be called before anything is taken away that has been unpacked.
    pub(crate) fn keep_blob(&mut self) -> io::Result<()> {
        let (To::Recipe(_), Some(paths)) = (&self.to, &self.paths) else { return Ok(()) };
        let mut blob = File::create_new(&paths.blob)?;
        let To::Recipe(recipe) = std::mem::replace(&mut self.to, To::Nothing) else { return Ok(()) };
        recipe.finish()?;
        reproduce(&paths.recipe, self.root, |bytes| blob.write_all(bytes))?;
        std::fs::remove_file(&paths.recipe)?;
        self.to = To::Blob(blob);
        Ok(())
    }

    /// What went wrong with the recording itself, if it was that.
    pub(crate) fn failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// Ends it.
    pub(crate) fn finish(self) -> io::Result<Kept> {
        match self.to {
            To::Nothing => Ok(Kept::Nothing),
            To::Recipe(recipe) => recipe.finish().map(|size_bytes| Kept::Recipe { size_bytes }),
            To::Blob(_) => Ok(Kept::Blob),
        }
    }

    /// The next bytes of the stream; those of a content do not go beyond its end.
    pub(crate) fn passed(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.to {
            To::Nothing => {}
            To::Recipe(recipe) if self.content_bytes == 0 => recipe.bytes(bytes)?,
            To::Recipe(_) => self.content_bytes -= bytes.len() as u64,
            To::Blob(blob) => blob.write_all(bytes)?,
        }
        Ok(())
    }
}

/// A check sum of a stream and its length. It tells whether we have recorded rightly, and whether a disk gives what it was
/// given, for which it is enough: nobody has an interest here. The digest is compared with every save.
#[derive(Debug, Default)]
pub(crate) struct Sum(Crc, u64);

impl Sum {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
        self.1 += bytes.len() as u64;
    }

    pub(crate) fn finish(&self) -> (u32, u64) {
        (self.0.sum(), self.1)
    }

    /// Of what a recipe gives: the proof that nothing else need be kept, while it is all still in memory.
    pub(crate) fn of_recipe(recipe: &Path, root: BorrowedFd<'_>) -> io::Result<Self> {
        let mut sum = Self::default();
        reproduce(recipe, root, |bytes| {
            sum.update(bytes);
            Ok(())
        })?;
        Ok(sum)
    }
}

fn reproduce(recipe: &Path, root: BorrowedFd<'_>, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    recipe::reproduce(File::open(recipe)?, root, &Pool::default(), |chunk| take(chunk.bytes())).map_err(|error| {
        match error {
            RecipeError::Out(error) => error,
            RecipeError::Damaged(what) => io::Error::other(what),
        }
    })
}

/// A reader that records what is read from it.
pub(crate) struct Tap<'a, 'r, R> {
    pub(crate) source: R,
    pub(crate) recording: &'a RefCell<Recording<'r>>,
}

impl<R: Read> Read for Tap<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut recording = self.recording.borrow_mut();
        // One read does not go beyond the end of a content.
        let most = match recording.content_bytes {
            0 => buffer.len(),
            left => usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len()),
        };
        let read = self.source.read(&mut buffer[..most])?;
        if let Err(error) = recording.passed(&buffer[..read]) {
            recording.failed = Some(error);
            return Err(io::Error::other("it cannot be recorded"));
        }
        Ok(read)
    }
}
