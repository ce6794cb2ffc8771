//! Images whose configuration the disk has lost: nothing else is lost with it.

use super::commit::{changed, commit};
use super::targets::many;
use super::*;

fn configuration(home: &Home, id: &ImageId) -> PathBuf {
    home.0.path().join("content/sha256").join(id.digest().hex())
}

#[track_caller]
fn is_unreadable(result: Result<impl std::fmt::Debug, ImageError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, ImageError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("cannot be read") && error.hint().is_some(), "{error}");
}

#[test]
fn an_image_that_cannot_be_read_keeps_what_it_has_and_is_healed_by_a_load() {
    let home = Home::new();
    let store = home.open();
    let base = load(&store, &tarball(&docker_files(&two_layers(), &["base"], plain))).id;
    let place = changed(&store, &base, "echo made > made");
    let id = commit(&store, &base, &place.path().join("upper"), Some("made")).unwrap();
    store.tag(&id, &reference("other")).unwrap();
    let saved = save(&store, "made");
    // As the archive has it.
    load(&store, &saved);
    let (lower, counts) = (store.lower_directories(&id).unwrap(), home.counts());
    assert_eq!(counts, [6, 3, 0]);
    drop(store);
    let whole = fs::read(configuration(&home, &id)).unwrap();
    for damage in [Some(&b"{}"[..]), Some(b""), Some(&whole[1..]), None] {
        fs::write(configuration(&home, &id), &whole).unwrap();
        match damage {
            Some(bytes) => fs::write(configuration(&home, &id), bytes).unwrap(),
            None => fs::remove_file(configuration(&home, &id)).unwrap(),
        }
        // However often an engine opens it.
        for _ in 0..2 {
            let store = home.open();
            assert_eq!(store.list().unwrap().iter().map(|image| &image.id).collect::<Vec<_>>(), [&base]);
            assert_eq!(home.counts(), [counts[0] - usize::from(damage.is_none()), counts[1], counts[2]]);
            for name in ["made", "other:latest", &id.to_string(), id.digest().hex(), id.short()] {
                is_unreadable(store.find(name));
            }
            is_unreadable(store.save(&["made".into()], &mut std::io::sink()));
            is_unreadable(store.tag(&id, &reference("third")));
            let request = CommitRequest {
                healthcheck: None,
                base: id.clone(),
                upper: &place.path().join("upper"),
                config: ImageConfig::default(),
                author: None,
                comment: None,
                created_by: String::new(),
                reference: None,
                created: None,
            };
            is_unreadable(store.commit(request, &|| true));
            store.collect(&nobody).unwrap();
            // A container that stands on it starts.
            assert_eq!(store.lower_directories(&id).unwrap(), lower);
            assert!(lower[0].join("made").exists());
            let volume = tempfile::tempdir().unwrap();
            assert!(store.copy_up(&id, Path::new("/"), volume.path()).unwrap());
            store.export(&id, &place.path().join("upper"), std::io::sink()).unwrap();
        }
        let store = home.open();
        assert_eq!(load(&store, &saved).id, id);
        let is_healed = |store: &ImageStore| {
            let image = store.find("other").unwrap();
            assert_eq!((image.parent.as_ref(), image.references.len()), (Some(&base), 2));
            assert_eq!(store.history("made").unwrap()[1].id.as_ref(), Some(&base));
            assert!(save(store, "made") == saved);
            assert_eq!(home.counts(), counts);
        };
        is_healed(&store);
        drop(store);
        is_healed(&home.open());
    }
}

#[test]
fn what_an_image_came_with_is_there_again_when_it_is_healed() {
    let (layout, _) = many();
    let home = Home::new();
    let store = home.open();
    let id = load(&store, &layout.archive()).id;
    let (saved, counts) = (save(&store, "many:1"), home.counts());
    drop(store);
    fs::write(configuration(&home, &id), "x").unwrap();
    let store = home.open();
    is_unreadable(store.find("many:1"));
    is_unreadable(store.prepare_for("many:1", Some(&"linux/s390x".parse().unwrap())));
    assert_eq!(home.counts(), counts);
    load(&store, &saved);
    assert!(save(&store, "many:1") == saved);
    drop(store);
    assert!(save(&home.open(), "many:1") == saved);
}

#[test]
fn an_image_that_cannot_be_read_is_removed_as_any_other() {
    let stopped = |_: &ImageId| Some(Use { container_short: "c0ffee".into(), running: false });
    let running = |_: &ImageId| Some(Use { container_short: "c0ffee".into(), running: true });
    let bytes = tarball(&docker_files(&two_layers(), &["a", "b"], plain));
    let damaged = || {
        let home = Home::new();
        let id = load(&home.open(), &bytes).id;
        fs::write(configuration(&home, &id), "x").unwrap();
        let store = home.open();
        (home, store, id)
    };
    let (home, store, id) = damaged();
    assert_eq!(store.remove("nobody", true, false, &nobody).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.remove(id.short(), false, false, &nobody).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.remove("a", false, false, &running).unwrap(), [Removal::Untagged("a:latest".into())]);
    assert_eq!(store.remove("b", false, false, &stopped).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(home.counts(), [3, 2, 0]);
    let removed = store.remove("b", false, false, &nobody).unwrap();
    assert_eq!(removed[..2], [Removal::Untagged("b:latest".into()), Removal::Deleted(id.to_string())]);
    assert_eq!((removed.len(), home.counts()), (4, [0, 0, 0]));
    assert_eq!(store.remove(id.short(), true, false, &nobody).unwrap_err().kind(), ErrorKind::NotFound);

    // Its layers stay under a container, until that has gone.
    let (home, store, id) = damaged();
    assert_eq!(store.remove(id.short(), true, false, &running).unwrap_err().kind(), ErrorKind::Conflict);
    store.remove(id.short(), true, false, &stopped).unwrap();
    let is_held = |store: &ImageStore| {
        assert_eq!(store.find(id.short()).unwrap_err().kind(), ErrorKind::NotFound);
        store.collect(&stopped).unwrap();
        assert_eq!((store.lower_directories(&id).unwrap().len(), home.counts()), (2, [3, 2, 0]));
    };
    is_held(&store);
    drop(store);
    is_held(&home.open());
    home.open().collect(&nobody).unwrap();
    assert_eq!(home.counts(), [0, 0, 0]);

    // Loaded again meanwhile, it is an image again.
    let (home, store, id) = damaged();
    store.remove(id.short(), true, false, &stopped).unwrap();
    load(&store, &bytes);
    assert_eq!(store.find("a").unwrap().id, id);
    store.collect(&nobody).unwrap();
    drop(store);
    assert_eq!(home.open().find("b").unwrap().id, id);
}
