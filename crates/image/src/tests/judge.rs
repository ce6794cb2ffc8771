//! Other readers and writers of these formats.

use std::os::unix::fs::FileTypeExt;

use super::targets::{Layout, files_of, host};
use super::*;

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

/// False, and says so, where a judge is missing.
fn is_there(judge: &str) -> bool {
    let there = Command::new(judge).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: {judge} is not installed");
    }
    there
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Every manifest and blob of an index, through our store, then through skopeo, which compares all digests, and once more
/// through a store of ours.
#[test]
fn skopeo_copies_an_index_of_ours_bit_by_bit() {
    if !is_there("skopeo") {
        return;
    }
    let mut layout = Layout::default();
    let images = ["linux/s390x", &host(), "linux/arm/v6"].map(|platform| layout.image(platform, gzip));
    let index = layout.index_of(&images);
    layout.name(&index, "many:1");
    let (home, other) = (Home::new(), Home::new());
    let (store, there) = (home.open(), other.open());
    let id = load(&store, &layout.archive()).id;
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    fs::create_dir(path("ours")).unwrap();
    fs::write(path("ours.tar"), save(&store, "many:1")).unwrap();
    run("tar", &["-xf", &path("ours.tar"), "-C", &path("ours")]);
    let ours = format!("oci:{}:1", path("ours"));
    let theirs = format!("oci-archive:{}:docker.io/library/many:1", path("theirs.tar"));
    assert_eq!(json!(sha256(&run("skopeo", &["inspect", "--raw", &ours]))), index["digest"]);
    run("skopeo", &["--insecure-policy", "copy", "--all", "--preserve-digests", &ours, &theirs]);
    assert_eq!(json!(sha256(&run("skopeo", &["inspect", "--raw", &theirs]))), index["digest"]);
    assert_eq!(load(&there, &fs::read(path("theirs.tar")).unwrap()).id, id);
    let saved = files_of(&save(&there, "many:1"));
    for (name, content) in &layout.files {
        assert!(saved.get(name) == Some(content), "{name} differs or is missing");
    }
}

/// As skopeo writes it: of one image, and of an index with all platforms.
#[test]
fn a_directory_of_skopeos_is_loaded_as_what_it_was() {
    if !is_there("skopeo") {
        return;
    }
    let mut layout = Layout::default();
    let images = ["linux/s390x", &host(), "linux/arm/v6"].map(|platform| layout.image(platform, gzip));
    let index = layout.index_of(&images);
    layout.name(&index, "many:1");
    let home = Home::new();
    let store = home.open();
    let id = load(&store, &layout.archive()).id;
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    fs::write(path("many.tar"), layout.archive()).unwrap();
    load(&store, &tarball(&docker_files(&two_layers(), &["one:1"], plain)));
    fs::write(path("one.tar"), save(&store, "one:1")).unwrap();
    for (name, source, wanted, digest) in [
        ("all", format!("oci-archive:{}:many:1", path("many.tar")), &id, Some(&index["digest"])),
        ("docker", format!("docker-archive:{}:one:1", path("one.tar")), &store.find("one:1").unwrap().id, None),
    ] {
        run("skopeo", &["--insecure-policy", "copy", "--all", &source, &format!("dir:{}", path(name))]);
        run("tar", &["-cf", &path("packed.tar"), "-C", &path(name), "."]);
        let other = Home::new();
        let there = other.open();
        let packed = fs::read(path("packed.tar")).unwrap();
        let loaded = load(&there, &packed);
        assert_eq!((&loaded.id, loaded.references), (wanted, Vec::new()), "{name}");
        let saved = files_of(&save(&there, loaded.id.short()));
        let said: Value = serde_json::from_slice(&saved["index.json"]).unwrap();
        let manifest = fs::read(path(&format!("{name}/manifest.json"))).unwrap();
        assert_eq!(said["manifests"][0]["digest"], json!(sha256(&manifest)), "{name}");
        assert!(digest.is_none_or(|digest| *digest == said["manifests"][0]["digest"]), "{name}");
        // All of it again, and by the layers that the store has by then.
        assert_eq!(load(&there, &packed).id, loaded.id);
    }
}

#[test]
fn umoci_unpacks_what_we_save_and_we_load_what_it_repacks() {
    if !is_there("umoci") {
        return;
    }
    let (home, other) = (Home::new(), Home::new());
    let (store, there) = (home.open(), other.open());
    let ours = load(&store, &tarball(&docker_files(&two_layers(), &["debian:12"], plain)));
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    fs::create_dir(path("layout")).unwrap();
    fs::write(path("ours.tar"), save(&store, "debian:12")).unwrap();
    run("tar", &["-xf", &path("ours.tar"), "-C", &path("layout")]);
    run("umoci", &["unpack", "--image", &format!("{}:12", path("layout")), &path("bundle")]);
    let inside = |name: &str| path(&format!("bundle/rootfs/{name}"));
    let tree = run("sh", &["-c", &format!("cd {} && find . | sort", inside(""))]);
    assert_eq!(String::from_utf8(tree).unwrap(), ".\n./data\n./data/a\n./etc\n./etc/name\n");
    assert_eq!(fs::read_to_string(inside("etc/name")).unwrap(), "changed");

    fs::write(inside("etc/new"), "made").unwrap();
    fs::remove_file(inside("data/a")).unwrap();
    run("umoci", &["repack", "--image", &format!("{}:13", path("layout")), &path("bundle")]);
    // What we had beside the layout knows nothing of it.
    fs::remove_file(path("layout/manifest.json")).unwrap();
    run("tar", &["-cf", &path("theirs.tar"), "-C", &path("layout"), "."]);
    let loaded = there.load(fs::read(path("theirs.tar")).unwrap().as_slice(), &()).unwrap();
    assert_eq!((loaded.len(), loaded.iter().filter(|image| image.id == ours.id).count()), (2, 1), "{loaded:?}");
    let theirs = loaded.iter().find(|image| image.id != ours.id).unwrap();
    let lower = there.lower_directories(&theirs.id).unwrap();
    assert_eq!(lower.len(), 3);
    assert_eq!(fs::read_to_string(lower[0].join("etc/new")).unwrap(), "made");
    // A whiteout on overlayfs (kernel: filesystems/overlayfs.rst, "whiteouts and opaque directories").
    let gone = fs::symlink_metadata(lower[0].join("data/a")).unwrap();
    assert_eq!((gone.file_type().is_char_device(), gone.rdev()), (true, 0));
    assert!(!lower[0].join("etc/name").exists(), "only what has changed");
}
