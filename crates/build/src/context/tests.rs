use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;
use crate::operation::{Copy, Origin, Source};
use crate::tree::PlainTree;

mod hostile;
mod ignoring;
mod made;
mod parts;

fn spool() -> File {
    tempfile::tempfile().unwrap()
}

fn read(archive: &[u8]) -> Result<Context, ContextError> {
    Context::read(archive, spool())
}

/// Builds an archive with names as they are given, whatever they are.
#[derive(Clone, Default)]
struct Forge(Vec<u8>);

impl Forge {
    fn entry(mut self, kind: tar::EntryType, name: &str, change: impl FnOnce(&mut tar::Header), data: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        // What does not fit stands before it, without the slash between them.
        let parted = name.len().checked_sub(101).map(|from| from + name[from..].find('/').unwrap());
        let (prefix, name) = parted.map_or(("", name), |slash| (&name[..slash], &name[slash + 1..]));
        header.as_ustar_mut().unwrap().prefix[..prefix.len()].copy_from_slice(prefix.as_bytes());
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind == tar::EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(5);
        header.set_size(data.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.entry(tar::EntryType::Regular, name, |_| {}, data.as_bytes())
    }

    fn directory(self, name: &str) -> Self {
        self.entry(tar::EntryType::Directory, name, |_| {}, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, name, |header| header.set_link_name_literal(target).unwrap(), b"")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, name, |header| header.set_link_name_literal(target).unwrap(), b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// All paths, with what they are.
fn listing(context: &Context) -> Vec<String> {
    let mut lines = Vec::new();
    let mut stack = vec![Vec::new()];
    while let Some(path) = stack.pop() {
        let names = context.names(&path).unwrap();
        stack.extend(names.iter().rev().map(|name| crate::tree::join(&path, name)));
        if path.is_empty() {
            continue;
        }
        let shown = String::from_utf8_lossy(&path).into_owned();
        lines.push(match context.node(&path).unwrap().unwrap().kind {
            NodeKind::Directory => format!("{shown}/"),
            NodeKind::File { .. } => {
                format!("{shown}={}", String::from_utf8_lossy(&contents(context, &path)))
            }
            NodeKind::Link(target) => format!("{shown}->{}", String::from_utf8_lossy(&target)),
            other => format!("{shown} {other:?}"),
        });
    }
    lines
}

fn contents(context: &Context, path: &[u8]) -> Vec<u8> {
    let NodeKind::File { content, digest, size } = context.node(path).unwrap().unwrap().kind else { panic!() };
    let mut bytes = Vec::new();
    content.open().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, size);
    let NodeKind::File { digest: expected, .. } = NodeKind::file(&bytes) else { panic!() };
    assert_eq!(digest, expected);
    bytes
}

#[track_caller]
fn check(archive: Forge, expected: &[&str]) -> Context {
    let context = read(&archive.end()).unwrap();
    assert_eq!(listing(&context), expected);
    assert_eq!(context.count(), expected.len());
    context
}

#[test]
fn an_archive_is_an_index_and_a_spool() {
    let archive = Forge::default().directory("./").directory("d").file("d/x", "one").link("l", "d/x").file("e", "");
    let context = check(archive, &["d/", "d/x=one", "e=", "l->d/x"]);
    let node = context.node(b"d/x").unwrap().unwrap();
    // Who sent it says nothing in an image.
    assert_eq!((node.mode, node.uid, node.gid, node.mtime), (0o644, 0, 0, (5, 0)));
    assert_eq!(context.file("/l", 10).unwrap().unwrap(), b"one");
    assert_eq!(context.file("nothing", 10).unwrap(), None);
    assert_eq!(context.file("d", 10).unwrap(), None);
    let error = context.file("d/x", 2).unwrap_err();
    assert_eq!(error.to_string(), "/d/x is larger than 2 bytes");
}

#[test]
fn directories_are_implied_and_named_later() {
    let context = check(Forge::default().file("a/b/c", "1"), &["a/", "a/b/", "a/b/c=1"]);
    assert!(context.is_implied(b"a") && context.is_implied(b"a/b") && context.is_implied(b""));
    let named = Forge::default().file("a/b", "1").entry(tar::EntryType::Directory, "a/", |it| it.set_mode(0o700), b"");
    let context = check(named, &["a/", "a/b=1"]);
    assert!(!context.is_implied(b"a"));
    assert_eq!(context.node(b"a").unwrap().unwrap().mode, 0o700);
}

#[test]
fn what_comes_again_replaces_what_was_there() {
    check(Forge::default().file("a", "1").file("a", "2"), &["a=2"]);
    check(Forge::default().file("a/b", "1").file("a", "2"), &["a=2"]);
    check(Forge::default().file("a", "1").directory("a").file("a/b", "2"), &["a/", "a/b=2"]);
    check(Forge::default().file("a/b", "1").directory("a").file("a/c", "2"), &["a/", "a/b=1", "a/c=2"]);
    check(Forge::default().link("a", "b").file("a", "2"), &["a=2"]);
    // And is found where it is now, not where it was.
    let archive = Forge::default().file("d/x", "1").link("d", "e").directory("e").file("d/y", "2");
    check(archive, &["d->e", "e/", "e/y=2"]);
}

#[test]
fn hard_links_share_a_file() {
    let archive = Forge::default().file("a", "1").hard_link("d/b", "a").hard_link("c", "./d/b").file("x", "1");
    let context = check(archive, &["a=1", "c=1", "d/", "d/b=1", "x=1"]);
    let identity = |path: &str| context.node(path.as_bytes()).unwrap().unwrap().identity;
    assert!(identity("a").is_some() && identity("a") == identity("c") && identity("a") == identity("d/b"));
    assert_eq!(identity("x"), None);
    // A name that goes leaves the others what they are.
    let context = check(Forge::default().file("a", "1").hard_link("b", "a").file("a", "2"), &["a=2", "b=1"]);
    assert_eq!(context.node(b"b").unwrap().unwrap().identity, None);
    check(Forge::default().file("a", "1").hard_link("a", "a"), &["a=1"]);
    check(Forge::default().link("d", "e").file("e/f", "1").hard_link("g", "d/f"), &["d->e", "e/", "e/f=1", "g=1"]);
}

#[test]
fn every_compression_is_taken() {
    let plain = Forge::default().file("a", &"text ".repeat(5000)).end();
    let mut all = crate::copy::compressed(&plain).to_vec();
    all.push(("plain", plain));
    for (name, bytes) in all {
        let context = read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(contents(&context, b"a").len(), 25_000, "{name}");
        // In small pieces too, and cut off anywhere.
        let context = Context::read(Trickle(&bytes), spool()).unwrap();
        assert_eq!(context.count(), 1, "{name}");
        if name != "plain" {
            for end in (1..bytes.len()).step_by(bytes.len() / 7) {
                assert!(read(&bytes[..end]).is_err(), "{name} {end}");
            }
        }
    }
}

/// Gives one byte at a time.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn a_file_may_be_larger_than_any_buffer() {
    let large: Vec<u8> = (0..5_000_001u32).map(|number| (number >> 3) as u8).collect();
    let archive =
        Forge::default().file("a", "1").entry(tar::EntryType::Regular, "b", |_| {}, &large).file("c", "3").end();
    let context = read(&archive).unwrap();
    assert!(contents(&context, b"b") == large);
    assert_eq!((contents(&context, b"a"), contents(&context, b"c")), (b"1".to_vec(), b"3".to_vec()));
}

#[test]
fn an_empty_context_is_one() {
    for bytes in [&b""[..], &[0; 1024]] {
        assert_eq!(read(bytes).unwrap().count(), 0);
    }
    assert_eq!(Context::empty(spool()).count(), 0);
}

#[test]
fn a_context_is_copied_from() {
    let archive =
        Forge::default().file("app.py", "print()").directory("static").file("static/x", "1").hard_link("y", "static/x");
    let context = read(&archive.end()).unwrap();
    let operation = Copy {
        origin: Origin::Context,
        sources: vec![Source::Path(".".into())],
        destination: "/app/".into(),
        owner: None,
        mode: None,
        link: false,
        parents: false,
        exclude: vec!["app.py".into()],
        add: None,
    };
    let image = PlainTree::empty();
    let make = || tempfile::tempfile();
    let placing = crate::copy::Placing { destination: &image, owner: None, made_at: (0, 0), spool: &make };
    let sources = crate::copy::Sources { origin: &context, fetched: &[] };
    let copied = crate::copy::plan(&operation, &sources, &placing).unwrap();
    let paths: Vec<_> = copied.entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect();
    assert_eq!(paths, ["app", "app/static", "app/static/x", "app/y"]);
    assert_eq!(copied.entries[3].hard_link.as_deref(), Some(&b"app/static/x"[..]));
}

/// The figure that a context has to bear.
#[test]
fn two_hundred_thousand_files_are_a_context() {
    let mut archive = Forge::default();
    for directory in 0..200 {
        archive = archive.directory(&format!("directory-{directory}/"));
        for file in 0..1000 {
            archive = archive.file(&format!("directory-{directory}/some-file-{file}.txt"), "0123456789");
        }
    }
    let context = read(&archive.end()).unwrap();
    assert_eq!(context.count(), 200_200);
    assert_eq!(contents(&context, b"directory-199/some-file-999.txt"), b"0123456789");
    assert_eq!(context.spool.metadata().unwrap().len(), 2_000_000);
}

/// As docker's client ends one to which it has added a Dockerfile.
#[test]
fn an_archive_may_end_with_the_last_files_data() {
    let Forge(archive) = Forge::default().file("a", "1").file("b", "22");
    let cut = &archive[..512 + 512 + 512 + 2];
    assert_eq!(read(cut).unwrap().file("b", 10).unwrap().unwrap(), b"22");
    assert!(read(&cut[..cut.len() - 1]).is_err());
    assert!(read(&archive[..512 + 512 + 512 + 3]).is_err());
}
