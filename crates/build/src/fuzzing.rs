//! Ways in for the fuzzers (`fuzz/`), and their corpora as ordinary tests.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use dozen_dockerfile::ignore::IgnoreFile;

use crate::context::Context;
use crate::copy::{Placing, Sources, plan};
use crate::operation::{Copy, Origin, Source};
use crate::repository::listing::choose;
use crate::repository::submodules::submodules;
use crate::repository::{Location, Repository, is_commit};
use crate::tree::{Kind, LiveTree, Node, NodeKind, PlainTree, Tree, TreeError, above, join, resolve};

/// What names a repository, what a server lists, or what a repository says of its submodules: the first byte says which.
/// Whatever is taken can be put before a program: no option, no line of its own, no password, and it is read the same again.
pub fn repository(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    match which % 3 {
        0 => {
            let Ok(read) = Repository::parse(&String::from_utf8_lossy(data)) else { return };
            located(&read.location);
            let Repository { reference, directory, commit, .. } = read;
            for word in reference.iter().chain(&commit) {
                assert!(!word.starts_with('-') && word.bytes().all(|byte| byte > b' ' && byte != 0x7f), "{word:?}");
            }
            assert!(!directory.starts_with('/') && directory.split('/').all(|name| name != ".."), "{directory:?}");
        }
        1 => {
            let text = String::from_utf8_lossy(data);
            let Some((wanted, listing)) = text.split_once('\n') else { return };
            let Some(chosen) = choose(listing, Some(wanted).filter(|wanted| !wanted.is_empty())) else { return };
            assert!(is_commit(&chosen.commit) && is_commit(&chosen.object), "{chosen:?}");
            assert!(chosen.name.is_none_or(|name| name.starts_with("refs/")));
        }
        _ => {
            let parted = data.windows(3).position(|three| three == [0; 3]).unwrap_or(data.len());
            let (configuration, tree) = data.split_at(parted);
            let parent = Location::parse("https://me:pw@h/a/b.git").expect("it is one");
            let Ok(all) = submodules(configuration, tree.get(3..).unwrap_or_default(), &parent) else { return };
            for submodule in all {
                assert!(is_commit(&submodule.commit), "{submodule:?}");
                located(&submodule.location);
            }
        }
    }
}

fn located(location: &Location) {
    let url = location.url();
    assert!(["https://", "http://", "git://"].iter().any(|scheme| url.starts_with(scheme)), "{url:?}");
    assert!(!url.chars().any(|letter| letter.is_control() || letter.is_whitespace()), "{url:?}");
    let again = Location::parse(&url).expect("what was one is one");
    assert_eq!(Location { credentials: location.credentials.clone(), ..again }, *location);
}

/// A context's archive. The first byte says whether its checksums are mended, and which destination is copied to: random
/// bytes would get no further than the first header. Whatever is taken can be gone through, copied, left out of and made
/// into files; and what is made is the same again.
pub fn context(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let mut data = data.to_vec();
    if how & 1 == 0 {
        mend_checksums(&mut data);
    }
    let Ok(context) = Context::read_in_a_hurry(data.as_slice(), spool()) else { return };
    let mut count = 0;
    let mut bytes = 0;
    let mut stack = vec![Vec::new()];
    while let Some(path) = stack.pop() {
        for name in context.names(&path).expect("an index can be read") {
            assert!(!matches!(name.as_slice(), b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0));
            count += 1;
            stack.push(join(&path, &name));
        }
        let node = context.node(&path).expect("an index can be read").expect("it was just named");
        match node.kind {
            NodeKind::File { size, content, .. } => {
                bytes += size;
                let mut content = content.open().expect("the spool is there");
                let read = io::copy(&mut content, &mut io::sink()).expect("the spool can be read");
                assert_eq!(read, size);
            }
            NodeKind::Link(_) => {
                if let Ok(found) = resolve(|path| context.kind(path), &path, true) {
                    assert_eq!(context.kind(&found.path).expect("an index can be read"), found.kind);
                }
            }
            _ => {}
        }
    }
    assert_eq!(count, context.count());
    let ignore = IgnoreFile::parse("*\n!a\n!**/b*\nb/c").expect("it is an ignore file");
    assert!(context.ignoring(&ignore).count() <= count);
    assert_eq!(context.ignoring(&IgnoreFile::default()).count(), count);
    copied(&context, if how & 2 == 0 { "/" } else { "/a/b" });
    if count < 200 && bytes < 1 << 20 {
        made(&context, count);
    }
}

/// What package managers have written down in an image, of whichever kind: what is found is words, and an address and a
/// document come of it.
pub fn packages(data: &[u8]) {
    use crate::packages::{Inventory, Release};
    let packages = crate::packages::read_all(data);
    for package in &packages {
        for word in [&package.name, &package.version] {
            assert!(!word.is_empty() && word.len() <= 1024 && !word.chars().any(char::is_control));
        }
        let url = package.url(&Release::default());
        assert!(url.is_ascii() && !url.contains(' ') && url.starts_with("pkg:"));
    }
    let count = packages.len();
    let document =
        crate::spdx::document(&Inventory { packages, ..Inventory::default() }, "x", jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(document["packages"].as_array().map(Vec::len), Some(count + 1));
}

/// All of it is copied, and copied again on what came of it.
fn copied(context: &Context, destination: &str) {
    let operation = Copy {
        origin: Origin::Context,
        sources: vec![Source::Path("/".into())],
        destination: destination.into(),
        owner: None,
        mode: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        add: None,
    };
    let make = || Ok(spool());
    let on = |image: &PlainTree| {
        let placing = Placing { destination: image, owner: None, made_at: (0, 0), spool: &make };
        plan(&operation, &Sources { origin: context, fetched: &[] }, &placing)
    };
    let placing = Placing { destination: &PlainTree::empty(), owner: None, made_at: (0, 0), spool: &make };
    let remembered = plan(&operation, &Sources { origin: &Remembered(context), fetched: &[] }, &placing);
    let Ok(copied) = on(&PlainTree::empty()) else {
        return assert!(remembered.is_err(), "it is copied if its nodes are remembered");
    };
    // Whether nodes are remembered or looked up again makes no difference.
    let remembered = remembered.expect("what is copied is copied if its nodes are remembered");
    assert_eq!(format!("{remembered:?}"), format!("{copied:?}"));
    let mut image = PlainTree::empty();
    let mut seen = std::collections::HashSet::new();
    for entry in &copied.entries {
        for directory in above(&entry.path).filter(|path| !path.is_empty()) {
            assert!(seen.contains(directory), "{:?} comes before {directory:?}", entry.path);
        }
        assert!(seen.insert(entry.path.clone()), "{:?} comes twice", entry.path);
        image = image.with(&entry.path, entry.node.clone());
    }
    let again = on(&image).expect("what was copied once is copied again");
    assert_eq!(again.digest, copied.digest);
    let paths = |entries: &[crate::copy::Entry]| entries.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>();
    // Where nothing is copied, only the destination has been made, and it need not be made again.
    if !again.entries.is_empty() {
        assert_eq!(paths(&again.entries), paths(&copied.entries));
    }
}

/// A context whose nodes are remembered.
struct Remembered<'a>(&'a Context);

impl Tree for Remembered<'_> {
    fn kind(&self, path: &[u8]) -> Result<Option<Kind>, TreeError> {
        self.0.kind(path)
    }

    fn node(&self, path: &[u8]) -> Result<Option<Node>, TreeError> {
        self.0.node(path)
    }

    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, TreeError> {
        self.0.names(path)
    }
}

/// All of it becomes files, and nothing besides.
fn made(context: &Context, count: usize) {
    let place = Place::new();
    let directory = File::open(&place.0).expect("it was just made");
    // What the file system has no room for: devices with odd numbers, names that are too long.
    if context.unpack("/", directory.as_fd(), "made").is_ok() {
        let made = File::open(place.0.join("made")).expect("it was just made");
        let live = LiveTree::new(made.into());
        let mut found = 0;
        let mut stack = vec![Vec::new()];
        while let Some(path) = stack.pop() {
            for name in live.names(&path).expect("it can be read") {
                found += 1;
                let path = join(&path, &name);
                let kinds = (live.kind(&path), context.kind(&path));
                let (made, given) = (kinds.0.expect("it can be read"), kinds.1.expect("an index can be read"));
                assert_eq!(made, given, "{path:?}");
                if made == Some(Kind::Directory) {
                    stack.push(path);
                }
            }
        }
        assert_eq!(found, count);
    }
    let names: Vec<_> = fs::read_dir(&place.0).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    assert!(names.is_empty() || names == ["made"], "{names:?}");
}

fn spool() -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    rustix::fs::memfd_create("spool", flags).expect("memory takes a file").into()
}

/// Gives every header of a tar stream the checksum that it should have, as far as its sizes lead (pax(1), "ustar
/// Interchange Format").
fn mend_checksums(data: &mut [u8]) {
    let mut at = 0usize;
    while let Some(block) = data.get_mut(at..at.saturating_add(512)) {
        if block.iter().all(|byte| *byte == 0) {
            return;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = block[124..136].iter().take_while(|byte| (b'0'..=b'7').contains(byte));
        let size = digits.fold(0usize, |size, digit| (size << 3) | usize::from(digit - b'0'));
        at = at.saturating_add(512).saturating_add(size.div_ceil(512) * 512);
    }
}

/// A directory of one input's own.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dozen-fuzz-context-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("the directory for temporary files takes one");
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        dozen_image::remove_tree(&self.0).expect("whatever was made can be removed");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    include!("../../../fuzz/replay.rs");

    #[test]
    fn repositories() {
        replay("repository", super::repository);
    }

    #[test]
    fn contexts() {
        replay("context", super::context);
    }

    #[test]
    fn packages() {
        replay("packages", super::packages);
    }

    /// The corpus with bytes changed here and there.
    #[test]
    fn broken_contexts() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/context");
        for entry in std::fs::read_dir(corpus).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            for at in (1..bytes.len()).step_by(97) {
                let mut changed = bytes.clone();
                changed[at] = changed[at].wrapping_mul(5).wrapping_add(b'0');
                super::context(&changed);
            }
        }
    }

    proptest! {
        #[test]
        fn no_name_panics(text in "(https?|git|ssh)://[a-z@:0-9%.\\[\\]]{1,12}[/a-z.%0]{0,12}(\\?[a-z&=%0-9-]{0,20})?(#[a-z:/.%0-9@{~-]{0,12})?") {
            super::repository(format!("\0{text}").as_bytes());
        }

        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
            super::context(&data);
            super::packages(&data);
        }
    }
}
