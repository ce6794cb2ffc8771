//! The inside of a cell: its process 1, and the agent that does the works there.

mod api;
mod archives;
mod builds;
mod bundle;
mod crowd;
mod engine;
mod memory;
pub mod names;
mod neighbours;
mod pull_floor;
mod registries;
mod runtime;
mod servers;
mod syscalls;
pub mod talk;
mod tasks;
pub mod traffic;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_remount, unmount};
use rustix::process::{WaitOptions, chdir, pivot_root, wait};
use serde_json::{Value, json};

use super::cgroups;
use super::peers::BENCH_DIRECTORY;
use crate::failure::{Attempt, Failure};
use crate::steps;
use engine::Engine;

/// What every program inside sees of an environment: our own says things about the host.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", "/bench/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LC_ALL", "C"),
    // What podman has to say about version 1 of cgroups it would say with every command.
    ("PODMAN_IGNORE_CGROUPSV1_WARNING", "1"),
];

/// Process 1: makes the cell's mounts, starts the agent and reaps until it ends.
pub fn first(name: &str, scratch: &Path, root: &Path) -> Result<(), Failure> {
    change_root(&scratch.join(name), scratch, root)?;
    steps::capture(Command::new("/usr/sbin/ip").args(["link", "set", "lo", "up"]))?;
    let mut agent = Command::new("/bench/bin/xtask");
    agent.args(["bench", "--inside", "agent", name]).env_clear().envs(ENVIRONMENT);
    let agent = agent.spawn().attempting("start the agent")?;
    loop {
        match wait(WaitOptions::empty()).attempting("wait for a child")? {
            // Whoever lost its parent comes to us, and is of no interest.
            Some((pid, status)) if pid.as_raw_pid() == agent.id() as i32 => {
                return match status.exit_status() {
                    Some(0) => Ok(()),
                    _ => Err(Failure::new(format!("the agent of {name} ended: {status:?}"))),
                };
            }
            _ => {}
        }
    }
}

/// The peers' root, read-only, with kernel file systems of this cell's namespaces and a place to write on a real disk.
fn change_root(own: &Path, scratch: &Path, peers: &Path) -> Result<(), Failure> {
    let (root, var) = (own.join("root"), own.join("var"));
    for directory in ["cache", "lib", "log", "tmp"].map(|name| var.join(name)).iter().chain([&root]) {
        std::fs::create_dir_all(directory).attempting(format_args!("create {}", directory.display()))?;
    }
    for (name, target) in [("run", "/run"), ("lock", "/run/lock")] {
        std::os::unix::fs::symlink(target, var.join(name)).attempting(format_args!("link /var/{name}"))?;
    }
    let at = |name: &str| root.join(name);
    let none = MountFlags::empty();
    let bind = |source: &Path, target: &PathBuf| {
        mount_bind(source, target).attempting(format_args!("bind {} to {}", source.display(), target.display()))
    };
    bind(peers, &root)?;
    bind(&var, &at("var"))?;
    bind(&scratch.join("bench"), &at(BENCH_DIRECTORY))?;
    let resolver = Path::new("/etc/resolv.conf");
    if resolver.is_file() {
        bind(resolver, &at("etc/resolv.conf"))?;
    }
    mount("proc", at("proc"), "proc", none, None).attempting("mount proc")?;
    mount("sysfs", at("sys"), "sysfs", none, None).attempting("mount sysfs")?;
    cgroups::mount_at(&at("sys/fs/cgroup"))?;
    mount_bind_recursive("/dev", at("dev")).attempting("bind /dev")?;
    mount("devpts", at("dev/pts"), "devpts", none, Some(c"newinstance,ptmxmode=0666,mode=620"))
        .attempting("mount devpts")?;
    mount("tmpfs", at("dev/shm"), "tmpfs", none, None).attempting("mount /dev/shm")?;
    mount("tmpfs", at("run"), "tmpfs", none, Some(c"mode=755")).attempting("mount /run")?;
    mount("tmpfs", at("tmp"), "tmpfs", none, None).attempting("mount /tmp")?;
    mount_remount(&root, MountFlags::BIND | MountFlags::RDONLY, c"").attempting("make the root read-only")?;
    // pivot_root(2), "pivot_root(".", ".")": the old root is stacked on the new one and then let go.
    chdir(&root).attempting("enter the root")?;
    pivot_root(".", ".").attempting("change the root")?;
    unmount(".", UnmountFlags::DETACH).attempting("let go of the old root")?;
    chdir("/").attempting("enter the root")
}

/// The agent: answers requests until they end.
pub fn agent(name: &str) -> Result<(), Failure> {
    let (send, requests) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
        // The bench has ended: a work that is under way does not hold the cell.
        std::process::exit(0);
    });
    let mut agent = Agent { engine: None, tasks: HashMap::new() };
    for line in requests {
        let answer = match agent.answer(name, &line) {
            Ok(answer) => answer,
            Err(failure) => json!({ "error": failure.to_string() }),
        };
        let mut output = std::io::stdout().lock();
        writeln!(output, "{answer}").and_then(|()| output.flush()).attempting("answer")?;
    }
    Ok(())
}

struct Agent {
    engine: Option<Engine>,
    tasks: HashMap<String, Box<dyn tasks::Task>>,
}

impl Agent {
    fn answer(&mut self, name: &str, line: &str) -> Result<Value, Failure> {
        let request: Value = serde_json::from_str(line).attempting("read a request")?;
        let word = |key: &str| request[key].as_str().unwrap_or_default();
        let (work, subject) = (word("work"), word("subject"));
        let key = format!("{work} {subject}");
        match word("do") {
            "start" => {
                self.engine = Engine::start(name)?;
                Ok(json!({ "versions": engine::versions(name)? }))
            }
            "bundle" => bundle::write(self.engine.as_ref().ok_or_else(no_engine)?).map(|()| json!({})),
            "prepare" => {
                let mut task = tasks::of(work, subject, self.engine.as_ref())?;
                let prepared = task.prepare();
                self.tasks.insert(key, task);
                prepared.map(|()| json!({}))
            }
            "round" => {
                let task = self.tasks.get_mut(&key).ok_or_else(|| Failure::new(format!("{key} is not prepared")))?;
                task.round().map(|value| json!({ "value": value }))
            }
            "finish" => match self.tasks.remove(&key) {
                Some(mut task) => task.finish().map(|()| json!({})),
                None => Ok(json!({})),
            },
            other => Err(Failure::new(format!("an unknown request: {other}"))),
        }
    }
}

fn no_engine() -> Failure {
    Failure::new("no engine runs in this cell")
}

/// Runs a command without its talk; what it said on standard error is shown in the failure, and only there. A file takes
/// it, so that nobody has to be there to read while a command is timed.
fn quietly(command: &mut Command) -> Result<(), Failure> {
    const SAID: &str = "/tmp/said";
    let line = steps::shown(command);
    let said = std::fs::File::create(SAID).attempting("create /tmp/said")?;
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).status();
    let status = status.attempting(format_args!("run {line}"))?;
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read_to_string(SAID).unwrap_or_default();
    Err(Failure::new(format!("'{line}' failed ({status}): {}", said.trim())))
}
