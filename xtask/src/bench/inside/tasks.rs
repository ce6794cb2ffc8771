//! The works, done: what is set up, what is timed, what is cleared away.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::http::Client;
use super::super::{cgroups, image};
use super::api::Api;
use super::archives::{Archives, Floor, Verb};
use super::builds::{Builds, Figure as BuildFigure, Recipe};
use super::crowd::{Crowd, Look};
use super::engine::Engine;
use super::names::Names;
use super::neighbours::Neighbours;
use super::registries::{Registries, Transfer};
use super::runtime::{Figure, Runtime};
use super::servers::{self, Servers};
use super::talk::{Talk, Way};
use super::{memory, no_engine, syscalls, traffic};
use crate::failure::{Attempt, Failure};

/// A work of one subject.
pub trait Task {
    /// What all rounds share.
    fn prepare(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    /// One round; its value in the unit that the row is measured in.
    fn round(&mut self) -> Result<f64, Failure>;
    /// Undoes [`Self::prepare`], also one that failed half-way.
    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// How many containers a figure is the mean of.
const CONTAINERS: usize = 10;
/// The same, where what the engine itself grows by is counted too.
const CONTAINERS_WITH_ENGINE: usize = 50;
/// What the image's processes execute.
const PAYLOAD: &str = "bin/busybox";
/// How many containers, and how many of them at a time.
const MANY: (usize, usize) = (50, 8);
/// The host's port that is published.
const PUBLISHED: u16 = 18080;

/// The task behind a row's name.
pub fn of(work: &str, subject: &str, engine: Option<&Engine>) -> Result<Box<dyn Task>, Failure> {
    let runtime = |figure| Ok(Box::new(Runtime::new(subject, figure)) as Box<dyn Task>);
    match work {
        "runtime" => return runtime(Figure::Time),
        "runtime-cpu" => return runtime(Figure::Processor),
        "runtime-kernel" => return runtime(Figure::Kernel),
        "runtime-syscalls" => return runtime(Figure::SystemCalls),
        _ => {}
    }
    let engine = engine.ok_or_else(no_engine)?.clone();
    let builds = |recipe, figure| Ok(Box::new(Builds::new(subject, recipe, figure)?) as Box<dyn Task>);
    let container = None;
    Ok(match work {
        "rest" => Box::new(Rest),
        "run" => Box::new(Run { engine, network: None }),
        "run-none" => Box::new(Run { engine, network: Some("none") }),
        "api" => Box::new(Lives { engine, api: None, many: false }),
        "fifty" => Box::new(Lives { engine, api: None, many: true }),
        "exec" => Box::new(Exec { engine, container }),
        "stop" => Box::new(End { engine, verb: &["stop"], container }),
        "rm" => Box::new(End { engine, verb: &["rm", "-f"], container }),
        "container" => Box::new(PerContainer { engine, containers: Vec::new() }),
        "growth" => Box::new(Growth { engine, containers: Vec::new() }),
        "bridge-stream" | "port-stream" | "bridge-requests" | "port-requests" => Box::new(Traffic {
            engine,
            container,
            address: None,
            published: work.starts_with("port"),
            load: if work.ends_with("stream") { traffic::stream } else { traffic::requests },
        }),
        "neighbour-stream" => Box::new(Neighbours::new(engine, "stream")),
        "neighbour-requests" => Box::new(Neighbours::new(engine, "requests")),
        "names" => Box::new(Names::new(engine)),
        "log-write" => Box::new(Talk::new(engine, Way::Write)),
        "log-read" => Box::new(Talk::new(engine, Way::Read)),
        "crowd-memory" => Box::new(Crowd::new(engine, Look::Memory)),
        "crowd-list" => Box::new(Crowd::new(engine, Look::List)),
        "crowd-restart" => Box::new(Crowd::new(engine, Look::Restart)),
        "load" => Box::new(Archives { engine, verb: Verb::Load }),
        "load-again" => Box::new(Archives { engine, verb: Verb::LoadAgain }),
        "load-memory" => Box::new(Archives { engine, verb: Verb::Memory }),
        "save" => Box::new(Archives { engine, verb: Verb::Save }),
        "pull" => Box::new(Registries::new(engine, Transfer::Pull)),
        "pull-again" => Box::new(Registries::new(engine, Transfer::PullAgain)),
        "floor-pull" => Box::new(Registries::new(engine, Transfer::Floor)),
        "push" => Box::new(Registries::new(engine, Transfer::Push)),
        "push-pulled" => Box::new(Registries::new(engine, Transfer::PushPulled)),
        "serve-pulls" => Box::new(Servers::new(engine, servers::Look::Time)),
        "serve-memory" => Box::new(Servers::new(engine, servers::Look::Memory)),
        "floor-hash" => Box::new(Floor::Hash),
        "floor-write" => Box::new(Floor::Write),
        "build-cold" => return builds(Recipe::Instructions, BuildFigure::Cold),
        "build-cached" => return builds(Recipe::Instructions, BuildFigure::Cached),
        "build-files" => return builds(Recipe::Files, BuildFigure::Cold),
        "build-files-cached" => return builds(Recipe::Files, BuildFigure::Cached),
        "build-stages" => return builds(Recipe::Stages, BuildFigure::Cold),
        "build-memory" => return builds(Recipe::Large, BuildFigure::Memory),
        "cpu" => Box::new(ProcessorTime { run: Run { engine, network: None } }),
        "syscalls" => Box::new(Counted { run: Run { engine, network: None }, of: |count| count.calls }),
        "syscalls-none" => Box::new(Counted { run: Run { engine, network: Some("none") }, of: |count| count.calls }),
        "forks" => Box::new(Counted { run: Run { engine, network: None }, of: |count| count.forks }),
        other => return Err(Failure::new(format!("no work is named '{other}'"))),
    })
}

pub fn seconds(work: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// `run --rm IMAGE true`.
struct Run {
    engine: Engine,
    network: Option<&'static str>,
}

impl Run {
    fn command(&self) -> Command {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(self.network.iter().flat_map(|network| ["--network", network]));
        arguments.extend([image::NAME, "true"]);
        self.engine.command(&arguments)
    }
}

impl Task for Run {
    fn round(&mut self) -> Result<f64, Failure> {
        let mut command = self.command();
        seconds(|| super::quietly(&mut command))
    }
}

/// Lives by the API: one on a connection that is kept, or many.
struct Lives {
    engine: Engine,
    api: Option<(Api, Client)>,
    many: bool,
}

impl Task for Lives {
    fn prepare(&mut self) -> Result<(), Failure> {
        let api = self.engine.api()?;
        let client = api.connect()?;
        self.api = Some((api, client));
        Ok(())
    }

    fn round(&mut self) -> Result<f64, Failure> {
        let (api, client) = self.api.as_mut().ok_or_else(no_engine)?;
        match self.many {
            true => seconds(|| api.many_lives(MANY.0, MANY.1)),
            false => seconds(|| api.whole_life(client)),
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.api = None;
        Ok(())
    }
}

/// `exec C true`.
struct Exec {
    engine: Engine,
    container: Option<String>,
}

impl Task for Exec {
    fn prepare(&mut self) -> Result<(), Failure> {
        self.container = Some(self.engine.start_container(&[image::NAME, "sleep", "1000"])?);
        Ok(())
    }

    fn round(&mut self) -> Result<f64, Failure> {
        let id = self.container.as_deref().unwrap_or_default();
        seconds(|| self.engine.run(&["exec", id, "true"]))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.engine.remove(&self.container.take().into_iter().collect::<Vec<_>>())
    }
}

/// `stop` or `rm -f` of a process that ends when it is asked to.
struct End {
    engine: Engine,
    verb: &'static [&'static str],
    container: Option<String>,
}

impl Task for End {
    fn round(&mut self) -> Result<f64, Failure> {
        let id = self.engine.start_container(&[image::NAME, "sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"])?;
        self.container = Some(id.clone());
        wait_for_handler(self.engine.pid_of(&id)?)?;
        let mut arguments = self.verb.to_vec();
        arguments.push(&id);
        let time = seconds(|| self.engine.run(&arguments))?;
        if self.verb == ["rm", "-f"] {
            self.container = None;
        }
        self.finish()?;
        Ok(time)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.engine.remove(&self.container.take().into_iter().collect::<Vec<_>>())
    }
}

/// Until the process would catch SIGTERM: before that, process 1 of a pid namespace does not even get it.
fn wait_for_handler(pid: i32) -> Result<(), Failure> {
    const SIGTERM: u32 = 15;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path).attempting(format_args!("read {path}"))?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
        if caught & (1 << (SIGTERM - 1)) != 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::new("the container's process never got as far as its signal handler"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Memory of everything that stands while no container runs.
struct Rest;

impl Task for Rest {
    fn round(&mut self) -> Result<f64, Failure> {
        Ok(memory::at_rest(|| memory::share_of(memory::processes().keys()))? as f64)
    }
}

/// Memory of the processes that a running container brings along, without those of the image.
struct PerContainer {
    engine: Engine,
    containers: Vec<String>,
}

impl Task for PerContainer {
    fn round(&mut self) -> Result<f64, Failure> {
        let before = memory::processes();
        start_sleepers(&self.engine, CONTAINERS, &mut self.containers)?;
        let now = memory::processes();
        let new = |(pid, program): &(&i32, &PathBuf)| !before.contains_key(pid) && !program.ends_with(PAYLOAD);
        let new: Vec<&i32> = now.iter().filter(new).map(|(pid, _)| pid).collect();
        let sum = memory::at_rest(|| memory::share_of(new.iter().copied()))? as f64;
        self.finish()?;
        if new.len() < CONTAINERS {
            let found = new.len();
            return Err(Failure::new(format!(
                "{CONTAINERS} containers brought only {found} processes of the engine's"
            )));
        }
        Ok(sum / CONTAINERS as f64)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let containers = std::mem::take(&mut self.containers);
        self.engine.remove(&containers)
    }
}

fn start_sleepers(engine: &Engine, count: usize, containers: &mut Vec<String>) -> Result<(), Failure> {
    for _ in 0..count {
        containers.push(engine.start_container(&[image::NAME, "sleep", "1000"])?);
    }
    Ok(())
}

/// How much more memory everything but the processes of the image takes with many containers than without.
struct Growth {
    engine: Engine,
    containers: Vec<String>,
}

impl Growth {
    fn look() -> Result<f64, Failure> {
        let share = || {
            let mut processes = memory::processes();
            processes.retain(|_, program| !program.ends_with(PAYLOAD));
            memory::share_of(processes.keys())
        };
        Ok(memory::at_rest(share)? as f64)
    }
}

impl Task for Growth {
    fn round(&mut self) -> Result<f64, Failure> {
        let before = Self::look()?;
        start_sleepers(&self.engine, CONTAINERS_WITH_ENGINE, &mut self.containers)?;
        let after = Self::look()?;
        self.finish()?;
        Ok((after - before) / CONTAINERS_WITH_ENGINE as f64)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let containers = std::mem::take(&mut self.containers);
        self.engine.remove(&containers)
    }
}

/// A server in a container, loaded by its published port or by its own address.
struct Traffic {
    engine: Engine,
    container: Option<String>,
    address: Option<SocketAddr>,
    published: bool,
    load: fn(SocketAddr) -> std::io::Result<f64>,
}

impl Task for Traffic {
    fn prepare(&mut self) -> Result<(), Failure> {
        let publish = format!("127.0.0.1:{PUBLISHED}:{}", traffic::PORT);
        let mut arguments = vec!["-v", "/bench/bin/xtask:/xtask:ro"];
        if self.published {
            arguments.extend(["-p", &publish]);
        }
        arguments.extend([image::NAME, "/xtask", "bench", "--inside", "serve"]);
        let id = self.engine.start_container(&arguments)?;
        self.container = Some(id.clone());
        let address = if self.published {
            SocketAddr::from((Ipv4Addr::LOCALHOST, PUBLISHED))
        } else {
            let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
            let ip: Ipv4Addr =
                self.engine.answer(&["inspect", "--format", format, &id])?.parse().attempting("read an address")?;
            SocketAddr::from((ip, traffic::PORT))
        };
        traffic::wait_for(address).attempting("reach the server in the container")?;
        self.address = Some(address);
        Ok(())
    }

    fn round(&mut self) -> Result<f64, Failure> {
        let address = self.address.ok_or_else(no_engine)?;
        traffic::load(address, self.load).attempting(format_args!("load {address}"))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.engine.remove(&self.container.take().into_iter().collect::<Vec<_>>())
    }
}

/// What `run` costs in processor time, whoever spends it: client, engine, helpers, the container. The mean of several,
/// because an engine cleans up after it has answered.
struct ProcessorTime {
    run: Run,
}

impl Task for ProcessorTime {
    fn round(&mut self) -> Result<f64, Failure> {
        let before = cgroups::processor_time(cgroups::Time::All)?;
        for _ in 0..CONTAINERS {
            super::quietly(&mut self.run.command())?;
        }
        Ok((cgroups::processor_time(cgroups::Time::All)? - before).as_secs_f64() / CONTAINERS as f64)
    }
}

/// What `run` costs in system calls.
struct Counted {
    run: Run,
    of: fn(&syscalls::Count) -> u64,
}

impl Task for Counted {
    fn round(&mut self) -> Result<f64, Failure> {
        Ok((self.of)(&syscalls::count(&self.run.command())?) as f64)
    }
}
