//! Version 1's processors and memory nodes: a new cgroup has none, and takes no process (cgroup-v1/cpusets.rst), unless its
//! parent's `cgroup.clone_children` has been set before.

use std::fs;
use std::path::{Path, PathBuf};

use super::control::write;
use crate::error::{Context, RuntimeError};

/// Gives a cgroup, and those above it, what the nearest of them has, where they have none.
pub(super) fn inherit(mount_point: &Path, name: &Path) -> Result<(), RuntimeError> {
    let read = |file: &Path| -> Result<String, RuntimeError> {
        let text = fs::read_to_string(file).context(|| format!("read {}", file.display()))?;
        Ok(text.trim().to_owned())
    };
    // Both are set, or neither: so it is one file that is read where there is nothing to do.
    if !read(&mount_point.join(name).join("cpuset.cpus"))?.is_empty() {
        return Ok(());
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut without: Vec<PathBuf> = Vec::new();
        for above in name.ancestors() {
            let path = mount_point.join(above).join(file);
            let value = read(&path)?;
            if !value.is_empty() {
                // From the top: none has what its parent has not.
                without.iter().rev().try_for_each(|path| write(path, &value))?;
                break;
            }
            without.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_as_the_nearest_above() {
        let root = tempfile::tempdir().unwrap();
        let mut directory = root.path().to_path_buf();
        for (name, cpus, mems) in [("", "0-7\n", "0\n"), ("a", "1-3\n", "\n"), ("b", "\n", "\n"), ("c", "\n", "\n")] {
            directory.push(name);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cpuset.cpus"), cpus).unwrap();
            fs::write(directory.join("cpuset.mems"), mems).unwrap();
        }
        inherit(root.path(), Path::new("a/b/c")).unwrap();
        for (name, cpus, mems) in [("", "0-7", "0"), ("a", "1-3", "0"), ("a/b", "1-3", "0"), ("a/b/c", "1-3", "0")] {
            let value = |file| fs::read_to_string(root.path().join(name).join(file)).unwrap().trim().to_owned();
            assert_eq!((value("cpuset.cpus").as_str(), value("cpuset.mems").as_str()), (cpus, mems), "{name}");
        }
        // What it has is its own.
        fs::write(root.path().join("a/b/cpuset.cpus"), "2").unwrap();
        inherit(root.path(), Path::new("a/b")).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("a/b/cpuset.cpus")).unwrap(), "2");
    }
}
