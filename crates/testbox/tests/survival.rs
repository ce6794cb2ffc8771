//! The engine is disposable: what runs goes on while it is dead, and it finds everything again.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use dozen_testbox::{MACHINE_ADDRESS, Machine, Side, dozen_program};
use rustix::process::{Flock, FlockOffsetType, FlockType};

const SERVE: &str = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www";

#[test]
fn a_published_port_answers_while_the_engine_is_dead() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", SERVE]).expect(0);
    let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let outside = SocketAddr::new(MACHINE_ADDRESS, 8080);
    assert_eq!(machine.page(Side::Machine, inside), "served\n");
    assert_eq!(machine.page(Side::Neighbour, outside), "served\n");

    engine.kill();
    assert_eq!(machine.get(Side::Machine, inside).as_deref(), Ok("served\n"));
    assert_eq!(machine.get(Side::Neighbour, outside).as_deref(), Ok("served\n"));

    engine.restart();
    assert_eq!(engine.dozen(&["ps", "--format", "{{.Names}} {{.State}}"]).text(), "web running\n");
    assert_eq!(engine.dozen(&["exec", "web", "cat", "/www/index.html"]).text(), "served\n");
    assert_eq!(machine.get(Side::Neighbour, outside).as_deref(), Ok("served\n"));
    engine.dozen(&["rm", "-f", "web"]).expect(0);
    assert!(machine.get(Side::Machine, inside).is_err());
    assert!(machine.get(Side::Neighbour, outside).is_err());
}

/// What shares the engine's cgroup ends with a service that has it (systemd.kill(5)); so does what an older build left
/// there, unless the next engine moves it.
#[test]
fn the_keeper_lives_where_the_monitors_do_and_not_with_the_engine() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    let id = engine.dozen(&["run", "-d", "busybox", "sleep", "1000"]).text();
    let cgroup = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let keeper = holder(&machine.directory().join("run/keeper.lock"));
    let monitor = holder(&machine.directory().join("run/c").join(&id[..12]).join("monitor.lock"));
    assert_eq!(cgroup(keeper), cgroup(monitor));
    assert_ne!(cgroup(keeper), cgroup(engine.pid() as i32));

    machine.move_to_commands(keeper);
    assert_ne!(cgroup(keeper), cgroup(monitor));
    engine.kill();
    engine.restart();
    assert_eq!(holder(&machine.directory().join("run/keeper.lock")), keeper);
    assert_eq!(cgroup(keeper), cgroup(monitor));
}

/// Who has a lock of fcntl(2).
fn holder(path: &Path) -> i32 {
    let lock = std::fs::File::open(path).unwrap();
    let any = Flock { start: 0, length: 0, pid: None, typ: FlockType::ReadLock, offset_type: FlockOffsetType::Set };
    rustix::process::fcntl_getlk(&lock, &any).unwrap().unwrap().pid.unwrap().as_raw_pid()
}

#[test]
fn an_end_that_the_engine_did_not_see_is_known_afterwards() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    let run =
        ["run", "-d", "--name", "short", "busybox", "sh", "-c", "read -r _ </dev/null; echo alive; sleep 1; exit 4"];
    engine.dozen(&run).expect(0);
    engine.kill();
    engine.restart();
    assert_eq!(engine.dozen(&["wait", "short"]).text(), "4\n");
    assert_eq!(engine.dozen(&["logs", "short"]).text(), "alive\n");
}

#[test]
fn a_port_on_loopback_is_not_for_the_neighbour() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "busybox", "sh", "-c", SERVE]).expect(0);
    assert_eq!(machine.page(Side::Machine, SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))), "served\n");
    assert!(machine.get(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 8080)).is_err());
    engine.dozen(&["run", "-d", "-p", "127.0.0.1:8080:80", "busybox", "true"]).refuses(125, &["8080"]);
}

/// The keeper's socket still takes connections, which nobody answers.
#[test]
fn the_next_command_starts_the_engine_that_was_killed() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["run", "-d", "--name", "lasting", "busybox", "sleep", "1000"]).expect(0);
    // By this file the command after the next knows that it need not wait for a supervisor.
    let unsupervised = machine.socket().with_file_name("engine.unsupervised");
    assert!(!unsupervised.exists());
    engine.kill();
    let may_start = [("DOZEN_AUTOSTART", "1")];
    // Side by side, as two terminals: one engine comes of it, and answers both.
    let list =
        || machine.run_with(dozen_program(), &["ps", "--format", "{{.Names}} {{.State}}"], b"", &may_start).text();
    std::thread::scope(|scope| {
        let lists = [scope.spawn(list), scope.spawn(list)];
        for list in lists {
            assert_eq!(list.join().unwrap(), "lasting running\n");
        }
    });
    assert!(unsupervised.exists());
    engine.dozen(&["rm", "-f", "lasting"]).expect(0);
}

/// It is the service's to start, and a request of the meantime is answered by the next engine.
#[test]
fn a_command_waits_for_the_service_to_start_its_engine() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.kill();
    let mut waiting = machine.command(dozen_program());
    waiting.args(["version", "--format", "{{.Server.Version}}"]).stdout(std::process::Stdio::piped());
    let waiting = waiting.spawn().unwrap();
    engine.restart();
    let output = waiting.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), env!("CARGO_PKG_VERSION"));
}

/// An engine that does not come up is no reason to wait for ever.
#[test]
fn a_command_says_why_the_engine_cannot_be_started() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    // Keeps the keeper, which keeps the socket.
    engine.dozen(&["run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", SERVE]).expect(0);
    engine.kill();
    let ledger = machine.directory().join("data/state.db");
    let aside = ledger.with_extension("aside");
    std::fs::rename(&ledger, &aside).unwrap();
    std::fs::create_dir(&ledger).unwrap();
    let refused = machine.run_with(dozen_program(), &["ps"], b"", &[("DOZEN_AUTOSTART", "1")]);
    refused.refuses(1, &["the engine did not start", "state.db"]);
    std::fs::remove_dir(&ledger).unwrap();
    std::fs::rename(&aside, &ledger).unwrap();
    engine.restart();
    engine.dozen(&["rm", "-f", "web"]).expect(0);
}
