//! A cgroup of its own for every cell, in every hierarchy: the engines in it see it as the root (cgroup_namespaces(7)),
//! and what they leave goes with it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};

use crate::failure::{Attempt, Failure};

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    mount_point: PathBuf,
    /// What mount(2) is told to mount it again; empty for version 2.
    options: String,
}

impl Hierarchy {
    fn unified(&self) -> bool {
        self.options.is_empty()
    }
}

/// Options of a mounted hierarchy that do not say which one it is (cgroups(7)).
const NOT_ITS_NAME: [&str; 5] = ["rw", "ro", "xattr", "noprefix", "clone_children"];

/// The hierarchies in a text of the form of /proc/self/mountinfo. Version 2 counts only where it stands alone: beside
/// version 1 it governs nothing, and crun refuses it as soon as a controller is left to it.
fn parse(mount_table: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mount_table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (left, right): (Vec<&str>, Vec<&str>) = (left.split(' ').collect(), right.split(' ').collect());
        let (Some(mount_point), &[kind, _, options]) = (left.get(4), right.as_slice()) else { continue };
        let options = match kind {
            "cgroup2" => String::new(),
            "cgroup" => {
                let says_which =
                    |option: &&str| !NOT_ITS_NAME.contains(option) && !option.starts_with("release_agent=");
                let named: Vec<&str> = options.split(',').filter(says_which).collect();
                // A hierarchy without controllers has a name only, and asks for `none` (cgroups(7)).
                let prefix = if named.iter().all(|option| option.starts_with("name=")) { "none," } else { "" };
                format!("{prefix}{}", named.join(","))
            }
            _ => continue,
        };
        if !found.iter().any(|known| known.options == options) {
            found.push(Hierarchy { mount_point: PathBuf::from(mount_point), options });
        }
    }
    if found.iter().any(|hierarchy| !hierarchy.unified()) {
        found.retain(|hierarchy| !hierarchy.unified());
    }
    found
}

fn of_this_host() -> Result<Vec<Hierarchy>, Failure> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").attempting("read /proc/self/mountinfo")?;
    let found = parse(&table);
    if found.is_empty() {
        return Err(Failure::new("no cgroup hierarchy is mounted on this machine, and no engine runs without"));
    }
    Ok(found)
}

/// In words, for the report's head.
pub fn described() -> Result<&'static str, Failure> {
    Ok(if of_this_host()?.iter().all(Hierarchy::unified) { "cgroup v2" } else { "cgroup v1" })
}

/// Makes the cgroup `name` in every hierarchy and moves this process into it.
pub fn enter(name: &str) -> Result<(), Failure> {
    for hierarchy in of_this_host()? {
        let (parent, own) = (&hierarchy.mount_point, hierarchy.mount_point.join(name));
        std::fs::create_dir(&own).attempting(format_args!("make cgroup {}", own.display()))?;
        // cpuset(7): in version 1 no process may enter before these are set.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (false, Ok(value)) = (hierarchy.unified(), std::fs::read(parent.join(file))) {
                std::fs::write(own.join(file), value).attempting(format_args!("set {file} in {}", own.display()))?;
            }
        }
        if hierarchy.unified() {
            delegate(parent)?;
        }
        std::fs::write(own.join("cgroup.procs"), "0").attempting(format_args!("enter cgroup {}", own.display()))?;
    }
    Ok(())
}

/// Version 2: every controller that there is goes on to the children.
fn delegate(cgroup: &Path) -> Result<(), Failure> {
    let controllers = std::fs::read_to_string(cgroup.join("cgroup.controllers")).unwrap_or_default();
    let words: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    std::fs::write(cgroup.join("cgroup.subtree_control"), words.join(" "))
        .attempting(format_args!("delegate controllers below {}", cgroup.display()))
}

/// Mounts the hierarchies anew at `target`, inside the cell, where the cell's cgroup is their root.
pub fn mount_at(target: &Path) -> Result<(), Failure> {
    let hierarchies = of_this_host()?;
    if let [only] = hierarchies.as_slice()
        && only.unified()
    {
        mount("cgroup2", target, "cgroup2", MountFlags::empty(), None).attempting("mount cgroup v2")?;
        // A cgroup with processes cannot hand controllers on: the cell's own processes move aside
        // (Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint").
        let aside = target.join("bench");
        std::fs::create_dir(&aside).attempting(format_args!("make cgroup {}", aside.display()))?;
        let own = std::fs::read_to_string(target.join("cgroup.procs")).attempting("read the cell's processes")?;
        for pid in own.lines().filter(|pid| *pid != "0") {
            std::fs::write(aside.join("cgroup.procs"), pid).attempting("move the cell's processes aside")?;
        }
        return delegate(target);
    }
    mount("tmpfs", target, "tmpfs", MountFlags::empty(), Some(c"mode=755")).attempting("mount a tmpfs for cgroups")?;
    for hierarchy in hierarchies {
        let name = hierarchy.mount_point.file_name().unwrap_or_default().to_owned();
        let point = target.join(name);
        std::fs::create_dir_all(&point).attempting(format_args!("make {}", point.display()))?;
        let options = std::ffi::CString::new(hierarchy.options.clone()).expect("a mount table has no zero bytes");
        mount("cgroup", &point, "cgroup", MountFlags::empty(), options.as_c_str())
            .attempting(format_args!("mount cgroup {}", hierarchy.options))?;
    }
    Ok(())
}

/// Which processor time.
#[derive(Clone, Copy)]
pub enum Time {
    All,
    /// What was spent in the kernel.
    Kernel,
}

/// Processor time that all processes of this cell have used since it began. Load on the machine does not stretch it as
/// it stretches a clock's time.
pub fn processor_time(of: Time) -> Result<Duration, Failure> {
    let root = Path::new("/sys/fs/cgroup");
    let entries = std::fs::read_dir(root).attempting("read /sys/fs/cgroup")?.flatten().map(|entry| entry.path());
    let time = entries.chain([root.to_owned()]).find_map(|cgroup| usage(&cgroup, of));
    time.ok_or_else(|| Failure::new("the cgroup does not say how much processor time was used"))
}

/// The same, seen from outside, of all cells whose cgroups' names start so.
pub fn processor_time_of(prefix: &str) -> Result<Duration, Failure> {
    let roots =
        of_this_host()?.into_iter().flat_map(|h| std::fs::read_dir(h.mount_point).into_iter().flatten().flatten());
    let cells = roots.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    Ok(cells.filter_map(|entry| usage(&entry.path(), Time::All)).sum())
}

/// Version 1 counts nanoseconds, in one hierarchy (Documentation/admin-guide/cgroup-v1/cpuacct.rst), version 2
/// microseconds (Documentation/admin-guide/cgroup-v2.rst).
fn usage(cgroup: &Path, of: Time) -> Option<Duration> {
    let read = |file: &str| std::fs::read_to_string(cgroup.join(file)).ok();
    let (version_1, version_2) = match of {
        Time::All => ("cpuacct.usage", "usage_usec "),
        Time::Kernel => ("cpuacct.usage_sys", "system_usec "),
    };
    match read(version_1) {
        Some(text) => text.trim().parse().ok().map(Duration::from_nanos),
        None => {
            let text = read("cpu.stat")?;
            let value = text.lines().find_map(|line| line.strip_prefix(version_2))?;
            value.parse().ok().map(Duration::from_micros)
        }
    }
}

/// Removes every cgroup whose name starts so, as soon as the last process in it is gone.
pub fn remove(prefix: &str, patience: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    for hierarchy in of_this_host()? {
        for entry in std::fs::read_dir(&hierarchy.mount_point).into_iter().flatten().flatten() {
            if !entry.file_name().to_string_lossy().starts_with(prefix) {
                continue;
            }
            while let Err(error) = remove_tree(&entry.path()) {
                if error.kind() != ErrorKind::ResourceBusy || Instant::now() > deadline {
                    return Err(Failure::new(format!("cannot remove cgroup {}: {error}", entry.path().display())));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    Ok(())
}

fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(cgroup) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_counts_only_alone() {
        let check = |table: &str, expected: &[(&str, &str)]| {
            let found: Vec<_> =
                parse(table).into_iter().map(|h| (h.mount_point.display().to_string(), h.options)).collect();
            let expected: Vec<_> = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            assert_eq!(found, expected);
        };
        check("30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate", &[("/sys/fs/cgroup", "")]);
        let hybrid = "1 2 0:3 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      2 2 0:4 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      3 2 0:5 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
                      4 2 0:6 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      5 2 0:4 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct";
        let expected = [("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"), ("/sys/fs/cgroup/systemd", "none,name=systemd")];
        check(hybrid, &expected);
        check("nonsense\n1 2 0:3 / / rw - ext4 /dev/vda rw", &[]);
    }
}
