//! One mount, by its kind.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, MoveMountFlags};

use super::brought::BroughtMount;
use super::copy_up::copy_up;
use super::{
    OWN, RootTree, attach, clone_tree, complete_mount, dress_bind, is_directory, new_mount, part, procfs_of,
    propagation, set_attributes, set_options,
};
use crate::cgroup::Cgroup;
use crate::error::{Context, RuntimeError};
use crate::overlay;
use crate::plan::{MountKind, Plan, PlannedMount, Written};
use crate::sys;

impl RootTree {
    /// `brought`: what the parent has made of it.
    pub(super) fn add(
        &self,
        mount: &PlannedMount,
        plan: &Plan,
        cgroup: &Cgroup,
        brought: Option<BroughtMount>,
    ) -> Result<(), RuntimeError> {
        match (&mount.kind, brought) {
            (MountKind::New { kind, .. }, brought) if kind == "tmpfs" => {
                debug_assert!(brought.is_none(), "a tmpfs is always new");
                self.add_tmpfs(mount)
            }
            (MountKind::New { kind, source, options, .. }, brought) => {
                let made = match &self.pid_namespace {
                    Some(namespace) if kind == "proc" => procfs_of(namespace)
                        .context(|| "open a procfs of the pid namespace".to_owned())
                        .and_then(|context| complete_mount(context, kind, source, options, mount.set)),
                    _ => new_mount(kind, source, options, mount.set),
                };
                let tree = match (made, brought) {
                    // It shows a namespace that belongs to another user namespace: then it is as the host has it.
                    (Err(error), Some(BroughtMount::Tree(tree))) if is_refused(&error) => tree,
                    (Err(error), None) if kind == "proc" && plan.user_namespace.is_some() && is_refused(&error) => {
                        return Err(RuntimeError::Invalid(format!(
                            "{}: its pid namespace belongs to another user namespace than the container's",
                            mount.target.display()
                        )));
                    }
                    (tree, _) => tree?,
                };
                self.finish(mount, tree, true)
            }
            (MountKind::Bind { .. }, Some(BroughtMount::Link(link))) => self.add_link(mount, &link),
            (MountKind::Bind { .. } | MountKind::Layers { .. }, Some(BroughtMount::Tree(tree))) => {
                let directory = is_directory(&tree).context(|| "examine what is bound".to_owned())?;
                let place = self.place(mount, directory)?;
                self.keep_off_procfs(mount, &tree, &place)?;
                self.settle(mount, tree, &place)
            }
            (MountKind::Bind { source, recursive, .. }, None) => {
                let tree = part::clone_source(source, mount.part.as_deref(), *recursive)?;
                let directory = is_directory(&tree).context(|| format!("examine {}", source.display()))?;
                self.finish(mount, tree, directory)
            }
            (MountKind::Layers { lower, written }, _) => {
                let tree = match written {
                    None => overlay::mount_read_only(lower)?,
                    Some(Written { upper, work }) => overlay::mount_in_own_namespace(lower, upper, work)?,
                };
                let tree = overlay::of_part(tree, lower, mount.part.as_deref())?;
                let directory = is_directory(&tree).context(|| "examine a part of an overlay".to_owned())?;
                set_attributes(&tree, false, mount.set, mount.clear)?;
                self.finish(mount, tree, directory)
            }
            (MountKind::Remount, _) => {
                let place = self
                    .open_without_links(&mount.target, OFlags::PATH)
                    .context(|| "open it in the root".to_owned())?;
                remount(mount, &place)
            }
            (MountKind::Reconfigure { options }, _) => self.reconfigure(mount, options),
            (MountKind::Cgroup, _) => self.add_cgroups(mount, plan, cgroup),
        }
    }

    fn place(&self, mount: &PlannedMount, directory: bool) -> Result<OwnedFd, RuntimeError> {
        if is_system(mount) { self.own_directory(&mount.target) } else { self.make(&mount.target, directory) }
    }

    /// Moves a detached mount to its place.
    fn settle(&self, mount: &PlannedMount, tree: OwnedFd, place: &OwnedFd) -> Result<(), RuntimeError> {
        attach(&tree, place)?;
        if is_system(mount) || mount.is_reconfigured {
            self.own.borrow_mut().push((mount.target.clone(), tree));
        }
        Ok(())
    }

    /// Sets a detached mount's attributes and moves it to its place.
    fn finish(&self, mount: &PlannedMount, tree: OwnedFd, directory: bool) -> Result<(), RuntimeError> {
        let place = self.place(mount, directory)?;
        self.keep_off_procfs(mount, &tree, &place)?;
        if let MountKind::Bind { recursive, .. } = mount.kind {
            dress_bind(&tree, mount, recursive)?;
        } else {
            propagate(mount, &tree)?;
        }
        self.settle(mount, tree, &place)
    }

    /// Without a mode of its own it has that of the directory that it hides, as with runc; `tmpcopyup` has it begin with what
    /// is in there.
    fn add_tmpfs(&self, mount: &PlannedMount) -> Result<(), RuntimeError> {
        let MountKind::New { kind, source, options, copy_up: copies } = &mount.kind else { return Ok(()) };
        // Read-only only in the end, as with runc: a mount in it may need a directory there, a device its node.
        let read_only = mount.set & libc::MOUNT_ATTR_RDONLY != 0;
        let set = mount.set & !libc::MOUNT_ATTR_RDONLY;
        let has_mode = options.iter().any(|(key, _)| key == "mode");
        let hidden = match self.open(&mount.target, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => None,
            _ if has_mode && !copies => None,
            hidden => Some(hidden.context(|| "open the directory in the root".to_owned())?),
        };
        let mut options = options.clone();
        if let (Some(hidden), false) = (&hidden, has_mode) {
            let status = rustix::fs::fstat(hidden).context(|| "examine the directory in the root".to_owned())?;
            options.push(("mode".to_owned(), Some(format!("{:o}", status.st_mode & 0o7777))));
        }
        let tree = new_mount(kind, source, &options, set)?;
        if let Some(hidden) = hidden.filter(|_| *copies) {
            copy_up(&hidden, &tree, has_mode)?;
        }
        if read_only {
            let kept = rustix::io::fcntl_dupfd_cloexec(&tree, 0).context(|| "duplicate a descriptor".to_owned())?;
            self.unsealed.borrow_mut().push(kept);
        }
        self.finish(mount, tree, true)
    }

    /// What is said to be read-only and could not be until now: as a whole, so that no other mount of it can be written.
    pub(crate) fn seal(&self) -> Result<(), RuntimeError> {
        self.unsealed.take().iter().try_for_each(|tree| {
            let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
            rustix::mount::fspick(tree, "", flags)
                .and_then(|context| {
                    rustix::mount::fsconfig_set_flag(&context, "ro")?;
                    rustix::mount::fsconfig_reconfigure(&context)
                })
                .context(|| "make a tmpfs read-only".to_owned())?;
            set_attributes(tree, false, libc::MOUNT_ATTR_RDONLY, 0)
        })
    }

    /// A link as the host has it. One that is there already and says the same will do.
    fn add_link(&self, mount: &PlannedMount, link: &Path) -> Result<(), RuntimeError> {
        let (parent, name) = self.parent(&mount.target)?;
        match rustix::fs::symlinkat(link, &parent, name) {
            Err(Errno::EXIST) => {}
            made => return made.context(|| format!("link it to {}", link.display())),
        }
        match rustix::fs::readlinkat(&parent, name, Vec::new()) {
            Ok(there) if there.as_bytes() == link.as_os_str().as_encoded_bytes() => Ok(()),
            _ => Err(RuntimeError::Invalid(format!(
                "{} is there already, and is no link to {}",
                mount.target.display(),
                link.display()
            ))),
        }
    }

    /// As mount(2) has it with MS_REMOUNT alone: the file system's own options too, and whether it is read-only at all.
    /// It is the very one that was mounted, wherever its place has been moved.
    fn reconfigure(&self, mount: &PlannedMount, options: &[(String, Option<String>)]) -> Result<(), RuntimeError> {
        let own = self.own.borrow();
        let tree = own.iter().rev().find(|(target, _)| *target == mount.target).map(|(_, tree)| tree);
        let tree = tree.expect("the plan has found it among the mounts before");
        let read_only = mount.set & libc::MOUNT_ATTR_RDONLY != 0;
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        let context = rustix::mount::fspick(tree, "", flags).context(|| "reconfigure a tmpfs".to_owned())?;
        set_options(&context, "tmpfs", options)?;
        rustix::mount::fsconfig_set_flag(&context, if read_only { "ro" } else { "rw" })
            .and_then(|()| rustix::mount::fsconfig_reconfigure(&context))
            .context(|| "reconfigure a tmpfs".to_owned())?;
        // What was to become of it in the end.
        let device = |tree: &OwnedFd| rustix::fs::fstat(tree).map(|status| status.st_dev);
        let changed = device(tree).context(|| "examine a tmpfs".to_owned())?;
        self.unsealed.borrow_mut().retain(|other| device(other) != Ok(changed));
        remount(mount, tree)
    }

    /// The container's own part of every hierarchy, by a bind: with a cgroup namespace it looks like the root of one.
    fn add_cgroups(&self, mount: &PlannedMount, plan: &Plan, cgroup: &Cgroup) -> Result<(), RuntimeError> {
        let layout = cgroup.layout();
        if layout.is_unified() {
            let unified = layout.unified().expect("a layout has a hierarchy");
            // Without a cgroup namespace /proc/self/cgroup has the whole path, and the mount is to fit.
            let unified = match plan.has_cgroup_namespace() {
                true => unified.directory(cgroup.name()),
                false => unified.mount_point().to_owned(),
            };
            let tree =
                clone_tree(CWD, unified.as_os_str(), false).context(|| format!("clone {}", unified.display()))?;
            set_attributes(&tree, false, mount.set, mount.clear)?;
            propagate(mount, &tree)?;
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
            let source = cgroup.directory_in(hierarchy);
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
        propagate(mount, &holder)?;
        set_attributes(&holder, false, read_only, 0)
    }
}

/// As the options say, if they do.
pub(super) fn propagate(mount: &PlannedMount, tree: &OwnedFd) -> Result<(), RuntimeError> {
    if mount.propagation == 0 {
        return Ok(());
    }
    sys::mount_setattr(tree, mount.propagation_below, propagation(mount.propagation))
        .context(|| "set its propagation".to_owned())
}

/// As mount(2) has it with MS_BIND and MS_REMOUNT: what is not asked for is cleared, but for the times of access. No
/// link was followed to it: that would lead to another mount, which might lose a restriction.
fn remount(mount: &PlannedMount, place: &OwnedFd) -> Result<(), RuntimeError> {
    const REPLACED: u64 = libc::MOUNT_ATTR_RDONLY
        | libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC
        | libc::MOUNT_ATTR_NODIRATIME
        | libc::MOUNT_ATTR_NOSYMFOLLOW;
    let changed = set_attributes(place, false, mount.set, REPLACED | mount.clear)
        .and_then(|()| set_attributes(place, true, mount.set_below, mount.clear_below));
    match changed {
        Err(RuntimeError::System { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
            Err(RuntimeError::Invalid(format!("{}: remount: nothing is mounted there", mount.target.display())))
        }
        changed => changed,
    }?;
    propagate(mount, place)
}

/// Of those that are what their place is called.
fn is_system(mount: &PlannedMount) -> bool {
    mount.is_kind("proc") || mount.is_kind("sysfs") || OWN.iter().any(|own| mount.target == Path::new(own))
}

fn is_refused(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::System { source, .. } if source.raw_os_error() == Some(libc::EPERM))
}
