//! `--mount` in full: parts of volumes and images, what is below a bind, and who owns what in it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use dozen_testbox::{Engine, Machine, docker_program, dozen_program};

fn mount(options: &str) -> [&str; 2] {
    ["--mount", options]
}

/// What a command says in a new container with this mount.
fn say(engine: &Engine<'_>, options: &str, more: &[&str], script: &str) -> String {
    let mut line = vec!["run", "--rm"];
    line.extend(mount(options));
    line.extend(more);
    line.extend(["busybox", "sh", "-c", script]);
    engine.dozen(&line).text()
}

fn post(machine: &Machine, path: &str, body: &serde_json::Value) -> String {
    let mut stream = UnixStream::connect(machine.socket()).unwrap();
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\nContent-Type: application/json");
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn mountpoint(engine: &Engine<'_>, volume: &str) -> PathBuf {
    engine.dozen(&["volume", "inspect", "-f", "{{.Mountpoint}}", volume]).text().trim().into()
}

#[test]
fn a_part_of_a_volume_is_mounted_and_nothing_beside_it() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["volume", "create", "data"]).expect(0);
    let data = mountpoint(&engine, "data");
    std::fs::create_dir_all(data.join("a/b")).unwrap();
    std::fs::write(data.join("a/b/file"), "deep\n").unwrap();
    std::fs::write(data.join("secret"), "beside\n").unwrap();
    let part = |path: &str| format!("type=volume,src=data,dst=/part,volume-subpath={path}");
    assert_eq!(say(&engine, &part("a/b"), &[], "cat /part/file; ls -A /part/..|grep -c secret; true"), "deep\n0\n");
    assert_eq!(say(&engine, &part("a/b/file"), &[], "cat /part"), "deep\n");
    let missing = part("nowhere");
    let line = |options: &str| engine.dozen(&["run", "--rm", "--mount", options, "busybox", "true"]);
    let refused = line(&missing).expect(127);
    assert!(refused.err.contains("cannot access path") && refused.err.contains("nowhere"), "{refused:?}");
    line(&part("../..")).expect(125);
    // Links are looked up as if the volume were the root: they lead nowhere else.
    std::os::unix::fs::symlink("/etc", data.join("absolute")).unwrap();
    std::os::unix::fs::symlink("../../../../../../../../etc", data.join("a/relative")).unwrap();
    std::os::unix::fs::symlink("/a/b", data.join("inside")).unwrap();
    for path in ["absolute", "a/relative", "absolute/passwd"] {
        let refused = line(&part(path)).expect(127);
        assert!(refused.err.contains("cannot access path"), "{refused:?}");
    }
    assert_eq!(say(&engine, &part("inside"), &[], "cat /part/file"), "deep\n");
    // As it was asked.
    engine.dozen(&["create", "--name", "shown", "--mount", &part("a"), "busybox", "true"]).expect(0);
    let shown = engine.dozen(&["inspect", "-f", "{{json .HostConfig.Mounts}}", "shown"]).text();
    assert!(shown.contains(r#""Subpath":"a""#), "{shown}");
}

/// A container that has all of the volume swaps the part of another for a link, as fast as it can.
#[test]
fn who_swaps_a_part_for_a_link_shows_nobody_the_host() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let secret = machine.directory().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("mark"), "the host's\n").unwrap();
    let swap = format!(
        "mkdir /v/part /v/real; ln -s {} /v/link; while :; do mv /v/part /v/was; mv /v/link /v/part; mv /v/part /v/link; mv /v/was /v/part; done",
        secret.display()
    );
    engine.dozen(&["run", "-d", "--name", "attacker", "-v", "vol:/v", "busybox", "sh", "-c", &swap]).expect(0);
    let options = "type=volume,src=vol,dst=/part,volume-subpath=part";
    let mut mounted = 0;
    for _ in 0..20 {
        let done = engine.dozen(&["run", "--rm", "--mount", options, "busybox", "sh", "-c", "cat /part/mark; true"]);
        assert!(!done.out.contains("the host's"), "{done:?}");
        mounted += u32::from(done.code == 0);
        assert!(done.code == 0 || done.err.contains("cannot access path"), "{done:?}");
    }
    println!("the part was there {mounted} times of 20");
    engine.dozen(&["rm", "-f", "attacker"]).expect(0);
}

#[test]
fn what_is_below_a_bind_comes_along_or_not_and_is_read_only_or_not() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let source = machine.directory().join("tree");
    std::fs::create_dir_all(source.join("below")).unwrap();
    machine.run("mount", &["-t", "tmpfs", "tmpfs", source.join("below").to_str().unwrap()]).expect(0);
    let script = "touch /m/x 2>/dev/null && echo -n top,; touch /m/below/x 2>/dev/null && echo -n below,; \
                  grep -c ' /m/below ' /proc/mounts; true";
    for (options, want) in [
        ("", "top,below,1\n"),
        (",readonly", "0\n"),
        (",readonly,bind-recursive=writable", "below,1\n"),
        (",readonly,bind-propagation=rprivate,bind-recursive=readonly", "1\n"),
        (",bind-recursive=disabled", "top,below,0\n"),
        (",bind-nonrecursive,readonly", "0\n"),
    ] {
        // Read-only for what is below too, unless it is said: as Docker since 25.
        let want = if options == ",readonly" { "1\n" } else { want };
        let options = format!("type=bind,src={},dst=/m{options}", source.display());
        assert_eq!(say(&engine, &options, &[], script), want, "{options}");
    }
    // Older clients know it otherwise.
    let body = serde_json::json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": {"Mounts": [
        {"Type": "bind", "Source": source, "Target": "/m", "ReadOnly": true}
    ]}});
    for (version, want) in [("v1.43", "below,1\n"), ("v1.44", "1\n")] {
        let created = post(&machine, &format!("/{version}/containers/create?name={version}"), &body);
        assert!(created.starts_with("HTTP/1.1 201"), "{created}");
        assert_eq!(engine.dozen(&["start", "-a", version]).text(), want, "{version}");
    }
}

/// Who binds it has not asked for more.
#[test]
fn what_is_read_only_on_the_host_is_so_in_a_container() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let source = machine.directory().join("tree");
    std::fs::create_dir(&source).unwrap();
    let source = source.to_str().unwrap();
    machine.run("mount", &["--bind", source, source]).expect(0);
    machine.run("mount", &["-o", "remount,bind,ro", source]).expect(0);
    let options = format!("type=bind,src={source},dst=/m");
    assert_eq!(say(&engine, &options, &[], "touch /m/x 2>/dev/null || echo no"), "no\n");
    let line = ["run", "--rm", "-v", &format!("{source}:/m"), "busybox", "touch", "/m/x"];
    engine.dozen(&line).expect(1);
    machine.run("umount", &[source]).expect(0);
}

#[test]
fn the_file_system_of_an_image_is_mounted_and_the_image_kept() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["create", "--name", "template", "busybox", "true"]).expect(0);
    engine.dozen(&["rm", "template"]).expect(0);
    let made = "echo mine >/made; ln -s /etc/passwd /link; exit 0";
    engine.dozen(&["run", "--name", "maker", "busybox", "sh", "-c", made]).expect(0);
    engine.dozen(&["commit", "maker", "tools"]).expect(0);
    engine.dozen(&["rm", "maker"]).expect(0);
    let look = "cat /t/made; ls /t/bin | grep -c busybox; touch /t/x 2>&1 | grep -o 'Read-only file system'; \
                mount -o remount,rw /t 2>/dev/null && touch /t/x; test ! -e /t/x && echo safe";
    let options = "type=image,src=tools,dst=/t";
    let want = "mine\n1\nRead-only file system\nsafe\n";
    assert_eq!(say(&engine, options, &[], look), want);
    assert_eq!(say(&engine, options, &["--privileged"], look), want);
    // One layer alone is nobody's to write to either.
    let single = "touch /t/x 2>&1 | grep -o 'Read-only file system'; mount -o remount,rw /t 2>/dev/null; touch /t/x 2>/dev/null; test ! -e /t/x && echo safe";
    assert_eq!(
        say(&engine, "type=image,src=busybox,dst=/t", &["--privileged"], single),
        "Read-only file system\nsafe\n"
    );
    // A part of it; a link leads nowhere but into the image.
    assert_eq!(say(&engine, "type=image,src=tools,dst=/t,image-subpath=made", &[], "cat /t"), "mine\n");
    assert_eq!(
        say(&engine, "type=image,src=tools,dst=/t,image-subpath=bin", &[], "test -e /t/busybox && echo yes"),
        "yes\n"
    );
    let refused =
        engine.dozen(&["run", "--rm", "--mount", "type=image,src=nothing,dst=/t", "busybox", "true"]).expect(125);
    assert!(refused.err.contains("No such image: nothing"), "{refused:?}");
    // It is in use.
    engine.dozen(&["run", "-d", "--name", "user", "--mount", options, "busybox", "sleep", "1000"]).expect(0);
    let refused = engine.dozen(&["rmi", "tools"]).expect(1);
    assert!(refused.err.contains("in use") || refused.err.contains("is using"), "{refused:?}");
    assert_eq!(
        engine.dozen(&["inspect", "-f", "{{(index .Mounts 0).Type}} {{(index .Mounts 0).RW}}", "user"]).text(),
        "image false\n"
    );
    engine.dozen(&["rm", "-f", "user"]).expect(0);
    engine.dozen(&["rmi", "tools"]).expect(0);
}

#[test]
fn the_container_s_user_owns_what_the_host_s_does() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let source = machine.directory().join("owned");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "x").unwrap();
    std::os::unix::fs::chown(source.join("file"), Some(0), Some(0)).unwrap();
    let options = format!("type=bind,src={},dst=/m,uid=1000,gid=2000", source.display());
    let script = "stat -c %u:%g /m /m/file; touch /m/new && stat -c %u:%g /m/new";
    let said = say(&engine, &options, &["--user", "1000:2000"], script);
    assert_eq!(said, "1000:2000\n1000:2000\n1000:2000\n");
    let owner = |name: &str| {
        let metadata = std::fs::metadata(source.join(name)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!((owner("file"), owner("new")), ((0, 0), (0, 0)));
    // A volume that belongs to somebody else, for the container's root.
    engine.dozen(&["volume", "create", "data"]).expect(0);
    let data = mountpoint(&engine, "data");
    std::os::unix::fs::chown(&data, Some(70), Some(71)).unwrap();
    let options = "type=volume,src=data,dst=/m,uid=0,gid=0,volume-nocopy";
    assert_eq!(say(&engine, options, &[], "touch /m/x; stat -c %u:%g /m /m/x"), "0:0\n0:0\n");
    assert_eq!(std::fs::metadata(data.join("x")).unwrap().uid(), 70);
    // Where the file system cannot, it is said, and nothing is mounted with other owners.
    let sys = "type=bind,src=/proc,dst=/m,uid=5";
    let refused = engine.dozen(&["run", "--rm", "--mount", sys, "busybox", "true"]).expect(125);
    assert!(refused.err.contains("cannot be idmapped"), "{refused:?}");
}

#[test]
fn a_volume_is_exported_and_imported_whole() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let fill = "mkdir /v/d; echo x >/v/d/file; chown 5:6 /v/d/file; ln -s d/file /v/link; chmod 750 /v";
    engine.dozen(&["run", "--rm", "-v", "first:/v", "busybox", "sh", "-c", fill]).expect(0);
    let archive = machine.directory().join("first.tar");
    let archive = archive.to_str().unwrap();
    engine.dozen(&["volume", "export", "-o", archive, "first"]).expect(0);
    engine.dozen(&["volume", "import", "second", archive]).refuses(1, &["no such volume"]);
    engine.dozen(&["volume", "create", "second"]).expect(0);
    engine.dozen(&["volume", "import", "second", archive]).expect(0);
    let look = "stat -c '%a %u:%g %n' /v /v/d/file; cat /v/link";
    let said = engine.dozen(&["run", "--rm", "-v", "second:/v", "busybox", "sh", "-c", look]).text();
    assert_eq!(said, "750 0:0 /v\n644 5:6 /v/d/file\nx\n");
    // All or nothing, and never mixed with what is there.
    engine.dozen(&["volume", "import", "second", archive]).refuses(1, &["the volume is not empty"]);
    engine.dozen(&["volume", "create", "third"]).expect(0);
    let cut = machine.directory().join("cut.tar");
    let whole = std::fs::read(archive).unwrap();
    std::fs::write(&cut, &whole[..1300]).unwrap();
    engine.dozen(&["volume", "import", "third", cut.to_str().unwrap()]).expect(1);
    let third = mountpoint(&engine, "third");
    assert_eq!(std::fs::read_dir(&third).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(third.parent().unwrap()).unwrap().count(), 1);
    engine.dozen(&["run", "-d", "--name", "user", "-v", "third:/data", "busybox", "sleep", "1000"]).expect(0);
    engine.dozen(&["volume", "import", "third", archive]).refuses(1, &["volume is in use"]);
    engine.dozen(&["rm", "-f", "user"]).expect(0);
    engine.dozen(&["volume", "export", "nothing"]).refuses(1, &["no such volume"]);
}

#[test]
fn a_missing_source_is_refused_at_once_or_made_when_the_container_starts() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let place = |name: &str| machine.directory().join(name);
    let bind = |name: &str, more: &str| format!("type=bind,src={},dst=/m{more}", place(name).display());
    for program in [docker_program(), dozen_program()] {
        let refused = machine.run(&program, &["create", "--mount", &bind("missing", ""), "busybox"]);
        let words = format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            place("missing").display()
        );
        assert!(refused.code != 0 && refused.err.contains(&words), "{refused:?}");
        assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
        // By -v it is made, and by the start, not before.
        let volume = format!("{}:/m", place("made").display());
        machine.run(&program, &["create", "--name", "it", "-v", &volume, "busybox", "touch", "/m/x"]).expect(0);
        assert!(!place("made").exists());
        machine.run(&program, &["start", "-a", "it"]).expect(0);
        assert!(place("made/x").exists());
        machine.run(&program, &["rm", "it"]).expect(0);
        std::fs::remove_dir_all(place("made")).unwrap();
    }
    let made = bind("asked", ",bind-create-src");
    engine.dozen(&["run", "--rm", "--mount", &made, "busybox", "touch", "/m/x"]).expect(0);
    assert!(place("asked/x").exists());
    // What was there and goes afterwards is the start's to say.
    std::fs::create_dir(place("gone")).unwrap();
    engine.dozen(&["create", "--name", "late", "--mount", &bind("gone", ""), "busybox", "true"]).expect(0);
    std::fs::remove_dir(place("gone")).unwrap();
    let failed = engine.dozen(&["start", "late"]).expect(1);
    assert!(failed.err.contains("bind source path does not exist"), "{failed:?}");
}
