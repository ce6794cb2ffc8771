//! How much a container has written: Docker's SizeRw.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use dozen_engine::{Engine, Snapshot};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use serde_json::{Value, json};

/// Adds `SizeRw` and `SizeRootFs` to what is shown of a container.
pub(crate) async fn add(engine: &Engine, snapshot: &Snapshot, shown: &mut Value) {
    let written = snapshot.directory.join("upper");
    // Walking a tree takes its time, which other requests do not wait for.
    let written = tokio::task::spawn_blocking(move || written_bytes(&written)).await.unwrap_or(0);
    // An image that was removed by force has no size any more.
    let image = engine.image(&snapshot.spec.image.to_string()).await.map_or(0, |image| image.size_bytes);
    shown["SizeRw"] = json!(written);
    shown["SizeRootFs"] = json!(written + image);
}

/// Bytes of all files below a directory, each counted once however many names it has. The tree is the container's:
/// no link in it is followed, and what goes while it is counted counts nothing.
fn written_bytes(directory: &Path) -> u64 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    let mut waiting: Vec<OwnedFd> = rustix::fs::openat(CWD, directory, flags, Mode::empty()).into_iter().collect();
    while let Some(directory) = waiting.pop() {
        for entry in Dir::read_from(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            let Ok(status) = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            match FileType::from_raw_mode(status.st_mode) {
                FileType::Directory => waiting.extend(rustix::fs::openat(&directory, name, flags, Mode::empty())),
                FileType::RegularFile if seen.insert((status.st_dev, status.st_ino)) => {
                    bytes += u64::try_from(status.st_size).unwrap_or(0);
                }
                _ => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
