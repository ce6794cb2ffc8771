//! Artifacts in containers: where their files are, who may do what with them, and how long they stay.

use dozen_testbox::{Counted, Daemon, Done, Engine, Machine, dozen_program};
use serde_json::{Value, json};

use crate::{artifact, file, inspect, kept, noise};

const ONE: &str = "registry.example/one:1";
const TWO: &str = "registry.example/two:1";

fn add(machine: &Machine, engine: &Engine<'_>, name: &str, files: &[(&str, &[u8])]) {
    let paths: Vec<String> = files.iter().map(|(name, bytes)| file(machine, &format!("in/{name}"), bytes)).collect();
    let mut words = vec!["add", "--replace", name];
    words.extend(paths.iter().map(String::as_str));
    artifact(engine, &words).expect(0);
}

/// Of one file, and of two.
fn two_artifacts(machine: &Machine, engine: &Engine<'_>) {
    add(machine, engine, ONE, &[("note.txt", b"a note\n")]);
    add(machine, engine, TWO, &[("a", b"the first\n"), ("b", b"the second\n")]);
}

fn run(engine: &Engine<'_>, options: &str, more: &[&str], script: &str) -> Done {
    let mount = format!("type=artifact,{options}");
    let mut line = vec!["run", "--rm", "--mount", &mount];
    line.extend(more);
    line.extend(["busybox", "sh", "-c", script]);
    engine.dozen(&line)
}

#[test]
fn files_are_mounted_where_the_image_has_a_directory_a_file_or_nothing() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    two_artifacts(&machine, &engine);
    let digest = inspect(&engine, ONE)["Manifest"]["layers"][0]["digest"].as_str().unwrap().to_owned();
    let named = digest.replace(':', "-");
    // Files are looked at, each with its name before it.
    let show = |options: &str, files: &str| run(&engine, options, &[], &format!("cd /; head -n 9 {files}")).text();
    for (options, files, want) in [
        // Nothing is there.
        (format!("src={ONE},dst=/made/here"), "-v made/here", "==> made/here <==\na note\n".to_owned()),
        (format!("src={TWO},dst=/m"), "-v m/*", "==> m/a <==\nthe first\n\n==> m/b <==\nthe second\n".into()),
        (format!("src={TWO},dst=/m,title=b"), "-v m", "==> m <==\nthe second\n".into()),
        (
            format!("src={TWO},dst=/m,name=n"),
            "-v m/*",
            "==> m/n-0 <==\nthe first\n\n==> m/n-1 <==\nthe second\n".into(),
        ),
        (format!("src={ONE},dst=/m,name=n"), "-v m", "==> m <==\na note\n".into()),
        // A file.
        (format!("src={ONE},dst=/etc/passwd"), "-v etc/passwd", "==> etc/passwd <==\na note\n".into()),
        // A directory: what else is in it stays.
        (
            format!("src={ONE},dst=/etc"),
            "-v etc/note.txt etc/hostname | head -n 3",
            "==> etc/note.txt <==\na note\n\n".into(),
        ),
        (format!("src={TWO},dst=/tmp"), "-v tmp/*", "==> tmp/a <==\nthe first\n\n==> tmp/b <==\nthe second\n".into()),
        (format!("src={TWO},dst=/tmp,title=a,name=n"), "-v tmp/*", "==> tmp/n <==\nthe first\n".into()),
        (format!("src={ONE},dst=/tmp,digest={digest}"), "-v tmp/*", format!("==> tmp/{named} <==\na note\n")),
    ] {
        assert_eq!(show(&options, files), want, "{options}");
    }
    // The directory is the container's.
    let beside = "echo mine >/tmp/mine; cat /tmp/mine /tmp/note.txt; rm /tmp/note.txt 2>&1 | grep -o busy";
    assert_eq!(run(&engine, &format!("src={ONE},dst=/tmp"), &[], beside).text(), "mine\na note\nbusy\n");
    // One artifact by the beginning of its digest, several of them, and one in what another container mounts.
    let short = &inspect(&engine, ONE)["Digest"].as_str().unwrap()[7..19].to_owned();
    let second = format!("type=artifact,src={TWO},dst=/tmp");
    let both = run(&engine, &format!("src={short},dst=/tmp"), &["--mount", "type=tmpfs,dst=/var"], "cat /tmp/note.txt");
    assert_eq!(both.text(), "a note\n");
    let both = run(&engine, &format!("src={ONE},dst=/etc"), &["--mount", &second], "cat /etc/note.txt /tmp/b");
    assert_eq!(both.text(), "a note\nthe second\n");

    for (options, words) in [
        ("src=nothing,dst=/m".to_owned(), "nothing:latest: artifact does not exist"),
        (
            format!("src={TWO},dst=/etc/passwd"),
            "contains more than one blob and container path \"/etc/passwd\" is a file",
        ),
        (format!("src={TWO},dst=/m,title=c"), "no blob with the title \"c\""),
        (format!("src={TWO},dst=/m,title=a,digest={digest}"), "cannot specify both digest and title"),
        (format!("src={TWO},dst=/m,digest=x"), "invalid"),
        (format!("src={TWO},dst=/m,name=../n"), "artifact blob title is invalid"),
        (format!("src={ONE},dst=/proc"), "/proc"),
        (format!("src={ONE},dst=/"), "destination can't be '/'"),
        (format!("src={TWO},dst=/m,ro=false"), "the files of an artifact are read-only"),
        (format!("src={TWO},dst=/m,uid=5"), "cannot mix 'uid' and 'gid' with mount type 'artifact'"),
        ("dst=/m".to_owned(), "source is required for an artifact mount"),
    ] {
        let refused = run(&engine, &options, &["--pull", "never"], "true");
        assert!(refused.code == 125 && refused.err.contains(words), "{options}: {refused:?}");
    }
    // A stranger's names take no other mount's place.
    let taken = ["-v", "data:/tmp/a"];
    run(&engine, &format!("src={TWO},dst=/tmp"), &taken, "true").refuses(125, &["Duplicate mount point: /tmp/a"]);
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
    assert_eq!(std::fs::read_dir(machine.directory().join("data/containers")).unwrap().count(), 0);
}

/// A manifest of somebody else's, by the way that a pull takes: a registry that has it.
#[test]
fn names_that_lead_elsewhere_are_not_mounted() {
    use crate::registry::{Between, Registry, reply};
    use std::sync::{Arc, Mutex};

    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{}/team/notes:1", crate::server::HOST);
    add(&machine, &engine, &name, &[("a", b"the first\n"), ("b", b"the second\n")]);
    artifact(&engine, &["push", &name]).expect(0);
    let manifest = inspect(&engine, &name)["Manifest"].clone();
    let said = Arc::new(Mutex::new(manifest.clone()));
    let told = said.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        match asked.path.contains("/manifests/") && asked.method == "GET" {
            true => {
                let kind = "application/vnd.oci.image.manifest.v1+json";
                reply("200 OK", &[("Content-Type", kind)], told.lock().unwrap().to_string().as_bytes())
            }
            false => asked.forward(),
        }
    });
    let hostile = format!("{}/team/notes:1", between.host);
    let long = "x".repeat(256);
    for (titles, words) in [
        (["../../etc/passwd", "b"], "artifact blob title is invalid"),
        (["/etc/passwd", "b"], "artifact blob title is invalid"),
        (["..", "b"], "artifact blob title is invalid"),
        (["a/b", "b"], "artifact blob title is invalid"),
        (["a\u{0}", "b"], "artifact blob title is invalid"),
        (["a\nb", "b"], "artifact blob title is invalid"),
        ([long.as_str(), "b"], "artifact blob title is invalid"),
        (["b", "b"], "more than one blob of the artifact has the name"),
    ] {
        let mut document = manifest.clone();
        for (layer, title) in titles.iter().enumerate() {
            document["layers"][layer]["annotations"] = json!({ "org.opencontainers.image.title": title });
        }
        *said.lock().unwrap() = document;
        artifact(&engine, &["pull", &hostile]).expect(0);
        for place in ["/m", "/tmp"] {
            let refused = run(&engine, &format!("src={hostile},dst={place}"), &[], "true");
            assert!(refused.code == 125 && refused.err.contains(words), "{titles:?}: {refused:?}");
        }
        // Called something else they do no harm.
        let list = run(&engine, &format!("src={hostile},dst=/m,name=n"), &[], "ls /m");
        assert_eq!(list.text(), "n-0\nn-1\n", "{titles:?}");
    }
    // The longest name, with everything in it that a file's may have.
    let odd = format!("é=,:\\ '\"$ {}", "x".repeat(255 - "é=,:\\ '\"$ ".len()));
    let mut document = manifest.clone();
    document["layers"][0]["annotations"] = json!({ "org.opencontainers.image.title": odd });
    *said.lock().unwrap() = document;
    artifact(&engine, &["pull", &hostile]).expect(0);
    for place in ["/m", "/tmp"] {
        let list =
            run(&engine, &format!("src={hostile},dst={place}"), &[], &format!("cd {place}; cat *; printf '%s\n' *"));
        assert_eq!(list.text(), format!("the second\nthe first\nb\n{odd}\n"), "{place}");
    }
    between.stop(&machine);
}

/// Whatever rights somebody has in a container.
#[test]
fn nobody_changes_the_files_of_the_store() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    two_artifacts(&machine, &engine);
    let state = || {
        let mut all = Vec::new();
        for path in std::fs::read_dir(machine.directory().join("data/content/sha256")).unwrap() {
            use std::os::unix::fs::MetadataExt;
            let path = path.unwrap().path();
            let it = std::fs::metadata(&path).unwrap();
            all.push((path.clone(), std::fs::read(path).unwrap(), it.mode(), it.uid(), it.ino(), it.mtime_nsec()));
        }
        all.sort();
        all
    };
    let before = state();
    // Nothing is changed: what is tried, by file, and by the mount as a whole.
    let attack = "for f in /m/a /tmp/a /alone; do
            (echo x >$f) 2>/dev/null && echo wrote $f; (echo x >>$f) 2>/dev/null && echo appended $f
            chmod 777 $f 2>/dev/null && echo chmod $f; chown 5 $f 2>/dev/null && echo chown $f
            touch -d 2001-01-01 $f 2>/dev/null && echo touched $f; truncate -s 0 $f 2>/dev/null && echo cut $f
            ln $f /linked 2>/dev/null && echo linked $f; mv $f /moved 2>/dev/null && echo moved $f
            mount -o remount,rw $f 2>/dev/null; mount -o remount,bind,rw $f 2>/dev/null
            mount -o remount,rw /m 2>/dev/null; mount -o remount,bind,rw /m 2>/dev/null
            (echo x >$f) 2>/dev/null && echo wrote $f at last
            exec 3<$f; (echo x >/proc/self/fd/3) 2>/dev/null && echo wrote $f by its descriptor; exec 3<&-
            umount $f 2>/dev/null
        done
        touch /m/new 2>/dev/null && ! umount /m 2>/dev/null && test -e /m/new && echo made
        ls -d /var/lib/dozen DATA 2>/dev/null; echo done";
    let attack = attack.replace("DATA", machine.directory().join("data").to_str().unwrap());
    let (beside, alone) = (format!("type=artifact,src={TWO},dst=/tmp"), format!("type=artifact,src={ONE},dst=/alone"));
    let mounts = ["--mount", beside.as_str(), "--mount", alone.as_str()];
    let options = format!("src={TWO},dst=/m");
    for more in [
        &[][..],
        &["--privileged"],
        &["--cap-add", "ALL"],
        &["--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"],
        &["--userns", "auto"],
        &["--userns", "auto", "--cap-add", "ALL"],
        &["--user", "1000:1000"],
    ] {
        let said = run(&engine, &options, &[more, &mounts].concat(), &attack);
        assert_eq!(said.out, "done\n", "{more:?}: {said:?}");
        assert!(state() == before, "{more:?}");
        // Everybody reads them.
        let read = "cat /m/a /tmp/b /alone; stat -c %u:%a /m/a /m";
        let said = run(&engine, &options, &[more, &mounts].concat(), read).text();
        assert_eq!(said, "the first\nthe second\na note\n0:644\n0:755\n", "{more:?}");
    }
    // Somebody who has the host's devices has the host; of what is on a mount, nothing more is seen than the files.
    let seen = run(&engine, &options, &[], "ls -a /m; ls -a /m/.. | grep -c content").out;
    assert_eq!(seen, ".\n..\na\nb\n0\n");
    // `cp` goes by the same mounts.
    engine
        .dozen(&[
            "create", "--name", "still", "--mount", &beside, "--mount", &alone, "busybox", "cat", "/tmp/b", "/alone",
        ])
        .expect(0);
    let to = machine.directory().join("copied").display().to_string();
    engine.dozen(&["cp", "still:/tmp/b", &to]).expect(0);
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "the second\n");
    for place in ["still:/tmp/b", "still:/alone"] {
        engine.dozen(&["cp", machine.directory().join("in/a").to_str().unwrap(), place]);
        assert!(state() == before, "{place}");
    }
    assert_eq!(engine.dozen(&["start", "-a", "still"]).text(), "the second\na note\n");
}

#[test]
fn a_container_keeps_its_files_until_it_goes() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    let (large, images) = (noise(3 << 20), kept(&machine));
    add(&machine, &engine, ONE, &[("large.bin", &large), ("note.txt", b"a note\n")]);
    let mount = format!("type=artifact,src={ONE},dst=/m");
    let (mount, serve) =
        (["--mount", mount.as_str()], ["busybox", "sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]);
    engine.dozen(&[&["run", "-d", "--name", "user"], &mount[..], &serve[..]].concat()).expect(0);
    engine.dozen(&[&["create", "--name", "other"], &mount[..], &serve[..]].concat()).expect(0);
    let shown = engine.dozen(&["inspect", "user"]).text();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let manifest = inspect(&engine, ONE)["Digest"].clone();
    let want = json!([{ "Type": "artifact", "Name": ONE, "Source": manifest, "Destination": "/m", "Mode": "", "RW": false,
                        "Propagation": "" }]);
    assert_eq!(shown[0]["Mounts"], want);
    assert_eq!(
        shown[0]["HostConfig"]["Mounts"],
        json!([{ "Type": "artifact", "Source": ONE, "Target": "/m", "ReadOnly": true }])
    );
    let agrees = |engine: &Engine<'_>, what: &str, want: &str| {
        let counted = Counted::of(&machine);
        assert!(counted.agree(), "{what}: {counted:#?}");
        let line =
            engine.dozen(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}}"]).text();
        let line = line.lines().find(|line| line.starts_with("Artifacts")).unwrap_or_default().to_owned();
        assert!(line.starts_with(want) && (want.is_empty() == line.is_empty()), "{what}: {line}");
    };
    agrees(&engine, "while it is there", "Artifacts 1 1 3.1");
    // podman lets it go as well; there the container then starts no more.
    artifact(&engine, &["rm", ONE]).expect(0);
    assert_eq!(kept(&machine), images);
    agrees(&engine, "after it was removed", "Artifacts 0 0 3.1");
    let look = |engine: &Engine<'_>| {
        engine.dozen(&["exec", "user", "sh", "-c", "cat /m/note.txt; wc -c </m/large.bin"]).text()
    };
    let want = format!("a note\n{}\n", 3 << 20);
    assert_eq!(look(&engine), want);
    engine.dozen(&["restart", "user"]).expect(0);
    assert_eq!(look(&engine), want);
    // Another one of this name is for the containers that are made from now on.
    add(&machine, &engine, ONE, &[("another", b"another\n")]);
    engine.dozen(&["restart", "user"]).expect(0);
    assert_eq!(look(&engine), want);
    assert_eq!(run(&engine, &format!("src={ONE},dst=/m"), &[], "cat /m").text(), "another\n");
    // So does the next engine see it.
    engine.kill();
    engine.restart();
    engine.dozen(&["restart", "user"]).expect(0);
    assert_eq!(look(&engine), want);
    agrees(&engine, "with another of its name", "Artifacts 1 0 3.1");
    engine.dozen(&["start", "other"]).expect(0);
    engine.dozen(&["rm", "-f", "user"]).expect(0);
    agrees(&engine, "with one of the two", "Artifacts 1 0 3.1");
    // Who has its mounts has the files too, as long as they can be had.
    let refused = engine.dozen(&["run", "--rm", "--volumes-from", "other", "busybox", "true"]);
    assert!(refused.code == 125 && refused.err.contains("artifact does not exist"), "{refused:?}");
    engine.dozen(&["rm", "-f", "other"]).expect(0);
    agrees(&engine, "when they have gone", "Artifacts 1 0 ");
    artifact(&engine, &["rm", ONE]).expect(0);
    agrees(&engine, "at the end", "");
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
}

#[test]
fn an_engine_that_dies_in_between_leaves_nothing_of_it() {
    let machine = Machine::new();
    let failpoints = machine.directory().join("failpoints");
    let start = || Daemon::with_failpoints(&machine, &failpoints);
    let mut daemon = Some(start());
    let archive = dozen_testbox::image_archive("busybox");
    let dozen = |words: &[&str]| machine.run(dozen_program(), words);
    dozen(&["load", "-i", archive.to_str().unwrap()]).expect(0);
    let paths = [file(&machine, "in/a", b"the first\n"), file(&machine, "in/b", b"the second\n")];
    dozen(&["artifact", "add", TWO, &paths[0], &paths[1]]).expect(0);
    let mount = format!("type=artifact,src={TWO},dst=/m");
    let directories = || std::fs::read_dir(machine.directory().join("data/containers")).unwrap().count();
    let create = ["create", "--name", "user", "--mount", &mount, "busybox", "cat", "/m/a"];
    for failpoint in ["engine.image.artifact.linked", "engine.create.artifact"] {
        std::fs::write(failpoints.join(failpoint), "").unwrap();
        assert_ne!(dozen(&create).code, 0, "{failpoint}");
        assert!(!failpoints.join(failpoint).exists(), "{failpoint}");
        drop(daemon.replace(start()));
        assert_eq!(directories(), 0, "{failpoint}");
        assert_eq!(dozen(&["ps", "-aq"]).text(), "", "{failpoint}");
    }
    dozen(&create).expect(0);
    dozen(&["artifact", "rm", TWO]).expect(0);
    assert_eq!(dozen(&["start", "-a", "user"]).text(), "the first\n");
    // It goes as a whole, whenever that is interrupted.
    std::fs::write(failpoints.join("engine.erase.row"), "").unwrap();
    assert_ne!(dozen(&["rm", "user"]).code, 0);
    drop(daemon.replace(start()));
    assert_eq!((directories(), dozen(&["ps", "-aq"]).text().as_str()), (0, ""));
}
