//! A commit is what a container saw.

use super::*;

pub(super) fn commit(
    store: &ImageStore,
    base: &ImageId,
    upper: &Path,
    name: Option<&str>,
) -> Result<ImageId, ImageError> {
    let mut config = store.find(&base.to_string()).unwrap().config.config().clone().unwrap();
    config.set_cmd(Some(vec!["new".into()]));
    let request = CommitRequest {
        healthcheck: None,
        base: base.clone(),
        upper,
        config,
        author: Some("me".into()),
        comment: Some("why".into()),
        created_by: "/bin/sh".into(),
        reference: name.map(reference),
        created: None,
    };
    Ok(store.commit(request, &|| true)?.expect("it is whole"))
}

/// An overlay's upper directory, made through a real overlay in a mount namespace of the child's own.
pub(super) fn changed(store: &ImageStore, id: &ImageId, script: &str) -> tempfile::TempDir {
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

/// The same script gives the same digest, on whatever machine and in whatever order files come to lie in their directories.
#[test]
fn what_two_containers_have_made_alike_is_one_layer() {
    let names = ["a", "b/c", "b/d", "e"];
    let made = |order: &[usize]| {
        let home = Home::new();
        let store = home.open();
        let base = load(&store, &tarball(&docker_files(&two_layers(), &["base"], plain))).id;
        let upper = tempfile::tempdir().unwrap();
        let at = |name: &str| upper.path().join(name);
        fs::create_dir(at("b")).unwrap();
        for number in order {
            fs::write(at(names[*number]), names[*number]).unwrap();
        }
        for link in ["z", "0"] {
            fs::hard_link(at("b/c"), at(link)).unwrap();
        }
        fs::File::options().write(true).open(at("e")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        let config = store.find("base").unwrap().config.config().clone().unwrap();
        let commit = |created: Option<&str>| {
            let created = created.map(|created| created.parse().unwrap());
            let (author, comment, created_by, reference) = (None, None, String::new(), None);
            let (base, upper, config) = (base.clone(), upper.path(), config.clone());
            let request = CommitRequest {
                healthcheck: None,
                base,
                upper,
                config,
                author,
                comment,
                created_by,
                reference,
                created,
            };
            let id = store.commit(request, &|| true).unwrap().unwrap();
            (store.find(&id.to_string()).unwrap().diff_ids[2].clone(), id)
        };
        [None, Some("2020-02-02T00:00:00Z"), Some("2021-02-02T00:00:00Z")].map(commit)
    };
    let (one, two) = (made(&[0, 1, 2, 3]), made(&[3, 1, 2, 0]));
    assert_ne!(one[0].0, two[0].0, "times count where none is given");
    assert_eq!(one[1..], two[1..]);
    assert_ne!(one[1].0, one[2].0, "a time that is given counts");
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
fn a_commit_makes_no_image_that_cannot_run() {
    let home = Home::new();
    let store = home.open();
    // One layer may come any number of times, and counts as often.
    let layers = vec![archive(&[file("a", "1")]); 499];
    let base = load(&store, &tarball(&docker_files(&layers, &["base"], plain))).id;
    let upper = tempfile::tempdir().unwrap();
    fs::set_permissions(upper.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(upper.path().join("b"), "2").unwrap();
    let full = commit(&store, &base, upper.path(), Some("full")).unwrap();
    assert_eq!(store.find("full").unwrap().diff_ids.len(), 500);
    let counts = home.counts();
    let error = commit(&store, &full, upper.path(), Some("more")).unwrap_err();
    assert!(error.to_string().contains("501 layers"), "{error}");
    assert_eq!((error.kind(), home.counts(), store.list().unwrap().len()), (ErrorKind::Invalid, counts, 2));
    fs::remove_file(upper.path().join("b")).unwrap();
    commit(&store, &full, upper.path(), Some("same")).unwrap();
    load(&Home::new().open(), &save(&store, "same"));
}

#[test]
fn a_container_that_is_removed_meanwhile_makes_no_image() {
    let home = Home::new();
    let store = home.open();
    let base = load(&store, &tarball(&docker_files(&two_layers(), &["base"], plain))).id;
    let upper = tempfile::tempdir().unwrap();
    let request = || CommitRequest {
        healthcheck: None,
        base: base.clone(),
        upper: upper.path(),
        config: ImageConfig::default(),
        author: None,
        comment: None,
        created_by: String::new(),
        reference: Some(reference("half")),
        created: None,
    };
    fs::write(upper.path().join("half"), "").unwrap();
    assert!(store.commit(request(), &|| false).unwrap().is_none());
    // Nor does it matter that what was left of it could not be read.
    fs::remove_dir_all(upper.path()).unwrap();
    assert!(store.commit(request(), &|| false).unwrap().is_none());
    assert_eq!((home.counts(), store.list().unwrap().len()), ([3, 2, 0], 1));
}

/// `useradd` with a high number leaves a `lastlog` of hundreds of gigabytes that occupies nothing, and a container can make
/// any number of those. Nobody's disk may fill because of it: not by a commit, nor by what is done with its image.
#[test]
fn holes_stay_holes_wherever_a_committed_file_goes() {
    const SIZE: u64 = 10 << 40;
    let (home, other) = (Home::new(), Home::new());
    let (store, there) = (home.open(), other.open());
    let base = load(&store, &tarball(&docker_files(&two_layers(), &["base"], plain))).id;
    let upper = tempfile::tempdir().unwrap();
    fs::create_dir(upper.path().join("data")).unwrap();
    let large = fs::File::create(upper.path().join("data/large")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&large, b"in the middle", SIZE / 2).unwrap();
    large.set_len(SIZE).unwrap();
    let id = commit(&store, &base, upper.path(), Some("made")).unwrap();
    let again = commit(&store, &base, upper.path(), None).unwrap();
    let layer = |id: &ImageId| store.find(&id.to_string()).unwrap().diff_ids[2].clone();
    assert_eq!(layer(&id), layer(&again));
    let is_same = |path: &Path| {
        let file = fs::File::open(path).unwrap();
        let mut middle = [0; 15];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut middle, SIZE / 2 - 1).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!((found.len(), &middle), (SIZE, b"\0in the middle\0"));
        assert!(found.blocks() < 1000, "{}", found.blocks());
    };
    let saved = save(&store, "made");
    assert!(saved.len() < 200_000, "{}", saved.len());
    assert_eq!(load(&there, &saved).id, id);
    for store in [&store, &there] {
        is_same(&store.lower_directories(&id).unwrap()[0].join("data/large"));
        let volume = tempfile::tempdir().unwrap();
        assert!(store.copy_up(&id, Path::new("/data"), volume.path()).unwrap());
        is_same(&volume.path().join("large"));
    }
    let mut exported = Vec::new();
    let empty = tempfile::tempdir().unwrap();
    there.export(&id, empty.path(), &mut exported).unwrap();
    let import = ImportRequest {
        config: ImageConfig::default(),
        platform: Platform::host(),
        message: String::new(),
        reference: None,
        created: jiff::Timestamp::UNIX_EPOCH,
    };
    let imported = there.import(exported.as_slice(), import).unwrap();
    is_same(&there.lower_directories(&imported).unwrap()[0].join("data/large"));
}
