//! A cell: the world that one engine runs in, seen from outside. Mount, network, pid, ipc, uts and cgroup namespaces of
//! its own over the peers' root; the engine in it is told nothing of that and uses its default paths, network and
//! seccomp profile.
//!
//! ```text
//! xtask bench ─┬─ janitor             waits for our end, however it comes; then removes cgroups and files
//!              └─ unshare, per cell
//!                   └─ first          process 1 of the cell: mounts, then only reaps
//!                        └─ agent     does the works, measures, answers a line of JSON per line of JSON
//!                             └─ the engine, its clients, its containers
//! ```
//! Our end closes the agent's standard input; it ends, process 1 ends, and the kernel ends the rest and frees the
//! namespaces. Nothing has to be undone in order.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::failure::{Attempt, Failure};

/// How long an answer may take: a peer that hangs does not hang the bench.
const PATIENCE: Duration = Duration::from_secs(120);

/// What all cells of a run share.
pub struct Shared {
    /// The peers' root.
    pub root: PathBuf,
    /// Where the run's file system is mounted (see `disk.rs`): a directory per cell, and `bench`, which every cell sees as `/bench`.
    pub scratch: PathBuf,
    /// Begins the name of every cgroup of this run.
    pub prefix: String,
}

impl Shared {
    /// What the cells see as `/bench`.
    pub fn bench(&self) -> PathBuf {
        self.scratch.join("bench")
    }
}

/// A running cell. Dropped, it ends.
pub struct Cell {
    name: &'static str,
    child: Child,
    requests: Option<ChildStdin>,
    answers: mpsc::Receiver<String>,
}

impl Cell {
    /// Makes the cell and waits for nothing: the first request does.
    pub fn start(name: &'static str, shared: &Shared) -> Result<Self, Failure> {
        let mut command = stage("enter")?;
        command.arg(name).arg(format!("{}{name}", shared.prefix)).arg(&shared.scratch).arg(&shared.root);
        // A group of its own: ^C is for us, and the cells learn of it by our end.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().attempting("start a cell")?;
        let output = BufReader::new(child.stdout.take().expect("it was piped"));
        let (send, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name, requests: child.stdin.take(), child, answers })
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, request: &Value) -> Result<Value, Failure> {
        let gone = || Failure::new(format!("the cell of {} has ended", self.name));
        let requests = self.requests.as_mut().ok_or_else(gone)?;
        writeln!(requests, "{request}").map_err(|_| gone())?;
        let line = match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(gone()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // What it says later would be taken for the answer to the next question.
                self.requests = None;
                return Err(Failure::new(format!("{} was not done after {} s", self.name, PATIENCE.as_secs())));
            }
        };
        let answer: Value = serde_json::from_str(&line).attempting(format_args!("read the answer of {}", self.name))?;
        match answer["error"].as_str() {
            Some(why) => Err(Failure::new(why)),
            None => Ok(answer),
        }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.child.wait();
    }
}

/// Ourselves, in another part.
pub fn stage(name: &str) -> Result<Command, Failure> {
    let program = std::env::current_exe().attempting("find our own program")?;
    let mut command = Command::new(program);
    command.args(["bench", "--inside", name]);
    Ok(command)
}

/// The part between: into the cgroups, then into the namespaces, where [`super::inside::first`] goes on.
pub fn enter(name: &str, cgroup: &str, scratch: &Path, root: &Path) -> Result<(), Failure> {
    super::cgroups::enter(cgroup)?;
    let program = std::env::current_exe().attempting("find our own program")?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--net", "--pid", "--ipc", "--uts", "--cgroup"]);
    command.args(["--fork", "--kill-child", "--"]).arg(program).args(["bench", "--inside", "first", name]);
    let error = command.arg(scratch).arg(root).exec();
    Err(Failure::new(format!("cannot run unshare: {error}")))
}
