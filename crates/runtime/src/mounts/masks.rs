//! Paths that tell too much: masked, or read-only.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{RootTree, attach, clone_tree, is_directory, new_mount};
use crate::error::{Context, RuntimeError};
use crate::sys::{self, MountAttributes};

impl RootTree {
    /// Hides paths: files behind the null device, directories behind one empty, read-only tmpfs. What is not there
    /// needs no mask.
    pub(super) fn mask<'a>(&self, paths: impl Iterator<Item = &'a PathBuf>) -> Result<(), RuntimeError> {
        let (mut null, mut empty): (Option<OwnedFd>, Option<OwnedFd>) = (None, None);
        for path in paths {
            let place = match self.open_on_own(path, OFlags::PATH) {
                Ok(place) => place,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(errno) => return Err(RuntimeError::system(format!("mask {}", path.display()), errno)),
            };
            let context = || format!("mask {}", path.display());
            if !is_directory(&place).context(context)? {
                let null = match &null {
                    Some(null) => null,
                    None => null.insert(self.null_device(OFlags::PATH)?),
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

    pub(super) fn make_read_only<'a>(&self, paths: impl Iterator<Item = &'a PathBuf>) -> Result<(), RuntimeError> {
        for path in paths {
            let context = || format!("make {} read-only", path.display());
            let place = match self.open_on_own(path, OFlags::PATH) {
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
