//! Attributes and rights that would mean more to the host, or to the overlay, than to the image.

use std::os::fd::AsFd;

use super::forge::Forge;
use super::*;
use crate::tree;

const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn names_of(layer: &Path, path: &str) -> Vec<String> {
    let root = tree::open_root(layer).unwrap();
    let xattrs = tree::xattrs(root.as_fd(), path.as_bytes()).unwrap();
    xattrs.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect()
}

/// What the overlay keeps of itself in attributes decides what a container sees of other layers: `redirect` and `metacopy`
/// lead to any file there. A layer brings none of it.
#[test]
fn the_overlays_own_marks_are_not_forged() {
    let names =
        ["opaque", "redirect", "metacopy", "origin", "impure", "nlink", "upper", "uuid", "protattr", "whiteout"];
    let mut records = Vec::new();
    for name in names {
        records.push((format!("SCHILY.xattr.trusted.overlay.{name}"), b"y".to_vec()));
        records.push((format!("SCHILY.xattr.user.overlay.{name}"), b"y".to_vec()));
    }
    for name in ["trusted.other", "security.selinux", "security.ima", "security.evm", "system.other", "overlay.opaque"]
    {
        records.push((format!("SCHILY.xattr.{name}"), b"y".to_vec()));
    }
    records.push(("LIBARCHIVE.xattr.trusted.overlay.opaque".into(), b"eQ==".to_vec()));
    records.push(("SCHILY.xattr.security.capability".into(), CAPABILITY.to_vec()));
    let records: Vec<_> = records.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
    let mut forge = Forge::new();
    for (path, kind) in [
        ("./", EntryType::Directory),
        ("d/", EntryType::Directory),
        ("f", EntryType::Regular),
        ("l", EntryType::Symlink),
        ("p", EntryType::Fifo),
        (".wh.gone", EntryType::Regular),
    ] {
        forge = forge.pax(&records).header(|header| {
            header.set_path(path).unwrap();
            header.set_entry_type(kind);
            header.set_link_name("f").unwrap();
        });
    }
    let cell = contains(&forge.end());
    let layer = cell.layer();
    assert_eq!(names_of(&layer, "f"), ["security.capability"]);
    for path in [".", "d", "l", "p", "gone"] {
        let names = names_of(&layer, path);
        assert!(names.iter().all(|name| name == "security.capability"), "{path}: {names:?}");
    }
}

#[test]
fn attributes_that_cannot_be_are_the_archives_fault() {
    let long = format!("SCHILY.xattr.user.{}", "n".repeat(300));
    for (key, value) in [
        (long.as_str(), &b"v"[..]),
        ("SCHILY.xattr.user.", b"v"),
        ("SCHILY.xattr.user.a\0b", b"v"),
        ("SCHILY.xattr.security.capability", b"no capability"),
        ("SCHILY.xattr.user.large", &[b'v'; 70_000]),
    ] {
        let layer = Forge::new().pax(&[(key, value)]).header(|_| {}).end();
        Cell::on_disk().refuses(image_of(&layer).as_slice(), "set the attributes of");
    }
    // A list of 8000 entries, each of them wrong: refused, or passed over where the file system knows no such lists.
    let cell = Cell::new();
    let list = [&[2, 0, 0, 0][..], &[0xff; 64_000]].concat();
    let layer = Forge::new().pax(&[("SCHILY.xattr.system.posix_acl_access", &list)]).header(|_| {}).end();
    if let Err(error) = cell.load(image_of(&layer).as_slice()) {
        is_refusal(&error, "set the attributes of");
    }
}

/// A layer may hold device nodes, as with Docker: a container opens only those that its device rules allow. On the host
/// nobody but root comes near them, nor near a program that is setuid.
#[test]
fn devices_and_setuid_programs_are_out_of_everybodys_reach() {
    let mut setuid = file("setuid", "#!");
    setuid.0.mode = 0o4755;
    let mut disk = link(EntryType::Block, "disk", "");
    (disk.0.device, disk.0.mode) = ((8, 0), 0o666);
    let cell = contains(&archive(&[setuid, disk]));
    assert_eq!(fs::symlink_metadata(cell.layer().join("disk")).unwrap().rdev(), rustix::fs::makedev(8, 0));
    assert_eq!(fs::metadata(cell.layer().join("setuid")).unwrap().mode() & 0o7777, 0o4755);
    for name in ["layers", "tmp", "content", "content/sha256"] {
        let stat = fs::metadata(cell.place.path().join("root").join(name)).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.uid()), (0o700, 0), "{name}");
    }
}

/// What a container may do to its own tree is in the image that is committed of it, and no more than that.
#[test]
fn a_commit_gives_no_more_rights_than_there_were() {
    let home = Home::new();
    let store = home.open();
    let base = load(&store, &tarball(&docker_files(&two_layers(), &["base"], plain))).id;
    let upper = tempfile::tempdir().unwrap();
    fs::set_permissions(upper.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| upper.path().join(name);
    fs::write(at("setuid"), "#!").unwrap();
    std::os::unix::fs::chown(at("setuid"), Some(1000), Some(1000)).unwrap();
    fs::set_permissions(at("setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(at("capable"), "#!").unwrap();
    fs::create_dir(at("data")).unwrap();
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(at(name), key, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("capable", "security.capability", &CAPABILITY);
    set("data", "trusted.overlay.opaque", b"y");
    set("data", "trusted.other", b"y");
    let request = || CommitRequest {
        healthcheck: None,
        base: base.clone(),
        upper: upper.path(),
        config: ImageConfig::default(),
        author: None,
        comment: None,
        created_by: String::new(),
        created: None,
        reference: Some(reference("made")),
    };
    let id = store.commit(request(), &|| true).unwrap().unwrap();
    let layer = store.lower_directories(&id).unwrap().remove(0);
    let stat = fs::metadata(layer.join("setuid")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o4755, 1000, 1000));
    assert_eq!(names_of(&layer, "capable"), ["security.capability"]);
    assert_eq!(names_of(&layer, "data"), ["trusted.overlay.opaque"]);
    for name in ["trusted.overlay.redirect", "trusted.overlay.metacopy"] {
        set("setuid", name, b"/etc/shadow");
        let error = store.commit(request(), &|| true).unwrap_err();
        assert!(error.to_string().contains("keeps only a part of it"), "{error}");
        rustix::fs::lremovexattr(at("setuid"), name).unwrap();
    }
}
