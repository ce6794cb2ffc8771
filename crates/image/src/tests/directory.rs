//! Packed directories as skopeo and podman write them (`dir:`), made by hand; `judge` has real ones.

use super::*;

/// The files of a directory with one image of these layers.
fn files(layers: &[Vec<u8>]) -> Files {
    let mut files = vec![("version".to_owned(), b"Directory Transport Version: 1.1\n".to_vec())];
    let mut blob = |bytes: Vec<u8>, media_type: &str| {
        let digest = sha256(&bytes);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        files.push((digest.hex().to_owned(), bytes));
        descriptor
    };
    let of_docker = "application/vnd.docker";
    let layers: Vec<_> =
        layers.iter().map(|layer| blob(gzip(layer), &format!("{of_docker}.image.rootfs.diff.tar.gzip"))).collect();
    let config = blob(config(&two_layers()), &format!("{of_docker}.container.image.v1+json"));
    let media_type = format!("{of_docker}.distribution.manifest.v2+json");
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    files.push(("manifest.json".into(), manifest.to_string().into_bytes()));
    files
}

#[test]
fn its_manifest_is_kept_as_it_came() {
    let home = Home::new();
    let store = home.open();
    let files = files(&two_layers());
    let loaded = load(&store, &tarball(&files));
    assert_eq!(loaded.references, []);
    let mut bytes = Vec::new();
    store.save(&[loaded.id.to_string()], &mut bytes).unwrap();
    let saved = targets::files_of(&bytes);
    let manifest = &files.last().unwrap().1;
    assert!(saved[&format!("blobs/sha256/{}", sha256(manifest).hex())] == *manifest);
    store.remove(loaded.id.short(), false, false, &nobody).unwrap();
    assert_eq!(home.counts(), [0, 0, 0]);
}

#[test]
fn one_that_is_not_whole_is_refused() {
    let whole = files(&two_layers());
    for at in 1..whole.len() {
        let mut damaged = whole.clone();
        damaged[at].1.push(b' ');
        // The manifest is named by nothing, so any is as good.
        if damaged[at].0 != "manifest.json" {
            refused(&tarball(&damaged), "is damaged: its bytes have the digest");
        }
        let mut missing = whole.clone();
        missing.remove(at);
        refused(&tarball(&missing), "is missing");
    }
    let mut another = whole.clone();
    another[0].1 = b"Directory Transport Version: 2.0\n".to_vec();
    refused(&tarball(&another), "a directory of skopeo's of version \"2.0\" is not built yet");
    let mut of_docker = whole;
    of_docker.remove(0);
    refused(&tarball(&of_docker), "manifest.json is malformed");
}
