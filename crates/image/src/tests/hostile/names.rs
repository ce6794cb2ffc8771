//! Names that lead out, by themselves or by way of links.

use EntryType::{Link, Symlink};

use super::forge::Forge;
use super::*;

type Entries<'a> = Vec<(Description<'a>, &'a [u8])>;
type Build = fn(&str) -> Entries<'_>;

#[test]
fn a_name_that_climbs_is_refused() {
    for name in ["../x", "a/../../x", "a/..", "..", "/..", "./../x", "a/b/../../../x", "/../../../../tmp/x"] {
        refuses(&archive(&[file(name, "x")]), "leads out by '..'");
        refuses(&archive(&[directory(name)]), "leads out by '..'");
        refuses(&archive(&[link(Link, "a", name)]), "leads out of the layer");
        let mut files = docker_files(&two_layers(), &[], plain);
        files.push((name.to_owned(), Vec::new()));
        refuses_archive(tarball(&files).as_slice(), "leads out by '..'");
    }
}

#[test]
fn an_absolute_name_is_the_layers_own() {
    let cell = Cell::new();
    let secret = format!("{}/secret", cell.outside());
    let layer = archive(&[file(&secret, "x"), file("//double", "y"), file("/./dot", "z")]);
    cell.load(image_of(&layer).as_slice()).unwrap();
    let layer = cell.layer();
    assert_eq!(fs::read_to_string(layer.join(&secret[1..])).unwrap(), "x");
    assert!(layer.join("double").exists() && layer.join("dot").exists());
}

/// Entries, built with where the tree outside lies; and what is said of them, or nothing if they are contained.
#[test]
fn links_lead_nowhere_but_into_the_layer() {
    let table: [(&str, Build); 17] = [
        ("is no directory", |out| vec![link(Symlink, "d", out), file("d/secret", "x")]),
        ("", |_| vec![link(Symlink, "d", "../../../outside"), directory("outside"), file("d/secret", "x")]),
        ("", |_| vec![link(Symlink, "d", "/"), file("d/secret", "x")]),
        ("", |_| vec![link(Symlink, "d", ".."), directory("d"), file("d/secret", "x")]),
        ("is no directory", |_| vec![link(Symlink, "d", "/proc/self/root"), file("d/tmp/x", "x")]),
        ("is no directory", |_| vec![link(Symlink, "d", "/proc/self/fd/3"), file("d/x", "x")]),
        ("is no directory", |_| vec![link(Symlink, "d", "d"), file("d/x", "x")]),
        ("is no directory", |_| vec![link(Symlink, "a", "b"), link(Symlink, "b", "a"), file("a/x", "x")]),
        // A directory that was used, swapped for a link, and used again.
        ("is no directory", |out| vec![file("d/a", "1"), link(Symlink, "d", out), file("d/secret", "x")]),
        ("", |_| vec![file("d/e/a", "1"), link(Symlink, "d", "/"), directory("e"), file("d/e/secret", "x")]),
        // A file is written at the name of a link, not through it.
        ("", |out| vec![link(Symlink, "secret", out), file("secret", "x")]),
        ("", |_| vec![link(Symlink, "l", "../../../outside/secret"), link(Link, "m", "l"), file("m", "x")]),
        // Hard links to what is outside, straight and by way of a symbolic one.
        ("not in this layer", |out| vec![link(Link, "l", out)]),
        ("not in this layer", |out| vec![link(Symlink, "d", out), link(Link, "l", "d/secret")]),
        ("not in this layer", |_| vec![link(Symlink, "d", "/proc/self/cwd"), link(Link, "l", "d/Cargo.toml")]),
        ("not in this layer", |_| vec![link(Link, "l", "l")]),
        ("a directory cannot have a hard link", |_| vec![directory("d"), link(Link, "l", "d")]),
    ];
    for (number, (want, build)) in table.into_iter().enumerate() {
        let cell = Cell::new();
        let outside = cell.outside();
        let result = cell.load(image_of(&archive(&build(&outside))).as_slice());
        match result {
            Ok(_) => assert_eq!(want, "", "number {number} was accepted"),
            Err(error) => {
                assert_ne!(want, "", "number {number}: {error}");
                is_refusal(&error, want);
            }
        }
    }
}

/// The layers of an image are unpacked apart from each other: no link of one is there when another is unpacked.
#[test]
fn a_link_in_a_lower_layer_is_not_there_for_an_upper_one() {
    let cell = Cell::new();
    let outside = cell.outside();
    let layers = [
        archive(&[link(Symlink, "d", &outside), file("f", "lower")]),
        archive(&[file("d/secret", "x"), file("f/inside", "a file below what was a file")]),
    ];
    let loaded = load(&cell.store, &tarball(&docker_files(&layers, &["a"], gzip)));
    let volume = tempfile::tempdir().unwrap();
    assert!(cell.store.copy_up(&loaded.id, Path::new("/"), volume.path()).unwrap());
    assert_eq!(fs::read_to_string(volume.path().join("d/secret")).unwrap(), "x");
    assert!(volume.path().join("f/inside").exists());
}

#[test]
fn strange_names_are_names() {
    let names: [&[u8]; 9] = [
        b"new\nline",
        b"escape\x1b[2J",
        b"back\\slash",
        b" leading",
        b"trailing ",
        b"caf\xe9",
        b"case",
        b"CASE",
        &[b'n'; 255],
    ];
    let mut forge = Forge::new();
    for name in names {
        forge = forge.special(b'L', &[name, b"\0"].concat()).header(|_| {});
    }
    let cell = contains(&forge.end());
    for name in names {
        assert!(cell.layer().join(std::ffi::OsStr::from_bytes(name)).exists(), "{name:?}");
    }
    let slash = contains(&Forge::new().header(|header| header.set_path("d/").unwrap()).end());
    assert!(slash.layer().join("d").is_dir());
}

#[test]
fn names_that_cannot_be_are_the_archives_fault() {
    refuses(&Forge::new().pax(&[("path", b"a\0b")]).header(|_| {}).end(), "holds a NUL");
    refuses(&archive(&[file(&"n/".repeat(2050), "")]), "longer than 4095 bytes");
    refuses(&archive(&[link(Symlink, "l", &"n/".repeat(2050))]), "too long");
    refuses(&archive(&[link(Symlink, "l", "")]), "its target is empty");
    refuses(&archive(&[file(".", "x")]), "only a directory can be the root");
    for name in ["n".repeat(256), format!("{}/x", "n".repeat(256)), format!("\x1b]0;{}\x07", "\u{1b}".repeat(260))] {
        refuses(&archive(&[file(&name, "x")]), "File name too long");
        refuses(&archive(&[directory(&name)]), "File name too long");
        refuses(&archive(&[file("a", ""), link(Link, "b", &name)]), "");
    }
}

/// A name of an archive is never long, nor a terminal's command, in what is said of it.
#[test]
fn what_is_said_of_a_name_is_short_and_can_be_printed() {
    let long = "\u{1b}[2J".repeat(250_000);
    refuses(&Forge::new().special(b'L', long.as_bytes()).header(|_| {}).end(), "longer than 4095 bytes");
    let uid = |header: &mut tar::Header| header.set_uid(1 << 40);
    refuses(&Forge::new().special(b'L', long.as_bytes()).header(uid).end(), "has no valid owner");
    let outer = Forge::new().special(b'L', long.as_bytes()).header(|_| {}).end();
    refuses_archive(outer.as_slice(), "longer than 4095 bytes");
    for manifest in [
        json!([{ "Config": long, "Layers": [] }]),
        json!([{ "Config": "c", "Layers": [long] }]),
        json!([{ "Config": "c", "RepoTags": [long], "Layers": [] }]),
        json!([{ "Config": [long], "Layers": [] }]),
        json!([{ "Config": long.as_str().repeat(2), "Layers": { long.as_str(): 1 } }]),
    ] {
        let files =
            [("c".to_owned(), config(&[vec![]])), ("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap())];
        refuses_archive(tarball(&files).as_slice(), "cannot load");
    }
    let mut other = serde_json::from_slice::<Value>(&config(&[])).unwrap();
    other["os"] = json!(long);
    let files = [
        ("c".to_owned(), serde_json::to_vec(&other).unwrap()),
        ("manifest.json".to_owned(), br#"[{"Config":"c"}]"#.to_vec()),
    ];
    refuses_archive(tarball(&files).as_slice(), "it is an image for");
}
