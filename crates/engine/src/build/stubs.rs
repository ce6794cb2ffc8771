//! What a container needs to stand in a root, and a layer is not to have: places of mounts that the root did not have
//! before, empty as they were made, and the directories that were only made or touched for them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use dozen_model::Mount;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::container::difference::MADE;
use crate::container::files;

/// Places that a root may not have had before a step. Relative, without `.` and `..`.
#[derive(Debug)]
pub(super) struct Stubs(BTreeSet<PathBuf>);

impl Stubs {
    /// Those of every container, and those of these mounts.
    pub(super) fn of(mounts: &[Mount]) -> Self {
        let all = MADE.iter().map(PathBuf::from).chain(files::BOUND.iter().map(|(_, target)| PathBuf::from(target)));
        let all = all.chain(mounts.iter().map(|mount| mount.target.clone()));
        Self(all.map(|path| path.strip_prefix("/").map_or(path.clone(), Path::to_owned)).collect())
    }

    /// Takes out of an upper directory, which nobody has mounted any more, what `below` has not and is as empty as it was
    /// made. Nothing of the two is followed. Blocks.
    pub(super) fn clear(&self, below: BorrowedFd<'_>, upper: &Path) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = rustix::fs::openat(CWD, upper, flags, Mode::empty())?;
        // What is in a directory goes before it.
        for path in self.0.iter().rev() {
            let is_stub =
                stat(upper.as_fd(), path)?.is_some_and(|found| match FileType::from_raw_mode(found.st_mode) {
                    FileType::RegularFile => found.st_size == 0,
                    FileType::Symlink => MADE.iter().any(|made| Path::new(made) == path),
                    kind => kind == FileType::Directory,
                });
            if is_stub && stat(below, path)?.is_none() {
                remove(upper.as_fd(), path)?;
            }
            let above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
            for directory in above {
                restore(below, upper.as_fd(), directory)?;
            }
        }
        Ok(())
    }
}

/// A directory that stubs were in: it goes if it was made for them, or if nothing in it is another than below.
fn restore(below: BorrowedFd<'_>, upper: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    let Some(ours) = stat(upper, path)? else { return Ok(()) };
    // A link of the step's own leads to where the stub was made.
    if FileType::from_raw_mode(ours.st_mode) != FileType::Directory {
        return Ok(());
    }
    let Some(theirs) = stat(below, path)? else { return remove(upper, path) };
    let said = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    if said(&ours) != said(&theirs) {
        return Ok(());
    }
    let Ok(directory) = open(upper, path) else { return Ok(()) };
    let mut value = [0; 2];
    let is_opaque = rustix::fs::fgetxattr(&directory, c"trusted.overlay.opaque", &mut value).is_ok();
    if is_opaque {
        return Ok(());
    }
    let mtime = Timespec { tv_sec: theirs.st_mtime, tv_nsec: theirs.st_mtime_nsec.try_into().unwrap_or(0) };
    rustix::fs::futimens(&directory, &Timestamps { last_access: mtime, last_modification: mtime })?;
    remove(upper, path)
}

/// If it is a directory that is not empty, it stays.
fn remove(root: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    let Some(found) = stat(root, path)? else { return Ok(()) };
    let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
    let above = open(root, above)?;
    let flags = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => AtFlags::REMOVEDIR,
        _ => AtFlags::empty(),
    };
    match rustix::fs::unlinkat(&above, name, flags) {
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

fn open(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// What is there, if all above it are directories.
fn stat(root: BorrowedFd<'_>, path: &Path) -> Result<Option<Stat>, Errno> {
    let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
    let absent = |error| match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Ok(None),
        error => Err(error),
    };
    let above = match open(root, above) {
        Ok(above) => above,
        Err(error) => return absent(error),
    };
    rustix::fs::statat(&above, name, AtFlags::SYMLINK_NOFOLLOW).map(Some).or_else(absent)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_what_was_made_for_mounts_goes() {
        let place = tempfile::tempdir().unwrap();
        let (below, upper) = (place.path().join("below"), place.path().join("upper"));
        for directory in ["below/etc", "upper/etc", "upper/dev/shm", "upper/proc", "upper/run/secrets", "upper/sys"] {
            fs::create_dir_all(place.path().join(directory)).unwrap();
        }
        fs::write(below.join("etc/hostname"), "").unwrap();
        for file in ["etc/hostname", "etc/hosts", "run/secrets/a", ".dockerenv"] {
            fs::write(upper.join(file), "").unwrap();
        }
        fs::write(upper.join("etc/resolv.conf"), "of the step's").unwrap();
        fs::write(upper.join("sys/own"), "").unwrap();
        std::os::unix::fs::symlink("/nowhere", upper.join("linked")).unwrap();
        let all = ["run/secrets/a", "linked/x"].map(PathBuf::from);
        let stubs = Stubs(Stubs::of(&[]).0.into_iter().chain(all).collect());
        let root = rustix::fs::openat(CWD, &below, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        stubs.clear(root.as_fd(), &upper).unwrap();
        let mut left: Vec<String> = walk(&upper).iter().map(|path| path.display().to_string()).collect();
        left.sort();
        assert_eq!(left, ["etc", "etc/hostname", "etc/resolv.conf", "linked", "sys", "sys/own"]);
    }

    fn walk(root: &Path) -> Vec<PathBuf> {
        fn go(root: &Path, at: &Path, all: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                all.push(path.strip_prefix(root).unwrap().to_owned());
                if path.is_dir() && !path.is_symlink() {
                    go(root, &path, all);
                }
            }
        }
        let mut all = Vec::new();
        go(root, root, &mut all);
        all
    }
}
