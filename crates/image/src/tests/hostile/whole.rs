//! Every cut and every flipped byte of a whole archive.

use super::*;

fn small() -> (Vec<u8>, Vec<Vec<u8>>) {
    let layer = archive(&[file("a", "content"), link(EntryType::Symlink, "l", "a")]);
    let docker = |pack: Pack| tarball(&docker_files(std::slice::from_ref(&layer), &["a:1"], pack));
    let oci = |pack: Pack| tarball(&oci_files(std::slice::from_ref(&layer), "a:1", pack));
    (layer.clone(), vec![docker(plain), oci(gzip), zstd(&docker(gzip)), gzip(&oci(zstd))])
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

#[test]
fn an_archive_that_ends_anywhere_is_refused() {
    let cell = Cell::new();
    let (layer, archives) = small();
    for whole in archives {
        assert!(is_whole_or_nothing(&cell, &whole, &layer));
        let loaded: Vec<_> =
            (0..whole.len()).filter(|length| is_whole_or_nothing(&cell, &whole[..*length], &layer)).collect();
        // The zeros at the end of a plain archive are not missed: all that it holds has come.
        let is_plain = whole.ends_with(&[0; 1024]);
        let end = if is_plain { [whole.len() - 1024, whole.len() - 512] } else { [whole.len(); 2] };
        assert!(loaded.iter().all(|length| *length == end[0] || *length >= end[1]), "{loaded:?} of {}", whole.len());
    }
}

#[test]
fn an_archive_with_a_flipped_byte_is_that_image_or_none() {
    let cell = Cell::new();
    let (layer, archives) = small();
    for whole in archives {
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= if at % 2 == 0 { 0xff } else { 0x20 };
            is_whole_or_nothing(&cell, &flipped, &layer);
        }
    }
}
