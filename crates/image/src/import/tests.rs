use std::fs;
use std::io::Write;

use dozen_ledger::Ledger;

use super::*;
use crate::MIGRATIONS;
use crate::extract::tests::{archive, directory, file};

fn store() -> (tempfile::TempDir, ImageStore) {
    let home = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&home.path().join("state.db"), &MIGRATIONS).unwrap();
    let store = ImageStore::open(home.path(), ledger).unwrap();
    (home, store)
}

fn request(reference: Option<&str>) -> ImportRequest {
    let mut config = ImageConfig::default();
    config.set_cmd(Some(vec!["sh".into()]));
    ImportRequest {
        config,
        platform: "linux/arm/v6".parse().unwrap(),
        message: "from a tree".into(),
        reference: reference.map(|name| name.parse().unwrap()),
        created: "2024-05-06T07:08:09Z".parse().unwrap(),
    }
}

fn left(home: &tempfile::TempDir) -> [usize; 3] {
    ["content/sha256", "layers", "tmp"].map(|name| fs::read_dir(home.path().join(name)).unwrap().count())
}

#[test]
fn a_tree_becomes_an_image_whatever_packs_it() {
    let layer = archive(&[directory("etc"), file("etc/name", "tree")]);
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&layer).unwrap();
        encoder.finish().unwrap()
    };
    let (home, store) = store();
    let mut ids = Vec::new();
    for bytes in [layer.clone(), gzip, zstd::encode_all(layer.as_slice(), 1).unwrap()] {
        ids.push(store.import(bytes.as_slice(), request(Some("tree:1"))).unwrap());
    }
    ids.dedup();
    assert_eq!((ids.len(), left(&home)), (1, [2, 1, 0]));
    let image = store.find("tree:1").unwrap();
    assert_eq!(image.id, ids[0]);
    assert_eq!(image.diff_ids[0], Digest::from_sha256(Sha256::digest(&layer).into()));
    let raw = &image.raw;
    assert_eq!((&raw["architecture"], &raw["variant"], &raw["os"]), (&json!("arm"), &json!("v6"), &json!("linux")));
    assert_eq!(raw["config"]["Cmd"], json!(["sh"]));
    assert_eq!(image.created.unwrap().to_string(), "2024-05-06T07:08:09Z");
    let history = store.history("tree:1").unwrap();
    assert_eq!((history.len(), history[0].comment.as_str(), history[0].size_bytes), (1, "from a tree", 4));
    let layers = store.lower_directories(&image.id).unwrap();
    assert_eq!(fs::read_to_string(layers[0].join("etc/name")).unwrap(), "tree");
}

/// `tar cf - --files-from /dev/null | docker import - scratch` is how people make an image of nothing.
#[test]
fn an_archive_of_nothing_is_an_image() {
    let (_home, store) = store();
    let id = store.import([0; 10240].as_slice(), request(Some("scratch-pad"))).unwrap();
    assert_eq!(store.find("scratch-pad").unwrap().id, id);
    assert_eq!(store.find("scratch-pad").unwrap().size_bytes, 0);
}

#[test]
fn what_is_no_tree_leaves_nothing() {
    let whole = archive(&[file("a", "1"), file("b", "2")]);
    let climbing = archive(&[file("../../out", "x")]);
    let (home, store) = store();
    for (bytes, words) in [
        (&b""[..], "what was given is empty"),
        (b"hello", "no tar archive"),
        (&[7; 4096], "no tar archive"),
        (&whole[..1100], "cut short"),
        (&climbing, "\"../../out\" is refused"),
        (b"\x1f\x8bnonsense", "damaged or cut short"),
        (b"\xfd7zXZ\0", "xz compression is not built yet"),
    ] {
        let error = store.import(bytes, request(None)).unwrap_err();
        assert!(error.to_string().contains(words), "{error}: {words}");
        assert_eq!((left(&home), store.list().unwrap().len()), ([0, 0, 0], 0), "{words}");
    }
    let by_digest = Some(format!("a@sha256:{}", "0".repeat(64)));
    assert!(store.import(whole.as_slice(), request(by_digest.as_deref())).is_err());
}
