//! OCI layouts with many platforms, notes and artifacts: carried, and given back as they came.

use super::*;

/// An OCI layout in the making.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) files: Files,
    pub(super) index: Vec<Value>,
}

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

impl Layout {
    pub(super) fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = sha256(&bytes);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        let name = format!("blobs/sha256/{}", digest.hex());
        if !self.files.iter().any(|(known, _)| *known == name) {
            self.files.push((name, bytes));
        }
        descriptor
    }

    pub(super) fn blob_by_sha512(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = Digest::from_sha512(sha2::Sha512::digest(&bytes).into());
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        self.files.push((format!("blobs/sha512/{}", digest.hex()), bytes));
        descriptor
    }

    pub(super) fn document(&mut self, media_type: &str, value: Value) -> Value {
        // As no serializer of ours would write it.
        let bytes = format!("\n {value:#}  \n").into_bytes();
        self.blob(media_type, bytes)
    }

    /// An image whose only file says which platform it is for.
    pub(super) fn image(&mut self, platform: &str, pack: Pack) -> Value {
        let layer = archive(&[file("platform", platform)]);
        let parts: Vec<_> = platform.split('/').collect();
        let mut config: Value = serde_json::from_slice(&config(std::slice::from_ref(&layer))).unwrap();
        (config["os"], config["architecture"]) = (json!(parts[0]), json!(parts[1]));
        let layer = self.blob(LAYER, pack(&layer));
        let config = self.document("application/vnd.oci.image.config.v1+json", config);
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer], "annotations": { "a": platform } });
        let mut descriptor = self.document(MANIFEST, manifest);
        descriptor["platform"] = json!({ "os": parts[0], "architecture": parts[1] });
        if let Some(variant) = parts.get(2) {
            descriptor["platform"]["variant"] = json!(variant);
        }
        descriptor
    }

    pub(super) fn index_of(&mut self, manifests: &[Value]) -> Value {
        self.document(
            INDEX,
            json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": { "b": "c" } }),
        )
    }

    pub(super) fn name(&mut self, descriptor: &Value, name: &str) {
        let mut descriptor = descriptor.clone();
        descriptor["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
        self.index.push(descriptor);
    }

    pub(super) fn archive(&self) -> Vec<u8> {
        let mut files = self.files.clone();
        files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        files.push((
            "index.json".into(),
            json!({ "schemaVersion": 2, "manifests": self.index }).to_string().into_bytes(),
        ));
        tarball(&files)
    }
}

/// The files of a saved archive by name.
pub(super) fn files_of(bytes: &[u8]) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    });
    entries.filter(|(name, _)| !name.ends_with('/')).collect()
}

pub(super) fn host() -> String {
    Platform::host().to_string()
}

/// This host's image among others, with a note of the builder's and a signature beside the index.
pub(super) fn many() -> (Layout, Value) {
    let mut layout = Layout::default();
    let mut manifests =
        vec![layout.image("linux/s390x", gzip), layout.image(&host(), gzip), layout.image("linux/arm/v6", plain)];
    let note = layout.blob("application/vnd.in-toto+json", br#"{"_type":"x"}"#.to_vec());
    let empty = layout.blob("application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let mut note = layout
        .document(MANIFEST, json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [note] }));
    note["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    note["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    manifests.push(note);
    manifests.push(layout.blob("application/vnd.example.thing", b"of a kind that nobody knows".to_vec()));
    let index = layout.index_of(&manifests);
    layout.name(&index, "many:1");
    let signature = layout.blob("application/vnd.example.signature", b"signed".to_vec());
    let artifact = layout.document(
        MANIFEST,
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.signature",
            "config": empty, "layers": [signature], "subject": index,
        }),
    );
    layout.index.push(artifact);
    (layout, index)
}

#[test]
fn an_index_is_given_back_as_it_came() {
    let (layout, index) = many();
    let home = Home::new();
    let store = home.open();
    let loaded = load(&store, &layout.archive());
    assert_eq!(loaded.references, [reference("many:1")]);
    let image = store.find("many").unwrap_err();
    assert!(image.to_string().contains("many:latest"));
    let image = store.find("many:1").unwrap();
    assert_eq!(image.raw["architecture"], json!(Platform::host().architecture));
    let lower = store.lower_directories(&image.id).unwrap();
    assert_eq!(fs::read_to_string(lower[0].join("platform")).unwrap(), host());
    let bytes = save(&store, "many:1");
    let saved = files_of(&bytes);
    for (name, content) in &layout.files {
        assert!(saved.get(name) == Some(content), "{name} differs or is missing");
    }
    let said: Value = serde_json::from_slice(&saved["index.json"]).unwrap();
    assert_eq!(said["manifests"][0]["digest"], index["digest"]);
    assert_eq!(said["manifests"][0]["annotations"]["io.containerd.image.name"], json!("docker.io/library/many:1"));
    assert_eq!(said["manifests"][1], layout.index[1]);
    assert_eq!(said["manifests"].as_array().unwrap().len(), 2);
    // The same by its id, after another engine has opened the store, and from another store.
    drop(store);
    let store = home.open();
    assert!(save(&store, "many:1") == bytes, "the second save differs");
    let by_id = files_of(&save(&store, image.id.short()));
    assert_eq!(by_id.len(), saved.len() - 1, "all but `repositories`");
    let other = Home::new();
    let there = other.open();
    assert_eq!(load(&there, &bytes).id, image.id);
    assert!(save(&there, "many:1") == bytes, "what was loaded from us is saved differently");
    let usage = store.disk_usage().unwrap();
    assert!(usage.blobs_bytes > layout.files.iter().map(|(_, content)| content.len() as u64).sum::<u64>() / 2);
    for (store, home) in [(store, home), (there, other)] {
        store.remove("many:1", false, false, &nobody).unwrap();
        assert_eq!((home.counts(), store.list().unwrap().len()), ([0, 0, 0], 0));
    }
}

#[test]
fn one_platform_of_many_is_chosen() {
    let (layout, _) = many();
    let home = Home::new();
    let store = home.open();
    load(&store, &layout.archive());
    let of = |text: &str| text.parse::<Platform>().unwrap();
    for (platform, name) in
        [("linux/s390x", "linux/s390x"), ("linux/arm", ""), ("linux/arm/v6", "linux/arm/v6"), ("linux/mips", "")]
    {
        let other = Home::new();
        let mut bytes = Vec::new();
        let saved = store.save_for(&["many:1".into()], Some(&of(platform)), &mut bytes);
        let there = other.open();
        let loaded = there.load_for(layout.archive().as_slice(), Some(&of(platform)), &());
        if name.is_empty() {
            for error in [saved.unwrap_err(), loaded.map(drop).unwrap_err()] {
                assert!(error.to_string().contains("has no image for"), "{error}");
                assert_eq!(error.kind(), ErrorKind::NotFound);
            }
            assert_eq!(other.counts(), [0, 0, 0]);
            continue;
        }
        saved.unwrap();
        let id = loaded.unwrap().remove(0).id;
        let lower = there.lower_directories(&id).unwrap();
        assert_eq!(fs::read_to_string(lower[0].join("platform")).unwrap(), name);
        // Only that one came along, and what was saved of it elsewhere is the same.
        assert!(save(&there, "many:1") == bytes, "{platform}");
        assert_eq!(files_of(&bytes).len(), 3 + 4, "manifest, configuration, layer, and what names them");
        let third = Home::new();
        assert_eq!(load(&third.open(), &bytes).id, id);
    }
    // An image without an index is for what it says.
    let single = Home::new();
    let store = single.open();
    load(&store, &tarball(&docker_files(&two_layers(), &["single"], plain)));
    let names = ["single".to_owned()];
    store.save_for(&names, Some(&of("linux/amd64")), std::io::sink()).unwrap();
    assert!(store.save_for(&names, Some(&of("linux/arm64")), std::io::sink()).is_err());
    let archive = tarball(&docker_files(&two_layers(), &["single"], plain));
    assert!(store.load_for(archive.as_slice(), Some(&of("linux/arm64")), &()).is_err());
    store.load_for(archive.as_slice(), Some(&of("linux/amd64")), &()).unwrap();
}

#[test]
fn manifests_are_told_of_one_by_one() {
    let (mut layout, _) = many();
    // One platform's layer did not come along, nor did a whole platform of another name.
    let partial = layout.image("linux/riscv64", gzip);
    let absent = layout.image("linux/ppc64le", gzip);
    let ours = layout.image(&host(), gzip);
    let index = layout.index_of(&[partial.clone(), absent.clone(), ours.clone()]);
    layout.name(&index, "many:2");
    layout.name(&ours, "many:3");
    let read = |layout: &Layout, digest: &Value| -> Value {
        let name = format!("blobs/sha256/{}", &digest.as_str().unwrap()[7..]);
        serde_json::from_slice(&layout.files.iter().find(|(known, _)| *known == name).unwrap().1).unwrap()
    };
    let gone = [read(&layout, &partial["digest"])["layers"][0]["digest"].clone(), absent["digest"].clone()];
    let is_gone = |name: &str| gone.iter().any(|digest| name.ends_with(&digest.as_str().unwrap()[7..]));
    layout.files.retain(|(name, _)| !is_gone(name));
    let home = Home::new();
    let store = home.open();
    let id = load(&store, &layout.archive()).id;
    let found = store.manifests(&id).unwrap();
    let mut shown: Vec<String> = found
        .iter()
        .map(|one| match &one.kind {
            ManifestKind::Image { platform, unpacked_bytes, .. } => {
                format!("{} {} {}", platform.as_ref().unwrap(), one.available, unpacked_bytes)
            }
            ManifestKind::Attestation { of } => format!("about {of:?} {}", one.available),
            ManifestKind::Unknown => format!("unknown {}", one.available),
        })
        .collect();
    shown.sort();
    let unpacked = store.find("many:1").unwrap().size_bytes;
    assert!(unpacked > 0);
    let mut expected = vec![
        format!("{} true {unpacked}", host()),
        "about \"\" true".to_owned(),
        "linux/arm/v6 true 0".to_owned(),
        "linux/ppc64le false 0".to_owned(),
        "linux/riscv64 false 0".to_owned(),
        "linux/s390x true 0".to_owned(),
        "unknown true".to_owned(),
    ];
    expected.sort();
    assert_eq!(shown, expected);
    let ours = found.iter().find(|one| json!(one.digest) == ours["digest"]).unwrap();
    let parts = read(&layout, &ours.descriptor["digest"]);
    let size = |part: &Value| part["size"].as_u64().unwrap();
    let content = size(&ours.descriptor) + size(&parts["config"]) + size(&parts["layers"][0]);
    assert_eq!(ours.content_bytes, content);
    let absent = found.iter().find(|one| json!(one.digest) == absent["digest"]).unwrap();
    assert_eq!(absent.content_bytes, 0);
    // Another one, once it is unpacked too.
    let other = store.prepare_for("many:1", Some(&"linux/s390x".parse().unwrap())).unwrap();
    let is_other = |one: &&ManifestSummary| {
        matches!(&one.kind, ManifestKind::Image { image, unpacked_bytes, .. }
            if image.as_ref() == Some(&other.id) && *unpacked_bytes == other.size_bytes)
    };
    assert_eq!(store.manifests(&id).unwrap().iter().filter(is_other).count(), 1);
    // What came without any has none.
    let single = load(&store, &tarball(&docker_files(&two_layers(), &["single"], plain))).id;
    assert_eq!(store.manifests(&single).unwrap(), []);
}

#[test]
fn names_lead_each_to_its_own() {
    let mut layout = Layout::default();
    let image = layout.image(&host(), gzip);
    let other = layout.image("linux/s390x", gzip);
    let index = layout.index_of(&[image.clone(), other]);
    layout.name(&index, "app:all");
    layout.name(&image, "app:one");
    let home = Home::new();
    let store = home.open();
    let loaded = load(&store, &layout.archive());
    assert_eq!(loaded.references.len(), 2);
    let digest = |store: &ImageStore, name: &str| {
        let saved: Value = serde_json::from_slice(&files_of(&save(store, name))["index.json"]).unwrap();
        assert_eq!(saved["manifests"].as_array().unwrap().len(), 1, "{name}");
        saved["manifests"][0]["digest"].clone()
    };
    assert_eq!(
        (digest(&store, "app:all"), digest(&store, "app:one")),
        (index["digest"].clone(), image["digest"].clone())
    );
    // Both at once, and again somewhere else.
    let both = save(&store, "app");
    let there = Home::new();
    let second = there.open();
    load(&second, &both);
    assert!(save(&second, "app") == both, "the save of the save differs");
    // A further name leads where its source does, also after a restart.
    store.tag_found("app:all", &reference("mine:1")).unwrap();
    drop(store);
    let store = home.open();
    assert_eq!(digest(&store, "mine:1"), index["digest"]);
    // Without the last name of the index, the other platform goes.
    let before = home.counts();
    for name in ["app:all", "mine:1"] {
        store.remove(name, false, false, &nobody).unwrap();
    }
    assert_eq!(digest(&store, "app:one"), image["digest"]);
    assert_eq!(home.counts(), [before[0] - 4, before[1], 0], "index, manifest, configuration and layer");
    // A name that moves to another image leaves its target behind.
    load(&store, &tarball(&docker_files(&two_layers(), &["app:one"], gzip)));
    assert_eq!(store.list().unwrap().len(), 2);
    store.remove(loaded.id.short(), false, false, &nobody).unwrap();
    store.remove("app:one", false, false, &nobody).unwrap();
    assert_eq!((home.counts(), store.list().unwrap().len()), ([0, 0, 0], 0));
}

/// One file may be a layer's blob, an image's configuration and a part of an index.
#[test]
fn what_two_need_stays_until_both_are_gone() {
    let orders = [[0, 1], [1, 0]];
    for load_order in orders {
        for removal_order in orders {
            let mut layout = Layout::default();
            let (ours, theirs) = (layout.image(&host(), gzip), layout.image("linux/s390x", gzip));
            let index = layout.index_of(&[ours, theirs.clone()]);
            let mut alone = Layout { files: layout.files.clone(), ..Layout::default() };
            layout.name(&index, "many:1");
            alone.name(&theirs, "theirs:1");
            let archives = [layout.archive(), alone.archive()];
            let names = ["many:1", "theirs:1"];
            let home = Home::new();
            let store = home.open();
            load_order.iter().for_each(|at| drop(store.load(archives[*at].as_slice(), &()).unwrap()));
            let whole = names.map(|name| save(&store, name));
            store.remove(names[removal_order[0]], false, false, &nobody).unwrap();
            let left = removal_order[1];
            assert!(save(&store, names[left]) == whole[left], "{load_order:?} {removal_order:?}");
            drop(store);
            let store = home.open();
            assert!(save(&store, names[left]) == whole[left], "{load_order:?} {removal_order:?} after a restart");
            store.remove(names[left], false, false, &nobody).unwrap();
            assert_eq!(home.counts(), [0, 0, 0], "{load_order:?} {removal_order:?}");
        }
    }
}

#[test]
fn the_same_layer_in_another_compression_is_kept_beside() {
    let home = Home::new();
    let store = home.open();
    let mut archives = Vec::new();
    for (pack, name) in [(plain as Pack, "plain:1"), (gzip, "gzip:1"), (zstd, "zstd:1")] {
        let mut layout = Layout::default();
        let image = layout.image(&host(), pack);
        layout.name(&image, name);
        store.load(layout.archive().as_slice(), &()).unwrap();
        archives.push((name, layout));
    }
    for (name, layout) in &archives {
        let saved = files_of(&save(&store, name));
        assert!(layout.files.iter().all(|(file, content)| saved.get(file) == Some(content)), "{name}");
    }
    assert_eq!(home.names("layers").len(), 1);
}

#[test]
fn what_cannot_be_carried_is_named() {
    let mut foreign = Layout::default();
    let layer = archive(&[file("a", "b")]);
    let image_config = foreign.blob("application/vnd.oci.image.config.v1+json", config(std::slice::from_ref(&layer)));
    let mut descriptor = json!({ "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "digest": sha256(&gzip(&layer)), "size": 1 });
    descriptor["urls"] = json!(["https://example.com/layer"]);
    let manifest =
        foreign.document(MANIFEST, json!({ "schemaVersion": 2, "config": image_config, "layers": [descriptor] }));
    foreign.name(&manifest, "foreign:1");
    refused(&foreign.archive(), "a foreign one, at https://example.com/layer");
    // With its bytes it is a layer as any other.
    foreign.blob("", gzip(&layer));
    let home = Home::new();
    let store = home.open();
    load(&store, &foreign.archive());
    let saved = files_of(&save(&store, "foreign:1"));
    assert!(foreign.files.iter().all(|(file, content)| saved.get(file) == Some(content)));

    let (mut lonely, _) = many();
    lonely.index[1]["digest"] = lonely.index[0]["digest"].clone();
    let mut artifact = Layout::default();
    let empty = artifact.blob("application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let manifest = artifact.document(
        MANIFEST,
        json!({ "schemaVersion": 2, "artifactType": "application/x", "config": empty, "layers": [], "subject": { "digest": sha256(b"elsewhere") } }),
    );
    artifact.name(&manifest, "artifact:1");
    refused(&artifact.archive(), "artifacts that are about no image of the archive are not built yet");
    let mut elsewhere = Layout::default();
    let manifests = [elsewhere.image("linux/s390x", gzip), elsewhere.image("windows/amd64", gzip)];
    let index = elsewhere.index_of(&manifests);
    elsewhere.name(&index, "elsewhere:1");
    refused(&elsewhere.archive(), "for other machines only: linux/s390x, windows/amd64");
}

/// Platforms that are in the index and not in the archive are not missed, as those who copy only one leave them.
#[test]
fn an_index_with_gaps_is_kept_with_its_gaps() {
    let (mut layout, index) = many();
    let s390x = layout.image("linux/s390x", gzip)["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
    layout.files.retain(|(name, _)| *name != s390x);
    let home = Home::new();
    let store = home.open();
    load(&store, &layout.archive());
    let bytes = save(&store, "many:1");
    let saved = files_of(&bytes);
    assert!(
        !saved.contains_key(&s390x)
            && saved.contains_key(&index["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/"))
    );
    // The rest of it comes later.
    let (whole, _) = many();
    load(&store, &whole.archive());
    assert!(files_of(&save(&store, "many:1")).contains_key(&s390x));
    store.remove("many:1", false, false, &nobody).unwrap();
    assert_eq!(home.counts(), [0, 0, 0]);
}

/// Its blob is the index's too, on the disk once.
#[test]
fn another_platforms_directory_goes_with_its_image_and_the_index_stays() {
    let (layout, _) = many();
    let home = Home::new();
    let store = home.open();
    load(&store, &layout.archive());
    let (whole, before, usage) = (save(&store, "many:1"), home.counts(), store.disk_usage().unwrap());
    let platform: Platform = "linux/s390x".parse().unwrap();
    for _ in 0..2 {
        let image = store.prepare_for("many:1", Some(&platform)).unwrap();
        let now = store.disk_usage().unwrap();
        assert_eq!((home.counts()[1], now.blobs_bytes), (before[1] + 1, usage.blobs_bytes));
        let lower = store.lower_directories(&image.id).unwrap();
        let removed = store.remove(&image.id.to_string(), false, false, &nobody).unwrap();
        assert_eq!(removed[1..], [Removal::Deleted(image.diff_ids[0].to_string())]);
        assert!(!lower[0].exists() && home.counts() == before);
        assert_eq!(store.disk_usage().unwrap(), usage);
        assert!(save(&store, "many:1") == whole);
    }
    drop(store);
    assert!(save(&home.open(), "many:1") == whole && home.counts() == before);
}

/// `run --platform`.
#[test]
fn another_platform_is_unpacked_when_it_is_to_run() {
    let (layout, _) = many();
    let home = Home::new();
    let store = home.open();
    let ours = load(&store, &layout.archive()).id;
    let whole = save(&store, "many:1");
    let before = home.counts();
    for name in ["linux/s390x", "linux/arm/v6"] {
        let platform: Platform = name.parse().unwrap();
        let seen = store.find_for("many:1", Some(&platform)).unwrap();
        assert_eq!(format!("linux/{}", seen.raw["architecture"].as_str().unwrap()), name.trim_end_matches("/v6"));
        assert!(store.lower_directories(&seen.id).is_err());
        for _ in 0..2 {
            let image = store.prepare_for("many:1", Some(&platform)).unwrap();
            assert_eq!((&image.id, store.is_of_an_index(&image)), (&seen.id, true));
            let lower = store.lower_directories(&image.id).unwrap();
            assert_eq!(fs::read_to_string(lower[0].join("platform")).unwrap(), name);
        }
    }
    // The plain layer was a directory already; no file is there twice.
    assert_eq!(home.counts(), [before[0], before[1] + 1, 0]);
    assert_eq!(store.find("many:1").unwrap().id, ours);
    assert!(!store.is_of_an_index(&store.find("many:1").unwrap()));
    assert_eq!(store.prepare_for("many:1", None).unwrap().id, ours);
    assert!(save(&store, "many:1") == whole);
    let error = store.prepare_for("many:1", Some(&"linux/mips64".parse().unwrap())).unwrap_err();
    assert!(error.to_string().contains("has no image for linux/mips64"), "{error}");
    drop(store);
    let store = home.open();
    store.remove("many:1", false, false, &nobody).unwrap();
    // What has run stays until it is removed by its id.
    let left = store.list().unwrap();
    assert_eq!(left.len(), 2);
    for image in left {
        assert!(!store.is_of_an_index(&image));
        store.remove(image.id.short(), false, false, &nobody).unwrap();
    }
    assert_eq!(home.counts(), [0, 0, 0]);
}
