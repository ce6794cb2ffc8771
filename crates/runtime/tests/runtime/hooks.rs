//! Hooks on the real kernel: when, where and with what they are run, and what comes of one that fails.

use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use crate::bundle::{Bundle, failure, stdout};
use serde_json::{Value, json};

const STAGES: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// What hooks write to. That of the container's own stage lies in its root.
fn log(bundle: &Bundle) -> PathBuf {
    bundle.root().join("log")
}

/// A hook of the host's shell, or of the container's for the one stage that is inside.
fn shell(stage: &str, bundle: &Bundle, script: &str) -> Value {
    let log = if stage == "startContainer" { PathBuf::from("/log") } else { log(bundle) };
    let script = script.replace("LOG", log.to_str().unwrap());
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin", "OWN=1"]})
}

/// One line for each hook: its stage, where it began, what it was told.
fn recording(command: &str) -> Bundle {
    let mut bundle = Bundle::new(command);
    for stage in STAGES {
        let script = format!("{{ echo -n \"{stage} $(pwd) $OWN $HOME \"; cat; echo; }} >> LOG");
        let hook = shell(stage, &bundle, &script);
        bundle.spec["hooks"][stage] = json!([hook]);
    }
    bundle.spec["annotations"] = json!({"a": "b"});
    bundle
}

/// Stage, directory and state of each hook so far.
fn lines(bundle: &Bundle) -> Vec<(String, String, Value)> {
    let text = fs::read_to_string(log(bundle)).unwrap_or_default();
    let parse = |line: &str| {
        let [stage, directory, "1", "", state] = line.splitn(5, ' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        (stage.to_owned(), directory.to_owned(), serde_json::from_str(state).unwrap())
    };
    text.lines().map(parse).collect()
}

fn stages(bundle: &Bundle) -> Vec<String> {
    lines(bundle).into_iter().map(|(stage, ..)| stage).collect()
}

fn run(bundle: &Bundle, arguments: &[&str]) -> Output {
    bundle.command(arguments).output().unwrap()
}

fn create(bundle: &Bundle, pid_file: &str) {
    bundle.write();
    let arguments = ["create", "--bundle", bundle.path(), "--pid-file", pid_file, &bundle.id];
    assert!(bundle.command(&arguments).stdout(Stdio::null()).status().unwrap().success());
}

#[test]
fn each_stage_has_its_time_place_and_state() {
    let bundle = recording("exec sleep 1000");
    let pid_file = bundle.directory.path().join("pid");
    create(&bundle, pid_file.to_str().unwrap());
    assert_eq!(stages(&bundle), STAGES[..3]);
    stdout(&run(&bundle, &["start", &bundle.id]));
    assert_eq!(stages(&bundle), STAGES[..5]);
    stdout(&run(&bundle, &["delete", "--force", &bundle.id]));
    let pid: i64 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let (place, root) = (bundle.path().to_owned(), bundle.root().display().to_string());
    let expected = [
        ("prestart", place.as_str(), "creating", Some(pid)),
        ("createRuntime", &place, "creating", Some(pid)),
        ("createContainer", &root, "creating", Some(1)),
        ("startContainer", "/", "created", Some(1)),
        ("poststart", &place, "running", Some(pid)),
        ("poststop", &place, "stopped", None),
    ];
    let lines = lines(&bundle);
    let seen: Vec<_> = lines
        .iter()
        .map(|(stage, directory, state)| {
            assert_eq!(state["id"], bundle.id);
            assert_eq!(state["bundle"], bundle.path());
            assert_eq!(state["annotations"], json!({"a": "b"}));
            (stage.as_str(), directory.as_str(), state["status"].as_str().unwrap(), state["pid"].as_i64())
        })
        .collect();
    assert_eq!(seen, expected);
    bundle.check_nothing_is_left();
}

#[test]
fn run_and_the_librarys_callers_have_them_too() {
    let bundle = recording("echo ran");
    assert_eq!(stdout(&bundle.run()), "ran\n");
    assert_eq!(stages(&bundle), STAGES);
    // Who calls the library ends a running container by itself.
    let bundle = recording("echo ran");
    assert_eq!(stdout(&bundle.live(json!({}))), "ran\n");
    assert_eq!(stages(&bundle), STAGES[..5]);
}

#[test]
fn mounts_of_hooks_are_the_containers() {
    let bundle = Bundle::new("cat /tmp/made; grep -c ' /tmp ' /proc/self/mounts");
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("made"), "by a hook\n").unwrap();
    // By the name that the root has in the container's mount namespace; from outside, that namespace is entered.
    let mount = format!("mount --bind {} {}/tmp", data.path().display(), bundle.root().display());
    for script in [mount.clone(), format!("nsenter -m -t $(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' /dev/stdin) {mount}")]
    {
        let stage = if script.starts_with("nsenter") { "createRuntime" } else { "createContainer" };
        let hook = shell(stage, &bundle, &script);
        let spec = bundle.spec.clone();
        let again = Bundle { directory: tempfile::tempdir().unwrap(), spec, id: format!("{}-{stage}", bundle.id) };
        let again = again.with(|spec| {
            spec["root"]["path"] = json!(bundle.root());
            spec["hooks"] = json!({stage: [hook]});
        });
        assert_eq!(stdout(&again.run()), "by a hook\n1\n", "{stage}");
    }
}

/// Every stage with its own way to the log, as far as a process of other ids reaches.
fn counting(command: &str) -> Bundle {
    let mut bundle = Bundle::new(command);
    for stage in STAGES {
        let log = if stage == "createContainer" { "log" } else { "LOG" };
        bundle.spec["hooks"][stage] = json!([shell(stage, &bundle, &format!("echo {stage} >> {log}"))]);
    }
    fs::write(log(&bundle), "").unwrap();
    fs::set_permissions(log(&bundle), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    bundle
}

#[test]
fn a_container_with_a_user_namespace_has_hooks() {
    let bundle = counting("id -u").with(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        for list in ["uidMappings", "gidMappings"] {
            spec["linux"][list] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        }
    });
    for path in [bundle.root(), bundle.root().join("tmp"), bundle.root().join("etc"), bundle.root().join("bin")] {
        std::os::unix::fs::chown(path, Some(100_000), Some(100_000)).unwrap();
    }
    assert_eq!(stdout(&bundle.run()), "0\n");
    assert_eq!(fs::read_to_string(log(&bundle)).unwrap().lines().collect::<Vec<_>>(), STAGES);
}

#[test]
fn a_container_that_joins_a_pid_namespace_has_hooks() {
    let neighbour = Bundle::new("exec sleep 1000");
    let pid_file = neighbour.directory.path().join("pid");
    create(&neighbour, pid_file.to_str().unwrap());
    stdout(&run(&neighbour, &["start", &neighbour.id]));
    let path = format!("/proc/{}/ns/pid", fs::read_to_string(&pid_file).unwrap());
    let bundle = counting("echo ran").with(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        namespaces.push(json!({"type": "pid", "path": path}));
    });
    assert_eq!(stdout(&bundle.run()), "ran\n");
    assert_eq!(fs::read_to_string(log(&bundle)).unwrap().lines().collect::<Vec<_>>(), STAGES);
    stdout(&run(&neighbour, &["delete", "--force", &neighbour.id]));
    neighbour.check_nothing_is_left();
}

#[test]
fn a_failing_hook_stops_what_it_belongs_to() {
    for stage in &STAGES[..5] {
        let mut bundle = recording("echo ran; exec sleep 1000");
        let first = bundle.spec["hooks"][stage][0].clone();
        bundle.spec["hooks"][stage] = json!([first, shell(stage, &bundle, "echo why; exit 3"), first]);
        let output = bundle.run();
        let error = failure(&output);
        assert!(
            error.contains(&format!("error running {stage} hook #1: error running hook: exit status 3, output: why")),
            "{error}"
        );
        // One that is to come after the program's start cannot have kept it from that.
        assert!(*stage == "poststart" || output.stdout.is_empty(), "{stage}");
        let position = STAGES.iter().position(|other| other == stage).unwrap();
        assert_eq!(stages(&bundle), [&STAGES[..=position], &["poststop"]].concat());
    }
}

#[test]
fn a_failing_start_leaves_a_stopped_container() {
    for stage in ["startContainer", "poststart"] {
        let mut bundle = recording("exec sleep 1000");
        bundle.spec["hooks"][stage] = json!([shell(stage, &bundle, "exit 1")]);
        create(&bundle, bundle.directory.path().join("pid").to_str().unwrap());
        assert!(failure(&run(&bundle, &["start", &bundle.id])).contains("hook #0"));
        let pid: i32 = fs::read_to_string(bundle.directory.path().join("pid")).unwrap().parse().unwrap();
        if let Some(pidfd) = rustix::process::Pid::from_raw(pid)
            .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok())
        {
            let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut ended, None).unwrap();
        }
        let state: Value = serde_json::from_str(&stdout(&run(&bundle, &["state", &bundle.id]))).unwrap();
        assert_eq!(state["status"], "stopped", "{stage}");
        stdout(&run(&bundle, &["delete", &bundle.id]));
        assert_eq!(stages(&bundle).last().unwrap(), "poststop");
        bundle.check_nothing_is_left();
    }
}

#[test]
fn poststop_hooks_that_fail_are_told_of_and_the_others_run() {
    let mut bundle = recording("echo ran");
    let good = bundle.spec["hooks"]["poststop"][0].clone();
    bundle.spec["hooks"]["poststop"] = json!([{"path": "/no/such"}, good]);
    bundle.write();
    let warnings = bundle.directory.path().join("warnings");
    let arguments = ["--log", warnings.to_str().unwrap(), "run", "--bundle", bundle.path(), &bundle.id];
    assert_eq!(stdout(&run(&bundle, &arguments)), "ran\n");
    assert_eq!(stages(&bundle).last().unwrap(), "poststop");
    let told = fs::read_to_string(warnings).unwrap();
    let words = "error running poststop hook #0: error running hook: exit status 127, output: /no/such: no such file or directory";
    assert!(told.starts_with("level=warning") && told.contains(words), "{told}");
    bundle.check_nothing_is_left();
}

#[test]
fn a_hook_that_takes_too_long_is_killed_with_all_that_it_started() {
    let mut bundle = Bundle::new("true");
    let child = bundle.directory.path().join("child");
    let mut hook = shell("prestart", &bundle, &format!("sleep 1000 & echo $! > {}; wait", child.display()));
    hook["timeout"] = json!(1);
    bundle.spec["hooks"]["prestart"] = json!([hook]);
    let error = failure(&bundle.run());
    assert!(
        error.contains("error running prestart hook #0: error running hook: /bin/sh timed out after 1 s"),
        "{error}"
    );
    let child: i32 = fs::read_to_string(child).unwrap().trim().parse().unwrap();
    if let Ok(pidfd) = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(child).unwrap(),
        rustix::process::PidfdFlags::empty(),
    ) {
        let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ended, None).unwrap();
    }
}

#[test]
fn a_large_state_is_told_whole_and_one_that_is_not_read_harms_nobody() {
    let mut bundle = Bundle::new("cat /log");
    let large = "x".repeat(200_000);
    let count = shell("startContainer", &bundle, "cat | wc -c > LOG");
    bundle.spec["hooks"] = json!({"createRuntime": [{"path": "/bin/true"}], "startContainer": [count]});
    bundle.spec["annotations"] = json!({"large": large});
    let told: usize = stdout(&bundle.run()).trim().parse().unwrap();
    assert!(told > 200_000, "{told}");
}

/// What a startContainer hook is, the container's own user is: it has no more rights.
#[test]
fn a_hook_inside_is_as_confined_as_the_program() {
    let status = "grep -E '^(Cap|NoNew|Seccomp:|Uid|Groups)' /proc/self/status";
    let mut bundle = Bundle::new(&format!("{status} > /tmp/own; cat /tmp/own /tmp/hook | sort | uniq -c"));
    fs::set_permissions(bundle.root().join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    std::os::unix::fs::symlink("busybox", bundle.root().join("bin/uniq")).unwrap();
    let hook = shell("startContainer", &bundle, &format!("{status} > /tmp/hook; ls /proc/self/fd | wc -l >> /tmp/fds"));
    bundle.spec["hooks"] = json!({"startContainer": [hook]});
    bundle.spec["process"]["user"] = json!({"uid": 33, "gid": 33, "additionalGids": [4]});
    let output = stdout(&bundle.run());
    assert!(output.lines().count() > 5 && output.lines().all(|line| line.trim().starts_with("2 ")), "{output}");
    // It is killed for a call for which the program would be.
    let mut killed = Bundle::new("true");
    killed.spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}]});
    killed.spec["hooks"] = json!({"startContainer": [shell("startContainer", &killed, "exec mkdir /tmp/x")]});
    let error = failure(&killed.run());
    assert!(error.contains("error running hook: signal: bad system call"), "{error}");
    // 0, 1, 2, and the one by which ls reads.
    assert_eq!(fs::read_to_string(bundle.root().join("tmp/fds")).unwrap(), "4\n");
}

#[test]
fn a_hook_without_an_environment_has_that_of_its_place() {
    let bundle = Bundle::new("true");
    let all = |stage: &str, given: Option<Value>| {
        let log = if stage == "startContainer" { PathBuf::from("/log") } else { log(&bundle) };
        let mut hook =
            json!({"path": "/bin/sh", "args": ["sh", "-c", format!("/bin/busybox env >> {}", log.display())]});
        if let Some(environment) = given {
            hook["env"] = environment;
        }
        hook
    };
    let run = |stage: &str, given: Option<Value>| {
        let _ = fs::remove_file(log(&bundle));
        let hook = all(stage, given);
        let mut spec = bundle.spec.clone();
        spec["hooks"] = json!({stage: [hook]});
        spec["process"]["env"].as_array_mut().unwrap().push(json!("INSIDE=1"));
        fs::write(bundle.directory.path().join("config.json"), spec.to_string()).unwrap();
        let mut command = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
        assert!(command.env("OUTSIDE", "1").stdout(Stdio::null()).status().unwrap().success());
        let environment = fs::read_to_string(log(&bundle)).unwrap();
        (environment.contains("OUTSIDE=1"), environment.contains("INSIDE=1"))
    };
    for stage in STAGES {
        // Nothing of the host's is seen inside.
        let expected = if stage == "startContainer" { (false, true) } else { (true, false) };
        assert_eq!(run(stage, None), expected, "{stage}");
        assert_eq!(run(stage, Some(json!([]))), (false, false), "{stage}");
    }
}

/// Wherever a command with hooks is killed, `delete --force` finds what there is.
#[test]
fn a_command_killed_at_its_hooks_leaves_nothing_that_delete_does_not_find() {
    for failpoint in dozen_runtime::HOOK_FAILPOINTS {
        let bundle = recording("true");
        bundle.write();
        let failpoints = bundle.directory.path().join("failpoints");
        fs::create_dir(&failpoints).unwrap();
        let armed = failpoints.join(format!("runtime.{failpoint}"));
        fs::write(&armed, "").unwrap();
        let mut command = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
        let status = command.env("DOZEN_FAILPOINTS", &failpoints).stdout(Stdio::null()).status().unwrap();
        assert!(!status.success() && !armed.exists(), "{failpoint}: {status}");
        stdout(&run(&bundle, &["delete", "--force", &bundle.id]));
        bundle.check_nothing_is_left();
    }
}
