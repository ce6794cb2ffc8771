//! Volumes that are file systems: `volume create -o type=… -o device=… -o o=…`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use dozen_testbox::{Daemon, Done, Engine, Machine, docker_program, dozen_program, until};

fn create<'a>(name: &'a str, kind: &'a str, device: &'a str, options: &'a str) -> Vec<String> {
    let mut line = vec!["volume".to_owned(), "create".into(), "-o".into(), format!("type={kind}")];
    line.extend(["-o".into(), format!("device={device}")]);
    if !options.is_empty() {
        line.extend(["-o".into(), format!("o={options}")]);
    }
    line.push(name.to_owned());
    line
}

fn dozen(engine: &Engine<'_>, line: &[String]) -> Done {
    engine.dozen(&line.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What is mounted below the volumes of the engine, as the machine sees it.
fn mounted(machine: &Machine) -> Vec<String> {
    let lines = machine.run("cat", &["/proc/self/mountinfo"]).text();
    let places =
        lines.lines().filter_map(|line| line.split(' ').nth(4)).filter(|place| place.contains("/data/volumes/"));
    places.map(|place| place.rsplit('/').nth(1).unwrap().to_owned()).collect()
}

fn in_volume(engine: &Engine<'_>, mount: &str, script: &str) -> Done {
    engine.dozen(&["run", "--rm", "--network", "none", "-v", mount, "busybox", "sh", "-c", script])
}

const IDLE: [&str; 3] = ["busybox", "sleep", "1000"];

#[test]
fn memory_is_shared_by_all_who_run_with_it_and_gone_after_the_last() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    for (number, program) in [docker_program(), dozen_program()].into_iter().enumerate() {
        let memory = format!("memory{number}");
        let line = create(&memory, "tmpfs", "tmpfs", "size=1m,uid=1000,mode=750,noexec");
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        assert_eq!(machine.run(&program, &line).text().trim(), memory);
        let shown = machine.run(&program, &["volume", "inspect", "-f", "{{json .Options}}", &memory]).text();
        let want = r#"{"device":"tmpfs","o":"size=1m,uid=1000,mode=750,noexec","type":"tmpfs"}"#;
        assert_eq!(shown.trim(), want);
        assert_eq!(mounted(&machine), [""; 0]);
        let mount = format!("{memory}:/m");
        for name in ["one", "two"] {
            let line = [&["run", "-d", "--network", "none", "--name", name, "-v", &mount][..], &IDLE].concat();
            machine.run(&program, &line).expect(0);
        }
        assert_eq!(mounted(&machine), std::slice::from_ref(&memory));
        let look = "stat -c '%u %a' /m; grep ' /m ' /proc/mounts; echo shared >/m/file; dd if=/dev/zero of=/m/big bs=1M count=2";
        let seen = engine.dozen(&["exec", "one", "sh", "-c", look]);
        assert!(seen.out.starts_with("1000 750\n") && seen.out.contains("noexec"), "{seen:?}");
        assert!(seen.out.contains("size=1024k") && seen.err.contains("No space left"), "{seen:?}");
        assert_eq!(engine.dozen(&["exec", "two", "cat", "/m/file"]).text(), "shared\n");
        let point = engine.dozen(&["volume", "inspect", "-f", "{{.Mountpoint}}", &memory]).text();
        assert_eq!(machine.run("cat", &[&format!("{}/file", point.trim())]).text(), "shared\n");
        engine.dozen(&["rm", "-f", "one"]).expect(0);
        assert_eq!(engine.dozen(&["exec", "two", "cat", "/m/file"]).text(), "shared\n");
        assert_eq!(mounted(&machine), std::slice::from_ref(&memory));
        engine.dozen(&["volume", "rm", &memory]).expect(1);
        engine.dozen(&["rm", "-f", "two"]).expect(0);
        assert_eq!(mounted(&machine), [""; 0]);
        assert_eq!(in_volume(&engine, &mount, "ls -A /m").text(), "");
        engine.dozen(&["volume", "rm", &memory]).expect(0);
    }
}

#[test]
fn an_engine_that_dies_neither_leaks_a_mount_nor_takes_one_away() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    dozen(&engine, &create("memory", "tmpfs", "tmpfs", "")).expect(0);
    dozen(&engine, &create("other", "tmpfs", "tmpfs", "")).expect(0);
    let run = ["run", "-d", "--network", "none"];
    engine.dozen(&[&run, &["--name", "one", "-v", "memory:/m"][..], &IDLE].concat()).expect(0);
    engine.dozen(&[&run, &["--name", "short", "-v", "other:/m"][..], &IDLE].concat()).expect(0);
    engine.dozen(&["exec", "one", "sh", "-c", "echo kept >/m/file"]).expect(0);
    let pid = engine.dozen(&["inspect", "-f", "{{.State.Pid}}", "short"]).text();
    engine.kill();
    // It ends while nobody looks.
    machine.run("kill", &["-KILL", pid.trim()]).expect(0);
    engine.restart();
    until("the mount of who has ended is gone", || (mounted(&machine) == ["memory"]).then_some(()));
    assert_eq!(engine.dozen(&["exec", "one", "cat", "/m/file"]).text(), "kept\n");
    assert_eq!(in_volume(&engine, "memory:/m", "cat /m/file").text(), "kept\n");
    assert_eq!(mounted(&machine), ["memory"]);
    engine.dozen(&["stop", "-t", "0", "one"]).expect(0);
    assert_eq!(mounted(&machine), [""; 0]);
}

#[test]
fn a_directory_of_the_host_and_a_disk_are_volumes() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let data = machine.directory().join("srv");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "the host's\n").unwrap();
    let device = data.to_str().unwrap();
    dozen(&engine, &create("bound", "none", device, "bind,ro")).expect(0);
    let script = "cat /m/file; touch /m/x 2>&1 | grep -o 'Read-only file system'";
    assert_eq!(in_volume(&engine, "bound:/m", script).text(), "the host's\nRead-only file system\n");
    // Parts, other names for it, and from another container.
    dozen(&engine, &create("writable", "none", device, "bind")).expect(0);
    std::fs::create_dir(data.join("part")).unwrap();
    let part = "type=volume,src=writable,dst=/p,volume-subpath=part";
    engine.dozen(&["create", "--name", "first", "--mount", part, "busybox", "sh", "-c", "echo in >/p/in"]).expect(0);
    engine.dozen(&["run", "--rm", "--volumes-from", "first", "busybox", "sh", "-c", "echo by >/p/by"]).expect(0);
    engine.dozen(&["start", "-a", "first"]).expect(0);
    assert_eq!(std::fs::read_to_string(data.join("part/in")).unwrap(), "in\n");
    assert_eq!(std::fs::read_to_string(data.join("part/by")).unwrap(), "by\n");
    // cp sees it in a container that does not run, and leaves nothing mounted.
    assert_eq!(mounted(&machine), [""; 0]);
    assert!(engine.dozen(&["cp", "first:/p/in", "-"]).out.contains("in\n"));
    engine.dozen(&["cp", data.join("file").to_str().unwrap(), "first:/p/copied"]).expect(0);
    assert_eq!(std::fs::read_to_string(data.join("part/copied")).unwrap(), "the host's\n");
    until("nothing is left mounted", || mounted(&machine).is_empty().then_some(()));
    // Export mounts it for its time, and what is not empty is not imported into.
    let archive = machine.directory().join("data.tar");
    engine.dozen(&["volume", "export", "-o", archive.to_str().unwrap(), "writable"]).expect(0);
    let full = engine.dozen(&["volume", "import", "writable", archive.to_str().unwrap()]);
    assert!(full.code != 0 && full.err.contains("the volume is not empty"), "{full:?}");
    let empty = machine.directory().join("empty");
    std::fs::create_dir(&empty).unwrap();
    dozen(&engine, &create("copy", "none", empty.to_str().unwrap(), "bind")).expect(0);
    engine.dozen(&["volume", "import", "copy", archive.to_str().unwrap()]).expect(0);
    assert_eq!(std::fs::read_to_string(empty.join("part/in")).unwrap(), "in\n");
    until("nothing is left mounted", || mounted(&machine).is_empty().then_some(()));
    // Removing the volume removes nothing of the host's.
    engine.dozen(&["rm", "first"]).expect(0);
    engine.dozen(&["volume", "rm", "bound", "writable", "copy"]).expect(0);
    assert!(data.join("file").exists() && empty.join("file").exists());

    let disk = machine.directory().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(32 << 20).unwrap();
    machine.run("mkfs.ext4", &["-q", disk.to_str().unwrap()]).expect(0);
    let device = machine.run("losetup", &["--find", "--show", disk.to_str().unwrap()]).text();
    let device = device.trim();
    dozen(&engine, &create("disk", "ext4", device, "nosuid,nodev,noatime")).expect(0);
    in_volume(&engine, "disk:/m", "echo durable >/m/file").expect(0);
    let seen = in_volume(&engine, "disk:/m:ro", "cat /m/file; grep ' /m ' /proc/mounts").text();
    assert!(seen.starts_with("durable\n") && seen.contains("ext4 ro,nosuid,nodev,noatime"), "{seen}");
    assert_eq!(mounted(&machine), [""; 0]);
    until("the disk can be taken away", || machine.run("losetup", &["-d", device]).code.eq(&0).then_some(()));
}

#[test]
fn an_empty_volume_takes_what_the_image_has_whatever_it_is() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let data = machine.directory().join("srv");
    std::fs::create_dir(&data).unwrap();
    for (name, options) in [("data", "bind"), ("again", "bind")] {
        dozen(&engine, &create(name, "none", data.to_str().unwrap(), options)).expect(0);
    }
    engine.dozen(&["create", "--name", "no", "-v", "data:/etc:nocopy", "busybox", "true"]).expect(0);
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    engine.dozen(&["create", "--name", "yes", "-v", "data:/etc", "busybox", "true"]).expect(0);
    assert!(data.join("passwd").exists());
    assert_eq!(mounted(&machine), [""; 0]);
    std::fs::remove_file(data.join("passwd")).unwrap();
    engine.dozen(&["create", "--name", "later", "-v", "again:/etc", "busybox", "true"]).expect(0);
    assert!(!data.join("passwd").exists(), "it was not empty");
}

#[test]
fn a_mount_makes_the_volume_with_its_options_and_does_not_change_another() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let mount = |options: &str| {
        format!(
            "type=volume,src=made,dst=/m,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,\"volume-opt=o={options}\""
        )
    };
    for program in [docker_program(), dozen_program()] {
        let wanted = mount("size=2m,uid=7");
        let run = ["run", "--rm", "--name", "it", "--mount", &wanted, "busybox", "sh", "-c", "stat -c %u /m; df -k /m"];
        let seen = machine.run(&program, &run).text();
        assert!(seen.starts_with("7\n") && seen.contains("2048"), "{seen}");
        machine.run(&program, &["create", "--name", "it", "--mount", &wanted, "busybox"]).expect(0);
        let shown = machine.run(&program, &["inspect", "-f", "{{json .HostConfig.Mounts}}", "it"]).text();
        assert!(shown.contains(r#""o":"size=2m,uid=7""#), "{shown}");
        let other = mount("size=4m");
        let refused = machine.run(&program, &["create", "--mount", &other, "busybox"]);
        assert!(refused.code != 0 && refused.err.contains("conflict: volume name must be unique"), "{refused:?}");
        let refused = machine.run(&program, &["volume", "create", "-o", "type=tmpfs", "-o", "device=x", "made"]);
        assert!(refused.code != 0 && refused.err.contains("conflict: volume name must be unique"), "{refused:?}");
        // Who asks for none has it as it is.
        machine.run(&program, &["volume", "create", "made"]).expect(0);
        assert_eq!(machine.run(&program, &["volume", "ls", "-q", "-f", "driver=local"]).text(), "made\n");
        engine.dozen(&["rm", "it"]).expect(0);
        // Nothing of it is ours to reclaim or to count, as in Docker.
        machine.run(&program, &["volume", "prune", "-af"]).expect(0);
        let counted = engine.dozen(&["system", "df", "--format", "{{.Type}} {{.TotalCount}}"]).text();
        assert!(counted.contains("Local Volumes 0"), "{counted}");
        assert_eq!(machine.run(&program, &["volume", "ls", "-q"]).text(), "made\n");
        engine.dozen(&["volume", "rm", "made"]).expect(0);
    }
}

#[test]
fn what_cannot_be_mounted_is_refused_or_fails_the_start_in_dockers_words() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    for (options, words) in [
        (&["-o", "colour=red"][..], "create bad: invalid option: \"colour\""),
        (&["-o", "type=tmpfs"], "create bad: missing required option: \"device\""),
        (&["-o", "size=10m"], "create bad: quota size requested but no quota support"),
        (&["-o", "type=none", "-o", "device=/a", "-o", "o=bind,remount"], "mount option \"remount\""),
    ] {
        let refused = engine.dozen(&[&["volume", "create"], options, &["bad"]].concat());
        assert!(refused.code != 0 && refused.err.contains(words), "{refused:?}");
    }
    assert_eq!(engine.dozen(&["volume", "ls", "-q"]).text(), "");
    for (name, kind, device, options, words) in [
        ("gone", "none", "/no/such/place", "bind", "no such file or directory"),
        ("unknown", "no-such-fs", "x", "", "no such device"),
        ("misread", "tmpfs", "tmpfs", "colour=red", "has no option \"colour\""),
        ("unresolved", "nfs", ":/srv", "addr=nas.invalid", "lookup nas.invalid: no such host"),
    ] {
        dozen(&engine, &create(name, kind, device, options)).expect(0);
        let mount = format!("{name}:/m");
        let failed = in_volume(&engine, &mount, "true");
        assert!(failed.code >= 125 && failed.err.contains("error while mounting volume '"), "{failed:?}");
        assert!(failed.err.contains("failed to mount local volume") && failed.err.contains(words), "{failed:?}");
        assert_eq!(mounted(&machine), [""; 0]);
        // One that is not mounted can be removed.
        engine.dozen(&["volume", "rm", name]).expect(0);
    }
    assert!(!Path::new("/no").exists());
}

#[test]
fn a_driver_that_nobody_has_is_not_found() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let words =
        |volume: &str| format!("create {volume}: error looking up volume plugin rexray: plugin \"rexray\" not found");
    let mount = "type=volume,src=data,dst=/m,volume-driver=rexray";
    for program in [docker_program(), dozen_program()] {
        for line in [
            &["volume", "create", "-d", "rexray", "data"][..],
            &["create", "--mount", mount, "busybox"],
            &["create", "-v", "data:/m", "--volume-driver", "rexray", "busybox"],
        ] {
            let refused = machine.run(&program, line);
            assert!(refused.code != 0 && refused.err.contains(&words("data")), "{refused:?}");
        }
        machine.run(&program, &["volume", "create", "-d", "local", "data"]).expect(0);
        let line = ["run", "--rm", "-v", "data:/m", "--volume-driver", "local", "busybox", "true"];
        machine.run(&program, &line).expect(0);
        engine.dozen(&["volume", "rm", "data"]).expect(0);
    }
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
}

/// By a failpoint in the middle of the copy, and by one in the middle of the pouring.
#[test]
fn what_a_killed_engine_has_left_in_another_file_system_is_nothing_or_all() {
    let machine = Machine::new();
    let failpoints = machine.directory().join("failpoints");
    let start = || Daemon::with_failpoints(&machine, &failpoints);
    let disk = machine.directory().join("srv");
    std::fs::create_dir(&disk).unwrap();
    let daemon = start();
    daemon.load("busybox");
    let line = create("data", "none", disk.to_str().unwrap(), "bind");
    daemon.dozen(&line.iter().map(String::as_str).collect::<Vec<_>>()).expect(0);
    let names = || {
        let names = std::fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    let make = ["create", "--name", "it", "-v", "data:/etc", "busybox", "true"];
    let mut daemon = Some(daemon);
    for failpoint in ["engine.image.copied", "engine.volume.copied", "engine.volume.filled", "engine.image.poured"] {
        std::fs::write(failpoints.join(failpoint), "").unwrap();
        assert_ne!(daemon.as_ref().unwrap().dozen(&make).code, 0, "{failpoint}");
        assert!(!failpoints.join(failpoint).exists(), "{failpoint}");
        let staged = names().into_iter().filter(|name| name.starts_with(".dozen-filling-")).count();
        assert_eq!(staged, 1, "{failpoint}: {:?}", names());
        drop(daemon.replace(start()));
        daemon.as_ref().unwrap().dozen(&make).expect(0);
        let found = names();
        assert!(found.contains(&"passwd".to_owned()) && found.contains(&"group".to_owned()), "{failpoint}: {found:?}");
        assert!(!found.iter().any(|name| name.starts_with(".dozen")), "{failpoint}: {found:?}");
        daemon.as_ref().unwrap().dozen(&["rm", "it"]).expect(0);
        for name in found {
            let path = disk.join(name);
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        }
    }
}
