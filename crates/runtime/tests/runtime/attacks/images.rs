//! Hostile images: links, pipes and files where the runtime looks for something of its own.

use super::*;

/// Links that an image may have where files of the runtime's and of the engine's go.
#[test]
fn links_in_an_image_lead_nowhere_outside() {
    let outside = tempfile::tempdir().unwrap();
    let name = outside.path().display().to_string();
    for (link, target) in [
        ("etc/hosts", format!("{name}/absolute")),
        ("etc/hosts", format!("../../../../../../../..{name}/relative")),
        ("etc/hosts", format!("/proc/1/root{name}/magic")),
        ("etc/hosts", format!("/proc/self/cwd/../..{name}/magic")),
        ("etc/hosts", "../run/resolve/not/there".to_owned()),
        ("etc/hosts", "hosts".to_owned()),
    ] {
        let file = outside.path().join("file");
        fs::write(&file, "mounted\n").unwrap();
        let bundle = Bundle::new("cat /etc/hosts").with(|spec| push_mount(spec, bind(&file, "/etc/hosts")));
        symlink(&target, bundle.root().join(link)).unwrap();
        let output = bundle.run();
        match target.as_str() {
            // Nobody can follow a link to itself, nor make what procfs has not.
            "hosts" => assert!(failure(&output).contains("too many levels")),
            target if target.starts_with("/proc") => drop(failure(&output)),
            _ => assert_eq!(stdout(&output), "mounted\n", "{target}"),
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{target}: made outside");
    }
}

#[test]
fn links_in_place_of_system_directories_are_refused() {
    for (link, target) in
        [("proc", "/tmp"), ("sys", "../tmp"), ("dev", "/etc"), ("dev", "/proc/1/root/dev"), ("sys", "not/there")]
    {
        let bundle = Bundle::new("true");
        symlink(target, bundle.root().join(link)).unwrap();
        let error = failure(&bundle.run());
        assert!(error.contains("must be an ordinary directory"), "{link} -> {target}: {error}");
        let made = bundle.root().join("not");
        assert!(!made.exists(), "{} was made before it was refused", made.display());
    }
    // Below a /dev of the container's own nothing of the image's is seen.
    let bundle = Bundle::new("[ -c /dev/console ] && stat -c %t:%T /dev/null");
    fs::create_dir(bundle.root().join("dev")).unwrap();
    for name in ["console", "null", "pts"] {
        symlink("/etc/passwd", bundle.root().join("dev").join(name)).unwrap();
    }
    assert_eq!(stdout(&bundle.live(json!({"terminal": [24, 80]}))).trim(), "1:3");
}

/// Whoever is user inside reads passwd with all rights: it must be a file of the image's.
#[test]
fn a_passwd_that_is_a_file_of_procfs_is_not_read() {
    let bundle = Bundle::new("echo $HOME");
    fs::remove_file(bundle.root().join("etc/passwd")).unwrap();
    symlink("/proc/kmsg", bundle.root().join("etc/passwd")).unwrap();
    assert_eq!(stdout(&bundle.run()), "/\n");
}
