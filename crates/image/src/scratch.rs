//! Directories for what is not finished.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use crate::store::{Inner, delete};
use crate::{ImageError, tree};

/// See [`Inner::scratch`]. The descriptor is older than anything that is written on behalf of the operation.
pub(crate) struct Scratch(pub(crate) PathBuf, OwnedFd);

impl Scratch {
    /// Makes everything below the data root safe from a power cut, or says that something was lost since this scratch
    /// directory was made.
    ///
    /// One syncfs(2) before the rows are written, instead of marks of what is not synced yet: a row therefore always
    /// means whole files, at the price of one wait for the disk per load or commit. By a descriptor from before the
    /// first write: an error that somebody else has been told meanwhile, by a load at the same time perhaps, is not told
    /// to descriptors that are opened later (syncfs(2), ERRORS and VERSIONS; kernel: lib/errseq.c).
    pub(crate) fn sync(&self) -> Result<(), ImageError> {
        rustix::fs::syncfs(&self.1).map_err(ImageError::io("write to the disk what is in", self.0.display()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        delete(&self.0);
    }
}

impl Inner {
    /// A directory of one operation's own, deleted with the guard.
    pub(crate) fn scratch(&self) -> Result<Scratch, ImageError> {
        let path = self.unused_name();
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(ImageError::io("make directory", path.display()))?;
        match tree::open_root(&path) {
            Ok(descriptor) => Ok(Scratch(path, descriptor)),
            Err(error) => {
                delete(&path);
                Err(ImageError::io("open", path.display())(error))
            }
        }
    }
}
