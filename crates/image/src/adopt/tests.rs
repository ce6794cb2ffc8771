//! What is adopted is what packing and unpacking would have given.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixListener;

use proptest::prelude::*;
use rustix::fs::{Gid, Uid, XattrFlags, makedev};

use super::*;
use crate::build_cache::StepLayer;
use crate::tests::{Home, sha256};

#[test]
fn what_becomes_of_attributes() {
    use Bearer::{Directory, Other, Root};
    use Fate::{Goes, Stays, Unfit};
    for (bearer, name, value, want) in [
        (Other, "user.note", "x", Stays),
        (Other, "security.capability", "x", Stays),
        (Other, "system.posix_acl_access", "x", Stays),
        (Directory, "system.posix_acl_default", "x", Stays),
        (Directory, "trusted.overlay.opaque", "y", Stays),
        (Directory, "trusted.overlay.opaque", "x", Goes),
        (Root, "trusted.overlay.opaque", "y", Goes),
        (Other, "trusted.overlay.opaque", "y", Unfit),
        (Other, "trusted.overlay.opaque", "x", Goes),
        (Root, "trusted.overlay.uuid", "x", Goes),
        (Directory, "trusted.overlay.impure", "y", Goes),
        (Other, "trusted.overlay.origin", "x", Goes),
        (Other, "trusted.overlay.nlink", "U+1", Goes),
        (Other, "trusted.overlay.protattr", "i", Goes),
        (Other, "trusted.else", "x", Goes),
        (Other, "user.overlay.opaque", "y", Goes),
        (Other, "security.selinux", "ours", Stays),
        (Other, "security.selinux", "another", Unfit),
        (Other, "security.ima", "x", Unfit),
        (Other, "system.nfs4_acl", "x", Unfit),
        (Other, "btrfs.compression", "x", Unfit),
    ] {
        assert_eq!(fate(bearer, name.as_bytes(), value.as_bytes(), Some(b"ours")), want, "{bearer:?} {name}={value}");
    }
    assert_eq!(fate(Other, b"security.selinux", b"ours", None), Unfit);
}

/// What stands at a path of an upper directory.
#[derive(Debug, Clone)]
struct Thing {
    what: What,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    attributes: Vec<(&'static str, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum What {
    Directory,
    /// So many bytes at this offset, and the size.
    File(u64, usize, u64),
    Link,
    Pipe,
    Device,
    Socket,
    Whiteout,
    /// Another name of the file at this path, if one is there.
    Name(&'static str),
}

const PATHS: [&str; 16] =
    ["a", "a/b", "a/b/c", "a/b/f", "a/b/s", "a/f", "a/g", "a/z", "b", "b/f", "b/h", "c", "c/f", "f", "g", "z"];
/// A file may run with CAP_NET_RAW (linux/capability.h, `struct vfs_cap_data`).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const LARGE: u64 = 3 << 20;

fn any_what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => Just(What::Directory),
        4 => (0..5000u64, 0..5000usize).prop_map(|(offset, length)| What::File(offset, length, offset + length as u64)),
        2 => (0..LARGE, 0..200_000usize).prop_map(|(offset, length)| What::File(offset, length, LARGE + 200_000)),
        1 => Just(What::Link),
        1 => Just(What::Pipe),
        1 => Just(What::Device),
        1 => Just(What::Socket),
        2 => Just(What::Whiteout),
        2 => proptest::sample::select(PATHS.to_vec()).prop_map(What::Name),
    ]
}

fn any_thing() -> impl Strategy<Value = Thing> {
    let attributes = proptest::sample::subsequence(
        vec![
            ("user.note", b"of\nthe\0owner".to_vec()),
            ("user.overlay.opaque", b"y".to_vec()),
            ("trusted.overlay.opaque", b"y".to_vec()),
            ("trusted.overlay.origin", vec![0, 0xfb, 0x1d]),
            ("trusted.overlay.impure", b"y".to_vec()),
            ("trusted.overlay.nlink", b"U+1".to_vec()),
            ("trusted.else", b"x".to_vec()),
            ("security.capability", CAPABILITY.to_vec()),
        ],
        0..4,
    );
    let mtime = prop_oneof![
        Just((0, 0)),
        Just((1_700_000_000, 123_456_789)),
        Just((1_600_000_000, 0)),
        Just((-5, 7)),
        Just((20_000_000_000, 1)),
    ];
    let owner = prop_oneof![Just((0, 0)), Just((1000, 100)), Just((3_000_000, 4_000_000_000))];
    let mode = proptest::sample::select(vec![0o755, 0o644, 0o4755, 0o2711, 0o1777, 0]);
    (any_what(), mode, owner, mtime, attributes).prop_map(|(what, mode, owner, mtime, attributes)| Thing {
        what,
        mode,
        owner,
        mtime,
        attributes,
    })
}

/// Makes it all below a new directory.
fn make(root: &Path, looks: &Thing, things: &BTreeMap<&str, Thing>) {
    fs::create_dir(root).unwrap();
    let opened = tree::open_root(root).unwrap();
    let mut made = Vec::new();
    for (path, thing) in things {
        if fs::symlink_metadata(root.join(path).parent().unwrap()).map_or(true, |above| !above.is_dir()) {
            continue;
        }
        let at = root.join(path);
        let node = |kind, device| rustix::fs::mknodat(&opened, *path, kind, Mode::empty(), device).unwrap();
        match &thing.what {
            What::Directory => fs::create_dir(&at).unwrap(),
            What::File(offset, length, size) => {
                let file = File::create(&at).unwrap();
                file.set_len(*size).unwrap();
                let bytes: Vec<u8> = (0..*length).map(|number| (number % 251) as u8).collect();
                file.write_all_at(&bytes, *offset).unwrap();
            }
            What::Link => std::os::unix::fs::symlink(format!("to/{path}"), &at).unwrap(),
            What::Pipe => node(FileType::Fifo, 0),
            What::Device => node(FileType::CharacterDevice, makedev(1, 3)),
            What::Socket => drop(UnixListener::bind(&at).unwrap()),
            What::Whiteout => node(FileType::CharacterDevice, 0),
            What::Name(other) => {
                let first = root.join(other);
                if fs::symlink_metadata(&first).is_ok_and(|first| first.is_file()) {
                    fs::hard_link(first, &at).unwrap();
                }
                continue;
            }
        }
        if !matches!(thing.what, What::Whiteout) {
            made.push((*path, thing));
        }
    }
    // What is in a directory before it.
    for (path, thing) in made.iter().rev() {
        dress(opened.as_fd(), path.as_bytes(), thing);
    }
    dress(opened.as_fd(), b".", looks);
}

fn dress(root: BorrowedFd<'_>, path: &[u8], thing: &Thing) {
    let (owner, group) = (Uid::from_raw(thing.owner.0), Gid::from_raw(thing.owner.1));
    rustix::fs::chownat(root, path, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let is_link = matches!(thing.what, What::Link);
    if !is_link {
        rustix::fs::chmodat(root, path, Mode::from_raw_mode(thing.mode), AtFlags::empty()).unwrap();
    }
    let (is_file, is_directory) = (matches!(thing.what, What::File(..)), matches!(thing.what, What::Directory));
    for (name, value) in &thing.attributes {
        let fits = match *name {
            "security.capability" => is_file,
            "trusted.overlay.opaque" => is_directory,
            name => name.starts_with("trusted.") || is_file || is_directory,
        };
        if fits {
            rustix::fs::lsetxattr(tree::proc_path(root, path), *name, value, XattrFlags::empty()).unwrap();
        }
    }
    rustix::fs::utimensat(root, path, &tree::times(thing.mtime), AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// All that can be seen of a layer, but for the times of the root where that is no entry.
fn look(root: &Path) -> BTreeMap<String, String> {
    let (mut seen, mut inodes) = (BTreeMap::new(), BTreeMap::new());
    let opened = tree::open_root(root).unwrap();
    let mut stack = vec![Vec::new()];
    while let Some(path) = stack.pop() {
        let name: &[u8] = if path.is_empty() { b"." } else { &path };
        let stat = tree::stat(opened.as_fd(), name).unwrap().unwrap();
        if tree::is_whiteout(&stat) {
            // Overlays have one inode for all of them, and nobody sees whose it is.
            seen.insert(String::from_utf8_lossy(&path).into_owned(), "whiteout".to_owned());
            continue;
        }
        let at = root.join(OsStr::from_bytes(&path));
        let kind = tree::file_type(&stat);
        let content = match kind {
            FileType::RegularFile => sha256(&fs::read(&at).unwrap()).to_string(),
            FileType::Symlink => fs::read_link(&at).unwrap().display().to_string(),
            FileType::Directory => {
                let directory = tree::open_root(&at).unwrap();
                stack.extend(tree::names(directory.as_fd()).unwrap().iter().map(|name| tree::join(&path, name)));
                String::new()
            }
            _ => String::new(),
        };
        let shown = String::from_utf8_lossy(&path).into_owned();
        let first = match kind {
            FileType::Directory => shown.clone(),
            _ => String::clone(inodes.entry(stat.st_ino).or_insert(shown.clone())),
        };
        let attributes = tree::xattrs(opened.as_fd(), name).unwrap();
        let is_plain_root = path.is_empty()
            && (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (0o755, 0, 0)
            && attributes.is_empty();
        let mtime =
            if is_plain_root || tree::is_whiteout(&stat) { (0, 0) } else { (stat.st_mtime, stat.st_mtime_nsec) };
        let size = if kind == FileType::RegularFile { stat.st_size } else { 0 };
        let owner = (stat.st_uid, stat.st_gid);
        let line = format!(
            "{:o} {owner:?} {size} {mtime:?} {:x} {first:?} {content} {attributes:?}",
            stat.st_mode, stat.st_rdev
        );
        seen.insert(shown, line);
    }
    seen
}

/// Made twice, and once each way: whether it could stay where it was.
#[track_caller]
fn check(make: &dyn Fn(&Path), latest: Option<i64>) -> bool {
    let home = Home::new();
    let store = home.open();
    let [first, second] = ["first", "second"].map(|name| home.0.path().join(name));
    make(&first);
    make(&second);
    let inode = fs::metadata(&first).unwrap().ino();
    let adopted = store.take(&first).unwrap().expect("it is one file system");
    assert!(!first.exists());
    let adopted = store.adopt(adopted, latest);
    let copied = store.layer_of(&second, latest);
    let (adopted, copied) = match (adopted, copied) {
        (Ok(adopted), Ok(copied)) => (adopted, copied),
        (Err(adopted), Err(copied)) => {
            assert_eq!(adopted.to_string(), copied.to_string());
            return false;
        }
        (adopted, copied) => panic!("{adopted:?} and {copied:?}"),
    };
    assert_eq!(adopted.diff_id(), copied.diff_id());
    let row = |layer: &NewLayer| {
        let row = &layer.staged.row;
        (row.content_bytes, row.tar_size_bytes, row.opaque_root, row.recipe_size_bytes, row.blob.clone())
    };
    assert_eq!(row(&adopted), row(&copied));
    assert_eq!(look(&adopted.staged.directory), look(&copied.staged.directory));
    // It packs to what its recipe says, too.
    let again = store.layer_of(&adopted.staged.directory, latest).unwrap();
    assert_eq!(again.diff_id(), copied.diff_id());
    for layer in [&adopted, &copied] {
        let root = tree::open_root(&layer.staged.directory).unwrap();
        let given = Sum::of_recipe(&layer.staged.kept, root.as_fd()).unwrap().finish();
        assert_eq!(given.1, layer.staged.row.tar_size_bytes);
    }
    fs::metadata(&adopted.staged.directory).unwrap().ino() == inode
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]
    #[test]
    fn what_is_adopted_is_what_would_have_been_copied(
        looks in prop_oneof![
            Just(Thing { what: What::Directory, mode: 0o755, owner: (0, 0), mtime: (7, 7), attributes: Vec::new() }),
            any_thing().prop_map(|thing| Thing { what: What::Directory, ..thing }),
        ],
        things in proptest::collection::btree_map(proptest::sample::select(PATHS.to_vec()), any_thing(), 0..12),
        latest in prop_oneof![Just(None), Just(Some(1_650_000_000))],
    ) {
        prop_assert!(check(&|root| make(root, &looks, &things), latest), "it was copied");
    }
}

/// What only the copy can do is copied, and comes out as ever.
#[test]
fn what_has_to_be_made_anew_is_copied() {
    let base = |root: &Path| {
        fs::create_dir(root).unwrap();
        fs::write(root.join("a"), "a").unwrap();
        let time = std::time::UNIX_EPOCH;
        File::options().write(true).open(root.join("a")).unwrap().set_modified(time).unwrap();
    };
    let still = |root: &Path, name: &str| {
        let opened = tree::open_root(root).unwrap();
        rustix::fs::utimensat(&opened, name, &tree::times((1, 1)), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    };
    assert!(check(&base, None), "the others differ from it by one thing each");
    let several_names = |root: &Path| {
        base(root);
        std::os::unix::fs::symlink("a", root.join("b")).unwrap();
        rustix::fs::linkat(CWD, root.join("b"), CWD, root.join("c"), AtFlags::empty()).unwrap();
        still(root, "b");
    };
    let flags = |root: &Path| {
        base(root);
        let opened = tree::open_root(root).unwrap();
        let usual = rustix::fs::ioctl_getflags(&opened).unwrap();
        rustix::fs::ioctl_setflags(&opened, usual | rustix::fs::IFlags::NODUMP).unwrap();
    };
    let label = |root: &Path| {
        base(root);
        rustix::fs::setxattr(root.join("a"), "security.else", b"x", XattrFlags::empty()).unwrap();
    };
    let whiteout = |root: &Path| {
        base(root);
        rustix::fs::mknodat(CWD, root.join("b"), FileType::CharacterDevice, Mode::RUSR, 0).unwrap();
    };
    let mark = |root: &Path| {
        base(root);
        rustix::fs::setxattr(root.join("a"), tree::OPAQUE, b"y", XattrFlags::empty()).unwrap();
    };
    let name = |root: &Path| {
        base(root);
        fs::write(root.join(".wh.x"), "").unwrap();
    };
    for (what, make) in [
        ("several names", &several_names as &dyn Fn(&Path)),
        ("flags", &flags),
        ("label", &label),
        ("whiteout", &whiteout),
        ("mark", &mark),
        ("name", &name),
    ] {
        assert!(!check(make, None), "{what}");
    }
}

/// The real thing: what an overlay leaves in its upper directory.
#[test]
fn what_an_overlay_has_left_is_adopted() {
    let script = "cd $MERGED; rm -r gone; rm gone-file; mkdir gone; echo new > gone/new; mv etc/name etc/other; \
        ln etc/other etc/linked; echo more >> data/a; chown 5:6 data/b; mv data/sub data/moved; truncate -s 5M holes; \
        printf x | dd of=holes bs=1 seek=4000000 conv=notrunc 2>/dev/null; mknod pipe p; ln -s nowhere link; \
        find . -exec touch -h -d @1500000000.25 {} +; touch -d @1500000001 data etc gone .";
    let changed = |root: &Path| {
        let beside = root.with_extension("beside");
        for name in ["lower/gone/deep", "lower/etc", "lower/data/sub/deep", "work", "merged"] {
            fs::create_dir_all(beside.join(name)).unwrap();
        }
        for name in ["gone/deep/x", "gone-file", "etc/name", "data/a", "data/b", "data/sub/deep/f"] {
            fs::write(beside.join("lower").join(name), name).unwrap();
        }
        fs::create_dir(root).unwrap();
        let script = format!(
            "set -e; cd {}; mount -t overlay overlay -o lowerdir=lower,upperdir={},workdir=work,redirect_dir=off,metacopy=off,index=on merged; \
             MERGED=merged; {script}",
            beside.display(),
            root.display()
        );
        let status = std::process::Command::new("unshare").args(["--mount", "sh", "-c", &script]).status().unwrap();
        assert!(status.success());
    };
    assert!(check(&changed, None));
    assert!(check(&changed, Some(1_400_000_000)));
}

/// Who has a file open that was made through an overlay could write to it after the layer has got its name.
#[test]
fn what_somebody_might_write_to_is_copied() {
    let home = Home::new();
    let store = home.open();
    let at = |name: &str| home.0.path().join(name);
    for name in ["lower", "upper", "work"] {
        fs::create_dir(at(name)).unwrap();
    }
    let mounted = overlay::mount_detached(&[at("lower")], Some((&at("upper"), &at("work")))).unwrap();
    let opened =
        rustix::fs::openat(&mounted, "file", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CREATE, Mode::RWXU);
    let opened = File::from(opened.unwrap());
    opened.write_all_at(b"before", 0).unwrap();
    drop(mounted);
    let layer = store.adopt(store.take(&at("upper")).unwrap().unwrap(), None).unwrap();
    opened.write_all_at(b"behind", 0).unwrap();
    assert_eq!(fs::read_to_string(layer.staged.directory.join("file")).unwrap(), "before");
    drop((opened, layer));

    for name in ["upper", "work2"] {
        fs::create_dir(at(name)).unwrap();
    }
    let inode = fs::metadata(at("upper")).unwrap().ino();
    let mounted = overlay::mount_detached(&[at("lower")], Some((&at("upper"), &at("work2")))).unwrap();
    rustix::fs::openat(&mounted, "file", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CREATE, Mode::RWXU).unwrap();
    drop(mounted);
    let layer = store.adopt(store.take(&at("upper")).unwrap().unwrap(), None).unwrap();
    assert_eq!(fs::metadata(&layer.staged.directory).unwrap().ino(), inode, "nobody had it any more");
}

/// An adopted layer is a step's as any other: kept, saved in an image to the byte, and not believed after a power cut
/// before that.
#[test]
fn an_adopted_layer_is_kept_and_saved() {
    let home = Home::new();
    let store = home.open();
    let upper = home.0.path().join("upper");
    fs::create_dir_all(upper.join("d")).unwrap();
    fs::write(upper.join("d/file"), vec![7; 300_000]).unwrap();
    rustix::fs::setxattr(upper.join("d"), "trusted.overlay.impure", b"y", XattrFlags::empty()).unwrap();
    let layer = store.adopt(store.take(&upper).unwrap().unwrap(), None).unwrap();
    let diff_id = layer.diff_id().clone();
    let kept = store.add_step(&[sha256(b"key")], StepLayer::from(layer), "RUN x").unwrap();
    assert_eq!((home.counts(), kept.layer.as_ref()), ([1, 1, 0], Some(&diff_id)));
    assert!(store.0.read_state().layers[&diff_id].unsynced_boot.is_some());
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [diff_id] }
    });
    store.add_image(&config, vec![diff_id.clone()], vec!["built:1".parse().unwrap()]).unwrap();
    assert!(store.0.read_state().layers[&diff_id].unsynced_boot.is_none());
    drop((kept, store));
    let (store, mut saved) = (home.open(), Vec::new());
    store.save(&["built:1".to_owned()], &mut saved).unwrap();
    let other = Home::new();
    let loaded = other.open().load(saved.as_slice(), &()).unwrap();
    assert_eq!(loaded[0].id, store.find("built:1").unwrap().id);

    let upper = home.0.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let layer = store.adopt(store.take(&upper).unwrap().unwrap(), None).unwrap();
    assert!(layer.is_empty());
    drop(layer);
    assert_eq!(home.counts()[2], 0);
}
