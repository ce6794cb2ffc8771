//! The box's part of every cgroup hierarchy of the host, v1, hybrid or v2.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// `/sys/fs/cgroup/memory`, or `/sys/fs/cgroup`.
    pub mount_point: PathBuf,
    /// `cgroup` or `cgroup2`.
    pub kind: String,
    /// What mount(8) is told to mount the same one again: `memory`, `none,name=systemd`, or nothing for v2.
    pub options: String,
}

/// All of this host's, from `/proc/self/mountinfo` (proc(5)).
pub fn hierarchies() -> Vec<Hierarchy> {
    parse(&fs::read_to_string("/proc/self/mountinfo").unwrap())
}

fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, file_system)) = line.split_once(" - ") else { continue };
        let fields: Vec<&str> = file_system.split(' ').collect();
        let (Some(mount_point), [kind, _, options]) = (mount.split(' ').nth(4), fields.as_slice()) else { continue };
        let options = match *kind {
            "cgroup" => v1_options(options),
            "cgroup2" => String::new(),
            _ => continue,
        };
        let hierarchy = Hierarchy { mount_point: mount_point.into(), kind: (*kind).to_owned(), options };
        if !found.iter().any(|other| (&other.kind, &other.options) == (&hierarchy.kind, &hierarchy.options)) {
            found.push(hierarchy);
        }
    }
    found
}

fn v1_options(options: &str) -> String {
    let about_the_mount =
        |word: &&str| !["rw", "ro", "xattr", "clone_children"].contains(word) && !word.starts_with("release_agent=");
    let words: Vec<&str> = options.split(',').filter(about_the_mount).collect();
    // A named hierarchy without controllers has to say so (kernel: admin-guide/cgroup-v1/cgroups.rst, 2.3).
    let named_only = words.iter().all(|word| word.starts_with("name="));
    if named_only { format!("none,{}", words.join(",")) } else { words.join(",") }
}

/// A directory of one name in every hierarchy.
#[derive(Debug)]
pub struct Cgroups {
    /// The hierarchies that it is in.
    pub hierarchies: Vec<Hierarchy>,
    name: String,
}

impl Cgroups {
    /// Makes the directories, ready to be lived in.
    pub fn create(name: &str) -> io::Result<Self> {
        let cgroups = Self { hierarchies: hierarchies(), name: name.to_owned() };
        for hierarchy in &cgroups.hierarchies {
            if hierarchy.kind == "cgroup2" {
                enable_controllers(&hierarchy.mount_point);
            }
            let directory = hierarchy.mount_point.join(name);
            fs::create_dir(&directory)?;
            // cgroup-v1/cpusets.rst: a new cpuset has no processors and no memory, and takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if hierarchy.kind == "cgroup" && directory.join(file).exists() {
                    fs::write(directory.join(file), fs::read(hierarchy.mount_point.join(file))?)?;
                }
            }
        }
        Ok(cgroups)
    }

    /// Seen from the host.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|hierarchy| hierarchy.mount_point.join(&self.name)).collect()
    }

    /// Every process in it, at any depth.
    pub fn processes(&self) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        for directory in self.directories() {
            visit(&directory, &mut |path| {
                let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
                found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            });
        }
        // 0 is a process that this pid namespace does not see.
        found.remove(&0);
        found
    }

    /// The directories below it, relative to it, in any hierarchy.
    pub fn below(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for directory in self.directories() {
            visit(&directory, &mut |path| {
                found.extend(path.strip_prefix(&directory).ok().map(|path| path.display().to_string()));
            });
        }
        found
    }

    /// Removes the directories, the deepest first; answers what could not be removed.
    pub fn remove(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for directory in self.directories() {
            let mut all = Vec::new();
            visit(&directory, &mut |path| all.push(path.to_owned()));
            for path in all.into_iter().rev() {
                match fs::remove_dir(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        problems.push(format!("cgroup {}: {error}", path.display()));
                    }
                    _ => {}
                }
            }
        }
        problems
    }
}

/// A parent before what is in it.
fn visit(directory: &Path, look: &mut dyn FnMut(&Path)) {
    look(directory);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path(), look);
        }
    }
}

/// Hands every controller down; one that cannot be is one that the host keeps for itself.
fn enable_controllers(directory: &Path) {
    let controllers = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_a_hybrid_host() {
        let found = parse(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
             50 31 0:38 / /other rw - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        let shown: Vec<_> = found.iter().map(|h| (h.mount_point.to_str().unwrap(), h.options.as_str())).collect();
        let expected = [
            ("/sys/fs/cgroup/memory", "memory"),
            ("/sys/fs/cgroup/systemd", "none,name=systemd"),
            ("/sys/fs/cgroup/unified", ""),
        ];
        assert_eq!(shown, expected);
    }
}
