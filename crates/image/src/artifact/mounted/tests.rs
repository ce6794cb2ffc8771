//! Links to the files of artifacts, on a real file system.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;

use dozen_model::MountedFiles;
use serde_json::{Value, json};

use super::*;
use crate::artifact::NameTaken;
use crate::artifact::{AddedFiles, AdditionTo, ArtifactAddition};
use crate::tests::{Home, sha256};

fn document(titles: &[Option<&str>]) -> ArtifactDocument {
    let layer = |(number, title): (usize, &Option<&str>)| {
        let mut layer = json!({ "mediaType": "x", "digest": sha256(&[u8::try_from(number).unwrap()]), "size": 1 });
        if let Some(title) = title {
            layer["annotations"] = json!({ "org.opencontainers.image.title": title });
        }
        layer
    };
    let layers: Value = titles.iter().enumerate().map(layer).collect();
    let manifest = json!({ "config": { "mediaType": "x", "digest": sha256(b"{}"), "size": 2 }, "layers": layers });
    ArtifactDocument::read(manifest.to_string().as_bytes()).unwrap()
}

#[test]
fn files_have_their_names_or_others() {
    let names = |document: &ArtifactDocument, which: WhichFiles, file_name: Option<&str>| {
        let wanted = WantedFiles { which, file_name: file_name.map(str::to_owned) };
        let files = named(document, &wanted).map_err(|error| error.to_string())?;
        Ok::<_, String>(files.into_iter().map(|file| file.name).collect::<Vec<_>>().join(" "))
    };
    let two = document(&[Some("a"), None]);
    let first = sha256(&[0]);
    let by_digest = |digest: &Digest| format!("sha256-{}", digest.hex());
    assert_eq!(names(&two, WhichFiles::All, None).unwrap(), format!("a {}", by_digest(&sha256(&[1]))));
    assert_eq!(names(&two, WhichFiles::All, Some("n")).unwrap(), "n-0 n-1");
    assert_eq!(names(&two, WhichFiles::Title("a".into()), None).unwrap(), "a");
    assert_eq!(names(&two, WhichFiles::Title("a".into()), Some("n")).unwrap(), "n");
    assert_eq!(names(&two, WhichFiles::Digest(first.clone()), None).unwrap(), by_digest(&first));
    // A name in its place makes harmless what cannot be the name of a file; two with the same name become two.
    assert_eq!(names(&document(&[Some("../up")]), WhichFiles::All, Some("n")).unwrap(), "n");
    assert_eq!(names(&document(&[Some("a"), Some("a")]), WhichFiles::All, Some("n")).unwrap(), "n-0 n-1");
    let long = "x".repeat(255);
    for (document, which, file_name, words) in [
        (&two, WhichFiles::Title("b".into()), None, "no blob with the title \"b\""),
        (&document(&[]), WhichFiles::All, Some("n"), "the artifact has no blobs"),
        (&document(&[Some("a"), Some("a")]), WhichFiles::All, None, "more than one blob of the artifact has the name"),
        (&document(&[Some("../up")]), WhichFiles::All, None, "artifact blob title is invalid"),
        (&document(&[Some("/etc/passwd")]), WhichFiles::All, None, "artifact blob title is invalid"),
        (&document(&[Some("..")]), WhichFiles::All, None, "artifact blob title is invalid"),
        (&document(&[Some("a\0b")]), WhichFiles::All, None, "artifact blob title is invalid"),
        (&document(&[Some(&"x".repeat(256))]), WhichFiles::All, None, "artifact blob title is invalid"),
        (&two, WhichFiles::All, Some("../n"), "artifact blob title is invalid"),
        (&two, WhichFiles::All, Some(long.as_str()), "artifact blob title is invalid"),
    ] {
        let error = names(document, which, file_name).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

fn add(store: &ImageStore, name: &str, title: &str, bytes: &str) {
    let addition = ArtifactAddition {
        reference: name.parse().unwrap(),
        to: AdditionTo::New {
            artifact_type: None,
            subject: None,
            created: "2024-05-06T07:08:09Z".parse().unwrap(),
            replaces: true,
        },
        file_type: None,
        annotations: BTreeMap::new(),
    };
    store.add_artifact(&addition, AddedFiles::One { title: title.into(), bytes: &mut bytes.as_bytes() }).unwrap();
}

fn mount(store: &ImageStore, name: &str) -> ArtifactMount {
    let wanted = WantedFiles::default();
    let (artifact, files) = store.files_to_mount(name, &wanted).unwrap();
    ArtifactMount { name: name.into(), manifest: artifact.digest, wanted, files: MountedFiles::Directory(files) }
}

#[test]
fn what_is_linked_stays_and_is_counted_once() {
    let home = Home::new();
    let store = home.open();
    add(&store, "notes", "a", "one");
    let mount = mount(&store, "notes");
    let (first, second) = (home.0.path().join("x/artifacts/0"), home.0.path().join("y/artifacts/0"));
    let blob = home.0.path().join("content/sha256").join(sha256(b"one").hex());
    std::fs::set_permissions(&blob, Permissions::from_mode(0o600)).unwrap();
    store.link_artifact(&mount, &first).unwrap();
    store.link_artifact(&mount, &second).unwrap();
    let linked = std::fs::metadata(first.join("a")).unwrap();
    assert_eq!((linked.nlink(), linked.mode() & 0o777), (3, 0o644));
    let links = || store.measured_links([(&mount, first.as_path()), (&mount, second.as_path())]);
    assert_eq!(links(), 0);
    let held = BTreeSet::from([sha256(b"one")]);
    let usage = store.measured_artifacts(&held);
    assert_eq!((usage.count, usage.bytes - usage.reclaimable_bytes), (1, linked.blocks() * 512));
    store.remove_artifact("notes").unwrap();
    assert_eq!((home.counts(), links()), ([0, 0, 0], linked.blocks() * 512));
    // Again: it is there. What is not whole is made anew, if it can be.
    store.link_artifact(&mount, &first).unwrap();
    assert_eq!(std::fs::read_to_string(first.join("a")).unwrap(), "one");
    std::fs::remove_file(first.join("a")).unwrap();
    symlink("/etc/passwd", first.join("a")).unwrap();
    let gone = store.link_artifact(&mount, &first).unwrap_err();
    assert_eq!(gone.to_string(), "notes: artifact does not exist");
    add(&store, "others", "b", "one");
    std::fs::write(first.join("a"), "o").unwrap();
    store.link_artifact(&mount, &first).unwrap();
    assert_eq!(std::fs::read_to_string(first.join("a")).unwrap(), "one");
    // Damage that is known is not handed on.
    std::fs::write(home.0.path().join("content/sha256").join(sha256(b"one").hex()), "two").unwrap();
    let outgoing = store.outgoing_artifact("others").unwrap();
    outgoing.write_archive(&Selection::All, true, &mut io::sink()).unwrap_err();
    std::fs::remove_file(first.join("a")).unwrap();
    assert!(store.link_artifact(&mount, &first).unwrap_err().to_string().contains("damaged"));
}

#[test]
fn what_is_read_stays_until_it_has_been() {
    let home = Home::new();
    let store = home.open();
    add(&store, "notes", "a", "one");
    let outgoing = store.outgoing_artifact("notes").unwrap();
    let another = store.outgoing_artifact("notes").unwrap();
    store.remove_artifact("notes").unwrap();
    assert!(store.outgoing_artifact("notes").is_err());
    drop(another);
    assert_eq!(home.counts(), [3, 0, 0]);
    let mut archive = Vec::new();
    outgoing.write_archive(&Selection::All, true, &mut archive).unwrap();
    assert!(archive.windows(3).any(|three| three == b"one"));
    // What has a name again meanwhile stays.
    let staged = store.new_artifact().unwrap();
    for blob in outgoing.document.blobs() {
        assert!(staged.take_known(&blob.digest, blob.size_bytes).unwrap());
    }
    staged.install("again".parse().unwrap(), &outgoing.manifest, &NameTaken::Refuse).unwrap();
    drop((outgoing, staged));
    assert_eq!(store.artifacts().len(), 1);
    let outgoing = store.outgoing_artifact("again").unwrap();
    store.remove_artifact("again").unwrap();
    drop(outgoing);
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while home.counts() != [0, 0, 0] {
        assert!(std::time::Instant::now() < patience, "{:?}", home.counts());
        std::thread::yield_now();
    }
}
