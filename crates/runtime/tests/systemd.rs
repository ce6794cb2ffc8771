//! Containers as scopes of systemd's, where systemd is process 1: only `cargo xtask vm` runs these.

#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "runtime/bundle.rs"]
mod bundle;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use bundle::{Bundle, failure, stdout};
use serde_json::{Value, json};

/// A container in `dozen-test.slice`.
struct Container {
    bundle: Bundle,
    /// What the runtime is executed by.
    surroundings: Vec<&'static str>,
}

/// One test at a time, and none beside the engine's own: a systemd that reads its units anew answers nobody meanwhile.
fn turn() -> fs::File {
    let turn = fs::File::create("/run/dozen-test-systemd.lock").unwrap();
    turn.lock().unwrap();
    turn
}

impl Container {
    fn new(command: &str) -> Self {
        let bundle = Bundle::new(command);
        let path = format!("dozen-test.slice:probe:{}", bundle.id);
        let bundle = bundle.with(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        Self { bundle, surroundings: Vec::new() }
    }

    fn unit(&self) -> String {
        format!("probe-{}.scope", self.bundle.id)
    }

    fn directory(&self) -> PathBuf {
        format!("/sys/fs/cgroup/dozen.slice/dozen-test.slice/{}", self.unit()).into()
    }

    fn value(&self, file: &str) -> String {
        fs::read_to_string(self.directory().join(file)).unwrap().trim().to_owned()
    }

    fn property(&self, name: &str) -> String {
        let output = Command::new("systemctl").args(["show", "--value", "--property", name, &self.unit()]).output();
        stdout(&output.unwrap()).trim().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let command = self.bundle.command(&[&["--systemd-cgroup"], arguments].concat());
        let Some((first, rest)) = self.surroundings.split_first() else { return command };
        let mut surrounded = Command::new(first);
        surrounded.args(rest).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        surrounded
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let whole = [&arguments[..1], &[self.bundle.id.as_str()], &arguments[1..]].concat();
        self.command(&whole).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        stdout(&self.output(arguments))
    }

    #[track_caller]
    fn create(&self) {
        self.bundle.write();
        let mut create = self.command(&["create", "--bundle", self.bundle.path(), &self.bundle.id]);
        assert!(create.stdout(Stdio::null()).status().unwrap().success());
    }

    fn run(&self) -> Output {
        self.bundle.write();
        self.command(&["run", "--bundle", self.bundle.path(), &self.bundle.id]).output().unwrap()
    }

    #[track_caller]
    fn check_nothing_is_left(&self) {
        assert_eq!(self.property("LoadState"), "not-found");
        assert!(!self.directory().exists());
        self.bundle.check_nothing_is_left();
    }
}

fn systemctl(verb: &str) {
    assert!(Command::new("systemctl").arg(verb).status().unwrap().success());
}

#[test]
#[ignore = "needs systemd as process 1: cargo xtask vm"]
fn on_systemd_a_container_is_a_scope() {
    let _turn = turn();
    let mut container = Container::new("exec sleep 1000");
    container.bundle = container.bundle.with(|spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "swap": 96 << 20});
        spec["linux"]["resources"]["pids"] = json!({"limit": 20});
        spec["linux"]["resources"]["cpu"] = json!({"quota": 12_345, "period": 50_000, "shares": 512, "cpus": "0"});
    });
    container.create();
    let state: Value = serde_json::from_str(&container.ok(&["state"])).unwrap();
    let pid = state["pid"].as_i64().unwrap();
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroup.trim(), format!("0::/dozen.slice/dozen-test.slice/{}", container.unit()));
    // Whoever held the place is gone.
    assert_eq!(container.ok(&["ps", "--format", "json"]).trim(), format!("[{pid}]"));
    let properties = ["ActiveState", "Slice", "Delegate", "MemoryMax", "MemorySwapMax", "TasksMax", "AllowedCPUs"];
    let expected = ["active", "dozen-test.slice", "yes", "67108864", "33554432", "20", "0"];
    assert_eq!(properties.map(|name| container.property(name)), expected);
    let files = ["memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpu.weight", "cpuset.cpus"];
    let limits = ["67108864", "33554432", "20", "12345 50000", "20", "0"];
    assert_eq!(files.map(|file| container.value(file)), limits);
    container.ok(&["start"]);
    // systemd writes what it knows; the process stays, and so do the devices.
    systemctl("daemon-reload");
    assert_eq!(["memory.max", "pids.max"].map(|file| container.value(file)), ["67108864", "20"]);
    assert_eq!(container.ok(&["exec", "sh", "-c", "echo > /dev/null; cat /proc/self/cgroup"]), "0::/\n");

    container.ok(&["update", "--memory", "128M", "--memory-swap", "128M", "--pids-limit", "30"]);
    assert_eq!(
        ["MemoryMax", "MemorySwapMax", "TasksMax"].map(|name| container.property(name)),
        ["134217728", "0", "30"]
    );
    systemctl("daemon-reload");
    assert_eq!(
        ["memory.max", "memory.swap.max", "pids.max"].map(|file| container.value(file)),
        ["134217728", "0", "30"]
    );

    container.ok(&["pause"]);
    assert_eq!(container.value("cgroup.freeze"), "1");
    container.ok(&["resume"]);
    // Two in one cgroup would end as one.
    let other = Container::new("true");
    let path = container.bundle.spec["linux"]["cgroupsPath"].clone();
    let other = Container { bundle: other.bundle.with(|spec| spec["linux"]["cgroupsPath"] = path), ..other };
    assert!(failure(&other.run()).contains("is in use"));
    container.ok(&["delete", "--force"]);
    container.check_nothing_is_left();
}

#[test]
#[ignore = "needs systemd as process 1: cargo xtask vm"]
fn on_systemd_a_scope_ends_with_its_container() {
    let _turn = turn();
    let container = Container::new("exit 7");
    let ended = container.run();
    assert_eq!(ended.status.code(), Some(7), "{}", String::from_utf8_lossy(&ended.stderr));
    container.check_nothing_is_left();
    let mut container = Container::new("");
    container.bundle = container.bundle.with(|spec| spec["process"]["args"] = json!(["/nope"]));
    assert!(failure(&container.run()).contains("no such file or directory"));
    container.check_nothing_is_left();
    // By itself, and then it is removed.
    let container = Container::new("exec sleep 1000");
    container.create();
    container.ok(&["start"]);
    container.ok(&["pause"]);
    container.ok(&["kill", "KILL"]);
    let gone = (0..6000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        container.property("LoadState") == "not-found"
    });
    assert!(gone, "systemd keeps the scope of a container that has ended");
    container.ok(&["delete"]);
    container.check_nothing_is_left();
    // Where it is when nobody says.
    let mut container = Container::new("cat /proc/1/cgroup");
    container.bundle = container.bundle.with(|spec| {
        spec["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        // Without a namespace of its own it sees the whole path.
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
    });
    assert_eq!(stdout(&container.run()), format!("0::/system.slice/dozen-{}.scope\n", container.bundle.id));
    container.bundle = container.bundle.with(|spec| spec["linux"]["cgroupsPath"] = json!("/a/b"));
    assert!(failure(&container.run()).contains("slice:prefix:name"));
}

/// The same where systemd's own socket is out of reach.
#[test]
#[ignore = "needs systemd as process 1: cargo xtask vm"]
fn on_systemd_a_scope_is_made_by_way_of_the_bus() {
    let _turn = turn();
    let hide = "mount --bind /dev/null /run/systemd/private && exec \"$@\"";
    let mut container = Container::new("exec sleep 1000");
    container.surroundings = vec!["unshare", "--mount", "sh", "-c", hide, "sh"];
    container.create();
    assert_eq!(container.property("ActiveState"), "active");
    container.ok(&["update", "--pids-limit", "30"]);
    assert_eq!((container.property("TasksMax"), container.value("pids.max")), ("30".to_owned(), "30".to_owned()));
    container.ok(&["delete", "--force"]);
    container.check_nothing_is_left();
}
