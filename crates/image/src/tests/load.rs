//! What loads, and what of it can be found again.

use super::*;

#[test]
fn every_kind_of_archive_loads_to_the_same_image() {
    let layers = two_layers();
    let mut ids = Vec::new();
    for inside in [plain as Pack, gzip, zstd] {
        for outside in [plain as Pack, gzip, zstd] {
            // An OCI layout's manifest is kept as it came.
            for (files, kept) in [(docker_files(&layers, &["a:1"], inside), 3), (oci_files(&layers, "a:1", inside), 4)]
            {
                let home = Home::new();
                let loaded = load(&home.open(), &outside(&tarball(&files)));
                assert_eq!(loaded.references, [reference("a:1")]);
                assert_eq!(home.counts(), [kept, 2, 0]);
                ids.push(loaded.id);
            }
        }
    }
    ids.dedup();
    assert_eq!(ids, [ImageId::new(sha256(&config(&layers)))]);
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
    let ledger = Ledger::open(&root.join("state.db"), &MIGRATIONS).unwrap();
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
