//! `dozen system install` on a machine that systemd runs, with the default roots: there from boot on, started by its
//! socket, replaced under load, and gone without a trace.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use dozen_testbox::{dozen_program, image_archive, until};

use crate::{page, systemctl, turn};

const INSTALLED: &str = "/usr/local/bin/dozen";
const GROUP: &str = "dozen-test";
const PORT: u16 = 18090;
const REQUESTS: usize = 10_000;
const CLIENTS: usize = 4;

pub fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    for variable in ["DOZEN_DATA_ROOT", "DOZEN_RUN_ROOT", "DOZEN_HOST", "DOCKER_HOST"] {
        command.env_remove(variable);
    }
    // What answers is the installed engine.
    command.env("DOZEN_AUTOSTART", "0").args(arguments).output().unwrap()
}

#[track_caller]
pub fn dozen(arguments: &[&str]) -> String {
    said(&run(Path::new(INSTALLED), arguments))
}

#[track_caller]
pub fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Every file that an installation could leave, and the groups.
fn traces() -> BTreeSet<String> {
    let places = ["/usr/local", "/etc", "/var/lib/dozen", "/run/dozen", "/run/docker.sock"];
    let found = Command::new("find").args(places).args(["-not", "-name", "*.cache"]).output().unwrap();
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let lines = String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect::<Vec<_>>();
    lines.into_iter().chain(groups.lines().map(str::to_owned)).collect()
}

fn is_active(unit: &str) -> bool {
    Command::new("systemctl").args(["is-active", "--quiet", unit]).status().unwrap().success()
}

fn engine_pid() -> String {
    let shown = Command::new("systemctl").args(["show", "--value", "--property", "MainPID", "dozen.service"]).output();
    said(&shown.unwrap())
}

/// Another build: another file, at least, that does the same.
fn another_build(directory: &Path, number: usize) -> std::path::PathBuf {
    let path = directory.join(format!("dozen-{number}"));
    std::fs::copy(dozen_program(), &path).unwrap();
    // Behind the end of an ELF file nobody looks.
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    file.write_all(format!("build {number}").as_bytes()).unwrap();
    path
}

#[test]
#[ignore = "needs systemd as process 1: cargo xtask vm"]
fn vm_only_what_is_installed_is_started_replaced_under_load_and_removed() {
    let _turn = turn();
    let before = traces();
    let builds = tempfile::tempdir().unwrap();
    said(&run(&dozen_program(), &["system", "install", "--group", GROUP, "--docker-socket"]));
    assert!(is_active("dozen.socket") && is_active("dozen.service"));
    for socket in ["/run/dozen/dozen.sock", "/run/docker.sock"] {
        let socket = std::fs::metadata(socket).unwrap();
        let group = said(&Command::new("getent").args(["group", GROUP]).output().unwrap());
        assert_eq!((socket.mode() & 0o777, Some(socket.gid().to_string().as_str())), (0o660, group.split(':').nth(2)));
    }
    dozen(&["load", "--input", image_archive("busybox").to_str().unwrap()]);
    let serve = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www";
    let publish = format!("127.0.0.1:{PORT}:80");
    dozen(&["run", "-d", "--name", "web", "--restart", "always", "-p", &publish, "busybox", "sh", "-c", serve]);
    until("the container serves", || page(PORT).is_ok_and(|page| page == "served\n").then_some(()));

    // Stopped, it is started by whoever asks.
    systemctl(&["stop", "dozen.service"]);
    assert_eq!(dozen(&["ps", "--format", "{{.Names}} {{.State}}"]), "web running");

    // Replaced twice while it is asked all the time: nobody is turned away, or hears nothing.
    let (asked, pid) = (AtomicUsize::new(0), dozen(&["inspect", "--format", "{{.State.Pid}}", "web"]));
    let ask = || {
        let mut lost = Vec::new();
        while asked.fetch_add(1, Ordering::Relaxed) < REQUESTS {
            match page(PORT) {
                Ok(page) if page == "served\n" => {}
                other => lost.push(format!("{other:?}")),
            }
        }
        lost
    };
    let lost: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        for number in 1..=2 {
            until("requests are under way", || (asked.load(Ordering::Relaxed) > number * REQUESTS / 4).then_some(()));
            let engine = engine_pid();
            said(&run(
                &another_build(builds.path(), number),
                &["system", "install", "--group", GROUP, "--docker-socket"],
            ));
            assert_ne!(engine_pid(), engine, "the engine is the former one");
        }
        let under_way = asked.load(Ordering::Relaxed);
        assert!(under_way < REQUESTS, "all requests were answered before the second engine was there");
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(lost.is_empty(), "{} of {REQUESTS} requests were lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
    assert_eq!(dozen(&["inspect", "--format", "{{.State.Pid}}", "web"]), pid);

    // Nothing is removed under what runs, unless it is said.
    let refused = run(Path::new(INSTALLED), &["system", "uninstall"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("1 containers run"));
    assert!(page(PORT).is_ok());
    dozen(&["system", "uninstall", "--purge", "--yes", "--force"]);
    assert!(page(PORT).is_err() && !is_active("dozen.service") && !is_active("dozen.socket"));
    let after = traces();
    let left: Vec<&String> = after.difference(&before).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let missing: Vec<&String> = before.difference(&after).collect();
    assert!(missing.is_empty(), "taken along: {missing:?}");
}
