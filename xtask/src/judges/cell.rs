//! A suite's cell: namespaces and cgroups of its own over the judges' root. There is one place for it at a time, which is
//! emptied before and after each run: an interrupted one could not.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::tap::{self, Outcome, TestResult};
use crate::failure::{Attempt, Failure};
use crate::{host, steps};

const ENTER: &str = include_str!("enter.sh");
const SCRIPTS: [(&str, &str); 4] = [
    ("crun.sh", include_str!("crun.sh")),
    ("runc.sh", include_str!("runc.sh")),
    ("engines.sh", include_str!("engines.sh")),
    ("builds.sh", include_str!("builds.sh")),
];
/// The cell's cgroup, in every hierarchy.
pub const CGROUP: &str = "dozen-judges";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    Crun,
    Runc,
    Engines,
}

impl Suite {
    pub fn name(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Engines => "engines",
        }
    }
}

/// The one place where a cell can be.
pub struct Place {
    root: PathBuf,
    cgroup: &'static str,
    dozen: PathBuf,
    scratch: PathBuf,
    _lock: File,
}

impl Place {
    pub fn new(root: PathBuf, dozen: PathBuf) -> Result<Self, Failure> {
        Self::of("judges", CGROUP, root, dozen)
    }

    /// The place of another verb, with a cgroup of its own.
    pub fn of(verb: &str, cgroup: &'static str, root: PathBuf, dozen: PathBuf) -> Result<Self, Failure> {
        let directory = host::cache_directory()?.join(verb);
        let path = directory.join("cell.lock");
        let lock = File::create(&path).attempting(format_args!("create {}", path.display()))?;
        lock.try_lock().map_err(|_| Failure::new(format!("another run of cargo xtask {verb} is at work")))?;
        let place = Self { root, cgroup, dozen, scratch: directory.join("cell"), _lock: lock };
        place.empty()?;
        Ok(place)
    }

    /// Runs a suite to its end.
    pub fn run(&self, suite: Suite, runtime: &str, filter: Option<&str>) -> Result<Vec<TestResult>, Failure> {
        steps::step(format_args!("{}: with {runtime}, a line for each test that fails", suite.name()));
        let mut results = Vec::new();
        let arguments: Vec<&str> = [runtime].into_iter().chain(filter).collect();
        let status = self.hear(&format!("{}.sh", suite.name()), &arguments, &|_| Ok(()), |line| {
            if tap::read(line, &mut results) == Some(Outcome::Failed) {
                eprintln!("    {line}");
            }
            Ok(())
        })?;
        if results.is_empty() {
            return Err(Failure::new(format!("no test of {} ran ({status})", suite.name()))
                .with_hint("is there a test of that name? what the cell said is above"));
        }
        Ok(results)
    }

    /// Runs one of the scripts to its end. `furnish` puts further files to it, before the cell is entered; `heard` is told
    /// each line of what it says while the cell is there.
    pub fn hear(
        &self,
        script: &str,
        arguments: &[&str],
        furnish: &dyn Fn(&Path) -> Result<(), Failure>,
        mut heard: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<ExitStatus, Failure> {
        self.empty()?;
        let shown = self.scratch.join("cell");
        std::fs::create_dir_all(&shown).attempting(format_args!("create {}", shown.display()))?;
        for (name, text) in SCRIPTS {
            std::fs::write(shown.join(name), text).attempting(format_args!("write {name}"))?;
        }
        std::fs::copy(&self.dozen, shown.join("dozen")).attempting("copy dozen")?;
        symlink("dozen", shown.join("dozen-runtime")).attempting("link dozen-runtime")?;
        furnish(&shown)?;
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", ENTER, "sh"]).arg(&self.root).arg(&self.scratch).arg(self.cgroup);
        command.args(["sh", &format!("/cell/{script}")]).args(arguments);
        // A group of its own: a test that sends signals to a group sends them to its own.
        let mut child =
            command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().attempting("start a cell")?;
        let lines = BufReader::new(child.stdout.take().expect("it was piped")).split(b'\n').map_while(Result::ok);
        let told = lines.map(|line| heard(&String::from_utf8_lossy(&line))).find(Result::is_err);
        // Whoever is still there is ended with the cell.
        let emptied = told.is_some().then(|| self.empty());
        let status = child.wait().attempting("wait for the cell")?;
        told.unwrap_or(Ok(()))?;
        emptied.unwrap_or_else(|| self.empty())?;
        Ok(status)
    }

    /// Starts a shell's script in a cell. It ends with its standard input, which is ours to close.
    pub fn start(&self, script: &str) -> Result<Child, Failure> {
        self.empty()?;
        let shown = self.scratch.join("cell");
        std::fs::create_dir_all(&shown).attempting(format_args!("create {}", shown.display()))?;
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", ENTER, "sh"]).arg(&self.root).arg(&self.scratch).arg(self.cgroup);
        command.args(["sh", "-eu", "-c", script]).process_group(0).stdin(Stdio::piped());
        command.spawn().attempting("start a cell")
    }

    /// The cell's `/tmp`, as the host sees it.
    pub fn tmp(&self) -> PathBuf {
        self.scratch.join("tmp")
    }

    /// Ends whatever is left of a cell, frozen or not, and takes its files away.
    pub fn empty(&self) -> Result<(), Failure> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").attempting("read the mount table")?;
        let groups: Vec<PathBuf> = hierarchies(&table)
            .into_iter()
            .map(|point| point.join(self.cgroup))
            .filter(|group| group.is_dir())
            .collect();
        for _ in 0..100 {
            let mut pids = Vec::new();
            groups.iter().for_each(|group| thaw_and_collect(group, &mut pids));
            if pids.is_empty() {
                break;
            }
            for pid in pids.into_iter().filter_map(rustix::process::Pid::from_raw) {
                // One that has ended meanwhile is what is wanted.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        for group in &groups {
            host::remove_cgroup(group).attempting(format_args!("remove cgroup {}", group.display()))?;
        }
        match std::fs::remove_dir_all(&self.scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::new(format!("cannot remove {}: {error}", self.scratch.display())))
            }
            _ => Ok(()),
        }
    }
}

/// The processes in a cgroup and below; none of them stands still.
fn thaw_and_collect(group: &Path, pids: &mut Vec<i32>) {
    let _ = std::fs::write(group.join("freezer.state"), "THAWED");
    let _ = std::fs::write(group.join("cgroup.freeze"), "0");
    let procs = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            thaw_and_collect(&entry.path(), pids);
        }
    }
}

/// Where the cgroup hierarchies are mounted (proc(5), "mountinfo").
fn hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    let point = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let is_cgroup = ["cgroup ", "cgroup2 "].iter().any(|kind| file_system.starts_with(kind));
        mount.split(' ').nth(4).filter(|_| is_cgroup).map(PathBuf::from)
    };
    mountinfo.lines().filter_map(point).collect()
}
