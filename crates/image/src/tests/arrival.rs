//! Images piece by piece, as a registry has them: by one that is honest, and by ones that are not.

use std::io::Read;

use super::targets::{LAYER, Layout, MANIFEST, files_of, host};
use super::*;

/// What a registry gives for a blob.
type Give<'a> = &'a dyn Fn(&str, Vec<u8>) -> Box<dyn Read>;

fn honest(_: &str, bytes: Vec<u8>) -> Box<dyn Read> {
    Box::new(std::io::Cursor::new(bytes))
}

impl Layout {
    fn bytes(&self, digest: &Digest) -> Vec<u8> {
        let name = format!("blobs/{}/{}", digest.algorithm(), digest.hex());
        self.files.iter().find(|(known, _)| *known == name).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    }
}

/// Pulls from a layout; gives how many layers came.
fn pull(
    store: &ImageStore,
    layout: &Layout,
    root: &Value,
    platform: Option<&str>,
    give: Give<'_>,
) -> Result<(Loaded, usize), ImageError> {
    pull_keeping(store, layout, root, platform, Kept::AsAsked, give)
}

fn pull_keeping(
    store: &ImageStore,
    layout: &Layout,
    root: &Value,
    platform: Option<&str>,
    kept: Kept,
    give: Give<'_>,
) -> Result<(Loaded, usize), ImageError> {
    let digest: Digest = root["digest"].as_str().unwrap().parse().unwrap();
    let arrival = store.arrival(digest.clone(), platform.map(|text| text.parse().unwrap()))?;
    let document = |digest: &Digest| {
        let mut bytes = Vec::new();
        give(digest.as_str(), layout.bytes(digest)).read_to_end(&mut bytes).unwrap();
        arrival.document(digest, root["mediaType"].as_str().unwrap(), &bytes)
    };
    let layers = loop {
        match arrival.needed()? {
            Needed::Manifest { digest, .. } | Needed::Configuration { digest, .. } => document(&digest)?,
            Needed::Layers(layers) => break layers,
        }
    };
    let budget = LayersBudget::of(&layers);
    let new: Vec<_> = layers.iter().filter(|layer| !layer.is_here).collect();
    for layer in &new {
        arrival.layer(layer, give(layer.digest.as_str(), layout.bytes(&layer.digest)), &budget, |_| {})?;
    }
    let names = [format!("a/b@{digest}"), "a/b:1".to_owned()].map(|name| name.parse().unwrap());
    Ok((arrival.install(&names, kept)?, new.len()))
}

/// An image with a compressed layer and a plain one.
fn image(layout: &mut Layout) -> Value {
    let layers = [archive(&[file("a", "one")]), archive(&[file("b", "two")])];
    let one = layout.blob(LAYER, gzip(&layers[0]));
    let two = layout.blob("application/vnd.oci.image.layer.v1.tar", layers[1].clone());
    let config = layout.blob("application/vnd.oci.image.config.v1+json", config(&layers));
    layout.document(
        MANIFEST,
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [one, two] }),
    )
}

#[test]
fn an_image_arrives() {
    let (home, mut layout) = (Home::new(), Layout::default());
    let root = image(&mut layout);
    let store = home.open();
    let (loaded, new) = pull(&store, &layout, &root, None, &honest).unwrap();
    assert_eq!(new, 2);
    let found = store.find("a/b:1").unwrap();
    assert_eq!((&found.id, found.diff_ids.len()), (&loaded.id, 2));
    let by_digest: Reference = format!("a/b@{}", root["digest"].as_str().unwrap()).parse().unwrap();
    assert_eq!(found.repo_digests, std::slice::from_ref(&by_digest));
    let name = "a/b:1".parse().unwrap();
    assert_eq!(store.is_current(&name, &by_digest, None).as_ref(), Some(&loaded.id));
    assert_eq!(store.is_current(&name, &by_digest, Some(&"linux/arm64".parse().unwrap())), None);
    assert_eq!(store.is_current(&"a/b:2".parse().unwrap(), &by_digest, None), None);
    // Configuration, manifest, a blob and a recipe.
    assert_eq!(home.counts(), [4, 2, 0]);
    // What came can be given back: so it is known to be whole.
    let mut saved = Vec::new();
    store.save(&["a/b:1".to_owned()], &mut saved).unwrap();
    drop(store);
    let store = home.open();
    assert_eq!(home.counts(), [4, 2, 0]);
    // Again, with nothing to fetch.
    assert_eq!(pull(&store, &layout, &root, None, &honest).unwrap(), (loaded, 0));
    let manifests = store.manifests(&store.find("a/b:1").unwrap().id).unwrap();
    assert!(manifests.len() == 1 && manifests[0].available, "{manifests:?}");
}

#[test]
fn layers_whose_plain_digests_are_by_sha512_are_refused_before_they_come() {
    let (home, mut layout) = (Home::new(), Layout::default());
    let layers = [archive(&[file("a", "one")])];
    let layer = layout.blob(LAYER, gzip(&layers[0]));
    let long = Digest::from_sha512(sha2::Sha512::digest(&layers[0]).into());
    let config = String::from_utf8(config(&layers)).unwrap().replace(sha256(&layers[0]).as_str(), long.as_str());
    let config = layout.blob("application/vnd.oci.image.config.v1+json", config.into_bytes());
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let root = layout.document(MANIFEST, manifest);
    let store = home.open();
    let asked_for_layer = |digest: &str, bytes: Vec<u8>| {
        assert_ne!(digest, layer["digest"].as_str().unwrap());
        honest(digest, bytes)
    };
    let words = "its layers' plain digests (diff_ids) are by sha512, which is not built yet: those by sha256 are";
    let refused = pull(&store, &layout, &root, None, &asked_for_layer).unwrap_err();
    assert!(refused.to_string().contains(words), "{refused}");
    layout.name(&root, "a/b:1");
    let refused = store.load(layout.archive().as_slice(), &()).unwrap_err();
    assert!(refused.to_string().contains(words), "{refused}");
    assert_eq!((home.counts(), store.list().unwrap().len()), ([0, 0, 0], 0));
}

/// The same image, all of it named by sha512.
fn image_by_sha512(layout: &mut Layout) -> Value {
    let layers = [archive(&[file("a", "one")]), archive(&[file("b", "two")])];
    let one = layout.blob_by_sha512(LAYER, gzip(&layers[0]));
    let two = layout.blob_by_sha512("application/vnd.oci.image.layer.v1.tar", layers[1].clone());
    let config = layout.blob_by_sha512("application/vnd.oci.image.config.v1+json", config(&layers));
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [one, two] });
    layout.blob_by_sha512(MANIFEST, manifest.to_string().into_bytes())
}

#[test]
fn digests_by_sha512_are_compared_and_given_back() {
    let (home, mut layout) = (Home::new(), Layout::default());
    let root = image_by_sha512(&mut layout);
    let store = home.open();
    // Each of them is changed once: what comes is compared by the digest that names it.
    let digests: Vec<Digest> = layout.files.iter().map(|(name, _)| digest_of_name(name)).collect();
    for digest in &digests {
        let lie = |asked: &str, mut bytes: Vec<u8>| {
            let last = bytes.len() - 1;
            bytes[last] ^= u8::from(asked == digest.as_str());
            honest(asked, bytes)
        };
        let error = pull(&store, &layout, &root, None, &lie).unwrap_err().to_string();
        assert!(error.contains("the digest sha512:") || error.contains("cannot load layer"), "{digest}: {error}");
        assert_eq!((home.counts(), store.list().unwrap().len()), ([0, 0, 0], 0), "{digest}");
    }
    let (loaded, new) = pull(&store, &layout, &root, None, &honest).unwrap();
    assert_eq!((new, loaded.id.digest().algorithm()), (2, "sha256"));
    // Configuration by both digests, manifest, and both blobs as they came.
    assert_eq!(home.counts(), [5, 2, 0]);
    drop(store);
    let store = home.open();
    assert_eq!(home.counts(), [5, 2, 0]);
    assert_eq!(pull(&store, &layout, &root, None, &honest).unwrap(), (loaded.clone(), 0));
    // A push sends what came.
    let outgoing = store.outgoing(&"a/b:1".parse().unwrap(), &OutgoingPart::All, None).unwrap();
    let manifests = outgoing.manifests(&Default::default());
    assert_eq!(manifests.last().unwrap().digest.as_str(), root["digest"].as_str().unwrap());
    let blobs = outgoing.blobs().clone();
    for blob in blobs.layers().iter().chain(blobs.configurations()) {
        let mut bytes = Vec::new();
        let out = |piece: &[u8]| std::io::Write::write_all(&mut bytes, piece);
        blobs.read(blob, 0, out).unwrap();
        assert_eq!(bytes, layout.bytes(&blob.blob.as_ref().unwrap().digest));
    }
    // In an image that is built upon it, the plain one is compressed as any other.
    let diff_ids = store.find("a/b:1").unwrap().diff_ids;
    let layers = [0, 1].map(|at| store.outgoing_layer(&diff_ids[at], None).unwrap().layers()[0].blob.is_some());
    assert_eq!(layers, [true, false]);
    // What a save gives, a load takes.
    let mut saved = Vec::new();
    store.save(&["a/b:1".to_owned()], &mut saved).unwrap();
    let other = Home::new();
    let again = other.open();
    assert_eq!(again.load(saved.as_slice(), &()).unwrap()[0].id, loaded.id);
    assert_eq!(other.counts(), [5, 2, 0]);
    let manifests = again.manifests(&loaded.id).unwrap();
    assert!(manifests.len() == 1 && manifests[0].available, "{manifests:?}");
    assert!(matches!(&manifests[0].kind, ManifestKind::Image { image: Some(id), .. } if *id == loaded.id));
    drop((outgoing, blobs));
    store.remove(&loaded.id.to_string(), true, false, &nobody).unwrap();
    assert_eq!(home.counts(), [0, 0, 0]);
}

fn digest_of_name(name: &str) -> Digest {
    name.strip_prefix("blobs/").unwrap().replacen('/', ":", 1).parse().unwrap()
}

/// As zstd:chunked has it (containers/storage, pkg/chunked: zstd frames, then what lists them in skippable ones).
#[test]
fn zstd_chunked_is_zstd_with_more_behind_it() {
    let (home, mut layout) = (Home::new(), Layout::default());
    let layers = [archive(&[file("a", &"one ".repeat(10_000)), file("b", "two")])];
    let skippable = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        [&[0x50, 0x2a, 0x4d, 0x18][..], &length, bytes].concat()
    };
    let mut blob: Vec<u8> = layers[0].chunks(1000).flat_map(|part| zstd::encode_all(part, 3).unwrap()).collect();
    let manifest = zstd::encode_all(br#"{"version":1,"entries":[]}"#.as_slice(), 3).unwrap();
    blob.extend(skippable(&manifest));
    blob.extend(skippable(&[b"GNUlInUx".as_slice(), &[7; 56]].concat()));
    let mut layer = layout.blob("application/vnd.oci.image.layer.v1.tar+zstd", blob.clone());
    layer["annotations"] = json!({ "io.github.containers.zstd-chunked.manifest-checksum": sha256(&manifest) });
    let config = layout.blob("application/vnd.oci.image.config.v1+json", config(&layers));
    let root = layout.document(MANIFEST, json!({ "schemaVersion": 2, "config": config, "layers": [layer] }));
    let store = home.open();
    pull(&store, &layout, &root, None, &honest).unwrap();
    assert_eq!(store.find("a/b:1").unwrap().diff_ids.to_vec(), [sha256(&layers[0])]);
    // What only zstd:chunked knows goes on with a push, too.
    let outgoing = store.outgoing(&"a/b:1".parse().unwrap(), &OutgoingPart::All, None).unwrap();
    let mut bytes = Vec::new();
    let blobs = outgoing.blobs();
    blobs.read(&blobs.layers()[0], 0, |piece| std::io::Write::write_all(&mut bytes, piece)).unwrap();
    assert_eq!(bytes, blob);
}

#[test]
fn of_an_index_comes_what_is_wanted() {
    let (home, mut layout) = (Home::new(), Layout::default());
    let images = ["linux/amd64", "linux/arm64"].map(|platform| layout.image(platform, gzip));
    let index = layout.index_of(&images);
    let store = home.open();
    let (host, _) = pull(&store, &layout, &index, None, &honest).unwrap();
    assert_eq!(store.find("a/b:1").unwrap().raw["architecture"], json!(Platform::host().architecture));
    let (other, _) = pull(&store, &layout, &index, Some("linux/arm64"), &honest).unwrap();
    assert_ne!(host.id, other.id);
    assert_eq!(store.find("a/b:1").unwrap().id, other.id);
    let error = pull(&store, &layout, &index, Some("linux/s390x"), &honest).unwrap_err();
    let words = "no matching manifest for linux/s390x in the manifest list entries: there are linux/amd64, linux/arm64";
    assert_eq!((error.to_string().as_str(), error.kind()), (words, ErrorKind::NotFound));
}

#[test]
fn of_an_index_the_manifest_alone_may_be_kept() {
    let (home, mut layout) = (Home::new(), Layout::default());
    let images = [layout.image(&host(), gzip)];
    let index = layout.index_of(&images);
    let store = home.open();
    for (kept, root) in [(Kept::AsAsked, &index), (Kept::Manifest, &images[0])] {
        pull_keeping(&store, &layout, &index, None, kept, &honest).unwrap();
        let saved = files_of(&save(&store, "a/b:1"));
        let saved: Value = serde_json::from_slice(&saved["index.json"]).unwrap();
        assert_eq!(saved["manifests"][0]["digest"], root["digest"], "{kept:?}");
    }
}

#[test]
fn a_registry_that_lies_leaves_nothing() {
    let (mut layout, home) = (Layout::default(), Home::new());
    let root = image(&mut layout);
    let store = home.open();
    let manifest: Value =
        serde_json::from_slice(&layout.bytes(&root["digest"].as_str().unwrap().parse().unwrap())).unwrap();
    let [compressed, plain] = [0, 1].map(|at| manifest["layers"][at]["digest"].as_str().unwrap().to_owned());
    let of = |wanted: String, change: fn(Vec<u8>) -> Vec<u8>| {
        move |digest: &str, bytes: Vec<u8>| honest(digest, if digest == wanted { change(bytes) } else { bytes })
    };
    let bomb = |_| gzip(&vec![0; 64 << 20]);
    let root_digest = root["digest"].as_str().unwrap().to_owned();
    let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
    let cut = |mut bytes: Vec<u8>| bytes.split_off(bytes.len() / 2);
    let half = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    let more = |bytes: Vec<u8>| [bytes, vec![0; 3]].concat();
    let other = |_: Vec<u8>| archive(&[file("a", "another")]);
    let packed = |_: Vec<u8>| gzip(&archive(&[file("a", "another")]));
    for (digest, change, words) in [
        (root_digest.clone(), cut as fn(Vec<u8>) -> Vec<u8>, "is damaged: its bytes have the digest"),
        (config, more, "is damaged: its bytes have the digest"),
        (compressed.clone(), half, "cannot load layer"),
        (compressed.clone(), more, "cannot load layer"),
        (compressed.clone(), packed, "cannot load layer"),
        (compressed.clone(), bomb, "cannot load layer"),
        (plain.clone(), other, "cannot load layer"),
        (plain.clone(), more, "bytes, and the manifest promises"),
    ] {
        let error = pull(&store, &layout, &root, None, &of(digest.clone(), change)).unwrap_err().to_string();
        assert!(error.contains(words), "{digest}: {error}");
        assert_eq!((home.counts(), store.list().unwrap().len()), ([0, 0, 0], 0), "{digest}");
    }
    // A connection that breaks for good.
    let broken = |digest: &str, bytes: Vec<u8>| -> Box<dyn Read> {
        let half = bytes.len() / 2;
        let is_layer = digest == compressed;
        let end = std::io::Cursor::new(if is_layer { bytes[..half].to_vec() } else { bytes });
        if is_layer { Box::new(end.chain(Broken)) } else { Box::new(end) }
    };
    let error = pull(&store, &layout, &root, None, &broken).unwrap_err().to_string();
    assert!(error.contains("the line is dead"), "{error}");
    assert_eq!(home.counts(), [0, 0, 0]);
    pull(&store, &layout, &root, None, &honest).unwrap();
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("the line is dead"))
    }
}

#[test]
fn a_foreign_layer_comes_from_where_it_is_and_is_not_sent() {
    let (home, mut layout) = (Home::new(), Layout::default());
    let layers = [archive(&[file("a", "one")])];
    let mut layer = layout.blob("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", gzip(&layers[0]));
    layer["urls"] = json!(["https://far.example/a", "https://far.example/b"]);
    let config = layout.blob("application/vnd.oci.image.config.v1+json", config(&layers));
    let root = layout.document(MANIFEST, json!({ "schemaVersion": 2, "config": config, "layers": [layer] }));
    let store = home.open();
    let arrival = store.arrival(root["digest"].as_str().unwrap().parse().unwrap(), None).unwrap();
    for document in [&root, &config] {
        let digest = document["digest"].as_str().unwrap().parse().unwrap();
        arrival.document(&digest, MANIFEST, &layout.bytes(&digest)).unwrap();
    }
    let Needed::Layers(needed) = arrival.needed().unwrap() else { panic!("all documents are there") };
    assert_eq!(needed[0].urls, ["https://far.example/a", "https://far.example/b"]);
    drop(arrival);
    pull(&store, &layout, &root, None, &honest).unwrap();
    let outgoing = store.outgoing(&"a/b:1".parse().unwrap(), &OutgoingPart::All, None).unwrap();
    assert_eq!(outgoing.blobs().layers().len(), 0);
    assert_eq!(outgoing.manifests(&Default::default())[0].bytes, layout.bytes(&digest_in(&root)));
}

fn digest_in(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().unwrap().parse().unwrap()
}

#[test]
fn what_is_no_image_is_named() {
    let (home, mut layout) = (Home::new(), Layout::default());
    let store = home.open();
    let config = layout.blob("application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let artifact = layout.document(MANIFEST, json!({ "schemaVersion": 2, "config": config, "layers": [] }));
    let layers = [archive(&[file("a", "one")])];
    let mut layer = layout.blob(LAYER, gzip(&layers[0]));
    let config = layout.blob("application/vnd.oci.image.config.v1+json", super::config(&layers));
    let two = layout.document(MANIFEST, json!({ "config": config, "layers": [layer, layer] }));
    let many = layout.document(MANIFEST, json!({ "config": config, "layers": vec![layer.clone(); 501] }));
    layer["size"] = json!(null);
    let sizeless = layout.document(MANIFEST, json!({ "config": config, "layers": [layer] }));
    let empty = layout.index_of(&[]);
    for (root, words) in [
        (artifact, "is an artifact of type application/vnd.oci.empty.v1+json and no image"),
        (two, "has 1 layers by its configuration and 2 by its manifest"),
        (many, "has 501 layers"),
        (sizeless, "does not say how large"),
        (empty, "no matching manifest for"),
    ] {
        let error = pull(&store, &layout, &root, None, &honest).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(home.counts(), [0, 0, 0]);
}
