//! A blob is read to see whether it is what its digest says: from the disk, past what the machine remembers of it.
//!
//! **What one reading says is not believed** if it says that something is wrong: it is read once more, another way. What both
//! find is so; where they differ nothing is known.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;

use dozen_model::Digest;
use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::Errno;

use super::blocking;
use super::bucket::{Bucket, BucketErrorKind};
use super::directory::{BlobFile, Directory};
use super::shelves::{Shelves, object_name};
use crate::hasher::{Algorithm, Hasher};
use crate::refusal::Refusal;
use crate::scrub::Pace;

/// So much is read at once.
const PIECE_BYTES: usize = 1 << 20;
/// Where a file is read past the page cache, memory and offsets have to be multiples of this (open(2), `O_DIRECT`): no block
/// of a disk is larger.
const ALIGNMENT: usize = 4096;

/// What a blob turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    /// It is something else: in words, what.
    Damaged(String),
    /// The disk says that it has lost it; which may pass.
    Unreadable(String),
    /// There is no such file or object; now.
    Missing,
    /// It could not be seen: nothing is known of it.
    Unknown(String),
}

/// What one reading has found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Content {
        length: u64,
        digest: Digest,
    },
    Missing,
    /// The disk says that it has lost it.
    Unreadable(String),
    Unknown(String),
}

/// `second`: asked for only where the first one found something wrong.
fn judge(blob: &Digest, size_bytes: u64, first: &Found, second: &Found) -> Verdict {
    match (first, second) {
        (_, Found::Unknown(why)) | (Found::Unknown(why), _) => Verdict::Unknown(why.clone()),
        (_, Found::Missing) | (Found::Missing, _) => Verdict::Missing,
        (Found::Unreadable(why), Found::Unreadable(_)) => Verdict::Unreadable(why.clone()),
        (Found::Content { length, digest }, same) if first == same => {
            if *length != size_bytes {
                Verdict::Damaged(format!("it has {length} bytes, the index says {size_bytes}"))
            } else if digest != blob {
                Verdict::Damaged(format!("its content has {digest}"))
            } else {
                Verdict::Right
            }
        }
        _ => Verdict::Unknown("it is read differently each time".to_owned()),
    }
}

impl Verdict {
    /// A sentence of what is wrong with it.
    pub(super) fn problem(self, blob: &Digest) -> Option<String> {
        match self {
            Self::Right => None,
            Self::Damaged(why) => Some(format!("the blob {blob} is damaged: {why}")),
            Self::Missing => Some(format!("the blob {blob} cannot be read: it is not there")),
            Self::Unreadable(why) | Self::Unknown(why) => Some(format!("the blob {blob} cannot be read: {why}")),
        }
    }
}

impl Shelves {
    /// Reads a blob and compares it with its digest; as fast as it comes without a pace.
    pub(super) async fn verify(
        &self,
        file: &BlobFile,
        size_bytes: u64,
        pace: Option<&Pace>,
    ) -> Result<Verdict, Refusal> {
        let first = self.read_all(file, true, pace).await?;
        if judge(&file.digest, size_bytes, &first, &first) == Verdict::Right {
            return Ok(Verdict::Right);
        }
        let second = self.read_all(file, false, pace).await?;
        Ok(judge(&file.digest, size_bytes, &first, &second))
    }

    async fn read_all(&self, file: &BlobFile, is_direct: bool, pace: Option<&Pace>) -> Result<Found, Refusal> {
        match self {
            Self::Directory(directory) => read_file(directory, file, is_direct, pace).await,
            Self::Bucket(bucket) => Ok(read_object(bucket, file, pace).await),
        }
    }
}

async fn read_object(bucket: &Arc<dyn Bucket>, file: &BlobFile, pace: Option<&Pace>) -> Found {
    let mut pieces = match bucket.read(&object_name(file), None).await {
        Ok(pieces) => pieces,
        Err(error) if error.kind == BucketErrorKind::Missing => return Found::Missing,
        Err(error) => return Found::Unknown(error.to_string()),
    };
    let (mut hasher, mut length) = (Hasher::new(Algorithm::of(&file.digest)), 0);
    while let Some(piece) = pieces.recv().await {
        match piece {
            Err(error) => return Found::Unknown(error.to_string()),
            Ok(piece) => {
                length += piece.len() as u64;
                // Hashing is as fast as most networks.
                hasher.update(&piece);
                if let Some(pace) = pace {
                    pace.rest_after(piece.len() as u64).await;
                }
            }
        }
    }
    Found::Content { length, digest: hasher.digest() }
}

async fn read_file(
    directory: &Directory,
    file: &BlobFile,
    is_direct: bool,
    pace: Option<&Pace>,
) -> Result<Found, Refusal> {
    let (directory, blob) = (directory.clone(), file.clone());
    let opened = blocking(move || Ok(Reader::open(&directory, &blob, is_direct))).await?;
    let mut reader = match opened {
        Ok(reader) => reader,
        Err(error) => return Ok(failed(&error)),
    };
    loop {
        let read = blocking(move || {
            let read = reader.read();
            Ok((reader, read))
        });
        let (same, read) = read.await?;
        reader = same;
        match read {
            Err(error) => return Ok(failed(&error)),
            Ok(0) => return Ok(Found::Content { length: reader.offset, digest: reader.hasher.digest() }),
            Ok(count) => {
                if let Some(pace) = pace {
                    pace.rest_after(count as u64).await;
                }
            }
        }
    }
}

fn failed(error: &io::Error) -> Found {
    // What disks and file systems say of bytes that are gone: EIO; EBADMSG and EUCLEAN of those that have checksums.
    let is_gone = [Errno::IO, Errno::BADMSG, Errno::UCLEAN]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    match error.kind() {
        io::ErrorKind::NotFound => Found::Missing,
        _ if is_gone => Found::Unreadable(error.to_string()),
        _ => Found::Unknown(error.to_string()),
    }
}

/// A file and what is known of it so far.
struct Reader {
    directory: Directory,
    blob: BlobFile,
    file: File,
    is_direct: bool,
    offset: u64,
    hasher: Hasher,
    /// Longer than a piece, so that one lies in it as it has to.
    buffer: Vec<u8>,
}

impl Reader {
    fn open(directory: &Directory, blob: &BlobFile, is_direct: bool) -> io::Result<Self> {
        let path = directory.blob(blob);
        let flags = OFlags::DIRECT.bits().cast_signed();
        let direct = is_direct.then(|| OpenOptions::new().read(true).custom_flags(flags).open(&path));
        let (file, is_direct) = match direct {
            Some(Ok(file)) => (file, true),
            // Not every file system can do it.
            Some(Err(_)) | None => (directory.open_blob(blob)?, false),
        };
        if !is_direct {
            // What is remembered of it is forgotten, unless the file system cannot.
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
        let hasher = Hasher::new(Algorithm::of(&blob.digest));
        let buffer = vec![0; PIECE_BYTES + ALIGNMENT];
        let (directory, blob) = (directory.clone(), blob.clone());
        Ok(Self { directory, blob, file, is_direct, offset: 0, hasher, buffer })
    }

    /// The next piece: how long it is; 0 at the end.
    fn read(&mut self) -> io::Result<usize> {
        let start = self.buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        loop {
            let piece = &mut self.buffer[start..start + PIECE_BYTES];
            match self.file.read_at(piece, self.offset) {
                Ok(count) => {
                    self.hasher.update(&piece[..count]);
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.is_direct && error.kind() == io::ErrorKind::InvalidInput => {
                    (self.file, self.is_direct) = (self.directory.open_blob(&self.blob)?, false);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_believed_when_it_is_seen_twice() {
        let [blob, other, third] = [1, 2, 3].map(|byte| Digest::from_sha256([byte; 32]));
        let content = |length, digest: &Digest| Found::Content { length, digest: digest.clone() };
        let (right, wrong, short) = (content(9, &blob), content(9, &other), content(5, &other));
        let (gone, unread) = (Found::Unreadable("EIO".to_owned()), Found::Unknown("busy".to_owned()));
        for (first, second, verdict) in [
            (&right, &right, "right"),
            (&wrong, &wrong, "damaged: its content has"),
            (&short, &short, "damaged: it has 5 bytes, the index says 9"),
            (&gone, &gone, "unreadable: EIO"),
            (&wrong, &right, "unknown: it is read differently"),
            (&wrong, &content(9, &third), "unknown: it is read differently"),
            (&gone, &right, "unknown: it is read differently"),
            (&gone, &wrong, "unknown: it is read differently"),
            (&wrong, &unread, "unknown: busy"),
            (&unread, &wrong, "unknown: busy"),
            (&unread, &right, "unknown: busy"),
            (&wrong, &Found::Missing, "missing"),
            (&Found::Missing, &Found::Missing, "missing"),
            (&Found::Missing, &unread, "unknown: busy"),
        ] {
            let told = match judge(&blob, 9, first, second) {
                Verdict::Right => "right".to_owned(),
                Verdict::Damaged(why) => format!("damaged: {why}"),
                Verdict::Unreadable(why) => format!("unreadable: {why}"),
                Verdict::Missing => "missing".to_owned(),
                Verdict::Unknown(why) => format!("unknown: {why}"),
            };
            assert!(told.starts_with(verdict), "{first:?} {second:?}: {told}");
        }
    }

    /// Lengths around those that reading past the page cache has to do with.
    #[tokio::test]
    async fn a_file_is_the_same_by_either_way() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        for length in [0, 1, ALIGNMENT - 1, ALIGNMENT, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 4097] {
            let content: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let id = crate::name::UploadId::random();
            let file = directory.make_upload(&id).unwrap();
            directory.append(&id, &file, 0, &content).unwrap();
            let digest = Hasher::of(Algorithm::Sha256, &content);
            let blob = directory.place(&id, &file, &digest).unwrap();
            for is_direct in [true, false] {
                let found = read_file(&directory, &blob, is_direct, None).await.unwrap();
                assert_eq!(found, Found::Content { length: length as u64, digest: digest.clone() }, "{is_direct}");
            }
            let shelves = Shelves::Directory(directory.clone());
            assert_eq!(shelves.verify(&blob, length as u64, None).await.unwrap(), Verdict::Right);
            let longer = shelves.verify(&blob, length as u64 + 1, None).await.unwrap();
            assert!(matches!(longer, Verdict::Damaged(_)), "{longer:?}");
        }
        let nowhere = BlobFile { digest: Digest::from_sha256([0; 32]), upload: crate::name::UploadId::random() };
        let shelves = Shelves::Directory(directory);
        assert_eq!(shelves.verify(&nowhere, 0, None).await.unwrap(), Verdict::Missing);
    }
}
