use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::pack::{Description, TarWriter, pack};
use crate::recipe;
use crate::recording::Paths;

const LIMITS: Limits = Limits { entries: 1000, content_bytes: 1 << 20, hole_bytes: 1 << 40 };

pub(crate) fn file<'a>(path: &'a str, content: &'a str) -> (Description<'a>, &'a [u8]) {
    (Description::plain(path.as_bytes(), EntryType::Regular, 0o644, content.len() as u64), content.as_bytes())
}

pub(crate) fn directory(path: &str) -> (Description<'_>, &'static [u8]) {
    (Description::plain(path.as_bytes(), EntryType::Directory, 0o755, 0), b"")
}

pub(crate) fn link<'a>(kind: EntryType, path: &'a str, target: &'a str) -> (Description<'a>, &'static [u8]) {
    (Description { link: target.as_bytes(), ..Description::plain(path.as_bytes(), kind, 0o777, 0) }, b"")
}

pub(crate) fn archive(entries: &[(Description<'_>, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = TarWriter::new(&mut bytes);
    for (header, content) in entries {
        writer.header(header).unwrap();
        writer.data(*content, content.len() as u64).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

fn unpack(bytes: &[u8], root: &Path) -> Result<Extracted, ExtractError> {
    unpack_within(bytes, root, LIMITS)
}

fn unpack_within(bytes: &[u8], root: &Path, limits: Limits) -> Result<Extracted, ExtractError> {
    let root = tree::open_root(root).unwrap();
    let place = tempfile::tempdir().unwrap();
    let paths = Paths { recipe: place.path().join("recipe"), blob: place.path().join("blob") };
    let recording = Recording::new(root.as_fd(), Some(paths.clone())).unwrap();
    let (extracted, kept) = extract(bytes, root.as_fd(), recording, limits)?;
    // Whatever is accepted can be given again to the byte.
    let again = match kept {
        Kept::Nothing => panic!("nothing was recorded"),
        Kept::Blob => fs::read(paths.blob).unwrap(),
        Kept::Recipe { size_bytes } => {
            assert_eq!(fs::metadata(&paths.recipe).unwrap().len(), size_bytes);
            recipe::tests::reproduced(&paths.recipe, root.as_fd()).unwrap()
        }
    };
    assert!(again == bytes, "what is kept gives other bytes");
    Ok(extracted)
}

/// A root in a directory that also holds `secret`, which must not change and beside which nothing may appear.
struct Cell(tempfile::TempDir);

impl Cell {
    fn new() -> Self {
        let cell = tempfile::tempdir().unwrap();
        fs::create_dir(cell.path().join("root")).unwrap();
        fs::write(cell.path().join("secret"), "secret").unwrap();
        Self(cell)
    }
    fn root(&self) -> std::path::PathBuf {
        self.0.path().join("root")
    }
    #[track_caller]
    fn is_intact(&self) {
        assert_eq!(fs::read_to_string(self.0.path().join("secret")).unwrap(), "secret");
        assert_eq!(fs::metadata(self.0.path().join("secret")).unwrap().nlink(), 1);
        let mut names: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["root", "secret"]);
    }
}

/// Extracts into a cell; `want` is part of the refusal, or empty if the archive is to be contained without one.
#[track_caller]
fn hostile(entries: &[(Description<'_>, &[u8])], want: &str) -> Cell {
    let cell = Cell::new();
    match unpack(&archive(entries), &cell.root()) {
        Ok(_) => assert_eq!(want, "", "it was accepted"),
        Err(error) => {
            let message = error.to_string();
            assert!(!want.is_empty() && message.contains(want), "{message:?} instead of {want:?}");
        }
    }
    cell.is_intact();
    cell
}

#[test]
fn names_that_lead_out_are_refused_or_contained() {
    use EntryType::{Link, Symlink};
    hostile(&[file("../secret", "x")], "leads out by '..'");
    hostile(&[file("a/../../secret", "x")], "leads out by '..'");
    hostile(&[directory("a/..")], "leads out by '..'");
    hostile(&[file("a\0b", "x")], "");
    let cell = hostile(&[file("/etc/absolute", "x")], "");
    assert_eq!(fs::read_to_string(cell.root().join("etc/absolute")).unwrap(), "x");
    hostile(&[link(Link, "a", "../secret")], "leads out of the layer");
    hostile(&[link(Link, "a", "/etc/passwd")], "not in this layer");
    hostile(&[link(Symlink, "out", "../.."), link(Link, "a", "out/secret")], "not in this layer");
    hostile(&[link(Symlink, "out", ".."), file("out/secret", "x")], "");
    hostile(&[link(Symlink, "out", "/"), file("out/escaped", "x")], "");
    hostile(&[link(Symlink, "secret", "../secret"), file("secret", "x")], "");
    hostile(&[link(Symlink, "d", "../"), directory("d"), file("d/secret", "x")], "");
    hostile(&[link(Symlink, "proc", "/proc/self/cwd"), file("proc/x", "x")], "is no directory");
    hostile(&[link(Symlink, "loop", "loop"), file("loop/x", "x")], "is no directory");
    hostile(&[file("a", "x"), file("a/b", "x")], "is no directory");
    hostile(&[file(".", "x")], "only a directory");
    hostile(&[link(Link, "d2", "d"), directory("d")], "not in this layer");
    hostile(&[directory("d"), link(Link, "d2", "d")], "a directory cannot have a hard link");
    hostile(&[link(Symlink, "empty", "")], "its target is empty");
    hostile(&[file(".wh...", "")], "hides nothing");
    hostile(&[file(".wh.", "")], "hides nothing");
    hostile(&[file(".wh..", "")], "hides nothing");
    hostile(&[file(".wh.a/b", "")], "a whiteout holds nothing");
    hostile(&[file("a/.wh..wh..opq/b", "")], "a whiteout holds nothing");
    hostile(&[link(Symlink, "out", ".."), file("out/.wh.secret", "")], "");
    hostile(&[link(Symlink, "out", ".."), file("out/.wh..wh..opq", "")], "");
}

/// Directories that no entry names are made behind links of the layer's own, and nowhere else.
#[test]
fn directories_are_made_where_links_of_the_layer_lead() {
    use EntryType::Symlink;
    let links = [
        directory("real/deep"),
        link(Symlink, "absolute", "/real"),
        link(Symlink, "real/up", "../real/deep"),
        link(Symlink, "out", "../../.."),
        link(Symlink, "dangling", "nothing"),
    ];
    let with = |path: &'static str, want: &str| {
        let mut entries = links.to_vec();
        entries.push(file(path, "x"));
        hostile(&entries, want)
    };
    for (path, lands) in [
        ("absolute/new/a/f", "real/new/a/f"),
        ("absolute/up/new/a/f", "real/deep/new/a/f"),
        ("real/up/new/a/f", "real/deep/new/a/f"),
        ("out/new/a/f", "new/a/f"),
    ] {
        assert!(with(path, "").root().join(lands).exists(), "{path}");
    }
    with("dangling/new/f", "is no directory");
    // A whiteout on the way gives way to a directory that hides what it hid.
    let cell = hostile(&[file("a/.wh.b", ""), link(Symlink, "l", "a"), file("l/b/c/d", "x")], "");
    assert!(is_opaque(&cell.root().join("a/b")) && !is_opaque(&cell.root().join("a/b/c")));
}

#[test]
fn a_link_swapped_under_a_directory_that_was_just_used_is_seen() {
    use EntryType::Symlink;
    let cell = hostile(&[directory("d"), file("d/a", "x"), link(Symlink, "d", ".."), file("d/secret", "x")], "");
    assert_eq!(fs::read_to_string(cell.root().join("secret")).unwrap(), "x");
    let cell = hostile(&[file("d/e/a", "x"), link(Symlink, "d", "/f"), file("f/e/x", ""), file("d/e/b", "y")], "");
    assert_eq!(fs::read_to_string(cell.root().join("f/e/b")).unwrap(), "y");
}

#[test]
fn limits_hold() {
    let names: Vec<String> = (0..1001).map(|n| format!("f{n}")).collect();
    hostile(&names.iter().map(|name| file(name, "")).collect::<Vec<_>>(), "more than 1000 entries");
    let big = "x".repeat(600_000);
    hostile(&[file("a", &big), file("b", &big)], "larger than 1048576 bytes");
    let long = "n/".repeat(2048) + "x";
    hostile(&[file(&long, "")], "longer than 4095");
    let deep = "n/".repeat(2000) + "x";
    hostile(&[file(&deep, "")], "more than 1000 entries");
    let cell = hostile(&[file(&"n/".repeat(999), "")], "");
    crate::remove_tree(&cell.root().join("n")).unwrap();
    assert_eq!(fs::read_dir(cell.root()).unwrap().count(), 0);
}

#[test]
fn an_archive_cut_anywhere_is_an_error_or_a_whole_number_of_entries() {
    let whole = archive(&[file("a", "content"), directory("d"), file("d/b", &"y".repeat(2000))]);
    let boundaries = [0, 1, 511, 512, 1023, 1024, 1025, 1536, 4096, 4607, 4608];
    for length in (0..whole.len()).step_by(97).chain(boundaries) {
        let cell = Cell::new();
        let result = unpack(&whole[..length], &cell.root());
        // At an entry's very end a cut cannot be told from the archive's end; the digest tells it.
        let boundary = [0, 1024, 1536, 4096].contains(&length) || length >= 4608;
        assert_eq!(result.is_ok(), boundary, "{length}");
    }
}

#[test]
fn attributes_are_kept() {
    let cell = Cell::new();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut setuid = file("bin/su", "#!");
    setuid.0.mode = 0o4755;
    (setuid.0.uid, setuid.0.gid, setuid.0.mtime) = (7, 8, (1_000_000_000, 123_456_789));
    let mut capable = file("bin/ping", "#!");
    capable.0.attributes = vec![
        (b"security.capability".to_vec(), capability.to_vec()),
        (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
    ];
    let mut sticky = directory("tmp");
    (sticky.0.mode, sticky.0.mtime) = (0o1777, (5, 0));
    let mut device = link(EntryType::Char, "null", "");
    (device.0.device, device.0.mode) = ((1, 3), 0o666);
    let name = b"caf\xe9".as_slice();
    let latin = (Description::plain(name, EntryType::Regular, 0o644, 0), &b""[..]);
    let entries =
        [setuid, capable, sticky, file("tmp/x", ""), device, link(EntryType::Fifo, "fifo", ""), latin, directory("./")];
    unpack(&archive(&entries), &cell.root()).unwrap();
    let root = cell.root();
    let su = fs::metadata(root.join("bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o4755, 7, 8));
    assert_eq!((su.mtime(), su.mtime_nsec()), (1_000_000_000, 123_456_789));
    let tmp = fs::metadata(root.join("tmp")).unwrap();
    assert_eq!((tmp.mode() & 0o7777, tmp.mtime()), (0o1777, 5));
    let null = fs::metadata(root.join("null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.mode() & 0o777), (rustix::fs::makedev(1, 3), 0o666));
    assert!(fs::metadata(root.join("fifo")).unwrap().file_type().is_fifo());
    assert!(root.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name)).exists());
    let bin = tree::open_root(&root.join("bin")).unwrap();
    let kept = tree::xattrs(bin.as_fd(), b"ping").unwrap();
    assert_eq!(kept, [(b"security.capability".to_vec(), capability.to_vec())], "trusted.overlay.* must be dropped");
}

/// The kernel gives it to whatever is made below; the archive does not.
#[test]
fn a_default_list_is_its_directorys_alone() {
    const DEFAULT: &[u8] = b"system.posix_acl_default";
    const NOBODY: u32 = u32::MAX;
    // linux/posix_acl_xattr.h: a version, then a tag, rights and an id each; user 1000 may do everything.
    let entries = [(1_u16, 7_u16, NOBODY), (2, 7, 1000), (4, 5, NOBODY), (0x10, 7, NOBODY), (0x20, 0, NOBODY)];
    let entry = |(tag, rights, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let list = [2_u32.to_le_bytes().to_vec(), entries.map(entry).concat()].concat();
    let mut shared = directory("shared");
    shared.0.attributes = vec![(DEFAULT.to_vec(), list.clone())];
    let below = [directory("shared/d"), file("shared/d/f", "1"), file("shared/g", "2"), file("shared/implied/h", "3")];
    let mut all = vec![shared, link(EntryType::Fifo, "shared/fifo", ""), link(EntryType::Symlink, "shared/s", "g")];
    all.extend(below);
    let cell = Cell::new();
    unpack(&archive(&all), &cell.root()).unwrap();
    let root = tree::open_root(&cell.root()).unwrap();
    let attributes = |path: &str| tree::xattrs(root.as_fd(), path.as_bytes()).unwrap();
    assert_eq!(attributes("shared"), [(DEFAULT.to_vec(), list)]);
    for path in ["d", "d/f", "g", "implied", "implied/h", "fifo", "s"] {
        assert_eq!(attributes(&format!("shared/{path}")), [], "{path}");
    }
    assert_eq!(fs::metadata(cell.root().join("shared/g")).unwrap().mode() & 0o777, 0o644);
}

/// More names of directories than are remembered: their times are right all the same, whatever is made in them later.
#[test]
fn directories_keep_their_times_however_many_there_are() {
    let above = vec!["n".repeat(250); 12].join("/");
    let names: Vec<String> = (0..6000).map(|number| format!("{above}/{number}")).collect();
    let timed = |name, seconds| {
        let mut entry = directory(name);
        entry.0.mtime = (seconds, 250_000_000);
        entry
    };
    let inside: Vec<String> = (0..6000).step_by(100).map(|number| format!("{}/new/x", names[number])).collect();
    let hidden: Vec<String> = (0..6000).step_by(100).map(|number| format!("{above}/{number}/.wh.y")).collect();
    let mut entries = vec![timed("twice", 1), timed("twice", 2), timed(&above, 7), timed("./", 8)];
    entries.extend(names.iter().enumerate().map(|(number, name)| timed(name, 1000 + number as i64)));
    entries.extend(inside.iter().map(|name| file(name, "")));
    entries.extend(hidden.iter().map(|name| file(name, "")));
    entries.extend([file("top", "1"), link(EntryType::Symlink, "top", "x"), timed("late", 9), file("late/x", "")]);
    let cell = Cell::new();
    unpack_within(&archive(&entries), &cell.root(), Limits { entries: 10_000, ..LIMITS }).unwrap();
    let time = |name: &str| {
        let stat = fs::metadata(cell.root().join(name)).unwrap();
        assert_eq!(stat.mtime_nsec(), 250_000_000, "{name}");
        stat.mtime()
    };
    assert_eq!([time("twice"), time(&above), time("."), time("late")], [2, 7, 8, 9]);
    for (number, name) in names.iter().enumerate() {
        assert_eq!(time(name), 1000 + number as i64);
    }
}

fn is_opaque(path: &Path) -> bool {
    let directory = tree::open_root(path).unwrap();
    tree::xattrs(directory.as_fd(), b".").unwrap().iter().any(|(name, _)| name == tree::OPAQUE.to_bytes())
}

#[track_caller]
fn is_hidden(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
}

#[test]
fn whiteouts_become_the_overlays_own_marks() {
    let cell = Cell::new();
    let root = cell.root();
    let entries = [
        file(".wh.gone", ""),
        file("d/.wh..wh..opq", ""),
        file("d/new", ""),
        file(".wh.again", ""),
        directory("again"),
        file("again/x", ""),
        file("kept", "x"),
        file(".wh.kept", ""),
        file(".wh..wh.plnk", ""),
        file(".wh.parent", ""),
        file("parent/child", ""),
    ];
    let extracted = unpack(&archive(&entries), &root).unwrap();
    assert!(is_hidden(&root.join("gone")) && is_opaque(&root.join("d")));
    assert!(is_opaque(&root.join("again")) && root.join("again/x").exists());
    assert!(is_opaque(&root.join("parent")) && root.join("parent/child").exists());
    assert_eq!(fs::read_to_string(root.join("kept")).unwrap(), "x");
    assert!(!extracted.opaque_root && !is_opaque(&root));
    assert!(unpack(&archive(&[file(".wh..wh..opq", "")]), &root).unwrap().opaque_root);
}

#[test]
fn a_gnu_sparse_file_keeps_its_holes() {
    let mut header = tar::Header::new_gnu();
    header.set_path("sparse").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(4);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(10_000);
    gnu.sparse[0].set_offset(5000);
    gnu.sparse[0].set_length(4);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(b"data");
    bytes.resize(2048, 0);
    let cell = Cell::new();
    unpack(&bytes, &cell.root()).unwrap();
    let content = fs::read(cell.root().join("sparse")).unwrap();
    assert_eq!((content.len(), &content[5000..5004], content[0]), (10_000, &b"data"[..], 0));
}

#[test]
fn packing_gives_back_what_was_extracted() {
    let cell = Cell::new();
    let long = "long/".repeat(30) + "name";
    let mut time = file("time", "x");
    time.0.mtime = (-5, 250_000_000);
    let mut attributes = file("attributes", "x");
    attributes.0.attributes = vec![(b"user.note".to_vec(), b"line\nline".to_vec())];
    let mut big_owner = file("owner", "x");
    big_owner.0.uid = 3_000_000_000;
    let entries = [
        file("a", "x"),
        link(EntryType::Link, "b", "a"),
        link(EntryType::Symlink, "c", &long),
        file(&long, "deep"),
        file("d/.wh.gone", ""),
        file("e/.wh..wh..opq", ""),
        time,
        attributes,
        big_owner,
    ];
    unpack(&archive(&entries), &cell.root()).unwrap();
    let holes = fs::File::create(cell.root().join("holes")).unwrap();
    // Zeros that are written in one file are a hole in the next.
    for (offset, bytes) in [(0, &b"begin"[..]), (1 << 30, &[0; 100_000]), (5_000_000_000, b"end")] {
        std::os::unix::fs::FileExt::write_all_at(&holes, bytes, offset).unwrap();
    }
    let packed = |root: &Path| {
        let mut bytes = Vec::new();
        pack(tree::open_root(root).unwrap().as_fd(), None, &mut bytes).unwrap();
        bytes
    };
    let first = packed(&cell.root());
    assert!(first.len() < 500_000, "{}", first.len());
    let copy = Cell::new();
    unpack(&first, &copy.root()).unwrap();
    assert!(packed(&copy.root()) == first, "the second packing differs");
    assert_eq!(fs::metadata(copy.root().join("time")).unwrap().mtime(), -5);
    assert_eq!(fs::metadata(copy.root().join("owner")).unwrap().uid(), 3_000_000_000);
    assert_eq!(fs::metadata(copy.root().join("holes")).unwrap().len(), 5_000_000_003);
    assert_eq!(fs::metadata(copy.root().join("a")).unwrap().ino(), fs::metadata(copy.root().join("b")).unwrap().ino());
    assert!(is_hidden(&copy.root().join("d/gone")) && is_opaque(&copy.root().join("e")));
}

#[test]
fn what_no_layer_can_hold_is_refused_by_the_packer() {
    let cell = Cell::new();
    fs::write(cell.root().join(".wh.trick"), "").unwrap();
    let error = pack(tree::open_root(&cell.root()).unwrap().as_fd(), None, std::io::sink()).unwrap_err();
    assert!(error.to_string().contains(".wh.trick"), "{error}");
}

#[test]
fn a_tree_that_changes_while_it_is_packed_still_packs_to_a_layer() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let cell = Cell::new();
    let root = cell.root();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let path = root.join(format!("f{}", round % 8));
                // Each name is in turn a file of some size, gone, a link, a directory with a file, and gone again.
                fs::write(&path, vec![b'x'; round % 5000]).unwrap();
                fs::hard_link(&path, root.join("z")).unwrap();
                fs::remove_file(root.join("z")).unwrap();
                fs::remove_file(&path).unwrap();
                symlink("/etc/passwd", &path).unwrap();
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
                fs::write(path.join("inside"), "x").unwrap();
                fs::remove_dir_all(&path).unwrap();
            }
        });
        let packed: Vec<_> = (0..200)
            .map(|_| {
                let mut bytes = Vec::new();
                pack(tree::open_root(&root).unwrap().as_fd(), None, &mut bytes).map(|()| bytes)
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        for bytes in packed {
            let copy = Cell::new();
            unpack(&bytes.unwrap(), &copy.root()).unwrap();
        }
    });
}

mod properties {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    struct Random {
        kind: u8,
        path: String,
        target: String,
        content: Vec<u8>,
        mode: u32,
    }

    /// Few short names, so that entries meet, and all that could lead out.
    fn path() -> impl Strategy<Value = String> {
        let component = prop_oneof![
            6 => "[abc]", 1 => Just("..".to_owned()), 1 => Just(".".to_owned()),
            1 => "\\.wh\\.[abc]", 1 => Just(".wh..wh..opq".to_owned()),
        ];
        (any::<bool>(), vec(component, 1..5))
            .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
    }

    fn entries() -> impl Strategy<Value = Vec<Random>> {
        let entry = (0..6u8, path(), path(), vec(any::<u8>(), 0..20), 0..0o10000u32)
            .prop_map(|(kind, path, target, content, mode)| Random { kind, path, target, content, mode });
        vec(entry, 0..24)
    }

    fn build(entries: &[Random]) -> Vec<u8> {
        let built: Vec<_> = entries
            .iter()
            .map(|entry| {
                let kind = [
                    EntryType::Regular,
                    EntryType::Directory,
                    EntryType::Symlink,
                    EntryType::Link,
                    EntryType::Fifo,
                    EntryType::Regular,
                ][usize::from(entry.kind)];
                let content = if kind == EntryType::Regular { entry.content.as_slice() } else { b"" };
                let plain = Description::plain(entry.path.as_bytes(), kind, entry.mode, content.len() as u64);
                (Description { link: entry.target.as_bytes(), ..plain }, content)
            })
            .collect();
        archive(&built)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn nothing_escapes_and_what_is_accepted_packs_to_a_fixed_point(entries in entries()) {
            let cell = Cell::new();
            let mut accepted = Vec::new();
            // One entry more at a time: what is refused is left out, so that deep states are reached.
            for entry in entries {
                accepted.push(entry);
                let trial = Cell::new();
                if unpack(&build(&accepted), &trial.root()).is_err() {
                    accepted.pop();
                }
                trial.is_intact();
            }
            unpack(&build(&accepted), &cell.root()).unwrap();
            cell.is_intact();
            let packed = |root: &Path| {
                let mut bytes = Vec::new();
                pack(tree::open_root(root).unwrap().as_fd(), None, &mut bytes).map(|()| bytes)
            };
            let first = packed(&cell.root()).unwrap();
            let copy = Cell::new();
            unpack(&first, &copy.root()).unwrap();
            prop_assert!(packed(&copy.root()).unwrap() == first, "the second packing differs");
        }
    }
}

#[test]
fn what_is_replaced_is_not_followed() {
    // Whatever stood at a name before: a link to outside is replaced, never written through.
    let cell = Cell::new();
    symlink(cell.0.path().join("secret"), cell.root().join("a")).unwrap();
    unpack(&archive(&[file("a", "x")]), &cell.root()).unwrap();
    cell.is_intact();
    assert_eq!(fs::metadata(cell.root().join("a")).unwrap().permissions().mode() & 0o777, 0o644);
}

/// One of few names, so that entries meet.
fn any_name() -> impl proptest::strategy::Strategy<Value = String> {
    proptest::sample::select(vec!["a", "b", "a/b", "a/c", "b/a", "a/b/c", ".wh.a", "a/.wh.b", "a/.wh..wh..opq", "./"])
        .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// `unpack` compares: whatever is accepted is given again to the byte, whatever entries do to one another.
    #[test]
    fn what_is_accepted_is_given_again(
        entries in proptest::collection::vec((any_name(), any_name(), 0..6usize, 0..3000usize), 0..12),
        trailing in 0..3usize,
    ) {
        let mut bytes = Vec::new();
        let mut writer = TarWriter::new(&mut bytes);
        for (number, (name, target, kind, length)) in entries.iter().enumerate() {
            let kind = [
                EntryType::Regular,
                EntryType::Regular,
                EntryType::Directory,
                EntryType::Symlink,
                EntryType::Link,
                EntryType::Fifo,
            ][*kind];
            let content = vec![number as u8; if kind == EntryType::Regular { *length } else { 0 }];
            let header = Description::plain(name.as_bytes(), kind, 0o755, content.len() as u64);
            writer.header(&Description { link: target.as_bytes(), ..header }).unwrap();
            writer.data(content.as_slice(), content.len() as u64).unwrap();
        }
        writer.finish().unwrap();
        bytes.resize(bytes.len() + trailing * 700, 5);
        let cell = Cell::new();
        let _ = unpack(&bytes, &cell.root());
        cell.is_intact();
    }
}
