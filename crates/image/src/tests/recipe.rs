//! Layers kept once, as a recipe beside their files.

use super::commit::{changed, commit};
use super::*;

/// Bytes that no compressor makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn noisy_layer(length: usize) -> Vec<u8> {
    let noise = noise(length);
    let header = Description::plain(b"noise", EntryType::Regular, 0o644, length as u64);
    archive(&[directory("etc"), file("etc/name", "base"), (header, &noise)])
}

#[test]
fn a_plain_layer_is_kept_once_and_saved_as_it_was() {
    let home = Home::new();
    let store = home.open();
    let layer = noisy_layer(1 << 20);
    let loaded = load(&store, &tarball(&docker_files(std::slice::from_ref(&layer), &["a"], plain)));
    let usage = store.disk_usage().unwrap();
    assert!(usage.layers_bytes > 1 << 20 && usage.blobs_bytes < 1000, "{usage:?}");
    let on_disk: u64 = home.names("content/sha256").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(on_disk < 2000, "{on_disk}");
    let position = |archive: &[u8]| archive.windows(layer.len()).position(|part| part == layer);
    assert!(position(&save(&store, "a")).is_some());
    // So is what a commit packs, and what another engine of the same store saves.
    let place = changed(&store, &loaded.id, "cp noise again; rm etc/name");
    commit(&store, &loaded.id, &place.path().join("upper"), Some("made")).unwrap();
    assert!(store.disk_usage().unwrap().blobs_bytes < 2000);
    let saved = save(&store, "made");
    drop(store);
    let store = home.open();
    assert!(save(&store, "made") == saved && position(&saved).is_some());
    assert_eq!(load(&Home::new().open(), &saved).id, store.find("made").unwrap().id);
}

#[test]
fn a_compressed_layer_and_one_that_replaces_its_own_entries_keep_their_blobs() {
    let home = Home::new();
    let store = home.open();
    let twice =
        archive(&[file("a/f", "one"), file("b", "two"), file("b", "three"), link(EntryType::Symlink, "a", "x")]);
    let layers = [noisy_layer(5000), twice.clone()];
    let compressed = gzip(&layers[0]);
    let mut files = docker_files(&layers, &["a"], plain);
    files[1].1 = compressed.clone();
    load(&store, &tarball(&files));
    let content = home.0.path().join("content/sha256");
    for blob in [&compressed, &twice] {
        assert!(fs::read(content.join(sha256(blob).hex())).unwrap() == **blob);
    }
    assert_eq!(store.disk_usage().unwrap().blobs_bytes, (compressed.len() + twice.len()) as u64);
    let saved = save(&store, "a");
    assert!(saved.windows(twice.len()).any(|part| part == twice));
    store.remove("a", false, false, &nobody).unwrap();
    assert_eq!(home.counts(), [0, 0, 0]);
}

/// A tar stream begins with a name, and that may begin as compressed bytes do.
#[test]
fn a_plain_layer_is_not_taken_for_a_compressed_one() {
    for magic in [&b"BZh"[..], b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\xfd7zXZ"] {
        let first = (Description::plain(magic, EntryType::Regular, 0o644, 1), &b"1"[..]);
        // A second entry of a name: the blob is kept.
        let layers = [archive(&[first.clone(), file("b", "two"), file("b", "three")]), archive(&[first])];
        let (home, other) = (Home::new(), Home::new());
        let (store, there) = (home.open(), other.open());
        let id = load(&store, &tarball(&docker_files(&layers, &["a"], plain))).id;
        let saved = save(&store, "a");
        assert!(layers.iter().all(|layer| saved.windows(layer.len()).any(|part| part == layer)), "{magic:?}");
        assert_eq!(load(&there, &saved).id, id);
        for packed in [plain as Pack, gzip, zstd] {
            let import = ImportRequest {
                config: ImageConfig::default(),
                platform: Platform::host(),
                message: String::new(),
                reference: None,
                created: jiff::Timestamp::UNIX_EPOCH,
            };
            let imported = store.import(packed(&layers[0]).as_slice(), import).unwrap();
            assert_eq!(store.find(&imported.to_string()).unwrap().diff_ids[..], [sha256(&layers[0])]);
        }
    }
}

#[test]
fn a_store_from_before_recipes_goes_on_as_it_is() {
    let new = Home::new();
    let layer = noisy_layer(5000);
    let image = tarball(&docker_files(std::slice::from_ref(&layer), &["a"], plain));
    let id = load(&new.open(), &image).id;
    // What the engine of that time would have made of it.
    let old = Home::new();
    let [content, layers] = ["content/sha256", "layers"].map(|name| old.0.path().join(name));
    fs::create_dir_all(&content).unwrap();
    fs::create_dir_all(&layers).unwrap();
    let blob = sha256(&layer);
    fs::write(content.join(blob.hex()), &layer).unwrap();
    fs::copy(new.0.path().join("content/sha256").join(id.digest().hex()), content.join(id.digest().hex())).unwrap();
    fs::rename(&new.names("layers")[0], layers.join("abcdefgh")).unwrap();
    let ledger = Ledger::open(&old.0.path().join("state.db"), &[MIGRATION]).unwrap();
    let sql = format!(
        "INSERT INTO layer VALUES ('{blob}', 'abcdefgh', '{blob}', 'application/vnd.oci.image.layer.v1.tar', {0}, {0}, 5004, 0);
         INSERT INTO image VALUES ('{id}', NULL, 0);
         INSERT INTO image_layer VALUES ('{id}', 0, '{blob}');
         INSERT INTO image_reference VALUES ('docker.io/library/a:latest', '{id}');",
        layer.len()
    );
    let written = ledger.write(dozen_ledger::Durability::Power, move |connection| {
        Ok::<_, dozen_ledger::LedgerError>(connection.execute_batch(&sql)?)
    });
    written.unwrap();
    drop(ledger);
    let store = old.open();
    assert_eq!((old.counts(), store.disk_usage().unwrap().blobs_bytes), ([2, 1, 0], layer.len() as u64));
    let saved = save(&store, "a");
    assert!(saved.windows(layer.len()).any(|part| part == layer));
    // Loaded again, it is there already.
    load(&store, &image);
    assert_eq!(old.counts(), [2, 1, 0]);
    store.remove("a", false, false, &nobody).unwrap();
    assert_eq!(old.counts(), [0, 0, 0]);
}

/// What a load says of layers.
#[derive(Default)]
struct Said(std::sync::Mutex<std::collections::BTreeSet<(&'static str, String)>>);

impl Progress for Said {
    fn report(&self, event: ProgressEvent<'_>) {
        let (what, layer) = match event {
            ProgressEvent::Unpacking { layer, .. } => ("unpacking", layer),
            ProgressEvent::Exists { layer } => ("exists", layer),
            ProgressEvent::Reading { .. } => return,
        };
        self.0.lock().unwrap().insert((what, layer.to_string()));
    }
}

#[test]
fn what_is_there_already_is_not_unpacked_and_need_not_come() {
    let layers = two_layers();
    for pack in [plain as Pack, gzip] {
        let home = Home::new();
        let store = home.open();
        let all = oci_files(&layers, "a:1", pack);
        let bytes = tarball(&all);
        let said = |bytes: &[u8]| {
            let said = Said::default();
            let loaded = store.load(bytes, &said).unwrap();
            assert_eq!(loaded.len(), 1);
            let said = said.0.into_inner().unwrap();
            said.into_iter().map(|(what, _)| what).collect::<Vec<_>>()
        };
        assert_eq!(said(&bytes), ["unpacking", "unpacking"]);
        assert_eq!(said(&bytes), ["exists", "exists"]);
        let (of_layers, rest): (Files, Files) =
            all.into_iter().partition(|(_, bytes)| layers.iter().any(|layer| pack(layer) == *bytes));
        assert_eq!(of_layers.len(), 2);
        assert_eq!(said(&tarball(&rest)), ["exists", "exists"]);
        // Which goes wrong where the store has not got them.
        refused(&tarball(&rest), "it is missing in the archive");
        assert_eq!(home.counts(), [4, 2, 0]);
    }
}

#[test]
fn what_the_manifest_does_not_name_does_not_matter() {
    let mut files = docker_files(&two_layers(), &["a"], plain);
    files.insert(0, ("hostile.tar".into(), archive(&[file("../out", "")])));
    files.insert(0, ("other".into(), noisy_layer(5000)));
    files.insert(0, ("cut".into(), noisy_layer(5000)[..3000].to_vec()));
    let home = Home::new();
    load(&home.open(), &tarball(&files));
    assert_eq!(home.counts(), [3, 2, 0]);
    // Nor can a layer be a document.
    let mut files = docker_files(&two_layers(), &["a"], plain);
    files.push(("manifest.json".into(), noisy_layer(10)));
    refused(&tarball(&files), "manifest.json is a layer");
}
