//! A container's root while it does not run, with what would be mounted in it: for who copies into it and out of it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{RootTree, attach, clone_tree, idmap, is_directory, part, propagation, set_attributes};
use crate::error::{Context, RuntimeError};
use crate::plan::Owner;
use crate::{id_map, overlay, sys};

/// What is seen in the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewedSource {
    /// A directory or file of the host's.
    Path(PathBuf),
    /// Directories of the host's above one another, the topmost first, that nobody writes to: two at least.
    Layers(Vec<PathBuf>),
}

/// Something that is seen in the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewedBind {
    /// On the host.
    pub source: ViewedSource,
    /// Only this of it, looked up as if it were the root.
    pub part: Option<PathBuf>,
    /// User and group that own in the container what the source's owner owns on disk.
    pub owner: (Option<u32>, Option<u32>),
    /// In the root; made if it is missing, as a start makes it.
    pub target: PathBuf,
    /// Nothing is written there.
    pub read_only: bool,
}

/// Detached, all set but for its place.
fn open(bind: &ViewedBind) -> Result<OwnedFd, RuntimeError> {
    let tree = match &bind.source {
        ViewedSource::Path(source) => part::clone_source(source, bind.part.as_deref(), true),
        ViewedSource::Layers(lower) => overlay::of_part(overlay::mount_read_only(lower)?, lower, bind.part.as_deref()),
    };
    let tree = tree.map_err(|error| super::at(error, &bind.target))?;
    sys::mount_setattr(&tree, true, propagation(libc::MS_PRIVATE)).context(|| "set a bind's propagation".to_owned())?;
    let status = rustix::fs::fstat(&tree).context(|| format!("look at {}", bind.target.display()))?;
    let owner = Owner { user: bind.owner.0, group: bind.owner.1 };
    if let Some(map) = owner.map(status.st_uid, status.st_gid) {
        idmap(&tree, true, &id_map::namespace_of(&map)?, &bind.target)?;
    }
    if bind.read_only {
        set_attributes(&tree, false, libc::MOUNT_ATTR_RDONLY, 0)?;
    }
    Ok(tree)
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
        let sources = binds.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let root = overlay::mount_in_own_namespace(lower, upper, work)?;
        let slash = rustix::fs::open("/", rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, 0.into());
        attach(&root, &slash.context(|| "open /".to_owned())?)?;
        let tree = RootTree { root, own: Default::default(), unsealed: Default::default(), pid_namespace: None };
        for (bind, source) in binds.iter().zip(&sources) {
            let directory = is_directory(source).context(|| format!("look at {}", bind.target.display()))?;
            let place = tree.make(&bind.target, directory)?;
            attach(source, &place)?;
        }
        if read_only {
            set_attributes(&tree.root, false, libc::MOUNT_ATTR_RDONLY, 0)?;
        }
        clone_tree(&tree.root, "".as_ref(), true).context(|| "take the container's root out".to_owned())
    })
}
