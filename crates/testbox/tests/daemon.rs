//! `dozen daemon` as whoever starts it sees it: what it tells a service manager.

#![allow(clippy::unwrap_used, missing_docs)]

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;

use dozen_testbox::{Machine, Side, dozen_program, image_archive, patience};

/// sd_notify(3), to a socket of a path and to an abstract one, which belongs to the machine's network namespace.
#[test]
fn a_service_manager_hears_when_the_engine_answers_and_when_it_ends() {
    let machine = Machine::new();
    let path = machine.directory().join("notify");
    let abstract_name = format!("dozen-test-{}", std::process::id());
    let named = SocketAddr::from_abstract_name(&abstract_name).unwrap();
    for (variable, address) in
        [(path.display().to_string(), SocketAddr::from_pathname(&path).unwrap()), (format!("@{abstract_name}"), named)]
    {
        let manager = machine.on(Side::Machine, || UnixDatagram::bind_addr(&address)).unwrap();
        manager.set_read_timeout(Some(patience(Duration::from_secs(30)))).unwrap();
        let hear = || {
            let mut said = [0; 64];
            let length = manager.recv(&mut said).expect("the engine says nothing");
            String::from_utf8_lossy(&said[..length]).into_owned()
        };
        let mut engine =
            machine.command(dozen_program()).arg("daemon").env("NOTIFY_SOCKET", &variable).spawn().unwrap();
        assert_eq!(hear(), "READY=1");
        UnixStream::connect(machine.socket()).unwrap();

        let dozen = |arguments: &[&str]| machine.run(dozen_program(), arguments);
        dozen(&["load", "--input", image_archive("busybox").to_str().unwrap()]).expect(0);
        assert!(!dozen(&["run", "--rm", "busybox", "env"]).text().contains("NOTIFY_SOCKET"));
        dozen(&["run", "-d", "--name", "sleeper", "busybox", "sleep", "1000"]).expect(0);
        let keepers_and_monitors = machine.snapshot().into_iter().filter_map(|line| {
            let (pid, command) = line.strip_prefix("process ")?.split_once(' ')?.to_owned();
            [" keeper ", " monitor "].iter().any(|mode| command.contains(mode)).then(|| pid.to_owned())
        });
        let pids: Vec<String> = keepers_and_monitors.collect();
        assert_eq!(pids.len(), 2);
        for pid in pids {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
            assert!(!String::from_utf8_lossy(&environment).contains("NOTIFY_SOCKET"));
            // What `ps -e` shows, and not the number of the descriptor that it was executed from.
            assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "dozen\n");
        }
        dozen(&["rm", "-f", "sleeper"]).expect(0);

        let pid = rustix::process::Pid::from_raw(engine.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(hear(), "STOPPING=1");
        assert!(engine.wait().unwrap().success());
    }
}

/// What failed comes first, with its path; then the way out.
#[test]
fn an_engine_that_cannot_begin_says_on_what_and_then_what_to_do() {
    let machine = Machine::new();
    let directory = machine.directory().display().to_string();
    std::fs::write(machine.directory().join("file"), "").unwrap();
    let _other = std::os::unix::net::UnixListener::bind(machine.directory().join("taken.sock")).unwrap();
    for (arguments, error, hint) in [
        (["--data-root", "DIR/file"], "DIR/file cannot be the data root: it is not a directory", "--data-root"),
        (["--run-root", "DIR/file"], "DIR/file cannot be the run root: it is not a directory", "--run-root"),
        (["--run-root", "DIR/file/run"], "DIR/file is not a directory", "--run-root"),
        (["--host", "unix://DIR/taken.sock"], "listen for the API at DIR/taken.sock", "another program listens there"),
        (["--host", "unix://DIR/file"], "listen for the API at DIR/file", "no socket"),
        (["--host", "unix://DIR/no/dozen.sock"], "listen for the API at DIR/no/dozen.sock", "make the directory"),
    ] {
        let here = |text: &str| text.replace("DIR", &directory);
        let arguments = arguments.map(here);
        let done = machine.run(dozen_program(), &["daemon", &arguments[0], &arguments[1]]).expect(1);
        let said: Vec<&str> = done.err.lines().filter(|line| line.contains("ERROR")).collect();
        let [what, way_out] = said[..] else { panic!("{done:?}") };
        assert!(what.contains(&here(error)), "{done:?}");
        assert!(way_out.contains("hint: ") && way_out.contains(hint), "{done:?}");
    }
}
