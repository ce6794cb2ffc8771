//! `cp`, with the docker CLI and with dozen's own: what goes where, as whose, and that nothing leads out of a container.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use dozen_testbox::{Done, Engine, Machine, docker_program, dozen_program, python_program, until};

/// A CLI, and a directory of the host's to copy from and to.
struct Copier<'a> {
    machine: &'a Machine,
    program: PathBuf,
    place: PathBuf,
}

impl Copier<'_> {
    fn run(&self, arguments: &[&str]) -> Done {
        self.machine.run(&self.program, arguments)
    }

    #[track_caller]
    fn cp(&self, arguments: &[&str]) {
        self.run(&[&["cp"], arguments].concat()).expect(0);
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], words: &str) {
        let done = self.run(&[&["cp"], arguments].concat());
        assert!(done.code != 0 && done.err.contains(words), "{done:?}");
    }

    fn at(&self, name: &str) -> String {
        self.place.join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.place.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// With both programs, on one engine.
fn with_both(test: impl Fn(&Copier<'_>, &Engine<'_>, &str)) {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    for (program, name) in [(docker_program(), "docker"), (dozen_program(), "dozen")] {
        let place = machine.directory().join(format!("of-{name}"));
        fs::create_dir(&place).unwrap();
        test(&Copier { machine: &machine, program, place }, &engine, name);
    }
}

fn tree(place: &Path) {
    fs::create_dir_all(place.join("tree/below")).unwrap();
    fs::write(place.join("tree/one"), "one").unwrap();
    fs::write(place.join("tree/below/two"), "two").unwrap();
    symlink("below/two", place.join("tree/link")).unwrap();
    // In this order: a change of owner takes the set-user-id bit away.
    std::os::unix::fs::chown(place.join("tree/one"), Some(1234), Some(5678)).unwrap();
    fs::set_permissions(place.join("tree/one"), fs::Permissions::from_mode(0o4751)).unwrap();
}

const IDLE: &[&str] = &["--network", "none", "busybox", "sleep", "1000"];

#[test]
fn files_and_directories_go_both_ways_whatever_the_container_does() {
    with_both(|copier, engine, name| {
        tree(&copier.place);
        for state in ["created", "running", "stopped"] {
            let container = format!("{name}-{state}");
            engine.dozen(&[&["create", "--name", &container], IDLE].concat()).expect(0);
            if state != "created" {
                engine.dozen(&["start", &container]).expect(0);
            }
            if state == "stopped" {
                engine.dozen(&["stop", "-t", "0", &container]).expect(0);
            }
            let inside = |path: &str| format!("{container}:{path}");
            let outside = |name: &str| copier.at(&format!("{state}-{name}"));
            // Into a directory that is there; under a new name; only what is in it.
            copier.cp(&[&copier.at("tree"), &inside("/tmp")]);
            copier.cp(&[&copier.at("tree"), &inside("/tmp/renamed")]);
            copier.cp(&[&format!("{}/.", copier.at("tree")), &inside("/mnt")]);
            copier.cp(&[&copier.at("tree/one"), &inside("/mnt/file")]);
            copier.cp(&[&copier.at("tree/below/two"), &inside("/mnt/one")]);
            // And out again, the same three ways.
            fs::create_dir(outside("there")).unwrap();
            copier.cp(&[&inside("/tmp/tree"), &outside("there")]);
            copier.cp(&[&inside("/tmp/renamed/"), &outside("new")]);
            copier.cp(&[&inside("/mnt/."), &outside("dot")]);
            copier.cp(&[&inside("/mnt/file"), &outside("one")]);
            for path in ["there/tree/one", "new/one", "dot/file", "one"] {
                assert_eq!(copier.read(&format!("{state}-{path}")), "one", "{state} {path}");
            }
            for path in ["there/tree/below/two", "new/below/two", "dot/one", "dot/link"] {
                assert_eq!(copier.read(&format!("{state}-{path}")), "two", "{state} {path}");
            }
            assert_eq!(fs::read_link(outside("new/link")).unwrap(), Path::new("below/two"));
            // As the archive says inside; whoever copies has it outside.
            let one = fs::metadata(outside("one")).unwrap();
            assert_eq!((one.mode() & 0o7777, one.uid(), one.gid()), (0o4751, 0, 0));
            assert_eq!(one.mtime(), fs::metadata(copier.at("tree/one")).unwrap().mtime());
            engine.dozen(&["start", &container]).expect(0);
            let seen = engine.dozen(&["exec", &container, "stat", "-c", "%a %u %g", "/mnt/file"]);
            assert_eq!(seen.text(), "4751 1234 5678\n");
            engine.dozen(&["rm", "-f", &container]).expect(0);
        }
    });
}

#[test]
fn links_are_followed_where_it_is_asked() {
    with_both(|copier, engine, name| {
        tree(&copier.place);
        engine.dozen(&[&["run", "-d", "--name", name], IDLE].concat()).expect(0);
        let script =
            "mkdir -p /srv/real && echo deep >/srv/real/file && ln -s /srv/real /srv/link && ln -s real/file /srv/f";
        engine.dozen(&["exec", name, "sh", "-c", script]).expect(0);
        let inside = |path: &str| format!("{name}:{path}");
        copier.cp(&[&inside("/srv/f"), &copier.at("as-link")]);
        assert_eq!(fs::read_link(copier.at("as-link")).unwrap(), Path::new("real/file"));
        copier.cp(&["-L", &inside("/srv/f"), &copier.at("followed")]);
        assert_eq!(copier.read("followed"), "deep\n");
        copier.cp(&["-L", &inside("/srv/link"), &copier.at("directory")]);
        assert_eq!(copier.read("directory/file"), "deep\n");
        // A destination that is a link leads where it leads, and an absolute one is the container's.
        copier.cp(&[&copier.at("tree/one"), &inside("/srv/link")]);
        engine.dozen(&["exec", name, "test", "-f", "/srv/real/one"]).expect(0);
        // Of the host.
        copier.cp(&[&copier.at("tree/link"), &inside("/tmp/as-link")]);
        assert_eq!(engine.dozen(&["exec", name, "readlink", "/tmp/as-link"]).text(), "below/two\n");
        copier.cp(&["-L", &copier.at("tree/link"), &inside("/tmp/followed")]);
        assert_eq!(engine.dozen(&["exec", name, "cat", "/tmp/followed"]).text(), "two");
        engine.dozen(&["rm", "-f", name]).expect(0);
    });
}

#[test]
fn with_archive_mode_files_become_the_containers_users() {
    with_both(|copier, engine, name| {
        tree(&copier.place);
        engine.dozen(&[&["run", "-d", "--user", "99:98", "--name", name], IDLE].concat()).expect(0);
        copier.cp(&["-a", &copier.at("tree"), &format!("{name}:/tmp")]);
        let seen = engine.dozen(&["exec", name, "stat", "-c", "%u %g", "/tmp/tree/one", "/tmp/tree"]);
        assert_eq!(seen.text(), "99 98\n99 98\n");
        engine.dozen(&["rm", "-f", name]).expect(0);
    });
}

#[test]
fn what_is_mounted_is_seen_and_what_is_read_only_stays_so() {
    with_both(|copier, engine, name| {
        tree(&copier.place);
        let (bind, volume) = (copier.at("bind"), format!("{name}-data:/data"));
        fs::create_dir(&bind).unwrap();
        let bound = format!("{bind}:/bind");
        let mounts = ["-v", &volume, "-v", &bound, "-v", "/usr:/usr-of-the-host:ro", "--tmpfs", "/memory"];
        engine.dozen(&[&["create", "--name", name][..], &mounts, IDLE].concat()).expect(0);
        let inside = |path: &str| format!("{name}:{path}");
        for state in ["created", "running"] {
            if state == "running" {
                engine.dozen(&["start", name]).expect(0);
                copier.cp(&[&copier.at("tree/one"), &inside("/memory")]);
                engine.dozen(&["exec", name, "test", "-f", "/memory/one"]).expect(0);
            }
            copier.cp(&[&copier.at("tree/one"), &inside(&format!("/data/{state}"))]);
            copier.cp(&[&copier.at("tree/one"), &inside(&format!("/bind/{state}"))]);
            assert_eq!(fs::read_to_string(format!("{bind}/{state}")).unwrap(), "one");
            copier.fails(&[&copier.at("tree/one"), &inside("/usr-of-the-host")], "mounted volume is marked read-only");
        }
        let listed = engine.dozen(&["run", "--rm", "-v", &volume, "busybox", "ls", "/data"]);
        assert_eq!(listed.text(), "created\nrunning\n");
        engine.dozen(&["rm", "-f", name]).expect(0);

        engine.dozen(&[&["create", "--read-only", "-v", &volume, "--name", name][..], IDLE].concat()).expect(0);
        for _ in 0..2 {
            copier.fails(&[&copier.at("tree/one"), &inside("/tmp")], "container rootfs is marked read-only");
            copier.cp(&[&copier.at("tree/one"), &inside("/data/one")]);
            copier.cp(&[&inside("/data/one"), &copier.at("back")]);
            engine.dozen(&["start", name]).expect(0);
        }
        engine.dozen(&["rm", "-f", name]).expect(0);
    });
}

#[test]
fn archives_come_from_stdin_and_go_to_stdout() {
    with_both(|copier, engine, name| {
        tree(&copier.place);
        engine.dozen(&[&["create", "--name", name], IDLE].concat()).expect(0);
        let program = copier.program.to_str().unwrap().to_owned();
        let (place, script) = (
            copier.place.to_str().unwrap(),
            r#"
            set -e; cd "$2"
            tar -c tree | "$1" cp - "$3":/tmp
            "$1" cp "$3":/tmp/tree - | tar -x --one-top-level=out"#,
        );
        let sh = Path::new("/bin/sh");
        copier.machine.run(sh, &["-c", script, "sh", &program, place, name]).expect(0);
        assert_eq!(copier.read("out/tree/below/two"), "two");
        copier.fails(&["-", &format!("{name}:/etc/passwd")], "must be a directory");
        engine.dozen(&["rm", name]).expect(0);
    });
}

#[test]
fn what_cannot_be_copied_is_said_in_dockers_words() {
    with_both(|copier, engine, name| {
        tree(&copier.place);
        engine.dozen(&[&["create", "--name", name], IDLE].concat()).expect(0);
        let inside = |path: &str| format!("{name}:{path}");
        let place = copier.at("");
        copier.fails(&[&inside("/nope"), &place], &format!("Could not find the file /nope in container {name}"));
        copier.fails(&["nobody:/etc", &place], "No such container: nobody");
        copier.fails(&[&copier.at("nope"), &inside("/")], "no such file or directory");
        copier.fails(&[&inside("/etc"), &copier.at("tree/one")], "cannot copy directory");
        copier.fails(&[&copier.at("tree/one"), &inside("/nope/")], "no such directory");
        copier.fails(&[&copier.at("tree/one"), &inside("/nope/file")], "Could not find the file /nope");
        copier.fails(&[&inside("/a"), &inside("/b")], "copying between containers is not supported");
        copier.fails(&["a", "b"], "must specify at least one container source");
        // A directory and a file do not take one another's place.
        copier.cp(&[&copier.at("tree"), &inside("/tmp/one")]);
        copier.fails(&[&copier.at("tree/one"), &inside("/tmp")], "cannot overwrite directory");
        engine.dozen(&["rm", name]).expect(0);
    });
}

/// A container that puts a link in the place of a directory again and again, while files are copied below it: they land
/// in the container or nowhere.
#[test]
fn a_link_that_is_swapped_under_a_copy_leads_nowhere_outside() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let place = machine.directory().join("outside");
    fs::create_dir_all(place.join("from/d/e")).unwrap();
    fs::write(place.join("from/d/e/canary"), "x").unwrap();
    let target = place.join("target");
    fs::create_dir_all(target.join("e")).unwrap();
    let script = format!(
        "mkdir /x; echo up; while :; do mkdir -p /x/d/e 2>/dev/null; rm -rf /x/d; ln -s {} /x/d; rm -f /x/d; ln -s ../../../../../..{} /x/d; rm -f /x/d; done",
        target.display(),
        target.display()
    );
    engine.dozen(&["run", "-d", "--name", "liar", "--network", "none", "busybox", "sh", "-c", &script]).expect(0);
    until("it swaps", || engine.dozen(&["logs", "liar"]).out.contains("up").then_some(()));
    let from = format!("{}/.", place.join("from").display());
    for _ in 0..40 {
        // Some of them succeed, into the container; some meet what is in the way.
        drop(engine.dozen(&["cp", &from, "liar:/x"]));
        drop(engine.dozen(&["cp", "liar:/x/d/e", &place.join("out").display().to_string()]));
        assert_eq!(fs::read_dir(target.join("e")).unwrap().count(), 0, "a file came out of the container");
    }
    engine.dozen(&["rm", "-f", "liar"]).expect(0);
}

/// What the container's own links say is meant inside; what an archive has, device nodes too, is made inside.
#[test]
fn hostile_names_and_archives_stay_inside() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let place = machine.directory().join("outside");
    fs::create_dir(&place).unwrap();
    engine.dozen(&["run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "1000"]).expect(0);
    let outside = place.display().to_string();
    engine.dozen(&["exec", "box", "sh", "-c", &format!("ln -s {outside} /out; ln -s /proc/1/root /self")]).expect(0);
    fs::write(place.join("file"), "x").unwrap();
    let file = format!("{outside}/file");
    engine.dozen(&["cp", &file, "box:/out/"]).refuses(1, &["no such directory"]);
    engine.dozen(&["cp", &file, "box:/self/"]).refuses(1, &["no such directory"]);
    engine.dozen(&["cp", &file, "box:/../../../tmp/up"]).expect(0);
    engine.dozen(&["exec", "box", "cat", "/tmp/up"]).expect(0);
    let program = r#"
import docker, io, tarfile, sys
def archive(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for kind, name, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, link, 0o644
            member.devmajor, member.devminor = 1, 3
            tar.addfile(member)
    return out.getvalue()
container = docker.from_env().containers.get("box")
outside = sys.argv[1]
def refused(data):
    try:
        container.put_archive("/tmp", data)
    except docker.errors.APIError as error:
        return error.status_code
container.put_archive("/tmp", archive((tarfile.CHRTYPE, "null", ""), (tarfile.FIFOTYPE, "pipe", "")))
assert refused(archive((tarfile.REGTYPE, "../../escape", ""))) == 400
container.put_archive("/tmp", archive((tarfile.REGTYPE, "/absolute", "")))
container.put_archive("/tmp", archive((tarfile.SYMTYPE, "l", outside)))
assert refused(archive((tarfile.REGTYPE, "l/canary", ""))) in (None, 400)
assert refused(archive((tarfile.LNKTYPE, "hard", outside + "/file"))) == 400
assert refused(b"no archive at all" * 100) == 400
stream, stat = container.get_archive("/tmp/pipe")
assert stat["mode"] & 1 << 25, stat
stream, stat = container.get_archive("/dev/null")
data = tarfile.open(fileobj=io.BytesIO(b"".join(stream))).getmembers()
assert [(m.name, m.type) for m in data] == [("null", tarfile.CHRTYPE)], data
_, stat = container.get_archive("/out")
assert stat["linkTarget"] == outside, stat
"#;
    machine.run(python_program(), &["-c", program, &outside]).expect(0);
    let seen = engine.dozen(&["exec", "box", "sh", "-c", "test -c /tmp/null && test -p /tmp/pipe && ls /tmp/absolute"]);
    seen.expect(0);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "something came out");
    // A pipe nobody writes to is an entry, and holds nobody up.
    engine.dozen(&["cp", "box:/tmp", &format!("{outside}/copied")]).expect(0);
    engine.dozen(&["rm", "-f", "box"]).expect(0);
}

/// What is mounted of a volume or an image, and as whose, is so whether it runs or not.
#[test]
fn parts_images_and_other_owners_are_seen_in_who_does_not_run() {
    with_both(|copier, engine, name| {
        tree(&copier.place);
        let (volume, container) = (format!("{name}-volume"), format!("{name}-parts"));
        engine.dozen(&["volume", "create", &volume]).expect(0);
        let data = engine.dozen(&["volume", "inspect", "-f", "{{.Mountpoint}}", &volume]).text();
        let data = Path::new(data.trim());
        fs::create_dir_all(data.join("a/b")).unwrap();
        fs::write(data.join("a/b/file"), "deep").unwrap();
        fs::write(data.join("secret"), "beside").unwrap();
        symlink("/secret", data.join("a/b/link")).unwrap();
        let mounts = [
            format!("type=volume,src={volume},dst=/part,volume-subpath=a/b"),
            format!("type=volume,src={volume},dst=/one,volume-subpath=a/b/file"),
            format!("type=volume,src={volume},dst=/theirs,uid=1000,gid=1000"),
            "type=image,src=busybox,dst=/tools".to_owned(),
            "type=image,src=busybox,dst=/etc-of-it,image-subpath=etc".to_owned(),
        ];
        let mut line = vec!["create", "--name", &container];
        mounts.iter().for_each(|mount| line.extend(["--mount", mount]));
        line.extend(["busybox", "sh", "-c", "cat /part/new; stat -c %u /theirs/a/b/new /theirs/owned"]);
        engine.dozen(&line).expect(0);
        let inside = |path: &str| format!("{container}:{path}");
        let out = |path: &str, to: &str| {
            copier.cp(&[&inside(path), &copier.at(to)]);
            copier.read(to)
        };
        assert_eq!((out("/part/file", "1").as_str(), out("/one", "2").as_str()), ("deep", "deep"));
        assert_eq!(out("/etc-of-it/passwd", "3"), out("/tools/etc/passwd", "4"));
        // A link in a part leads within the container, where there is no such file.
        copier.fails(&["-L", &inside("/part/link"), &copier.at("5")], "ould not find the file /secret");
        copier.fails(&[&copier.at("tree/below/two"), &inside("/tools/new")], "ead-only");
        copier.cp(&[&copier.at("tree/below/two"), &inside("/part/new")]);
        copier.cp(&[&copier.at("tree/below/two"), &inside("/theirs/owned")]);
        assert_eq!(fs::read_to_string(data.join("a/b/new")).unwrap(), "two");
        assert!(!data.join("new").exists());
        let seen = engine.dozen(&["start", "-a", &container]).text();
        // Whoever it is on disk, and on both sides.
        assert!(seen.starts_with("two"), "{seen}");
        assert_eq!(fs::metadata(data.join("a/b/new")).unwrap().uid(), 0);
        // A part that is not there is named.
        let missing = format!("type=volume,src={volume},dst=/part,volume-subpath=nowhere");
        engine.dozen(&["create", "--name", &format!("{name}-lost"), "--mount", &missing, "busybox"]).expect(0);
        copier.fails(&[&format!("{name}-lost:/etc/passwd"), &copier.at("6")], "cannot access path");
        engine.dozen(&["rm", &container, &format!("{name}-lost")]).expect(0);
    });
}
