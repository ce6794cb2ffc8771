//! Roots on the disk, as an engine hands them over: by descriptors that only name a place.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dozen_build::copy::{self, Placing, Sources};
use dozen_build::operation::{Copy, Origin, Source};
use dozen_build::tree::{LiveTree, PlainTree, Tree};
use rustix::fs::{CWD, Mode, OFlags};

fn root(path: &Path) -> LiveTree {
    // A detached mount's descriptor is one of those (open(2), O_PATH).
    let opened: OwnedFd = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    LiveTree::new(opened)
}

#[test]
fn all_of_a_root_is_listed() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("b")).unwrap();
    fs::write(place.path().join("a"), "").unwrap();
    fs::write(place.path().join("b/c"), "").unwrap();
    let root = root(place.path());
    assert_eq!(root.names(b"").unwrap(), [b"a".to_vec(), b"b".to_vec()]);
    assert_eq!(root.names(b"b").unwrap(), [b"c".to_vec()]);
    assert!(root.node(b"").unwrap().is_some());
}

#[test]
fn what_a_directory_is_made_in_stays_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir_all(place.path().join("home/own")).unwrap();
    fs::set_permissions(place.path().join("home/own"), fs::Permissions::from_mode(0o1777)).unwrap();
    let made = copy::directories(&root(place.path()), b"home/own/new/deep", (7, 8), (9, 0)).unwrap();
    let made: Vec<_> = made.iter().map(|it| (it.path.as_slice(), it.node.mode, it.node.uid)).collect();
    let own = rustix::process::getuid().as_raw();
    let expected = [
        (&b"home"[..], 0o755, own),
        (b"home/own", 0o1777, own),
        (b"home/own/new", 0o755, 7),
        (b"home/own/new/deep", 0o755, 7),
    ];
    // The place itself is no plain root.
    assert_eq!(made.iter().filter(|it| !it.0.is_empty()).copied().collect::<Vec<_>>(), expected);
}

#[test]
fn a_copy_of_a_directory_has_its_time() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("from")).unwrap();
    fs::write(place.path().join("from/a"), "").unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    fs::File::open(place.path().join("from")).unwrap().set_modified(time).unwrap();
    let operation = |from: &str| Copy {
        origin: Origin::Context,
        sources: vec![Source::Path(from.to_owned())],
        destination: "/made/to".to_owned(),
        owner: None,
        mode: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        add: None,
    };
    let destination = PlainTree::empty();
    let placing = Placing { destination: &destination, owner: None, made_at: (7, 0), spool: &tempfile::tempfile };
    let times = |from: &str| {
        let root = root(place.path());
        let made = copy::plan(&operation(from), &Sources { origin: &root, fetched: &[] }, &placing).unwrap();
        made.entries.iter().take(2).map(|it| (it.path.clone(), it.node.mtime.0)).collect::<Vec<_>>()
    };
    assert_eq!(times("from"), [(b"made".to_vec(), 7), (b"made/to".to_vec(), 1000)]);
    // A root has no time of its own.
    assert_eq!(times("."), [(b"made".to_vec(), 7), (b"made/to".to_vec(), 7)]);
}
