//! CVE-2024-21626 and its class: what is open in a process of the container's.

use super::*;

/// What a shell has open, by number, and where it is: what is left over of the host's would be seen here. That by which
/// it has listed them is gone by then.
const OPEN: &str = "for file in /proc/$$/fd/*; do [ -L $file ] && echo ${file##*/}; done; \
    readlink /proc/$$/cwd; readlink /proc/$$/root";

/// A command that has forgotten to close a file, a directory and a socket of the host's, as engines have.
fn forgetful(bundle: &Bundle, arguments: &[&str]) -> std::process::Output {
    let (socket, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let forgotten: Vec<std::os::fd::OwnedFd> = vec![
        fs::File::open("/").unwrap().into(),
        fs::File::open("/proc/self/exe").unwrap().into(),
        fs::File::open("/sys/fs/cgroup").unwrap().into(),
        socket.into(),
        other.into(),
    ];
    for file in &forgotten {
        rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty()).unwrap();
    }
    bundle.command(arguments).output().unwrap()
}

/// Every kind of process has its three streams and nothing else. Guarded by `Surroundings::close_all_else`, without
/// which a forgotten descriptor is seen by process 1 and by execs.
#[test]
fn nothing_of_the_hosts_is_open_in_any_process() {
    let nothing = "0\n1\n2\n/\n/\n";
    for init in [&[][..], &["--init"]] {
        let bundle = Bundle::new(OPEN);
        bundle.write();
        let run = [&["run", "--bundle", bundle.path()], init, &[&bundle.id]].concat();
        assert_eq!(stdout(&forgetful(&bundle, &run)), nothing, "{init:?}");
        bundle.check_nothing_is_left();
    }
    // Our init keeps none for itself either, and its child sees it.
    let script = "for file in /proc/1/fd/*; do [ -L $file ] && echo ${file##*/}; done; readlink /proc/1/cwd; readlink /proc/1/root";
    let bundle = Bundle::new(script);
    assert_eq!(stdout(&bundle.live(json!({"init": true}))), nothing);
    // With a terminal there is no descriptor beside it: not its master, above all.
    let bundle = Bundle::new(OPEN);
    assert_eq!(stdout(&bundle.live(json!({"terminal": [24, 80]}))).replace('\r', ""), nothing);

    let bundle = Bundle::new("exec sleep 1000");
    let _running = Running::new(&bundle);
    assert_eq!(stdout(&forgetful(&bundle, &["exec", &bundle.id, "sh", "-c", OPEN])), nothing);
    let user = ["exec", "--user", "web", &bundle.id, "sh", "-c", OPEN];
    assert_eq!(stdout(&forgetful(&bundle, &user)), nothing);
}

/// A directory of the host's that is handed on is the caller's wish; the working directory is inside all the same. By
/// way of /proc/1/cwd, where process 1 has gone, it is the look of `check_working_directory` alone that keeps an exec
/// from beginning outside.
#[test]
fn an_exec_does_not_begin_outside() {
    let bundle = Bundle::new("cd /proc/self/fd/3 && exec /bin/sleep 1000");
    let outside = tempfile::tempdir().unwrap();
    // Descriptor 3 of the shell, which becomes the runtime.
    let handing_on = |run: std::process::Command| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "exec 3<$0 && exec \"$@\" --preserve-fds 1"]);
        shell.arg(outside.path()).arg(run.get_program()).args(run.get_args());
        shell
    };
    let running = Running::start(&bundle, handing_on);
    let exec = |cwd: &str| running.exec(&["--cwd", cwd, &bundle.id, "/bin/pwd"]).output().unwrap();
    // The shell needs a moment to get there.
    while exec("/proc/1/cwd").status.success() {
        assert_eq!(running.log(), "");
    }
    for cwd in ["/proc/1/cwd", "/proc/1/fd/3"] {
        let error = failure(&exec(cwd));
        assert!(error.contains("outside of container mount namespace root"), "{cwd}: {error}");
    }
}

/// CVE-2024-21626: no directory of the host's by a descriptor that the runtime or its caller has open. Guarded by
/// `Surroundings::close_all_else`, and by RESOLVE_NO_MAGICLINKS where the directory is looked up first.
#[test]
fn a_working_directory_of_the_hosts_is_refused() {
    for number in 3..12 {
        for directory in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../..")] {
            let bundle = Bundle::new("ls /").with(|spec| spec["process"]["cwd"] = json!(directory));
            bundle.write();
            let mut command = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
            let forgotten = fs::File::open("/").unwrap();
            rustix::io::fcntl_setfd(&forgotten, rustix::io::FdFlags::empty()).unwrap();
            let output = command.output().unwrap();
            let seen = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(!output.status.success() || !seen.contains("boot"), "{directory}: {seen}");
        }
    }
}
