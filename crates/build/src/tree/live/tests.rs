use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::operation::{Copy, Origin, Source};
use crate::tree::PlainTree;
use crate::{copy, tree};

fn open(path: &Path) -> LiveTree {
    LiveTree::new(rustix::fs::open(path, beneath::DIRECTORY, Mode::empty()).unwrap())
}

fn text(content: &Content) -> String {
    let mut text = String::new();
    content.open().unwrap().read_to_string(&mut text).unwrap();
    text
}

fn make_special(place: &TempDir, name: &str, kind: FileType, device: u64) {
    rustix::fs::mknodat(rustix::fs::CWD, place.path().join(name), kind, Mode::RUSR, device).unwrap();
}

#[test]
fn all_of_a_file_is_told() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir_all(at("d/e")).unwrap();
    fs::write(at("d/f"), "hello").unwrap();
    fs::set_permissions(at("d/f"), fs::Permissions::from_mode(0o4751)).unwrap();
    rustix::fs::chownat(
        rustix::fs::CWD,
        at("d/f"),
        Some(rustix::fs::Uid::from_raw(7)),
        None,
        rustix::fs::AtFlags::empty(),
    )
    .unwrap();
    fs::set_permissions(at("d/f"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(at("d/f"), at("d/g")).unwrap();
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(at("d/f"), "security.capability", capability, flags).unwrap();
    rustix::fs::setxattr(at("d/f"), "trusted.secret", b"x", flags).unwrap();
    let odd = OsStr::from_bytes(b"\xff\xfe\n");
    fs::write(place.path().join(odd), "odd").unwrap();

    let live = open(place.path());
    let node = live.node(b"d/f").unwrap().unwrap();
    assert_eq!((node.mode, node.uid, node.gid), (0o4751, 7, 0));
    assert_eq!(node.attributes, [(b"security.capability".to_vec(), capability.to_vec())]);
    assert!(node.identity.is_some() && node.identity == live.node(b"d/g").unwrap().unwrap().identity);
    let NodeKind::File { size, digest, content } = node.kind else { panic!() };
    let NodeKind::File { digest: expected, .. } = NodeKind::file(b"hello") else { panic!() };
    assert_eq!((size, digest, text(&content)), (5, expected, "hello".into()));
    assert_eq!(live.names(b"").unwrap(), [b"d".to_vec(), b"\xff\xfe\n".to_vec()]);
    assert_eq!(live.names(b"d").unwrap(), [b"e", b"f", b"g"]);
    assert_eq!(live.kind(b"").unwrap(), Some(Kind::Directory));
    assert_eq!(live.kind(b"d/e").unwrap(), Some(Kind::Directory));
    let node = live.node(b"\xff\xfe\n").unwrap().unwrap();
    assert!(node.identity.is_none() && matches!(node.kind, NodeKind::File { size: 3, .. }));
    for missing in [&b"x"[..], b"d/x", b"d/f/x", b"x/y/z", &[b'n'; 300]] {
        assert_eq!(live.kind(missing).unwrap(), None, "{missing:?}");
        assert!(live.node(missing).unwrap().is_none() && live.names(missing).unwrap().is_empty());
    }
}

#[test]
fn nothing_is_found_through_links_and_none_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let place = outside.path().join("root");
    fs::create_dir_all(place.join("d")).unwrap();
    fs::write(place.join("d/f"), "1").unwrap();
    symlink("..", place.join("up")).unwrap();
    symlink(outside.path(), place.join("out")).unwrap();
    symlink("/proc/self/root", place.join("magic")).unwrap();
    symlink("d", place.join("to-d")).unwrap();
    let live = open(&place);
    for path in ["up/secret", "out/secret", "magic/etc", "to-d/f", "../secret"] {
        assert!(live.kind(path.as_bytes()).map_or(true, |kind| kind.is_none()), "{path}");
        assert!(live.node(path.as_bytes()).map_or(true, |node| node.is_none()), "{path}");
    }
    for path in ["up", "out", "magic"] {
        assert!(matches!(live.kind(path.as_bytes()).unwrap(), Some(Kind::Link(_))), "{path}");
    }
    assert_eq!(live.beginning("/to-d/f", 10).unwrap().unwrap(), b"1");
    assert_eq!(live.beginning("to-d/f", 0).unwrap().unwrap(), b"");
    for path in ["d", "up/../secret", "out/secret", "magic/etc/passwd", "nothing"] {
        assert_eq!(live.beginning(path, 10).unwrap(), None, "{path}");
    }
    let lead = |path: &str| resolve(|path| live.kind(path), path.as_bytes(), true).unwrap();
    assert_eq!(lead("up/../../secret").kind, None);
    assert_eq!(lead("out/secret").kind, None);
    assert_eq!((lead("/to-d/f").path, lead("/to-d/f").kind), (b"d/f".to_vec(), Some(Kind::File)));
    assert_eq!(lead("up/up/to-d/..").path, b"");
}

#[test]
fn what_is_no_file_is_never_opened() {
    let place = tempfile::tempdir().unwrap();
    make_special(&place, "pipe", FileType::Fifo, 0);
    make_special(&place, "null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    make_special(&place, "disk", FileType::BlockDevice, rustix::fs::makedev(7, 200));
    let _socket = UnixListener::bind(place.path().join("socket")).unwrap();
    let live = open(place.path());
    let kind = |name: &str| live.node(name.as_bytes()).unwrap().map(|node| node.kind);
    assert!(matches!(kind("pipe"), Some(NodeKind::Pipe)));
    assert!(matches!(kind("null"), Some(NodeKind::CharacterDevice(1, 3))));
    assert!(matches!(kind("disk"), Some(NodeKind::BlockDevice(7, 200))));
    assert!(kind("socket").is_none());
    assert_eq!(live.kind(b"socket").unwrap(), Some(Kind::Special));
    for name in ["pipe", "null", "disk", "socket"] {
        assert_eq!(live.beginning(name, 10).unwrap(), None, "{name}");
    }
}

/// Between looking and reading, a name may come to mean something else.
#[test]
fn what_came_in_a_files_place_is_not_read() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/f"), "1").unwrap();
    fs::write(at("other"), "2").unwrap();
    let live = open(place.path());
    let NodeKind::File { content, .. } = live.node(b"d/f").unwrap().unwrap().kind else { panic!() };
    fs::remove_file(at("d/f")).unwrap();
    assert!(content.open().is_err());
    make_special(&place, "d/f", FileType::Fifo, 0);
    assert!(content.open().is_err());
    fs::remove_file(at("d/f")).unwrap();
    symlink("../other", at("d/f")).unwrap();
    assert!(content.open().is_err());
    fs::remove_file(at("d/f")).unwrap();
    fs::hard_link(at("other"), at("d/f")).unwrap();
    assert!(content.open().is_err());
}

#[test]
fn a_stage_is_copied_with_its_links_and_owners() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir_all(at("app/bin")).unwrap();
    fs::write(at("app/bin/run"), "run").unwrap();
    fs::hard_link(at("app/bin/run"), at("app/a-run")).unwrap();
    symlink("bin/run", at("app/link")).unwrap();
    let _socket = UnixListener::bind(at("app/socket")).unwrap();
    rustix::fs::chown(at("app/bin"), Some(rustix::fs::Uid::from_raw(5)), Some(rustix::fs::Gid::from_raw(6))).unwrap();
    let live = open(place.path());
    let operation = Copy {
        origin: Origin::Stage(0),
        sources: vec![Source::Path("/app".into())],
        destination: "/srv".into(),
        owner: None,
        mode: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        add: None,
    };
    let image = PlainTree::empty();
    let spool = || tempfile::tempfile();
    let placing = copy::Placing { destination: &image, owner: None, made_at: (0, 0), spool: &spool };
    let copied = copy::plan(&operation, &copy::Sources { origin: &live, fetched: &[] }, &placing).unwrap();
    let names: Vec<_> = copied.entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect();
    assert_eq!(names, ["srv", "srv/a-run", "srv/bin", "srv/bin/run", "srv/link"]);
    assert_eq!(copied.entries[3].hard_link.as_deref(), Some(&b"srv/a-run"[..]));
    assert_eq!((copied.entries[2].node.uid, copied.entries[2].node.gid), (5, 6));
    let NodeKind::File { content, .. } = &copied.entries[1].node.kind else { panic!() };
    assert_eq!(text(content), "run");
    assert!(tree::above(b"srv/bin/run").eq([&b""[..], b"srv", b"srv/bin"]));
}
