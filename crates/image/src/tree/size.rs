//! How much lies in a tree that may change while it is counted.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use super::climber::Climber;

/// Bytes of all files below a directory, each counted once however many names it has. The tree is a container's: no
/// link in it is followed, how deep or wide it is costs no descriptors, and what goes while it is counted counts nothing.
pub fn written_bytes(directory: &Path) -> u64 {
    let root = rustix::fs::openat(CWD, directory, super::DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
    let Ok(root) = root else { return 0 };
    let mut count = Count::default();
    let mut climber = Climber::new(root.as_fd());
    let mut waiting = vec![count.add(climber.here())];
    while let Some(names) = waiting.last_mut() {
        match names.pop() {
            Some(name) => {
                if climber.enter(name).is_ok() {
                    waiting.push(count.add(climber.here()));
                }
            }
            None => {
                if climber.leave().is_none() {
                    break;
                }
                waiting.truncate(climber.depth() + 1);
            }
        }
    }
    count.bytes
}

#[derive(Default)]
struct Count {
    bytes: u64,
    /// Files with several names that have been counted.
    seen: BTreeSet<(u64, u64)>,
}

impl Count {
    /// Counts the files of one directory, and gives the directories in it.
    fn add(&mut self, directory: BorrowedFd<'_>) -> Vec<CString> {
        let mut directories = Vec::new();
        for entry in Dir::read_from(directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            let Ok(status) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            match FileType::from_raw_mode(status.st_mode) {
                FileType::Directory => directories.push(name.to_owned()),
                FileType::RegularFile if status.st_nlink < 2 || self.seen.insert((status.st_dev, status.st_ino)) => {
                    self.bytes += u64::try_from(status.st_size).unwrap_or(0);
                }
                _ => {}
            }
        }
        directories
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::removal::tests::{alone, few_descriptors, in_memory, nest};

    #[test]
    fn each_file_counts_once_and_no_link_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("large"), [0; 1000]).unwrap();
        let upper = root.path().join("upper");
        std::fs::create_dir_all(upper.join("a/b")).unwrap();
        std::fs::write(upper.join("a/b/file"), [0; 10]).unwrap();
        std::fs::hard_link(upper.join("a/b/file"), upper.join("same")).unwrap();
        std::fs::write(upper.join("other"), [0; 5]).unwrap();
        std::os::unix::fs::symlink(outside.path(), upper.join("link")).unwrap();
        assert_eq!(written_bytes(&upper), 15);
        assert_eq!(written_bytes(&upper.join("link")), 0);
        assert_eq!(written_bytes(&root.path().join("missing")), 0);
    }

    #[test]
    fn neither_depth_nor_width_takes_descriptors() {
        alone("tree::size::tests::neither_depth_nor_width_takes_descriptors", || {
            let root = in_memory();
            nest(&root.path().join("deep"), 5000, b"d", Some(b"bottom"));
            for number in 0..100 {
                let directory = root.path().join(format!("wide/{number}"));
                std::fs::create_dir_all(&directory).unwrap();
                std::fs::write(directory.join("file"), "1").unwrap();
            }
            few_descriptors();
            assert_eq!(written_bytes(root.path()), 106);
            rustix::mount::unmount(root.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        });
    }
}
