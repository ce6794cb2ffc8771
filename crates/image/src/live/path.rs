//! A path in a living tree, as Docker's `cp` understands it, and what stands there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use super::LiveError;
use crate::tree;

/// Links on one path, as the kernel counts them (path_resolution(7)).
const LINKS_LIMIT: u32 = 40;

/// A path as it was asked for, from the tree's root on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePath {
    /// Without `.`, `..` and double slashes; the root is empty.
    pub(super) path: Vec<u8>,
    /// It ends in `/` or `/.`: what stands there is to be a directory, and a link is followed.
    pub(super) is_directory: bool,
    /// What its last part is called: `/` for the root, `.` for a path that ends in it.
    pub(super) base: Vec<u8>,
}

impl LivePath {
    /// Takes `..` away by the text, as Docker does, before any link is followed.
    pub fn new(text: &[u8]) -> Result<Self, LiveError> {
        let refused = |why| Err(LiveError::Refused { entry: crate::names::shown(text), why });
        if text.contains(&0) {
            return refused("it holds a NUL");
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in text.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let path = parts.join(&b'/');
        if path.len() > tree::PATH_LIMIT {
            return refused("it is longer than 4095 bytes");
        }
        let is_dot = text == b"." || text.ends_with(b"/.");
        let base = match parts.last() {
            _ if is_dot => b".".to_vec(),
            None => b"/".to_vec(),
            Some(last) => last.to_vec(),
        };
        Ok(Self { path, is_directory: is_dot || text.ends_with(b"/"), base })
    }

    /// What stands there, by descriptor only; a link is opened itself unless the path asks for a directory.
    pub(super) fn open(&self, root: BorrowedFd<'_>) -> Result<OwnedFd, LiveError> {
        let flags = if self.is_directory { OFlags::DIRECTORY } else { OFlags::NOFOLLOW };
        tree::open_in_root(root, &self.path, OFlags::PATH | flags).map_err(|error| LiveError::path(&self.path, error))
    }
}

/// What Docker tells of a path in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// Its last part: `/` for the root.
    pub name: String,
    /// Bytes; a link's are those of its text.
    pub size_bytes: u64,
    /// Kind and permission bits, as stat(2) has them.
    pub mode: u32,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// Where a link leads in the end, an absolute path in the tree; as far as can be told, if that is not there.
    pub link_target: Option<String>,
}

/// Looks at a path.
pub fn path_stat(root: BorrowedFd<'_>, path: &LivePath) -> Result<PathStat, LiveError> {
    let found = path.open(root)?;
    let failed = |error| LiveError::system("look at", &path.path, error);
    let stat = rustix::fs::fstat(&found).map_err(failed)?;
    let link_target = match tree::file_type(&stat) {
        FileType::Symlink => {
            let target = resolved(root, &path.path).map_err(|error| LiveError::path(&path.path, error))?;
            Some(String::from_utf8_lossy(&[b"/", target.as_slice()].concat()).into_owned())
        }
        _ => None,
    };
    Ok(described(&path.base, &stat, link_target))
}

fn described(name: &[u8], stat: &Stat, link_target: Option<String>) -> PathStat {
    PathStat {
        name: String::from_utf8_lossy(name).into_owned(),
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        link_target,
    }
}

/// The same path without links, those that lead to nothing followed as far as they can be. It is true at this moment
/// only: who uses it opens it as hostile as any.
pub(super) fn resolved(root: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>, Errno> {
    let parts = |path: &[u8]| -> Vec<Vec<u8>> { path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect() };
    let (mut rest, mut at, mut links) = (parts(path), Vec::new(), 0);
    while let Some(part) = rest.pop() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                at.truncate(tree::split(&at).0.len());
                continue;
            }
            _ => {}
        }
        let next = tree::join(&at, &part);
        let target = match tree::open_no_links(root, &next, OFlags::PATH) {
            Ok(found) => tree::read_link(found.as_fd(), b""),
            Err(error) => Err(error),
        };
        match target {
            Ok(target) => {
                links += 1;
                if links > LINKS_LIMIT {
                    return Err(Errno::LOOP);
                }
                if target.starts_with(b"/") {
                    at.clear();
                }
                rest.extend(parts(&target));
            }
            // No link, or not there: then what follows is not either.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => at = next,
            Err(error) => return Err(error),
        }
        if at.len() > tree::PATH_LIMIT {
            return Err(Errno::NAMETOOLONG);
        }
    }
    Ok(at)
}
