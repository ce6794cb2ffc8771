//! Who starts a container with $NOTIFY_SOCKET hears when it is ready.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bundle::{Bundle, PROBE, failure, stdout};
use crate::namespaces::{join, mapped};
use serde_json::json;

/// A container that can speak.
fn with_voice(bundle: Bundle) -> Bundle {
    bundle.with(|spec| {
        let voice = json!({"destination": "/probe", "type": "bind", "source": PROBE, "options": ["bind", "ro"]});
        spec["mounts"].as_array_mut().unwrap().push(voice);
    })
}

/// A service manager, and where it listens.
struct Manager {
    socket: UnixDatagram,
    directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("manager")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { socket, directory }
    }

    fn starts(&self, mut command: Command) -> Command {
        command.env("NOTIFY_SOCKET", self.directory.path().join("manager"));
        command
    }

    fn hears(&self) -> String {
        let mut message = [0; 100];
        let length = self.socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    /// Nothing that it has not heard yet.
    fn check_silence(&self) {
        self.socket.set_nonblocking(true).unwrap();
        assert_eq!(self.socket.recv(&mut [0; 100]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

fn run(bundle: &Bundle, options: &[&str]) -> Command {
    bundle.write();
    bundle.command(&[&["run", "--bundle", bundle.path()], options, &[&bundle.id]].concat())
}

/// Only that it is ready is passed on, whatever it says besides; then nobody listens, and nobody waits for that.
#[test]
fn a_container_says_that_it_is_ready() {
    let script = "rm $NOTIFY_SOCKET 2>/dev/null || echo kept; /probe notify \"$(printf 'STATUS=up\\nMAINPID=1')\" WATCHDOG=1 \
        READY=11 \"$(dd if=/dev/zero bs=10000 count=1 2>/dev/null | tr '\\0' x)\" \"$(printf 'STATUS=up\\nREADY=1')\"; \
        until /probe notify WATCHDOG=1 | grep -q refused; do true; done; echo over";
    for bundle in [Bundle::new(script), mapped(script)] {
        std::os::unix::fs::symlink("busybox", bundle.root().join("bin/tr")).unwrap();
        let (bundle, manager) = (with_voice(bundle), Manager::new());
        assert_eq!(stdout(&manager.starts(run(&bundle, &[])).output().unwrap()), "kept\nover\n");
        assert_eq!(manager.hears(), "READY=1");
        manager.check_silence();
        bundle.check_nothing_is_left();
    }
}

/// Who leaves the container alone says so, and by which number it is found; not before it is ready.
#[test]
fn a_container_is_waited_for_until_it_is_ready() {
    let bundle = with_voice(Bundle::new("cat /tmp/go; /probe notify READY=1; exec sleep 1000"));
    rustix::fs::mkfifoat(rustix::fs::CWD, bundle.root().join("tmp/go"), rustix::fs::Mode::RWXU).unwrap();
    let pid_file = bundle.directory.path().join("pid");
    let options = ["--pid-file", pid_file.to_str().unwrap()];
    let quiet = |mut command: Command| -> Child { command.stdout(Stdio::null()).spawn().unwrap() };
    for is_run in [true, false] {
        let manager = Manager::new();
        let mut starter = if is_run {
            quiet(manager.starts(run(&bundle, &[&["--detach"], &options[..]].concat())))
        } else {
            let create = [&["create", "--bundle", bundle.path()], &options[..], &[&bundle.id]].concat();
            assert!(quiet(manager.starts(bundle.command(&create))).wait().unwrap().success());
            quiet(manager.starts(bundle.command(&["start", &bundle.id])))
        };
        // The container is at its pipe: who has opened that may let it go on.
        let go = fs::OpenOptions::new().write(true).open(bundle.root().join("tmp/go")).unwrap();
        assert!(starter.try_wait().unwrap().is_none(), "nobody has waited");
        drop(go);
        assert_eq!(manager.hears(), "READY=1");
        assert_eq!(manager.hears(), format!("MAINPID={}", fs::read_to_string(&pid_file).unwrap()));
        assert_eq!(manager.hears(), "BARRIER=1");
        assert!(starter.wait().unwrap().success());
        manager.check_silence();
        stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
        bundle.check_nothing_is_left();
    }
}

#[test]
fn a_container_that_says_nothing_ends_the_wait() {
    let (bundle, manager) = (Bundle::new("exit 3"), Manager::new());
    assert_eq!(manager.starts(run(&bundle, &[])).status().unwrap().code(), Some(3));
    bundle.check_nothing_is_left();
    assert!(manager.starts(run(&bundle, &["--detach"])).stdout(Stdio::null()).status().unwrap().success());
    stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
    bundle.check_nothing_is_left();
    manager.check_silence();
}

/// The container runs on; the log says what went wrong.
#[test]
fn a_manager_that_is_gone_is_told_of() {
    let bundle = with_voice(Bundle::new("/probe notify READY=1; echo ran"));
    let log = bundle.directory.path().join("log");
    let mut command = bundle.command(&["--log", log.to_str().unwrap(), "run", "--bundle", bundle.path(), &bundle.id]);
    bundle.write();
    let output = command.env("NOTIFY_SOCKET", "/no/such/socket").output().unwrap();
    assert_eq!(stdout(&output), "ran\n");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("tell NOTIFY_SOCKET that the container is ready: no such file"), "{log}");
    for (name, words) in [("vsock:2:1", "is not built yet"), (&format!("/{}", "x".repeat(200)), "name too long")] {
        let error = failure(&run(&bundle, &[]).env("NOTIFY_SOCKET", name).output().unwrap());
        assert!(error.contains(words), "{error}");
        bundle.check_nothing_is_left();
    }
    let joining = Bundle::new("true").with(|spec| join(spec, "mount", "/proc/self/ns/mnt"));
    let error = failure(&run(&joining, &[]).env("NOTIFY_SOCKET", "/x").output().unwrap());
    assert!(error.contains("NOTIFY_SOCKET with a joined mount namespace is not built yet"), "{error}");
    joining.check_nothing_is_left();
}
