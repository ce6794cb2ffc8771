//! Places in a root that is hostile, by descriptor: found, and made if they are missing.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::RootTree;
use crate::error::{Context, RuntimeError};

impl RootTree {
    /// Opens a path in the root, by descriptor only; links stay inside.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_inside(&self.root, path, flags)
    }

    /// The same for what lies on one of the system's own mounts: on that mount, wherever it is by now.
    pub(super) fn open_on_own(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let own = self.own.borrow();
        let below = |(target, mount)| Some((mount, path.strip_prefix(target).ok()?));
        let beside = |(_, rest): &(&OwnedFd, &Path)| !rest.as_os_str().is_empty();
        match own.iter().rev().map(|(target, mount)| (target, mount)).find_map(below).filter(beside) {
            Some((mount, rest)) => open_inside(mount, rest, flags),
            None => self.open(path, flags),
        }
    }

    /// A path in the root, made if it is missing: directories, and an empty file or a directory at its end. Links are
    /// followed inside the root, also those that lead to what is not there yet, as /etc/resolv.conf often does.
    pub(super) fn make(&self, path: &Path, directory: bool) -> Result<OwnedFd, RuntimeError> {
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            result => return result.context(|| format!("open {} in the root", path.display())),
        }
        let (parent, name) = self.parent(path)?;
        make_entry(&parent, name, directory).context(|| format!("make {} in the root", path.display()))?;
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => self.make_behind_links(path, directory),
            result => result.context(|| format!("open {} in the root", path.display())),
        }
    }

    /// As [`RootTree::make`], link by link. `at` never holds a link that has not been followed, and is looked up from
    /// the root each time: who swaps a directory for a link meanwhile makes this fail.
    fn make_behind_links(&self, path: &Path, directory: bool) -> Result<OwnedFd, RuntimeError> {
        let context = || format!("make {} in the root", path.display());
        let parts = |path: &Path| -> Vec<OsString> {
            let plain = |part: Component<'_>| match part {
                Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
                _ => None,
            };
            path.components().rev().filter_map(plain).collect()
        };
        let (mut rest, mut at, mut links) = (parts(path), PathBuf::from("/"), 0);
        while let Some(part) = rest.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            let parent = self.open_without_links(&at, OFlags::PATH | OFlags::DIRECTORY).context(context)?;
            match rustix::fs::readlinkat(&parent, &part, Vec::new()) {
                Ok(target) => {
                    links += 1;
                    if links > 40 {
                        return Err(RuntimeError::system(context(), Errno::LOOP));
                    }
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    rest.extend(parts(&target));
                    continue;
                }
                Err(Errno::NOENT) => make_entry(&parent, &part, directory || !rest.is_empty()).context(context)?,
                // There, and no link.
                Err(Errno::INVAL) => {}
                Err(errno) => return Err(RuntimeError::system(context(), errno)),
            }
            at.push(part);
        }
        self.open_without_links(&at, OFlags::PATH).context(context)
    }

    /// Opens a path of which no part is a link.
    pub(super) fn open_without_links(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_resolved(&self.root, path, flags, ResolveFlags::NO_SYMLINKS)
    }

    /// The directory that holds the last part of a path, made if it is missing, and that part.
    pub(super) fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), RuntimeError> {
        let name = path.file_name().ok_or_else(|| RuntimeError::Invalid(format!("{} has no name", path.display())))?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.make(parent, true)?, name))
    }

    /// Where proc, sysfs, cgroups and /dev go: a directory by every part of its name, made if it is missing. A link
    /// there would lead the mount, and with it the masks, to another place than the process looks at.
    pub(super) fn own_directory(&self, path: &Path) -> Result<OwnedFd, RuntimeError> {
        let context = || format!("make {} in the root", path.display());
        let open = || self.open_without_links(path, OFlags::PATH | OFlags::DIRECTORY);
        let opened = match (open(), path.parent(), path.file_name()) {
            (Err(Errno::NOENT), Some(parent), Some(name)) => {
                make_entry(&self.own_directory(parent)?, name, true).context(context)?;
                open()
            }
            (opened, ..) => opened,
        };
        match opened {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                Err(RuntimeError::Invalid(format!("{} in the root must be an ordinary directory", path.display())))
            }
            opened => opened.context(context),
        }
    }
}

/// A new directory or an empty file; what is there already is left as it is, a link too.
pub(super) fn make_entry(parent: &OwnedFd, name: &OsStr, directory: bool) -> Result<(), Errno> {
    let made = if directory {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// openat2(2) below `root` as if it were `/`.
pub(crate) fn open_inside(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_resolved(root, path, flags, ResolveFlags::NO_MAGICLINKS)
}

/// The kernel answers EAGAIN when something was renamed meanwhile. Whoever keeps renaming is not let in by that.
fn open_resolved(root: impl AsFd, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let resolve = resolve | ResolveFlags::IN_ROOT;
    for _ in 0..128 {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}
