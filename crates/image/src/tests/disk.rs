//! A disk that takes no more.

use super::*;

use std::os::fd::{AsRawFd, OwnedFd};

/// A file system of a test's own, in memory and in no mount table: it goes with its descriptor.
fn small_disk(size: &str) -> OwnedFd {
    mounted("tmpfs", &[("size", size)])
}

fn mounted(kind: &str, options: &[(&str, &str)]) -> OwnedFd {
    use rustix::mount::*;
    let disk = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    options.iter().for_each(|(key, value)| fsconfig_set_string(&disk, *key, *value).unwrap());
    fsconfig_create(&disk).unwrap();
    fsmount(&disk, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

/// A path below a file system that is mounted nowhere, for children too.
fn below(disk: &OwnedFd, name: &str) -> String {
    format!("/proc/{}/fd/{}/{name}", std::process::id(), disk.as_raw_fd())
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

fn count_files(root: &Path) -> usize {
    ["content/sha256", "layers", "tmp"].iter().map(|name| fs::read_dir(root.join(name)).unwrap().count()).sum()
}

#[test]
fn a_full_disk_and_a_read_only_one_leave_nothing() {
    let ledger_home = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&ledger_home.path().join("state.db"), &MIGRATIONS).unwrap();
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

/// Writing back fails while a layer is unpacked, and another load that syncs at that moment is told of it. Both are.
#[test]
fn data_that_the_disk_has_lost_makes_no_image_whoever_was_told_first() {
    let memory = small_disk("4m");
    let backing = below(&memory, "disk");
    fs::File::create(&backing).unwrap().set_len(64 << 20).unwrap();
    let made = run("mkfs.ext4", &["-q", "-O", "^has_journal", "-E", "nodiscard", &backing]);
    let device = made.and_then(|_| run("losetup", &["--find", "--show", &backing]));
    let Some(device) = device else {
        eprintln!("skipped: there is no mkfs.ext4, or no loop device");
        return;
    };
    let disk = mounted("ext4", &[("source", &device)]);
    // It goes when the file system does.
    run("losetup", &["--detach", &device]).unwrap();
    let root = PathBuf::from(below(&disk, ""));
    let ledger_home = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&ledger_home.path().join("state.db"), &MIGRATIONS).unwrap();
    let store = ImageStore::open(&root, ledger).unwrap();
    let known = archive(&[file("known", "x")]);
    load(&store, &tarball(&docker_files(std::slice::from_ref(&known), &["known"], plain)));

    let mut noise = vec![0; 12 << 20];
    getrandom::fill(&mut noise).unwrap();
    let lost = archive(&[(Description::plain(b"lost", EntryType::Regular, 0o644, noise.len() as u64), &noise)]);
    let bytes = tarball(&docker_files(&[lost, known], &["lost"], plain));
    let told = std::sync::atomic::AtomicU32::new(0);
    let another = Another(|event: &ProgressEvent<'_>| {
        // Everything is unpacked by now; the disk has four megabytes for twelve, and then enough for what comes.
        if matches!(event, ProgressEvent::Exists { .. }) {
            let synced = || tree::open_root(&root).and_then(rustix::fs::syncfs);
            // EIO or ENOSPC.
            synced().unwrap_err();
            let config = rustix::mount::fspick(&memory, "", rustix::mount::FsPickFlags::FSPICK_EMPTY_PATH).unwrap();
            rustix::mount::fsconfig_set_string(&config, "size", "100m").unwrap();
            rustix::mount::fsconfig_reconfigure(&config).unwrap();
            assert!((0..10).any(|_| synced().is_ok()), "each error is told once");
            told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    // What else such a disk has lost of itself is not ours to say: only that no image is told of.
    store.load(bytes.as_slice(), &another).unwrap_err();
    assert_eq!((told.into_inner(), store.list().unwrap().len()), (1, 1));
    assert_eq!(store.0.ledger.read(|connection| schema::read(connection, None)).unwrap().layers.len(), 1);
}

/// What happens at the same time.
struct Another<F>(F);

impl<F: Fn(&ProgressEvent<'_>) + Send + Sync> Progress for Another<F> {
    fn report(&self, event: ProgressEvent<'_>) {
        (self.0)(&event);
    }
}
