//! A runtime's `run` of the bundle: how long it takes, and what it costs.

use std::path::Path;
use std::process::Command;

use super::super::cgroups;
use super::tasks::{Task, seconds};
use super::{bundle, syscalls};
use crate::failure::Failure;

/// How many runs a processor time is the mean of.
const RUNS: u32 = 20;

/// What a round gives.
#[derive(Clone, Copy)]
pub enum Figure {
    /// Seconds from the start to the end of one.
    Time,
    /// Seconds of processor time: the runtime's, its helpers' and the container's.
    Processor,
    /// Of these, what the kernel took.
    Kernel,
    /// System calls of all of them.
    SystemCalls,
}

/// `run` by one of the runtimes.
pub struct Runtime {
    program: String,
    figure: Figure,
    runs: u32,
}

impl Runtime {
    pub fn new(program: &str, figure: Figure) -> Self {
        Self { program: program.to_owned(), figure, runs: 0 }
    }

    fn command(&mut self) -> Command {
        self.runs += 1;
        let mut command = Command::new(&self.program);
        if self.program == "dozen" {
            command.arg("runtime");
        }
        command.args(["run", "--bundle", bundle::DIRECTORY, &format!("{}-{}", self.program, self.runs)]);
        command
    }

    fn cost(&mut self, of: cgroups::Time) -> Result<f64, Failure> {
        let before = cgroups::processor_time(of)?;
        for _ in 0..RUNS {
            super::quietly(&mut self.command())?;
        }
        Ok((cgroups::processor_time(of)? - before).as_secs_f64() / f64::from(RUNS))
    }
}

impl Task for Runtime {
    fn prepare(&mut self) -> Result<(), Failure> {
        if Path::new(bundle::DIRECTORY).join("config.json").is_file() {
            return Ok(());
        }
        Err(Failure::new("there is no bundle: docker, which is asked for its default spec, does not run here"))
    }

    fn round(&mut self) -> Result<f64, Failure> {
        match self.figure {
            Figure::Time => {
                let mut command = self.command();
                seconds(|| super::quietly(&mut command))
            }
            Figure::Processor => self.cost(cgroups::Time::All),
            Figure::Kernel => self.cost(cgroups::Time::Kernel),
            Figure::SystemCalls => Ok(syscalls::own(&self.command())?.calls as f64),
        }
    }
}
