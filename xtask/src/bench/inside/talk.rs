//! 200 MB of log: a container that writes them, and a client that reads them back.

use std::io::Write;
use std::os::fd::AsFd;

use super::super::image;
use super::super::work::Subject;
use super::engine::Engine;
use super::tasks::{Task, seconds};
use crate::failure::Failure;

const BYTES: usize = 200_000_000;
/// As applications write: a line says something, and several go out at once.
const LINE_BYTES: usize = 100;
const WRITE_BYTES: usize = 64 << 10;

/// Which of both is timed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Write,
    Read,
}

pub struct Talk {
    engine: Engine,
    way: Way,
    container: Option<String>,
}

impl Talk {
    pub fn new(engine: Engine, way: Way) -> Self {
        Self { engine, way, container: None }
    }

    /// Runs the one that talks to its end. All keep everything, in one file.
    fn talk(&mut self) -> Result<(), Failure> {
        let driver = if self.engine.subject == Subject::Podman { "k8s-file" } else { "json-file" };
        let arguments = ["--log-driver", driver, "--log-opt", "max-size=1g", "--network", "none"];
        let program = ["-v", "/bench/bin/xtask:/xtask:ro", image::NAME, "/xtask", "bench", "--inside", "talk"];
        let id = self.engine.start_container(&[&arguments[..], &program].concat())?;
        self.container = Some(id.clone());
        let code = self.engine.answer(&["wait", &id])?;
        if code == "0" { Ok(()) } else { Err(Failure::new(format!("the one who talks ended with {code}"))) }
    }
}

impl Task for Talk {
    fn prepare(&mut self) -> Result<(), Failure> {
        if self.way == Way::Read {
            self.talk()?;
            let id = self.container.clone().unwrap_or_default();
            let lines = self.engine.answer(&["logs", "--tail", "1", &id])?;
            if lines.trim().len() + 1 != LINE_BYTES {
                return Err(Failure::new(format!("the last line of the log is not the one that was written: {lines}")));
            }
        }
        Ok(())
    }

    fn round(&mut self) -> Result<f64, Failure> {
        match self.way {
            Way::Write => {
                let time = seconds(|| self.talk());
                self.finish()?;
                time
            }
            Way::Read => {
                let id = self.container.clone().unwrap_or_default();
                let mut command = self.engine.command(&["logs", &id]);
                seconds(|| super::quietly(&mut command))
            }
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.engine.remove(&self.container.take().into_iter().collect::<Vec<_>>())
    }
}

/// The container's side.
pub fn talk() -> std::io::Result<()> {
    // Not by way of the standard library's buffer, which would make lines of it.
    let mut output = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let lines = WRITE_BYTES / LINE_BYTES;
    let mut line = [b'x'; LINE_BYTES];
    line[LINE_BYTES - 1] = b'\n';
    let block = line.repeat(lines);
    for _ in 0..BYTES / block.len() {
        output.write_all(&block)?;
    }
    Ok(())
}
