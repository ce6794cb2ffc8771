//! Archives that were made to get by.

use super::*;
use tar::EntryType;

#[track_caller]
fn refused(archive: Forge, expected: &str) {
    refused_bytes(&archive.end(), expected);
}

#[track_caller]
fn refused_bytes(bytes: &[u8], expected: &str) {
    let error = read(bytes).map(|context| listing(&context)).unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn names_lead_nowhere_else() {
    let out = "is refused: its name leads out by '..'";
    refused(Forge::default().file("../x", "1"), &format!("entry \"../x\" of the archive {out}"));
    refused(Forge::default().file("a/../../x", "1"), &format!("entry \"a/../../x\" of the archive {out}"));
    refused(Forge::default().file("a/..", "1"), &format!("entry \"a/..\" of the archive {out}"));
    check(Forge::default().file("/etc/passwd", "1"), &["etc/", "etc/passwd=1"]);
    check(Forge::default().file("././/a//./b", "1"), &["a/", "a/b=1"]);
    let root = "is refused: only a directory can be the root";
    refused(Forge::default().file(".", "1"), &format!("entry \".\" of the archive {root}"));
    refused(Forge::default().file("a", "1").hard_link(".", "a"), &format!("entry \".\" of the archive {root}"));
}

#[test]
fn links_lead_nowhere_else() {
    check(Forge::default().link("l", "/../../etc").file("l/x", "1"), &["etc/", "etc/x=1", "l->/../../etc"]);
    check(Forge::default().link("l", "../..").file("l/x", "1"), &["l->../..", "x=1"]);
    let context = check(
        Forge::default().link("l", "/etc/passwd").link("m", "../../../etc/passwd"),
        &["l->/etc/passwd", "m->../../../etc/passwd"],
    );
    assert_eq!(context.file("l", 10).unwrap(), None);
    assert_eq!(context.file("m", 10).unwrap(), None);
    let circle = Forge::default().link("a", "b").link("b", "a");
    let context = check(circle, &["a->b", "b->a"]);
    assert!(matches!(context.file("a/x", 10), Err(ContextError::Tree(TreeError::Circle(_)))));
    let circle = Forge::default().link("a", "b").link("b", "a").file("a/x", "1");
    refused(circle, "entry \"a/x\" of the archive is refused: the links on its path lead in circles");
    let words = "is refused: the target of the hard link is not in this archive";
    refused(Forge::default().hard_link("a", "/etc/passwd"), &format!("entry \"a\" of the archive {words}"));
    refused(Forge::default().hard_link("a", "a"), &format!("entry \"a\" of the archive {words}"));
    let words = "is refused: its target leads out of the archive";
    refused(Forge::default().hard_link("a", "../x"), &format!("entry \"a\" of the archive {words}"));
    let words = "is refused: a directory cannot have a hard link";
    refused(Forge::default().directory("d").hard_link("d/e", "d"), &format!("entry \"d/e\" of the archive {words}"));
    let words = "is refused: its target is empty, too long or holds a NUL";
    refused(Forge::default().link("a", ""), &format!("entry \"a\" of the archive {words}"));
}

#[test]
fn a_file_is_no_way() {
    let words = "is refused: what its path goes through is no directory";
    refused(Forge::default().file("a", "1").file("a/b", "2"), &format!("entry \"a/b\" of the archive {words}"));
    let archive = Forge::default().file("a", "1").link("l", "a").file("l/b", "2");
    refused(archive, &format!("entry \"l/b\" of the archive {words}"));
    let archive = Forge::default().file("a", "1").file("a/b/c", "2");
    refused(archive, &format!("entry \"a/b/c\" of the archive {words}"));
}

#[test]
fn what_is_no_archive_is_refused() {
    let words = "it is no tar archive, plain or compressed with gzip, bzip2, xz or zstd";
    for bytes in [&b"FROM scratch\n"[..], b"x", &[1; 5000], b"PK\x03\x04 a zip archive"] {
        refused_bytes(bytes, words);
    }
    let gzip_of_text = &crate::copy::compressed(&b"FROM scratch\n".repeat(100))[0].1;
    refused_bytes(gzip_of_text, "the archive cannot be read: a header's checksum is wrong");
    let whole = Forge::default().file("a", "1").file("b", &"2".repeat(2000)).end();
    for end in [514, 1023, 1100, 2000, 3000] {
        refused_bytes(&whole[..end], "the archive cannot be read: it is cut short");
    }
    let words = "entry \"a\" of the archive is refused: dozen does not know its type";
    refused(Forge::default().entry(EntryType::new(b'V'), "a", |_| {}, b""), words);
}

#[test]
fn whoever_stops_sending_is_told_apart() {
    struct Stops;
    impl Read for Stops {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let whole = Forge::default().file("a", &"1".repeat(9000)).end();
    let error = Context::read(whole[..4000].chain(Stops), spool()).unwrap_err();
    assert!(matches!(error, ContextError::Receive(_)), "{error}");
}

#[test]
fn a_full_disk_is_told_apart() {
    let full = File::options().read(true).write(true).open("/dev/full").unwrap();
    let error = Context::read(Forge::default().file("a", "1").end().as_slice(), full).unwrap_err();
    assert!(matches!(error, ContextError::Spool(_)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.hint().is_some());
}

#[test]
fn xz_takes_no_more_memory_than_it_may() {
    let mut bytes = Forge::default().file("a", "1").end();
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
    io::Write::write_all(&mut xz, &bytes).unwrap();
    bytes = xz.finish().unwrap();
    // The dictionary's size of the first block (xz-file-format.txt, 5.3.1): 40 is 4 GiB - 1. Its checksum is behind it.
    let block = 12;
    assert_eq!(bytes[block + 2], 0x21);
    bytes[block + 4] = 40;
    let length = (usize::from(bytes[block]) + 1) * 4;
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[block..block + length - 4]);
    bytes[block + length - 4..block + length].copy_from_slice(&crc.sum().to_le_bytes());
    refused_bytes(&bytes, "the archive cannot be read: xz dictionaries of more than 64 MiB are not built");
}

#[test]
fn holes_take_nothing_and_are_bounded() {
    let sparse = |size: u64, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_path("holes").unwrap();
        header.set_entry_type(EntryType::GNUSparse);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(data.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        let octal = |number: u64| -> [u8; 12] { format!("{number:011o}\0").into_bytes().try_into().unwrap() };
        gnu.sparse[0].offset = octal(4096);
        gnu.sparse[0].numbytes = octal(data.len() as u64);
        gnu.realsize = octal(size);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    let then = |mut bytes: Vec<u8>, rest: &[u8]| {
        bytes.extend(rest);
        bytes
    };
    let context = read(&then(sparse(20_000_000, b"data"), &Forge::default().file("next", "n").end())).unwrap();
    let found = contents(&context, b"holes");
    assert_eq!((&found[4096..4100], found.len()), (&b"data"[..], 20_000_000));
    assert!(found[..4096].iter().chain(&found[4100..]).all(|byte| *byte == 0));
    assert_eq!(contents(&context, b"next"), b"n");
    assert!(context.spool.metadata().unwrap().blocks() < 1000);
    let large = then(sparse(20_000_000, b"data"), &sparse((8 << 30) - 1, b"data"));
    refused_bytes(&large, "the archive cannot be read: its files have holes of more than 8 GiB");
}

#[test]
fn entries_are_counted_with_what_they_imply() {
    let mut index = super::super::index::Index::with_limit(5);
    let file = || super::super::index::What::Pipe;
    index.put(b"a/b/c", file(), Default::default()).unwrap();
    index.put(b"a/b/d", file(), Default::default()).unwrap();
    assert!(index.put(b"e/f/g", file(), Default::default()).is_err());
}

/// Short names that links make long ones of.
#[test]
fn links_do_not_make_much_of_little() {
    let mut archive = Forge::default();
    let mut above = String::new();
    for number in 0..25 {
        archive = archive.directory(&format!("{above}{}", "d/".repeat(40)));
        archive = archive.link(&format!("l{number}"), &format!("{above}{}", "d/".repeat(40)));
        above = format!("l{number}/");
    }
    for number in 0..140_000 {
        archive = archive.file(&format!("l24/{number}"), "");
    }
    refused(archive, "the archive cannot be read: the paths of its entries are longer than 256 MiB");
}

/// A path may grow by a link on its way.
#[test]
fn paths_stay_short() {
    let name = |number: usize| char::from(b'0' + number as u8).to_string();
    let mut archive = Forge::default().directory(&"d/".repeat(50)).link("0", &"d/".repeat(50));
    for number in 1..40 {
        let target = format!("{}/{}", name(number - 1), "d/".repeat(49));
        archive = archive.directory(&target).link(&name(number), &target);
    }
    // 100 bytes, and 98 for each of 39 links.
    let last = |length: usize| format!("{}/{}/{}", name(39), "x".repeat(75), "y".repeat(length));
    let archive = archive.file(&last(97), "");
    assert_eq!(read(&archive.clone().end()).unwrap().count(), 50 + 39 * 49 + 40 + 2);
    let error = read(&archive.file(&last(98), "").end()).unwrap_err();
    assert!(error.to_string().ends_with("is refused: its path is longer than 4095 bytes"), "{error}");
}

#[test]
fn a_deep_tree_is_gone_through() {
    let mut record = b" path=".to_vec();
    record.extend("d/".repeat(2040).bytes());
    record.push(b'\n');
    let length = record.len() + 4;
    let record = [length.to_string().as_bytes(), &record].concat();
    let archive = Forge::default().entry(EntryType::XHeader, "pax", |_| {}, &record).directory("x").file("y", "1");
    let context = read(&archive.end()).unwrap();
    assert_eq!(context.count(), 2041);
    let ignore = IgnoreFile::parse("nothing").unwrap();
    assert_eq!(context.ignoring(&ignore).count(), 2041);
}
