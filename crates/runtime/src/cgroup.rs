//! Control groups: version 1, version 2, and both beside each other (hybrid). cgroups(7), Documentation/admin-guide.
//!
//! A container's cgroup has one name, which is made below every hierarchy's mount point: `/a/b` by ourselves, or by systemd,
//! around a scope that is called `slice:prefix:name`.

mod below;
mod control;
mod cpuset;
mod end;
mod freezer;
mod identity;
mod layout;
mod limits;
mod oom;
mod stats;
mod systemd;
mod update;

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use self::control::{set, write};
pub(crate) use self::identity::Identity;
pub use self::layout::CgroupLayout;
pub(crate) use self::layout::Hierarchy;
pub use self::oom::OomWatch;
pub use self::stats::{Amount, CgroupStats, CpuStats, CpusetStats, IoEntry, IoStats, MemoryStats, PidsStats};
pub(crate) use self::systemd::Placeholder;
use self::systemd::Scope;
pub use self::systemd::machine_goes_down;
use crate::error::{Context, RuntimeError};

/// Where the processes of a scope are, below it, in version 1's hierarchy of devices.
///
/// systemd writes anew what it knows of a unit whenever it has read its units: of the devices, that all are allowed. The
/// kernel refuses that where there is a cgroup below (devcgroup_update_access() in security/device_cgroup.c), and systemd
/// takes it.
const BELOW_SCOPE: &str = "container";

/// One cgroup, by its name in every hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroup {
    layout: &'static CgroupLayout,
    name: PathBuf,
    /// systemd has made it, and is to remove it.
    scope: Option<Scope>,
    /// It alone is meant, and no other that has its name by now.
    identity: Option<Identity>,
}

/// A cgroup for a container that is being made.
pub(crate) struct Begun {
    pub(crate) cgroup: Cgroup,
    /// Who is in a scope of systemd's until the container's first process is.
    pub(crate) placeholder: Option<Placeholder>,
    /// It was not there before: whoever is in it is the container's.
    pub(crate) is_new: bool,
}

impl Cgroup {
    /// The cgroup of this name (`/a/b`, or `slice:prefix:name` for a scope of systemd's), `None` if no hierarchy has it.
    pub fn open(name: &str) -> Result<Option<Self>, RuntimeError> {
        let cgroup = Self::named(name)?;
        let exists = cgroup.directories().any(|directory| directory.is_dir());
        Ok(exists.then_some(cgroup))
    }

    /// Makes the cgroup, and those above it, in every hierarchy. One that is there already is taken over.
    pub fn create(name: &str) -> Result<Self, RuntimeError> {
        let cgroup = Self::create_unified(name)?;
        cgroup.create_version_1().inspect_err(|_| {
            // The error that is reported is the one that came first.
            let _ = cgroup.delete();
        })?;
        Ok(cgroup)
    }

    /// As [`Cgroup::create_unified`] (or as [`Cgroup::create`], where there is no version 2), or a scope of systemd's,
    /// which is there as long as somebody is in it: until the container's first process is, the placeholder. The calling
    /// process must have one thread.
    pub(crate) fn begin(name: &str) -> Result<Begun, RuntimeError> {
        let cgroup = Self::named(name)?;
        if let Some(scope) = &cgroup.scope {
            let placeholder = Placeholder::new()?;
            scope.start(placeholder.pid(), cgroup.layout.is_unified())?;
            cgroup.hold(placeholder.pid()).inspect_err(|_| {
                // The error that is reported is the one that came first.
                let _ = cgroup.delete();
            })?;
            return Ok(Begun { cgroup, placeholder: Some(placeholder), is_new: true });
        }
        let is_new = match cgroup.layout.unified() {
            Some(unified) => make(unified, &cgroup.name)?,
            None => cgroup.create_version_1()?,
        };
        Ok(Begun { cgroup, placeholder: None, is_new })
    }

    /// Puts a scope's placeholder where the container is going to be in version 1's devices: as long as nobody is there,
    /// systemd may clear it away, with the rules that have been written to it.
    fn hold(&self, pid: i32) -> Result<(), RuntimeError> {
        let Some(devices) = self.layout.controller("devices") else { return Ok(()) };
        let procs = self.directory_in(devices).join("cgroup.procs");
        let is_gone = |error: &RuntimeError| {
            matches!(error, RuntimeError::System { source, .. }
                if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)))
        };
        let mut held = Ok(());
        for _ in 0..100 {
            held = make(devices, &self.name_in(devices)).and_then(|_| write(&procs, &pid.to_string()));
            if !held.as_ref().is_err_and(is_gone) {
                break;
            }
        }
        held
    }

    /// The half of [`Cgroup::create`] that a process has to be born into.
    pub(crate) fn create_unified(name: &str) -> Result<Self, RuntimeError> {
        let cgroup = Self::named(name)?;
        if cgroup.scope.is_some() {
            return Err(RuntimeError::Invalid(format!("{name}: systemd makes a scope with a process in it")));
        }
        if let Some(unified) = cgroup.layout.unified() {
            make(unified, &cgroup.name)?;
        }
        Ok(cgroup)
    }

    /// The other half, which a process joins later; whether none of it was there before.
    pub(crate) fn create_version_1(&self) -> Result<bool, RuntimeError> {
        let mut is_new = true;
        for hierarchy in self.layout.hierarchies().filter(|hierarchy| !hierarchy.is_unified()) {
            is_new &= make(hierarchy, &self.name_in(hierarchy))?;
        }
        Ok(is_new)
    }

    /// Makes those above the cgroup of this name where they are missing, and has them hand on what they have to it.
    pub fn make_parent_of(name: &str) -> Result<(), RuntimeError> {
        let cgroup = Self::named(name)?;
        let Some(parent) = cgroup.name.parent() else { return Ok(()) };
        for hierarchy in cgroup.layout.hierarchies() {
            make_all(hierarchy, parent)?;
            prepare_parent(hierarchy, &hierarchy.directory(parent))?;
        }
        Ok(())
    }

    /// Moves the calling process into the cgroup of this name, which is made if it is missing.
    pub fn join(name: &str) -> Result<(), RuntimeError> {
        // Nearly always it is there.
        Self::named(name)?.enter().or_else(|_| Self::create(name)?.enter())
    }

    /// The same for a process that was born in version 2's half of it, see [`crate::detach`].
    pub fn join_version_1(name: &str) -> Result<(), RuntimeError> {
        Self::named(name)?.enter_version_1().or_else(|_| Self::create(name)?.enter_version_1())
    }

    /// 2 where only version 2 is mounted, else 1, as Docker's `info` counts: a hybrid's controllers are in version 1.
    pub fn version() -> u8 {
        if CgroupLayout::of_host().is_ok_and(CgroupLayout::is_unified) { 2 } else { 1 }
    }

    /// Moves a process into it.
    pub fn add(&self, pid: i32) -> Result<(), RuntimeError> {
        for hierarchy in self.layout.hierarchies() {
            write(&self.directory_in(hierarchy).join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Applies the limits of a spec to a cgroup that is new, but for those of [`Cgroup::limit_first`].
    pub fn apply(&self, resources: &LinuxResources) -> Result<(), RuntimeError> {
        let settings = limits::decide(self.layout, &self.name, resources, &|_, _| None)?;
        self.scope.as_ref().map_or(Ok(()), |scope| scope.limit(&settings, self.layout.is_unified()))?;
        set(self.layout, settings)
    }

    /// Applies what has to stand before anyone is in it: rules of devices, where they are version 1's, and time for
    /// realtime processes.
    pub fn limit_first(&self, resources: &LinuxResources) -> Result<(), RuntimeError> {
        let mut settings = limits::decide_first(self.layout, &self.name, resources)?;
        if let Some(devices) = self.layout.controller("devices") {
            for setting in settings.iter_mut().filter(|setting| setting.controller() == "devices") {
                setting.directory = self.directory_in(devices);
            }
        }
        set(self.layout, settings)
    }

    /// Who is in it and below it in any hierarchy, in our own pid namespace.
    pub fn pids(&self) -> Result<Vec<i32>, RuntimeError> {
        let mut pids = self.everyone()?;
        pids.retain(|pid| *pid > 0);
        Ok(pids)
    }

    /// Whether nobody is in it and below it, of any pid namespace and in any hierarchy: a service of systemd's on a hybrid
    /// is in two of them.
    pub(crate) fn is_free(&self) -> Result<bool, RuntimeError> {
        Ok(self.everyone()?.is_empty())
    }

    /// Each once; 0 for all whom our own pid namespace does not show.
    fn everyone(&self) -> Result<Vec<i32>, RuntimeError> {
        let mut everyone = Vec::new();
        for directory in self.directories() {
            let here = below::pids(&directory).context(|| format!("list the processes of {}", directory.display()))?;
            everyone.extend(here);
        }
        everyone.sort_unstable();
        everyone.dedup();
        Ok(everyone)
    }

    /// Sends a signal to everyone in it, in no order. With SIGKILL see [`Cgroup::kill`].
    pub fn signal(&self, signal: i32) -> Result<(), RuntimeError> {
        if signal == libc::SIGKILL {
            return self.kill();
        }
        for pid in self.pids()? {
            send_signal(pid, signal)?;
        }
        Ok(())
    }

    /// How many of it the kernel has killed for want of memory.
    pub fn oom_kills(&self) -> Result<u64, RuntimeError> {
        let Some(memory) = self.layout.controller("memory") else { return Ok(0) };
        let file =
            memory.directory(&self.name).join(if memory.is_unified() { "memory.events" } else { "memory.oom_control" });
        match fs::read_to_string(&file) {
            Ok(text) => Ok(oom::count(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(RuntimeError::system(format!("read {}", file.display()), error)),
        }
    }

    /// The calling process moves itself.
    ///
    /// In version 1 by `tasks` and 0: the kernel then takes no lock over all forks of the machine, and need not wait
    /// for a grace period of RCU, which is milliseconds (cgroup_procs_write_start() in kernel/cgroup/cgroup.c).
    pub(crate) fn enter(&self) -> Result<(), RuntimeError> {
        for hierarchy in self.layout.hierarchies() {
            let file = if hierarchy.is_unified() { "cgroup.procs" } else { "tasks" };
            write(&self.directory_in(hierarchy).join(file), "0")?;
        }
        Ok(())
    }

    /// As [`Cgroup::enter`], version 1 only: version 2's cgroup is where the process was born.
    pub(crate) fn enter_version_1(&self) -> Result<(), RuntimeError> {
        for hierarchy in self.layout.hierarchies().filter(|hierarchy| !hierarchy.is_unified()) {
            write(&self.directory_in(hierarchy).join("tasks"), "0")?;
        }
        Ok(())
    }

    /// Version 2's directory, for clone3(2) and eBPF.
    pub(crate) fn unified_directory(&self) -> Result<Option<OwnedFd>, RuntimeError> {
        if self.layout.unified().is_none() {
            return Ok(None);
        }
        let gone = || RuntimeError::Conflict(format!("cgroup {} has been removed meanwhile", self.name.display()));
        self.open_unified()?.ok_or_else(gone).map(Some)
    }

    pub(crate) fn layout(&self) -> &'static CgroupLayout {
        self.layout
    }

    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    /// Version 1's own devices controller is there: no eBPF is needed.
    pub(crate) fn has_devices_controller(&self) -> bool {
        self.layout.controller("devices").is_some()
    }

    fn named(name: &str) -> Result<Self, RuntimeError> {
        if let Some(scope) = Scope::parse(name).transpose()? {
            let name = PathBuf::from(scope.directory()?);
            return Ok(Self { layout: CgroupLayout::of_host()?, name, scope: Some(scope), identity: None });
        }
        let relative = name.strip_prefix('/').unwrap_or(name);
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !relative.split('/').all(plain) || relative.contains(['\0', '\n']) {
            return Err(RuntimeError::Invalid(format!("invalid cgroup name {name:?}: want /a/b, without . and ..")));
        }
        Ok(Self { layout: CgroupLayout::of_host()?, name: PathBuf::from(relative), scope: None, identity: None })
    }

    /// Where its processes are.
    pub(crate) fn directory_in(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.directory(&self.name_in(hierarchy))
    }

    fn name_in(&self, hierarchy: &Hierarchy) -> Cow<'_, Path> {
        match self.scope.is_some() && hierarchy.has("devices") {
            true => self.name.join(BELOW_SCOPE).into(),
            false => self.name.as_path().into(),
        }
    }

    /// What is its own in each hierarchy, and all below is too.
    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.layout.hierarchies().map(|hierarchy| hierarchy.directory(&self.name))
    }
}

/// Makes one hierarchy's directories; whether the last was not there before. In the common case, where the parent is
/// there, that is one mkdir(2).
fn make(hierarchy: &Hierarchy, name: &Path) -> Result<bool, RuntimeError> {
    let path = hierarchy.directory(name);
    let is_new = match fs::create_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_all(hierarchy, name)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        result => result.context(|| format!("make cgroup {}", path.display())).map(|()| true)?,
    };
    if !hierarchy.is_unified() && hierarchy.has("cpuset") {
        cpuset::inherit(hierarchy.mount_point(), name)?;
    }
    Ok(is_new)
}

/// With the parents.
fn make_all(hierarchy: &Hierarchy, name: &Path) -> Result<bool, RuntimeError> {
    let mut parent = hierarchy.mount_point().to_path_buf();
    prepare_parent(hierarchy, &parent)?;
    let mut is_new = false;
    let mut parts = name.iter().peekable();
    while let Some(part) = parts.next() {
        parent.push(part);
        is_new = match fs::create_dir(&parent) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            made => made.context(|| format!("make cgroup {}", parent.display())).map(|()| true)?,
        };
        if parts.peek().is_some() {
            prepare_parent(hierarchy, &parent)?;
        }
    }
    Ok(is_new)
}

/// Lets children of a cgroup have what it has: controllers in version 2; in version 1 processors and memory nodes, but of
/// the root, whose flag is everyone's, see [`cpuset::inherit`].
fn prepare_parent(hierarchy: &Hierarchy, directory: &Path) -> Result<(), RuntimeError> {
    if hierarchy.is_unified() {
        let available = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        let wanted: Vec<String> = available.split_whitespace().map(|controller| format!("+{controller}")).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let file = directory.join("cgroup.subtree_control");
        if fs::write(&file, wanted.join(" ")).is_ok() {
            return Ok(());
        }
        // Processes in the root of a cgroup namespace stand in the way ("no internal processes"): they move one
        // down, as every init of a container does. Then each controller for itself, since one may be refused.
        if directory == hierarchy.mount_point() {
            move_down(directory)?;
        }
        for controller in wanted {
            // A controller that cannot be had shows when a limit needs it.
            let _ = fs::write(&file, controller);
        }
    } else if hierarchy.has("cpuset") && directory != hierarchy.mount_point() {
        write(&directory.join("cgroup.clone_children"), "1")?;
    }
    Ok(())
}

/// Moves every process of a cgroup namespace's root into a cgroup below. The real root of a machine refuses nothing
/// in the first place, so this is never asked for there.
fn move_down(root: &Path) -> Result<(), RuntimeError> {
    let below = root.join("init");
    match fs::create_dir(&below) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(RuntimeError::system(format!("make cgroup {}", below.display()), error));
        }
        _ => {}
    }
    let procs = fs::read_to_string(root.join("cgroup.procs")).unwrap_or_default();
    for pid in procs.lines().filter(|pid| *pid != "0") {
        // One that has ended meanwhile, or a thread of the kernel, is nothing to worry about.
        let _ = fs::write(below.join("cgroup.procs"), pid);
    }
    Ok(())
}

fn send_signal(pid: i32, signal: i32) -> Result<(), RuntimeError> {
    // SAFETY: plain integers. The pid was read from the cgroup a moment ago; positive, so no group is meant.
    if unsafe { libc::kill(pid, signal) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(RuntimeError::system(format!("send signal {signal} to process {pid}"), error)),
    }
}
