//! ADD of archives.

use std::io::Write;

use super::*;

const NEVER: Option<bool> = Some(false);

fn add(sources: &[&str], destination: &str, unpack: Option<bool>) -> Copy {
    let add = Add { checksum: None, keep_git_directory: false, unpack };
    Copy { add: Some(add), ..copy(sources, destination) }
}

/// A tar archive of lines like those of a tree; `path=>first` is a hard link.
fn archive(lines: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for line in lines {
        let mut words = line.split(' ');
        let what = words.next().unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(5);
        header.set_size(0);
        for word in words {
            match word.split_once(':') {
                Some((uid, gid)) => {
                    header.set_uid(uid.parse().unwrap());
                    header.set_gid(gid.parse().unwrap());
                }
                None => header.set_mode(u32::from_str_radix(word, 8).unwrap()),
            }
        }
        if let Some((path, first)) = what.split_once("=>") {
            header.set_entry_type(tar::EntryType::Link);
            builder.append_link(&mut header, path, first).unwrap();
        } else if let Some((path, target)) = what.split_once("->") {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, path, target).unwrap();
        } else if what.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            if header.mode().unwrap() == 0o644 {
                header.set_mode(0o755);
            }
            builder.append_data(&mut header, what, &b""[..]).unwrap();
        } else {
            let (path, content) = what.split_once('=').unwrap();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

pub(crate) fn compressed(bytes: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(bytes).unwrap();
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    xz.write_all(bytes).unwrap();
    [
        ("gzip", gzip.finish().unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("zstd", zstd::encode_all(bytes, 1).unwrap()),
    ]
}

fn holding(name: &str, bytes: &[u8]) -> PlainTree {
    PlainTree::empty().with(name.as_bytes(), Node::text(bytes, (7, 0)))
}

#[track_caller]
fn unpacks(entries: &[&str], destination: &str, image: &[&str], expected: &[&str]) {
    let origin = holding("a.tar", &archive(entries));
    match done(&add(&["a.tar"], destination, None), &origin, &tree(image)) {
        Ok(copied) => assert_eq!(lines(&copied.entries), expected),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_compression_is_known_by_its_first_bytes() {
    let plain = archive(&["d/x=1", "y=2 0600 3:4"]);
    let expected = ["o/", "o/d/", "o/d/x=1", "o/y=2 600 3:4"];
    for (name, bytes) in compressed(&plain).into_iter().chain([("plain", plain.clone())]) {
        let origin = holding("file", &bytes);
        let copied = done(&add(&["file"], "/o", None), &origin, &tree(&[])).unwrap();
        assert_eq!(lines(&copied.entries), expected, "{name}");
        // COPY takes it as it is, and so does ADD that is told to.
        for operation in [copy(&["file"], "/o"), add(&["file"], "/o", NEVER)] {
            let copied = done(&operation, &origin, &tree(&[])).unwrap();
            assert!(matches!(copied.entries.as_slice(), [Entry { path, .. }] if path == b"o"), "{name}");
        }
    }
}

#[test]
fn what_is_no_archive_is_copied() {
    let gzip_of_text = compressed(b"just text")[0].1.clone();
    let mut cut = archive(&["x=1"]);
    cut.truncate(300);
    for bytes in [&b"text"[..], b"", &gzip_of_text, &[0; 1024], &cut, b"BZh", b"\x1f\x8b", b"\xfd7zXZ\0"] {
        let copied = done(&add(&["f"], "/o", None), &holding("f", bytes), &tree(&[])).unwrap();
        assert!(matches!(copied.entries.as_slice(), [Entry { path, .. }] if path == b"o"), "{bytes:?}");
    }
}

#[test]
fn a_damaged_archive_says_so() {
    let mut bytes = archive(&["x=1", "y=2"]);
    bytes.truncate(1200);
    let error = done(&add(&["f.tar"], "/o", None), &holding("f.tar", &bytes), &tree(&[])).unwrap_err();
    assert_eq!(error.to_string(), "cannot unpack /f.tar: the archive cannot be read: it is cut short");
    let mut bytes = archive(&["ok=1", "evil=2"]);
    bytes[1024..1028].copy_from_slice(b"../e");
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&bytes[1024..1536]);
    header.set_cksum();
    bytes[1024..1536].copy_from_slice(header.as_bytes());
    let error = done(&add(&["f.tar"], "/o", None), &holding("f.tar", &bytes), &tree(&[])).unwrap_err();
    assert!(error.to_string().ends_with("is refused: its name leads out by '..'"), "{error}");
}

#[test]
fn an_archive_replaces_what_stands() {
    unpacks(&["a/", "a/x=1"], "/", &["a=old"], &["a/", "a/x=1"]);
    unpacks(&["a/", "a/x=1"], "/", &["a->b", "b/"], &["a/", "a/x=1"]);
    unpacks(&["a=1"], "/", &["a/x=old"], &["a=1"]);
    unpacks(&["a->b"], "/", &["a/x=old"], &["a->b"]);
    unpacks(&["a/ 0700 3:4"], "/", &["a/x=old", "a/ 0711"], &["a/ 700 3:4"]);
    unpacks(&["./ 0711 1:2", "x=1"], "/d", &["d/ 0700"], &["d/ 700", "d/x=1"]);
}

#[test]
fn an_implied_directory_goes_through_links_below_the_destination() {
    unpacks(&["lib/x=1"], "/", &["lib->usr/lib", "usr/lib/ 0700"], &["usr/", "usr/lib/ 700", "usr/lib/x=1"]);
    unpacks(&["lib/n/x=1"], "/", &["lib->usr/lib", "usr/lib/"], &["usr/", "usr/lib/", "usr/lib/n/", "usr/lib/n/x=1"]);
    unpacks(&["e/x=1"], "/d", &["d/e->/etc", "etc/"], &["d/", "d/etc/", "d/etc/x=1"]);
    unpacks(&["e/x=1"], "/d", &["d/e->../../etc", "etc/"], &["d/", "d/etc/", "d/etc/x=1"]);
    unpacks(&["x=1"], "/l", &["l->d", "d/ 0700"], &["d/ 700", "d/x=1"]);
    let origin = holding("a.tar", &archive(&["f/x=1"]));
    let error = done(&add(&["a.tar"], "/", None), &origin, &tree(&["f=1"])).unwrap_err();
    assert_eq!(error.to_string(), "mkdir /f: not a directory");
}

#[test]
fn names_and_owners_of_an_archive_come_along() {
    unpacks(&["b=1 0600 1:1", "a=>b"], "/o", &[], &["o/", "o/a=1 600 1:1", "o/b=>o/a"]);
    let origin = holding("a.tar", &archive(&["x=1 0600 1:1"]));
    let mode = FileMode::parse("777").ok();
    let operation = Copy { owner: Some("web".into()), mode, ..add(&["a.tar"], "/o", None) };
    let copied = done(&operation, &origin, &tree(&[])).unwrap();
    // BuildKit leaves owners and modes of what an archive holds alone.
    assert_eq!(lines(&copied.entries), ["o/ 33:34", "o/x=1 600 1:1"]);
}

#[test]
fn what_one_archive_takes_away_another_does_not_bring_back() {
    let first = Node::text(&archive(&["d=1"]), (0, 0));
    let second = Node::text(&archive(&["d/", "d/new=2"]), (0, 0));
    let origin = PlainTree::empty().with(b"1.tar", first).with(b"2.tar", second);
    let image = tree(&["d/old=x"]);
    let copied = done(&add(&["1.tar", "2.tar"], "/", None), &origin, &image).unwrap();
    assert_eq!(lines(&copied.entries), ["d/", "d/.wh..wh..opq=", "d/new=2"]);
    let copied = done(&add(&["2.tar", "1.tar"], "/", None), &origin, &image).unwrap();
    assert_eq!(lines(&copied.entries), ["d=1"]);
}

#[test]
fn what_was_fetched_is_unpacked_if_it_is_asked_for() {
    let file = holding("a.tar", &archive(&["x=1"]));
    let fetched = [Fetched { tree: &file, path: b"a.tar" }];
    let image = tree(&[]);
    let spool = || tempfile::tempfile();
    let placing = Placing { destination: &image, owner: None, made_at: (0, 0), spool: &spool };
    for (unpack, expected) in [(None, b"o".to_vec()), (Some(true), b"o/x".to_vec())] {
        let operation = Copy { sources: vec![Source::Url("u".into())], ..add(&[], "/o", unpack) };
        let copied = plan(&operation, &Sources { origin: &image, fetched: &fetched }, &placing).unwrap();
        assert_eq!(copied.entries.last().unwrap().path, expected, "{unpack:?}");
    }
}
