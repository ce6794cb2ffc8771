//! Which hierarchies this machine has, and where.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Context, RuntimeError};

/// Every mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupLayout {
    hierarchies: Vec<Hierarchy>,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    mount_point: PathBuf,
    /// Version 1: what its mount's options name, such as `cpu` and `cpuacct`, or `name=systemd`. Version 2: what
    /// its root's cgroup.controllers lists.
    controllers: Vec<String>,
    unified: bool,
}

impl Hierarchy {
    /// Where the cgroup of this name (relative) is.
    pub(crate) fn directory(&self, name: &Path) -> PathBuf {
        self.mount_point.join(name)
    }

    pub(crate) fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Version 2.
    pub(crate) fn is_unified(&self) -> bool {
        self.unified
    }

    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|known| known == controller)
    }
}

impl CgroupLayout {
    /// This machine's, found once.
    pub fn of_host() -> Result<&'static Self, RuntimeError> {
        static LAYOUT: OnceLock<CgroupLayout> = OnceLock::new();
        if let Some(layout) = LAYOUT.get() {
            return Ok(layout);
        }
        let mounts =
            std::fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo".to_owned())?;
        let mut layout = Self::parse(&mounts);
        for hierarchy in layout.hierarchies.iter_mut().filter(|hierarchy| hierarchy.unified) {
            let list = std::fs::read_to_string(hierarchy.mount_point.join("cgroup.controllers")).unwrap_or_default();
            hierarchy.controllers = list.split_whitespace().map(str::to_owned).collect();
        }
        if layout.hierarchies.is_empty() {
            return Err(RuntimeError::NotFound("no cgroup hierarchy is mounted".to_owned()));
        }
        Ok(LAYOUT.get_or_init(|| layout))
    }

    /// Reads mountinfo (proc_pid_mountinfo(5)). The first mount of a hierarchy counts; one whose root is above our
    /// cgroup namespace (`/..`) cannot be used.
    pub(crate) fn parse(mountinfo: &str) -> Self {
        const NOT_CONTROLLERS: [&str; 7] =
            ["rw", "ro", "xattr", "noprefix", "clone_children", "relatime", "favordynmods"];
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            let Some((mount, system)) = line.split_once(" - ") else { continue };
            let mut mount = mount.split(' ').skip(3);
            let (Some(root), Some(mount_point)) = (mount.next(), mount.next()) else { continue };
            let mut system = system.split(' ');
            let (kind, options) = (system.next().unwrap_or(""), system.nth(1).unwrap_or(""));
            let unified = kind == "cgroup2";
            if !(unified || kind == "cgroup") || root.starts_with("/..") {
                continue;
            }
            let is_controller =
                |option: &&str| !NOT_CONTROLLERS.contains(option) && !option.starts_with("release_agent=");
            let controllers: Vec<String> = match unified {
                true => Vec::new(),
                false => options.split(',').filter(is_controller).map(str::to_owned).collect(),
            };
            if !hierarchies.iter().any(|known| known.unified == unified && known.controllers == controllers) {
                hierarchies.push(Hierarchy { mount_point: unescape(mount_point), controllers, unified });
            }
        }
        Self { hierarchies }
    }

    /// As a machine whose version 2 has these controllers.
    #[cfg(test)]
    pub(crate) fn with_unified_controllers(mut self, controllers: &[&str]) -> Self {
        for hierarchy in self.hierarchies.iter_mut().filter(|hierarchy| hierarchy.unified) {
            hierarchy.controllers = controllers.iter().map(|&name| name.to_owned()).collect();
        }
        self
    }

    pub(crate) fn hierarchies(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.iter()
    }

    /// The one of version 2, also beside others.
    pub(crate) fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.unified)
    }

    /// The one that has this controller.
    pub(crate) fn controller(&self, name: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.has(name))
    }

    /// Where the hierarchy that has this controller is mounted, and whether it is version 2's.
    pub fn mount_of(&self, controller: &str) -> Option<(&Path, bool)> {
        self.controller(controller).map(|hierarchy| (hierarchy.mount_point(), hierarchy.is_unified()))
    }

    /// Version 2 and nothing else.
    pub(crate) fn is_unified(&self) -> bool {
        self.hierarchies.iter().all(|hierarchy| hierarchy.unified)
    }
}

/// mountinfo writes blanks and backslashes as `\040`.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'\\').then(|| after.get(..3)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(mountinfo: &str) -> Vec<(String, Vec<String>, bool)> {
        let layout = CgroupLayout::parse(mountinfo);
        let one = |h: &Hierarchy| (h.mount_point.display().to_string(), h.controllers.clone(), h.unified);
        layout.hierarchies().map(one).collect()
    }

    #[test]
    fn version_1_hybrid_and_version_2() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(summary(v2), [("/sys/fs/cgroup".to_owned(), vec![], true)]);
        assert!(CgroupLayout::parse(v2).is_unified());
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
            99 31 0:29 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let layout = CgroupLayout::parse(hybrid);
        assert_eq!(layout.hierarchies().count(), 3);
        assert!(!layout.is_unified() && layout.unified().is_some());
        assert_eq!(layout.controller("cpuacct").unwrap().mount_point(), Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(layout.controller("name=systemd").unwrap().mount_point(), Path::new("/sys/fs/cgroup/systemd"));
    }

    #[test]
    fn what_is_no_usable_hierarchy_is_left_out() {
        assert_eq!(summary(""), []);
        assert_eq!(summary("x\n1 2 - cgroup\n32 31 0:29 /../.. /c rw - cgroup cgroup rw,cpu"), []);
        assert_eq!(summary("1 2 0:3 / /a\\040b rw - cgroup2 none rw")[0].0, "/a b");
    }
}
