//! Mounts that the parent makes, detached, and the child only moves to their places.
//!
//! Who is born in a user namespace is nobody on the host: bound directories may be closed to it, its copy of the host's
//! mounts is locked (mount_namespaces(7), "Restrictions on mount namespaces"), and owners are not its to change. A
//! container without user namespace and without options that need it brings nothing, and nothing is done here.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{bind_failed, clone_root, dress_bind, joined, part, propagation};
use crate::Root;
use crate::error::{Context, RuntimeError};
use crate::plan::{MountKind, Plan, PlannedMount};
use crate::sys::{self, MountAttributes};
use crate::{id_map, namespace};

/// Of statfs(2).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// What the parent has made, before it clones.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    /// The container's root.
    pub(super) root: Option<OwnedFd>,
    /// For each mount of the plan, or empty.
    mounts: Vec<Option<BroughtMount>>,
    /// For each device of the plan, or empty.
    devices: Vec<Option<OwnedFd>>,
}

/// One of them.
#[derive(Debug)]
pub(super) enum BroughtMount {
    /// A detached mount, all set but for its place.
    Tree(OwnedFd),
    /// A link, to be made anew.
    Link(PathBuf),
}

impl Brought {
    /// An overlay as root of a container with a user namespace is not here: see [`Brought::set_root`].
    /// `mounts`: the mount namespace that is joined, whose names the root and what is bound are then given by.
    pub(crate) fn new(root: &Root, plan: &Plan, mounts: Option<BorrowedFd<'_>>) -> Result<Self, RuntimeError> {
        let root = match (root, mounts) {
            (Root::Directory(path), Some(mounts)) => Some(joined::clone_root(mounts, path)?),
            (Root::Directory(path), None) if plan.user_namespace.is_some() => Some(clone_root(path)?),
            _ => None,
        };
        let devices = super::nodes::make(plan)?;
        if !plan.mounts.iter().any(|mount| mount.is_brought(plan)) {
            return Ok(Self { root, mounts: Vec::new(), devices });
        }
        let bring = |mount: &PlannedMount| match mount.is_brought(plan) && !shows_others(mount, plan)? {
            true => bring(mount, plan, mounts).map(Some).map_err(|error| super::at(error, &mount.target)),
            false => Ok(None),
        };
        Ok(Self { root, mounts: plan.mounts.iter().map(bring).collect::<Result<_, _>>()?, devices })
    }

    /// By number, for who closes all else.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let tree = |mount: &BroughtMount| match mount {
            BroughtMount::Tree(tree) => Some(tree.as_raw_fd()),
            BroughtMount::Link(_) => None,
        };
        let trees = self.mounts.iter().flatten().filter_map(tree);
        let devices = self.devices.iter().flatten().map(AsRawFd::as_raw_fd);
        self.root.iter().map(AsRawFd::as_raw_fd).chain(trees).chain(devices).collect()
    }

    /// Files get the owners that the container's own namespace gives them, where that is asked for. The child has the
    /// same mounts, so that it need not be told.
    pub(crate) fn map_to(&self, user_namespace: &OwnedFd, plan: &Plan) -> Result<(), RuntimeError> {
        for (mount, brought) in plan.mounts.iter().zip(&self.mounts) {
            if let (Some(map), Some(BroughtMount::Tree(tree))) = (&mount.id_map, brought)
                && map.own.is_none()
            {
                idmap(tree, map.below, user_namespace).map_err(|error| super::at(error, &mount.target))?;
            }
        }
        Ok(())
    }

    /// The root, when it comes later.
    pub(crate) fn set_root(&mut self, root: OwnedFd) {
        self.root = Some(root);
    }

    /// The child takes what was brought for a mount.
    pub(super) fn take(&mut self, index: usize) -> Option<BroughtMount> {
        self.mounts.get_mut(index).and_then(Option::take)
    }

    /// The same for the devices.
    pub(super) fn take_devices(&mut self) -> Vec<Option<OwnedFd>> {
        std::mem::take(&mut self.devices)
    }
}

fn bring(mount: &PlannedMount, plan: &Plan, mounts: Option<BorrowedFd<'_>>) -> Result<BroughtMount, RuntimeError> {
    let other = mount.namespace.as_ref().map(|path| namespace::open(path, libc::CLONE_NEWNS)).transpose()?;
    let mounts = other.as_ref().map(AsFd::as_fd).or(mounts);
    let (source, recursive, mounts) = match &mount.kind {
        MountKind::Bind { source, copy_link: true, .. } if let Some(link) = read_link(source, mounts)? => {
            return Ok(BroughtMount::Link(link));
        }
        MountKind::Bind { source, recursive, .. } => (source.as_path(), *recursive, mounts),
        // In place of what the kernel may refuse to make anew: the host's, whoever is joined.
        _ => (Path::new(if mount.is_kind("proc") { "/proc" } else { "/sys" }), true, None),
    };
    let tree = match mounts {
        Some(mounts) => joined::clone_source(mounts, source, mount.part.as_deref(), recursive)?,
        None => part::clone_source(source, mount.part.as_deref(), recursive)?,
    };
    if mount.namespace.is_some() {
        // Whose namespace it is may have put there whatever it has.
        let status = rustix::fs::fstatfs(&tree).context(|| format!("examine {}", source.display()))?;
        if status.f_type != TMPFS_MAGIC {
            return Err(RuntimeError::Conflict(format!("{} of the other container is no tmpfs", source.display())));
        }
    }
    // The host's own mounts were cloned, not a copy that a mount namespace has of them: nothing goes back to them, least
    // of all from root of a user namespace, whom the kernel would not let.
    if plan.user_namespace.is_some() || plan.root_propagation != libc::MS_SHARED {
        sys::mount_setattr(&tree, true, propagation(libc::MS_SLAVE)).context(|| "make it a slave".to_owned())?;
    }
    dress_bind(&tree, mount, recursive)?;
    if let Some(map) = &mount.id_map
        && let Some(own) = &map.own
    {
        idmap(&tree, map.below, &id_map::namespace_of(own)?)?;
    }
    if let Some(owner) = mount.owner {
        // By descriptor: this is what is mounted, whatever has its name by now.
        let status = rustix::fs::fstat(&tree).context(|| format!("examine {}", source.display()))?;
        if let Some(map) = owner.map(status.st_uid, status.st_gid) {
            idmap(&tree, recursive, &id_map::namespace_of(&map)?)?;
        }
    }
    Ok(BroughtMount::Tree(tree))
}

/// A procfs shows a pid namespace that is joined, and not the host's: the host's procfs would show what is nobody's there.
fn shows_others(mount: &PlannedMount, plan: &Plan) -> Result<bool, RuntimeError> {
    let joined = plan.join.iter().find(|(_, kind)| *kind == libc::CLONE_NEWPID && mount.is_kind("proc"));
    let Some((path, kind)) = joined else { return Ok(false) };
    let is_host = namespace::is_that_of(namespace::open(path, *kind)?, "/proc/self/ns/pid");
    is_host.map(|is_host| !is_host).context(|| "examine the pid namespace".to_owned())
}

/// Where a link leads, `None` if it is none.
fn read_link(path: &Path, mounts: Option<BorrowedFd<'_>>) -> Result<Option<PathBuf>, RuntimeError> {
    if let Some(mounts) = mounts {
        return joined::read_link(mounts, path);
    }
    match std::fs::read_link(path) {
        Ok(target) => Ok(Some(target)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        Err(error) => Err(bind_failed(path, Errno::from_io_error(&error).unwrap_or(Errno::IO))),
    }
}

/// MOUNT_ATTR_IDMAP of mount_setattr(2), only for a mount that nobody has used yet.
pub(crate) fn idmap(tree: &OwnedFd, below: bool, user_namespace: &OwnedFd) -> Result<(), RuntimeError> {
    let attributes = MountAttributes {
        set: libc::MOUNT_ATTR_IDMAP,
        user_namespace: user_namespace.as_raw_fd() as u64,
        ..MountAttributes::default()
    };
    match sys::mount_setattr(tree, below, attributes) {
        Err(Errno::INVAL) => Err(RuntimeError::Invalid("its file system cannot be idmapped by this kernel".to_owned())),
        result => result.context(|| "idmap it".to_owned()),
    }
}
