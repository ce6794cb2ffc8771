//! Every cut and every flipped byte of a whole archive.

use super::*;

fn layer() -> Vec<u8> {
    archive(&[file("a", "content"), link(EntryType::Symlink, "l", "a")])
}

fn docker(pack: Pack) -> Vec<u8> {
    tarball(&docker_files(&[layer()], &["a:1"], pack))
}

fn oci(pack: Pack) -> Vec<u8> {
    tarball(&oci_files(&[layer()], "a:1", pack))
}

/// It is loaded: then it is that image and no other. Or it is refused, and nothing is left. And no third.
fn is_whole_or_nothing(cell: &Cell, bytes: &[u8], layer: &[u8]) -> bool {
    match cell.load(bytes) {
        Ok(loaded) => {
            let image = cell.store.find(&loaded[0].id.to_string()).unwrap();
            assert_eq!((loaded.len(), &*image.diff_ids), (1, &[sha256(layer)][..]));
            assert_eq!(loaded[0].id, ImageId::new(sha256(&config(&[layer.to_vec()]))));
            assert_eq!(fs::read_to_string(cell.layer().join("a")).unwrap(), "content");
            cell.remove_all();
            true
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotBuilt), "{error:?}");
            false
        }
    }
}

#[track_caller]
fn ends_anywhere(whole: &[u8]) {
    let (cell, layer) = (Cell::new(), layer());
    assert!(is_whole_or_nothing(&cell, whole, &layer));
    let loaded: Vec<_> =
        (0..whole.len()).filter(|length| is_whole_or_nothing(&cell, &whole[..*length], &layer)).collect();
    // The zeros at the end of a plain archive are not missed: all that it holds has come.
    let is_plain = whole.ends_with(&[0; 1024]);
    let end = if is_plain { [whole.len() - 1024, whole.len() - 512] } else { [whole.len(); 2] };
    assert!(loaded.iter().all(|length| *length == end[0] || *length >= end[1]), "{loaded:?} of {}", whole.len());
}

#[track_caller]
fn has_a_flipped_byte(whole: &[u8]) {
    let (cell, layer) = (Cell::new(), layer());
    // Of the padding, which is most of it, some.
    for at in (0..whole.len()).filter(|at| whole[*at] != 0 || at % 29 == 0) {
        let mut flipped = whole.to_vec();
        flipped[at] ^= if at % 2 == 0 { 0xff } else { 0x20 };
        is_whole_or_nothing(&cell, &flipped, &layer);
    }
}

#[test]
fn a_docker_archive_that_ends_anywhere_is_refused() {
    ends_anywhere(&docker(plain));
}

#[test]
fn an_oci_archive_that_ends_anywhere_is_refused() {
    ends_anywhere(&oci(gzip));
}

#[test]
fn a_compressed_archive_that_ends_anywhere_is_refused() {
    ends_anywhere(&zstd(&docker(gzip)));
    ends_anywhere(&gzip(&oci(zstd)));
}

#[test]
fn a_docker_archive_with_a_flipped_byte_is_that_image_or_none() {
    has_a_flipped_byte(&docker(plain));
}

#[test]
fn an_oci_archive_with_a_flipped_byte_is_that_image_or_none() {
    has_a_flipped_byte(&oci(gzip));
}

#[test]
fn a_compressed_archive_with_a_flipped_byte_is_that_image_or_none() {
    has_a_flipped_byte(&zstd(&docker(gzip)));
    has_a_flipped_byte(&gzip(&oci(zstd)));
}
