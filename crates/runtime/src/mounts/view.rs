//! A container's root while it does not run, with what would be mounted in it: for who copies into it and out of it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use super::{RootTree, attach, clone_tree, is_directory, propagation, set_attributes};
use crate::error::{Context, RuntimeError};
use crate::{overlay, sys};

/// A directory or file of the host's that is seen in the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewedBind {
    /// On the host.
    pub source: PathBuf,
    /// In the root; made if it is missing, as a start makes it.
    pub target: PathBuf,
    /// Nothing is written there.
    pub read_only: bool,
}

/// An overlay with binds in it, as a detached tree of mounts that no mount table shows: it is gone when the last
/// descriptor of it and in it is closed. `upper` must not be mounted anywhere else.
///
/// May be called in a process with many threads.
pub fn view(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    binds: &[ViewedBind],
    read_only: bool,
) -> Result<OwnedFd, RuntimeError> {
    overlay::with_own_mounts(|| {
        // Before the root lies over anything.
        let sources = binds.iter().map(|bind| {
            let failed = || format!("bind {} into the container's root", bind.source.display());
            clone_tree(CWD, bind.source.as_os_str(), true).context(failed)
        });
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        let root = overlay::mount_in_own_namespace(lower, upper, work)?;
        let slash = rustix::fs::open("/", rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, 0.into());
        attach(&root, &slash.context(|| "open /".to_owned())?)?;
        let tree = RootTree { root, own: Default::default(), unsealed: Default::default(), pid_namespace: None };
        for (bind, source) in binds.iter().zip(&sources) {
            let directory = is_directory(source).context(|| format!("look at {}", bind.source.display()))?;
            let place = tree.make(&bind.target, directory)?;
            let private = propagation(libc::MS_PRIVATE);
            sys::mount_setattr(source, true, private).context(|| "set a bind's propagation".to_owned())?;
            if bind.read_only {
                set_attributes(source, false, libc::MOUNT_ATTR_RDONLY, 0)?;
            }
            attach(source, &place)?;
        }
        if read_only {
            set_attributes(&tree.root, false, libc::MOUNT_ATTR_RDONLY, 0)?;
        }
        clone_tree(&tree.root, "".as_ref(), true).context(|| "take the container's root out".to_owned())
    })
}
