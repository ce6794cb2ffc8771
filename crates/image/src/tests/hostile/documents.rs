//! Manifests, indexes and configurations that lead in circles, are too many or too large, or do not say the truth.

use super::*;

/// An OCI layout of these blobs, and `index.json`.
fn layout(blobs: &[Vec<u8>], index: &Value) -> Vec<u8> {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    files.extend(blobs.iter().map(|blob| (format!("blobs/sha256/{}", sha256(blob).hex()), blob.clone())));
    files.push(("index.json".into(), serde_json::to_vec(index).unwrap()));
    tarball(&files)
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn descriptor(blob: &[u8]) -> Value {
    json!({ "digest": sha256(blob), "size": blob.len(), "platform": { "os": "linux", "architecture": "amd64" } })
}

/// Without digests an archive's names can lead in circles.
#[test]
fn links_in_a_circle_lead_nowhere() {
    let manifest = br#"[{"Config":"a","Layers":["b"]}]"#.as_slice();
    let named = |name, link_name| link(EntryType::Symlink, name, link_name);
    let manifest_entry = |name| (Description::plain(name, EntryType::Regular, 0o644, manifest.len() as u64), manifest);
    let circle = archive(&[named("a", "b"), named("b", "a"), manifest_entry(b"manifest.json")]);
    refuses_archive(circle.as_slice(), "a is missing");
    let itself = archive(&[named("manifest.json", "manifest.json")]);
    refuses_archive(itself.as_slice(), "neither manifest.json");
    for out in ["/etc/passwd", "../../../../etc/passwd"] {
        let link = archive(&[named("manifest.json", out)]);
        refuses_archive(link.as_slice(), "neither manifest.json");
    }
    // The manifest itself as a configuration and as a layer.
    let files = [("manifest.json".to_owned(), br#"[{"Config":"manifest.json","Layers":["manifest.json"]}]"#.to_vec())];
    refuses_archive(tarball(&files).as_slice(), "its configuration is");
}

#[test]
fn indexes_are_not_followed_without_end() {
    // Each names the next twenty times; at the bottom stands nothing.
    let mut blobs = vec![bytes(&json!({ "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": sha256(b"nothing") } }))];
    for _ in 0..6 {
        let next = vec![descriptor(blobs.last().unwrap()); 100];
        blobs.push(bytes(&json!({ "manifests": next })));
    }
    for depth in 0..blobs.len() {
        let index = json!({ "manifests": vec![descriptor(&blobs[depth]); 100] });
        let want = if depth > 4 { "nested deeper than 4" } else { "is missing" };
        refuses_archive(layout(&blobs, &index).as_slice(), want);
    }
}

#[test]
fn an_image_has_as_many_layers_as_can_be_stacked() {
    let config = config(&[]);
    for count in [501, 100_000, 1_000_000] {
        let manifest = json!([{ "Config": "c", "Layers": vec!["l"; count] }]);
        let files = [("c".to_owned(), config.clone()), ("manifest.json".to_owned(), bytes(&manifest))];
        refuses_archive(tarball(&files).as_slice(), if count == 501 { "has 501 layers" } else { "" });
        let manifest = bytes(&json!({
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config) },
            "layers": vec![json!({ "digest": sha256(b"") }); count.min(40_000)],
        }));
        let index = json!({ "manifests": [descriptor(&manifest)] });
        refuses_archive(layout(&[config.clone(), manifest], &index).as_slice(), "");
    }
}

#[test]
fn documents_too_deep_too_large_or_none() {
    let docker = |manifest: Vec<u8>| tarball(&[("manifest.json".to_owned(), manifest)]);
    let deep = |count: usize| [vec![b'['; count], vec![b']'; count]].concat();
    refuses_archive(docker(deep(100_000)).as_slice(), "manifest.json is malformed");
    refuses_archive(docker([b"[".as_slice(), &b" ".repeat(5 << 20), b"]"].concat()).as_slice(), "is larger than");
    for none in
        [&b""[..], b"null", b"1", b"\"x\"", b"{}", b"[1]", b"[[]]", b"[null]", b"\xff", b"[{}]", b"[{\"Config\":1}]"]
    {
        refuses_archive(docker(none.to_vec()).as_slice(), "manifest.json is malformed");
    }
    let of = |config: Vec<u8>| {
        tarball(&[("c".to_owned(), config), ("manifest.json".to_owned(), br#"[{"Config":"c"}]"#.to_vec())])
    };
    let deep = [
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"x":"#.as_slice(),
        &deep(50_000),
        b"}",
    ];
    refuses_archive(of(deep.concat()).as_slice(), "its configuration is no JSON");
    for (diff_id, want) in [
        ("sha256:../../../x", "its configuration names a layer by an"),
        ("sha512:00", "its configuration names a layer by an"),
        ("/etc/passwd", "its configuration names a layer by an"),
    ] {
        let config =
            json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [diff_id] } });
        refuses_archive(of(bytes(&config)).as_slice(), want);
    }
    // A layer where a document has to be, and the other way round.
    let layer = archive(&[file("a", "x")]);
    refuses_archive(of(layer).as_slice(), "is a layer, where a document has to be");
    let text = b"no layer".to_vec();
    refuses_archive(image_of_blob(text.clone(), &sha256(&text)).as_slice(), "cannot load layer l");
}

/// Every digest is compared with the bytes, however they are packed.
#[test]
fn what_is_not_what_its_digest_says_is_refused() {
    let layers = two_layers();
    for pack in [plain as Pack, gzip, zstd] {
        let mut swapped = docker_files(&layers, &["a"], pack);
        let (first, second) = (swapped[1].1.clone(), swapped[2].1.clone());
        (swapped[1].1, swapped[2].1) = (second, first);
        refuses_archive(tarball(&swapped).as_slice(), "the configuration wants sha256:");
        let other = archive(&[file("evil", "x")]);
        let mut files = docker_files(&layers, &["a"], pack);
        files[2].1 = pack(&other);
        refuses_archive(tarball(&files).as_slice(), "the configuration wants sha256:");
        for at in 1..5 {
            let mut files = oci_files(&layers, "a:1", pack);
            files[at].1.push(b' ');
            refuses_archive(tarball(&files).as_slice(), "is damaged");
        }
        // The right configuration with another's manifest.
        let mut files = oci_files(&layers, "a:1", pack);
        let theirs = oci_files(&[other], "a:1", pack);
        let at = files.iter().position(|(name, _)| name == "index.json").unwrap();
        files[at] = theirs.last().unwrap().clone();
        refuses_archive(tarball(&files).as_slice(), "is missing");
    }
}

/// A layer that the store has is not read again; what is said to be it is not believed to be anything else.
#[test]
fn a_layer_that_is_known_lends_its_name_to_nothing() {
    let cell = Cell::new();
    let layers = two_layers();
    load(&cell.store, &tarball(&docker_files(&layers, &["a"], plain)));
    let known = sha256(&layers[0]);
    let evil = archive(&[file("evil", "x")]);
    for claimed in [format!("{}.tar", known.hex()), format!("blobs/sha256/{}", known.hex())] {
        let config = config(std::slice::from_ref(&evil));
        let manifest = json!([{ "Config": "c", "RepoTags": ["b"], "Layers": [claimed] }]);
        let files = [("c".to_owned(), config), (claimed, evil.clone()), ("manifest.json".to_owned(), bytes(&manifest))];
        let error = cell.store.load(tarball(&files).as_slice(), &()).unwrap_err();
        is_refusal(&error, "");
        assert_eq!(cell.store.list().unwrap().len(), 1);
    }
}
