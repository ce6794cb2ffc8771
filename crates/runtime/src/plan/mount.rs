//! One mount of a spec: its options (OCI runtime-spec, config.md, "Linux mount options") parted into what concerns the
//! mount, its propagation, and the file system itself.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::ids::{IdMap, IdRange, outside};
use super::owner::Owner;
use super::{Plan, UserNamespace, clean, invalid, not_built};
use crate::error::RuntimeError;

/// The only places in /proc over which something may be mounted: runc's list (libcontainer/rootfs_linux.go), by which
/// lxcfs shows a container's own figures. Anything else there decides about the process's rights, or pretends to.
const OPEN_IN_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// A place in /proc, if a mount may cover it. The error names the place, in runc's words.
pub fn check_place(target: &Path) -> Result<(), RuntimeError> {
    if target.starts_with("/proc") && target != Path::new("/proc") && !leads_into_proc(target) {
        return Err(invalid(format!(
            "{:?} cannot be mounted because it is inside /proc",
            target.display().to_string()
        )));
    }
    Ok(())
}

/// It does by its name, and may.
pub(crate) fn leads_into_proc(target: &Path) -> bool {
    OPEN_IN_PROC.iter().any(|open| target == Path::new(open))
}

/// A mount as it will be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedMount {
    /// Absolute and clean.
    pub(crate) target: PathBuf,
    pub(crate) kind: MountKind,
    /// MOUNT_ATTR_* that the options set and clear. Of a bind, only these are changed.
    pub(crate) set: u64,
    pub(crate) clear: u64,
    /// The same for everything below too: `rro` and its sisters.
    pub(crate) set_below: u64,
    pub(crate) clear_below: u64,
    /// MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE; 0 is private.
    pub(crate) propagation: u64,
    /// The propagation is for everything below too.
    pub(crate) propagation_below: bool,
    /// It is changed as a whole by a later one.
    pub(crate) is_reconfigured: bool,
    /// Of a bind: its files have other owners in the container than on disk.
    pub(crate) id_map: Option<MountIdMap>,
    /// Of a bind or of layers: what is mounted of it, looked up as if it were the root (mount(8), `X-mount.subdir`).
    pub(crate) part: Option<PathBuf>,
    /// Of a bind: who is to own, in the container, what the owner of the source owns on disk.
    pub(crate) owner: Option<Owner>,
    /// Of a bind: the mount namespace in which its source is looked up, in place of our own.
    pub(crate) namespace: Option<PathBuf>,
}

/// What is on disk to whom it belongs in the container (config.md, "POSIX-platform Mounts").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountIdMap {
    /// `None`: the container's own user namespace.
    pub(crate) own: Option<IdMap>,
    /// For everything below too: `ridmap`.
    pub(crate) below: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// A file system, by its type, source and options.
    New {
        kind: String,
        source: String,
        /// Keys, with a value or as flags.
        options: Vec<(String, Option<String>)>,
        /// It begins with what it hides: `tmpcopyup`.
        copy_up: bool,
    },
    /// A path of the host.
    Bind {
        source: PathBuf,
        recursive: bool,
        /// A link is made anew in the container, in place of what it leads to being mounted: `copy-symlink`.
        copy_link: bool,
    },
    /// Directories above one another, the topmost first, that nobody writes to: an overlay of `lowerdir+`, and of `upperdir`
    /// and `workdir` if it may be written to.
    Layers { lower: Vec<PathBuf>, written: Option<Written> },
    /// Other attributes for what was mounted there before: `bind,remount`.
    Remount,
    /// Other options for a tmpfs that was mounted there before, as a whole: `remount`.
    Reconfigure { options: Vec<(String, Option<String>)> },
    /// The container's view of the cgroups, whatever this machine has.
    Cgroup,
}

/// Where what is written to layers goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
}

impl PlannedMount {
    pub(crate) fn new(
        mount: &Mount,
        bundle: &Path,
        user_namespace: Option<&UserNamespace>,
    ) -> Result<Self, RuntimeError> {
        let target = clean(&Path::new("/").join(mount.destination()))?;
        if target == Path::new("/") {
            return Err(invalid("a mount on / would hide the root file system"));
        }
        check_place(&target)?;
        let mut planned = Self {
            target,
            kind: MountKind::Cgroup,
            set: 0,
            clear: 0,
            set_below: 0,
            clear_below: 0,
            propagation: 0,
            propagation_below: false,
            is_reconfigured: false,
            id_map: None,
            part: None,
            owner: None,
            namespace: None,
        };
        let what = || planned_name(mount);
        let own = IdMap::new(&what(), mount.uid_mappings(), mount.gid_mappings())?;
        if own.is_some() {
            planned.id_map = Some(MountIdMap { own, below: false });
        }
        let kind = mount.typ().clone().unwrap_or_default();
        let mut bind = (kind == "bind").then_some(false);
        let mut options = Vec::new();
        let (mut copy_up, mut copy_link, mut remount) = (false, false, false);
        for option in mount.options().iter().flatten() {
            match option.as_str() {
                "bind" => bind = bind.or(Some(false)),
                "rbind" => bind = Some(true),
                "tmpcopyup" => copy_up = true,
                "copy-symlink" => copy_link = true,
                "remount" => remount = true,
                "idmap" | "ridmap" => planned.id_map_mut().below = option == "ridmap",
                option => match option.split_once('=') {
                    Some(("idmap", text)) => {
                        planned.id_map_mut().own = Some(id_map_of_option(text, user_namespace)?.checked(&what())?)
                    }
                    Some((PART, path)) => planned.part = Some(PathBuf::from(path)),
                    Some((FROM_NAMESPACE, path)) => planned.namespace = Some(PathBuf::from(path)),
                    Some((OWNER, text)) => planned.owner = Some(Owner::of_option(text)?),
                    _ => planned.option(option, &mut options)?,
                },
            }
        }
        let source = mount.source().clone().unwrap_or_default();
        if planned.id_map.as_ref().is_some_and(|map| map.own.is_none()) && user_namespace.is_none() {
            return Err(invalid(format!("{}: idmap needs mappings, or a user namespace", what())));
        }
        if planned.id_map.is_some() && (bind.is_none() || remount || copy_link) {
            return Err(invalid(format!("{}: only a bind can be idmapped", what())));
        }
        let left = |what: &str, options: &[(String, Option<String>)]| match options.first() {
            Some((option, _)) => {
                Err(invalid(format!("{what} {} has option {option:?}", mount.destination().display())))
            }
            None => Ok(()),
        };
        planned.kind = match bind {
            Some(_) if remount => {
                left("the remount of", &options)?;
                MountKind::Remount
            }
            None if remount && kind == "tmpfs" => MountKind::Reconfigure { options },
            None if remount => return not_built(format!("{}: remount without bind, of a whole file system,", what())),
            Some(recursive) => {
                if source.as_os_str().is_empty() {
                    return Err(invalid(format!("the bind on {} has no source", planned.target.display())));
                }
                left("the bind on", &options)?;
                MountKind::Bind { source: bundle.join(source), recursive, copy_link }
            }
            None if kind == "cgroup" || kind == "cgroup2" => {
                // Those of a file system that is mounted already, whose binds these are.
                left("the cgroup mount on", &options)?;
                MountKind::Cgroup
            }
            None if kind.is_empty() => {
                return Err(invalid(format!("the mount on {} has no type", planned.target.display())));
            }
            None if kind == "overlay"
                && let Some(layers) = layers_of(&options) =>
            {
                layers
            }
            None => MountKind::New { kind, source: source.to_string_lossy().into_owned(), options, copy_up },
        };
        let is_bind = matches!(planned.kind, MountKind::Bind { .. });
        let has_parts = is_bind || matches!(planned.kind, MountKind::Layers { .. });
        for (given, option, wanted) in [
            (copy_up, "tmpcopyup", planned.is_kind("tmpfs")),
            (copy_link, "copy-symlink", is_bind),
            (planned.part.is_some(), PART, has_parts && !copy_link),
            (planned.namespace.is_some(), FROM_NAMESPACE, is_bind && !copy_link),
            (planned.owner.is_some(), OWNER, is_bind && !copy_link && planned.id_map.is_none()),
        ] {
            if given && !wanted {
                return Err(invalid(format!("{}: option {option:?} is not for this kind of mount", what())));
            }
        }
        Ok(planned)
    }

    /// Finds what this one changes, among those before it. Only what is the container's own is changed as a whole: what is
    /// bound, or shows a namespace, may be the host's.
    pub(super) fn find_reconfigured(&self, before: &mut [Self]) -> Result<(), RuntimeError> {
        let MountKind::Reconfigure { .. } = self.kind else { return Ok(()) };
        let changes = |kind: &MountKind| matches!(kind, MountKind::Remount | MountKind::Reconfigure { .. });
        match before.iter_mut().rev().find(|mount| mount.target == self.target && !changes(&mount.kind)) {
            Some(mount) if mount.is_kind("tmpfs") => {
                mount.is_reconfigured = true;
                Ok(())
            }
            _ => Err(invalid(format!("{}: remount: no tmpfs of the spec's is mounted there", self.target.display()))),
        }
    }

    /// SELinux's label for the files of new file systems, but for those whose labels are the kernel's own affair.
    pub(super) fn label(&mut self, label: &str) {
        if let MountKind::New { kind, options, .. } = &mut self.kind
            && !label.is_empty()
            && !matches!(kind.as_str(), "proc" | "sysfs" | "mqueue")
            && !options.iter().any(|(key, _)| key == "context")
        {
            options.push(("context".to_owned(), Some(label.to_owned())));
        }
    }

    fn id_map_mut(&mut self) -> &mut MountIdMap {
        self.id_map.get_or_insert(MountIdMap { own: None, below: false })
    }

    /// The parent makes it, detached, with the host's rights and in the host's namespaces: of a container with a user
    /// namespace, who is born in it may not reach what is bound; only root of the host changes owners; and in a mount
    /// namespace that is joined, names are looked up and nothing else is done before the end.
    pub(crate) fn is_brought(&self, plan: &Plan) -> bool {
        match &self.kind {
            MountKind::Bind { copy_link, .. } => {
                let late = plan.joins_pid_namespace() && self.is_below_proc();
                plan.user_namespace.is_some()
                    || self.id_map.is_some()
                    || self.owner.is_some()
                    || self.namespace.is_some()
                    || *copy_link
                    || late
                    || plan.joined_mounts.is_some()
            }
            MountKind::New { kind, .. } => plan.user_namespace.is_some() && shown_namespace(kind, plan),
            MountKind::Layers { .. } => plan.user_namespace.is_some(),
            MountKind::Remount | MountKind::Reconfigure { .. } | MountKind::Cgroup => false,
        }
    }

    pub(crate) fn is_below_proc(&self) -> bool {
        self.target.starts_with("/proc") && self.target != Path::new("/proc")
    }

    /// A procfs, or what lies on one.
    pub(crate) fn is_on_procfs(&self) -> bool {
        self.is_kind("proc") || self.is_below_proc()
    }

    /// A new file system of this type.
    pub(crate) fn is_kind(&self, wanted: &str) -> bool {
        matches!(&self.kind, MountKind::New { kind, .. } if kind == wanted)
    }

    fn option(&mut self, option: &str, options: &mut Vec<(String, Option<String>)>) -> Result<(), RuntimeError> {
        // The access-time modes are one field of which all are to be cleared before one is set (mount_setattr(2)).
        const TIMES: u64 = libc::MOUNT_ATTR__ATIME;
        let (bare, below) = match option.strip_prefix('r') {
            Some(bare) if attribute(bare).is_some() && attribute(option).is_none() => (bare, true),
            _ => (option, false),
        };
        if let Some((set, clear)) = attribute(bare) {
            let times = if (set | clear) & TIMES != 0 || matches!(bare, "relatime" | "norelatime") { TIMES } else { 0 };
            self.set = self.set & !(clear | times) | set;
            self.clear |= set | clear | times;
            if below {
                self.set_below = self.set_below & !(clear | times) | set;
                self.clear_below |= set | clear | times;
            }
            return Ok(());
        }
        let (word, recursive) = match option.strip_prefix('r') {
            Some(word) if propagation_of(word).is_some() => (word, true),
            _ => (option, false),
        };
        let propagation = match propagation_of(word) {
            Some(propagation) => propagation,
            None if SO_ANYWAY.contains(&word) => return Ok(()),
            None => {
                let (key, value) = match option.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (option, None),
                };
                if key.is_empty() || option.contains('\0') {
                    return Err(invalid(format!("invalid mount option {option:?}")));
                }
                options.push((key.to_owned(), value));
                return Ok(());
            }
        };
        self.propagation = propagation;
        self.propagation_below = recursive;
        Ok(())
    }
}

/// An overlay by its options; `None`: it is another one, which is the kernel's to understand.
fn layers_of(options: &[(String, Option<String>)]) -> Option<MountKind> {
    let (mut lower, mut upper, mut work) = (Vec::new(), None, None);
    for (key, value) in options {
        let path = value.as_ref().map(PathBuf::from)?;
        match key.as_str() {
            "lowerdir+" => lower.push(path),
            "upperdir" if upper.is_none() => upper = Some(path),
            "workdir" if work.is_none() => work = Some(path),
            _ => return None,
        }
    }
    let written = match (upper, work) {
        (None, None) => None,
        (Some(upper), Some(work)) => Some(Written { upper, work }),
        _ => return None,
    };
    (!lower.is_empty()).then_some(MountKind::Layers { lower, written })
}

/// The file system shows a namespace that is not the container's own: a new one may be refused.
fn shown_namespace(kind: &str, plan: &Plan) -> bool {
    match kind {
        "proc" => !plan.is_new(libc::CLONE_NEWPID),
        "sysfs" => !plan.is_new(libc::CLONE_NEWNET),
        _ => false,
    }
}

fn planned_name(mount: &Mount) -> String {
    format!("the mount on {}", mount.destination().display())
}

/// `uids=0-1-10#10-11-10;gids=0-100-10` (crun(1), "idmap mount options"): on disk, on the host, how many. With `@` the
/// second is an id of the container.
fn id_map_of_option(text: &str, user_namespace: Option<&UserNamespace>) -> Result<IdMap, RuntimeError> {
    let wrong = || invalid(format!("idmap={text}: want uids=A-B-COUNT#…;gids=A-B-COUNT#…"));
    let container = user_namespace.and_then(UserNamespace::map);
    let ranges = |list: &str, container: Option<&[IdRange]>| -> Result<Vec<IdRange>, RuntimeError> {
        let (list, relative) = list.strip_prefix('@').map_or((list, false), |list| (list, true));
        let range = |part: &str| {
            let numbers: Option<Vec<u32>> = part.split('-').map(|number| number.parse().ok()).collect();
            let Some([inside, second, count]) = numbers.as_deref() else { return Err(wrong()) };
            let outside = match (relative, container) {
                (false, _) => *second,
                (true, Some(container)) => outside(container, *second).ok_or_else(|| {
                    invalid(format!("idmap={text}: {second} is not in the container's user namespace"))
                })?,
                (true, None) => return Err(invalid(format!("idmap={text}: @ needs a new user namespace"))),
            };
            Ok(IdRange { inside: *inside, outside, count: *count })
        };
        list.split('#').map(range).collect()
    };
    let mut map = IdMap { users: Vec::new(), groups: Vec::new() };
    for part in text.split(';').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("uids", list)) => map.users = ranges(list, container.map(|map| map.users.as_slice()))?,
            Some(("gids", list)) => map.groups = ranges(list, container.map(|map| map.groups.as_slice()))?,
            _ => return Err(wrong()),
        }
    }
    Ok(map)
}

/// What is mounted of a source, not all of it (mount(8)).
pub(crate) const PART: &str = "X-mount.subdir";
/// `UID:GID`, of which either may be missing: to whom, in the container, belongs what on disk is the source's owner's, whatever
/// user namespace it has. Ours.
pub const OWNER: &str = "X-dozen.owner";

/// The path of a mount namespace, in which the source of a bind is looked up, and has to be a tmpfs. Ours.
pub const FROM_NAMESPACE: &str = "X-dozen.namespace";

/// Options that say what is so without them. Of `silent` newer kernels know nothing: what they log of a mount is not asked
/// for by us.
const SO_ANYWAY: [&str; 7] = ["defaults", "loud", "silent", "async", "nomand", "noiversion", "nolazytime"];

/// Each has a sister, with `r` before it, that is for everything below too.
const PROPAGATIONS: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];

fn propagation_of(word: &str) -> Option<u64> {
    PROPAGATIONS.iter().find(|(known, _)| *known == word).map(|(_, propagation)| *propagation)
}

/// What kind of mount it is to be, and what the kernel does with any new file system (mount(8), "FILESYSTEM-INDEPENDENT
/// MOUNT OPTIONS").
const OTHER_OPTIONS: [&str; 10] =
    ["bind", "rbind", "remount", "tmpcopyup", "copy-symlink", "idmap", "ridmap", "dirsync", "lazytime", "sync"];

/// Every option that is known whatever is mounted, in order.
pub(crate) fn mount_options() -> Vec<String> {
    let plain = ATTRIBUTES.iter().map(|(name, _)| *name).chain(PROPAGATIONS.iter().map(|(name, _)| *name));
    let names = plain.flat_map(|name| [name.to_owned(), format!("r{name}")]);
    let mut names: Vec<String> =
        names.chain(SO_ANYWAY.iter().chain(&OTHER_OPTIONS).map(|name| (*name).to_owned())).collect();
    names.sort_unstable();
    names
}

/// NOSYMFOLLOW of MOUNT_ATTR_* (mount_setattr(2)).
const NOSYMFOLLOW: u64 = 0x0020_0000;

/// What an option of a mount itself sets and what it clears. Each has a sister, with `r` before it, that is for everything
/// below too.
const ATTRIBUTES: [(&str, (u64, u64)); 18] = [
    ("ro", (libc::MOUNT_ATTR_RDONLY, 0)),
    ("rw", (0, libc::MOUNT_ATTR_RDONLY)),
    ("nosuid", (libc::MOUNT_ATTR_NOSUID, 0)),
    ("suid", (0, libc::MOUNT_ATTR_NOSUID)),
    ("nodev", (libc::MOUNT_ATTR_NODEV, 0)),
    ("dev", (0, libc::MOUNT_ATTR_NODEV)),
    ("noexec", (libc::MOUNT_ATTR_NOEXEC, 0)),
    ("exec", (0, libc::MOUNT_ATTR_NOEXEC)),
    ("nodiratime", (libc::MOUNT_ATTR_NODIRATIME, 0)),
    ("diratime", (0, libc::MOUNT_ATTR_NODIRATIME)),
    ("noatime", (libc::MOUNT_ATTR_NOATIME, 0)),
    ("atime", (0, libc::MOUNT_ATTR_NOATIME)),
    ("strictatime", (libc::MOUNT_ATTR_STRICTATIME, 0)),
    ("nostrictatime", (0, libc::MOUNT_ATTR_STRICTATIME)),
    ("relatime", (0, 0)),
    ("norelatime", (0, 0)),
    ("nosymfollow", (NOSYMFOLLOW, 0)),
    ("symfollow", (0, NOSYMFOLLOW)),
];

fn attribute(option: &str) -> Option<(u64, u64)> {
    ATTRIBUTES.iter().find(|(known, _)| *known == option).map(|(_, change)| *change)
}
