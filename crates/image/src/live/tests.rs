use std::fs;
use std::io::{Cursor, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tar::EntryType;

use super::*;
use crate::pack::{Description, TarWriter};
use crate::tree;

/// A tree with something outside of it that must never be touched.
struct Place {
    _directory: tempfile::TempDir,
    root: OwnedFd,
    inside: PathBuf,
    outside: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let (inside, outside) = (directory.path().join("root"), directory.path().join("outside"));
    fs::create_dir_all(inside.join("d/e")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(inside.join("d/file"), "content").unwrap();
    Place { root: tree::open_root(&inside).unwrap(), _directory: directory, inside, outside }
}

fn path(text: &str) -> LivePath {
    LivePath::new(text.as_bytes()).unwrap()
}

type Member<'a> = (EntryType, &'a str, &'a str);

fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = TarWriter::new(&mut bytes);
    for (kind, name, rest) in members {
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        let size = if *kind == EntryType::Regular { rest.len() as u64 } else { 0 };
        let link = if is_link { rest.as_bytes() } else { b"" };
        let header = Description { link, device: (1, 3), ..Description::plain(name.as_bytes(), *kind, 0o640, size) };
        writer.header(&header).unwrap();
        if *kind == EntryType::Regular {
            writer.data(rest.as_bytes(), size).unwrap();
        }
    }
    writer.finish().unwrap();
    bytes
}

const AS_CALLER: CopyIn = CopyIn { keep_kinds: true, owner: Owner::Caller, renamed: None, ids: None };

impl Place {
    fn put(&self, to: &str, members: &[Member<'_>]) -> Result<(), LiveError> {
        copy_in(self.root.as_fd(), &path(to), &AS_CALLER, Cursor::new(archive(members)))
    }

    /// Names and kinds of what comes out.
    fn get(&self, from: &str) -> Result<Vec<(String, EntryType)>, LiveError> {
        let mut bytes = Vec::new();
        copy_out(self.root.as_fd(), &path(from), None, None, &mut bytes)?;
        let mut reader = crate::tarball::TarReader::new(&bytes[..]);
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            found.push((String::from_utf8(entry.path).unwrap(), entry.kind));
        }
        Ok(found)
    }

    fn untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read_to_string(self.outside.join("secret")).unwrap(), "secret");
    }
}

#[test]
fn paths_are_read_as_docker_reads_them() {
    for (text, clean, is_directory, base) in [
        ("/a/b", "a/b", false, "b"),
        ("a/b/", "a/b", true, "b"),
        ("/a/b/.", "a/b", true, "."),
        ("/", "", true, "/"),
        (".", "", true, "."),
        ("/a/../../b", "b", false, "b"),
        ("//a//./b", "a/b", false, "b"),
    ] {
        let path = path(text);
        assert_eq!((path.path.as_slice(), path.is_directory), (clean.as_bytes(), is_directory), "{text}");
        assert_eq!(path.base, base.as_bytes(), "{text}");
    }
    assert!(LivePath::new(b"a\0b").is_err() && LivePath::new(&[b'a'; 5000]).is_err());
}

#[test]
fn entries_are_named_by_what_was_asked_for() {
    let place = place();
    let names = |from: &str| place.get(from).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names("/d"), ["d/", "d/e/", "d/file"]);
    assert_eq!(names("/d/"), ["d/", "d/e/", "d/file"]);
    assert_eq!(names("/d/."), ["./", "./e/", "./file"]);
    assert_eq!(names("/"), ["/", "/d/", "/d/e/", "/d/file"]);
    assert_eq!(names("/d/file"), ["file"]);
}

#[test]
fn a_link_is_resolved_in_the_tree_as_far_as_it_leads() {
    let place = place();
    for (link, to, expected) in [
        ("absolute", "/d/file", "/d/file"),
        ("relative", "d/../d/e", "/d/e"),
        ("up", "../../../d", "/d"),
        ("chain", "absolute", "/d/file"),
        ("broken", "d/nothing/below", "/d/nothing/below"),
    ] {
        symlink(to, place.inside.join(link)).unwrap();
        let stat = path_stat(place.root.as_fd(), &path(link)).unwrap();
        assert_eq!((stat.name.as_str(), stat.link_target.as_deref()), (link, Some(expected)));
    }
    symlink("loop", place.inside.join("loop")).unwrap();
    assert!(matches!(path_stat(place.root.as_fd(), &path("loop")), Err(LiveError::NotReachable { .. })));
    assert!(matches!(path_stat(place.root.as_fd(), &path("d/no")), Err(LiveError::NoSuchPath(_))));
    assert!(matches!(path_stat(place.root.as_fd(), &path("d/file/")), Err(LiveError::NotReachable { .. })));
}

#[test]
fn nothing_leads_out_of_the_tree() {
    let place = place();
    let outside = place.outside.to_str().unwrap();
    symlink(outside, place.inside.join("out")).unwrap();
    symlink("../../../../../../../../../..", place.inside.join("up")).unwrap();
    symlink("/proc/self/root", place.inside.join("magic")).unwrap();
    assert!(matches!(place.get("/out/secret"), Err(LiveError::NoSuchPath(_))));
    assert!(place.put("/out", &[(EntryType::Regular, "secret", "x")]).is_err());
    assert!(place.put("/magic", &[(EntryType::Regular, "x", "x")]).is_err());
    // To the tree's own root.
    place.put("/up", &[(EntryType::Regular, "climbed", "x")]).unwrap();
    assert!(place.inside.join("climbed").is_file());
    // By links that the archive brings, or finds.
    let through =
        |link: &str| vec![(EntryType::Symlink, "l", link.to_owned()), (EntryType::Regular, "l/secret", "x".into())];
    for link in [outside, "../outside", "../../../../../../.."] {
        let members = through(link);
        let members: Vec<Member<'_>> = members.iter().map(|(kind, name, rest)| (*kind, *name, rest.as_str())).collect();
        drop(place.put("/d", &members));
        drop(fs::remove_file(place.inside.join("d/l")));
    }
    let hard = format!("{outside}/secret");
    assert!(place.put("/", &[(EntryType::Link, "hard", &hard)]).is_err());
    assert!(place.put("/", &[(EntryType::Link, "hard", "../outside/secret")]).is_err());
    assert!(place.put("/", &[(EntryType::Regular, "../escaped", "x")]).is_err());
    place.untouched();
}

/// Someone in the tree swaps a directory for a link to the outside all the time.
#[test]
fn a_swapped_directory_does_not_lead_out() {
    let place = place();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                drop(fs::rename(place.inside.join("d"), place.inside.join("away")));
                drop(symlink(&place.outside, place.inside.join("d")));
                drop(fs::remove_file(place.inside.join("d")));
                drop(symlink("../outside", place.inside.join("d")));
                drop(fs::remove_file(place.inside.join("d")));
                drop(fs::rename(place.inside.join("away"), place.inside.join("d")));
            }
        });
        for _ in 0..2000 {
            drop(place.put("/d", &[(EntryType::Regular, "secret", "x"), (EntryType::Fifo, "pipe", "")]));
            if let Ok(found) = place.get("/d/") {
                let is_ours = |name: &str| !name.ends_with("secret") || place.outside.join("secret").is_file();
                assert!(found.iter().all(|(name, _)| is_ours(name)));
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    place.untouched();
}

#[test]
fn what_stands_is_merged_or_replaced_or_refused() {
    let place = place();
    let inode = |name: &str| fs::metadata(place.inside.join(name)).unwrap().ino();
    fs::hard_link(place.inside.join("d/file"), place.inside.join("other")).unwrap();
    let before = (inode("d"), inode("other"));
    place.put("/", &[(EntryType::Directory, "d", ""), (EntryType::Regular, "d/file", "new")]).unwrap();
    assert_eq!((inode("d"), inode("other")), before);
    // Made anew: who has the old file by another name keeps it as it is.
    assert_eq!(fs::read_to_string(place.inside.join("other")).unwrap(), "content");
    assert_eq!(fs::read_to_string(place.inside.join("d/file")).unwrap(), "new");
    let words = |result: Result<(), LiveError>| result.unwrap_err().to_string();
    let refused = words(place.put("/", &[(EntryType::Regular, "d", "x")]));
    assert_eq!(refused, "cannot overwrite directory \"/d\" with non-directory \"/\"");
    let refused = words(place.put("/d", &[(EntryType::Directory, "file", "")]));
    assert_eq!(refused, "cannot overwrite non-directory \"/d/file\" with directory \"/d\"");
    let forced = CopyIn { keep_kinds: false, ..AS_CALLER };
    let bytes = archive(&[(EntryType::Regular, "d", "x")]);
    copy_in(place.root.as_fd(), &path("/"), &forced, Cursor::new(bytes)).unwrap();
    assert_eq!(fs::read_to_string(place.inside.join("d")).unwrap(), "x");
    assert!(matches!(place.put("/d", &[]), Err(LiveError::NotADirectory)));
}

#[test]
fn names_change_as_asked_and_only_their_first_part() {
    for (from, to, names, expected) in [
        ("a", "b", &["a", "a/a", "ab"][..], &["b", "b/a", "ab"][..]),
        (".", "b", &["./", "./x"], &["b", "b/x"]),
        ("/", "b", &["/", "/x"], &["b", "b/x"]),
    ] {
        let place = place();
        let members: Vec<Member<'_>> = names
            .iter()
            .map(|name| {
                if name.ends_with('/') || *name == "a" {
                    (EntryType::Directory, *name, "")
                } else {
                    (EntryType::Regular, *name, "x")
                }
            })
            .collect();
        let options = CopyIn { renamed: Some((from.into(), to.into())), ..AS_CALLER };
        copy_in(place.root.as_fd(), &path("/d/e"), &options, Cursor::new(archive(&members))).unwrap();
        for name in expected {
            assert!(place.inside.join("d/e").join(name).exists(), "{from} {name}");
        }
    }
}

#[test]
fn links_pipes_and_devices_come_and_go_without_being_opened() {
    let place = place();
    let members = [
        (EntryType::Fifo, "pipe", ""),
        (EntryType::Char, "null", ""),
        (EntryType::Symlink, "link", "nowhere"),
        (EntryType::Regular, "one", "1"),
        (EntryType::Link, "two", "one"),
    ];
    place.put("/d/e", &members).unwrap();
    let found = place.get("/d/e/.").unwrap();
    let kinds: Vec<_> = found.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
    let expected = [
        ("./", EntryType::Directory),
        ("./link", EntryType::Symlink),
        ("./null", EntryType::Char),
        ("./one", EntryType::Regular),
        ("./pipe", EntryType::Fifo),
        ("./two", EntryType::Link),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(fs::metadata(place.inside.join("d/e/one")).unwrap().nlink(), 2);
}

/// The kernel's own file systems are copied as Docker does it: procfs without what is in its files.
#[test]
fn what_the_kernel_makes_up_holds_nobody_up() {
    let root = tree::open_root(Path::new("/")).unwrap();
    let mut out = Vec::new();
    copy_out(root.as_fd(), &path("/proc/self/net"), None, None, &mut out).unwrap();
    copy_out(root.as_fd(), &path("/proc/cpuinfo"), None, None, &mut out).unwrap();
    copy_out(root.as_fd(), &path("/proc/sys/kernel/"), None, None, &mut out).unwrap();
    assert!(!out.is_empty());
}

#[test]
fn archives_that_are_none_are_errors_and_compressed_ones_are_not() {
    let place = place();
    let put = |bytes: &[u8]| copy_in(place.root.as_fd(), &path("/"), &AS_CALLER, bytes);
    assert!(matches!(put(&[b'x'; 2000]), Err(LiveError::Archive(_))));
    let whole = archive(&[(EntryType::Regular, "zipped", "content")]);
    assert!(matches!(put(&whole[..600]), Err(LiveError::Archive(_))));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).unwrap();
    put(&gzip.finish().unwrap()).unwrap();
    assert_eq!(fs::read_to_string(place.inside.join("zipped")).unwrap(), "content");
    assert_eq!(put(b"BZh91AY&SY").unwrap_err().kind(), ErrorKind::NotBuilt);
}
