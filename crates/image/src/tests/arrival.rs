//! Images piece by piece, as a registry has them: by one that is honest, and by ones that are not.

use std::io::Read;

use super::targets::{LAYER, Layout, MANIFEST};
use super::*;

/// What a registry gives for a blob.
type Give<'a> = &'a dyn Fn(&str, Vec<u8>) -> Box<dyn Read>;

fn honest(_: &str, bytes: Vec<u8>) -> Box<dyn Read> {
    Box::new(std::io::Cursor::new(bytes))
}

impl Layout {
    fn bytes(&self, digest: &Digest) -> Vec<u8> {
        let name = format!("blobs/sha256/{}", digest.hex());
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
    Ok((arrival.install(&names)?, new.len()))
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
fn what_is_no_image_is_named() {
    let (home, mut layout) = (Home::new(), Layout::default());
    let store = home.open();
    let config = layout.blob("application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let artifact = layout.document(MANIFEST, json!({ "schemaVersion": 2, "config": config, "layers": [] }));
    let layers = [archive(&[file("a", "one")])];
    let mut layer = layout.blob(LAYER, gzip(&layers[0]));
    let config = layout.blob("application/vnd.oci.image.config.v1+json", super::config(&layers));
    let two = layout.document(MANIFEST, json!({ "config": config, "layers": [layer, layer] }));
    layer["urls"] = json!(["https://far.example/"]);
    let foreign = layout.document(MANIFEST, json!({ "config": config, "layers": [layer] }));
    let many = layout.document(MANIFEST, json!({ "config": config, "layers": vec![layer.clone(); 501] }));
    layer["urls"] = json!([]);
    layer["size"] = json!(null);
    let sizeless = layout.document(MANIFEST, json!({ "config": config, "layers": [layer] }));
    let empty = layout.index_of(&[]);
    for (root, words) in [
        (artifact, "is no image but an artifact"),
        (two, "has 1 layers by its configuration and 2 by its manifest"),
        (foreign, "is a foreign one"),
        (many, "has 501 layers"),
        (sizeless, "does not say how large"),
        (empty, "no matching manifest for"),
    ] {
        let error = pull(&store, &layout, &root, None, &honest).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(home.counts(), [0, 0, 0]);
}
