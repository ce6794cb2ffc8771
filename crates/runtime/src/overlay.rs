//! Overlay mounts that no mount table shows.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags};

use crate::error::{Context, RuntimeError};
use crate::sys;

/// An overlay as a detached mount: `lower`, the topmost first; `upper` and `work` for a writable one.
///
/// May be called in a process with many threads.
pub fn mount_detached(lower: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<OwnedFd, RuntimeError> {
    mount_detached_with(lower, upper, &[])
}

fn mount_detached_with(
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    features: &[(&str, &str)],
) -> Result<OwnedFd, RuntimeError> {
    match mount_new(lower, upper, features) {
        Err(Errno::INVAL) => {}
        result => return result.context(|| describe(lower, upper)),
    }
    // A kernel without `lowerdir+`: by mount(2).
    with_own_mounts(|| mount_old(lower, upper, features))
}

/// Whether an overlay that writes to `upper` is still there: mounted anywhere, or held by an open file of anybody's, who
/// might yet write to it. `empty` and `work` are empty directories on the same file system, `work` another one each time.
///
/// Whoever has the feature `index` is refused an upper directory that another overlay has, whatever features that one has
/// (kernel: Documentation/filesystems/overlayfs.rst, "Sharing and copying layers").
///
/// # Errors
/// It cannot be known.
pub fn is_written(upper: &Path, empty: &Path, work: &Path) -> Result<bool, RuntimeError> {
    // An overlay with this feature, which may be the kernel's own choice, has noted there what lay below it, and no other
    // would be let have it above something else.
    match rustix::fs::removexattr(upper, c"trusted.overlay.origin") {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error).context(|| format!("take the mark of an overlay from {}", upper.display())),
    }
    match mount_detached_with(&[empty.to_owned()], Some((upper, work)), &[("index", "on")]) {
        Ok(_) => Ok(false),
        Err(RuntimeError::System { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => Ok(true),
        Err(error) => Err(error),
    }
}

/// An overlay whose files have the owners that a user namespace gives them, as a detached mount. An overlay cannot be
/// idmapped itself, but its layers can (Linux 5.19): each is mounted over itself, idmapped, where nobody sees it. `root`: user and
/// group of the namespace's root, in whose name overlayfs makes its own files, since who mounts it is nobody there.
/// `part`: only this of it, looked up as if it were the root.
pub(crate) fn mount_idmapped(
    lower: &[PathBuf],
    (upper, work): (&Path, &Path),
    part: Option<&Path>,
    user_namespace: &OwnedFd,
    root: (u32, u32),
) -> Result<OwnedFd, RuntimeError> {
    // Both on one mount, or overlayfs refuses.
    let above = upper.parent().filter(|above| work.parent() == Some(above)).ok_or_else(|| {
        RuntimeError::Invalid("upper and work of an idmapped overlay are to lie in one directory".to_owned())
    })?;
    with_own_mounts(|| {
        cover(above, user_namespace)?;
        lower.iter().try_for_each(|layer| cover(layer, user_namespace))?;
        sys::act_as(root.0, root.1).context(|| format!("act as user {}:{}", root.0, root.1))?;
        of_part(mount_in_own_namespace(lower, upper, work)?, lower, part)
    })
}

/// The same of layers that nobody writes to, two at least; or only a part of it, looked up as if it were the root.
pub(crate) fn mount_read_only_idmapped(
    lower: &[PathBuf],
    part: Option<&Path>,
    user_namespace: &OwnedFd,
) -> Result<OwnedFd, RuntimeError> {
    with_own_mounts(|| {
        lower.iter().try_for_each(|layer| cover(layer, user_namespace))?;
        of_part(mount_read_only(lower)?, lower, part)
    })
}

/// A part of a new overlay, or all of it. In a mount namespace of one's own.
pub(crate) fn of_part(tree: OwnedFd, lower: &[PathBuf], part: Option<&Path>) -> Result<OwnedFd, RuntimeError> {
    match (part, lower.first()) {
        (Some(part), Some(place)) => crate::mounts::part_of_detached(tree, place, part),
        _ => Ok(tree),
    }
}

/// Whether these directories can be layers of a container with a user namespace.
///
/// # Errors
/// They cannot: the reason, before anything was made.
pub fn check_idmapped(lower: &[PathBuf]) -> Result<(), RuntimeError> {
    // Any will do, and this one is nobody's.
    let ids = dozen_model::IdRange::new(1 << 31, 1).expect("one id is a range");
    mount_read_only_idmapped(lower, None, &crate::id_map::user_namespace(ids)?).map(drop)
}

/// Mounts a layer over itself, idmapped, in a mount namespace of one's own.
fn cover(layer: &Path, user_namespace: &OwnedFd) -> Result<(), RuntimeError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, layer, flags).context(|| format!("open layer {}", layer.display()))?;
    crate::mounts::idmap(&tree, false, user_namespace, layer)?;
    rustix::mount::move_mount(&tree, "", CWD, layer, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context(|| format!("mount layer {} over itself", layer.display()))
}

/// In a mount namespace that one thread has for this moment.
///
/// # Errors
/// Those of `mount`; such a namespace cannot be had.
pub fn with_own_mounts<T: Send>(mount: impl FnOnce() -> Result<T, RuntimeError> + Send) -> Result<T, RuntimeError> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            sys::unshare(libc::CLONE_NEWNS).context(|| "unshare the mount namespace".to_owned())?;
            crate::mounts::keep_mounts_from_the_host()?;
            mount()
        });
        worker.join().unwrap_or_else(|_| Err(RuntimeError::Invalid("the thread that mounts died".to_owned())))
    })
}

/// The same in a process that has a mount namespace of its own already.
pub(crate) fn mount_in_own_namespace(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd, RuntimeError> {
    match mount_new(lower, Some((upper, work)), &[]) {
        Err(Errno::INVAL) => mount_old(lower, Some((upper, work)), &[]),
        result => result.context(|| describe(lower, Some((upper, work)))),
    }
}

/// The same of layers that nobody writes to, not even through this mount: two at least.
pub(crate) fn mount_read_only(lower: &[PathBuf]) -> Result<OwnedFd, RuntimeError> {
    match mount_new(lower, None, &[]) {
        Err(Errno::INVAL) => mount_old(lower, None, &[]),
        result => result.context(|| describe(lower, None)),
    }
}

fn describe(lower: &[PathBuf], upper: Option<(&Path, &Path)>) -> String {
    let over = upper.map_or("read-only".to_owned(), |(upper, _)| upper.display().to_string());
    format!("mount an overlay of {} layers, {over}", lower.len())
}

/// By fsconfig(2) with one `lowerdir+` per layer (Linux 6.7). EINVAL: not to be had.
fn mount_new(lower: &[PathBuf], upper: Option<(&Path, &Path)>, features: &[(&str, &str)]) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", "overlay")?;
    // fsconfig takes no string above 255 bytes: such a path is named by a descriptor, which is held until the end.
    let mut held = Vec::new();
    let mut set = |key: &str, path: &Path| -> Result<(), Errno> {
        if path.as_os_str().len() < 256 {
            return rustix::mount::fsconfig_set_string(&context, key, path);
        }
        let (name, descriptor) = named_by_descriptor(path)?;
        held.push(descriptor);
        rustix::mount::fsconfig_set_string(&context, key, name)
    };
    for layer in lower {
        set("lowerdir+", layer)?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    features.iter().try_for_each(|(key, value)| rustix::mount::fsconfig_set_string(&context, *key, *value))?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// By mount(2), whose options are one page: layers go by the short names of their descriptors. The mount lies for a
/// moment on one of its own directories, in a namespace that is not the host's.
fn mount_old(
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    features: &[(&str, &str)],
) -> Result<OwnedFd, RuntimeError> {
    let mut held = Vec::new();
    let mut name = |path: &Path| -> Result<String, RuntimeError> {
        let (name, descriptor) = named_by_descriptor(path).context(|| format!("open layer {}", path.display()))?;
        held.push(descriptor);
        Ok(name)
    };
    let layers = lower.iter().map(|layer| name(layer)).collect::<Result<Vec<_>, _>>()?;
    let mut options = format!("lowerdir={}", layers.join(":"));
    if let Some((upper, work)) = upper {
        options += &format!(",upperdir={},workdir={}", name(upper)?, name(work)?);
    }
    features.iter().for_each(|(key, value)| options += &format!(",{key}={value}"));
    if options.len() >= 4096 {
        return Err(RuntimeError::Invalid(format!("{} layers are too many for this kernel", lower.len())));
    }
    let place = upper.map_or_else(|| lower[0].as_path(), |(upper, _)| upper);
    let flags = if upper.is_none() { MountFlags::RDONLY } else { MountFlags::empty() };
    let options = std::ffi::CString::new(options).expect("names of descriptors have no null byte");
    rustix::mount::mount("overlay", place, "overlay", flags, Some(options.as_c_str()))
        .context(|| describe(lower, upper))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = rustix::mount::open_tree(CWD, place, flags).context(|| "clone an overlay's mount".to_owned());
    rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH).context(|| "unmount an overlay".to_owned())?;
    clone
}

fn named_by_descriptor(path: &Path) -> Result<(String, OwnedFd), Errno> {
    let descriptor = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((format!("/proc/self/fd/{}", descriptor.as_raw_fd()), descriptor))
}
