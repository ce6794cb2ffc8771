//! An artifact that comes: its blobs, each hashed while it is written, in a scratch directory until the whole is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dozen_model::{Digest, Reference};
use sha2::{Digest as _, Sha256};

use super::document::ArtifactDocument;
use super::{Artifact, media_type};
use crate::ImageError;
use crate::failpoint::failpoint;
use crate::install::place_file;
use crate::scratch::Scratch;
use crate::store::{ImageStore, Inner};

/// Read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// See the module. What was staged goes with it, unless it was installed.
pub struct NewArtifact {
    inner: Arc<Inner>,
    scratch: Scratch,
    /// Where each lies, and its bytes.
    staged: Mutex<BTreeMap<Digest, (PathBuf, u64)>>,
    next: AtomicUsize,
}

/// A blob on its way.
#[derive(Debug)]
pub struct ArtifactBlob {
    file: File,
    path: PathBuf,
    hash: Sha256,
    size_bytes: u64,
    /// As much of its beginning as tells what it is.
    first: Vec<u8>,
}

/// What is done where the name leads to something already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameTaken {
    /// It stays.
    Refuse,
    /// It is replaced.
    Replace,
    /// It is replaced if it is still this one.
    ReplaceOnly(Digest),
}

impl std::fmt::Debug for NewArtifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewArtifact").finish_non_exhaustive()
    }
}

impl ImageStore {
    /// Begins with an artifact. Blocks.
    pub fn new_artifact(&self) -> Result<NewArtifact, ImageError> {
        let (inner, scratch) = (self.0.clone(), self.0.scratch()?);
        Ok(NewArtifact { inner, scratch, staged: Mutex::default(), next: AtomicUsize::new(0) })
    }
}

impl NewArtifact {
    /// A place for a blob. Blocks.
    pub fn blob(&self) -> Result<ArtifactBlob, ImageError> {
        let path = self.scratch.0.join(format!("b{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let file = File::create_new(&path).map_err(ImageError::io("make", path.display()))?;
        Ok(ArtifactBlob { file, path, hash: Sha256::new(), size_bytes: 0, first: Vec::new() })
    }

    /// Takes all that a reader gives. Blocks.
    pub fn read(&self, reader: &mut dyn Read) -> Result<ArtifactBlob, ImageError> {
        let mut blob = self.blob()?;
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            match reader.read(&mut buffer).map_err(ImageError::io("read", "a file of the artifact"))? {
                0 => return Ok(blob),
                read => blob.write(&buffer[..read])?,
            }
        }
    }

    /// Keeps a blob that is whole; gives its digest and bytes.
    pub fn keep(&self, blob: ArtifactBlob) -> (Digest, u64) {
        let (digest, size_bytes) = (Digest::from_sha256(blob.hash.finalize().into()), blob.size_bytes);
        self.lock().insert(digest.clone(), (blob.path, size_bytes));
        (digest, size_bytes)
    }

    /// Keeps a blob that has to have this digest and so many bytes.
    ///
    /// # Errors
    /// It is another one.
    pub fn keep_promised(&self, blob: ArtifactBlob, digest: &Digest, size_bytes: u64) -> Result<(), ImageError> {
        check_algorithm(digest)?;
        let found = self.keep(blob);
        if found != (digest.clone(), size_bytes) {
            let (found, came) = found;
            return Err(ImageError::Pull(format!(
                "{digest} is damaged: {came} of {size_bytes} bytes came, which have the digest {found}"
            )));
        }
        Ok(())
    }

    /// Takes a blob that is here; whether it is. Blocks.
    pub fn take_known(&self, digest: &Digest, size_bytes: u64) -> Result<bool, ImageError> {
        check_algorithm(digest)?;
        let Some(known) = self.inner.sound_blob(digest) else { return Ok(false) };
        let path = self.scratch.0.join(format!("k{}", self.next.fetch_add(1, Ordering::Relaxed)));
        // Another name for it: whoever removes the first meanwhile takes nothing from us.
        if std::fs::hard_link(&known, &path).is_err() || std::fs::metadata(&path).map_or(0, |it| it.len()) != size_bytes
        {
            return Ok(false);
        }
        self.lock().insert(digest.clone(), (path, size_bytes));
        Ok(true)
    }

    /// Gives it a name, with the manifest of all that was kept. Blocks.
    ///
    /// # Errors
    /// The manifest names what was not kept; the name is taken.
    pub fn install(&self, reference: Reference, manifest: &[u8], taken: &NameTaken) -> Result<Artifact, ImageError> {
        let document = ArtifactDocument::read(manifest)?;
        let mut blob = self.blob()?;
        blob.write(manifest)?;
        let (digest, _) = self.keep(blob);
        let mut blobs: BTreeSet<Digest> = document.blobs().map(|blob| blob.digest.clone()).collect();
        let staged = self.lock();
        if let Some(missing) = blobs.iter().find(|digest| !staged.contains_key(digest)) {
            return Err(ImageError::Absent(format!("{missing} did not come with the artifact")));
        }
        drop(staged);
        blobs.insert(digest.clone());
        let files_bytes = document.files_bytes();
        self.inner.install_artifact(self, Artifact { reference, digest, files_bytes, blobs }, taken)
    }

    /// Puts all in place that is needed and not there yet: `paths` are new, `blobs` are to have rows. The change lock is held.
    pub(super) fn place(
        &self,
        needed: &BTreeSet<Digest>,
        paths: &mut Vec<PathBuf>,
        blobs: &mut Vec<(Digest, u64)>,
    ) -> Result<(), ImageError> {
        for (digest, (path, size_bytes)) in self.lock().iter().filter(|(digest, _)| needed.contains(digest)) {
            let is_kept = {
                let state = self.inner.read_state();
                state.blobs.contains_key(digest) && !state.is_damaged(digest)
            };
            if !is_kept {
                place_file(path, self.inner.blob_path(digest), paths)?;
                failpoint("image.artifact.placed");
                self.inner.is_mended(&[digest]);
                blobs.push((digest.clone(), *size_bytes));
            }
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), ImageError> {
        self.scratch.sync()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, (PathBuf, u64)>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ArtifactBlob {
    /// The next bytes. Blocks.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.file.write_all(bytes).map_err(ImageError::io("write", self.path.display()))?;
        self.hash.update(bytes);
        self.size_bytes += bytes.len() as u64;
        let missing = media_type::SNIFFED_BYTES.saturating_sub(self.first.len()).min(bytes.len());
        self.first.extend_from_slice(&bytes[..missing]);
        Ok(())
    }

    /// What it looks like.
    pub fn media_type(&self) -> &'static str {
        media_type::sniff(&self.first)
    }
}

impl NameTaken {
    pub(super) fn check(&self, known: Option<&Artifact>, name: &Reference) -> Result<(), ImageError> {
        match (self, known) {
            (Self::Replace, _) | (Self::Refuse, None) => Ok(()),
            (Self::ReplaceOnly(digest), Some(known)) if known.digest == *digest => Ok(()),
            (Self::Refuse, Some(_)) => Err(ImageError::ArtifactExists(name.familiar())),
            (Self::ReplaceOnly(_), _) => {
                Err(ImageError::Conflict(format!("the artifact {} was changed meanwhile", name.familiar())))
            }
        }
    }
}

fn check_algorithm(digest: &Digest) -> Result<(), ImageError> {
    match digest.algorithm() {
        "sha256" => Ok(()),
        other => Err(ImageError::NotBuilt(format!("artifacts' blobs by {other} are not built yet: {digest}"))),
    }
}
