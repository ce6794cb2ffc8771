//! What a process is besides its program: scheduler, processors, personality, capabilities, labels, keys, descriptors.

use crate::bundle::{Bundle, failure, stdout};
use crate::namespaces::without;
use serde_json::{Value, json};

/// Nice value, real-time priority and policy: fields 19, 40 and 41 of /proc/PID/stat (proc_pid_stat(5)).
fn scheduler_of(stat: &str) -> [i64; 3] {
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split_whitespace().collect();
    let [nice, priority, policy] = [19, 40, 41].map(|number| fields[number - 3].parse().unwrap());
    // Only SCHED_OTHER and SCHED_BATCH have a nice value of their own.
    [if [0, 3].contains(&policy) { nice } else { 0 }, priority, policy]
}

fn program(arguments: &[&str]) -> Bundle {
    Bundle::new("").with(|spec| spec["process"]["args"] = json!(arguments))
}

#[test]
fn the_scheduler_is_the_one_that_was_asked_for() {
    for (scheduler, expected) in [
        (json!({"policy": "SCHED_OTHER", "nice": 7}), [7, 0, 0]),
        (json!({"policy": "SCHED_BATCH", "nice": -3}), [-3, 0, 3]),
        (json!({"policy": "SCHED_IDLE"}), [0, 0, 5]),
        (
            json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 10_000_000,
                "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            [0, 0, 6],
        ),
    ] {
        let bundle = program(&["cat", "/proc/self/stat"]).with(|spec| spec["process"]["scheduler"] = scheduler.clone());
        assert_eq!(scheduler_of(&stdout(&bundle.run())), expected, "{scheduler}");
        // The library's callers have the types' own name for it.
        let scheduler = scheduler.to_string().replace("SCHED_FLAG_RESET", "SCHED_RESET");
        let exec = Bundle::new("exec sleep 1000")
            .with(|spec| spec["process"]["scheduler"] = serde_json::from_str(&scheduler).unwrap());
        let output = exec.live(json!({"exec": {"arguments": ["cat", "/proc/self/stat"]}}));
        assert_eq!(scheduler_of(&stdout(&output)), expected, "a further process: {scheduler}");
    }
    let iso = program(&["true"]).with(|spec| spec["process"]["scheduler"] = json!({"policy": "SCHED_ISO"}));
    assert!(failure(&iso.run()).contains("set the scheduler: invalid argument"));
}

#[test]
fn io_priority_and_personality() {
    std::thread::scope(|scope| {
        for (class, words) in [("BE", "best-effort: prio 6"), ("RT", "realtime: prio 6"), ("IDLE", "idle")] {
            scope.spawn(move || {
                let set = |spec: &mut Value| {
                    spec["process"]["ioPriority"] = json!({"class": format!("IOPRIO_CLASS_{class}"), "priority": 6});
                    spec["linux"]["personality"] = json!({"domain": "LINUX32"});
                };
                let arguments = ["busybox", "sh", "-c", "busybox ionice; busybox uname -m"];
                let expected = format!("{words}\ni686\n");
                assert_eq!(stdout(&program(&arguments).with(set).run()).replace("idle: prio 6", "idle"), expected);
                let exec = Bundle::new("exec sleep 1000").with(set).live(json!({"exec": {"arguments": arguments}}));
                assert_eq!(stdout(&exec).replace("idle: prio 6", "idle"), expected);
            });
        }
    });
}

/// Major and minor number of the running kernel's version.
fn kernel() -> (u32, u32) {
    let uname = rustix::system::uname();
    let mut numbers = uname.release().to_str().unwrap().split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn processors_are_a_further_processs_own() {
    let bundle = || {
        Bundle::new("exec sleep 1000").with(|spec| {
            spec["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "1"});
        })
    };
    let show = ["grep", "Cpus_allowed_list", "/proc/self/status"];
    let output = bundle().live(json!({"exec": {"arguments": show}}));
    assert_eq!(stdout(&output), "Cpus_allowed_list:\t1\n");
    // Without a final one it stays where it began. Linux before 6.2 forgets that when it enters a cpuset.
    if kernel() >= (6, 2) {
        let initial = bundle().with(|spec| spec["process"]["execCPUAffinity"] = json!({"initial": "0"}));
        assert_eq!(stdout(&initial.live(json!({"exec": {"arguments": show}}))), "Cpus_allowed_list:\t0\n");
    }
    // The first process is not concerned.
    assert_ne!(
        stdout(
            &program(&show)
                .with(|spec| spec["process"] = {
                    let mut process = bundle().spec["process"].clone();
                    process["args"] = json!(show);
                    process
                })
                .run()
        ),
        "Cpus_allowed_list:\t1\n"
    );
    let nowhere = bundle().with(|spec| spec["process"]["execCPUAffinity"] = json!({"final": "8000"}));
    let error = failure(&nowhere.live(json!({"exec": {"arguments": show}})));
    assert!(error.contains("set the final CPU affinity: invalid argument"), "{error}");
}

#[test]
fn memory_comes_from_the_nodes_that_were_asked_for() {
    let policies = |policy: Value| {
        let bundle = Bundle::new("cut -d' ' -f2 /proc/self/numa_maps | sort | tail -1");
        bundle.with(|spec| spec["linux"]["memoryPolicy"] = policy).run()
    };
    assert_eq!(stdout(&policies(json!({"mode": "MPOL_BIND", "nodes": "0"}))), "bind:0\n");
    let flags = json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    assert_eq!(stdout(&policies(flags)), "interleave=static:0\n");
    assert_eq!(stdout(&policies(json!({"mode": "MPOL_DEFAULT"}))), "default\n");
    assert!(failure(&policies(json!({"mode": "MPOL_BIND"}))).contains("set the memory policy"));
}

#[test]
fn capabilities_are_exactly_those_of_the_five_sets() {
    let show = ["grep", "^Cap", "/proc/self/status"];
    let sets = json!({"bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_CHOWN"], "inheritable": ["CAP_KILL", "CAP_NET_RAW"], "ambient": ["CAP_KILL"]});
    // execve(2) gives root all of the bounding set, another user what is ambient (capabilities(7)).
    let user = |uid: u32| {
        stdout(
            &program(&show)
                .with(|spec| {
                    spec["process"]["capabilities"] = sets.clone();
                    spec["process"]["user"] = json!({"uid": uid, "gid": 0});
                })
                .run(),
        )
    };
    let lines = |sets: [u64; 5]| {
        let names = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
        names.iter().zip(sets).map(|(name, set)| format!("{name}:\t{set:016x}\n")).collect::<String>()
    };
    assert_eq!(user(1000), lines([0x2020, 0x20, 0x20, 0x2021, 0x20]));
    assert_eq!(user(0), lines([0x2020, 0x2021, 0x2021, 0x2021, 0x20]));
}

#[test]
fn capabilities_that_cannot_be_granted_are_told_of() {
    let bundle = program(&["grep", "CapAmb", "/proc/self/status"]).with(|spec| {
        spec["process"]["capabilities"]["ambient"] = json!(["CAP_CHOWN"]);
        spec["process"]["capabilities"]["bounding"].as_array_mut().unwrap().push(json!("CAP_TEST"));
    });
    bundle.write();
    let log = bundle.directory.path().join("log");
    let arguments = ["--log", log.to_str().unwrap(), "run", "--bundle", bundle.path(), &bundle.id];
    let output = bundle.command(&arguments).output().unwrap();
    assert_eq!(stdout(&output), "CapAmb:\t0000000000000000\n");
    let told = std::fs::read_to_string(log).unwrap();
    assert!(told.contains("unknown or unavailable capability") && told.contains("CAP_TEST"), "{told}");
    assert!(told.contains("CAP_CHOWN cannot be granted"), "{told}");
    bundle.check_nothing_is_left();
}

#[test]
fn an_oom_score_that_cannot_be_set_is_told_of() {
    let bundle =
        program(&["cat", "/proc/self/oom_score_adj"]).with(|spec| spec["process"]["oomScoreAdj"] = json!(-900));
    bundle.write();
    let log = bundle.directory.path().join("log");
    let mut command = std::process::Command::new("setpriv");
    command.args(["--bounding-set=-sys_resource", crate::bundle::PROBE, "runtime", "--root"]);
    command.arg(bundle.directory.path().join("state")).arg("--log").arg(&log);
    let output = command.args(["run", "--bundle", bundle.path(), &bundle.id]).output().unwrap();
    let has = stdout(&output);
    assert_ne!(has, "-900\n");
    let told = std::fs::read_to_string(log).unwrap();
    assert!(told.contains(&format!("oomScoreAdj: {} in place of -900", has.trim())), "{told}");
    bundle.check_nothing_is_left();
    let higher = program(&["cat", "/proc/self/oom_score_adj"]).with(|spec| spec["process"]["oomScoreAdj"] = json!(900));
    assert_eq!(stdout(&higher.run()), "900\n");
}

/// Binds this crate's probe into a container, to be its program.
fn probe(mode: &str) -> Bundle {
    program(&["/probe", mode]).with(|spec| {
        let source = crate::bundle::PROBE;
        let mount = json!({"destination": "/probe", "type": "bind", "source": source, "options": ["bind", "ro"]});
        spec["mounts"].as_array_mut().unwrap().push(mount);
        spec["linux"]["seccomp"] = json!(null);
    })
}

#[test]
fn a_session_keyring_is_new_or_the_callers() {
    let callers = std::process::Command::new(crate::bundle::PROBE).arg("keyring").output().unwrap();
    let callers = stdout(&callers);
    assert!(callers.trim().parse::<i32>().unwrap() > 0, "{callers}");
    assert_ne!(stdout(&probe("keyring").run()), callers);
    for (option, is_kept) in [(&[][..], false), (&["--no-new-keyring"], true)] {
        let bundle = probe("keyring").with(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
        bundle.write();
        let create = [&["create", "--bundle", bundle.path()], option, &[&bundle.id]].concat();
        assert!(bundle.command(&create).stdout(std::process::Stdio::null()).status().unwrap().success());
        stdout(&bundle.command(&["start", &bundle.id]).output().unwrap());
        let inside = stdout(&bundle.command(&["exec", &bundle.id, "/probe", "keyring"]).output().unwrap());
        assert_eq!(inside == callers, is_kept, "{inside}");
        stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
        bundle.check_nothing_is_left();
    }
}

/// What a security module is to enforce is enforced, or nothing runs.
#[test]
fn labels_are_set_or_refused() {
    let label = |key: &str, label: &str| program(&["pwd"]).with(|spec| spec["process"][key] = json!(label)).run();
    let has_apparmor = std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text[0] == b'Y');
    let error = failure(&label("apparmorProfile", "no-such-profile"));
    let words =
        if has_apparmor { "apply AppArmor profile" } else { "apparmor: config provided but apparmor not supported" };
    assert!(error.contains(words), "{error}");
    assert_eq!(stdout(&label("apparmorProfile", "unconfined")), "/\n");
    assert_eq!(stdout(&label("apparmorProfile", "")), "/\n");
    let error = failure(&label("selinuxLabel", "system_u:system_r:no_such_t:s0"));
    assert!(error.contains("SELinux"), "{error}");
    let exec = Bundle::new("exec sleep 1000").with(|spec| spec["process"]["apparmorProfile"] = json!("unconfined"));
    assert_eq!(stdout(&exec.live(json!({"exec": {"arguments": ["pwd"]}}))), "/\n");
}

/// A command to which two pipes are handed on, as 3 and 4; each has a word in it.
fn with_pipes(mut command: std::process::Command, variables: &[(&str, &str)]) -> std::process::Output {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    command.envs(variables.iter().copied());
    // Above 4, so that dup2 makes new ones, without close-on-exec.
    let pipes = ["one", "two"].map(|text| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
        rustix::io::fcntl_dupfd_cloexec(&reader, 10).unwrap()
    });
    let numbers = [pipes[0].as_raw_fd(), pipes[1].as_raw_fd()];
    // SAFETY: dup2 is safe between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::dup2(numbers[0], 3);
            libc::dup2(numbers[1], 4);
            // What the tests themselves have inherited is not meant.
            libc::syscall(libc::SYS_close_range, 5, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            Ok(())
        });
    }
    command.output().unwrap()
}

/// What a process says of what it was given, and of itself.
const LISTENING: &str = "echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES $$; cat <&3; cat <&4";

#[test]
fn sockets_that_are_listened_on_are_handed_on() {
    let run = |variables: &[(&str, &str)], arguments: &[&str], change: fn(&mut Value)| {
        let bundle = Bundle::new(LISTENING).with(change);
        bundle.write();
        let arguments = [&["run", "--bundle", bundle.path()], arguments, &[&bundle.id]].concat();
        let output = with_pipes(bundle.command(&arguments), variables);
        bundle.check_nothing_is_left();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let plain = |_: &mut Value| {};
    assert_eq!(run(&[("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a:b")], &[], plain), "2 1 a:b 1\nonetwo");
    assert_eq!(run(&[("LISTEN_FDS", "1")], &["--preserve-fds", "1"], plain), "1 1 1\nonetwo");
    assert_eq!(run(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "1")], &[], plain), "1\n");
    assert_eq!(run(&[], &["--preserve-fds", "2"], plain), "1\nonetwo");
    // What the spec says of others is not left beside it.
    let others = |spec: &mut Value| {
        let environment = spec["process"]["env"].as_array_mut().unwrap();
        environment.extend(["LISTEN_FDS=7", "LISTEN_PID=7", "LISTEN_FDNAMES=x"].map(Value::from));
    };
    assert_eq!(run(&[("LISTEN_FDS", "2")], &[], others), "2 1 1\nonetwo");
    // Whom our own init runs, and who is not process 1, have other numbers.
    assert_eq!(run(&[("LISTEN_FDS", "2")], &["--init"], plain), "2 2 2\nonetwo");
    let output = run(&[("LISTEN_FDS", "2")], &[], |spec| without(spec, "pid"));
    let words: Vec<&str> = output.lines().next().unwrap().split(' ').collect();
    assert!(words[1] == words[2] && words[1] != "1", "{output}");
}

#[test]
fn sockets_are_handed_on_to_a_further_process() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.write();
    let run = ["run", "--detach", "--bundle", bundle.path(), &bundle.id];
    assert!(bundle.command(&run).stdout(std::process::Stdio::null()).status().unwrap().success());
    let exec = |variables: &[(&str, &str)], arguments: &[&str]| {
        let arguments = [&["exec"], arguments, &[&bundle.id, "sh", "-c", LISTENING]].concat();
        with_pipes(bundle.command(&arguments), variables)
    };
    for (variables, arguments, fds, names) in [
        (&[("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a:b")][..], &[][..], "2", "a:b "),
        (&[("LISTEN_FDS", "1")], &["--preserve-fds", "1"], "1", ""),
    ] {
        let output = stdout(&exec(variables, arguments));
        let pid = output.lines().next().unwrap().rsplit(' ').next().unwrap();
        assert_eq!(output, format!("{fds} {pid} {names}{pid}\nonetwo"));
    }
    let error = failure(&exec(&[("LISTEN_FDS", "3")], &[]));
    assert!(error.contains("LISTEN_FDS=3: descriptor 5 is not open"), "{error}");
    let arguments =
        ["exec", "--preserve-fds", "20", &bundle.id, "sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd | wc -l"];
    let output = stdout(&with_pipes(bundle.command(&arguments), &[]));
    // `ls` has one more, of the directory.
    assert_eq!(output, "onetwo6\n");
    stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
    bundle.check_nothing_is_left();
}

/// Numbers that are handed on and that nobody has opened are not those of something of ours.
#[test]
fn a_created_container_holds_nothing_of_the_hosts_by_a_number_that_is_handed_on() {
    let bundle = Bundle::new("true");
    bundle.write();
    let create = ["create", "--preserve-fds", "100", "--bundle", bundle.path(), &bundle.id];
    let mut command = bundle.command(&create);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    assert!(with_pipes(command, &[]).status.success());
    let state: Value =
        serde_json::from_str(&stdout(&bundle.command(&["state", &bundle.id]).output().unwrap())).unwrap();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", state["pid"])).unwrap() {
        let entry = entry.unwrap();
        let open = std::fs::read_link(entry.path()).unwrap().display().to_string();
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let harmless = open == "/dev/null" || open.starts_with("socket:");
        assert!(number < 5 || harmless, "{number} is {open}");
    }
    stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
    bundle.check_nothing_is_left();
}
