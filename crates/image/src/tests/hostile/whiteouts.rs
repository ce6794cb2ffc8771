//! Whiteouts that hide what they may not (OCI image-spec, layer.md, "Whiteouts").

use EntryType::{Char, Link, Symlink};

use super::forge::Forge;
use super::*;

#[test]
fn a_whiteout_hides_something_that_has_a_name() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..", "a/.wh..."] {
        refuses(&archive(&[directory("a"), file(name, "")]), "it hides nothing that has a name");
    }
    for name in [".wh.a/b", ".wh./b", ".wh../b", "a/.wh.b/c", ".wh..wh..opq/b", "a/.wh..wh..opq/b/c"] {
        refuses(&archive(&[file(name, "")]), "a whiteout holds nothing");
        refuses(&archive(&[directory(name)]), "a whiteout holds nothing");
    }
    for name in [".wh.../x", "a/.wh./../.wh.x"] {
        refuses(&archive(&[file(name, "")]), "");
    }
}

#[test]
fn a_whiteout_is_one_whatever_kind_of_entry_it_is() {
    for kind in [EntryType::Regular, EntryType::Directory, Symlink, Link, Char, EntryType::Block, EntryType::Fifo] {
        let cell = contains(&archive(&[link(kind, ".wh.gone", "/etc/passwd"), link(kind, "d/.wh..wh..opq", "x")]));
        let gone = fs::symlink_metadata(cell.layer().join("gone")).unwrap();
        assert_eq!((gone.mode() & libc_format(), gone.rdev()), (0o020_000, 0), "{kind:?}");
        assert_eq!(fs::read_dir(cell.layer().join("d")).unwrap().count(), 0, "{kind:?}");
    }
}

fn libc_format() -> u32 {
    0o170_000
}

#[test]
fn whiteouts_stay_in_the_layer() {
    let cell = Cell::new();
    let outside = cell.outside();
    let hidden = format!("{outside}/.wh.secret");
    let opaque = format!("{outside}/.wh..wh..opq");
    let layer = archive(&[
        link(Symlink, "up", "../../../outside"),
        directory("outside"),
        file("up/.wh.secret", ""),
        file("up/.wh..wh..opq", ""),
        file(&hidden, ""),
        file(&opaque, ""),
    ]);
    cell.load(image_of(&layer).as_slice()).unwrap();
    assert!(fs::symlink_metadata(cell.layer().join("outside/secret")).is_ok());
}

#[test]
fn nothing_is_linked_to_a_whiteout() {
    for entries in [
        [file(".wh.a", ""), link(Link, "b", "a")],
        [file(".wh.a", ""), link(Link, "b", ".wh.a")],
        [file(".wh..wh..opq", ""), link(Link, "b", ".wh..wh..opq")],
        [link(Char, "a", ""), link(Link, "b", "a")],
    ] {
        refuses(&archive(&entries), "not in this layer");
    }
}

/// The kernel cuts a device number that it cannot hold: 4096:0 would come out as 0:0, which is a whiteout.
#[test]
fn a_device_number_is_what_it_says() {
    for (major, minor) in [(4096, 0), (0, 1 << 20), (1 << 31, 0), (u32::MAX, u32::MAX)] {
        let layer = Forge::new().header(|header| {
            header.set_entry_type(Char);
            header.as_gnu_mut().unwrap().dev_major = binary(major);
            header.as_gnu_mut().unwrap().dev_minor = binary(minor);
        });
        refuses(&layer.end(), "device");
    }
}

/// A number that does not fit in octal digits, as GNU tar writes it.
fn binary(number: u32) -> [u8; 8] {
    let mut field = [0; 8];
    field[0] = 0x80;
    field[4..].copy_from_slice(&number.to_be_bytes());
    field
}
