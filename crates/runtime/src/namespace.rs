//! Namespaces that others have made, by path.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, RuntimeError};
use crate::sys;

/// linux/magic.h.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Opens one that is of this kind, a CLONE_NEW*: another is an error (config-linux.md, "Namespaces"). What else may lie at
/// the path, be it a pipe that nobody writes to or a device, is not opened at all. Before the host's procfs is left.
pub(crate) fn open(path: &Path, kind: libc::c_int) -> Result<OwnedFd, RuntimeError> {
    let context = || format!("join namespace {}", path.display());
    let other = || {
        let what = name(kind);
        RuntimeError::Invalid(format!("join namespace {}: it is no {what} namespace", path.display()))
    };
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(context)?;
    if rustix::fs::fstatfs(&place).context(context)?.f_type != NSFS_MAGIC {
        return Err(other());
    }
    let again = format!("/proc/self/fd/{}", place.as_raw_fd());
    let file = rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context(context)?;
    if sys::namespace_kind(&file).context(context)? != kind {
        return Err(other());
    }
    Ok(file)
}

/// By which it is told from all others of its kind.
pub(crate) fn identity(namespace: impl AsFd) -> Result<(u64, u64), RuntimeError> {
    let status = rustix::fs::fstat(namespace).context(|| "examine a namespace".to_owned())?;
    Ok((status.st_dev, status.st_ino))
}

/// Whether two descriptors, or a descriptor and a path, are of one namespace.
pub(crate) fn is_that_of(namespace: impl AsFd, path: &str) -> Result<bool, Errno> {
    let (one, other) = (rustix::fs::fstat(namespace)?, rustix::fs::stat(path)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// As config-linux.md calls it.
fn name(kind: libc::c_int) -> &'static str {
    match kind {
        libc::CLONE_NEWNS => "mount",
        libc::CLONE_NEWUSER => "user",
        libc::CLONE_NEWPID => "pid",
        libc::CLONE_NEWNET => "network",
        libc::CLONE_NEWIPC => "ipc",
        libc::CLONE_NEWUTS => "uts",
        libc::CLONE_NEWCGROUP => "cgroup",
        libc::CLONE_NEWTIME => "time",
        _ => "such",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namespace_of_the_right_kind_is_opened() {
        assert!(open(Path::new("/proc/self/ns/mnt"), libc::CLONE_NEWNS).is_ok());
        let directory = tempfile::tempdir().unwrap();
        let (pipe, file) = (directory.path().join("pipe"), directory.path().join("file"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR).unwrap();
        std::fs::write(&file, "").unwrap();
        for path in ["/proc/self/ns/net", "/proc/self/status", "/", "/dev/null"]
            .map(Path::new)
            .into_iter()
            .chain([&*pipe, &file])
        {
            let error = open(path, libc::CLONE_NEWNS).unwrap_err().to_string();
            assert!(error.ends_with("it is no mount namespace"), "{error}");
        }
    }
}
