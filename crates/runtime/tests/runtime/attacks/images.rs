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

/// CVE-2026-41579: nodes, links and the console of a /dev that is a link are made inside, and what lies outside at its
/// place is not removed. Guarded by RESOLVE_IN_ROOT in `open_resolved`.
#[test]
fn nothing_is_made_or_removed_where_a_linked_dev_leads() {
    for prefix in ["", "../../../../../../.."] {
        let outside = tempfile::tempdir().unwrap();
        for name in ["null", "ptmx", "fd", "console", "core"] {
            fs::write(outside.path().join(name), name).unwrap();
        }
        let bundle = Bundle::new("true").with(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        });
        symlink(format!("{prefix}{}", outside.path().display()), bundle.root().join("dev")).unwrap();
        stdout(&bundle.run());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 5);
        for name in ["null", "ptmx", "fd", "console", "core"] {
            assert_eq!(fs::read_to_string(outside.path().join(name)).unwrap(), name);
        }
    }
}

/// What is not what it should be: nothing waits for it, nobody reads it to its end, and a container that does not need
/// it runs. Guarded by `user::read`: O_NONBLOCK, the file's kind, and a limit; without them this hangs.
#[test]
fn strange_users_and_groups_keep_nobody_waiting() {
    let fifo = |path: &Path| {
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, 0o644.into(), 0).unwrap();
    };
    let endless = |path: &Path| fs::File::create(path).unwrap().set_len(1 << 42).unwrap();
    let link = |target: &'static str| move |path: &Path| symlink(target, path).unwrap();
    type Make<'a> = &'a dyn Fn(&Path);
    let ways: [(&str, Make<'_>); 7] = [
        ("a pipe", &fifo),
        ("terabytes", &endless),
        ("a directory", &|path| fs::create_dir(path).unwrap()),
        ("an endless device", &link("/dev/zero")),
        ("a terminal", &link("/dev/tty")),
        ("memory", &link("/proc/self/mem")),
        ("itself", &link("passwd")),
    ];
    for (what, make) in ways {
        let bundle = Bundle::new("exec sleep 1000");
        for name in ["passwd", "group"] {
            fs::remove_file(bundle.root().join("etc").join(name)).unwrap();
            make(&bundle.root().join("etc").join(name));
        }
        let exec = |user: &str| json!({"exec": {"arguments": ["grep", "Uid", "/proc/self/status"], "user": user}});
        assert_eq!(stdout(&bundle.live(exec("7"))), "Uid:\t7\t7\t7\t7\n", "{what}");
        assert!(failure(&bundle.live(exec("web"))).contains("unable to find user web"), "{what}");
    }
}

/// Where a program, its interpreter or its directory is a pipe that nobody writes to, that is an error at once.
#[test]
fn pipes_are_neither_executed_nor_entered() {
    let script = "#!/etc/pipe\n";
    for (program, cwd, words) in [
        ("/etc/pipe", "/", "permission denied"),
        ("/etc/script", "/", "permission denied"),
        ("/bin/true", "/etc/pipe", "not a directory"),
        ("/etc/pipe/x", "/", "not a directory"),
    ] {
        let bundle = Bundle::new("").with(|spec| {
            spec["process"]["args"] = json!([program]);
            spec["process"]["cwd"] = json!(cwd);
        });
        let at = |name: &str| bundle.root().join("etc").join(name);
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o777.into(), 0).unwrap();
        fs::write(at("script"), script).unwrap();
        fs::set_permissions(at("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = failure(&bundle.run());
        assert!(error.to_lowercase().contains(words), "{program} in {cwd}: {error}");
    }
}
