//! Artifacts in a store, on a real file system.

use std::collections::BTreeMap;
use std::fs;

use dozen_model::{Classified, ErrorKind, Reference};
use serde_json::{Value, json};
use tar::EntryType;

use super::*;
use crate::pack::{Description, TarWriter};
use crate::tests::{Home, sha256};

const CREATED: &str = "2024-05-06T07:08:09Z";

fn addition(name: &str) -> ArtifactAddition {
    ArtifactAddition {
        reference: name.parse().unwrap(),
        to: AdditionTo::New {
            artifact_type: Some("application/vnd.example.notes".into()),
            subject: None,
            created: CREATED.parse().unwrap(),
            replaces: false,
        },
        file_type: None,
        annotations: BTreeMap::new(),
    }
}

fn add(store: &ImageStore, addition: &ArtifactAddition, title: &str, bytes: &str) -> Result<Artifact, ImageError> {
    let title = title.to_owned();
    store.add_artifact(addition, AddedFiles::One { title, bytes: &mut bytes.as_bytes() })
}

fn archive(files: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = TarWriter::new(&mut bytes);
    for (name, kind, content) in files {
        writer.header(&Description::plain(name.as_bytes(), *kind, 0o644, content.len() as u64)).unwrap();
        writer.data(content.as_bytes(), content.len() as u64).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

/// Names and contents of what is given.
fn extracted(store: &ImageStore, name: &str, wanted: &Selection) -> Result<Vec<(String, String)>, ImageError> {
    let mut archive = Vec::new();
    store.outgoing_artifact(name)?.write_archive(wanted, true, &mut archive)?;
    let mut reader = crate::tarball::TarReader::new(archive.as_slice());
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let text = std::io::read_to_string(reader.data()).unwrap();
        found.push((String::from_utf8(entry.path).unwrap(), text));
    }
    Ok(found)
}

#[test]
fn files_become_an_artifact_and_come_back() {
    let home = Home::new();
    let store = home.open();
    let files = archive(&[("a.txt", EntryType::Regular, "one"), ("b", EntryType::Regular, "\0two")]);
    let mut wanted = addition("r.example/notes:1");
    wanted.annotations.insert("date".into(), "today".into());
    let made = store.add_artifact(&wanted, AddedFiles::Archive(&mut files.as_slice())).unwrap();
    let manifest: Value = serde_json::from_slice(&store.artifact_manifest(&made).unwrap()).unwrap();
    let layer = |kind: &str, title: &str, bytes: &[u8]| {
        json!({ "mediaType": kind, "digest": sha256(bytes), "size": bytes.len(),
                "annotations": { "date": "today", "org.opencontainers.image.title": title } })
    };
    let want = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.notes",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2, "data": "e30=" },
        "layers": [layer("text/plain; charset=utf-8", "a.txt", b"one"), layer("application/octet-stream", "b", b"\0two")],
        "annotations": { "org.opencontainers.image.created": CREATED },
    });
    assert_eq!(manifest, want);
    assert_eq!(made.files_bytes, 7);
    // Manifest, configuration, two files.
    assert_eq!(home.counts(), [4, 0, 0]);
    // The next engine knows it, and all of it is somebody's.
    drop(store);
    let store = home.open();
    assert_eq!((store.artifacts(), home.counts()), (vec![made.clone()], [4, 0, 0]));
    for name in ["r.example/notes:1", made.digest.as_str(), &made.digest.hex()[..5]] {
        assert_eq!(store.artifact(name).unwrap(), made, "{name}");
    }
    let both = [("a.txt".to_owned(), "one".to_owned()), ("b".to_owned(), "\0two".to_owned())];
    assert_eq!(extracted(&store, "r.example/notes:1", &Selection::All).unwrap(), both);
    let one = Selection::Title("b".into());
    assert_eq!(extracted(&store, "r.example/notes:1", &one).unwrap(), both[1..]);
    let by_digest = extracted(&store, "r.example/notes:1", &Selection::Digest(sha256(b"one"))).unwrap();
    assert_eq!(by_digest, [(format!("sha256-{}", sha256(b"one").hex()), "one".to_owned())]);
    for (wanted, words) in [
        (Selection::Title("c".into()), "no blob with the title \"c\"".to_owned()),
        (Selection::Digest(sha256(b"c")), format!("no blob with the digest \"{}\"", sha256(b"c"))),
    ] {
        assert_eq!(extracted(&store, "r.example/notes:1", &wanted).unwrap_err().to_string(), words);
    }
    store.remove_artifact(&made.digest.hex()[..12]).unwrap();
    assert_eq!((store.artifacts(), home.counts()), (vec![], [0, 0, 0]));
    let gone = store.artifact("r.example/notes:1").unwrap_err();
    assert_eq!(gone.to_string(), "r.example/notes:1: artifact does not exist");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[test]
fn a_name_is_taken_replaced_or_added_to() {
    let home = Home::new();
    let store = home.open();
    let first = add(&store, &addition("notes"), "a", "one").unwrap();
    let taken = add(&store, &addition("notes"), "b", "two").unwrap_err();
    assert_eq!(
        (taken.to_string(), taken.kind()),
        ("notes:latest: artifact already exists".into(), ErrorKind::Conflict)
    );
    let more = ArtifactAddition { to: AdditionTo::Existing, ..addition("notes") };
    let second = add(&store, &more, "b", "two").unwrap();
    assert_ne!(first.digest, second.digest);
    let both = [("a".to_owned(), "one".to_owned()), ("b".to_owned(), "two".to_owned())];
    assert_eq!(extracted(&store, "notes", &Selection::All).unwrap(), both);
    // The manifest before it has gone.
    assert_eq!(home.counts(), [4, 0, 0]);
    let twice = add(&store, &more, "a", "three").unwrap_err();
    assert_eq!(twice.to_string(), "conflict: a: file already exists in artifact");
    assert_eq!(home.counts(), [4, 0, 0]);
    let missing = add(&store, &ArtifactAddition { to: AdditionTo::Existing, ..addition("others") }, "a", "one");
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    let mut anew = addition("notes");
    let AdditionTo::New { replaces, .. } = &mut anew.to else { unreachable!() };
    *replaces = true;
    add(&store, &anew, "c", "three").unwrap();
    assert_eq!(extracted(&store, "notes", &Selection::All).unwrap(), [("c".to_owned(), "three".to_owned())]);
    assert_eq!(home.counts(), [3, 0, 0]);
}

#[test]
fn what_two_have_in_common_stays_with_the_other() {
    let home = Home::new();
    let store = home.open();
    add(&store, &addition("a"), "one", "same").unwrap();
    add(&store, &addition("b"), "two", "same").unwrap();
    // Two manifests, one configuration, one file.
    assert_eq!(home.counts(), [4, 0, 0]);
    store.remove_artifact("a").unwrap();
    assert_eq!(home.counts(), [3, 0, 0]);
    assert_eq!(extracted(&store, "b", &Selection::All).unwrap(), [("two".to_owned(), "same".to_owned())]);
    drop(store);
    assert_eq!(extracted(&home.open(), "b", &Selection::All).unwrap().len(), 1);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let home = Home::new();
    let store = home.open();
    for title in ["../up", "/etc/passwd", "a/b", "..", ".", "", "a\nb", &"x".repeat(256)] {
        let error = add(&store, &addition("notes"), title, "one").unwrap_err();
        assert!(error.to_string().contains("artifact blob title is invalid"), "{title:?}: {error}");
    }
    for kind in [EntryType::Symlink, EntryType::Directory, EntryType::Fifo] {
        let files = archive(&[("a", kind, "")]);
        assert!(store.add_artifact(&addition("notes"), AddedFiles::Archive(&mut files.as_slice())).is_err());
    }
    // What somebody else has made.
    let manifest = |layers: Value| json!({ "schemaVersion": 2, "config": { "mediaType": "x", "digest": sha256(b"{}"), "size": 2 }, "layers": layers });
    let titled = |title: &str| {
        json!({ "mediaType": "x", "digest": sha256(b"one"), "size": 3,
                "annotations": { "org.opencontainers.image.title": title } })
    };
    let name: Reference = "r.example/theirs:1".parse().unwrap();
    for (layers, words) in [
        (json!([titled("../../root/.ssh/authorized_keys")]), "artifact blob title is invalid"),
        (json!([titled("a"), titled("a")]), "more than one blob of the artifact has the name"),
        (json!([]), "nothing to extract"),
    ] {
        let staged = store.new_artifact().unwrap();
        for bytes in [&b"{}"[..], b"one"] {
            staged.keep(staged.read(&mut &*bytes).unwrap());
        }
        let bytes = manifest(layers).to_string();
        staged.install(name.clone(), bytes.as_bytes(), &NameTaken::Replace).unwrap();
        let error = extracted(&store, "r.example/theirs:1", &Selection::All).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    store.remove_artifact("r.example/theirs:1").unwrap();
    assert_eq!(home.counts(), [0, 0, 0]);
}

#[test]
fn what_comes_has_to_be_what_was_promised() {
    let home = Home::new();
    let store = home.open();
    let staged = store.new_artifact().unwrap();
    let keep = |bytes: &[u8], digest, size| staged.keep_promised(staged.read(&mut &*bytes).unwrap(), &digest, size);
    keep(b"one", sha256(b"one"), 3).unwrap();
    for (bytes, digest, size) in [(&b"two"[..], sha256(b"one"), 3), (b"one", sha256(b"one"), 4)] {
        assert!(keep(bytes, digest, size).unwrap_err().to_string().contains("is damaged"));
    }
    let manifest = |size: u64, more: usize| {
        let layer = json!({ "mediaType": "x", "digest": sha256(b"one"), "size": size });
        let layers = vec![layer; more];
        json!({ "config": { "mediaType": "x", "digest": sha256(b"two"), "size": 3 }, "layers": layers }).to_string()
    };
    let name: Reference = "r.example/a:1".parse().unwrap();
    let install =
        |text: &str| staged.install(name.clone(), text.as_bytes(), &NameTaken::Replace).unwrap_err().to_string();
    assert!(install("{}").contains("it is malformed"));
    assert!(install(&manifest(3, 1001)).contains("1001 files"));
    assert!(install(&" ".repeat(MANIFEST_BYTES + 1)).contains("too much to be read"));
    let sha512 = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    assert!(staged.take_known(&sha512, 1).unwrap_err().to_string().contains("not built yet"));
    drop(staged);
    assert_eq!(home.counts(), [0, 0, 0]);
}

#[test]
fn what_is_damaged_is_not_given_and_heals_when_it_comes_again() {
    let home = Home::new();
    let store = home.open();
    add(&store, &addition("notes"), "a", "one").unwrap();
    let path = home.0.path().join("content/sha256").join(sha256(b"one").hex());
    fs::write(&path, "two").unwrap();
    let error = extracted(&store, "notes", &Selection::All).unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
    let staged = store.new_artifact().unwrap();
    assert!(!staged.take_known(&sha256(b"one"), 3).unwrap());
    add(&store, &addition("others"), "a", "one").unwrap();
    assert_eq!(extracted(&store, "notes", &Selection::All).unwrap(), [("a".to_owned(), "one".to_owned())]);
}
