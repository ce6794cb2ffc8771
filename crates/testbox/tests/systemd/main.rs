//! The engine as a service of systemd, on a machine whose process 1 that is: only `cargo xtask vm` runs these, on the
//! virtual machine itself instead of in a box, and with any `--cgroups`.

#![allow(clippy::unwrap_used, missing_docs)]
#![allow(clippy::print_stderr, reason = "a test that fails shows what the service has said")]

mod boots;
mod installed;
mod reboot;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use dozen_testbox::{dozen_program, image_archive, patience, until};
use rustix::process::{Flock, FlockOffsetType, FlockType, Pid};

const UNIT: &str = include_str!("../../../../examples/systemd/dozen.service");
/// Those that limits need; version 1 calls `io` `blkio`.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// A service with roots of its own. Dropping it removes all of it.
struct Service {
    name: &'static str,
    roots: tempfile::TempDir,
    /// One at a time: a systemd that executes itself again answers nobody meanwhile.
    _turn: std::fs::File,
}

impl Service {
    /// Starts the unit that examples/ has, changed as the test wants it.
    fn start(name: &'static str, change: impl FnOnce(String) -> String) -> Self {
        let turn = turn();
        let roots = tempfile::Builder::new().prefix(name).tempdir().unwrap();
        let program = format!("ExecStart={} daemon", dozen_program().display());
        let roots_of = |kind: &str| {
            format!("Environment=DOZEN_{}_ROOT={}", kind.to_uppercase(), roots.path().join(kind).display())
        };
        let unit = UNIT
            .replace("ExecStart=/usr/local/bin/dozen daemon", &[program, roots_of("data"), roots_of("run")].join("\n"));
        assert_ne!(unit, UNIT);
        let service = Self { name, roots, _turn: turn };
        std::fs::write(service.unit_file(), change(unit)).unwrap();
        systemctl(&["daemon-reload"]);
        service.systemctl("start");
        service.dozen(&["load", "--input", image_archive("busybox").to_str().unwrap()]);
        service
    }

    fn unit_file(&self) -> PathBuf {
        format!("/run/systemd/system/{}.service", self.name).into()
    }

    fn systemctl(&self, verb: &str) {
        systemctl(&[verb, self.name]);
        if verb == "start" || verb == "restart" {
            // The unit is Type=notify: it has started once the engine answers.
            self.dozen(&["version"]);
        }
    }

    fn property(&self, name: &str) -> String {
        let arguments = ["show", "--value", "--property", name, self.name];
        let output = Command::new("systemctl").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The keeper's process, if it lives.
    fn keeper(&self) -> Option<Pid> {
        let lock = std::fs::File::open(self.roots.path().join("run/keeper.lock")).unwrap();
        let any = Flock { start: 0, length: 0, pid: None, typ: FlockType::ReadLock, offset_type: FlockOffsetType::Set };
        rustix::process::fcntl_getlk(&lock, &any).unwrap()?.pid
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(dozen_program());
        for root in ["data", "run"] {
            command.env(format!("DOZEN_{}_ROOT", root.to_uppercase()), self.roots.path().join(root));
        }
        // Otherwise the command starts an engine of its own while the service's is not there yet.
        command.env("DOZEN_AUTOSTART", "0").args(arguments);
        command
    }

    #[track_caller]
    fn dozen(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = Command::new("journalctl").args(["--no-pager", "-u", self.name]).output().unwrap();
            eprintln!("{}", String::from_utf8_lossy(&journal.stdout));
        }
        for arguments in [&["stop", self.name][..], &["kill", "--signal=KILL", self.name]] {
            let _ = Command::new("systemctl").args(arguments).output();
        }
        let _ = std::fs::remove_file(self.unit_file());
    }
}

/// Who holds it has systemd for itself.
fn turn() -> std::fs::File {
    let turn = std::fs::File::create("/run/dozen-test-systemd.lock").unwrap();
    turn.lock().unwrap();
    turn
}

#[track_caller]
fn systemctl(arguments: &[&str]) {
    let output = Command::new("systemctl").args(arguments).output().unwrap();
    assert!(output.status.success(), "systemctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A container with a published port, and where it is.
struct Web {
    pid: String,
    /// Of each hierarchy: its controllers' names, and the directory.
    cgroups: Vec<(Vec<String>, PathBuf)>,
    port: u16,
}

impl Web {
    fn run(service: &Service, port: u16) -> Self {
        let publish = format!("127.0.0.1:{port}:80");
        let serve = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www";
        service.dozen(&["run", "-d", "--name", "web", "-p", &publish, "busybox", "sh", "-c", serve]);
        let pid = service.dozen(&["inspect", "--format", "{{.State.Pid}}", "web"]);
        let cgroups = cgroups(&pid);
        let web = Self { pid, cgroups, port };
        until("the container serves", || web.serves().then_some(()));
        web
    }

    fn serves(&self) -> bool {
        page(self.port).is_ok_and(|page| page == "served\n")
    }

    /// It runs, serves, is in its cgroups, and has all controllers there.
    #[track_caller]
    fn check(&self) {
        assert!(self.serves());
        let mut controllers = Vec::new();
        for (names, directory) in &self.cgroups {
            let inside = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap();
            assert!(inside.lines().any(|pid| pid == self.pid), "{} is not in {}", self.pid, directory.display());
            controllers.extend(names.iter().map(|name| name.replace("blkio", "io")));
            let handed_on = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
            controllers.extend(handed_on.split_whitespace().map(str::to_owned));
        }
        assert!(CONTROLLERS.iter().all(|name| controllers.iter().any(|has| has == name)), "{controllers:?}");
    }

    fn has_cgroups(&self) -> bool {
        self.cgroups.iter().any(|(_, directory)| directory.exists())
    }
}

/// What a server on this machine answers to a request on a connection of its own.
fn page(port: u16) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut answer = String::new();
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    stream.set_read_timeout(Some(patience(Duration::from_secs(10))))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Where a process is in each hierarchy that is mounted (proc_pid_cgroup(5)).
fn cgroups(pid: &str) -> Vec<(Vec<String>, PathBuf)> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut found = Vec::new();
    for line in std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, name) = (fields.next().unwrap(), fields.next().unwrap());
        let is_its = |mount: &&str| {
            let fields: Vec<&str> = mount.split(' ').collect();
            let options: Vec<&str> = fields[3].split(',').collect();
            match controllers {
                "" => fields[2] == "cgroup2",
                _ => fields[2] == "cgroup" && controllers.split(',').all(|controller| options.contains(&controller)),
            }
        };
        let Some(mount) = mounts.lines().find(is_its) else { continue };
        let directory = PathBuf::from(mount.split(' ').nth(1).unwrap()).join(name.trim_start_matches('/'));
        found.push((controllers.split(',').map(str::to_owned).collect(), directory));
    }
    found
}

#[test]
#[ignore = "needs systemd as process 1: cargo xtask vm"]
fn vm_only_a_service_is_stopped_and_its_containers_are_not() {
    let service = Service::start("dozen-test-service", |unit| unit);
    let web = Web::run(&service, 18080);
    web.check();
    // systemd counts anew which controllers its own units need.
    systemctl(&["daemon-reload"]);
    systemctl(&["daemon-reexec"]);
    web.check();
    service.systemctl("restart");
    web.check();
    assert_eq!(service.dozen(&["ps", "--format", "{{.Names}} {{.State}}"]), "web running");
    service.systemctl("stop");
    web.check();
    service.systemctl("start");
    web.check();
    assert_eq!(service.dozen(&["exec", "web", "cat", "/www/index.html"]), "served");
    service.dozen(&["rm", "-f", "web"]);
    assert!(!web.has_cgroups() && !web.serves());
    // Nothing runs: an engine that is stopped takes its cgroups along.
    service.systemctl("stop");
    assert!(!web.cgroups.iter().any(|(_, directory)| directory.parent().unwrap().exists()));
}

/// A unit that says nothing about it has `KillMode=control-group`: what is in the service's own cgroup is told to end,
/// and killed after a while. Only the engine is.
#[test]
#[ignore = "needs systemd as process 1: cargo xtask vm"]
fn vm_only_a_unit_that_kills_all_of_its_cgroup_kills_no_container() {
    let change =
        |unit: String| unit.replace("KillMode=process\n", "").replace("TimeoutStopSec=10min", "TimeoutStopSec=3");
    let service = Service::start("dozen-test-killer", change);
    let web = Web::run(&service, 18081);
    let keeper = service.keeper().expect("the engine has a keeper");
    service.systemctl("stop");
    web.check();
    // It heeds no SIGTERM: systemd would have waited for it, and then killed it.
    assert_eq!(service.keeper(), Some(keeper));
    assert_eq!(service.property("Result"), "success");
    service.systemctl("start");
    web.check();
    assert_eq!(service.dozen(&["exec", "web", "cat", "/www/index.html"]), "served");
    service.dozen(&["rm", "-f", "web"]);
}

/// What a container says is in the machine's own journal, with the fields that Docker gives it.
#[test]
#[ignore = "needs systemd as process 1: cargo xtask vm"]
fn vm_only_the_journal_has_what_containers_say() {
    let service = Service::start("dozen-test-journal", |unit| unit);
    let script = "echo to the journal; echo to the journal too >&2";
    let logging = ["--log-driver", "journald", "--log-opt", "tag=spoken/{{.Name}}"];
    let run =
        ["run", "--name", "speaker", logging[0], logging[1], logging[2], logging[3], "busybox", "sh", "-c", script];
    service.dozen(&run);
    let id = service.dozen(&["inspect", "--format", "{{.Id}}", "speaker"]);
    let entries = until("the journal has both lines", || {
        let asked = ["--no-pager", "--output", "json", &format!("CONTAINER_ID_FULL={id}")];
        let output = Command::new("journalctl").args(asked).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let entries: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (entries.len() == 2).then_some(entries)
    });
    for (entry, message, priority) in [(&entries[0], "to the journal", "6"), (&entries[1], "to the journal too", "3")] {
        assert_eq!((&entry["MESSAGE"], &entry["PRIORITY"]), (&message.into(), &priority.into()), "{entry}");
        assert_eq!((&entry["CONTAINER_NAME"], &entry["CONTAINER_TAG"]), (&"speaker".into(), &"spoken/speaker".into()));
        assert_eq!(entry["CONTAINER_ID"].as_str(), id.get(..12));
    }
    assert_eq!(service.dozen(&["logs", "speaker"]).lines().next(), Some("to the journal"));
    service.dozen(&["rm", "speaker"]);
}
