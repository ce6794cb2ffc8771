//! What containers share with the host and with one another, by the docker CLI and by dozen's own.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;

use dozen_testbox::{Done, Engine, Machine, docker_program, dozen_program};

fn with_both(test: impl Fn(&dyn Fn(&[&str]) -> Done, &Engine<'_>)) {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    for program in [docker_program(), dozen_program()] {
        let program: PathBuf = program;
        test(&|arguments| machine.run(&program, arguments), &engine);
    }
}

fn own(kind: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn namespaces_of_the_host_are_shared_where_it_is_asked() {
    with_both(|run, _| {
        let inside = |options: &[&str], kind: &str| {
            let link = format!("/proc/self/ns/{kind}");
            run(&[&["run", "--rm", "--network", "none"], options, &["busybox", "readlink", &link]].concat())
                .text()
                .trim()
                .to_owned()
        };
        for (flag, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts")] {
            assert_eq!(inside(&[flag, "host"], kind), own(kind), "{flag} host");
            assert_ne!(inside(&[], kind), own(kind), "{flag} by default");
        }
        assert_ne!(inside(&["--cgroupns", "host"], "cgroup"), inside(&["--cgroupns", "private"], "cgroup"));
        // Process 1 is the host's.
        let first = run(&["run", "--rm", "--network", "none", "--pid", "host", "busybox", "sh", "-c", "echo $$"]);
        assert_ne!(first.text().trim(), "1");
        // What it leaves running ends with it all the same.
        let leaves = "sleep 987654 & echo left";
        run(&["run", "--rm", "--network", "none", "--pid", "host", "busybox", "sh", "-c", leaves]).expect(0);
        let processes = run(&["run", "--rm", "--network", "none", "--pid", "host", "busybox", "ps"]).text();
        assert!(!processes.contains("sleep 987654"), "{processes}");
        let name = run(&["run", "--rm", "--network", "none", "--uts", "host", "busybox", "hostname"]).text();
        assert_eq!(name.trim(), rustix::system::uname().nodename().to_str().unwrap());
        run(&["run", "--rm", "--uts", "host", "--hostname", "x", "busybox", "true"])
            .refuses(125, &["conflicting options: hostname and the UTS mode"]);
        // Without memory that is shared.
        run(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--ipc",
            "none",
            "busybox",
            "sh",
            "-c",
            "! grep /dev/shm /proc/mounts",
        ])
        .expect(0);
    });
}

#[test]
fn a_container_sees_and_signals_the_processes_of_another() {
    with_both(|run, engine| {
        run(&["run", "-d", "--name", "seen", "--network", "none", "busybox", "sleep", "4321"]).expect(0);
        let join = ["run", "-d", "--name", "seer", "--network", "none", "--pid", "container:seen"];
        run(&[&join[..], &["busybox", "sleep", "1234"]].concat()).expect(0);
        let processes = engine.dozen(&["exec", "seer", "ps"]).text();
        assert!(processes.contains("sleep 4321") && processes.contains("sleep 1234"), "{processes}");
        let mode = run(&["inspect", "--format", "{{.HostConfig.PidMode}}", "seer"]).text();
        let id = run(&["inspect", "--format", "{{.Id}}", "seen"]).text();
        assert_eq!(mode.trim(), format!("container:{}", id.trim()));
        // With the first process all others of its namespace end.
        run(&["rm", "-f", "seen"]).expect(0);
        assert_eq!(run(&["wait", "seer"]).text(), "137\n");
        run(&["start", "seer"]).refuses(1, &["No such container"]);
        run(&["rm", "seer"]).expect(0);
        run(&["create", "--name", "still", "busybox", "true"]).expect(0);
        let join = ["run", "--rm", "--pid", "container:still", "--network", "none", "busybox", "true"];
        run(&join).refuses(125, &["cannot join PID of a non running container"]);
        run(&["rm", "still"]).expect(0);
    });
}

#[test]
fn groups_and_values_of_the_kernel_are_the_containers() {
    with_both(|run, engine| {
        let options = ["--group-add", "1234", "--group-add", "77", "--sysctl", "kernel.msgmax=1234"];
        let more = ["--sysctl", "net.ipv4.ip_forward=1", "--annotation", "org.example=yes", "--network", "none"];
        let line = [&["run", "-d", "--name", "told"], &options[..], &more, &["busybox", "sleep", "1000"]].concat();
        run(&line).expect(0);
        let script = "id -G; cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward";
        let told = engine.dozen(&["exec", "told", "sh", "-c", script]).text();
        let lines: Vec<&str> = told.lines().collect();
        let groups: Vec<&str> = lines[0].split(' ').collect();
        assert!(["1234", "77"].iter().all(|group| groups.contains(group)) && lines[1..] == ["1234", "1"], "{told}");
        let format = "{{json .HostConfig.GroupAdd}} {{json .HostConfig.Sysctls}} {{json .HostConfig.Annotations}}";
        let shown = run(&["inspect", "--format", format, "told"]).text();
        let expected = r#"["1234","77"] {"kernel.msgmax":"1234","net.ipv4.ip_forward":"1"} {"org.example":"yes"}"#;
        assert_eq!(shown.trim(), expected);
        run(&["rm", "-f", "told"]).expect(0);
        run(&["run", "--rm", "--sysctl", "kernel.panic=1", "busybox", "true"]).refuses(125, &["kernel.panic"]);
    });
}

#[test]
fn mounts_are_taken_from_other_containers() {
    with_both(|run, _| {
        run(&["create", "--name", "one", "-v", "kept:/data", "-v", "/anonymous", "busybox", "true"]).expect(0);
        let from = |mode: &str, script: &str| {
            let one = format!("one{mode}");
            run(&["run", "--rm", "--network", "none", "--volumes-from", &one, "busybox", "sh", "-c", script])
        };
        from("", "echo kept >/data/file; echo too >/anonymous/file").expect(0);
        assert_eq!(from(":ro", "cat /data/file /anonymous/file").text(), "kept\ntoo\n");
        from(":ro", "touch /data/other").refuses(1, &["Read-only file system"]);
        from(":bad", "true").refuses(125, &["invalid mode: bad"]);
        // What the container has of its own stays.
        let own = ["run", "--rm", "--network", "none", "--volumes-from", "one", "-v", "other:/data", "busybox"];
        assert_eq!(run(&[&own[..], &["ls", "/data"]].concat()).text(), "");
        run(&["run", "--rm", "--volumes-from", "nobody", "busybox", "true"])
            .refuses(125, &["No such container: nobody"]);
        run(&["rm", "-v", "one"]).expect(0);
        run(&["volume", "rm", "kept", "other"]).expect(0);
        assert_eq!(run(&["volume", "ls", "-q"]).text(), "");
    });
}
