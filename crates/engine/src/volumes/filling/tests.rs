use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::super::tests::{claim, content, copy, name, open, spec};
use super::*;

#[test]
fn a_volume_is_filled_beside_itself_and_stays_the_same_directory() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    let (volume, _) = volumes.create(spec("data"), &claim(&volumes)).unwrap();
    let before = std::fs::metadata(&volume.mountpoint).unwrap().ino();
    let nothing = |into: &Path| {
        assert_ne!(into, volume.mountpoint);
        Ok(false)
    };
    volumes.fill(&name(), false, &claim(&volumes), nothing).unwrap();
    let failed = |into: &Path| {
        copy(into)?;
        Err(EngineError::ShuttingDown)
    };
    assert!(volumes.fill(&name(), false, &claim(&volumes), failed).is_err());
    assert_eq!(
        (content(&volume.mountpoint), content(&root.path().join("volumes/data"))),
        (vec![], vec!["_data".into()])
    );
    volumes.fill(&name(), false, &claim(&volumes), copy).unwrap();
    assert_eq!(content(&volume.mountpoint), ["a", "b"]);
    assert_eq!(content(&root.path().join("volumes/data")), ["_data"]);
    let after = std::fs::metadata(&volume.mountpoint).unwrap();
    assert_eq!((after.ino(), after.mode() & 0o7777), (before, 0o751));
    volumes.fill(&name(), false, &claim(&volumes), |_| panic!("it is not empty any more")).unwrap();
}

#[test]
fn what_a_crash_left_of_a_filling_is_nothing_or_all() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    let (volume, _) = volumes.create(spec("data"), &claim(&volumes)).unwrap();
    let beside = |name: &str| root.path().join("volumes/data").join(name);
    drop(volumes);
    // In the middle of the copy.
    std::fs::create_dir(beside(FILLING)).unwrap();
    copy(&beside(FILLING)).unwrap();
    let volumes = open(root.path());
    assert_eq!((content(&volume.mountpoint), content(&beside(""))), (vec![], vec!["_data".into()]));
    drop(volumes);
    // In the middle of the pouring, while a container went on writing.
    std::fs::create_dir(beside(FILLED)).unwrap();
    copy(&beside(FILLED)).unwrap();
    std::fs::rename(beside(FILLED).join("b"), volume.mountpoint.join("b")).unwrap();
    std::fs::write(volume.mountpoint.join("a"), "written meanwhile").unwrap();
    open(root.path());
    assert_eq!(
        (content(&volume.mountpoint), content(&beside(""))),
        (vec!["a".into(), "b".into()], vec!["_data".into()])
    );
    assert_eq!(std::fs::read_to_string(volume.mountpoint.join("a")).unwrap(), "written meanwhile");
    assert_eq!(std::fs::read_to_string(volume.mountpoint.join("b/c")).unwrap(), "2");
    assert_eq!(std::fs::metadata(&volume.mountpoint).unwrap().mode() & 0o7777, 0o751);
}

/// A volume on which another file system is mounted, and that file system.
fn on_a_disk(test: impl FnOnce(&dyn Fn() -> Volumes, &Path, &Path) + Send) {
    let (root, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let volumes = open(root.path());
    let (volume, _) = volumes.create(spec("data"), &claim(&volumes)).unwrap();
    drop(volumes);
    dozen_runtime::overlay::with_own_mounts(|| {
        rustix::mount::mount_bind(disk.path(), &volume.mountpoint).unwrap();
        test(&|| open(root.path()), disk.path(), &disk.path().join(".dozen-filling-0123456789ab"));
        Ok(())
    })
    .unwrap();
}

/// Others may write there meanwhile.
#[test]
fn another_file_system_takes_all_or_nothing_and_what_is_others_stays() {
    on_a_disk(|open, disk, own| {
        let volumes = open();
        let failed = |into: &Path| {
            let staged = volumes.mountpoint(&name()).join(own.file_name().unwrap()).join(FILLING);
            assert_eq!(std::fs::canonicalize(into).unwrap(), staged);
            copy(into)?;
            std::fs::write(disk.join("theirs"), "rows").unwrap();
            Err(EngineError::ShuttingDown)
        };
        assert!(volumes.fill(&name(), true, &claim(&volumes), failed).is_err());
        assert_eq!(content(disk), ["theirs"]);
        std::fs::remove_file(disk.join("theirs")).unwrap();
        volumes.fill(&name(), false, &claim(&volumes), |_| Ok(false)).unwrap();
        assert_eq!(content(disk), [""; 0]);
        let dressed = |into: &Path| {
            copy(into)?;
            std::fs::File::open(into).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            Ok(true)
        };
        volumes.fill(&name(), false, &claim(&volumes), dressed).unwrap();
        assert_eq!(content(disk), ["a", "b"]);
        let after = std::fs::metadata(disk).unwrap();
        assert_eq!((after.mode() & 0o7777, after.mtime()), (0o751, 0));
    });
}

#[test]
fn what_a_crash_left_in_another_file_system_is_nothing_or_all() {
    let make = |own: &Path, state: &str| {
        std::fs::create_dir(own).unwrap();
        std::fs::set_permissions(own, PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::create_dir(own.join(state)).unwrap();
        copy(&own.join(state)).unwrap();
    };
    // By who mounts it next, and by who fills it.
    let by_mount: fn(&dyn Fn() -> Volumes) = |open| recover(&open().mountpoint(&name()), "0123456789abcdef");
    let by_fill: fn(&dyn Fn() -> Volumes) = |open| {
        let volumes = open();
        volumes.fill(&name(), false, &claim(&volumes), |_| Ok(false)).unwrap();
    };
    for see_to_it in [by_mount, by_fill] {
        on_a_disk(|open, disk, own| {
            make(own, FILLING);
            assert_eq!(open().content(&name()).unwrap(), [""; 0], "ours is no content");
            see_to_it(open);
            assert_eq!(content(disk), [""; 0]);
            make(own, FILLED);
            std::fs::rename(own.join(FILLED).join("b"), disk.join("b")).unwrap();
            std::fs::write(disk.join("a"), "written meanwhile").unwrap();
            see_to_it(open);
            assert_eq!(content(disk), ["a", "b"]);
            assert_eq!(std::fs::read_to_string(disk.join("a")).unwrap(), "written meanwhile");
            assert_eq!(std::fs::metadata(disk).unwrap().mode() & 0o7777, 0o751);
        });
    }
    // What others could have made is not carried on, nor what another engine has under way touched.
    on_a_disk(|open, disk, own| {
        let theirs = disk.join(".dozen-filling-ffffffffffff");
        make(&theirs, FILLED);
        make(own, FILLED);
        std::os::unix::fs::chown(own, Some(1000), Some(1000)).unwrap();
        by_mount(open);
        assert_eq!(content(disk), [".dozen-filling-ffffffffffff"]);
        std::os::unix::fs::symlink(&theirs, own).unwrap();
        by_mount(open);
        assert_eq!(content(disk), [".dozen-filling-ffffffffffff"]);
        assert!(theirs.join(FILLED).join("a").exists());
    });
}

/// Who may write in that file system puts other things in the place of our directory at any moment.
#[test]
fn what_others_put_in_our_place_is_never_come_to() {
    on_a_disk(|open, disk, own| {
        let volumes = open();
        let outside = tempfile::tempdir().unwrap();
        for state in [FILLING, FILLED] {
            std::fs::create_dir(outside.path().join(state)).unwrap();
            std::fs::write(outside.path().join(state).join("host"), "keep").unwrap();
        }
        let intact = || [FILLING, FILLED].iter().all(|state| outside.path().join(state).join("host").exists());
        let exchange = |into: &Path| {
            std::fs::rename(own, disk.join("moved")).unwrap();
            std::os::unix::fs::symlink(outside.path(), own).unwrap();
            copy(into)
        };
        drop(volumes.fill(&name(), false, &claim(&volumes), exchange));
        assert!(intact(), "{:?}", content(outside.path()));
        assert_eq!(content(&outside.path().join(FILLING)), ["host"]);
        let _ = std::fs::remove_file(own);
        std::fs::remove_dir_all(disk.join("moved")).unwrap();
        // A link within it, by who has become its owner.
        std::fs::create_dir(own).unwrap();
        std::fs::set_permissions(own, PermissionsExt::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(outside.path(), own.join(FILLED)).unwrap();
        recover(&volumes.mountpoint(&name()), "0123456789abcdef");
        assert!(intact());
        assert_eq!(content(disk), [""; 0]);
    });
}
