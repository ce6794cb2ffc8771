//! The store as a whole, on a real file system and with a real ledger.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use dozen_ledger::Ledger;
use dozen_model::{Classified, Digest, ErrorKind, ImageId, Reference};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use crate::extract::tests::{archive, directory, file, link};
use crate::pack::{Description, TarWriter};
use crate::*;

mod again;
mod arrival;
mod attested;
mod collection;
mod commit;
mod copy_up;
mod directory;
mod disk;
mod hostile;
mod judge;
mod load;
mod mend;
mod outgoing;
mod recipe;
mod refusal;
mod removal;
mod save;
mod targets;
mod unreadable;

/// A data root of a test's own.
pub(crate) struct Home(pub(crate) tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn open(&self) -> ImageStore {
        let ledger = Ledger::open(&self.0.path().join("state.db"), &MIGRATIONS).unwrap();
        ImageStore::open(self.0.path(), ledger).unwrap()
    }

    fn names(&self, directory: &str) -> Vec<PathBuf> {
        let mut names: Vec<_> =
            fs::read_dir(self.0.path().join(directory)).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    /// Files of configurations and blobs, layers, unfinished things.
    pub(crate) fn counts(&self) -> [usize; 3] {
        ["content/sha256", "layers", "tmp"].map(|directory| self.names(directory).len())
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

fn tarball(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = TarWriter::new(&mut bytes);
    for (name, content) in files {
        let size = content.len() as u64;
        writer.header(&Description::plain(name.as_bytes(), EntryType::Regular, 0o644, size)).unwrap();
        writer.data(content.as_slice(), size).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| sha256(layer)).collect();
    let history: Vec<_> = (0..layers.len()).map(|n| json!({ "created_by": format!("step {n}") })).collect();
    serde_json::to_vec(&json!({
        "architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09.123456789Z",
        "config": {
            "Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": { "a": "b" },
            "Healthcheck": { "Test": ["CMD", "true"] }, "OnBuild": ["RUN x"],
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    }))
    .unwrap()
}

/// Name and content.
type Files = Vec<(String, Vec<u8>)>;
type Pack = fn(&[u8]) -> Vec<u8>;

/// As docker wrote them before 25: the manifest last, layers in directories.
fn docker_files(layers: &[Vec<u8>], tags: &[&str], pack: Pack) -> Files {
    let config = config(layers);
    let name = format!("{}.json", sha256(&config).hex());
    let mut files = vec![(name.clone(), config)];
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let name = format!("{number}/layer.tar");
        files.push((name.clone(), pack(layer)));
        names.push(name);
    }
    let manifest = json!([{ "Config": name, "RepoTags": tags, "Layers": names }]);
    files.push(("manifest.json".into(), serde_json::to_vec(&manifest).unwrap()));
    files
}

fn oci_files(layers: &[Vec<u8>], name: &str, pack: Pack) -> Files {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut blob = |bytes: Vec<u8>, media_type: &str| {
        let digest = sha256(&bytes);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
        descriptor
    };
    let layer_descriptors: Vec<_> =
        layers.iter().map(|layer| blob(pack(layer), "application/vnd.oci.image.layer.v1.tar+gzip")).collect();
    let config = blob(config(layers), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layer_descriptors });
    let mut manifest = blob(serde_json::to_vec(&manifest).unwrap(), "application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    files.push(("index.json".into(), serde_json::to_vec(&index).unwrap()));
    files
}

fn two_layers() -> Vec<Vec<u8>> {
    vec![
        archive(&[
            directory("etc"),
            file("etc/name", "base"),
            file("gone", "x"),
            directory("data"),
            file("data/a", "1"),
        ]),
        archive(&[directory("etc"), file("etc/name", "changed"), file(".wh.gone", "")]),
    ]
}

fn load(store: &ImageStore, bytes: &[u8]) -> Loaded {
    let mut loaded = store.load(bytes, &()).unwrap();
    assert_eq!(loaded.len(), 1);
    loaded.remove(0)
}

fn nobody(_: &ImageId) -> Option<Use> {
    None
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn save(store: &ImageStore, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.save(&[name.to_owned()], &mut bytes).unwrap();
    bytes
}

/// Loads what must fail with this message, and leaves nothing behind.
#[track_caller]
fn refused(bytes: &[u8], want: &str) {
    let home = Home::new();
    let store = home.open();
    let error = store.load(bytes, &()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(want), "{message:?} instead of {want:?}");
    assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotBuilt), "{error:?}");
    assert_eq!((home.counts(), store.list().unwrap().len()), ([0, 0, 0], 0));
}
