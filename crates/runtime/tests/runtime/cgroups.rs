//! Limits and states of a running container's cgroup, changed and read by the standard command line.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::bundle::{Bundle, failure, stdout};
use crate::oracle::without_version_2;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use serde_json::{Value, json};

/// A container that is there until it is dropped.
struct Container {
    bundle: Bundle,
    /// What the runtime is executed by.
    surroundings: Vec<String>,
}

impl Container {
    fn run(bundle: Bundle) -> Self {
        Self::run_in(Vec::new(), bundle)
    }

    fn run_in(surroundings: Vec<String>, bundle: Bundle) -> Self {
        bundle.write();
        let container = Self { bundle, surroundings };
        let mut run = container.command(&["run", "--detach", "--bundle", container.bundle.path(), container.id()]);
        assert!(run.stdout(Stdio::null()).status().unwrap().success());
        container
    }

    fn id(&self) -> &str {
        &self.bundle.id
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let command = self.bundle.command(arguments);
        let Some((first, rest)) = self.surroundings.split_first() else { return command };
        let mut surrounded = Command::new(first);
        surrounded.args(rest).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        surrounded
    }

    /// A command, with the id after its first word.
    fn output(&self, arguments: &[&str]) -> std::process::Output {
        let whole = [&arguments[..1], &[self.id()], &arguments[1..]].concat();
        self.command(&whole).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        stdout(&self.output(arguments))
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        failure(&self.output(arguments))
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state"])).unwrap()
    }

    /// Where the machine has this controller, and whether that is version 2.
    fn controller(&self, name: &str) -> (PathBuf, bool) {
        let version_1 = Path::new("/sys/fs/cgroup").join(name).join(self.id());
        if version_1.exists() { (version_1, false) } else { (Path::new("/sys/fs/cgroup").join(self.id()), true) }
    }

    /// A value by its file's name in version 1 or 2.
    fn value(&self, controller: &str, version_1: &str, version_2: &str) -> String {
        let (directory, unified) = self.controller(controller);
        let file = directory.join(if unified { version_2 } else { version_1 });
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let deleted = self.command(&["delete", "--force", &self.bundle.id]).output().unwrap();
        if !std::thread::panicking() {
            stdout(&deleted);
            self.bundle.check_nothing_is_left();
        }
    }
}

#[test]
fn a_paused_container_stands_still() {
    stands_still(Vec::new());
}

/// By the freezer of version 1, where that is all there is.
#[test]
fn a_paused_container_stands_still_without_version_2() {
    stands_still(without_version_2());
}

fn stands_still(surroundings: Vec<String>) {
    // It counts as fast as it can, in a file.
    let count = "i=0; while true; do i=$((i+1)); echo $i > /tmp/count; done";
    let container = Container::run_in(surroundings, Bundle::new(count));
    let file = container.bundle.root().join("tmp/count");
    assert_eq!(container.state()["status"], "running");
    assert!(container.fails(&["resume"]).contains("not paused"));
    container.ok(&["pause"]);
    assert_eq!(container.state()["status"], "paused");
    assert!(stdout(&container.command(&["list"]).output().unwrap()).contains("paused"));
    let before = fs::read_to_string(&file).unwrap();
    assert!(container.fails(&["pause"]).contains("paused already"));
    assert!(container.fails(&["start"]).contains("already running"));
    assert!(container.fails(&["exec", "true"]).contains("cannot exec in a paused container"));
    assert!(container.fails(&["delete"]).contains("not stopped"));
    assert_eq!(fs::read_to_string(&file).unwrap(), before, "it went on");
    // inotify(7): the next write is an event.
    let writes = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&writes, &file, inotify::WatchFlags::MODIFY).unwrap();
    container.ok(&["resume"]);
    assert_eq!(container.state()["status"], "running");
    let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&writes, PollFlags::IN)], Some(&patience)), Ok(1), "it stands still for ever");
    // Paused and removed by force, when it is dropped.
    container.ok(&["pause"]);
}

#[test]
fn a_paused_container_can_be_killed() {
    is_killed(Vec::new());
    is_killed(without_version_2());
}

fn is_killed(surroundings: Vec<String>) {
    let container = Container::run_in(surroundings, Bundle::new("exec sleep 1000"));
    let pid = i32::try_from(container.state()["pid"].as_i64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    container.ok(&["pause"]);
    container.ok(&["kill", "KILL"]);
    rustix::event::poll(&mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)], None).unwrap();
    assert_eq!(container.state()["status"], "stopped");
    for command in ["pause", "resume", "update", "events"] {
        assert!(container.fails(&[command]).contains("container not running"), "{command}");
    }
    assert_eq!(container.ok(&["ps", "--format", "json"]), "[]\n");
    assert_eq!(container.ok(&["ps"]).lines().count(), 1);
}

#[test]
fn limits_are_changed_up_and_down() {
    let megabytes = |count: i64| (count << 20).to_string();
    let bundle = Bundle::new("exec sleep 1000").with(|spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "swap": 96 << 20});
        spec["linux"]["resources"]["pids"] = json!({"limit": 20});
    });
    let container = Container::run(bundle);
    let memory = || container.value("memory", "memory.limit_in_bytes", "memory.max");
    // With swap in version 1, swap alone in version 2.
    let swap = || container.value("memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    let unified = container.controller("memory").1;
    let swap_of = |together: i64, memory: i64| megabytes(if unified { together - memory } else { together });
    assert_eq!((memory(), swap()), (megabytes(64), swap_of(96, 64)));
    // Above what both together were, and below what memory was: either order would be wrong once.
    container.ok(&["update", "--memory", "128M", "--memory-swap", "256m"]);
    assert_eq!((memory(), swap()), (megabytes(128), swap_of(256, 128)));
    container.ok(&["update", "--memory", "32M", "--memory-swap", "48m"]);
    assert_eq!((memory(), swap()), (megabytes(32), swap_of(48, 32)));
    // Version 2 counts swap for itself, and knows no such rule.
    if !unified {
        let error = container.fails(&["update", "--memory", "64M"]);
        assert!(error.contains("smaller than already set memoryswap limit"), "{error}");
        assert!(container.fails(&["update", "--memory-swap", "16M"]).contains("Minimum memoryswap limit"));
    }
    container.ok(&["update", "--memory-reservation", "16m", "--pids-limit", "30"]);
    assert_eq!(container.value("memory", "memory.soft_limit_in_bytes", "memory.low"), megabytes(16));
    assert_eq!((memory(), container.value("pids", "pids.max", "pids.max")), (megabytes(32), "30".to_owned()));
    container.ok(&["update", "--memory", "-1", "--pids-limit", "-1"]);
    let unlimited = if unified { "max" } else { "9223372036854771712" };
    assert_eq!((memory().as_str(), swap().as_str()), (unlimited, unlimited));
    assert_eq!(container.value("pids", "pids.max", "pids.max"), "max");

    container.ok(&["update", "--cpu-period", "50000", "--cpu-quota", "20000", "--cpu-share", "512"]);
    let quota = || match unified {
        true => container.value("cpu", "", "cpu.max"),
        false => ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|file| container.value("cpu", file, "")).join(" "),
    };
    assert_eq!(quota(), "20000 50000");
    // More burst than the old quota allows, then a quota below the old burst.
    container.ok(&["update", "--cpu-quota", "40000", "--cpu-burst", "30000"]);
    container.ok(&["update", "--cpu-quota", "10000", "--cpu-burst", "5000"]);
    assert_eq!(quota(), "10000 50000");
    assert_eq!(container.value("cpu", "cpu.cfs_burst_us", "cpu.max.burst"), "5000");
    container.ok(&["update", "--cpu-idle", "1"]);
    assert_eq!(container.value("cpu", "cpu.idle", "cpu.idle"), "1");
    container.ok(&["update", "--cpu-idle", "0", "--cpuset-cpus", "0"]);
    assert_eq!(container.value("cpu", "cpu.idle", "cpu.idle"), "0");
    assert_eq!(container.value("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
}

#[test]
fn limits_come_as_json_and_what_cannot_be_is_named() {
    let container = Container::run(Bundle::new("exec sleep 1000"));
    let file = container.bundle.directory.path().join("resources.json");
    fs::write(&file, r#"{"pids": {"limit": 17}, "memory": {"limit": 50331648}, "devices": [{"allow": false}]}"#)
        .unwrap();
    container.ok(&["update", "--resources", file.to_str().unwrap(), "--pids-limit", "1"]);
    assert_eq!(container.value("pids", "pids.max", "pids.max"), "17");
    // Devices stay, whatever is said of them.
    assert_eq!(container.ok(&["exec", "sh", "-c", "echo > /dev/null && echo fine"]), "fine\n");
    let mut piped = container.command(&["update", "-r", "-", container.id()]);
    let mut piped = piped.stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut piped.stdin.take().unwrap(), br#"{"pids": {"limit": 18}}"#).unwrap();
    assert!(piped.wait().unwrap().success());
    assert_eq!(container.value("pids", "pids.max", "pids.max"), "18");
    fs::write(&file, "{").unwrap();
    assert!(container.fails(&["update", "-r", file.to_str().unwrap()]).contains("resources.json"));
    fs::write(&file, r#"{"unified": {"nothing.max": "1"}}"#).unwrap();
    let error = container.fails(&["update", "-r", file.to_str().unwrap()]);
    assert!(error.contains("\"nothing.max\" can't be set: controller \"nothing\" not available"), "{error}");
    assert!(container.fails(&["update", "--blkio-weight", "1"]).contains("between 10 and 1000"));
    assert!(container.fails(&["update", "--memory", "much"]).contains("no amount of bytes"));
}

/// A cgroup's parents hand on a controller when a limit needs it, and not before.
#[test]
fn controllers_of_version_2_are_enabled() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let unified = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("version 2 is mounted");
    let unified = Path::new(unified.split(' ').nth(1).unwrap());
    let controllers = fs::read_to_string(unified.join("cgroup.controllers")).unwrap();
    let known = [("hugetlb", "hugetlb.2MB.max"), ("pids", "pids.max")];
    let (controller, file) = known
        .into_iter()
        .find(|(name, _)| controllers.split_whitespace().any(|known| known == *name))
        .unwrap_or_else(|| panic!("this machine's version 2 has no controller of these: {controllers}"));
    // Unless somebody else needs it just now.
    let _ = fs::write(unified.join("cgroup.subtree_control"), format!("-{controller}"));
    let container = Container::run(
        Bundle::new("exec sleep 1000").with(|spec| spec["linux"]["resources"]["unified"] = json!({file: "4194304"})),
    );
    assert_eq!(fs::read_to_string(unified.join(container.id()).join(file)).unwrap(), "4194304\n");
}

#[test]
fn processes_are_listed() {
    let container = Container::run(Bundle::new("sleep 1001 & exec sleep 1002"));
    let pid = container.state()["pid"].as_i64().unwrap();
    let ids = || -> Vec<i64> { serde_json::from_str(&container.ok(&["ps", "--format", "json"])).unwrap() };
    assert!(ids().contains(&pid));
    let table = container.ok(&["ps"]);
    assert!(table.lines().next().unwrap().contains("PID") && table.contains("sleep"), "{table}");
    assert!(!table.contains("kthreadd") && !table.contains("cargo"), "{table}");
    let chosen = container.ok(&["ps", "-o", "pid,args", "-e"]);
    assert!(chosen.lines().skip(1).any(|line| line.trim_start().starts_with(&format!("{pid} "))), "{chosen}");
    assert!(container.fails(&["ps", "--format", "yaml"]).contains("want table or json"));
    assert!(container.fails(&["ps", "-o", "args"]).contains("no column PID"));
}

#[test]
fn figures_and_want_of_memory_are_told() {
    // It waits until we listen, and then takes more than it may have.
    let greedy = "while [ ! -e /tmp/go ]; do sleep 0.01; done; tail -c 64000000 /dev/zero; exec sleep 1000";
    let bundle = Bundle::new(greedy).with(|spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
        spec["linux"]["resources"]["pids"] = json!({"limit": 50});
    });
    let container = Container::run(bundle);
    let once: Value = serde_json::from_str(&container.ok(&["events", "--stats"])).unwrap();
    assert_eq!((&once["type"], once["id"].as_str()), (&json!("stats"), Some(container.id())));
    let data = &once["data"];
    assert_eq!((&data["pids"]["limit"], &data["memory"]["usage"]["limit"]), (&json!(50), &json!(16 << 20)));
    assert!(data["pids"]["current"].as_u64().unwrap() >= 1 && data["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0 && data["memory"]["raw"].is_object());

    let mut listener = Listener::new(&container);
    // The first figures say that it listens.
    assert_eq!(listener.next()["type"], "stats");
    fs::write(container.bundle.root().join("tmp/go"), "").unwrap();
    let event = std::iter::repeat_with(|| listener.next()).find(|event| event["type"] == "oom");
    assert_eq!(event.unwrap(), json!({"type": "oom", "id": container.id()}));
    container.ok(&["kill", "KILL"]);
    // The stream ends with the container.
    assert!(listener.0.wait().unwrap().success());
}

/// `events`, under way.
struct Listener(Child, BufReader<std::process::ChildStdout>);

impl Listener {
    fn new(container: &Container) -> Self {
        let mut command = container.command(&["events", "--interval", "100ms", container.id()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self(child, lines)
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}
