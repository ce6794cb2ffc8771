//! An engine in its cell: how it is started, and how its own CLI is called.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::image;
use super::super::work::Subject;
use super::api::Api;
use crate::failure::{Attempt, Failure};
use crate::steps;

/// How long an engine may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// The version of the API that all three speak.
const API_VERSION: &str = "v1.41";

/// What the programs of the cell of this name say of their versions, a line each.
pub fn versions(name: &str) -> Result<Vec<String>, Failure> {
    let programs: &[&str] = match Subject::of_name(name) {
        Some(Subject::Docker) => &["dockerd", "containerd", "runc", "docker buildx", "docker-registry"],
        Some(Subject::Podman) => &["podman", "/usr/lib/podman/netavark", "conmon", "crun", "buildah"],
        _ => &[],
    };
    let ask = |program: &&str| -> Result<String, Failure> {
        let said = match program.split_once(' ') {
            Some((program, plugin)) => steps::capture(Command::new(program).args([plugin, "version"]))?,
            None => steps::capture(Command::new(program).arg("--version"))?,
        };
        Ok(said.lines().next().unwrap_or_default().to_owned())
    };
    programs.iter().map(ask).collect()
}

/// A running engine; podman's is nothing but its CLI.
#[derive(Debug, Clone)]
pub struct Engine {
    pub subject: Subject,
}

impl Engine {
    /// Starts the engine of the cell of this name and gives it the image; the cell of the runtimes has none.
    pub fn start(name: &str) -> Result<Option<Self>, Failure> {
        let Some(subject) = Subject::of_name(name) else { return Ok(None) };
        let engine = Self { subject };
        match subject {
            Subject::Docker => engine.start_docker()?,
            // Its CLI starts it, as it does for users.
            Subject::Dozen => engine.run(&["version"])?,
            _ => {}
        }
        engine.run(&["load", "--input", &format!("/bench/{}.tar", image::NAME)])?;
        if subject == Subject::Podman {
            // Docker's API, as podman speaks it, completes short names to this one.
            engine.run(&["tag", image::NAME, &format!("docker.io/library/{}", image::NAME)])?;
        }
        Ok(Some(engine))
    }

    /// cgroupfs is docker's own default without systemd; it is said because Debian's build might think otherwise.
    fn start_docker(&self) -> Result<(), Failure> {
        background("containerd", &[])?;
        wait_for(Path::new("/run/containerd/containerd.sock"))?;
        let arguments =
            ["--containerd", "/run/containerd/containerd.sock", "--exec-opt", "native.cgroupdriver=cgroupfs"];
        let mut daemon = background("dockerd", &arguments)?;
        let deadline = Instant::now() + PATIENCE;
        while self.run(&["version"]).is_err() {
            if let Some(status) = daemon.try_wait().attempting("look after dockerd")? {
                return Err(Failure::new(format!("dockerd does not run on this host ({status}): {}", tail("dockerd"))));
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("dockerd does not answer on this host: {}", tail("dockerd"))));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Where its API is.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(match self.subject {
            Subject::Docker => "/run/docker.sock",
            Subject::Podman => "/run/podman/podman.sock",
            _ => "/run/dozen/dozen.sock",
        })
    }

    /// Its API. Podman's is served by a process that is started for it.
    pub fn api(&self) -> Result<Api, Failure> {
        let service = match self.subject {
            Subject::Podman => {
                let service = background("podman", &["system", "service", "--time=0"])?;
                wait_for(&self.socket())?;
                Some(service)
            }
            _ => None,
        };
        Ok(Api::new(self.socket(), API_VERSION, service))
    }

    /// Its CLI.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.subject.name());
        command.args(arguments);
        command
    }

    /// Runs its CLI.
    pub fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        super::quietly(&mut self.command(arguments))
    }

    /// Runs its CLI and answers what it printed.
    pub fn answer(&self, arguments: &[&str]) -> Result<String, Failure> {
        steps::capture(&mut self.command(arguments))
    }

    /// Starts a container and answers its id.
    pub fn start_container(&self, arguments: &[&str]) -> Result<String, Failure> {
        let mut all = vec!["run", "-d"];
        all.extend(arguments);
        let printed = self.answer(&all)?;
        Ok(printed.lines().last().unwrap_or_default().to_owned())
    }

    /// Removes containers.
    pub fn remove(&self, ids: &[String]) -> Result<(), Failure> {
        let mut all = vec!["rm", "-f"];
        all.extend(ids.iter().map(String::as_str));
        if ids.is_empty() { Ok(()) } else { self.run(&all) }
    }

    /// The pid of a container's first process, which is ours too: the cell is one pid namespace.
    pub fn pid_of(&self, id: &str) -> Result<i32, Failure> {
        self.answer(&["inspect", "--format", "{{.State.Pid}}", id])?.parse().attempting("read a container's pid")
    }
}

/// Starts a program that stays, with its talk in a file.
pub fn background(program: &str, arguments: &[&str]) -> Result<Child, Failure> {
    let log = File::create(log_of(program)).attempting(format_args!("create a log for {program}"))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(log.try_clone().attempting("share a log")?).stderr(log);
    command.spawn().attempting(format_args!("run {program}"))
}

fn log_of(program: &str) -> String {
    format!("/tmp/{program}.log")
}

fn tail(program: &str) -> String {
    let text = std::fs::read_to_string(log_of(program)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" / ")
}

fn wait_for(socket: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        if Instant::now() > deadline {
            return Err(Failure::new(format!("nobody answers at {}", socket.display())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
