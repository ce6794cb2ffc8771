//! The store as a whole, on a real file system and with a real ledger.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use dozen_ledger::Ledger;
use dozen_model::{Classified, Digest, ErrorKind, ImageId, Reference};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use crate::extract::tests::{archive, directory, file, link};
use crate::pack::{Description, TarWriter};
use crate::*;

/// A data root of a test's own.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> ImageStore {
        let ledger = Ledger::open(&self.0.path().join("state.db"), &[MIGRATION, RECIPES]).unwrap();
        ImageStore::open(self.0.path(), ledger).unwrap()
    }

    fn names(&self, directory: &str) -> Vec<PathBuf> {
        let mut names: Vec<_> =
            fs::read_dir(self.0.path().join(directory)).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    /// Files of configurations and blobs, layers, unfinished things.
    fn counts(&self) -> [usize; 3] {
        ["content/sha256", "layers", "tmp"].map(|directory| self.names(directory).len())
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
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

#[test]
fn every_kind_of_archive_loads_to_the_same_image() {
    let layers = two_layers();
    let mut ids = Vec::new();
    for inside in [plain as Pack, gzip, zstd] {
        for outside in [plain as Pack, gzip, zstd] {
            for files in [docker_files(&layers, &["a:1"], inside), oci_files(&layers, "a:1", inside)] {
                let home = Home::new();
                let loaded = load(&home.open(), &outside(&tarball(&files)));
                assert_eq!(loaded.references, [reference("a:1")]);
                assert_eq!(home.counts(), [3, 2, 0]);
                ids.push(loaded.id);
            }
        }
    }
    ids.dedup();
    assert_eq!(ids, [ImageId::new(sha256(&config(&layers)))]);
}

#[test]
fn what_is_saved_loads_again_and_is_the_same_to_the_byte() {
    let (first, second) = (Home::new(), Home::new());
    let (one, two) = (first.open(), second.open());
    let loaded = load(&one, &tarball(&docker_files(&two_layers(), &["a:1", "a:2", "b"], gzip)));
    one.tag(&loaded.id, &reference("localhost:5000/x/y:z")).unwrap();
    let bytes = save(&one, "a");
    let again = load(&two, &bytes);
    assert_eq!((&again.id, again.references.as_slice()), (&loaded.id, &[reference("a:1"), reference("a:2")][..]));
    assert!(save(&two, "a") == bytes, "a second save differs");
    assert_eq!(load(&two, &save(&one, "a:2")).references, [reference("a:2")]);
    assert_eq!(load(&two, &save(&one, loaded.id.short())).references, []);
    // Without manifest.json the same archive is a plain OCI layout.
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        if entry.header().entry_type() == EntryType::Regular && name != "manifest.json" {
            files.push((name, content));
        }
    }
    let third = Home::new();
    let as_oci = load(&third.open(), &tarball(&files));
    assert_eq!((as_oci.id, as_oci.references), (loaded.id, vec![reference("a:1"), reference("a:2")]));
}

#[test]
fn images_are_found_by_every_name_they_have() {
    let home = Home::new();
    let store = home.open();
    let id = load(&store, &tarball(&docker_files(&two_layers(), &["debian:12"], plain))).id;
    let digest = id.to_string();
    for name in [
        "debian:12",
        "docker.io/library/debian:12",
        &digest,
        id.digest().hex(),
        id.short(),
        &digest[..10],
        &format!("debian@{digest}"),
    ] {
        assert_eq!(store.find(name).unwrap().id, id, "{name}");
    }
    let long = "0".repeat(64);
    for (name, message) in [
        ("debian", "No such image: debian:latest"),
        ("nope/nope", "No such image: nope/nope:latest"),
        ("sha256:00", "No such image: sha256:00"),
        (&long, &format!("No such image: {long}")),
    ] {
        let error = store.find(name).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (message, ErrorKind::NotFound));
    }
    assert_eq!(store.find("A:B").unwrap_err().kind(), ErrorKind::Invalid);
    let image = store.find("debian:12").unwrap();
    assert_eq!(image.raw["config"]["Healthcheck"]["Test"][1], "true");
    assert_eq!(image.size_bytes, 13);
    assert_eq!(image.created.unwrap().to_string(), "2024-05-06T07:08:09.123456789Z");
    assert_eq!(
        store.tag(&id, &reference(&format!("x@{digest}"))).unwrap_err().to_string(),
        "refusing to create a tag with a digest reference"
    );
}

#[test]
fn an_open_store_is_what_it_was_and_a_crashs_leftovers_are_gone() {
    let home = Home::new();
    let id = load(&home.open(), &tarball(&docker_files(&two_layers(), &["a"], plain))).id;
    let before = home.counts();
    let root = home.0.path();
    fs::create_dir_all(root.join("tmp/half/l0/d")).unwrap();
    fs::create_dir_all(root.join("layers/abcdefgh/etc")).unwrap();
    fs::write(root.join("content/sha256").join("0".repeat(64)), "x").unwrap();
    let store = home.open();
    assert_eq!(home.counts(), before);
    let image = store.find("a").unwrap();
    assert_eq!((image.id, image.references), (id.clone(), vec![reference("a")]));
    assert_eq!(store.lower_directories(&id).unwrap().len(), 2);
    drop(store);
    // A layer without an image: the crash came between two transactions.
    let ledger = Ledger::open(&root.join("state.db"), &[MIGRATION, RECIPES]).unwrap();
    ledger
        .write(dozen_ledger::Durability::Kill, |c| {
            Ok::<_, dozen_ledger::LedgerError>(c.execute("DELETE FROM image", [])?)
        })
        .unwrap();
    drop(ledger);
    let store = home.open();
    assert_eq!((store.list().unwrap().len(), home.counts()), (0, [0, 0, 0]));
}

#[test]
fn removing_takes_what_nothing_needs_and_no_more() {
    let home = Home::new();
    let store = home.open();
    let layers = two_layers();
    load(&store, &tarball(&docker_files(&layers[..1], &["base"], plain)));
    let id = load(&store, &tarball(&docker_files(&layers, &["app"], plain))).id;
    assert_eq!(home.counts(), [4, 2, 0]);
    let usage = store.disk_usage().unwrap();
    assert_eq!(
        (usage.layers_bytes, usage.images.iter().map(|image| image.shared_bytes).collect::<Vec<_>>()),
        (13, vec![6, 6])
    );
    let removed = store.remove("app", false, false, &nobody).unwrap();
    let second = sha256(&layers[1]).to_string();
    assert_eq!(
        removed,
        [Removal::Untagged("app:latest".into()), Removal::Deleted(id.to_string()), Removal::Deleted(second)]
    );
    assert_eq!(home.counts(), [2, 1, 0]);
    store.remove("base", false, false, &nobody).unwrap();
    assert_eq!((home.counts(), store.list().unwrap().len()), ([0, 0, 0], 0));
    drop(store);
    assert_eq!(home.open().list().unwrap().len(), 0);
}

/// By way of a link an archive's entries come deeper than any path can say, and no entry says so.
#[test]
fn a_layer_deeper_than_a_path_is_removed() {
    let home = Home::new();
    let store = home.open();
    let component = "n".repeat(200);
    let far = vec![component.as_str(); 19].join("/");
    let farther = format!("near/{far}");
    let layer = archive(&[directory(&far), link(EntryType::Symlink, "near", &far), file(&farther, "1")]);
    let bytes = tarball(&docker_files(&[layer], &["deep"], plain));
    let id = load(&store, &bytes).id;
    let volume = tempfile::tempdir().unwrap();
    let error = store.copy_up(&id, Path::new("/"), volume.path()).unwrap_err();
    assert!(error.to_string().contains("copy from the image"), "{error}");
    assert_eq!(fs::read_dir(volume.path()).unwrap().count(), 0);
    store.remove("deep", false, false, &nobody).unwrap();
    assert_eq!(home.counts(), [0, 0, 0]);
    // And as a crash leaves it.
    load(&store, &bytes);
    drop(store);
    let layer = home.names("layers").remove(0);
    fs::rename(&layer, layer.with_file_name("garbage")).unwrap();
    assert_eq!(home.open().list().unwrap().len(), 1);
    assert_eq!(home.names("layers"), [""; 0].map(PathBuf::from));
}

#[test]
fn layers_outlive_their_image_while_a_container_stands_on_them() {
    let home = Home::new();
    let store = home.open();
    let bytes = tarball(&docker_files(&two_layers(), &["a"], plain));
    let id = load(&store, &bytes).id;
    let stopped = |_: &ImageId| Some(Use { container_short: "c0ffee".into(), running: false });
    let error = store.remove("a", false, false, &stopped).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    store.remove("a", true, false, &stopped).unwrap();
    drop(store);
    let store = home.open();
    assert!(store.find("a").is_err() && store.list().unwrap().is_empty());
    assert_eq!(store.lower_directories(&id).unwrap().len(), 2);
    store.collect(&stopped).unwrap();
    assert_eq!(home.counts(), [3, 2, 0]);
    // Loaded again, it is an image again.
    load(&store, &bytes);
    assert_eq!(store.find("a").unwrap().id, id);
    store.remove("a", true, false, &stopped).unwrap();
    store.collect(&nobody).unwrap();
    assert_eq!(home.counts(), [0, 0, 0]);
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

#[test]
fn damaged_and_hostile_archives_are_refused_and_leave_nothing() {
    let layers = two_layers();
    let docker = || docker_files(&layers, &["a"], plain);
    let with = |change: &dyn Fn(&mut Files)| {
        let mut files = docker();
        change(&mut files);
        tarball(&files)
    };
    refused(b"this is no archive at all", "it is no tar archive");
    refused(&[b'x'; 2048], "it is no tar archive");
    refused(&gzip(&[b'x'; 2048]), "it is no tar archive");
    refused(b"", "it is empty");
    refused(&[0; 1024], "neither manifest.json");
    refused(&tarball(&[]), "neither manifest.json");
    refused(&tarball(&[("manifest.json".into(), b"{".to_vec())]), "manifest.json is malformed");
    refused(&tarball(&[("manifest.json".into(), b"[]".to_vec())]), "holds no image");
    refused(&with(&|files| drop(files.remove(0))), "is missing");
    refused(&with(&|files| drop(files.remove(1))), "0/layer.tar: it is missing");
    refused(&with(&|files| files[1].1 = archive(&[file("other", "")])), "the configuration wants sha256:");
    refused(&with(&|files| files[1].1.truncate(700)), "it is cut short");
    refused(&with(&|files| files[1].1 = archive(&[file("../out", "")])), "leads out");
    refused(&with(&|files| files[1].1 = b"BZh91AY".to_vec()), "bzip2 compression is not built yet");
    refused(&with(&|files| files[0].1.push(b' ')), "is damaged");
    refused(&with(&|files| files[0].0 = "c".into()), "is missing");
    refused(&with(&|files| files.push(("../out".into(), vec![]))), "leads out");
    refused(&with(&|files| files.push(("manifest.json".into(), vec![b' '; 5 << 20]))), "larger than");
    let mut gz = gzip(&tarball(&docker()));
    gz.truncate(gz.len() / 2);
    refused(&gz, "damaged or cut short");
    let cut = tarball(&docker_files(&layers, &["a"], gzip));
    for length in [600, 1100, 1600, 3000] {
        refused(&cut[..length], "");
    }
    let tags = |tag: &str| {
        let mut files = docker();
        let manifest = String::from_utf8(files[3].1.clone()).unwrap().replace("\"a\"", &json!(tag).to_string());
        files[3].1 = manifest.into_bytes();
        tarball(&files)
    };
    refused(&tags("UPPER"), "names an image wrongly");
    refused(&tags(&format!("a@{}", sha256(b""))), "by a digest");
    let mut windows: Value = serde_json::from_slice(&config(&[])).unwrap();
    windows["os"] = json!("windows");
    let manifest = json!([{ "Config": "c", "RepoTags": null, "Layers": null }]);
    refused(
        &tarball(&[
            ("c".into(), serde_json::to_vec(&windows).unwrap()),
            ("manifest.json".into(), serde_json::to_vec(&manifest).unwrap()),
        ]),
        "image for windows",
    );
}

/// Whatever an archive says a thousand times is in memory once.
#[test]
fn one_configuration_with_many_entries_is_one_image() {
    let home = Home::new();
    let store = home.open();
    let mut files = docker_files(&two_layers(), &[], plain);
    let entries: Vec<Value> = serde_json::from_slice(&files[3].1).unwrap();
    let mut entries = vec![entries[0].clone(); 1000];
    for (number, entry) in entries.iter_mut().enumerate() {
        entry["RepoTags"] = json!([format!("a:{number}")]);
    }
    files[3].1 = serde_json::to_vec(&entries).unwrap();
    assert_eq!(load(&store, &tarball(&files)).references.len(), 1000);
    assert_eq!((home.counts(), store.list().unwrap()[0].references.len()), ([3, 2, 0], 1000));
}

#[test]
fn what_an_archive_may_take_of_memory_is_bounded() {
    let large = |number: usize| {
        let mut config = config(&[]);
        config.resize((4 << 20) - number, b' ');
        (format!("c{number}"), config)
    };
    let mut files: Files = (0..9).map(large).collect();
    let entries: Vec<_> = files.iter().map(|(name, _)| json!({ "Config": name })).collect();
    files.push(("manifest.json".into(), serde_json::to_vec(&entries).unwrap()));
    refused(&tarball(&files), "configurations of its images are larger than 33554432 bytes together");

    let many = json!([{ "Config": "c0", "Layers": vec!["l"; 501] }]);
    refused(&tarball(&[large(0), ("manifest.json".into(), serde_json::to_vec(&many).unwrap())]), "has 501 layers");

    let links = |count: usize, length: usize| {
        let mut bytes = Vec::new();
        let mut writer = TarWriter::new(&mut bytes);
        let link = vec![b'l'; length];
        for number in 0..count {
            let name = format!("{number}");
            let plain = Description::plain(name.as_bytes(), EntryType::Symlink, 0o777, 0);
            writer.header(&Description { link: &link, ..plain }).unwrap();
        }
        writer.finish().unwrap();
        bytes
    };
    refused(&links(1, 4096), "its target is longer than 4095 bytes");
    refused(&links(4200, 4000), "the names of its files are longer than 16777216 bytes");
}

#[test]
fn damaged_oci_layouts_are_refused() {
    let layers = two_layers();
    let with = |at: usize, bytes: &[u8]| {
        let mut files = oci_files(&layers, "a:1", gzip);
        files[at].1 = bytes.to_vec();
        tarball(&files)
    };
    for at in 1..5 {
        refused(&with(at, b"{}"), "is damaged: its bytes have the digest");
    }
    refused(&with(0, br#"{"imageLayoutVersion":"2.0.0"}"#), "OCI layout 2.0.0 is not built yet");
    refused(&with(5, br#"{"manifests":[{"digest":"sha256:../../x"}]}"#), "index.json is malformed");
    let absent = json!({ "manifests": [{ "digest": sha256(b"absent") }] });
    refused(&with(5, &serde_json::to_vec(&absent).unwrap()), "is missing");
}

#[test]
fn a_bomb_is_refused() {
    // 1.1 GiB of zeros in one file; zstd makes it a few ten kilobytes.
    let size = 1_150_000_000u64;
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut writer = TarWriter::new(&mut encoder);
    writer.header(&Description::plain(b"zeros", EntryType::Regular, 0o644, size)).unwrap();
    writer.data(std::io::empty(), size).unwrap();
    let bomb = encoder.finish().unwrap();
    let manifest = json!([{ "Config": "c", "Layers": ["l"] }]);
    let files = [
        ("c".to_owned(), config(&[vec![]])),
        ("l".to_owned(), bomb),
        ("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()),
    ];
    refused(&tarball(&files), "far more than its archive explains");
}

#[test]
fn a_hundred_and_twenty_layers_fit_into_one_page() {
    let home = Home::new();
    let store = home.open();
    let names: Vec<_> = (0..120).map(|number| format!("f{number}")).collect();
    let layers: Vec<_> = names.iter().map(|name| archive(&[file(name, name)])).collect();
    let id = load(&store, &tarball(&docker_files(&layers, &["deep"], zstd))).id;
    let lower = store.lower_directories(&id).unwrap();
    assert_eq!(lower.len(), 120);
    assert!(lower[0].join("f119").exists() && lower[119].join("f0").exists());
    let options: usize = lower.iter().map(|path| path.file_name().unwrap().len() + 1).sum();
    assert!(options < 2048, "{options}");
    let volume = tempfile::tempdir().unwrap();
    assert!(store.copy_up(&id, Path::new("/"), volume.path()).unwrap());
    assert_eq!(fs::read_dir(volume.path()).unwrap().count(), 120);
}

#[test]
fn a_layer_that_hides_everything_is_the_last_of_the_stack() {
    let home = Home::new();
    let store = home.open();
    let layers = [
        archive(&[file("old", "")]),
        archive(&[file(".wh..wh..opq", ""), file("new", "")]),
        archive(&[file("top", "")]),
    ];
    let id = load(&store, &tarball(&docker_files(&layers, &["a"], plain))).id;
    let lower = store.lower_directories(&id).unwrap();
    assert_eq!(lower.len(), 2);
    assert!(lower[0].join("top").exists() && lower[1].join("new").exists());
    drop(store);
    assert_eq!(home.open().lower_directories(&id).unwrap().len(), 2);
}

fn commit(store: &ImageStore, base: &ImageId, upper: &Path, name: Option<&str>) -> Result<ImageId, ImageError> {
    let mut config = store.find(&base.to_string()).unwrap().config.config().clone().unwrap();
    config.set_cmd(Some(vec!["new".into()]));
    let request = CommitRequest {
        base: base.clone(),
        upper,
        config,
        author: Some("me".into()),
        comment: Some("why".into()),
        created_by: "/bin/sh".into(),
        reference: name.map(reference),
    };
    Ok(store.commit(request, &|| true)?.expect("it is whole"))
}

/// An overlay's upper directory, made through a real overlay in a mount namespace of the child's own.
fn changed(store: &ImageStore, id: &ImageId, script: &str) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for name in ["upper", "work", "merged"] {
        fs::create_dir(place.path().join(name)).unwrap();
    }
    let lower: Vec<_> = store.lower_directories(id).unwrap().iter().map(|path| path.display().to_string()).collect();
    let script = format!(
        "set -e; cd {}; mount -t overlay overlay -o lowerdir={},upperdir=upper,workdir=work,redirect_dir=off,metacopy=off merged; \
         cd merged; {script}",
        place.path().display(),
        lower.join(":")
    );
    let status = Command::new("unshare").args(["--mount", "sh", "-c", &script]).status().unwrap();
    assert!(status.success());
    place
}

#[test]
fn a_commit_is_what_the_container_saw() {
    let home = Home::new();
    let store = home.open();
    let base = load(&store, &tarball(&docker_files(&two_layers(), &["base"], gzip))).id;
    let place = changed(
        &store,
        &base,
        "rm etc/name; rm -r data; mkdir data; echo 2 > data/b; chown 7:8 data/b; chmod 4755 data/b; ln data/b data/c; ln -s b data/d",
    );
    let id = commit(&store, &base, &place.path().join("upper"), Some("made")).unwrap();
    let image = store.find("made").unwrap();
    assert_eq!((&image.id, image.parent.as_ref(), image.diff_ids.len()), (&id, Some(&base), 3));
    assert_eq!(image.raw["config"]["Healthcheck"]["Test"][0], "CMD");
    assert_eq!(image.raw["config"]["Cmd"], json!(["new"]));
    assert_eq!(image.config.author().as_deref(), Some("me"));
    // Somewhere else, through save and load, the same tree.
    let other = Home::new();
    let there = other.open();
    assert_eq!(load(&there, &save(&store, "made")).id, id);
    for store in [&store, &there] {
        let volume = tempfile::tempdir().unwrap();
        assert!(store.copy_up(&id, Path::new("/"), volume.path()).unwrap());
        let root = volume.path();
        assert!(!root.join("etc/name").exists() && root.join("etc").exists() && !root.join("gone").exists());
        assert!(!root.join("data/a").exists());
        let made = fs::metadata(root.join("data/b")).unwrap();
        assert_eq!((made.mode() & 0o7777, made.uid(), made.gid(), made.nlink()), (0o4755, 7, 8, 2));
        assert_eq!(fs::metadata(root.join("data/c")).unwrap().ino(), made.ino());
        assert_eq!(fs::read_link(root.join("data/d")).unwrap(), Path::new("b"));
    }
    let history = store.history("made").unwrap();
    assert_eq!(
        history.iter().map(|step| step.created_by.as_str()).collect::<Vec<_>>(),
        ["/bin/sh", "step 1", "step 0"]
    );
    assert_eq!(history[0].comment, "why");
    assert_eq!(history.iter().map(|step| step.id.clone()).collect::<Vec<_>>(), [Some(id), Some(base), None]);
    assert_eq!(
        (history[0].tags.as_slice(), history[1].tags.as_slice()),
        (&["made:latest".to_owned()][..], &["base:latest".to_owned()][..])
    );
    // The parent has a child now.
    let error = store.remove("base", true, false, &nobody).map(|removed| removed.len());
    assert_eq!(error.unwrap(), 1, "only its name goes");
    store.remove("made", false, false, &nobody).unwrap();
    assert_eq!((home.counts(), store.list().unwrap().len()), ([0, 0, 0], 0));
}

#[test]
fn a_commit_without_a_change_adds_no_layer() {
    let home = Home::new();
    let store = home.open();
    let base = load(&store, &tarball(&docker_files(&two_layers(), &["base"], plain))).id;
    let upper = tempfile::tempdir().unwrap();
    fs::set_permissions(upper.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let id = commit(&store, &base, upper.path(), None).unwrap();
    let image = store.find(&id.to_string()).unwrap();
    assert_eq!((image.diff_ids.len(), home.counts()), (2, [4, 2, 0]));
    assert_eq!(store.history(&id.to_string()).unwrap()[0].size_bytes, 0);
}

#[test]
fn a_commit_that_cannot_be_leaves_nothing() {
    let home = Home::new();
    let store = home.open();
    let base = load(&store, &tarball(&docker_files(&two_layers(), &["base"], plain))).id;
    let upper = tempfile::tempdir().unwrap();
    fs::write(upper.path().join(".wh.x"), "").unwrap();
    let error = commit(&store, &base, upper.path(), Some("made")).unwrap_err();
    assert!(error.to_string().contains(".wh.x"), "{error}");
    assert_eq!((home.counts(), store.list().unwrap().len()), ([3, 2, 0], 1));
}

#[test]
fn a_container_that_is_removed_meanwhile_makes_no_image() {
    let home = Home::new();
    let store = home.open();
    let base = load(&store, &tarball(&docker_files(&two_layers(), &["base"], plain))).id;
    let upper = tempfile::tempdir().unwrap();
    let request = || CommitRequest {
        base: base.clone(),
        upper: upper.path(),
        config: ImageConfig::default(),
        author: None,
        comment: None,
        created_by: String::new(),
        reference: Some(reference("half")),
    };
    fs::write(upper.path().join("half"), "").unwrap();
    assert!(store.commit(request(), &|| false).unwrap().is_none());
    // Nor does it matter that what was left of it could not be read.
    fs::remove_dir_all(upper.path()).unwrap();
    assert!(store.commit(request(), &|| false).unwrap().is_none());
    assert_eq!((home.counts(), store.list().unwrap().len()), ([3, 2, 0], 1));
}

#[test]
fn a_volume_is_filled_from_the_image_and_links_stay_inside() {
    let home = Home::new();
    let store = home.open();
    let mut owned = directory("var/lib/app");
    (owned.0.uid, owned.0.gid, owned.0.mode) = (5, 6, 0o750);
    let layers = [
        archive(&[owned, file("var/lib/app/a", "1"), link(EntryType::Symlink, "data", "/var/lib/app")]),
        archive(&[
            file("var/lib/app/b", "2"),
            link(EntryType::Symlink, "out", "../../../../../../../../tmp"),
            link(EntryType::Symlink, "var/lib/app/passwd", "/etc/passwd"),
        ]),
    ];
    let mut layers = layers.to_vec();
    // The upper layer's entry of the directory, as real ones have it.
    let mut owned = directory("var/lib/app");
    (owned.0.uid, owned.0.gid, owned.0.mode) = (5, 6, 0o750);
    layers.push(archive(&[owned]));
    let id = load(&store, &tarball(&docker_files(&layers, &["a"], plain))).id;
    let volume = tempfile::tempdir().unwrap();
    for absent in ["/nope", "/var/lib/app/a", "/out"] {
        assert!(!store.copy_up(&id, Path::new(absent), volume.path()).unwrap(), "{absent}");
    }
    assert!(store.copy_up(&id, Path::new("/data"), volume.path()).unwrap());
    assert_eq!(fs::read_to_string(volume.path().join("a")).unwrap(), "1");
    assert_eq!(fs::read_to_string(volume.path().join("b")).unwrap(), "2");
    assert_eq!(fs::read_link(volume.path().join("passwd")).unwrap(), Path::new("/etc/passwd"));
    let top = fs::metadata(volume.path()).unwrap();
    assert_eq!((top.uid(), top.gid(), top.mode() & 0o7777), (5, 6, 0o750));
}

#[test]
fn two_loads_at_once_share_their_layers() {
    let home = Home::new();
    let store = home.open();
    let bytes = tarball(&docker_files(&two_layers(), &["a"], gzip));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| load(&store, &bytes));
        }
    });
    assert_eq!((home.counts(), store.list().unwrap().len()), ([3, 2, 0], 1));
}

/// A file system of a test's own, in memory and in no mount table: it goes with its descriptor.
fn small_disk(size: &str) -> std::os::fd::OwnedFd {
    use rustix::mount::*;
    let disk = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(&disk, "size", size).unwrap();
    fsconfig_create(&disk).unwrap();
    fsmount(&disk, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

fn count_files(root: &Path) -> usize {
    ["content/sha256", "layers", "tmp"].iter().map(|name| fs::read_dir(root.join(name)).unwrap().count()).sum()
}

#[test]
fn a_full_disk_and_a_read_only_one_leave_nothing() {
    use std::os::fd::AsRawFd;
    let ledger_home = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&ledger_home.path().join("state.db"), &[MIGRATION, RECIPES]).unwrap();
    let disk = small_disk("2m");
    let root = PathBuf::from(format!("/proc/self/fd/{}", disk.as_raw_fd()));
    let store = ImageStore::open(&root, ledger).unwrap();
    let big = |bytes: usize| {
        let content = "x".repeat(bytes);
        tarball(&docker_files(&[archive(&[file("big", &content)])], &["a"], gzip))
    };
    // The blob is small and fits; what it unpacks to does not.
    let full = store.load(big(3 << 20).as_slice(), &()).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Exhausted, "{full:?}");
    assert!(full.to_string().contains("\"big\"") && full.hint().is_some(), "{full}");
    assert_eq!((count_files(&root), store.list().unwrap().len()), (0, 0));
    // And now the archive itself does not fit.
    let plain = tarball(&docker_files(&[archive(&[file("big", &"x".repeat(3 << 20))])], &["a"], plain));
    assert_eq!(store.load(plain.as_slice(), &()).unwrap_err().kind(), ErrorKind::Exhausted);
    assert_eq!(count_files(&root), 0);
    load(&store, &big(100));
    let config = rustix::mount::fspick(&disk, "", rustix::mount::FsPickFlags::FSPICK_EMPTY_PATH).unwrap();
    rustix::mount::fsconfig_set_flag(&config, "ro").unwrap();
    rustix::mount::fsconfig_reconfigure(&config).unwrap();
    let read_only = store.load(big(200).as_slice(), &()).unwrap_err();
    assert_eq!(read_only.kind(), ErrorKind::Exhausted, "{read_only:?}");
    assert_eq!((count_files(&root), store.list().unwrap().len()), (3, 1));
}

#[test]
fn a_damaged_store_says_so_and_opens() {
    let home = Home::new();
    let store = home.open();
    let layers = two_layers();
    let id = load(&store, &tarball(&docker_files(&layers, &["a"], plain))).id;
    let recipe = home.0.path().join("content/sha256").join(format!("{}.recipe", sha256(&layers[0]).hex()));
    let lower = store.lower_directories(&id).unwrap();
    for file in [recipe, lower[0].join("etc/name"), lower[1].join("data/a")] {
        let whole = fs::read(&file).unwrap();
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        for bytes in [damaged.as_slice(), &whole[..whole.len() - 1], b""] {
            fs::write(&file, bytes).unwrap();
            let error = store.save(&["a".into()], &mut std::io::sink()).unwrap_err();
            assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
        }
        fs::remove_file(&file).unwrap();
        store.save(&["a".into()], &mut std::io::sink()).unwrap_err();
        fs::write(&file, whole).unwrap();
        store.save(&["a".into()], &mut std::io::sink()).unwrap();
    }
    fs::write(home.0.path().join("content/sha256").join(id.digest().hex()), "{}").unwrap();
    drop(store);
    assert_eq!((home.open().list().unwrap().len(), home.counts()), (0, [0, 0, 0]));
}

/// Bytes that no compressor makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn noisy_layer(length: usize) -> Vec<u8> {
    let noise = noise(length);
    let header = Description::plain(b"noise", EntryType::Regular, 0o644, length as u64);
    archive(&[directory("etc"), file("etc/name", "base"), (header, &noise)])
}

#[test]
fn a_plain_layer_is_kept_once_and_saved_as_it_was() {
    let home = Home::new();
    let store = home.open();
    let layer = noisy_layer(1 << 20);
    let loaded = load(&store, &tarball(&docker_files(std::slice::from_ref(&layer), &["a"], plain)));
    let usage = store.disk_usage().unwrap();
    assert!(usage.layers_bytes > 1 << 20 && usage.blobs_bytes < 1000, "{usage:?}");
    let on_disk: u64 = home.names("content/sha256").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(on_disk < 2000, "{on_disk}");
    let position = |archive: &[u8]| archive.windows(layer.len()).position(|part| part == layer);
    assert!(position(&save(&store, "a")).is_some());
    // So is what a commit packs, and what another engine of the same store saves.
    let place = changed(&store, &loaded.id, "cp noise again; rm etc/name");
    commit(&store, &loaded.id, &place.path().join("upper"), Some("made")).unwrap();
    assert!(store.disk_usage().unwrap().blobs_bytes < 2000);
    let saved = save(&store, "made");
    drop(store);
    let store = home.open();
    assert!(save(&store, "made") == saved && position(&saved).is_some());
    assert_eq!(load(&Home::new().open(), &saved).id, store.find("made").unwrap().id);
}

#[test]
fn a_compressed_layer_and_one_that_replaces_its_own_entries_keep_their_blobs() {
    let home = Home::new();
    let store = home.open();
    let twice =
        archive(&[file("a/f", "one"), file("b", "two"), file("b", "three"), link(EntryType::Symlink, "a", "x")]);
    let layers = [noisy_layer(5000), twice.clone()];
    let compressed = gzip(&layers[0]);
    let mut files = docker_files(&layers, &["a"], plain);
    files[1].1 = compressed.clone();
    load(&store, &tarball(&files));
    let content = home.0.path().join("content/sha256");
    for blob in [&compressed, &twice] {
        assert!(fs::read(content.join(sha256(blob).hex())).unwrap() == **blob);
    }
    assert_eq!(store.disk_usage().unwrap().blobs_bytes, (compressed.len() + twice.len()) as u64);
    let saved = save(&store, "a");
    assert!(saved.windows(twice.len()).any(|part| part == twice));
    store.remove("a", false, false, &nobody).unwrap();
    assert_eq!(home.counts(), [0, 0, 0]);
}

#[test]
fn a_store_from_before_recipes_goes_on_as_it_is() {
    let new = Home::new();
    let layer = noisy_layer(5000);
    let image = tarball(&docker_files(std::slice::from_ref(&layer), &["a"], plain));
    let id = load(&new.open(), &image).id;
    // What the engine of that time would have made of it.
    let old = Home::new();
    let [content, layers] = ["content/sha256", "layers"].map(|name| old.0.path().join(name));
    fs::create_dir_all(&content).unwrap();
    fs::create_dir_all(&layers).unwrap();
    let blob = sha256(&layer);
    fs::write(content.join(blob.hex()), &layer).unwrap();
    fs::copy(new.0.path().join("content/sha256").join(id.digest().hex()), content.join(id.digest().hex())).unwrap();
    fs::rename(&new.names("layers")[0], layers.join("abcdefgh")).unwrap();
    let ledger = Ledger::open(&old.0.path().join("state.db"), &[MIGRATION]).unwrap();
    let sql = format!(
        "INSERT INTO layer VALUES ('{blob}', 'abcdefgh', '{blob}', 'application/vnd.oci.image.layer.v1.tar', {0}, {0}, 5004, 0);
         INSERT INTO image VALUES ('{id}', NULL, 0);
         INSERT INTO image_layer VALUES ('{id}', 0, '{blob}');
         INSERT INTO image_reference VALUES ('docker.io/library/a:latest', '{id}');",
        layer.len()
    );
    let written = ledger.write(dozen_ledger::Durability::Power, move |connection| {
        Ok::<_, dozen_ledger::LedgerError>(connection.execute_batch(&sql)?)
    });
    written.unwrap();
    drop(ledger);
    let store = old.open();
    assert_eq!((old.counts(), store.disk_usage().unwrap().blobs_bytes), ([2, 1, 0], layer.len() as u64));
    let saved = save(&store, "a");
    assert!(saved.windows(layer.len()).any(|part| part == layer));
    // Loaded again, it is there already.
    load(&store, &image);
    assert_eq!(old.counts(), [2, 1, 0]);
    store.remove("a", false, false, &nobody).unwrap();
    assert_eq!(old.counts(), [0, 0, 0]);
}

/// What a load says of layers.
#[derive(Default)]
struct Said(std::sync::Mutex<std::collections::BTreeSet<(&'static str, String)>>);

impl Progress for Said {
    fn report(&self, event: ProgressEvent<'_>) {
        let (what, layer) = match event {
            ProgressEvent::Unpacking { layer, .. } => ("unpacking", layer),
            ProgressEvent::Exists { layer } => ("exists", layer),
            ProgressEvent::Reading { .. } => return,
        };
        self.0.lock().unwrap().insert((what, layer.to_string()));
    }
}

#[test]
fn what_is_there_already_is_not_unpacked_and_need_not_come() {
    let layers = two_layers();
    for pack in [plain as Pack, gzip] {
        let home = Home::new();
        let store = home.open();
        let all = oci_files(&layers, "a:1", pack);
        let bytes = tarball(&all);
        let said = |bytes: &[u8]| {
            let said = Said::default();
            let loaded = store.load(bytes, &said).unwrap();
            assert_eq!(loaded.len(), 1);
            let said = said.0.into_inner().unwrap();
            said.into_iter().map(|(what, _)| what).collect::<Vec<_>>()
        };
        assert_eq!(said(&bytes), ["unpacking", "unpacking"]);
        assert_eq!(said(&bytes), ["exists", "exists"]);
        let (of_layers, rest): (Files, Files) =
            all.into_iter().partition(|(_, bytes)| layers.iter().any(|layer| pack(layer) == *bytes));
        assert_eq!(of_layers.len(), 2);
        assert_eq!(said(&tarball(&rest)), ["exists", "exists"]);
        // Which goes wrong where the store has not got them.
        refused(&tarball(&rest), "it is missing in the archive");
        assert_eq!(home.counts(), [3, 2, 0]);
    }
}

#[test]
fn what_the_manifest_does_not_name_does_not_matter() {
    let mut files = docker_files(&two_layers(), &["a"], plain);
    files.insert(0, ("hostile.tar".into(), archive(&[file("../out", "")])));
    files.insert(0, ("other".into(), noisy_layer(5000)));
    files.insert(0, ("cut".into(), noisy_layer(5000)[..3000].to_vec()));
    let home = Home::new();
    load(&home.open(), &tarball(&files));
    assert_eq!(home.counts(), [3, 2, 0]);
    // Nor can a layer be a document.
    let mut files = docker_files(&two_layers(), &["a"], plain);
    files.push(("manifest.json".into(), noisy_layer(10)));
    refused(&tarball(&files), "manifest.json is a layer");
}

/// skopeo is another reader and writer of these formats; where it is missing the test says so.
#[test]
fn skopeo_reads_what_we_save_and_we_read_what_it_writes() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        eprintln!("skipped: skopeo is not installed");
        return;
    }
    let home = Home::new();
    let store = home.open();
    let id = load(&store, &tarball(&docker_files(&two_layers(), &["debian:12"], zstd))).id;
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    fs::write(path("ours.tar"), save(&store, "debian:12")).unwrap();
    let skopeo = |arguments: &[&str]| {
        let output = Command::new("skopeo").arg("--insecure-policy").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let ours = format!("docker-archive:{}:debian:12", path("ours.tar"));
    let seen = skopeo(&["inspect", "--raw", "--config", &ours]);
    assert_eq!(ImageId::new(sha256(&seen)), id);
    for (target, file) in [
        (format!("oci-archive:{}:docker.io/library/debian:12", path("oci.tar")), "oci.tar"),
        (format!("docker-archive:{}:debian:12", path("docker.tar")), "docker.tar"),
    ] {
        skopeo(&["copy", &ours, &target]);
        let other = Home::new();
        let there = other.open();
        let loaded = load(&there, &fs::read(path(file)).unwrap());
        assert_eq!(loaded.references, [reference("debian:12")], "{file}");
        // On the way to OCI skopeo drops what only Docker's configurations have, and the id changes with it.
        assert_eq!(loaded.id == id, file == "docker.tar");
        let layers = |store: &ImageStore| store.find("debian:12").unwrap().diff_ids;
        assert_eq!(layers(&there), layers(&store), "{file}");
    }
    // And the OCI half of what we write.
    fs::create_dir(path("layout")).unwrap();
    assert!(Command::new("tar").args(["-xf", &path("ours.tar"), "-C", &path("layout")]).status().unwrap().success());
    let seen = skopeo(&["inspect", "--raw", "--config", &format!("oci:{}:12", path("layout"))]);
    assert_eq!(ImageId::new(sha256(&seen)), id);
}
