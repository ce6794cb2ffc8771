//! A way through a directory tree of any depth: a constant number of descriptors, nothing on the stack, and no path
//! longer than one name. How deep a container nests its directories is its own choice, and costs only heap.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// One directory at or below a root, and how it was reached.
///
/// Down it goes by name, up by `..`, which whoever moves directories meanwhile can make lead anywhere: so it is
/// compared with where the way down came from. Neither leaves the root's mount or follows a link.
pub(crate) struct Climber<'a> {
    root: BorrowedFd<'a>,
    /// `None`: the root.
    here: Option<OwnedFd>,
    /// The names from the root down to here.
    passed: Vec<Step>,
}

struct Step {
    name: CString,
    identity: Identity,
}

/// Device and inode: of a directory that is open they are nobody else's.
type Identity = (u64, u64);

/// Where [`Climber::leave`] came from.
pub(crate) struct Left {
    /// Its name in the directory that is now here.
    pub(crate) name: CString,
    /// Someone had moved it, or one above it: what is here now is the lowest directory of the way that is still there.
    pub(crate) moved: bool,
}

impl<'a> Climber<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, here: None, passed: Vec::new() }
    }

    pub(crate) fn here(&self) -> BorrowedFd<'_> {
        self.here.as_ref().map_or(self.root, AsFd::as_fd)
    }

    /// How many names below the root it is.
    pub(crate) fn depth(&self) -> usize {
        self.passed.len()
    }

    /// The names from the root to here.
    pub(crate) fn path(&self) -> impl Iterator<Item = &CStr> {
        self.passed.iter().map(|step| step.name.as_c_str())
    }

    /// Goes into a directory that is here.
    ///
    /// # Errors
    /// It cannot be opened, is no directory, or is a mount; then nothing has changed.
    pub(crate) fn enter(&mut self, name: CString) -> Result<()> {
        let (directory, identity) = open_step(self.here(), &name)?;
        self.here = Some(directory);
        self.passed.push(Step { name, identity });
        Ok(())
    }

    /// Goes up; `None` at the root. More than one directory up only if some have been moved meanwhile.
    pub(crate) fn leave(&mut self) -> Option<Left> {
        let Step { name, .. } = self.passed.pop()?;
        let expected = match self.passed.last() {
            None => {
                self.here = None;
                return Some(Left { name, moved: false });
            }
            Some(above) => above.identity,
        };
        match open_step(self.here(), c"..") {
            Ok((above, identity)) if identity == expected => {
                self.here = Some(above);
                Some(Left { name, moved: false })
            }
            _ => Some(self.walk_down_again(name)),
        }
    }

    fn walk_down_again(&mut self, left: CString) -> Left {
        self.here = None;
        let mut lost = left;
        for index in 0..self.passed.len() {
            match open_step(self.here(), &self.passed[index].name) {
                Ok((directory, identity)) if identity == self.passed[index].identity => self.here = Some(directory),
                _ => {
                    lost = self.passed.swap_remove(index).name;
                    self.passed.truncate(index);
                    break;
                }
            }
        }
        Left { name: lost, moved: true }
    }
}

fn open_step(from: BorrowedFd<'_>, name: &CStr) -> Result<(OwnedFd, Identity)> {
    let flags = super::DIRECTORY | OFlags::NOFOLLOW;
    let directory = super::open(from, name.to_bytes(), flags, ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV)?;
    let stat = rustix::fs::fstat(&directory)?;
    Ok((directory, (stat.st_dev, stat.st_ino)))
}

/// Whether a failure to enter says that there is nothing to go into any more.
pub(crate) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The names that lead to where it is, with what stands there.
    fn place(climber: &Climber<'_>) -> String {
        let path: Vec<_> = climber.path().map(|name| name.to_str().unwrap()).collect();
        path.join("/")
    }

    #[test]
    fn a_directory_that_is_moved_away_leads_nowhere_else() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(root.path().join("a/b/c/d")).unwrap();
        fs::write(root.path().join("a/mark"), "").unwrap();
        let opened = super::super::open_root(root.path()).unwrap();
        let descend = || {
            let mut climber = Climber::new(opened.as_fd());
            for name in [c"a", c"b", c"c", c"d"] {
                climber.enter(name.into()).unwrap();
            }
            climber
        };
        let mut climber = descend();
        let left = climber.leave().unwrap();
        assert_eq!((left.name.as_c_str(), left.moved, place(&climber).as_str()), (c"d", false, "a/b/c"));
        // The one it stands in keeps its name, and the way up from the one below leads elsewhere.
        let mut climber = descend();
        fs::rename(root.path().join("a/b/c/d"), outside.path().join("d")).unwrap();
        let left = climber.leave().unwrap();
        assert_eq!((left.name.as_c_str(), left.moved, place(&climber).as_str()), (c"d", true, "a/b/c"));
        // One far above goes, and another takes its name.
        fs::rename(outside.path().join("d"), root.path().join("a/b/c/d")).unwrap();
        let mut climber = descend();
        fs::rename(root.path().join("a/b"), outside.path().join("b")).unwrap();
        fs::create_dir_all(root.path().join("a/b/c/d")).unwrap();
        assert!(!climber.leave().unwrap().moved, "it has moved with the one above it");
        assert!(!climber.leave().unwrap().moved);
        let left = climber.leave().unwrap();
        assert_eq!((left.name.as_c_str(), left.moved, place(&climber).as_str()), (c"b", true, "a"));
        assert!(rustix::fs::statat(climber.here(), c"mark", rustix::fs::AtFlags::empty()).is_ok());
        assert!(!climber.leave().unwrap().moved);
        assert!(climber.leave().is_none());
    }

    #[test]
    fn no_link_is_entered() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", root.path().join("link")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let opened = super::super::open_root(root.path()).unwrap();
        let mut climber = Climber::new(opened.as_fd());
        for name in [c"link", c"file", c"missing"] {
            assert!(is_gone(climber.enter(name.into()).unwrap_err()), "{name:?}");
        }
        assert_eq!(climber.depth(), 0);
    }
}
