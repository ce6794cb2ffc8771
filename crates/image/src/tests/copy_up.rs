//! A volume is filled from an image.

use super::*;

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
