//! How much lies in a tree that may change while it is counted.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

use super::climber::Climber;

/// Bytes of all files below a directory, each counted once however many names it has. The tree is a container's: no
/// link in it is followed, how deep or wide it is costs no descriptors, and what goes while it is counted counts nothing.
pub fn written_bytes(directory: &Path) -> u64 {
    count(directory, Count::default())
}

/// Bytes of the blocks that a file, or everything in a directory and that itself, takes on the disk: what du(1) says.
pub fn disk_bytes(path: &Path) -> u64 {
    let Ok(status) = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) else { return 0 };
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => count(path, Count { in_blocks: true, bytes: blocks(&status), ..Count::default() }),
        _ => blocks(&status),
    }
}

/// stat(2) counts them in 512 bytes, whatever the file system's are.
pub(super) fn blocks(status: &Stat) -> u64 {
    u64::try_from(status.st_blocks).unwrap_or(0).saturating_mul(512)
}

fn count(directory: &Path, mut count: Count) -> u64 {
    walk(directory, &mut |here| count.add(here));
    count.bytes
}

/// Comes to each directory of a tree, and is told which of those in it to go to.
pub(super) fn walk(directory: &Path, come: &mut dyn FnMut(BorrowedFd<'_>) -> Vec<CString>) {
    let root = rustix::fs::openat(CWD, directory, super::DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
    let Ok(root) = root else { return };
    let mut climber = Climber::new(root.as_fd());
    let mut waiting = vec![come(climber.here())];
    while let Some(names) = waiting.last_mut() {
        match names.pop() {
            Some(name) => {
                if climber.enter(name).is_ok() {
                    waiting.push(come(climber.here()));
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
}

#[derive(Default)]
struct Count {
    bytes: u64,
    /// Blocks of everything, in place of bytes of files.
    in_blocks: bool,
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
                FileType::Directory => {
                    directories.push(name.to_owned());
                    self.bytes += if self.in_blocks { blocks(&status) } else { 0 };
                }
                _ if status.st_nlink >= 2 && !self.seen.insert((status.st_dev, status.st_ino)) => {}
                _ if self.in_blocks => self.bytes = self.bytes.saturating_add(blocks(&status)),
                FileType::RegularFile => self.bytes += u64::try_from(status.st_size).unwrap_or(0),
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
    fn blocks_are_what_du_says() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/file"), [1; 100_000]).unwrap();
        std::fs::hard_link(tree.join("a/b/file"), tree.join("same")).unwrap();
        std::fs::File::create(tree.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("/", tree.join("link")).unwrap();
        for path in [&tree, &tree.join("same"), &tree.join("link")] {
            let du = std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
            let du = String::from_utf8(du.stdout).unwrap();
            let du: u64 = du.split_whitespace().next().unwrap().parse().unwrap();
            assert_eq!(disk_bytes(path), du, "{}", path.display());
        }
        assert_eq!(disk_bytes(&root.path().join("missing")), 0);
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
