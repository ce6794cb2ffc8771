//! Notes about images that are made here.

use super::targets::files_of;
use super::*;

fn notes(words: &str) -> Vec<Attestation> {
    let note =
        |kind: &str| Attestation { predicate_type: kind.into(), statement: format!("{kind} {words}").into_bytes() };
    vec![note("https://example.org/one"), note("https://example.org/two")]
}

/// The documents of a saved archive, from the index that its `index.json` names.
fn saved(store: &ImageStore, name: &str) -> (Value, impl Fn(&Value) -> Value + use<>) {
    let files = files_of(&save(store, name));
    let read = move |descriptor: &Value| -> Value {
        let digest = descriptor["digest"].as_str().unwrap();
        let bytes = &files[&format!("blobs/sha256/{}", &digest[7..])];
        assert_eq!(
            (descriptor["size"].as_u64(), sha256(bytes).to_string()),
            (Some(bytes.len() as u64), digest.to_owned())
        );
        serde_json::from_slice(bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(bytes)))
    };
    let files = files_of(&save(store, name));
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    (index["manifests"][0].clone(), read)
}

#[test]
fn an_image_is_saved_with_the_notes_about_it() {
    let home = Home::new();
    let store = home.open();
    let base = load(&store, &tarball(&docker_files(&two_layers(), &["base"], gzip)));
    let diff_ids = store.find("base").unwrap().diff_ids.to_vec();
    let mut configuration = (*store.find("base").unwrap().raw).clone();
    configuration["config"] = json!({ "Labels": { "a": "b" } });
    let mut about = None;
    let add = |names: &[&str], notes: Vec<Attestation>, about: &mut Option<Digest>| {
        let names = names.iter().map(|name| reference(name)).collect();
        let made = store.add_attested_image(&configuration, diff_ids.clone(), names, |manifest| {
            *about = Some(manifest.clone());
            notes
        });
        made.unwrap()
    };
    let id = add(&["web:1", "web:2"], notes("first"), &mut about);
    assert_ne!(id, base.id);
    let (descriptor, read) = saved(&store, "web:1");
    assert_eq!(descriptor["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(descriptor["annotations"]["io.containerd.image.name"], "docker.io/library/web:1");
    let index = read(&descriptor);
    let [of_image, of_notes] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index}") };
    assert_eq!(of_image["digest"], json!(about.as_ref().unwrap()));
    assert_eq!(of_image["platform"]["architecture"], configuration["architecture"]);
    assert_eq!(of_notes["platform"], json!({ "os": "unknown", "architecture": "unknown" }));
    let annotations = json!({
        "vnd.docker.reference.digest": of_image["digest"], "vnd.docker.reference.type": "attestation-manifest",
    });
    assert_eq!(of_notes["annotations"], annotations);
    let (manifest, about_it) = (read(of_image), read(of_notes));
    assert_eq!(read(&manifest["config"]), configuration);
    let layers: Vec<&Value> = manifest["layers"].as_array().unwrap().iter().map(|layer| &layer["digest"]).collect();
    assert_eq!(json!(layers), json!(diff_ids));
    let statements = about_it["layers"].as_array().unwrap();
    assert_eq!(statements.len(), 2);
    for (layer, kind) in statements.iter().zip(["https://example.org/one", "https://example.org/two"]) {
        assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
        assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], kind);
        assert_eq!(read(layer), json!(format!("{kind} first")));
    }
    assert_eq!(read(&about_it["config"])["rootfs"]["diff_ids"][1], statements[1]["digest"]);
    let kinds: Vec<bool> = store
        .manifests(&id)
        .unwrap()
        .iter()
        .map(|one| matches!(&one.kind, ManifestKind::Attestation { of } if Some(of) == about.as_ref().map(Digest::to_string).as_ref()))
        .collect();
    assert_eq!(kinds, [false, true]);

    // Another store takes it as it is, and so does this one when it is opened again.
    let bytes = save(&store, "web");
    let other = Home::new();
    let second = other.open();
    assert_eq!(load(&second, &bytes).id, id);
    assert_eq!(save(&second, "web"), bytes);

    // The same image with other notes under one of its names.
    assert_eq!(add(&["web:2"], notes("second"), &mut about), id);
    assert_eq!(save(&store, "web:1"), save(&second, "web:1"));
    assert_ne!(save(&store, "web:2"), save(&second, "web:2"));
    let store = {
        drop(store);
        home.open()
    };
    assert_eq!(save(&store, "web:1"), save(&second, "web:1"));
    // And without any.
    store.add_image(&configuration, diff_ids.clone(), vec![reference("web:2")]).unwrap();
    assert_eq!(saved(&store, "web:2").0["mediaType"], "application/vnd.oci.image.manifest.v1+json");
}

#[test]
fn notes_go_with_their_image() {
    let home = Home::new();
    let store = home.open();
    load(&store, &tarball(&docker_files(&two_layers(), &["base"], gzip)));
    let before = home.counts();
    let diff_ids = store.find("base").unwrap().diff_ids.to_vec();
    let mut configuration = (*store.find("base").unwrap().raw).clone();
    configuration["comment"] = json!("another");
    let id = store.add_attested_image(&configuration, diff_ids.clone(), Vec::new(), |_| notes("x")).unwrap();
    assert_eq!(saved(&store, id.short()).0["mediaType"], "application/vnd.oci.image.index.v1+json");
    store.remove(id.short(), false, true, &nobody).unwrap();
    assert_eq!(home.counts(), before);
    let by_digest = vec![format!("a@{}", id.digest()).parse().unwrap()];
    let error = store.add_attested_image(&configuration, diff_ids, by_digest, |_| Vec::new()).unwrap_err();
    assert!(matches!(error, ImageError::TagWithDigest));
    assert_eq!(home.counts(), before);
}
