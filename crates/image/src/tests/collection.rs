//! What a collection does away with, and what it has to leave: a blob that a kept manifest names stays, or can be made again
//! byte for byte.

use super::targets::{files_of, host, many};
use super::*;
use crate::remove::SeenImage;

fn saved(store: &ImageStore, name: &str) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut bytes = Vec::new();
    store.save(&[name.to_owned()], &mut bytes).unwrap();
    files_of(&bytes)
}

fn seen(store: &ImageStore, name: &str) -> SeenImage {
    let id = store.find(name).unwrap().id;
    store.inventory().images.into_iter().find(|image| image.seen.id == id).unwrap().seen
}

#[test]
fn what_a_kept_manifest_names_stays_when_others_go() {
    let home = Home::new();
    let store = home.open();
    let (mut layout, index) = many();
    store.load(layout.archive().as_slice(), &()).unwrap();
    let whole = saved(&store, "many:1");
    // One that shares a manifest of it, a layer that came compressed, and an index of its own.
    let manifests =
        layout.files.iter().find(|(name, _)| name.ends_with(index["digest"].as_str().unwrap().split_at(7).1));
    let manifests: Value = serde_json::from_slice(&manifests.unwrap().1).unwrap();
    let other = layout.index_of(&[manifests["manifests"][1].clone()]);
    let mut own = super::targets::Layout { files: layout.files.clone(), index: Vec::new() };
    let lone = own.image(&format!("{}/v9", host()), gzip);
    own.name(&other, "other:1");
    own.name(&lone, "lone:1");
    store.load(own.archive().as_slice(), &()).unwrap();
    let (counts, known) = (home.counts(), seen(&store, "lone:1"));
    let other = seen(&store, "other:1");
    assert_eq!(other.references.len(), 2, "one image by two names: {other:?}");
    store.tag(&other.id, &"third:1".parse().unwrap()).unwrap();
    assert_eq!(store.remove_unused(&other, &|_| None).unwrap(), None, "it has got another name since");
    assert!(store.remove_unused(&known, &|_| None).unwrap().is_some());
    assert!(store.find("lone:1").is_err());
    let after = home.counts();
    assert!(after[0] < counts[0] && after[1] < counts[1], "{counts:?}, {after:?}");
    assert_eq!(saved(&store, "many:1"), whole);
    // As the next engine has it.
    drop(store);
    let store = home.open();
    assert_eq!(saved(&store, "many:1"), whole);
    assert_eq!(home.counts(), after);
    // With the last of those that name them they go, and only then.
    let all = seen(&store, "many:1");
    assert!(store.remove_unused(&all, &|_| None).unwrap().is_some());
    assert_eq!(home.counts(), [0, 0, 0]);
    assert_eq!(store.strays().unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn what_somebody_has_begun_to_use_stays() {
    let home = Home::new();
    let store = home.open();
    let (layout, _) = many();
    store.load(layout.archive().as_slice(), &()).unwrap();
    let image = seen(&store, "many:1");
    let used = Use { container_short: "0123456789ab".into(), running: false };
    assert_eq!(store.remove_unused(&image, &|_| Some(used.clone())).unwrap(), None);
    // It was wanted at another moment than when it was looked at.
    let before = SeenImage { last_used: Timestamp::UNIX_EPOCH, ..image.clone() };
    assert_eq!(store.remove_unused(&before, &|_| None).unwrap(), None);
    store.note_use_in_memory(&image.id, image.last_used.as_second() + 1);
    assert_eq!(store.remove_unused(&image, &|_| None).unwrap(), None);
    assert!(store.find("many:1").is_ok());
    let now = seen(&store, "many:1");
    assert_eq!(now.last_used.as_second(), image.last_used.as_second() + 1);
    assert!(store.remove_unused(&now, &|_| None).unwrap().is_some());
    assert_eq!(store.remove_unused(&now, &|_| None).unwrap(), None, "it is gone");
    assert_eq!(home.counts(), [0, 0, 0]);
}

#[test]
fn the_layers_of_an_image_that_was_removed_under_a_container_are_kept() {
    let home = Home::new();
    let store = home.open();
    let (layout, _) = many();
    store.load(layout.archive().as_slice(), &()).unwrap();
    let before = store.inventory();
    assert!(!before.images[0].layers.is_empty() && before.kept_layers.is_empty());
    let stopped = Use { container_short: "0123456789ab".into(), running: false };
    store.remove(&before.images[0].seen.id.to_string(), true, false, &|_| Some(stopped.clone())).unwrap();
    let after = store.inventory();
    assert_eq!(after.images, []);
    assert_eq!(after.kept_layers, before.images[0].layers.iter().cloned().collect());
    assert!(after.kept_layers.iter().all(|layer| after.layer_bytes.contains_key(layer)));
}

#[test]
fn when_an_image_was_wanted_is_known_to_the_next_engine() {
    let home = Home::new();
    let store = home.open();
    let (layout, _) = many();
    store.load(layout.archive().as_slice(), &()).unwrap();
    let id = store.find("many:1").unwrap().id;
    let long_ago = 1_000_000;
    let write = |now_s: i64| {
        let id = id.clone();
        store
            .0
            .ledger
            .write(dozen_ledger::Durability::Kill, move |connection| crate::write_use(connection, &id, now_s))
            .unwrap();
    };
    write(long_ago);
    drop(store.clone());
    assert_ne!(store.last_used(&id).unwrap().as_second(), long_ago);
    drop(store);
    let store = home.open();
    assert_eq!(store.last_used(&id).unwrap().as_second(), long_ago);
    store.note_use(&id);
    assert!(store.last_used(&id).unwrap().as_second() > long_ago);
    // Of one that is gone nothing is kept.
    store.remove("many:1", false, false, &|_| None).unwrap();
    assert_eq!(store.last_used(&id), None);
    store.note_use(&id);
    assert_eq!(store.last_used(&id), None);
}

#[test]
fn what_has_no_row_is_a_stray() {
    let home = Home::new();
    let store = home.open();
    let (layout, _) = many();
    store.load(layout.archive().as_slice(), &()).unwrap();
    assert_eq!(store.strays().unwrap(), Vec::<PathBuf>::new());
    let before = store.measured_usage();
    let strays = ["layers/stray", "content/sha256/stray"].map(|name| home.0.path().join(name));
    strays.iter().for_each(|path| fs::write(path, [1; 100_000]).unwrap());
    assert_eq!(store.strays().unwrap(), strays);
    assert_eq!(store.measured_usage(), before, "they are nobody's");
}
