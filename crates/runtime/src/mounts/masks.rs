//! Paths that tell too much: masked, or read-only.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::{RootTree, attach, clone_tree, is_directory, new_mount};
use crate::error::{Context, RuntimeError};
use crate::sys::{self, MountAttributes};

impl RootTree {
    /// Hides paths: files behind the null device, directories behind one empty, read-only tmpfs. What is not there
    /// needs no mask.
    pub(super) fn mask(&self, paths: &[PathBuf]) -> Result<(), RuntimeError> {
        let (mut null, mut empty): (Option<OwnedFd>, Option<OwnedFd>) = (None, None);
        for path in paths {
            let place = match self.open(path, OFlags::PATH) {
                Ok(place) => place,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(errno) => return Err(RuntimeError::system(format!("mask {}", path.display()), errno)),
            };
            let context = || format!("mask {}", path.display());
            if !is_directory(&place).context(context)? {
                let null = match &null {
                    Some(null) => null,
                    None => null.insert(self.null_device()?),
                };
                let tree = clone_tree(null, "".as_ref(), false).context(context)?;
                attach(&tree, &place)?;
            } else if let Some(empty) = &empty {
                // The first is in the tree by now, so that it can be cloned on older kernels too.
                let tree = clone_tree(empty, "".as_ref(), false).context(context)?;
                attach(&tree, &place)?;
            } else {
                let tree = new_mount("tmpfs", "tmpfs", &[], libc::MOUNT_ATTR_RDONLY)?;
                attach(&tree, &place)?;
                empty = Some(tree);
            }
        }
        Ok(())
    }

    /// The container's /dev/null, which must be it: an image or a neighbour on a volume may have put a link there
    /// (CVE-2025-31133).
    fn null_device(&self) -> Result<OwnedFd, RuntimeError> {
        let null = self
            .open(Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW)
            .context(|| "open /dev/null in the root".to_owned())?;
        let status = rustix::fs::fstat(&null).context(|| "examine /dev/null in the root".to_owned())?;
        let is_character = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice;
        if !is_character || status.st_rdev != rustix::fs::makedev(1, 3) {
            return Err(RuntimeError::Invalid("/dev/null in the root is not the null device".to_owned()));
        }
        Ok(null)
    }

    pub(super) fn make_read_only(&self, paths: &[PathBuf]) -> Result<(), RuntimeError> {
        for path in paths {
            let context = || format!("make {} read-only", path.display());
            let place = match self.open(path, OFlags::PATH) {
                Ok(place) => place,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(errno) => return Err(RuntimeError::system(context(), errno)),
            };
            let tree = clone_tree(&place, "".as_ref(), true).context(context)?;
            let attributes = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
            sys::mount_setattr(&tree, true, attributes).context(context)?;
            attach(&tree, &place)?;
        }
        Ok(())
    }
}
