//! What comes a second time, in part, or in two forms at once.

use super::targets::{LAYER, Layout, MANIFEST, files_of, host, many};
use super::*;

fn index_of(archive: &[u8]) -> Vec<Value> {
    let index: Value = serde_json::from_slice(&files_of(archive)["index.json"]).unwrap();
    index["manifests"].as_array().unwrap().clone()
}

#[test]
fn notes_about_an_image_stay_when_it_comes_without_them() {
    let (mut layout, index) = many();
    let home = Home::new();
    let store = home.open();
    load(&store, &layout.archive());
    let first = save(&store, "many:1");
    assert_eq!(index_of(&first).len(), 2, "the index and what is about it");

    let artifact = layout.index.pop().unwrap();
    let mut said_otherwise = layout.index[0].clone();
    said_otherwise["annotations"]["of"] = json!("the second time");
    layout.index[0] = said_otherwise;
    load(&store, &layout.archive());
    assert!(save(&store, "many:1") == first, "the second load took something away");

    // One more note comes to those that are there.
    let signature = layout.blob("application/vnd.example.signature", b"signed by another".to_vec());
    let empty = layout.blob("application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let another = layout.document(
        MANIFEST,
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.signature",
            "config": empty, "layers": [signature], "subject": index,
        }),
    );
    layout.index.push(another.clone());
    load(&store, &layout.archive());
    drop(store);
    let store = home.open();
    let found = index_of(&save(&store, "many:1"));
    assert_eq!((found.len(), &found[1], &found[2]), (3, &artifact, &another));
}

/// As a client sends it that knows which bytes are there.
#[test]
fn a_target_whose_blob_is_kept_for_another_is_kept_too() {
    let layers = two_layers();
    let home = Home::new();
    let store = home.open();
    load(&store, &tarball(&docker_files(&layers, &["base:1"], plain)));
    let whole = oci_files(&layers, "app:1", gzip);
    load(&store, &tarball(&whole));
    let saved = save(&store, "app:1");
    let compressed: Vec<Digest> = layers.iter().map(|layer| sha256(&gzip(layer))).collect();
    assert_eq!(store.known_contents(compressed.clone()), compressed);
    assert!(compressed.iter().all(|digest| files_of(&saved).contains_key(&format!("blobs/sha256/{}", digest.hex()))));

    let is_sent = |name: &String| !compressed.iter().any(|digest| name.ends_with(digest.hex()));
    let part: Files = whole.into_iter().filter(|(name, _)| is_sent(name)).collect();
    load(&store, &tarball(&part));
    assert!(save(&store, "app:1") == saved);
    store.remove("base:1", false, false, &nobody).unwrap();
    drop(store);
    assert!(save(&home.open(), "app:1") == saved);
}

#[test]
fn one_layer_plain_and_compressed_in_one_archive_is_one() {
    let mut layout = Layout::default();
    let this = layout.image(&host(), gzip);
    let shared = archive(&[file("platform", &host())]);
    let mut config: Value = serde_json::from_slice(&config(std::slice::from_ref(&shared))).unwrap();
    config["architecture"] = json!("s390x");
    let config = layout.document("application/vnd.oci.image.config.v1+json", config);
    let layer = layout.blob(&LAYER.replace("+gzip", ""), shared);
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let mut other = layout.document(MANIFEST, manifest);
    other["platform"] = json!({ "os": "linux", "architecture": "s390x" });
    let index = layout.index_of(&[this, other]);
    layout.name(&index, "both:1");
    let home = Home::new();
    let store = home.open();
    load(&store, &layout.archive());
    let saved = files_of(&save(&store, "both:1"));
    for (name, content) in &layout.files {
        assert!(saved.get(name) == Some(content), "{name}");
    }
}

/// As an engine writes it that has fetched one platform of many.
#[test]
fn of_an_index_what_is_here_is_chosen() {
    let (mut here, mut elsewhere) = (Layout::default(), Layout::default());
    let manifests = [elsewhere.image(&host(), gzip), here.image("linux/s390x", gzip)];
    let index = here.index_of(&manifests);
    here.name(&index, "part:1");
    let home = Home::new();
    let store = home.open();
    load(&store, &here.archive());
    assert_eq!(store.find("part:1").unwrap().raw["architecture"], json!("s390x"));
    assert_eq!(index_of(&save(&store, "part:1"))[0]["digest"], index["digest"]);
}

#[test]
fn a_bare_tag_is_found_again() {
    let mut layout = Layout::default();
    let image = layout.image(&host(), gzip);
    layout.name(&image, "1.0");
    let home = Home::new();
    let store = home.open();
    let loaded = load(&store, &layout.archive());
    assert_eq!(loaded.references, []);
    let index = index_of(&save(&store, &loaded.id.to_string()));
    assert_eq!(index[0]["annotations"], json!({ "org.opencontainers.image.ref.name": "1.0" }));
}

/// serde takes a list of a structure's members for the structure.
#[test]
fn a_list_is_no_object() {
    let layers = two_layers();
    let mut files = oci_files(&layers, "list:1", plain);
    let (_, index) = files.iter_mut().find(|(name, _)| name == "index.json").unwrap();
    let read: Value = serde_json::from_slice(index).unwrap();
    let descriptor = &read["manifests"][0];
    *index = json!({ "manifests": [[descriptor["mediaType"], descriptor["digest"]]] }).to_string().into_bytes();
    refused(&tarball(&files), "index.json is malformed");

    let image = |change: fn(&mut Value)| {
        let mut files = docker_files(&layers, &["list:1"], plain);
        let mut config: Value = serde_json::from_slice(&files[0].1).unwrap();
        change(&mut config);
        let bytes = config.to_string().into_bytes();
        let name = format!("{}.json", sha256(&bytes).hex());
        let manifest = json!([{ "Config": name, "RepoTags": ["list:1"], "Layers": ["0/layer.tar", "1/layer.tar"] }]);
        files[0] = (name, bytes);
        files.last_mut().unwrap().1 = manifest.to_string().into_bytes();
        tarball(&files)
    };
    refused(&image(|config| config["rootfs"] = json!(["layers", config["rootfs"]["diff_ids"]])), "rootfs is no object");
    refused(&image(|config| config["config"] = json!([])), "config is no object");
    refused(&image(|config| config["history"] = json!([[], []])), "an entry of its history is no object");
    refused(&image(|config| *config = json!([config["os"]])), "it is no object");
}
