use super::*;

const ENGINE: &str = "0123456789abcdef";

pub(super) fn open(root: &Path) -> Volumes {
    let ledger = Ledger::open(&root.join("state.db"), &[rows::MIGRATION, OPTIONS, snapshots::MIGRATION]).unwrap();
    Volumes::open(root.join("volumes"), ENGINE, ledger).unwrap()
}

pub(super) fn spec(name: &str) -> VolumeSpec {
    VolumeSpec { name: name.parse().unwrap(), labels: BTreeMap::new(), anonymous: false, options: BTreeMap::new() }
}

/// On no volume: the tests are alone.
pub(super) fn claim(volumes: &Volumes) -> Claim {
    futures(volumes.claim([]))
}

fn futures<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub(super) fn name() -> VolumeName {
    "data".parse().unwrap()
}

pub(super) fn content(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = read_directory(path).unwrap().into_iter().map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// A copy of two files, with a mode of its own.
pub(super) fn copy(into: &Path) -> Result<bool, EngineError> {
    std::fs::write(into.join("a"), "1").unwrap();
    std::fs::create_dir(into.join("b")).unwrap();
    std::fs::write(into.join("b/c"), "2").unwrap();
    std::fs::set_permissions(into, std::os::unix::fs::PermissionsExt::from_mode(0o751)).unwrap();
    Ok(true)
}

#[test]
fn a_volume_that_was_made_anew_is_not_the_one_that_was_seen() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    let claim = claim(&volumes);
    let (seen, _) = volumes.create(spec("data"), &claim).unwrap();
    assert!(volumes.is_still(&seen, &claim));
    assert!(volumes.remove(&name()).unwrap());
    assert!(!volumes.is_still(&seen, &claim));
    let (anew, _) = volumes.create(spec("data"), &claim).unwrap();
    assert!(!volumes.is_still(&seen, &claim) && volumes.is_still(&anew, &claim));
}

#[test]
fn a_claim_holds_up_only_those_who_want_the_same() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<VolumeName>>();
    futures(async {
        let slow = volumes.claim(names(&["bb", "cc", "bb"])).await;
        drop(volumes.claim(names(&["aa", "dd"])).await);
        let mut other = std::pin::pin!(volumes.claim(names(&["cc", "aa"])));
        let waits = std::future::poll_fn(|context| std::task::Poll::Ready(other.as_mut().poll(context).is_pending()));
        assert!(waits.await);
        drop(slow);
        drop(other.await);
        drop(volumes.claim(names(&[])).await);
        assert!(volumes.claims.lock().unwrap().is_empty(), "nothing is kept of claims that are over");
    });
}

#[test]
fn a_volume_outlives_the_engine_and_garbage_does_not() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    let (volume, new) = volumes.create(spec("data"), &claim(&volumes)).unwrap();
    assert!(new);
    std::fs::write(volume.mountpoint.join("file"), "kept").unwrap();
    std::fs::create_dir_all(root.path().join("volumes/orphan/_data")).unwrap();
    drop(volumes);

    let volumes = open(root.path());
    assert_eq!(volumes.list(), std::slice::from_ref(&volume));
    assert_eq!(std::fs::read_to_string(volume.mountpoint.join("file")).unwrap(), "kept");
    assert!(!root.path().join("volumes/orphan").exists());
    assert!(
        !volumes.create(spec("data"), &claim(&volumes)).unwrap().1,
        "creating it again gives the one that is there"
    );
    assert!(volumes.remove(&volume.name).unwrap());
    assert!(!volumes.remove(&volume.name).unwrap());
    assert!(!root.path().join("volumes/data").exists());
}

#[test]
fn a_row_without_a_directory_gets_an_empty_one() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    let (volume, _) = volumes.create(spec("data"), &claim(&volumes)).unwrap();
    drop(volumes);
    std::fs::remove_dir_all(root.path().join("volumes/data")).unwrap();
    open(root.path());
    assert!(volume.mountpoint.is_dir());
}

#[test]
fn a_new_volume_shows_nothing_of_an_old_one() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    // As a removal leaves it whose files resisted, after its row had gone.
    for name in ["data", "other"] {
        std::fs::create_dir_all(root.path().join("volumes").join(name).join("_data/old")).unwrap();
    }
    let (volume, new) = volumes.create(spec("data"), &claim(&volumes)).unwrap();
    assert!(new);
    assert_eq!(content(&volume.mountpoint), [""; 0]);
    let (volume, row) = volumes.prepare(spec("other"), &claim(&volumes)).unwrap();
    assert!(row.is_some());
    assert_eq!(content(&volume.mountpoint), [""; 0]);
}

#[test]
fn a_volume_that_cannot_be_made_leaves_no_row() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    let place = root.path().join("volumes");
    std::fs::remove_dir(&place).unwrap();
    std::fs::write(&place, "").unwrap();
    let error = volumes.create(spec("data"), &claim(&volumes)).unwrap_err();
    assert!(matches!(&error, EngineError::System { action, .. } if action.contains("volumes/data")), "{error}");
    assert_eq!((rows::volumes(&volumes.ledger).unwrap(), volumes.list()), (vec![], vec![]));
    // And not in the next engine either.
    drop(volumes);
    std::fs::remove_file(&place).unwrap();
    assert_eq!(open(root.path()).list(), []);
}

#[test]
fn a_volume_that_cannot_be_made_ready_is_alone_with_it() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    for name in ["data", "other"] {
        volumes.create(spec(name), &claim(&volumes)).unwrap();
    }
    drop(volumes);
    let place = root.path().join("volumes/data");
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::write(&place, "").unwrap();
    let volumes = open(root.path());
    assert_eq!(volumes.list().len(), 2);
    let error = volumes.prepare(spec("data"), &claim(&volumes)).unwrap_err();
    assert!(error.to_string().contains("make the volume") && error.to_string().contains("data/_data"), "{error}");
    assert!(volumes.prepare(spec("other"), &claim(&volumes)).is_ok());
    // Once it is possible it is made.
    std::fs::remove_file(&place).unwrap();
    let (volume, _) = volumes.prepare(spec("data"), &claim(&volumes)).unwrap();
    assert!(volume.mountpoint.is_dir());
}
