//! Images on their way to a registry: what is sent is what came, or what is made of it, and nothing that is damaged.

use std::collections::BTreeMap;
use std::io::{self, Read};

use dozen_ledger::{Durability, LedgerError};

use super::targets::{Layout, MANIFEST, host, many};
use super::*;

fn outgoing(store: &ImageStore, name: &str, part: OutgoingPart) -> Outgoing {
    store.outgoing(&reference(name), &part, None).unwrap()
}

fn bytes_from(outgoing: &Outgoing, blob: &OutgoingBlob, from: u64) -> Vec<u8> {
    let mut all = Vec::new();
    let taken = outgoing.blobs().read(blob, from, |bytes| {
        all.extend_from_slice(bytes);
        Ok(())
    });
    taken.unwrap();
    all
}

/// Packed, and read from a place.
fn packed(packing: &Packing, from: u64) -> Vec<u8> {
    let mut all = Vec::new();
    let taken = packing.read(from, |bytes| {
        all.extend_from_slice(bytes);
        Ok(())
    });
    taken.unwrap();
    all
}

fn digest_of(outgoing: &Outgoing, blob: &OutgoingBlob) -> LayerBlob {
    let known = blob.blob.clone().unwrap();
    let bytes = bytes_from(outgoing, blob, 0);
    assert_eq!((sha256(&bytes), bytes.len() as u64), (known.digest.clone(), known.size_bytes));
    known
}

#[test]
fn what_came_compressed_goes_so() {
    let home = Home::new();
    let store = home.open();
    let layers = two_layers();
    load(&store, &tarball(&docker_files(&layers, &["a"], gzip)));
    let going = outgoing(&store, "a", OutgoingPart::All);
    for (layer, plain) in going.blobs().layers().iter().zip(&layers) {
        assert_eq!((&layer.id, layer.diff_id.as_ref()), (&sha256(plain), Some(&sha256(plain))));
        assert!(bytes_from(&going, layer, 0) == gzip(plain));
        assert_eq!(digest_of(&going, layer).media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    }
    let [manifest] = &going.manifests(&BTreeMap::new())[..] else { panic!("one") };
    let parsed: Value = serde_json::from_slice(&manifest.bytes).unwrap();
    let blobs: Vec<_> = layers.iter().map(|layer| json!(sha256(&gzip(layer)))).collect();
    assert_eq!((&parsed["layers"][0]["digest"], &parsed["layers"][1]["digest"]), (&blobs[0], &blobs[1]));
    assert_eq!((sha256(&manifest.bytes), parsed["mediaType"].as_str()), (manifest.digest.clone(), Some(MANIFEST)));
    let [config] = going.blobs().configurations() else { panic!("one") };
    assert_eq!(json!(digest_of(&going, config).digest), parsed["config"]["digest"]);
}

#[test]
fn what_is_plain_here_is_packed_and_read_from_any_place() {
    let home = Home::new();
    let store = home.open();
    let large = archive(&[file("large", &"of all sizes. ".repeat(100_000))]);
    let layers = [large, archive(&[file("small", "x")])];
    load(&store, &tarball(&docker_files(&layers, &["a"], plain)));
    let going = outgoing(&store, "a", OutgoingPart::All);
    let mut sent = BTreeMap::new();
    for (layer, plain) in going.blobs().layers().iter().zip(&layers) {
        assert_eq!(layer.blob, None);
        for form in [LayerForm::Zstd(3), LayerForm::read("gzip", Some(9)).unwrap(), LayerForm::default()] {
            let packing = going.blobs().packing(layer, form).unwrap();
            let (begun, begins) = std::sync::mpsc::channel();
            // Who reads meanwhile gets all of it.
            let (blob, meanwhile) = std::thread::scope(|scope| {
                let read = &packing;
                let reading = scope.spawn(move || {
                    begins.recv().unwrap();
                    packed(read, 0)
                });
                let blob = packing.run(|| begun.send(()).unwrap()).unwrap();
                (blob, reading.join().unwrap())
            });
            assert_eq!((sha256(&meanwhile), meanwhile.len() as u64), (blob.digest.clone(), blob.size_bytes));
            assert_eq!(blob.media_type, form.media_type());
            let again = going.blobs().packing(layer, form).unwrap();
            assert_eq!(again.run(|| {}).unwrap(), blob, "it is the same each time");
            let (_, mut reader) = crate::compression::decompress(meanwhile.as_slice()).unwrap();
            let mut unpacked = Vec::new();
            reader.read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == *plain);
            for from in [1, meanwhile.len() / 2, meanwhile.len() - 1, meanwhile.len()] {
                assert!(packed(&packing, from as u64) == meanwhile[from..], "{from}");
            }
            assert_eq!(home.counts()[2], 2, "each in a place of its own");
            sent.insert(layer.id.clone(), blob);
        }
    }
    assert_eq!(home.counts()[2], 0, "what was packed goes");
    let [manifest] = &going.manifests(&sent)[..] else { panic!("one") };
    let parsed: Value = serde_json::from_slice(&manifest.bytes).unwrap();
    for (layer, plain) in parsed["layers"].as_array().unwrap().iter().zip(&layers) {
        assert_eq!(layer["digest"], json!(sent[&sha256(plain)].digest));
    }
    // It gets its name there, once.
    let by_digest = reference(&format!("r.example/a@{}", manifest.digest));
    for _ in 0..2 {
        store.add_repo_digest(&going, &by_digest).unwrap();
    }
    assert_eq!(store.find("a").unwrap().repo_digests, std::slice::from_ref(&by_digest));
    let packing = going.blobs().packing(&going.blobs().layers()[0], LayerForm::default()).unwrap();
    packing.stop();
    let stopped = packing.run(|| {}).unwrap_err();
    assert!(stopped.to_string().starts_with("cannot write /"), "{stopped}");
    let unread = packing.read(0, |_| Ok(())).unwrap_err().to_string();
    assert!(unread.starts_with("cannot compress the layer sha256:"), "{unread}");
    drop((packing, going));
    drop(store);
    assert_eq!(home.open().find("a").unwrap().repo_digests, [by_digest]);
}

#[test]
fn layers_are_compressed_as_is_wanted() {
    let home = Home::new();
    let store = home.open();
    let layers = two_layers();
    load(&store, &tarball(&docker_files(&layers, &["a"], gzip)));
    let wanted = |form, is_forced| Some(Recompression { form, is_forced });
    let going = |name: &str, part, wanted| store.outgoing(&reference(name), &part, wanted);
    let (zstd, fast) = (LayerForm::Zstd(3), LayerForm::default());
    // What is so goes as it is.
    for (wanted, is_packed) in
        [(None, false), (wanted(fast, false), false), (wanted(fast, true), true), (wanted(zstd, false), true)]
    {
        let going = going("a", OutgoingPart::All, wanted).unwrap();
        assert!(going.blobs().layers().iter().all(|layer| layer.blob.is_none() == is_packed), "{wanted:?}");
    }
    // One manifest, as it came or anew.
    let mut layout = Layout::default();
    let own = layout.image(&host(), gzip);
    layout.name(&own, "one:1");
    load(&store, &layout.archive());
    for (wanted, is_kept) in [(None, true), (wanted(fast, false), true), (wanted(zstd, false), false)] {
        let going = going("one:1", OutgoingPart::All, wanted).unwrap();
        assert_eq!(going.blobs().layers().iter().all(|layer| layer.blob.is_some()), is_kept, "{wanted:?}");
        if is_kept {
            assert_eq!(json!(going.manifests(&BTreeMap::new())[0].digest), own["digest"]);
            continue;
        }
        let packing = going.blobs().packing(&going.blobs().layers()[0], zstd).unwrap();
        let sent = BTreeMap::from([(going.blobs().layers()[0].id.clone(), packing.run(|| {}).unwrap())]);
        let manifest: Value = serde_json::from_slice(&going.manifests(&sent)[0].bytes).unwrap();
        assert_eq!(manifest["layers"][0]["mediaType"], json!("application/vnd.oci.image.layer.v1.tar+zstd"));
        assert_eq!(manifest["mediaType"], json!(MANIFEST));
    }
    // Not an index, but an image of it.
    load(&store, &many().0.archive());
    let refused = going("many:1", OutgoingPart::All, wanted(zstd, false)).unwrap_err();
    assert!(refused.to_string().contains("many:1 is an index"), "{refused}");
    let own: Platform = host().parse().unwrap();
    let one = going("many:1", OutgoingPart::Platform(own), wanted(zstd, false)).unwrap();
    assert!(one.blobs().layers().iter().all(|layer| layer.blob.is_none()));
    let refused = going("many:1", OutgoingPart::Platform("linux/s390x".parse().unwrap()), wanted(zstd, false));
    assert!(refused.unwrap_err().to_string().contains("are not unpacked here"));
}

#[test]
fn an_index_goes_with_all_that_is_here() {
    let home = Home::new();
    let store = home.open();
    let (layout, index) = many();
    load(&store, &layout.archive());
    let bytes = |digest: &Digest| {
        let name = format!("blobs/sha256/{}", digest.hex());
        layout.files.iter().find(|(known, _)| *known == name).map(|(_, bytes)| bytes.clone()).unwrap()
    };
    let going = outgoing(&store, "many:1", OutgoingPart::All);
    let manifests = going.manifests(&BTreeMap::new());
    assert_eq!(manifests.len(), 5, "three platforms, a note and the index");
    assert_eq!(json!(manifests.last().unwrap().digest), index["digest"]);
    for manifest in &manifests {
        assert!(manifest.bytes == bytes(&manifest.digest));
    }
    let blobs = going.blobs().layers().iter().chain(going.blobs().configurations());
    for blob in blobs {
        let whole = bytes(&digest_of(&going, blob).digest);
        assert!(bytes_from(&going, blob, 0) == whole && bytes_from(&going, blob, 1) == whole[1..]);
    }
    assert!(going.absent().is_empty());
    // One alone.
    for part in [OutgoingPart::Own, OutgoingPart::Platform(host().parse().unwrap())] {
        let going = outgoing(&store, "many:1", part);
        let [manifest] = &going.manifests(&BTreeMap::new())[..] else { panic!("one") };
        let parsed: Value = serde_json::from_slice(&manifest.bytes).unwrap();
        assert_eq!(parsed["annotations"]["a"], json!(host()));
        assert_eq!((going.blobs().layers().len(), going.blobs().configurations().len()), (1, 1));
    }
    let error = store.outgoing(&reference("many:1"), &OutgoingPart::Platform("linux/mips".parse().unwrap()), None);
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "image with reference many:1 was found but does not provide the specified platform (linux/mips)");
}

#[test]
fn what_of_an_index_is_not_here_is_named() {
    let home = Home::new();
    let store = home.open();
    let mut layout = Layout::default();
    let (own, other) = (layout.image(&host(), gzip), layout.image("linux/s390x", gzip));
    let index = layout.index_of(&[own, other.clone()]);
    layout.name(&index, "half:1");
    let absent = other["digest"].as_str().unwrap().to_owned();
    layout.files.retain(|(name, _)| !name.ends_with(absent.strip_prefix("sha256:").unwrap()));
    load(&store, &layout.archive());
    let going = outgoing(&store, "half:1", OutgoingPart::All);
    assert_eq!(going.absent().iter().map(Digest::to_string).collect::<Vec<_>>(), [absent]);
    assert_eq!(going.manifests(&BTreeMap::new()).len(), 2);
}

#[test]
fn a_damaged_layer_is_never_given_to_its_end() {
    let home = Home::new();
    let store = home.open();
    let layers = [archive(&[file("a", &"content ".repeat(200_000))])];
    load(&store, &tarball(&docker_files(&layers, &["a"], gzip)));
    let blob = home.0.path().join("content/sha256").join(sha256(&gzip(&layers[0])).hex());
    let whole = fs::read(&blob).unwrap();
    for damage in [whole.len() - 1, 100] {
        let mut damaged = whole.clone();
        damaged[damage] ^= 1;
        fs::write(&blob, damaged).unwrap();
        let going = outgoing(&store, "a", OutgoingPart::All);
        let mut given = 0;
        let read = going.blobs().read(&going.blobs().layers()[0], 0, |bytes| {
            given += bytes.len();
            Ok::<_, io::Error>(())
        });
        assert!(matches!(read, Err(ImageError::Damaged { .. })), "{read:?}");
        assert!(given < whole.len(), "{given}");
    }
}

#[test]
fn a_layer_that_is_damaged_is_never_packed_whether_it_has_a_check_sum_or_is_from_before() {
    let home = Home::new();
    let layers = [archive(&[file("a", &"content ".repeat(1000))])];
    load(&home.open(), &tarball(&docker_files(&layers, &["a"], plain)));
    let path = home.names("layers")[0].join("a");
    let whole = fs::read(&path).unwrap();
    let mut other = whole.clone();
    other[5000] ^= 1;
    let pack = || {
        let store = home.open();
        let going = outgoing(&store, "a", OutgoingPart::All);
        let packing = going.blobs().packing(&going.blobs().layers()[0], LayerForm::default()).unwrap();
        packing.run(|| {})
    };
    let sums = |sql: &str| -> usize {
        let ledger = Ledger::open(&home.0.path().join("state.db"), &MIGRATIONS).unwrap();
        let sql = sql.to_owned();
        let changed =
            ledger.write(Durability::Power, move |connection| Ok::<_, LedgerError>(connection.execute(&sql, [])?));
        changed.unwrap()
    };
    assert_eq!(sums("UPDATE layer SET tar_crc32 = tar_crc32 WHERE tar_crc32 IS NOT NULL"), 1, "it has one");
    for _ in 0..2 {
        for damaged in [&other[..], &whole[..whole.len() - 1], &[]] {
            fs::write(&path, damaged).unwrap();
            let packed = pack();
            assert!(matches!(packed, Err(ImageError::Damaged { .. })), "{packed:?}");
        }
        fs::write(&path, &whole).unwrap();
        pack().unwrap();
        sums("UPDATE layer SET tar_crc32 = NULL");
    }
    // The sum is what is compared.
    sums("UPDATE layer SET tar_crc32 = 1");
    assert!(matches!(pack(), Err(ImageError::Damaged { .. })));
}

#[test]
fn where_layers_are_is_remembered_as_long_as_they_are_here() {
    let home = Home::new();
    let store = home.open();
    let layers = two_layers();
    let loaded = load(&store, &tarball(&docker_files(&layers, &["a"], gzip)));
    let (diff_id, blob) = (sha256(&layers[0]), sha256(&gzip(&layers[0])));
    store.remember_origin("r.example", "a/b", &[(diff_id.clone(), blob.clone()), (sha256(b"x"), blob.clone())]);
    // Not what is kept otherwise.
    store.remember_origin("r.example", "a/b", &[(sha256(&layers[1]), sha256(b"y"))]);
    let found = store.places_of(&diff_id).unwrap();
    let [place] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((place.registry.as_str(), place.repository.as_str()), ("r.example", "a/b"));
    assert_eq!((&place.blob.digest, place.blob.size_bytes), (&blob, gzip(&layers[0]).len() as u64));
    assert!(store.places_of(&sha256(&layers[1])).unwrap().is_empty());
    for number in 0..30 {
        store.remember_places(vec![LayerPlace { repository: format!("n{number}"), ..place.clone() }]);
    }
    drop(store);
    let store = home.open();
    let found = store.places_of(&diff_id).unwrap();
    assert_eq!((found.len(), found[0].repository.as_str()), (20, "n29"));
    store.remove("a", false, false, &nobody).unwrap();
    assert_eq!(store.find(&loaded.id.to_string()).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(store.places_of(&diff_id).unwrap().is_empty());
}
