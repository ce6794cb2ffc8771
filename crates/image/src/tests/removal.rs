//! What may be removed, and what goes with it.

use super::*;

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

/// The image is gone as soon as its row is: whoever removes it is told so, whatever becomes of its layers.
#[test]
fn a_removal_that_cannot_delete_layers_is_one_all_the_same() {
    let home = Home::new();
    let store = home.open();
    load(&store, &tarball(&docker_files(&two_layers(), &["a"], plain)));
    let other = archive(&[file("other", "")]);
    load(&store, &tarball(&docker_files(&[other], &["b"], plain)));
    let execute = |sql: &'static str| {
        let done = store.0.ledger.write(dozen_ledger::Durability::Kill, move |connection| {
            Ok::<_, dozen_ledger::LedgerError>(connection.execute_batch(sql)?)
        });
        done.unwrap();
    };
    execute("CREATE TRIGGER stays BEFORE DELETE ON layer BEGIN SELECT RAISE(ABORT, 'it stays'); END");
    let removed = store.remove("a", false, false, &nobody).unwrap();
    assert!(matches!(&removed[..], [Removal::Untagged(_), Removal::Deleted(_)]), "{removed:?}");
    assert_eq!((store.find("a").unwrap_err().kind(), home.counts()), (ErrorKind::NotFound, [4, 3, 0]));
    execute("DROP TRIGGER stays");
    let removed = store.remove("b", false, false, &nobody).unwrap();
    assert_eq!((removed.len(), home.counts()), (5, [0, 0, 0]));
}
