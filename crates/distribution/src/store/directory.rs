//! The files of a store: uploads that grow, and blobs that never change. Blobs may lie elsewhere
//! (`shelves.rs`); uploads are files here in any case.
//!
//! ```text
//! uploads/ID                      what has come of an upload
//! blobs/sha256/0a/0a3f….ID        a blob; ID is that of the upload that brought it
//! ```
//!
//! **A file's name is never used twice**: a blob that is deleted and uploaded again is another file. So whoever removes a
//! file whose row is gone removes no other, and uploads and the collector need not wait for each other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dozen_model::Digest;

use crate::failpoint::failpoint;
use crate::name::UploadId;
use crate::refusal::Refusal;

/// So much of a file is read at once where it is hashed again.
const READ_BYTES: usize = 256 << 10;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    root: PathBuf,
}

/// A file of a blob's: digest and the upload that brought it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BlobFile {
    pub(crate) digest: Digest,
    pub(crate) upload: UploadId,
}

impl Directory {
    /// Makes what is missing of it.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let directory = Self { root: root.to_owned() };
        std::fs::create_dir_all(root.join("uploads"))?;
        for algorithm in ["sha256", "sha512"] {
            for byte in 0..=u8::MAX {
                std::fs::create_dir_all(root.join("blobs").join(algorithm).join(format!("{byte:02x}")))?;
            }
            sync_directory(&root.join("blobs").join(algorithm))?;
        }
        sync_directory(&root.join("blobs"))?;
        sync_directory(root)?;
        Ok(directory)
    }

    /// For uploads alone: blobs lie elsewhere.
    pub(crate) fn open_spool(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root.join("uploads"))?;
        Ok(Self { root: root.to_owned() })
    }

    pub(crate) fn upload(&self, id: &UploadId) -> PathBuf {
        self.root.join("uploads").join(id.as_str())
    }

    pub(crate) fn blob(&self, file: &BlobFile) -> PathBuf {
        let name = format!("{}.{}", file.digest.hex(), file.upload);
        self.shelf(&file.digest).join(name)
    }

    /// For a file that is needed for a moment.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    fn shelf(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm()).join(&digest.hex()[..2])
    }

    /// Begins an upload.
    pub(crate) fn make_upload(&self, id: &UploadId) -> Result<File, Refusal> {
        let path = self.upload(id);
        let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = made.map_err(|error| Refusal::of_disk("begin", &path, &error))?;
        failpoint("upload.made");
        Ok(file)
    }

    /// Goes on with one of an earlier server.
    pub(crate) fn open_upload(&self, id: &UploadId) -> Result<File, Refusal> {
        let path = self.upload(id);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        opened.map_err(|error| Refusal::of_disk("open", &path, &error))
    }

    /// Writes further bytes. What of them was written when it fails is taken back.
    pub(crate) fn append(&self, id: &UploadId, file: &File, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        file.write_all_at(bytes, offset).map_err(|error| {
            let _ = file.set_len(offset);
            Refusal::of_disk("write", &self.upload(id), &error)
        })?;
        failpoint("upload.appended");
        Ok(())
    }

    /// Makes an upload the blob of this digest, which whoever asks has made sure of. Durable when it returns.
    pub(crate) fn place(&self, id: &UploadId, file: &File, digest: &Digest) -> Result<BlobFile, Refusal> {
        let from = self.upload(id);
        file.sync_data().map_err(|error| Refusal::of_disk("sync", &from, &error))?;
        failpoint("blob.synced");
        let blob = BlobFile { digest: digest.clone(), upload: id.clone() };
        let to = self.blob(&blob);
        std::fs::rename(&from, &to).map_err(|error| Refusal::of_disk("place", &to, &error))?;
        let shelf = self.shelf(digest);
        sync_directory(&shelf).map_err(|error| Refusal::of_disk("sync", &shelf, &error))?;
        failpoint("blob.placed");
        Ok(blob)
    }

    /// Of a blob, for whoever reads it.
    pub(crate) fn open_blob(&self, file: &BlobFile) -> io::Result<File> {
        File::open(self.blob(file))
    }

    /// It is gone afterwards, if it was there.
    pub(crate) fn remove_upload(&self, id: &UploadId) {
        remove(&self.upload(id));
    }

    /// It is gone afterwards, if it was there. Its row has to be gone before.
    pub(crate) fn remove_blob(&self, file: &BlobFile) {
        remove(&self.blob(file));
    }

    /// All uploads with their lengths. Files that are none of ours are left out, and left alone.
    pub(crate) fn uploads(&self) -> io::Result<Vec<(UploadId, u64)>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(self.root.join("uploads"))? {
            let entry = entry?;
            if let Some(Ok(id)) = entry.file_name().to_str().map(str::parse) {
                all.push((id, entry.metadata()?.len()));
            }
        }
        Ok(all)
    }

    /// Calls `each` with the files of all blobs.
    pub(crate) fn for_each_blob(&self, mut each: impl FnMut(BlobFile)) -> io::Result<()> {
        for algorithm in ["sha256", "sha512"] {
            for byte in 0..=u8::MAX {
                let shelf = self.root.join("blobs").join(algorithm).join(format!("{byte:02x}"));
                for entry in std::fs::read_dir(shelf)? {
                    if let Some(file) = entry?.file_name().to_str().and_then(|name| blob_file(algorithm, name)) {
                        each(file);
                    }
                }
            }
        }
        Ok(())
    }
}

pub(super) fn blob_file(algorithm: &str, name: &str) -> Option<BlobFile> {
    let (digits, upload) = name.split_once('.')?;
    Some(BlobFile { digest: format!("{algorithm}:{digits}").parse().ok()?, upload: upload.parse().ok()? })
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            // The next server tries again.
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
        _ => {}
    }
}

/// Reads a file from its beginning, piece by piece.
pub(crate) fn read_all(file: &File, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
    let (mut buffer, mut offset) = (vec![0; READ_BYTES], 0);
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(0) => return Ok(offset),
            Ok(count) => {
                each(&buffer[..count]);
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hasher::{Algorithm, Hasher};

    #[test]
    fn an_upload_becomes_a_blob_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        let id = UploadId::random();
        let file = directory.make_upload(&id).unwrap();
        directory.append(&id, &file, 0, b"he").unwrap();
        directory.append(&id, &file, 2, b"llo").unwrap();
        assert_eq!(directory.uploads().unwrap(), [(id.clone(), 5)]);
        let digest = Hasher::of(Algorithm::Sha512, b"hello");
        let blob = directory.place(&id, &file, &digest).unwrap();
        let mut all = Vec::new();
        directory.for_each_blob(|file| all.push(file)).unwrap();
        assert_eq!((all.as_slice(), directory.uploads().unwrap().len()), ([blob.clone()].as_slice(), 0));
        let mut text: Vec<u8> = Vec::new();
        assert_eq!(read_all(&directory.open_blob(&blob).unwrap(), |bytes| text.extend(bytes)).unwrap(), 5);
        assert_eq!(text, b"hello");
        directory.remove_blob(&blob);
        directory.remove_blob(&blob);
        assert!(directory.open_blob(&blob).is_err());
    }

    #[test]
    fn foreign_files_are_nobodys() {
        for name in ["", "x", ".id", "0a.0123456789abcdef0123456789abcdef", "lost+found"] {
            assert_eq!(blob_file("sha256", name), None, "{name}");
        }
    }
}
