//! A disk that takes no more.

use super::*;

/// A file system of a test's own, in memory and in no mount table: it goes with its descriptor.
fn small_disk(size: &str) -> std::os::fd::OwnedFd {
    use rustix::mount::*;
    let disk = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(&disk, "size", size).unwrap();
    fsconfig_create(&disk).unwrap();
    fsmount(&disk, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

fn count_files(root: &Path) -> usize {
    ["content/sha256", "layers", "tmp"].iter().map(|name| fs::read_dir(root.join(name)).unwrap().count()).sum()
}

#[test]
fn a_full_disk_and_a_read_only_one_leave_nothing() {
    use std::os::fd::AsRawFd;
    let ledger_home = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&ledger_home.path().join("state.db"), &[MIGRATION, RECIPES, TARGETS]).unwrap();
    let disk = small_disk("2m");
    let root = PathBuf::from(format!("/proc/self/fd/{}", disk.as_raw_fd()));
    let store = ImageStore::open(&root, ledger).unwrap();
    let big = |bytes: usize| {
        let content = "x".repeat(bytes);
        tarball(&docker_files(&[archive(&[file("big", &content)])], &["a"], gzip))
    };
    // The blob is small and fits; what it unpacks to does not.
    let full = store.load(big(3 << 20).as_slice(), &()).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Exhausted, "{full:?}");
    assert!(full.to_string().contains("\"big\"") && full.hint().is_some(), "{full}");
    assert_eq!((count_files(&root), store.list().unwrap().len()), (0, 0));
    // And now the archive itself does not fit.
    let plain = tarball(&docker_files(&[archive(&[file("big", &"x".repeat(3 << 20))])], &["a"], plain));
    assert_eq!(store.load(plain.as_slice(), &()).unwrap_err().kind(), ErrorKind::Exhausted);
    assert_eq!(count_files(&root), 0);
    load(&store, &big(100));
    let config = rustix::mount::fspick(&disk, "", rustix::mount::FsPickFlags::FSPICK_EMPTY_PATH).unwrap();
    rustix::mount::fsconfig_set_flag(&config, "ro").unwrap();
    rustix::mount::fsconfig_reconfigure(&config).unwrap();
    let read_only = store.load(big(200).as_slice(), &()).unwrap_err();
    assert_eq!(read_only.kind(), ErrorKind::Exhausted, "{read_only:?}");
    assert_eq!((count_files(&root), store.list().unwrap().len()), (3, 1));
}
