//! Little that becomes much. The bounds are stated at the head of this crate.

use std::io::{Read, Write};

use super::forge::Forge;
use super::*;

/// A file of AUFS's own notes, which is read over: what it holds is never written to the disk.
const IGNORED: &str = ".wh..wh.note";
const MIB: u64 = 1 << 20;

/// As small as gzip makes it.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zeros(size: u64, pack: Pack) -> Vec<u8> {
    pack(&vec![0; size as usize])
}

/// A layer whose one file is said to be this large, up to where the data begins.
fn head(size: u64) -> Vec<u8> {
    Forge::new()
        .header(|header| {
            header.set_path(IGNORED).unwrap();
            header.set_size(size);
        })
        .0
}

#[test]
fn a_layer_in_many_members_and_frames_counts_as_a_whole() {
    for pack in [gzip as Pack, zstd] {
        let piece = zeros(64 * MIB, pack);
        let blob = [pack(&head(1200 * MIB)), piece.repeat(20)].concat();
        refuses_archive(image_of_blob(blob, &sha256(b"")).as_slice(), "swells to more than 200 times");
    }
}

#[test]
fn an_archive_that_swells_behind_its_end_is_refused() {
    for pack in [gzip as Pack, zstd] {
        let archive = [pack(&image_of(&archive(&[file("a", "x")]))), zeros(64 * MIB, pack).repeat(17)].concat();
        refuses_archive(archive.as_slice(), "swells to more than 200 times");
    }
}

/// Each layer by itself is within bounds; the archive is not.
#[test]
fn many_layers_that_swell_count_together() {
    let mut files: Files = Vec::new();
    let (mut diff_ids, mut names) = (Vec::new(), Vec::new());
    let rest = zeros(300 * MIB, plain);
    for number in 0..5 {
        let layer = Forge(head(300 * MIB)).data(&rest).header(|h| h.set_path(format!("f{number}")).unwrap()).end();
        diff_ids.push(sha256(&layer));
        names.push(format!("l{number}"));
        files.push((format!("l{number}"), zstd(&layer)));
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    files.push(("c".into(), serde_json::to_vec(&config).unwrap()));
    let manifest = json!([{ "Config": "c", "Layers": names }]);
    files.push(("manifest.json".into(), serde_json::to_vec(&manifest).unwrap()));
    for pack in [plain as Pack, zstd] {
        refuses_archive(pack(&tarball(&files)).as_slice(), "its layers swell to more than 200 times");
    }
}

#[test]
fn ten_million_entries_are_too_many() {
    let million = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        let thousand = head(0).repeat(1000);
        (0..1000).for_each(|_| encoder.write_all(&thousand).unwrap());
        encoder.finish().unwrap()
    };
    let blob = million.repeat(10);
    refuses_archive(image_of_blob(blob.clone(), &sha256(b"")).as_slice(), "more than 20000 entries");
    // And of the archive itself.
    let files = Forge::new().header(|header| {
        header.set_entry_type(EntryType::Symlink);
        header.set_link_name("y").unwrap();
    });
    let many = zstd(&files.0.repeat(100_001));
    refuses_archive(many.as_slice(), "it holds more than 100000 files");
}

/// An entry whose name is as long as a path may be makes two thousand directories: a block of the disk for two bytes.
#[test]
fn directories_that_names_imply_are_entries() {
    let deep = |number: u32| format!("{number}/{}f", "a/".repeat(2000));
    let layer = |count: u32| {
        let names: Vec<String> = (0..count).map(deep).collect();
        archive(&names.iter().map(|name| file(name, "")).collect::<Vec<_>>())
    };
    let bomb = layer(10_000);
    assert!(zstd(&bomb).len() < 200_000);
    refuses_archive(image_of_blob(zstd(&bomb), &sha256(&bomb)).as_slice(), "more than 20000 entries");
    refuses(&layer(10), "more than 20000 entries");
    contains(&layer(9));
    // A directory counts once, whoever names it and however often.
    let names: Vec<String> = (0..20).flat_map(|_| (0..2).map(|number| deep(number) + "/x")).collect();
    contains(&archive(&names.iter().map(|name| file(name, "")).collect::<Vec<_>>()));
    let hidden: Vec<String> = (0..10).map(|number| format!("{number}/{}.wh.f", "a/".repeat(2000))).collect();
    refuses(&archive(&hidden.iter().map(|name| file(name, "")).collect::<Vec<_>>()), "more than 20000 entries");
}

#[test]
fn what_a_compressed_stream_says_of_itself_is_bounded() {
    // A file name in the header of a gzip stream, without an end.
    let mut named = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
    named.resize(1 << 20, b'n');
    refuses_archive(named.as_slice(), "damaged or cut short");
    refuses_archive(image_of_blob(named, &sha256(b"")).as_slice(), "damaged or cut short");
    // Frames that hold nothing (RFC 8878, 3.1.2).
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 1, 0][..], &[0; 65_536]].concat();
    refuses_archive(skippable.repeat(100).as_slice(), "it is empty");
    refuses_archive([&[0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff][..], b"short"].concat().as_slice(), "");
    refuses_archive(gzip(b"").repeat(100_000).as_slice(), "it is empty");
    // Windows of 64 MiB and of 2 GiB (3.1.1.1.2): memory is not given for the asking.
    let frame = |exponent: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3, 1, 0, 0];
    for frame in [frame(16).to_vec(), frame(21).to_vec()] {
        for blob in [frame.clone(), image_of_blob(frame.clone(), &sha256(b""))] {
            refuses_archive(blob.as_slice(), "zstd windows of more than 32 MiB are not built");
        }
    }
    // Garbage behind the end is not passed over.
    let whole = image_of(&archive(&[file("a", "x")]));
    for pack in [gzip as Pack, zstd] {
        refuses_archive([pack(&whole), b"garbage".to_vec()].concat().as_slice(), "damaged or cut short");
    }
}

/// A stream that never ends is read no further than to where it is refused.
#[test]
fn an_endless_stream_is_not_read_to_its_end() {
    struct Endless(u64);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += buffer.len() as u64;
            assert!(self.0 < 64 * MIB, "it is still being read");
            buffer.fill(b'x');
            Ok(buffer.len())
        }
    }
    refuses_archive(Endless(0), "it is no tar archive");
    refuses_archive(Forge::new().header(|_| {}).0.as_slice().chain(Endless(0)), "a header's checksum is wrong");
}
