//! One mount of a spec: its options (OCI runtime-spec, config.md, "Linux mount options") parted into what concerns the
//! mount, its propagation, and the file system itself.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::{clean, invalid, not_built};
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
    },
    /// A path of the host.
    Bind { source: PathBuf, recursive: bool },
    /// The container's view of the cgroups, whatever this machine has.
    Cgroup,
}

impl PlannedMount {
    pub(super) fn new(mount: &Mount, bundle: &Path) -> Result<Self, RuntimeError> {
        let target = clean(&Path::new("/").join(mount.destination()))?;
        if target == Path::new("/") {
            return Err(invalid("a mount on / would hide the root file system"));
        }
        check_place(&target)?;
        let id_mapped = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
        if id_mapped(mount.uid_mappings()) || id_mapped(mount.gid_mappings()) {
            return not_built("an idmapped mount");
        }
        let mut planned = Self {
            target,
            kind: MountKind::Cgroup,
            set: 0,
            clear: 0,
            set_below: 0,
            clear_below: 0,
            propagation: 0,
            propagation_below: false,
        };
        let kind = mount.typ().clone().unwrap_or_default();
        let mut bind = (kind == "bind").then_some(false);
        let mut options = Vec::new();
        for option in mount.options().iter().flatten() {
            match option.as_str() {
                "bind" => bind = bind.or(Some(false)),
                "rbind" => bind = Some(true),
                option => planned.option(option, &mut options)?,
            }
        }
        let source = mount.source().clone().unwrap_or_default();
        planned.kind = match bind {
            Some(recursive) => {
                if source.as_os_str().is_empty() {
                    return Err(invalid(format!("the bind on {} has no source", planned.target.display())));
                }
                if let Some((option, _)) = options.first() {
                    return Err(invalid(format!("the bind on {} has option {option:?}", planned.target.display())));
                }
                MountKind::Bind { source: bundle.join(source), recursive }
            }
            None if kind == "cgroup" || kind == "cgroup2" => MountKind::Cgroup,
            None if kind.is_empty() => {
                return Err(invalid(format!("the mount on {} has no type", planned.target.display())));
            }
            None => MountKind::New { kind, source: source.to_string_lossy().into_owned(), options },
        };
        Ok(planned)
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
            Some(word @ ("private" | "slave" | "shared" | "unbindable")) => (word, true),
            _ => (option, false),
        };
        let propagation = match word {
            "private" => libc::MS_PRIVATE,
            "slave" => libc::MS_SLAVE,
            "shared" => libc::MS_SHARED,
            "unbindable" => libc::MS_UNBINDABLE,
            "defaults" | "loud" | "async" | "nomand" | "noiversion" | "nolazytime" => return Ok(()),
            "tmpcopyup" | "idmap" | "ridmap" | "remount" | "copy-symlink" => {
                return not_built(format!("mount option {option:?}"));
            }
            _ => {
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

/// What an option sets and what it clears.
fn attribute(option: &str) -> Option<(u64, u64)> {
    const NOSYMFOLLOW: u64 = 0x0020_0000;
    Some(match option {
        "ro" => (libc::MOUNT_ATTR_RDONLY, 0),
        "rw" => (0, libc::MOUNT_ATTR_RDONLY),
        "nosuid" => (libc::MOUNT_ATTR_NOSUID, 0),
        "suid" => (0, libc::MOUNT_ATTR_NOSUID),
        "nodev" => (libc::MOUNT_ATTR_NODEV, 0),
        "dev" => (0, libc::MOUNT_ATTR_NODEV),
        "noexec" => (libc::MOUNT_ATTR_NOEXEC, 0),
        "exec" => (0, libc::MOUNT_ATTR_NOEXEC),
        "nodiratime" => (libc::MOUNT_ATTR_NODIRATIME, 0),
        "diratime" => (0, libc::MOUNT_ATTR_NODIRATIME),
        "noatime" => (libc::MOUNT_ATTR_NOATIME, 0),
        "atime" => (0, libc::MOUNT_ATTR_NOATIME),
        "strictatime" => (libc::MOUNT_ATTR_STRICTATIME, 0),
        "nostrictatime" => (0, libc::MOUNT_ATTR_STRICTATIME),
        "relatime" | "norelatime" => (0, 0),
        "nosymfollow" => (NOSYMFOLLOW, 0),
        "symfollow" => (0, NOSYMFOLLOW),
        _ => return None,
    })
}
