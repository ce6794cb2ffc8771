//! The works with a registry: Debian's docker-registry, on loopback in the engine's own cell, with the large image.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use super::super::large;
use super::super::work::Subject;
use super::engine::{Engine, background};
use super::pull_floor;
use super::tasks::{Task, seconds};
use crate::failure::{Attempt, Failure};

const ARCHIVE: &str = "/bench/large.tar";
/// The image in the registry.
const REMOTE: &str = "127.0.0.1:5000/large:1";
pub(super) const PORT: u16 = 5000;
/// What the registry keeps: on the disk where the engines' data is too.
pub(super) const STORE: &str = "/var/tmp/registry";
const CONFIGURATION: &str = "/tmp/registry.yml";
const PATIENCE: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// A pull where nothing of the image is there.
    Pull,
    /// One where all of it is.
    PullAgain,
    /// A push of layers that no registry has seen: they are compressed.
    Push,
    /// A push to an empty registry of what was pulled.
    PushPulled,
    /// What a pull cannot do without.
    Floor,
}

/// An engine and its registry.
pub struct Registries {
    engine: Engine,
    what: Transfer,
    server: Option<Server>,
}

impl Registries {
    pub fn new(engine: Engine, what: Transfer) -> Self {
        Self { engine, what, server: None }
    }

    fn carry(&self, verb: &str) -> Result<(), Failure> {
        // Docker and dozen speak without TLS to loopback by themselves.
        let insecure: &[&str] = if self.engine.subject == Subject::Podman { &["--tls-verify=false"] } else { &[] };
        self.engine.run(&[&[verb], insecure, &[REMOTE]].concat())
    }

    fn forget(&self) -> Result<(), Failure> {
        // Only what was loaded has this name, and it was the first to go.
        let _ = self.engine.run(&["rmi", "-f", large::NAME]);
        self.engine.run(&["rmi", "-f", REMOTE])
    }
}

impl Task for Registries {
    fn prepare(&mut self) -> Result<(), Failure> {
        self.server = Some(Server::with_nothing()?);
        self.engine.run(&["load", "--input", ARCHIVE])?;
        self.engine.run(&["tag", large::NAME, REMOTE])?;
        self.carry("push")?;
        if matches!(self.what, Transfer::Push | Transfer::Floor) {
            return Ok(());
        }
        self.forget()?;
        self.carry("pull")
    }

    fn round(&mut self) -> Result<f64, Failure> {
        match self.what {
            Transfer::Pull => self.forget()?,
            Transfer::PullAgain => {}
            Transfer::Floor => return pull_floor::pull(),
            Transfer::Push | Transfer::PushPulled => {
                self.server = None;
                self.server = Some(Server::with_nothing()?);
            }
        }
        rustix::fs::sync();
        let verb = if matches!(self.what, Transfer::Pull | Transfer::PullAgain) { "pull" } else { "push" };
        seconds(|| self.carry(verb))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let forgotten = self.forget();
        self.server = None;
        forgotten.and(remove_store()).and(pull_floor::remove())
    }
}

/// A registry. Dropped, it ends.
pub(super) struct Server(Child);

impl Server {
    /// Debian's docker-registry.
    pub(super) fn with_nothing() -> Result<Self, Failure> {
        remove_store()?;
        let text = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: {STORE} }} }}\nhttp: {{ addr: '127.0.0.1:{PORT}' }}\n"
        );
        std::fs::write(CONFIGURATION, text).attempting(format_args!("write {CONFIGURATION}"))?;
        Self::start("docker-registry", &["serve", CONFIGURATION])
    }

    /// Our own.
    pub(super) fn of_dozen() -> Result<Self, Failure> {
        remove_store()?;
        Self::start("dozen", &["registry", "serve", "--root", STORE, "--listen", &format!("127.0.0.1:{PORT}")])
    }

    fn start(program: &str, arguments: &[&str]) -> Result<Self, Failure> {
        let server = Self(background(program, arguments)?);
        let (address, deadline) = (SocketAddr::from(([127, 0, 0, 1], PORT)), Instant::now() + PATIENCE);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err(Failure::new(format!("{program} does not answer at {address}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    pub(super) fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn remove_store() -> Result<(), Failure> {
    match std::fs::remove_dir_all(Path::new(STORE)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.attempting(format_args!("remove {STORE}")),
    }
}
