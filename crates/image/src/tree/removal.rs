//! The one way in which a tree is removed, whoever made it and however deep it is: what a container leaves must not be
//! able to end the engine, or to keep the next one from opening.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::{Errno, Result as IoResult};

use super::climber::{Climber, is_gone};

/// Directories of one directory that are remembered at once; the others are met when it is read again.
const BATCH: usize = 1024;
/// Bytes of a path that an error shows.
const SHOWN_BYTES: usize = 300;

/// A removal that left something. All that could be removed is gone.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove {path:?}{}", and_others(*.others))]
pub struct NotRemoved {
    /// The first thing that resisted, from the name of the tree on; cut if it is long.
    pub path: String,
    /// How many others did.
    pub others: usize,
    /// Why it did.
    #[source]
    pub error: std::io::Error,
    errno: Errno,
}

fn and_others(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" and {count} others") }
}

impl From<NotRemoved> for Errno {
    fn from(error: NotRemoved) -> Self {
        error.errno
    }
}

/// Removes what stands at a path of the host's, and all below it; no link is followed, and nothing there is no failure.
///
/// A mount within it resists, and what is mounted stays as it is.
pub fn remove_tree(path: &Path) -> Result<(), NotRemoved> {
    let failed = |errno| NotRemoved::new(path.display().to_string(), errno);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(failed(Errno::INVAL)) };
    match super::open_root(parent) {
        Err(Errno::NOENT) => Ok(()),
        parent => remove(parent.map_err(failed)?.as_fd(), name.as_bytes()),
    }
}

/// Removes `name` and all below it.
///
/// Goes on past what resists, and past what vanishes meanwhile. The memory it takes grows with the depth of the tree;
/// descriptors and stack do not.
pub(crate) fn remove(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), NotRemoved> {
    let Ok(name) = CString::new(name) else {
        return Err(NotRemoved::new(String::from_utf8_lossy(name).into_owned(), Errno::INVAL));
    };
    let mut climber = Climber::new(directory);
    let mut failure = None;
    let mut levels = vec![Level::default()];
    levels[0].take(directory, &name, FileType::Unknown, |name, error| fail(&mut failure, &[], name, error));
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.waiting.pop() {
            match climber.enter(name.clone()) {
                Ok(()) => levels.push(Level { unread: true, ..Level::default() }),
                Err(error) if is_gone(error) => {}
                Err(error) => {
                    fail(&mut failure, &path(&climber), &name, error);
                    level.resisting.insert(name);
                }
            }
        } else if level.unread {
            level.sweep(climber.here(), |name, error| fail(&mut failure, &path(&climber), name, error));
        } else {
            // Read again if something came, or was passed over, while the directory was read and emptied.
            let again = level.resisting.is_empty() && level.removed;
            let Some(left) = climber.leave() else { break };
            levels.truncate(climber.depth() + 1);
            let above = levels.last_mut().expect("the root's level is never left");
            if left.moved {
                fail(&mut failure, &path(&climber), &left.name, Errno::STALE);
                above.resisting.insert(left.name);
                continue;
            }
            match rustix::fs::unlinkat(climber.here(), &left.name, AtFlags::REMOVEDIR) {
                Ok(()) => above.removed = true,
                Err(Errno::NOENT) => {}
                Err(error) if is_not_empty(error) && again => above.waiting.push(left.name),
                Err(error) => {
                    // That something resists below it has been said.
                    if failure.is_none() || !is_not_empty(error) {
                        fail(&mut failure, &path(&climber), &left.name, error);
                    }
                    above.resisting.insert(left.name);
                }
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// What is left to do in one directory.
#[derive(Default)]
struct Level {
    /// Directories that have something in them.
    waiting: Vec<CString>,
    /// What has been tried in vain.
    resisting: BTreeSet<CString>,
    /// There is more in it than has been read.
    unread: bool,
    /// Something of it is gone.
    removed: bool,
}

impl Level {
    /// Removes all files and empty directories, and remembers the others, as far as there is room.
    fn sweep(&mut self, here: BorrowedFd<'_>, mut failed: impl FnMut(&CStr, Errno)) {
        self.unread = false;
        let entries = match Dir::read_from(here) {
            Ok(entries) => entries,
            Err(error) => return failed(c"", error),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                // Someone else has removed the directory itself.
                Err(Errno::NOENT) => return,
                Err(error) => return failed(c"", error),
            };
            let name = entry.file_name();
            if [c".", c".."].contains(&name) || self.resisting.contains(name) {
                continue;
            }
            if self.waiting.len() == BATCH {
                self.unread = true;
                return;
            }
            self.take(here, name, entry.file_type(), &mut failed);
        }
    }

    fn take(&mut self, here: BorrowedFd<'_>, name: &CStr, kind: FileType, mut failed: impl FnMut(&CStr, Errno)) {
        match unlink(here, name, kind) {
            Ok(()) => self.removed = true,
            Err(Errno::NOENT) => {}
            Err(error) if is_not_empty(error) => self.waiting.push(name.to_owned()),
            Err(error) => {
                failed(name, error);
                self.resisting.insert(name.to_owned());
            }
        }
    }
}

/// Removes a file or an empty directory, whichever it turns out to be; a mount is EBUSY before anything else.
fn unlink(here: BorrowedFd<'_>, name: &CStr, kind: FileType) -> IoResult<()> {
    if kind != FileType::Directory {
        match rustix::fs::unlinkat(here, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            result => return result,
        }
    }
    match rustix::fs::unlinkat(here, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTDIR) if kind == FileType::Directory => rustix::fs::unlinkat(here, name, AtFlags::empty()),
        result => result,
    }
}

/// rmdir(2) has two words for it.
fn is_not_empty(error: Errno) -> bool {
    matches!(error, Errno::NOTEMPTY | Errno::EXIST)
}

/// The beginning of the way to where it is, as far as an error shows it.
fn path(climber: &Climber<'_>) -> Vec<u8> {
    let mut path = Vec::new();
    for name in climber.path() {
        path.extend_from_slice(name.to_bytes());
        path.push(b'/');
        if path.len() > SHOWN_BYTES {
            break;
        }
    }
    path
}

fn fail(failure: &mut Option<NotRemoved>, above: &[u8], name: &CStr, errno: Errno) {
    match failure {
        Some(first) => first.others += 1,
        None => {
            let path = [above, name.to_bytes()].concat();
            let shown = &path[..path.len().min(SHOWN_BYTES)];
            *failure = Some(NotRemoved::new(String::from_utf8_lossy(shown).into_owned(), errno));
        }
    }
}

impl NotRemoved {
    fn new(path: String, errno: Errno) -> Self {
        Self { path, others: 0, error: errno.into(), errno }
    }
}

#[cfg(test)]
pub(crate) mod tests;
