//! Containers as scopes of systemd's, where systemd is process 1: only `cargo xtask vm` runs these, with any `--cgroups`.

#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "runtime/bundle.rs"]
mod bundle;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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

/// No controller is in version 1.
fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Where a container is paused, and by which words of which file. Version 2 does it wherever there is one.
fn freezer() -> (&'static str, &'static str, &'static str) {
    match Path::new("/sys/fs/cgroup/unified").exists() || is_unified() {
        true => ("unified", "cgroup.freeze", "1"),
        false => ("freezer", "freezer.state", "FROZEN"),
    }
}

/// Every hierarchy that is mounted has this process in the same cgroup; of the devices' it is in the one below.
#[track_caller]
fn is_in(cgroups: &str, name: &str) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let has_version_2 = mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let lines: Vec<&str> = cgroups.lines().filter(|line| has_version_2 || !line.starts_with("0:")).collect();
    assert!(if is_unified() { lines.len() == 1 } else { lines.len() > 5 }, "{cgroups}");
    for line in lines {
        let below = if line.contains(":devices:") { "/container" } else { "" };
        let place = line.splitn(3, ':').nth(2).unwrap();
        assert!(place == name || place == format!("{name}{below}"), "{line}");
    }
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

    fn name(&self) -> String {
        format!("/dozen.slice/dozen-test.slice/{}", self.unit())
    }

    fn directory(&self, controller: &str) -> PathBuf {
        let controller = if is_unified() { "" } else { controller };
        Path::new("/sys/fs/cgroup").join(controller).join(&self.name()[1..])
    }

    /// A value by its file's name in version 1 or 2.
    fn value(&self, version_1: &str, version_2: &str) -> String {
        let file = if is_unified() { version_2 } else { version_1 };
        let path = self.directory(file.split('.').next().unwrap()).join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
    }

    /// By the names in version 1, or in version 2.
    #[track_caller]
    fn check(&self, version_1: &[(&str, &str)], version_2: &[(&str, &str)]) {
        for (name, expected) in if is_unified() { version_2 } else { version_1 } {
            let is = if name.contains('.') { self.value(name, name) } else { self.property(name) };
            assert_eq!(is, *expected, "{name}");
        }
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
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let is_cgroup = |line: &&str| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup"));
        for hierarchy in mounts.lines().filter(is_cgroup).map(|line| line.split(' ').nth(1).unwrap()) {
            let directory = Path::new(hierarchy).join(&self.name()[1..]);
            assert!(!directory.exists(), "{}", directory.display());
        }
        self.bundle.check_nothing_is_left();
    }
}

fn systemctl(verb: &str) {
    assert!(Command::new("systemctl").arg(verb).status().unwrap().success());
}

#[test]
#[ignore = "needs systemd as process 1: cargo xtask vm"]
fn vm_only_a_container_is_a_scope() {
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
    is_in(&fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap(), &container.name());
    // Whoever held the place is gone.
    assert_eq!(container.ok(&["ps", "--format", "json"]).trim(), format!("[{pid}]"));
    let properties = ["ActiveState", "Slice", "Delegate", "TasksMax"];
    assert_eq!(properties.map(|name| container.property(name)), ["active", "dozen-test.slice", "yes", "20"]);
    container.check(
        &[("MemoryLimit", "67108864"), ("CPUShares", "512")],
        &[("MemoryMax", "67108864"), ("MemorySwapMax", "33554432"), ("AllowedCPUs", "0")],
    );
    let limits = || {
        container.check(
            &[
                ("memory.limit_in_bytes", "67108864"),
                ("memory.memsw.limit_in_bytes", "100663296"),
                ("pids.max", "20"),
                ("cpu.shares", "512"),
                ("cpuset.cpus", "0"),
            ],
            &[
                ("memory.max", "67108864"),
                ("memory.swap.max", "33554432"),
                ("pids.max", "20"),
                ("cpu.weight", "20"),
                ("cpuset.cpus", "0"),
            ],
        );
    };
    limits();
    container.check(&[("cpu.cfs_quota_us", "12345"), ("cpu.cfs_period_us", "50000")], &[("cpu.max", "12345 50000")]);
    container.ok(&["start"]);
    // systemd writes what it knows; the process stays.
    systemctl("daemon-reload");
    limits();
    is_in(&container.ok(&["exec", "cat", "/proc/self/cgroup"]), "/");

    container.ok(&["update", "--memory", "128M", "--memory-swap", "128M", "--pids-limit", "30"]);
    container.check(&[("MemoryLimit", "134217728")], &[("MemoryMax", "134217728"), ("MemorySwapMax", "0")]);
    systemctl("daemon-reload");
    container.check(
        &[
            ("memory.limit_in_bytes", "134217728"),
            ("memory.memsw.limit_in_bytes", "134217728"),
            ("pids.max", "30"),
            ("TasksMax", "30"),
        ],
        &[("memory.max", "134217728"), ("memory.swap.max", "0"), ("pids.max", "30"), ("TasksMax", "30")],
    );

    container.ok(&["pause"]);
    let (controller, file, frozen) = freezer();
    let state = fs::read_to_string(container.directory(controller).join(file)).unwrap();
    assert_eq!(state.trim(), frozen);
    container.ok(&["resume"]);
    // Two in one cgroup would end as one.
    let other = Container::new("true");
    let path = container.bundle.spec["linux"]["cgroupsPath"].clone();
    let other = Container { bundle: other.bundle.with(|spec| spec["linux"]["cgroupsPath"] = path), ..other };
    assert!(failure(&other.run()).contains("is in use"));
    container.ok(&["delete", "--force"]);
    container.check_nothing_is_left();
}

/// Of what systemd writes anew when it has read its units, nothing gives the container more than it was given, or less.
#[test]
#[ignore = "needs systemd as process 1: cargo xtask vm"]
fn vm_only_a_scope_is_as_it_was_when_systemd_reads_its_units() {
    let _turn = turn();
    if !is_unified() {
        // Version 1 has weights of BFQ's only, and they come with it.
        assert!(Command::new("modprobe").arg("bfq").status().unwrap().success());
    }
    let mut container = Container::new("exec sleep 1000");
    container.bundle = container.bundle.with(|spec| spec["linux"]["resources"]["blockIO"] = json!({"weight": 100}));
    container.create();
    container.ok(&["start"]);
    // The machine's disk, which is nobody's to read in there.
    let disk = fs::metadata("/").unwrap().dev();
    let node = format!("mknod /tmp/disk b {} {}", rustix::fs::major(disk), rustix::fs::minor(disk));
    container.ok(&["exec", "sh", "-c", &node]);
    let devices =
        "dd if=/tmp/disk of=/dev/null bs=512 count=1 2>/dev/null && echo read; echo x > /dev/null && echo null";
    let same = || {
        assert_eq!(container.ok(&["exec", "sh", "-c", devices]), "null\n");
        container.check(&[("blkio.bfq.weight", "100")], &[("io.weight", "default 910")]);
    };
    same();
    systemctl("daemon-reload");
    same();
    container.ok(&["update", "--cpu-idle", "1"]);
    systemctl("daemon-reload");
    same();
    assert_eq!(container.value("cpu.idle", "cpu.idle"), "1");
    container.ok(&["update", "--cpu-idle", "0"]);
    container.ok(&["update", "--cpu-share", "512"]);
    systemctl("daemon-reload");
    container.check(&[("cpu.idle", "0"), ("cpu.shares", "512")], &[("cpu.idle", "0"), ("cpu.weight", "20")]);
    container.ok(&["delete", "--force"]);
    container.check_nothing_is_left();
}

#[test]
#[ignore = "needs systemd as process 1: cargo xtask vm"]
fn vm_only_a_scope_ends_with_its_container() {
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
    is_in(&stdout(&container.run()), &format!("/system.slice/dozen-{}.scope", container.bundle.id));
    container.bundle = container.bundle.with(|spec| spec["linux"]["cgroupsPath"] = json!("/a/b"));
    assert!(failure(&container.run()).contains("slice:prefix:name"));
}

/// A scope of the same name, after the first has ended: what is said of the first does not meet it.
#[test]
#[ignore = "needs systemd as process 1: cargo xtask vm"]
fn vm_only_who_has_a_scope_next_is_left_alone() {
    let _turn = turn();
    let first = Container::new("true");
    first.bundle.write();
    let keep = first.command(&["run", "--keep", "--bundle", first.bundle.path(), &first.bundle.id]).status();
    assert!(keep.unwrap().success());
    // Of another `--root`.
    let second = Container::new("exec sleep 1000");
    let path = first.bundle.spec["linux"]["cgroupsPath"].clone();
    let second = Container { bundle: second.bundle.with(|spec| spec["linux"]["cgroupsPath"] = path), ..second };
    second.create();
    second.ok(&["start"]);
    let state = || -> Value { serde_json::from_str(&second.ok(&["state"])).unwrap() };
    let pid = state()["pid"].clone();
    first.ok(&["kill", "--all", "KILL"]);
    first.ok(&["delete"]);
    assert_eq!((&state()["status"], &state()["pid"]), (&json!("running"), &pid));
    assert_eq!(first.property("ActiveState"), "active");
    second.ok(&["delete", "--force"]);
    first.check_nothing_is_left();
    second.bundle.check_nothing_is_left();
}

/// The same where systemd's own socket is out of reach.
#[test]
#[ignore = "needs systemd as process 1: cargo xtask vm"]
fn vm_only_a_scope_is_made_by_way_of_the_bus() {
    let _turn = turn();
    let hide = "mount --bind /dev/null /run/systemd/private && exec \"$@\"";
    let mut container = Container::new("exec sleep 1000");
    container.surroundings = vec!["unshare", "--mount", "sh", "-c", hide, "sh"];
    container.create();
    assert_eq!(container.property("ActiveState"), "active");
    container.ok(&["update", "--pids-limit", "30"]);
    container.check(&[("TasksMax", "30"), ("pids.max", "30")], &[("TasksMax", "30"), ("pids.max", "30")]);
    container.ok(&["delete", "--force"]);
    container.check_nothing_is_left();
}
