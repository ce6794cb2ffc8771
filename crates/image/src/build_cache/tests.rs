//! Steps by their keys: found, kept with their layers, forgotten; and what a power cut may have torn.

use std::fs;

use dozen_ledger::Ledger;
use jiff::Timestamp;

use crate::*;

struct Home(tempfile::TempDir);

impl Home {
    fn open(&self) -> ImageStore {
        ImageStore::open(self.0.path(), self.ledger()).unwrap()
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(&self.0.path().join("state.db"), &MIGRATIONS).unwrap()
    }

    fn layers(&self) -> usize {
        fs::read_dir(self.0.path().join("layers")).unwrap().count()
    }
}

fn key(text: &str) -> dozen_model::Digest {
    use sha2::Digest as _;
    dozen_model::Digest::from_sha256(sha2::Sha256::digest(text).into())
}

fn layer(store: &ImageStore, name: &str, contents: &str) -> NewLayer {
    let path = ["d/", name].concat();
    let written = store.write_layer::<ImageError>(None, |writer| {
        writer.entry(&entry(b"d", LayerEntryKind::Directory), std::io::empty())?;
        writer.entry(&entry(path.as_bytes(), LayerEntryKind::File(contents.len() as u64)), contents.as_bytes())
    });
    written.unwrap()
}

fn entry<'a>(path: &'a [u8], kind: LayerEntryKind<'a>) -> LayerEntry<'a> {
    LayerEntry { path, kind, mode: 0o750, uid: 1, gid: 2, mtime: (3, 4), attributes: Vec::new() }
}

fn config(diff_ids: &[dozen_model::Digest]) -> serde_json::Value {
    serde_json::json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } })
}

#[test]
fn a_step_is_found_for_as_long_as_it_is_kept() {
    let home = Home(tempfile::tempdir().unwrap());
    let store = home.open();
    assert!(store.cached_step(&key("a")).is_none());
    let KeptStep { layer: made, held, .. } =
        store.add_step(&[key("a"), key("b")], layer(&store, "x", "1").into(), "COPY x").unwrap();
    let KeptStep { layer: again, .. } =
        store.add_step(&[key("c")], layer(&store, "x", "1").into(), "RUN cp x").unwrap();
    assert_eq!((home.layers(), &again), (1, &made), "the same files are one layer");
    let KeptStep { layer: none, .. } = store.add_step(&[key("d")], StepLayer::None, "RUN true").unwrap();
    assert_eq!(none, None);
    let store = {
        drop((held, store));
        home.open()
    };
    let KeptStep { layer: found, held, .. } = store.cached_step(&key("b")).unwrap();
    assert_eq!(found, made);
    assert_eq!(store.cached_step(&key("d")).unwrap().layer, None);
    let steps = store.cached_steps();
    assert_eq!(steps.iter().map(|step| step.uses).sum::<u64>(), 2);
    assert!(steps.iter().all(|step| !step.is_shared));
    // What is held is not forgotten: of three steps with one layer none is.
    assert_eq!(steps.iter().filter(|step| step.is_held).count(), 3);
    let all: Vec<_> = steps.iter().map(|step| (step.key.clone(), step.last_used)).collect();
    // One that was found again since stays.
    let before: Vec<_> = all.iter().map(|(key, _)| (key.clone(), Timestamp::UNIX_EPOCH)).collect();
    assert_eq!(store.forget_steps(&before).unwrap(), []);
    assert_eq!(store.forget_steps(&all).unwrap(), [key("d")]);
    assert_eq!((home.layers(), store.cached_steps().len()), (1, 3));
    assert!(store.cached_step(&key("d")).is_none());
    drop(held);
    assert_eq!(store.forget_steps(&all).unwrap().len(), 3);
    assert_eq!((home.layers(), store.cached_steps().len()), (0, 0));
}

#[test]
fn what_a_step_had_made_goes_when_it_is_done_anew() {
    let home = Home(tempfile::tempdir().unwrap());
    let store = home.open();
    let first = store.add_step(&[key("a")], layer(&store, "x", "1").into(), "RUN date").unwrap();
    // Somebody may stand on it.
    let second = store.add_step(&[key("a")], layer(&store, "x", "2").into(), "RUN date").unwrap();
    assert_eq!(home.layers(), 2);
    drop((first, second));
    let KeptStep { layer: third, .. } =
        store.add_step(&[key("a")], layer(&store, "x", "3").into(), "RUN date").unwrap();
    assert_eq!(home.layers(), 1);
    assert_eq!(store.cached_step(&key("a")).unwrap().layer, third);
}

#[test]
fn an_image_of_steps_stays_without_them() {
    let home = Home(tempfile::tempdir().unwrap());
    let store = home.open();
    let KeptStep { layer: made, held, .. } =
        store.add_step(&[key("a")], layer(&store, "x", "1").into(), "COPY x").unwrap();
    let diff_ids: Vec<_> = made.into_iter().collect();
    let id = store.add_image(&config(&diff_ids), diff_ids, vec!["made".parse().unwrap()]).unwrap();
    drop(held);
    assert!(store.cached_steps().iter().all(|step| step.is_shared));
    store.forget_steps(&[(key("a"), Timestamp::now())]).unwrap();
    drop(store);
    let store = home.open();
    assert_eq!((store.find("made").unwrap().id, home.layers()), (id, 1));
    let directory = &store.lower_directories(&store.find("made").unwrap().id).unwrap()[0];
    assert_eq!(fs::read_to_string(directory.join("d/x")).unwrap(), "1");
}

#[test]
fn what_another_boot_has_not_synced_is_thrown_away() {
    let home = Home(tempfile::tempdir().unwrap());
    let store = home.open();
    let KeptStep { layer: synced, held, .. } =
        store.add_step(&[key("a")], layer(&store, "x", "1").into(), "COPY x").unwrap();
    let diff_ids: Vec<_> = synced.into_iter().collect();
    store.add_image(&config(&diff_ids), diff_ids, vec!["made".parse().unwrap()]).unwrap();
    store.add_step(&[key("b")], layer(&store, "y", "2").into(), "COPY y").unwrap();
    drop((held, store));
    assert_eq!((home.open().cached_steps().len(), home.layers()), (2, 2), "the same boot has it");
    let ledger = home.ledger();
    ledger
        .write(dozen_ledger::Durability::Kill, |connection| {
            connection.execute("UPDATE layer SET unsynced_boot = 'another' WHERE unsynced_boot IS NOT NULL", [])?;
            Ok::<_, dozen_ledger::LedgerError>(())
        })
        .unwrap();
    drop(ledger);
    let store = home.open();
    assert_eq!(store.cached_steps().iter().map(|step| &*step.description).collect::<Vec<_>>(), ["COPY x"]);
    assert_eq!(home.layers(), 1);
}

#[test]
fn a_layer_says_nothing_of_what_is_gone() {
    let home = Home(tempfile::tempdir().unwrap());
    let store = home.open();
    let gone = entry(b"a/.wh.b", LayerEntryKind::File(0));
    let error = store.write_layer::<ImageError>(None, |writer| writer.entry(&gone, std::io::empty())).unwrap_err();
    assert!(error.to_string().contains(".wh."), "{error}");
    // But that a directory takes the place of another one.
    let made = store.write_layer::<ImageError>(None, |writer| {
        writer.entry(&entry(b"a", LayerEntryKind::Directory), std::io::empty())?;
        writer.entry(&entry(b"a/.wh..wh..opq", LayerEntryKind::File(0)), std::io::empty())
    });
    drop(made.unwrap());
    assert_eq!(fs::read_dir(home.0.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_layer_travels_alone_and_is_what_its_digest_says() {
    let (home, other) = (Home(tempfile::tempdir().unwrap()), Home(tempfile::tempdir().unwrap()));
    let (store, there) = (home.open(), other.open());
    let made = store.add_step(&[key("a")], layer(&store, "x", "1").into(), "COPY x").unwrap();
    let diff_id = made.layer.clone().unwrap();
    let mut plain = Vec::new();
    store.send_layer(&diff_id, &mut plain).unwrap();
    let packed = crate::tests::gzip(&plain);
    for blob in [plain.as_slice(), &packed, &crate::tests::zstd(&plain)] {
        let received = there.receive_layer(blob, &diff_id).unwrap();
        assert_eq!(received.diff_id(), &diff_id);
    }
    let wrong = |blob: &[u8], digest: &dozen_model::Digest, words: &str| {
        let said = dozen_model::error_chain(&there.receive_layer(blob, digest).unwrap_err());
        assert!(said.contains(words), "{said}\nnot\n{words}");
    };
    wrong(&plain, &key("b"), "its bytes have the digest");
    wrong(&packed[..packed.len() - 9], &diff_id, "damaged or cut short");
    wrong(&plain[..700], &diff_id, "");
    wrong(b"", &diff_id, "");
    wrong(&crate::tests::gzip(&vec![0; 300 << 20]), &diff_id, "");
    assert_eq!(fs::read_dir(other.0.path().join("tmp")).unwrap().count(), 0);
    let kept =
        there.add_step(&[key("c")], there.receive_layer(packed.as_slice(), &diff_id).unwrap().into(), "x").unwrap();
    let directory = there.directories_of(std::slice::from_ref(&diff_id)).unwrap().remove(0);
    assert_eq!(fs::read_to_string(directory.join("d/x")).unwrap(), "1");
    // It goes on from there as it came, and what is damaged does not.
    let mut again = Vec::new();
    there.send_layer(&diff_id, &mut again).unwrap();
    assert_eq!(again, plain);
    fs::write(directory.join("d/x"), "2").unwrap();
    assert!(there.send_layer(&diff_id, &mut Vec::new()).is_err());
    assert!(there.send_layer(&key("none"), &mut Vec::new()).is_err());
    drop((made, kept));
}

#[test]
fn a_step_has_other_keys() {
    let home = Home(tempfile::tempdir().unwrap());
    let store = home.open();
    store.add_step(&[key("a"), key("b")], layer(&store, "x", "1").into(), "COPY x").unwrap();
    store.add_step(&[key("c")], layer(&store, "x", "1").into(), "COPY y").unwrap();
    assert_eq!(store.other_keys(&key("a")), [key("b")]);
    assert_eq!((store.other_keys(&key("c")), store.other_keys(&key("none"))), (vec![], vec![]));
}

#[test]
fn what_goes_with_the_cache_is_not_the_images() {
    let home = Home(tempfile::tempdir().unwrap());
    let store = home.open();
    let large = "x".repeat(1 << 20);
    let of_image = store.add_step(&[key("a")], layer(&store, "x", "1").into(), "COPY x").unwrap();
    let alone = store.add_step(&[key("b"), key("c")], layer(&store, "y", &large).into(), "COPY y").unwrap();
    let diff_ids: Vec<_> = of_image.layer.clone().into_iter().collect();
    store.add_image(&config(&diff_ids), diff_ids, vec!["made".parse().unwrap()]).unwrap();
    let usage = store.measured_usage();
    assert!(usage.layers_bytes + usage.blobs_bytes < 1 << 19, "{usage:?}");
    let measured = store.measured_steps();
    assert_eq!(measured.len(), 2);
    assert!(measured[&alone.layer.clone().unwrap()] > 1 << 20 && measured[&of_image.layer.clone().unwrap()] < 1 << 19);
    let shared = |key| store.cached_steps().into_iter().find(|step| step.key == key).unwrap().is_shared;
    assert_eq!([key("a"), key("b"), key("c")].map(shared), [true, false, false]);
}

/// A sync that fails says so once: what had waited for it is never taken for safe by the next one.
#[test]
fn what_a_sync_may_have_lost_goes_into_no_image_until_it_is_made_anew() {
    let home = Home(tempfile::tempdir().unwrap());
    let store = home.open();
    let KeptStep { layer: made, held, .. } =
        store.add_step(&[key("a")], layer(&store, "x", "1").into(), "COPY x").unwrap();
    let diff_ids: Vec<_> = made.into_iter().collect();
    let directory = store.directories_of(&diff_ids).unwrap().remove(0);
    store.0.lose_unsynced().unwrap();
    fs::write(directory.join("d/x"), "?").unwrap();
    assert!(store.cached_step(&key("a")).is_none() && store.cached_steps().is_empty());
    let add = || store.add_image(&config(&diff_ids), diff_ids.clone(), vec!["made".parse().unwrap()]);
    let error = add().unwrap_err();
    assert!(dozen_model::error_chain(&error).contains("build again"), "{error}");
    // Another build makes it anew, where it lies.
    let again = store.add_step(&[key("a")], layer(&store, "x", "1").into(), "COPY x").unwrap();
    assert_eq!(again.layer.as_ref(), diff_ids.first());
    add().unwrap();
    assert_eq!(fs::read_to_string(directory.join("d/x")).unwrap(), "1");
    drop(held);
}
