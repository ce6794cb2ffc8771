//! Other readers and writers of these formats.

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
