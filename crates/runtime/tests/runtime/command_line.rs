//! The standard command line, as an engine of somebody else's uses it.

use std::fs;
use std::process::Stdio;

use crate::bundle::{Bundle, failure, stdout};
use serde_json::{Value, json};

#[test]
fn create_start_kill_delete() {
    let bundle = Bundle::new("echo started; exec sleep 1000");
    bundle.write();
    let pid_file = bundle.directory.path().join("pid");
    let output = bundle.directory.path().join("output");
    let created = bundle
        .command(&["create", "--bundle", bundle.path(), "--pid-file", pid_file.to_str().unwrap(), &bundle.id])
        .stdout(fs::File::create(&output).unwrap())
        .stderr(Stdio::inherit())
        .status()
        .unwrap();
    assert!(created.success());
    let run = |arguments: &[&str]| bundle.command(arguments).output().unwrap();
    let state = || -> Value { serde_json::from_str(&stdout(&run(&["state", &bundle.id]))).unwrap() };
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert_eq!((state()["status"].as_str(), state()["pid"].as_i64()), (Some("created"), Some(i64::from(pid))));
    assert_eq!(fs::read_to_string(&output).unwrap(), "", "nothing runs before start");
    assert!(failure(&run(&["create", "--bundle", bundle.path(), &bundle.id])).contains("exists already"));
    stdout(&run(&["start", &bundle.id]));
    assert_eq!(state()["status"], "running");
    assert!(failure(&run(&["start", &bundle.id])).contains("already running"));
    assert!(failure(&run(&["delete", &bundle.id])).contains("not stopped"));
    assert_eq!(stdout(&run(&["exec", &bundle.id, "hostname"])), "dozen\n");
    assert_eq!(run(&["exec", &bundle.id, "sh", "-c", "exit 4"]).status.code(), Some(4));
    assert!(stdout(&run(&["list", "-q"])).contains(&bundle.id));
    let pidfd =
        rustix::process::pidfd_open(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::PidfdFlags::empty())
            .unwrap();
    stdout(&run(&["kill", &bundle.id, "KILL"]));
    let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ended, None).unwrap();
    assert_eq!((state()["status"].as_str(), state()["pid"].as_i64()), (Some("stopped"), Some(0)));
    assert_eq!(fs::read_to_string(&output).unwrap(), "started\n");
    stdout(&run(&["delete", &bundle.id]));
    assert!(failure(&run(&["state", &bundle.id])).contains("does not exist"));
    bundle.check_nothing_is_left();
}

#[test]
fn a_created_container_can_be_deleted_by_force() {
    let bundle = Bundle::new("true");
    bundle.write();
    let create = bundle.command(&["create", "--bundle", bundle.path(), &bundle.id]).stdout(Stdio::null()).status();
    assert!(create.unwrap().success());
    stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
    bundle.check_nothing_is_left();
}

#[test]
fn errors_go_to_the_log_too() {
    let bundle = Bundle::new("true").with(|spec| spec["process"]["args"] = json!(["nope"]));
    bundle.write();
    let log = bundle.directory.path().join("log");
    let arguments =
        ["--log", log.to_str().unwrap(), "--log-format", "json", "run", "--bundle", bundle.path(), &bundle.id];
    failure(&bundle.command(&arguments).output().unwrap());
    let line: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("executable file not found"));
    bundle.check_nothing_is_left();
}

#[test]
fn a_limit_that_cannot_be_raised_is_told_of() {
    let bundle = Bundle::new("ulimit -n; ulimit -H -n").with(|spec| {
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 300, "hard": 400}]);
    });
    bundle.write();
    let log = bundle.directory.path().join("log");
    let script = "exec setpriv --bounding-set=-sys_resource prlimit --nofile=100:200 \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, "sh", crate::bundle::PROBE, "runtime", "--root"]);
    command.arg(bundle.directory.path().join("state")).arg("--log").arg(&log);
    let output = command.args(["run", "--bundle", bundle.path(), &bundle.id]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(stdout(&output), "200\n200\n");
    let warning = "RLIMIT_NOFILE: 200 in place of 400, since raising a hard limit needs CAP_SYS_RESOURCE";
    assert_eq!(fs::read_to_string(&log).unwrap(), format!("level=warning msg=\"{warning}\"\n"));
    bundle.check_nothing_is_left();
}

#[test]
fn what_is_not_built_is_refused() {
    let bundle = Bundle::new("true");
    bundle.write();
    let refused: [&[&str]; 6] = [
        &["--cgroup-manager", "disabled", "list"],
        &["--rootless", "true", "list"],
        &["spec", "--rootless"],
        &["checkpoint", "--image-path", "/tmp", "x"],
        &["restore", "--bundle", ".", "x"],
        &["run", "--no-pivot", "--bundle", bundle.path(), "x"],
    ];
    for arguments in refused {
        assert!(failure(&bundle.command(arguments).output().unwrap()).contains("is not built yet"));
    }
    let bundle = bundle.with(|spec| spec["linux"]["cgroupsPath"] = json!("/x"));
    bundle.write();
    let no_scope = bundle.command(&["--systemd-cgroup", "run", "--bundle", bundle.path(), "x"]).output().unwrap();
    assert!(failure(&no_scope).contains("expected cgroupsPath to be of format \"slice:prefix:name\""));
    assert!(failure(&bundle.command(&["state", "../x"]).output().unwrap()).contains("invalid container ID"));
    for (shares, words) in [
        (json!({"l3CacheSchema": "L3:0=f", "enableCMT": true}), "linux.intelRdt.enableCMT is not built yet"),
        (json!({"closID": "../x"}), "invalid linux.intelRdt.closID"),
        (json!({"closID": "dozen-test-no-such-group"}), "linux.intelRdt: "),
    ] {
        let error = failure(&Bundle::new("true").with(|spec| spec["linux"]["intelRdt"] = shares).run());
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::io::Read;
    let bundle = Bundle::new("tty").with(|spec| spec["process"]["terminal"] = json!(true));
    bundle.write();
    let path = bundle.directory.path().join("console");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let arguments = ["create", "--bundle", bundle.path(), "--console-socket", path.to_str().unwrap(), &bundle.id];
    assert!(bundle.command(&arguments).status().unwrap().success());
    let (stream, _) = listener.accept().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&stream, &mut [std::io::IoSliceMut::new(&mut [0; 64])], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let master = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    stdout(&bundle.command(&["start", &bundle.id]).output().unwrap());
    let mut output = Vec::new();
    let _ = fs::File::from(master.unwrap()).read_to_end(&mut output);
    assert_eq!(String::from_utf8_lossy(&output), "/dev/pts/0\r\n");
    stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
    bundle.check_nothing_is_left();
}

/// Wherever a command is killed, `delete --force` finds what there is, and afterwards there is nothing.
#[test]
fn a_killed_command_leaves_nothing_that_delete_does_not_find() {
    let created = |name: &&&str| name.starts_with("create.");
    let all = dozen_runtime::FAILPOINTS.iter().filter(created).chain(&dozen_runtime::COMMAND_FAILPOINTS);
    for failpoint in all {
        let bundle = Bundle::new("exec sleep 1000");
        bundle.write();
        let failpoints = bundle.directory.path().join("failpoints");
        fs::create_dir(&failpoints).unwrap();
        let armed = failpoints.join(format!("runtime.{failpoint}"));
        fs::write(&armed, "").unwrap();
        let pid_file = bundle.directory.path().join("pid");
        let create = ["create", "--bundle", bundle.path(), "--pid-file", pid_file.to_str().unwrap(), &bundle.id];
        for arguments in [&create[..], &["start", &bundle.id], &["delete", "--force", &bundle.id]] {
            let mut command = bundle.command(arguments);
            let status = command.env("DOZEN_FAILPOINTS", &failpoints).stdout(Stdio::null()).status().unwrap();
            assert_eq!(status.success(), armed.exists(), "{failpoint}, {arguments:?}: {status}");
            if !armed.exists() {
                break;
            }
        }
        assert!(!armed.exists(), "{failpoint} was never reached");
        // What is half made can be looked at, and is not taken for something else.
        bundle.command(&["state", &bundle.id]).output().unwrap();
        stdout(&bundle.command(&["list", "-q"]).output().unwrap());
        if bundle.directory.path().join("state").join(&bundle.id).exists() {
            failure(&bundle.command(&create).output().unwrap());
        }
        stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
        bundle.check_nothing_is_left();
        assert_eq!(stdout(&Bundle::new("echo again").run()), "again\n");
    }
}

/// Runs it beside us; nothing of it holds a pipe of ours.
fn detached(bundle: &Bundle, id: &str) {
    let run = ["run", "--detach", "--bundle", bundle.path(), id];
    assert!(bundle.command(&run).stdout(Stdio::null()).status().unwrap().success());
}

/// `runtime run` at a terminal: size, input, output, and the terminal as it was before.
#[test]
fn a_terminal_is_carried_to_the_users_own() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
    use std::io::{Read, Write};
    let bundle = Bundle::new("tty; stty size; read line; echo got $line; exit 7")
        .with(|spec| spec["process"]["terminal"] = json!(true));
    bundle.write();
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let open = || fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let slave = open();
    tcsetwinsize(&slave, Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let mut command = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
    let mut child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
    // The streams that the command holds are the child's now.
    drop(command);
    let (mut reader, mut writer) = (fs::File::from(master.try_clone().unwrap()), fs::File::from(master));
    let mut output = String::new();
    let mut piece = [0; 256];
    while !output.contains("33 77") {
        let count = reader.read(&mut piece).unwrap();
        output.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    assert!(!tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ICANON), "the user's terminal is not raw");
    writer.write_all(b"hello\r").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
    drop(slave);
    // EIO is a terminal's end of file.
    while let Ok(count @ 1..) = reader.read(&mut piece) {
        output.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    assert_eq!(output, "/dev/pts/0\r\n33 77\r\nhello\r\ngot hello\r\n");
    bundle.check_nothing_is_left();
}

#[test]
fn a_terminal_without_a_user_at_one() {
    let bundle = Bundle::new("tty; tty <&2").with(|spec| spec["process"]["terminal"] = json!(true));
    assert_eq!(stdout(&bundle.run()), "/dev/pts/0\n/dev/pts/0\n");
    let detached = bundle.command(&["run", "--detach", "--bundle", bundle.path(), &bundle.id]).output().unwrap();
    assert!(failure(&detached).contains("use --console-socket"));
    let too_large = bundle.with(|spec| spec["process"]["consoleSize"] = json!({"height": 24, "width": 65536})).run();
    assert!(failure(&too_large).contains("process.consoleSize.width: 65536 is more than 65535"));
}

#[test]
fn a_further_process_as_the_command_line_describes_it() {
    let bundle = Bundle::new("exec sleep 1000").with(|spec| {
        let none = json!([]);
        spec["process"]["capabilities"] = json!({"bounding": none, "effective": none, "permitted": none});
        spec["process"]["env"] = json!(["PATH=/bin", "A=1"]);
    });
    bundle.write();
    detached(&bundle, &bundle.id);
    let exec = |flags: &[&str], line: &str| {
        let words = [&["exec"], flags, &[&bundle.id, "sh", "-c", line]].concat();
        stdout(&bundle.command(&words).output().unwrap())
    };
    assert_eq!(exec(&["--env", "A=2", "-e", "B=3"], "env | grep -E '^[AB]=' | sort"), "A=2\nB=3\n");
    assert_eq!(exec(&["--additional-gids", "7", "-g", "9"], "id -G"), "0 7 9\n");
    assert_eq!(exec(&["--user", "33:4", "-g", "9"], "echo $(id -u) $(id -g) $(id -G)"), "33 4 4 9\n");
    let file = bundle.directory.path().join("process.json");
    fs::write(&file, json!({"args": ["id", "-u"], "cwd": "/", "env": ["PATH=/bin"]}).to_string()).unwrap();
    let of_file = ["exec", "--process", file.to_str().unwrap(), &bundle.id];
    assert_eq!(stdout(&bundle.command(&of_file).output().unwrap()), "0\n");
    stdout(&bundle.command(&["kill", "--all", &bundle.id, "0"]).output().unwrap());
    let sets = exec(&["--cap", "CAP_KILL", "--cap", "CAP_NONSENSE"], "grep ^Cap /proc/self/status | cut -f 2");
    let (none, kill) = ("0000000000000000\n", "0000000000000020\n");
    assert_eq!(sets, [none, kill, kill, kill, none].concat());
    assert_eq!(exec(&["--no-new-privs"], "grep NoNewPrivs /proc/self/status"), "NoNewPrivs:\t1\n");
    assert_eq!(exec(&["--tty"], "tty"), "/dev/pts/0\n");
    // A sub-cgroup has to be there, and below.
    for (below, words) in [("none", "does not exist"), ("../x", "not a sub cgroup path"), ("cpu:x", "not built")] {
        let words_given = ["exec", "--cgroup", below, &bundle.id, "true"];
        let output = bundle.command(&words_given).output().unwrap();
        assert_eq!(output.status.code(), Some(255));
        assert!(failure(&output).contains(words), "{below}");
    }
    stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
    bundle.check_nothing_is_left();
}

#[test]
fn a_further_process_inherits_what_it_is_given() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.write();
    detached(&bundle, &bundle.id);
    let shell = |flags: &str| {
        let line = format!("exec 3</dev/null; exec \"$@\" exec {flags} {} sh -c 'ls /proc/self/fd'", bundle.id);
        let own = bundle.command(&[]);
        let words = std::iter::once(own.get_program()).chain(own.get_args());
        stdout(&std::process::Command::new("sh").args(["-c", &line, "sh"]).args(words).output().unwrap())
    };
    // `ls` has one more, of the directory.
    assert_eq!(shell("").lines().count(), 4);
    assert_eq!(shell("--preserve-fds 1").lines().count(), 5);
    stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
    bundle.check_nothing_is_left();
}

#[test]
fn containers_are_deleted_by_expression() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.write();
    let ids = ["one", "two", "other"].map(|name| format!("{}-{name}", bundle.id));
    for id in &ids {
        detached(&bundle, id);
    }
    let listed = || stdout(&bundle.command(&["list", "--quiet"]).output().unwrap());
    stdout(&bundle.command(&["delete", "--force", "--regex", "-(one|two)$"]).output().unwrap());
    assert_eq!(listed(), format!("{}\n", ids[2]));
    assert!(failure(&bundle.command(&["delete", "--regex", "("]).output().unwrap()).contains("--regex"));
    stdout(&bundle.command(&["delete", "--force", &ids[2]]).output().unwrap());
    bundle.check_nothing_is_left();
}

#[test]
fn a_container_is_kept_until_it_is_deleted() {
    let bundle = Bundle::new("exit 3");
    bundle.write();
    let run = ["run", "--keep", "--bundle", bundle.path(), &bundle.id];
    assert_eq!(bundle.command(&run).status().unwrap().code(), Some(3));
    let state: Value =
        serde_json::from_str(&stdout(&bundle.command(&["state", &bundle.id]).output().unwrap())).unwrap();
    assert_eq!((&state["status"], &state["pid"], &state["owner"]), (&json!("stopped"), &json!(0), &json!("root")));
    assert_eq!(state["rootfs"], json!(bundle.root()));
    let table = stdout(&bundle.command(&["list"]).output().unwrap());
    assert!(table.starts_with("ID ") && table.contains(&bundle.id) && table.contains(" stopped "), "{table}");
    stdout(&bundle.command(&["delete", &bundle.id]).output().unwrap());
    bundle.check_nothing_is_left();
}

/// A bundle of the example alone runs.
#[test]
fn the_example_is_a_container() {
    let bundle = Bundle::new("");
    let directory = bundle.directory.path();
    stdout(&bundle.command(&["spec", "--bundle", bundle.path()]).output().unwrap());
    assert!(failure(&bundle.command(&["spec", "--bundle", bundle.path()]).output().unwrap()).contains("exists"));
    let mut spec: Value = serde_json::from_slice(&fs::read(directory.join("config.json")).unwrap()).unwrap();
    spec["process"]["args"] = json!(["sh", "-c", "hostname; ls /sys/fs/cgroup >/dev/null && echo cgroups"]);
    spec["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id));
    fs::write(directory.join("config.json"), spec.to_string()).unwrap();
    let output = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]).output().unwrap();
    assert_eq!(stdout(&output), "dozen\ncgroups\n");
    bundle.check_nothing_is_left();
}

/// Who entered it would stand still and never answer.
#[test]
fn a_frozen_cgroup_is_refused() {
    let bundle = Bundle::new("true");
    let name = format!("/{}-frozen", bundle.id);
    let bundle = bundle.with(|spec| spec["linux"]["cgroupsPath"] = json!(name));
    bundle.write();
    let cgroup = dozen_runtime::Cgroup::create(&name).unwrap();
    cgroup.pause().unwrap();
    let output = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]).output().unwrap();
    cgroup.resume().unwrap();
    cgroup.delete().unwrap();
    assert!(failure(&output).contains("container's cgroup unexpectedly frozen"));
    bundle.check_nothing_is_left();
}

#[test]
fn a_container_that_is_waited_for_is_running() {
    let bundle = Bundle::new("echo runs; exec sleep 1000");
    bundle.write();
    let mut run = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
    let mut child = run.stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
    let state: Value =
        serde_json::from_str(&stdout(&bundle.command(&["state", &bundle.id]).output().unwrap())).unwrap();
    stdout(&bundle.command(&["kill", &bundle.id, "KILL"]).output().unwrap());
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert_eq!(state["status"], "running");
    bundle.check_nothing_is_left();
}

/// What cannot be taken away is not forgotten: the next `delete` knows of it.
#[test]
fn a_container_is_remembered_until_all_of_it_is_gone() {
    let bundle = Bundle::new("true");
    let log = bundle.directory.path().join("stopped");
    let bundle = bundle.with(|spec| {
        let script = format!("echo >> {}", log.display());
        spec["hooks"]["poststop"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    });
    bundle.write();
    let run = |arguments: &[&str]| bundle.command(arguments).output().unwrap();
    let keep = bundle.command(&["run", "--keep", "--bundle", bundle.path(), &bundle.id]).status().unwrap();
    assert!(keep.success());
    // For this one command no cgroup can be changed.
    let script = "for place in $(grep -E ' cgroup2? ' /proc/self/mounts | cut -d' ' -f2); do \
                    mount -o remount,bind,ro $place || exit 9; \
                  done; exec \"$@\"";
    let delete = bundle.command(&["delete", &bundle.id]);
    let mut hindered = std::process::Command::new("unshare");
    hindered.args(["--mount", "sh", "-c", script, "sh"]).arg(delete.get_program()).args(delete.get_args());
    assert!(failure(&hindered.output().unwrap()).contains("read-only file system"));
    let state: Value = serde_json::from_str(&stdout(&run(&["state", &bundle.id]))).unwrap();
    assert_eq!((&state["status"], log.exists()), (&json!("stopped"), false));
    stdout(&run(&["delete", &bundle.id]));
    assert_eq!(fs::read_to_string(&log).unwrap(), "\n");
    bundle.check_nothing_is_left();
}

/// A `delete` that is killed while it removes the directory is ended by the next, whatever was removed first.
#[test]
fn a_container_whose_spec_is_gone_is_deleted_by_force() {
    let bundle = Bundle::new("exec sleep 1000").with(|spec| {
        spec["hooks"]["poststop"] = json!([{"path": "/bin/true"}]);
    });
    bundle.write();
    detached(&bundle, &bundle.id);
    fs::remove_file(bundle.directory.path().join("state").join(&bundle.id).join("config.json")).unwrap();
    let log = bundle.directory.path().join("log");
    let delete = ["--log", log.to_str().unwrap(), "delete", "--force", &bundle.id];
    stdout(&bundle.command(&delete).output().unwrap());
    assert!(fs::read_to_string(&log).unwrap().contains("hooks after the container's end are not run"));
    bundle.check_nothing_is_left();
}
