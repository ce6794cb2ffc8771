//! The container's root: mounts, devices, masks. All of it happens in the child, before it is the container.
//!
//! The image and every volume are hostile: no path in the root is resolved but by openat2(2) with RESOLVE_IN_ROOT,
//! and what is found is named by its descriptor from then on. File systems that we rely on (proc, the null device,
//! devpts) are checked to be what they seem.

mod devices;
mod masks;

pub(crate) use self::devices::open_multiplexer;

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::Root;
use crate::cgroup::Cgroup;
use crate::error::{Context, RuntimeError};
use crate::overlay;
use crate::plan::{MountKind, Plan, PlannedMount};
use crate::sys::{self, MountAttributes};

/// linux/magic.h.
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// A root file system, mounted over `/` of our own mount namespace, and not yet entered.
pub(crate) struct RootTree {
    root: OwnedFd,
}

/// Our mount namespace is a copy of the host's: nothing that we mount goes back there, and what the host mounts
/// later still reaches those binds that want it.
pub(crate) fn keep_mounts_from_the_host() -> Result<(), RuntimeError> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(|| "open /".to_owned())?;
    sys::mount_setattr(&root, true, propagation(libc::MS_SLAVE)).context(|| "make the mounts slaves".to_owned())
}

fn propagation(propagation: u64) -> MountAttributes {
    MountAttributes { propagation, ..MountAttributes::default() }
}

impl RootTree {
    /// Mounts the root.
    pub(crate) fn mount(root: &Root, plan: &Plan) -> Result<Self, RuntimeError> {
        if plan.root_propagation != libc::MS_SHARED {
            keep_mounts_from_the_host()?;
        }
        let tree = match root {
            Root::Directory(path) => {
                let tree = clone_tree(CWD, path.as_os_str(), true)
                    .context(|| format!("clone the mount of {}", path.display()))?;
                sys::mount_setattr(&tree, true, propagation(libc::MS_PRIVATE))
                    .context(|| format!("make the mount of {} private", path.display()))?;
                tree
            }
            Root::Overlay { lower, upper, work } => overlay::mount_in_own_namespace(lower, upper, work)?,
        };
        if plan.root_propagation == libc::MS_SHARED {
            // The root's own mount must not be shared with the one it lies on, or pivot_root(2) refuses.
            let host =
                rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(|| "open /".to_owned())?;
            sys::mount_setattr(&host, false, propagation(libc::MS_PRIVATE)).context(|| "make / private".to_owned())?;
        }
        rustix::mount::move_mount(&tree, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .context(|| "mount the container's root".to_owned())?;
        Ok(Self { root: tree })
    }

    /// Everything in it: mounts, devices, sysctls. `join_cgroups` is called once, before what needs it.
    pub(crate) fn furnish(
        &self,
        plan: &Plan,
        cgroup: &Cgroup,
        join_cgroups: impl FnOnce() -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        let mut join_cgroups = Some(join_cgroups);
        for mount in &plan.mounts {
            if mount.kind == MountKind::Cgroup
                && let Some(join) = join_cgroups.take()
            {
                join()?;
            }
            self.add(mount, cgroup).map_err(|error| at(error, &mount.target))?;
        }
        if let Some(join) = join_cgroups {
            join()?;
        }
        if plan.furnish_dev {
            self.make_devices(&plan.devices)?;
            self.link_dev()?;
        }
        self.write_sysctls(&plan.sysctls)
    }

    /// The process's working directory, made if it is missing, as Docker does.
    pub(crate) fn make_working_directory(&self, path: &Path) -> Result<(), RuntimeError> {
        self.make(path, true).map(drop)
    }

    /// The last of it, after the terminal: masks, and the root read-only.
    pub(crate) fn close_off(&self, plan: &Plan) -> Result<(), RuntimeError> {
        self.mask(&plan.masked_paths)?;
        self.make_read_only(&plan.readonly_paths)?;
        if plan.read_only_root {
            let attributes = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
            sys::mount_setattr(&self.root, false, attributes).context(|| "make the root read-only".to_owned())?;
        }
        Ok(())
    }

    /// Makes it the root and lets go of the host's.
    pub(crate) fn enter(self, plan: &Plan) -> Result<(), RuntimeError> {
        rustix::process::fchdir(&self.root).context(|| "enter the container's root".to_owned())?;
        sys::pivot_root_here().context(|| "pivot_root".to_owned())?;
        rustix::mount::unmount(".", UnmountFlags::DETACH).context(|| "unmount the host's root".to_owned())?;
        rustix::process::chdir("/").context(|| "chdir to /".to_owned())?;
        if plan.root_propagation != 0 {
            let wanted = propagation(plan.root_propagation);
            sys::mount_setattr(&self.root, true, wanted).context(|| "set the root's propagation".to_owned())?;
        }
        Ok(())
    }

    fn add(&self, mount: &PlannedMount, cgroup: &Cgroup) -> Result<(), RuntimeError> {
        match &mount.kind {
            MountKind::New { kind, source, options } => {
                let tree = new_mount(kind, source, options, mount.set)?;
                self.finish(mount, &tree, true)
            }
            MountKind::Bind { source, recursive } => {
                let tree =
                    clone_tree(CWD, source.as_os_str(), *recursive).map_err(|errno| bind_failed(source, errno))?;
                let directory = is_directory(&tree).context(|| format!("examine {}", source.display()))?;
                self.finish(mount, &tree, directory)
            }
            MountKind::Cgroup => self.add_cgroups(mount, cgroup),
        }
    }

    /// Sets a detached mount's attributes and moves it to its place.
    fn finish(&self, mount: &PlannedMount, tree: &OwnedFd, directory: bool) -> Result<(), RuntimeError> {
        let system = matches!(&mount.kind, MountKind::New { kind, .. } if kind == "proc" || kind == "sysfs");
        let place = if system { self.own_directory(&mount.target)? } else { self.make(&mount.target, directory)? };
        if let MountKind::Bind { recursive, .. } = mount.kind {
            // Private unless asked otherwise: the clone of a shared mount is in its peer group.
            let wanted = if mount.propagation == 0 { libc::MS_PRIVATE } else { mount.propagation };
            let below = recursive && (mount.propagation == 0 || mount.propagation_below);
            sys::mount_setattr(tree, below, propagation(wanted)).context(|| "set its propagation".to_owned())?;
            set_attributes(tree, false, mount.set, mount.clear)?;
            set_attributes(tree, true, mount.set_below, mount.clear_below)?;
        } else if mount.propagation != 0 {
            sys::mount_setattr(tree, mount.propagation_below, propagation(mount.propagation))
                .context(|| "set its propagation".to_owned())?;
        }
        attach(tree, &place)
    }

    /// The container's own part of every hierarchy, by a bind: with a cgroup namespace it looks like the root of one.
    fn add_cgroups(&self, mount: &PlannedMount, cgroup: &Cgroup) -> Result<(), RuntimeError> {
        let layout = cgroup.layout();
        if layout.is_unified() {
            let unified = layout.unified().expect("a layout has a hierarchy").directory(cgroup.name());
            let tree =
                clone_tree(CWD, unified.as_os_str(), false).context(|| format!("clone {}", unified.display()))?;
            set_attributes(&tree, false, mount.set, mount.clear)?;
            let place = self.own_directory(&mount.target)?;
            return attach(&tree, &place);
        }
        let read_only = mount.set & libc::MOUNT_ATTR_RDONLY;
        let options = [("mode".to_owned(), Some("755".to_owned()))];
        let holder = new_mount("tmpfs", "tmpfs", &options, mount.set & !read_only)?;
        let place = self.own_directory(&mount.target)?;
        attach(&holder, &place)?;
        for hierarchy in layout.hierarchies().filter(|hierarchy| !hierarchy.is_unified()) {
            let Some(name) = hierarchy.mount_point().file_name() else { continue };
            let source = hierarchy.directory(cgroup.name());
            let tree = clone_tree(CWD, source.as_os_str(), false).context(|| format!("clone {}", source.display()))?;
            set_attributes(&tree, false, mount.set, mount.clear)?;
            rustix::fs::mkdirat(&holder, name, Mode::from_raw_mode(0o755)).context(|| format!("make {name:?}"))?;
            rustix::mount::move_mount(&tree, "", &holder, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                .context(|| format!("mount the cgroups of {name:?}"))?;
            // Controllers that share a hierarchy are found by each name, as on the host.
            let name = name.to_string_lossy();
            for alias in name.split(',').filter(|alias| *alias != name) {
                rustix::fs::symlinkat(&*name, &holder, alias).context(|| format!("link {alias:?}"))?;
            }
        }
        set_attributes(&holder, false, read_only, 0)
    }

    /// Values for sysctls, written through a procfs of our own making, whatever lies on /proc.
    fn write_sysctls(&self, sysctls: &[(String, String)]) -> Result<(), RuntimeError> {
        if sysctls.is_empty() {
            return Ok(());
        }
        let procfs = new_mount("proc", "proc", &[], 0)?;
        for (name, value) in sysctls {
            let path = format!("sys/{name}");
            rustix::fs::openat2(&procfs, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH)
                .and_then(|file| rustix::io::write(file, value.as_bytes()))
                .context(|| format!("write sysctl {name} = {value:?}"))?;
        }
        Ok(())
    }

    /// Opens a path in the root, by descriptor only; links stay inside.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_inside(&self.root, path, flags)
    }

    /// A path in the root, made if it is missing: directories, and an empty file at its end.
    fn make(&self, path: &Path, directory: bool) -> Result<OwnedFd, RuntimeError> {
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            result => return result.context(|| format!("open {} in the root", path.display())),
        }
        let context = || format!("make {} in the root", path.display());
        let (parent, name) = self.parent(path)?;
        if directory {
            match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) => {}
                result => result.context(context)?,
            }
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
                Err(Errno::EXIST) => {}
                result => drop(result.context(context)?),
            }
        }
        self.open(path, OFlags::PATH).context(|| format!("open {} in the root", path.display()))
    }

    /// The directory that holds the last part of a path, made if it is missing, and that part.
    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), RuntimeError> {
        let name = path.file_name().ok_or_else(|| RuntimeError::Invalid(format!("{} has no name", path.display())))?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.make(parent, true)?, name))
    }

    /// Where proc, sysfs and cgroups go: a directory by every part of its name. A link there would lead the mount, and
    /// with it the masks, to another place than the process looks at.
    fn own_directory(&self, path: &Path) -> Result<OwnedFd, RuntimeError> {
        let place = self.make(path, true)?;
        let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat2(&self.root, path, open, Mode::empty(), flags) {
            Ok(place) => Ok(place),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                Err(RuntimeError::Invalid(format!("{} in the root must be an ordinary directory", path.display())))
            }
            Err(Errno::AGAIN) => Ok(place),
            Err(errno) => Err(RuntimeError::system(format!("open {} in the root", path.display()), errno)),
        }
    }
}

fn at(error: RuntimeError, target: &Path) -> RuntimeError {
    match error {
        RuntimeError::System { action, source } => {
            RuntimeError::System { action: format!("mount {}: {action}", target.display()), source }
        }
        other => other,
    }
}

fn bind_failed(source: &Path, errno: Errno) -> RuntimeError {
    if errno == Errno::NOENT {
        // Docker's words.
        return RuntimeError::Invalid(format!("bind source path does not exist: {}", source.display()));
    }
    RuntimeError::system(format!("clone the mount of {}", source.display()), errno)
}

/// openat2(2) below `root` as if it were `/`. The kernel answers EAGAIN when something was renamed meanwhile.
pub(crate) fn open_inside(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..128 {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// A new file system, detached.
fn new_mount(
    kind: &str,
    source: &str,
    options: &[(String, Option<String>)],
    set: u64,
) -> Result<OwnedFd, RuntimeError> {
    let context =
        rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).context(|| format!("open file system {kind}"))?;
    if !source.is_empty() {
        rustix::mount::fsconfig_set_string(&context, "source", source).context(|| format!("set {kind}'s source"))?;
    }
    for (key, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, key, value),
            None => rustix::mount::fsconfig_set_flag(&context, key),
        }
        .map_err(|errno| match errno {
            Errno::INVAL => RuntimeError::Invalid(format!("{kind} has no option {key:?}, or not with this value")),
            errno => RuntimeError::system(format!("set option {key:?} of {kind}"), errno),
        })?;
    }
    // File systems of this container's alone are read-only as a whole, so that no other mount of them can be written.
    if set & libc::MOUNT_ATTR_RDONLY != 0 && matches!(kind, "proc" | "sysfs" | "tmpfs") {
        rustix::mount::fsconfig_set_flag(&context, "ro").context(|| format!("make a {kind} read-only"))?;
    }
    rustix::mount::fsconfig_create(&context).context(|| format!("create a {kind}"))?;
    // relatime is fsmount's default, as mount(2)'s.
    let attributes = MountAttrFlags::from_bits_retain(set as u32);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).context(|| format!("mount a {kind}"))
}

/// A detached copy of the mount at a path, from that path on.
fn clone_tree(directory: impl AsFd, path: &OsStr, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    rustix::mount::open_tree(directory, path, flags)
}

fn set_attributes(tree: &OwnedFd, below: bool, set: u64, clear: u64) -> Result<(), RuntimeError> {
    // Access-time modes are cleared together (mount_setattr(2)); other bits are not cleared where they are set.
    let clear = clear & !(set & !libc::MOUNT_ATTR__ATIME);
    if set | clear == 0 {
        return Ok(());
    }
    let attributes = MountAttributes { set, clear, ..MountAttributes::default() };
    sys::mount_setattr(tree, below, attributes).context(|| "set its attributes".to_owned())
}

/// Moves a detached mount onto what a descriptor names.
fn attach(tree: &OwnedFd, place: &OwnedFd) -> Result<(), RuntimeError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", place, "", flags).context(|| "move the mount to its place".to_owned())
}

fn is_directory(file: &OwnedFd) -> Result<bool, Errno> {
    rustix::fs::fstat(file).map(|status| FileType::from_raw_mode(status.st_mode).is_dir())
}

/// Whether a file is on procfs, and so not something that an image made to look like it.
pub(crate) fn is_procfs(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|status| status.f_type == PROC_SUPER_MAGIC)
}
