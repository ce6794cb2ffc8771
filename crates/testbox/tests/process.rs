//! What a container's process has of others: its log's options, memory that runs out and is shared, groups, cgroups.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

use dozen_testbox::{Done, Engine, Machine, docker_program, dozen_program, next_second, until};

/// A directory of the machine that a container sees as `/in`.
fn shared(machine: &Machine) -> (PathBuf, String) {
    let directory = machine.directory().join("in");
    std::fs::create_dir(&directory).unwrap();
    let volume = format!("{}:/in", directory.display());
    (directory, volume)
}

fn is_there(path: &Path) -> Option<()> {
    path.exists().then_some(())
}

/// With both command lines.
fn with_both(test: impl Fn(&dyn Fn(&[&str]) -> Done, &Machine, &Engine<'_>)) {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    for program in [docker_program(), dozen_program()] {
        let program: PathBuf = program;
        test(&|arguments| machine.run(&program, arguments), &machine, &engine);
    }
}

/// Whoever speaks meanwhile, and whoever dies: each line is there, once.
#[test]
fn log_options_change_while_it_speaks() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    let (directory, volume) = shared(&machine);
    let script = "n=0; while [ ! -e /in/stop ]; do n=$((n + 1)); echo line $n; usleep 500; done; echo $n >/in/lines";
    let line = ["run", "-d", "--name", "talker", "--network", "none", "-v", &volume, "--log-opt", "max-file=1000"];
    let id = engine.dozen(&[&line[..], &["--log-opt", "max-size=1g", "busybox", "sh", "-c", script]].concat()).text();
    let log = machine.directory().join("data/containers").join(id.trim()).join("log.json");
    let small = ["update", "--log-opt", "max-size=2k", "--log-opt", "tag={{.Name}}", "talker"];
    assert_eq!(engine.dozen(&small).text(), "talker\n");
    until("its log is rotated", || is_there(&log.with_extension("json.2")));
    let shown = || engine.dozen(&["inspect", "--format", "{{json .HostConfig.LogConfig.Config}}", "talker"]).text();
    assert_eq!(shown().trim(), r#"{"max-file":"1000","max-size":"2k","tag":"{{.Name}}"}"#);
    engine.dozen(&["update", "--log-opt", "max-sise=2k", "talker"]).refuses(1, &["unknown log opt 'max-sise'"]);
    engine.dozen(&["update", "--log-opt", "max-size=none", "talker"]).refuses(1, &["invalid value for the log option"]);
    // By the next engine, too.
    engine.kill();
    engine.restart();
    engine.dozen(&["update", "--log-opt", "max-size=3k", "--log-opt", "tag=", "talker"]).expect(0);
    let shown = engine.dozen(&["inspect", "--format", "{{json .HostConfig.LogConfig.Config}}", "talker"]).text();
    assert_eq!(shown.trim(), r#"{"max-file":"1000","max-size":"3k"}"#);
    let before = std::fs::metadata(&log).unwrap();
    until("its log is rotated again", || {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(&log).ok().filter(|now| now.ino() != before.ino())
    });
    std::fs::write(directory.join("stop"), "").unwrap();
    assert_eq!(engine.dozen(&["wait", "talker"]).text(), "0\n");
    let lines: usize = std::fs::read_to_string(directory.join("lines")).unwrap().trim().parse().unwrap();
    let wanted: String = (1..=lines).map(|number| format!("line {number}\n")).collect();
    let all = engine.docker(&["logs", "talker"]).expect(0).out;
    assert!(all == wanted, "{} bytes of {}", all.len(), wanted.len());
    // Of one that does not run they are for the next start.
    engine.dozen(&["update", "--log-opt", "max-file=2", "talker"]).expect(0);
    std::fs::remove_file(directory.join("stop")).unwrap();
    engine.dozen(&["start", "talker"]).expect(0);
    let files = || {
        std::fs::read_dir(log.parent().unwrap())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().into_string().unwrap().starts_with("log.json"))
    };
    assert!(files().count() <= 3, "two, and one that is being made");
    engine.dozen(&["rm", "-f", "talker"]).expect(0);
}

fn told(engine: &Engine<'_>) -> Vec<String> {
    let line = ["events", "--since", "1h", "--until", &next_second(), "--format", "{{.Action}}"];
    let now = engine.dozen(&line).text();
    now.lines().filter(|action| ["oom", "die"].contains(action)).map(str::to_owned).collect()
}

#[test]
fn memory_that_runs_out_is_told_of_also_when_no_engine_was_there() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    let (directory, volume) = shared(&machine);
    let script = "while :; do
        if [ -e /in/eat ]; then rm /in/eat; tail /dev/zero; touch /in/ate; fi
        [ -e /in/die ] && exec tail /dev/zero
        usleep 10000
    done";
    let line =
        ["run", "-d", "--name", "eater", "--network", "none", "-m", "16m", "--memory-swap", "16m", "-v", &volume];
    engine.dozen(&[&line[..], &["busybox", "sh", "-c", script]].concat()).expect(0);
    let eat = || {
        std::fs::write(directory.join("eat"), "").unwrap();
        until("it has eaten", || is_there(&directory.join("ate")));
        std::fs::remove_file(directory.join("ate")).unwrap();
    };
    eat();
    until("it is told of", || (told(&engine) == ["oom"]).then_some(()));
    eat();
    until("it is told of again", || (told(&engine) == ["oom", "oom"]).then_some(()));
    engine.kill();
    eat();
    engine.restart();
    until("it is told of later", || (told(&engine) == ["oom"; 3]).then_some(()));
    // Nothing is told twice.
    engine.kill();
    engine.restart();
    engine.kill();
    std::fs::write(directory.join("die"), "").unwrap();
    let record = {
        let mut containers = std::fs::read_dir(machine.directory().join("data/containers")).unwrap();
        containers.next().unwrap().unwrap().path().join("exit.json")
    };
    until("it has ended", || is_there(&record));
    engine.restart();
    assert_eq!(engine.dozen(&["wait", "eater"]).text(), "137\n");
    assert_eq!(told(&engine), ["oom", "oom", "oom", "oom", "die"]);
    let state = engine.docker(&["inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "eater"]).text();
    assert_eq!(state, "true 137\n");
    engine.dozen(&["rm", "eater"]).expect(0);
}

#[test]
fn who_is_killed_last_is_version_ones_own_affair() {
    with_both(|run, machine, engine| {
        let line = ["run", "-d", "--name", "spared", "--network", "none", "-m", "16m", "--oom-kill-disable"];
        let done = run(&[&line[..], &["--oom-score-adj", "300", "busybox", "sleep", "1000"]].concat()).expect(0);
        let field = |name: &str| {
            let format = format!("{{{{.HostConfig.{name}}}}}");
            run(&["inspect", "--format", &format, "spared"]).text().trim().to_owned()
        };
        assert_eq!(field("OomScoreAdj"), "300");
        assert_eq!(engine.dozen(&["exec", "spared", "cat", "/proc/1/oom_score_adj"]).text(), "300\n");
        let id = run(&["inspect", "--format", "{{.Id}}", "spared"]).text();
        let find = format!("cat $(find /sys/fs/cgroup -path '*/{}/memory.oom_control')", id.trim());
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            assert!(done.err.contains("OomKillDisable discarded"), "{done:?}");
        } else {
            let control = machine.run("sh", &["-c", &find]).text();
            assert!(control.contains("oom_kill_disable 1"), "{control}");
            assert_eq!(field("OomKillDisable"), "true");
        }
        run(&["rm", "-f", "spared"]).expect(0);
    });
}

#[test]
fn memory_is_shared_with_whom_it_is_offered_to() {
    with_both(|run, _, engine| {
        let script = "echo offered >/dev/shm/word; sleep 1000";
        let donor = ["run", "-d", "--name", "donor", "--network", "none", "--ipc", "shareable", "--shm-size", "8m"];
        run(&[&donor[..], &["busybox", "sh", "-c", script]].concat()).expect(0);
        until("it has offered something", || {
            (engine.dozen(&["exec", "donor", "cat", "/dev/shm/word"]).out == "offered\n").then_some(())
        });
        let join = |name: &str, script: &str| {
            let ipc = format!("container:{name}");
            run(&["run", "--rm", "--network", "none", "--ipc", &ipc, "busybox", "sh", "-c", script])
        };
        assert_eq!(join("donor", "cat /dev/shm/word; echo taken >/dev/shm/word").text(), "offered\n");
        assert_eq!(engine.dozen(&["exec", "donor", "cat", "/dev/shm/word"]).text(), "taken\n");
        let namespace = "readlink /proc/self/ns/ipc";
        assert_eq!(join("donor", namespace).text(), engine.dozen(&["exec", "donor", "sh", "-c", namespace]).text());
        // It is the same file system, and no more may be done with it.
        let size = "df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2; grep ' /dev/shm ' /proc/mounts";
        let shown = join("donor", size).text();
        assert!(shown.starts_with("8192\n"), "{shown}");
        assert!(["nosuid", "nodev", "noexec"].iter().all(|option| shown.contains(option)), "{shown}");
        let mode = run(&["inspect", "--format", "{{.HostConfig.IpcMode}}", "donor"]).text();
        assert_eq!(mode, "shareable\n");
        let joined = ["create", "--name", "joined", "--network", "none", "--ipc", "container:donor", "busybox", "true"];
        run(&joined).expect(0);
        let (mode, id) = (
            run(&["inspect", "--format", "{{.HostConfig.IpcMode}}", "joined"]).text(),
            run(&["inspect", "--format", "{{.Id}}", "donor"]).text(),
        );
        assert_eq!(mode, format!("container:{id}"));
        run(&["stop", "-t", "0", "donor"]).expect(0);
        run(&["start", "joined"]).refuses(1, &["cannot join IPC of a non running container"]);
        run(&["rm", "joined", "donor"]).expect(0);
        // Who offers nothing keeps what it has; and only shared memory is shared.
        run(&["run", "-d", "--name", "private", "--network", "none", "busybox", "sleep", "1000"]).expect(0);
        join("private", "true")
            .refuses(125, &["non-shareable IPC (hint: use IpcMode:shareable for the donor container)"]);
        let bind =
            ["run", "-d", "--name", "other", "--network", "none", "--ipc", "shareable", "-v", "/etc:/dev/shm:ro"];
        run(&[&bind[..], &["busybox", "sleep", "1000"]].concat()).expect(0);
        join("other", "true").refuses(125, &["/dev/shm of the other container is no tmpfs"]);
        run(&["rm", "-f", "private", "other"]).expect(0);
    });
}

#[test]
fn groups_are_found_by_name_in_the_container() {
    with_both(|run, _, engine| {
        let write = "echo 'audio:x:63:\nstaff:x:50:\nall:x:4294967295:' >/etc/group";
        run(&["run", "--name", "made", "--network", "none", "busybox", "sh", "-c", write]).expect(0);
        run(&["commit", "made", "grouped:1"]).expect(0);
        let start = ["run", "-d", "--name", "member", "--network", "none", "--group-add", "audio", "--group-add", "7"];
        run(&[&start[..], &["--group-add", "staff", "grouped:1", "sleep", "1000"]].concat()).expect(0);
        for arguments in [&["exec", "member", "id", "-G"][..], &["exec", "-u", "5", "member", "id", "-G"]] {
            let groups = engine.dozen(arguments).text();
            let groups: Vec<&str> = groups.trim().split(' ').collect();
            assert!(["63", "7", "50"].iter().all(|group| groups.contains(group)), "{groups:?}");
        }
        let shown = run(&["inspect", "--format", "{{json .HostConfig.GroupAdd}}", "member"]).text();
        assert_eq!(shown.trim(), r#"["audio","7","staff"]"#);
        run(&["rm", "-f", "member", "made"]).expect(0);
        for unknown in ["nobody", "all"] {
            let line = ["run", "--rm", "--network", "none", "--group-add", unknown, "grouped:1", "true"];
            run(&line).refuses(125, &[&format!("Unable to find group {unknown}")]);
        }
        run(&["rmi", "grouped:1"]).expect(0);
    });
}

#[test]
fn those_in_one_cgroup_share_its_limit_and_leave_it_behind() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    let shell = |script: &str| machine.run("sh", &["-c", script]).expect(0).out;
    let directories =
        |name: &str| shell(&format!("find /sys/fs/cgroup -type d -path '{name}' | wc -l")).trim().to_owned();
    let start = |name: &str, parent: &str| {
        let line = ["run", "-d", "--name", name, "--network", "none", "--cgroup-parent", parent, "--cgroupns", "host"];
        engine.docker(&[&line[..], &["--memory", "64m", "busybox", "sleep", "1000"]].concat()).expect(0);
    };
    start("one", "/team/web");
    start("two", "team");
    let seen = engine.dozen(&["exec", "one", "cat", "/proc/self/cgroup"]).text();
    let id = engine.dozen(&["inspect", "--format", "{{.Id}}", "one"]).text();
    assert!(seen.contains(&format!("/team/web/{}", id.trim())), "{seen}");
    let asked = engine.dozen(&["inspect", "--format", "{{.HostConfig.CgroupParent}}", "one", "two"]).text();
    assert_eq!(asked, "/team/web\nteam\n");
    // Both together, and whoever comes in beside them.
    let limit = "f=$(find /sys/fs/cgroup -path '*/team/pids.max' | head -n 1); echo 4 >$f; cat ${f%max}current";
    assert_eq!(shell(limit), "2\n");
    let forks = "for i in 1 2 3 4 5; do sleep 3 & done 2>&1; echo ended";
    let done = engine.dozen(&["exec", "two", "sh", "-c", forks]);
    assert!(format!("{}{}", done.out, done.err).contains("can't fork"), "{done:?}");
    engine.dozen(&["update", "--memory", "96m", "--memory-swap", "192m", "one"]).expect(0);
    let figures = engine.dozen(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "one"]).text();
    assert!(figures.contains("96MiB"), "{figures}");
    engine.kill();
    engine.restart();
    engine.dozen(&["pause", "one"]).expect(0);
    engine.dozen(&["unpause", "one"]).expect(0);
    engine.dozen(&["rm", "-f", "one", "two"]).expect(0);
    assert_eq!(directories("*/team/web/*"), "0");
    assert_ne!(directories("*/team/web"), "0", "it is not the engine's");
    for (parent, words) in
        [("/a/../b", "without . and .."), ("/dozen/x", "dozen's own"), ("a--b.slice", "no name of a slice")]
    {
        let line = ["create", "--cgroup-parent", parent, "busybox", "true"];
        engine.docker(&line).refuses(1, &[words]);
    }
    shell("find /sys/fs/cgroup -depth -type d \\( -path '*/team/web' -o -path '*/team' \\) -exec rmdir {} +");
}
