//! Five hundred containers at once: what the engine itself holds for them, how fast it lists them, and how long a new
//! engine takes to know them all.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;

use super::super::image;
use super::engine::Engine;
use super::tasks::{Task, seconds};
use super::{memory, no_engine};
use crate::failure::{Attempt, Failure};

const CONTAINERS: usize = 500;
const AT_A_TIME: usize = 8;

/// What is looked at.
#[derive(Clone, Copy)]
pub enum Look {
    /// Memory of the engine's process.
    Memory,
    /// `ps`.
    List,
    /// The engine is killed; `version` is answered by the next one.
    Restart,
}

pub struct Crowd {
    engine: Engine,
    look: Look,
}

impl Crowd {
    pub fn new(engine: Engine, look: Look) -> Self {
        Self { engine, look }
    }
}

impl Task for Crowd {
    fn prepare(&mut self) -> Result<(), Failure> {
        let api = self.engine.api()?;
        let begun = AtomicUsize::new(0);
        let row = || {
            let mut client = api.connect()?;
            while begun.fetch_add(1, Ordering::Relaxed) < CONTAINERS {
                let wanted = json!({ "Image": image::NAME, "Cmd": ["sleep", "10000"] });
                let created = client.expect_success("POST", "/v1.41/containers/create", Some(&wanted));
                let created = created.attempting("create one of many")?;
                let id = created["Id"].as_str().ok_or_else(no_engine)?;
                let started = client.expect_success("POST", &format!("/v1.41/containers/{id}/start"), None);
                started.attempting("start one of many")?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let rows: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(row)).collect();
            rows.into_iter().try_for_each(|row| row.join().map_err(|_| Failure::new("a client panicked"))?)
        })
    }

    fn round(&mut self) -> Result<f64, Failure> {
        match self.look {
            Look::Memory => {
                let pid = engine_process()?.as_raw_pid();
                Ok(memory::at_rest(|| memory::share_of([&pid]))? as f64)
            }
            Look::List => {
                let mut command = self.engine.command(&["ps"]);
                seconds(|| super::quietly(&mut command))
            }
            Look::Restart => {
                let pid = engine_process()?;
                let process = pidfd_open(pid, PidfdFlags::empty()).attempting("look at the engine")?;
                pidfd_send_signal(&process, Signal::KILL).attempting("kill the engine")?;
                let mut ended = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut ended, None).attempting("wait for the engine's end")?;
                let mut command = self.engine.command(&["version"]);
                seconds(|| super::quietly(&mut command))
            }
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let ids = self.engine.answer(&["ps", "-aq"])?;
        self.engine.remove(&ids.lines().map(str::to_owned).collect::<Vec<_>>())
    }
}

/// The process that runs `dozen daemon`.
fn engine_process() -> Result<Pid, Failure> {
    let is_engine = |pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1) == Some(b"daemon")
    };
    let pid = memory::processes().into_keys().find(is_engine).and_then(Pid::from_raw);
    pid.ok_or_else(|| Failure::new("no process runs 'dozen daemon'"))
}
