//! The container's root: mounts, devices, masks. All of it happens in the child, before it is the container.
//!
//! The image and every volume are hostile: no path in the root is resolved but by openat2(2) with RESOLVE_IN_ROOT,
//! and what is found is named by its descriptor from then on. File systems that we rely on (proc, the null device,
//! devpts) are checked to be what they seem.

mod brought;
mod copy_up;
mod devices;
mod joined;
mod kinds;
mod masks;
mod nodes;
mod null;
mod part;
mod places;
pub(crate) mod view;
pub(crate) mod volume;

pub use self::brought::can_be_idmapped;
pub(crate) use self::brought::{Brought, idmap};
pub(crate) use self::devices::open_multiplexer;
pub(crate) use self::joined::open as open_joined;
pub(crate) use self::null::is_null_device;
pub(crate) use self::part::part_of_detached;
pub(crate) use self::places::open_inside;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::Root;
use crate::cgroup::Cgroup;
use crate::error::{Context, RuntimeError};
use crate::overlay;
use crate::plan::{self, MountKind, Plan, PlannedMount};
use crate::sys::{self, MountAttributes};

/// linux/magic.h.
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Directories that are what they are called, whatever is mounted there.
const OWN: [&str; 3] = ["/dev", "/proc", "/sys"];

/// A root file system, mounted over `/` of our own mount namespace, and not yet entered.
pub(crate) struct RootTree {
    root: OwnedFd,
    /// The mounts that are what their place is called, by that place: who shares the root's directories may have moved
    /// one of them away meanwhile, and put another in its place.
    own: RefCell<Vec<(PathBuf, OwnedFd)>>,
    /// Each tmpfs that is to be read-only when all is in it: mounts, devices, the terminal.
    unsealed: RefCell<Vec<OwnedFd>>,
    /// Which its procfs shows, if not that of who mounts it.
    pid_namespace: Option<OwnedFd>,
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

/// Where the root is mounted in our copy of the host's mounts: over `/`, which needs nothing to be there, or where
/// hooks expect to find it.
fn place<'a>(root: &'a Root, plan: &Plan) -> &'a Path {
    match root {
        // pivot_root(2) wants what it lies on not to be shared, which only `/` is made sure of.
        Root::Directory(path) if plan.hooks.before_pivot() && plan.root_propagation != libc::MS_SHARED => path,
        _ => Path::new("/"),
    }
}

impl RootTree {
    /// Mounts the root.
    pub(crate) fn mount(root: &Root, plan: &Plan, brought: &mut Brought) -> Result<Self, RuntimeError> {
        if plan.root_propagation != libc::MS_SHARED {
            keep_mounts_from_the_host()?;
        }
        let tree = match (brought.root.take(), root) {
            (Some(tree), _) => tree,
            (None, Root::Directory(path)) => clone_root(path)?,
            (None, Root::Overlay { lower, upper, work }) => overlay::mount_in_own_namespace(lower, upper, work)?,
        };
        if plan.root_propagation == libc::MS_SHARED {
            // The root's own mount must not be shared with the one it lies on, or pivot_root(2) refuses.
            let host =
                rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(|| "open /".to_owned())?;
            sys::mount_setattr(&host, false, propagation(libc::MS_PRIVATE)).context(|| "make / private".to_owned())?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        let moved = match rustix::mount::move_mount(&tree, "", CWD, place(root, plan), flags) {
            // Root of a user namespace may not go where the host's root keeps it.
            Err(Errno::ACCESS) => rustix::mount::move_mount(&tree, "", CWD, "/", flags),
            moved => moved,
        };
        moved.context(|| "mount the container's root".to_owned())?;
        Ok(Self { root: tree, own: RefCell::default(), unsealed: RefCell::default(), pid_namespace: None })
    }

    /// Its procfs is to show this namespace, although who mounts it is not in there. Older kernels than Linux 6.17 have no
    /// such procfs (filesystems/proc.rst, `pidns=`): false.
    pub(crate) fn show(&mut self, pid_namespace: BorrowedFd<'_>) -> Result<bool, RuntimeError> {
        match procfs_of(pid_namespace) {
            Ok(_) => {}
            Err(Errno::INVAL) => return Ok(false),
            Err(errno) => return Err(RuntimeError::system("begin a procfs of the pid namespace", errno)),
        }
        let kept = rustix::io::fcntl_dupfd_cloexec(pid_namespace, 3).context(|| "duplicate a descriptor".to_owned())?;
        self.pid_namespace = Some(kept);
        Ok(true)
    }

    /// It shows the pid namespace of who mounts it, or lies on what does, and we are only the usher of who will be there.
    fn waits_for_pid_namespace(&self, plan: &Plan, mount: &PlannedMount) -> bool {
        self.pid_namespace.is_none() && plan.joins_pid_namespace() && !plan.needs_threshold() && mount.is_on_procfs()
    }

    /// Everything in it: mounts, devices, sysctls. `join_cgroups` is called once, before what needs it.
    pub(crate) fn furnish(
        &self,
        plan: &Plan,
        cgroup: &Cgroup,
        brought: &mut Brought,
        join_cgroups: impl FnOnce() -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        let mut join_cgroups = Some(join_cgroups);
        for (index, mount) in plan.mounts.iter().enumerate() {
            if mount.kind == MountKind::Cgroup
                && let Some(join) = join_cgroups.take()
            {
                join()?;
            }
            if self.waits_for_pid_namespace(plan, mount) {
                if mount.is_kind("proc") {
                    self.own_directory(&mount.target)?;
                }
                continue;
            }
            self.add(mount, plan, cgroup, brought.take(index)).map_err(|error| at(error, &mount.target))?;
        }
        if let Some(join) = join_cgroups {
            join()?;
        }
        if plan.furnish_dev {
            self.make_devices(&plan.devices, brought.take_devices())?;
            // We still see the host's.
            self.link_dev(rustix::fs::statat(CWD, "/proc/kcore", AtFlags::empty()).is_ok())?;
        }
        self.write_sysctls(&plan.sysctls, plan.user_namespace.is_some())
    }

    /// The root of a process that has entered it.
    pub(crate) fn of_this_process() -> Result<Self, RuntimeError> {
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.context(|| "open /".to_owned())?;
        Ok(Self { root, own: RefCell::default(), unsealed: RefCell::default(), pid_namespace: None })
    }

    /// What [`RootTree::furnish`] has left to who is in the pid namespace that they show, and what goes over it.
    pub(crate) fn mount_procfs(&self, plan: &Plan, cgroup: &Cgroup, brought: &mut Brought) -> Result<(), RuntimeError> {
        let mounts = plan.mounts.iter().enumerate().filter(|(_, mount)| mount.is_on_procfs());
        mounts.into_iter().try_for_each(|(index, mount)| {
            self.add(mount, plan, cgroup, brought.take(index)).map_err(|error| at(error, &mount.target))
        })
    }

    /// The process's working directory, made if it is missing, as Docker does.
    pub(crate) fn make_working_directory(&self, path: &Path) -> Result<(), RuntimeError> {
        self.make(path, true).map(drop)
    }

    /// The last of it, after the terminal: masks, and the root read-only.
    pub(crate) fn close_off(&self, plan: &Plan) -> Result<(), RuntimeError> {
        self.close_off_beside_procfs(plan)?;
        self.close_off_procfs(plan)
    }

    /// Its first half, for who has no procfs yet: while the mounts that it is about are known by more than their names.
    pub(crate) fn close_off_beside_procfs(&self, plan: &Plan) -> Result<(), RuntimeError> {
        let chosen = |path: &&PathBuf| !path.starts_with("/proc");
        self.mask(plan.masked_paths.iter().filter(chosen))?;
        self.make_read_only(plan.readonly_paths.iter().filter(chosen))?;
        self.seal()
    }

    /// And its second.
    pub(crate) fn close_off_procfs(&self, plan: &Plan) -> Result<(), RuntimeError> {
        let chosen = |path: &&PathBuf| path.starts_with("/proc");
        self.mask(plan.masked_paths.iter().filter(chosen))?;
        self.make_read_only(plan.readonly_paths.iter().filter(chosen))?;
        if plan.read_only_root {
            let attributes = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
            sys::mount_setattr(&self.root, false, attributes).context(|| "make the root read-only".to_owned())?;
        }
        Ok(())
    }

    /// Makes it the root and lets go of the host's.
    pub(crate) fn enter(&self, plan: &Plan) -> Result<(), RuntimeError> {
        rustix::process::fchdir(&self.root).context(|| "enter the container's root".to_owned())?;
        sys::pivot_root_here().context(|| "pivot_root".to_owned())?;
        if plan.root_propagation == libc::MS_SHARED {
            // What is unmounted here would be unmounted on the host too. "." is the host's root by now.
            let host =
                rustix::fs::open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(|| "open .".to_owned())?;
            sys::mount_setattr(&host, true, propagation(libc::MS_SLAVE))
                .context(|| "make the mounts slaves".to_owned())?;
        }
        rustix::mount::unmount(".", UnmountFlags::DETACH).context(|| "unmount the host's root".to_owned())?;
        rustix::process::chdir("/").context(|| "chdir to /".to_owned())
    }

    /// The very last, in the root that was entered: what cannot be bound is not bound any more.
    pub(crate) fn propagate(&self, plan: &Plan) -> Result<(), RuntimeError> {
        if plan.root_propagation == 0 {
            return Ok(());
        }
        let wanted = propagation(plan.root_propagation);
        sys::mount_setattr(&self.root, true, wanted).context(|| "set the root's propagation".to_owned())
    }

    /// The plan refuses places in /proc by name; here is where the name leads. Over /proc itself there may be another
    /// procfs.
    fn keep_off_procfs(&self, mount: &PlannedMount, tree: &OwnedFd, place: &OwnedFd) -> Result<(), RuntimeError> {
        let is_proc = mount.target == Path::new("/proc");
        if if is_proc { is_procfs(tree) } else { !is_procfs(place) || plan::leads_into_proc(&mount.target) } {
            return Ok(());
        }
        let target = mount.target.display();
        Err(RuntimeError::Invalid(if is_proc {
            format!("{target}: only a procfs can be mounted there")
        } else {
            format!("{target} cannot be mounted because, in this root, it leads into /proc")
        }))
    }

    /// Values for sysctls, written through a procfs of our own making, whatever lies on /proc.
    fn write_sysctls(&self, sysctls: &[(String, String)], has_own_users: bool) -> Result<(), RuntimeError> {
        if sysctls.is_empty() {
            return Ok(());
        }
        let procfs = new_mount("proc", "proc", &[], 0)?;
        for (name, value) in sysctls {
            let path = format!("sys/{name}");
            rustix::fs::openat2(&procfs, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH)
                .and_then(|file| rustix::io::write(file, value.as_bytes()))
                .map_err(|errno| refused_sysctl(name, value, has_own_users, errno))?;
        }
        Ok(())
    }
}

/// Older kernels show some values of a network namespace, net.core's among them, to the host's users alone
/// (sysctl_core_net_init() in net/core/sysctl_net_core.c).
fn refused_sysctl(name: &str, value: &str, has_own_users: bool, errno: Errno) -> RuntimeError {
    let action = format!("write sysctl {name} = {value:?}");
    // Not in the kernel's own words: to docker's clients "no such file or directory" is a command that is not there.
    let missing = match errno {
        Errno::NOENT if has_own_users && name.starts_with("net/") => {
            "this kernel has no such value, or not with users of its own (--userns)"
        }
        Errno::NOENT => "this kernel has no such value",
        errno => return RuntimeError::system(action, errno),
    };
    RuntimeError::Invalid(format!("{action}: {missing}"))
}

/// The root of a bundle, cloned: what is mounted below it comes along, and nothing goes back.
fn clone_root(path: &Path) -> Result<OwnedFd, RuntimeError> {
    let tree = clone_tree(CWD, path.as_os_str(), true).context(|| format!("clone the mount of {}", path.display()))?;
    make_private(tree, path)
}

fn make_private(tree: OwnedFd, path: &Path) -> Result<OwnedFd, RuntimeError> {
    sys::mount_setattr(&tree, true, propagation(libc::MS_PRIVATE))
        .context(|| format!("make the mount of {} private", path.display()))?;
    Ok(tree)
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

/// A new file system, detached.
fn new_mount(
    kind: &str,
    source: &str,
    options: &[(String, Option<String>)],
    set: u64,
) -> Result<OwnedFd, RuntimeError> {
    let context =
        rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).context(|| format!("open file system {kind}"))?;
    complete_mount(context, kind, source, options, set)
}

/// A procfs that is yet to be configured and that shows another pid namespace than ours.
fn procfs_of(pid_namespace: impl AsFd) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_fd(&context, "pidns", pid_namespace)?;
    Ok(context)
}

fn complete_mount(
    context: OwnedFd,
    kind: &str,
    source: &str,
    options: &[(String, Option<String>)],
    set: u64,
) -> Result<OwnedFd, RuntimeError> {
    if !source.is_empty() {
        rustix::mount::fsconfig_set_string(&context, "source", source).context(|| format!("set {kind}'s source"))?;
    }
    set_options(&context, kind, options)?;
    // File systems of this container's alone are read-only as a whole, so that no other mount of them can be written.
    if set & libc::MOUNT_ATTR_RDONLY != 0 && matches!(kind, "proc" | "sysfs" | "tmpfs") {
        rustix::mount::fsconfig_set_flag(&context, "ro").context(|| format!("make a {kind} read-only"))?;
    }
    rustix::mount::fsconfig_create(&context).context(|| format!("create a {kind}"))?;
    // relatime is fsmount's default, as mount(2)'s.
    let attributes = MountAttrFlags::from_bits_retain(set as u32);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).context(|| format!("mount a {kind}"))
}

fn set_options(context: &OwnedFd, kind: &str, options: &[(String, Option<String>)]) -> Result<(), RuntimeError> {
    options.iter().try_for_each(|(key, value)| {
        let set = match value {
            Some(value) => rustix::mount::fsconfig_set_string(context, key, value),
            None => rustix::mount::fsconfig_set_flag(context, key),
        };
        set.map_err(|errno| match errno {
            Errno::INVAL if key == "context" => RuntimeError::Invalid(format!(
                "{kind}: linux.mountLabel and option \"context\" are SELinux's, which is not enabled"
            )),
            Errno::INVAL => RuntimeError::Invalid(format!("{kind} has no option {key:?}, or not with this value")),
            errno => RuntimeError::system(format!("set option {key:?} of {kind}"), errno),
        })
    })
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

/// A bind's propagation and attributes.
fn dress_bind(tree: &OwnedFd, mount: &PlannedMount, recursive: bool) -> Result<(), RuntimeError> {
    // Private unless asked otherwise: the clone of a shared mount is in its peer group.
    let wanted = if mount.propagation == 0 { libc::MS_PRIVATE } else { mount.propagation };
    let below = recursive && (mount.propagation == 0 || mount.propagation_below);
    sys::mount_setattr(tree, below, propagation(wanted)).context(|| "set its propagation".to_owned())?;
    set_attributes(tree, false, mount.set, mount.clear)?;
    set_attributes(tree, true, mount.set_below, mount.clear_below)
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
