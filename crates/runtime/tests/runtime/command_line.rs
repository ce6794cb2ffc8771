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
    let no_pivot = bundle.command(&["run", "--no-pivot", "--bundle", bundle.path(), "x"]).output().unwrap();
    assert!(failure(&no_pivot).contains("is not built yet"));
    let bundle = bundle.with(|spec| spec["linux"]["cgroupsPath"] = json!("/x"));
    bundle.write();
    let no_scope = bundle.command(&["--systemd-cgroup", "run", "--bundle", bundle.path(), "x"]).output().unwrap();
    assert!(failure(&no_scope).contains("expected cgroupsPath to be of format \"slice:prefix:name\""));
    assert!(failure(&bundle.command(&["state", "../x"]).output().unwrap()).contains("invalid container ID"));
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
