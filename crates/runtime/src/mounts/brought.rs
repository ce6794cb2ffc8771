//! Mounts that the parent makes, detached, and the child only moves to their places.
//!
//! Who is born in a user namespace is nobody on the host: bound directories may be closed to it, its copy of the host's
//! mounts is locked (mount_namespaces(7), "Restrictions on mount namespaces"), and owners are not its to change. A
//! container without user namespace and without options that need it brings nothing, and nothing is done here.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::kinds::propagate;
use super::{bind_failed, clone_root, dress_bind, joined, part, propagation, set_attributes};
use crate::Root;
use crate::error::{Context, RuntimeError};
use crate::plan::{MountKind, OWNER, Plan, PlannedMount, UserNamespace, Written, outside};
use crate::sys::{self, MountAttributes};
use crate::{id_map, namespace, overlay};

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
                idmap(tree, map.below, user_namespace, &mount.target)?;
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
        MountKind::Layers { lower, written } => return layers(mount, lower, written.as_ref(), plan),
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
        idmap(&tree, map.below, &id_map::namespace_of(own)?, source)?;
    }
    if let Some(owner) = mount.owner {
        // By descriptor: this is what is mounted, whatever has its name by now.
        let status = rustix::fs::fstat(&tree).context(|| format!("examine {}", source.display()))?;
        let exchanged = owner.map(status.st_uid, status.st_gid);
        let map = match &plan.user_namespace {
            None => exchanged,
            // Owners are exchanged, and are then the container's as all others.
            Some(user_namespace) => {
                let own = user_namespace.map().ok_or_else(|| {
                    let target = mount.target.display();
                    RuntimeError::Invalid(format!(
                        "{target}: {OWNER} needs linux.uidMappings and gidMappings of the user namespace that is joined"
                    ))
                })?;
                Some(exchanged.map_or_else(|| own.clone(), |exchanged| exchanged.then(own)))
            }
        };
        if let Some(map) = map {
            idmap(&tree, recursive, &id_map::namespace_of(&map)?, source)?;
        }
    }
    Ok(BroughtMount::Tree(tree))
}

/// Layers of a container with a user namespace: whoever mounted them in there would find all owners to be nobody.
fn layers(
    mount: &PlannedMount,
    lower: &[PathBuf],
    written: Option<&Written>,
    plan: &Plan,
) -> Result<BroughtMount, RuntimeError> {
    let user_namespace = match &plan.user_namespace {
        Some(UserNamespace::New(map)) => id_map::namespace_of(map)?,
        Some(UserNamespace::Joined { path, .. }) => namespace::open(path, libc::CLONE_NEWUSER)?,
        None => return Err(RuntimeError::Invalid("layers are brought into user namespaces only".to_owned())),
    };
    let part = mount.part.as_deref();
    let tree = match written {
        None => overlay::mount_read_only_idmapped(lower, part, &user_namespace)?,
        Some(Written { upper, work }) => {
            let map = plan.user_namespace.as_ref().and_then(UserNamespace::map);
            let root = map.and_then(|map| Some((outside(&map.users, 0)?, outside(&map.groups, 0)?)));
            let root = root.ok_or_else(|| {
                let words = "layers that are written to need linux.uidMappings and gidMappings with a root in them";
                RuntimeError::Invalid(words.to_owned())
            })?;
            overlay::mount_idmapped(lower, (upper, work), part, &user_namespace, root)?
        }
    };
    set_attributes(&tree, false, mount.set, mount.clear)?;
    propagate(mount, &tree)?;
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

/// MOUNT_ATTR_IDMAP of mount_setattr(2), only for a mount that nobody has used yet. `what` is for the errors.
pub(crate) fn idmap(tree: impl AsFd, below: bool, user_namespace: impl AsFd, what: &Path) -> Result<(), RuntimeError> {
    let attributes = MountAttributes {
        set: libc::MOUNT_ATTR_IDMAP,
        user_namespace: user_namespace.as_fd().as_raw_fd() as u64,
        ..MountAttributes::default()
    };
    let refused = |why: &str| RuntimeError::Invalid(format!("{}: {why}", what.display()));
    match sys::mount_setattr(tree, below, attributes) {
        Err(Errno::INVAL) if below => {
            Err(refused("its file system, or one that is mounted in it, cannot be idmapped by this kernel"))
        }
        Err(Errno::INVAL) => Err(refused("its file system cannot be idmapped by this kernel")),
        Err(Errno::PERM) => Err(refused("it is idmapped already, and no mount can be twice (mount_setattr(2))")),
        result => result.context(|| format!("idmap {}", what.display())),
    }
}

/// Whether what is at a path of the host's can be bound in a container with a user namespace; `below`: with all that is
/// mounted in it.
///
/// # Errors
/// It cannot: the reason.
pub fn can_be_idmapped(path: &Path, below: bool) -> Result<(), RuntimeError> {
    let tree = super::clone_tree(rustix::fs::CWD, path.as_os_str(), below).map_err(|errno| bind_failed(path, errno))?;
    let ids = dozen_model::IdRange::new(1 << 31, 1).expect("one id is a range");
    idmap(&tree, below, id_map::user_namespace(ids)?, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_idmapped_is_named_before_anything_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let layers = ["a", "b"].map(|name| directory.path().join(name));
        layers.iter().for_each(|layer| std::fs::create_dir(layer).unwrap());
        overlay::check_idmapped(&layers).unwrap();
        can_be_idmapped(directory.path(), true).unwrap();
        let words = |result: Result<(), RuntimeError>| result.unwrap_err().to_string();
        let procfs = Path::new("/proc");
        assert_eq!(words(can_be_idmapped(procfs, false)), "/proc: its file system cannot be idmapped by this kernel");
        assert!(
            words(can_be_idmapped(procfs, true)).starts_with("/proc: its file system, or one that is mounted in it,")
        );
        assert!(words(can_be_idmapped(&layers[0].join("none"), true)).contains("bind source path does not exist"));
        let error = overlay::check_idmapped(&[layers[0].clone(), procfs.to_owned()]);
        assert_eq!(words(error), "/proc: its file system cannot be idmapped by this kernel");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
