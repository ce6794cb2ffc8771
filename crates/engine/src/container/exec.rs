//! Further processes in a running container.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use dozen_model::{ContainerId, ExecId, UserSpec};
use dozen_monitor::protocol::{ExecRequest, Reply, Request, WindowSize};

use crate::container::Container;
use crate::container::launch::docker_exit_code;
use crate::container::{oci, pause};
use crate::monitor_link::MonitorLink;
use crate::{EngineError, StdioStream};

/// What an exec is asked to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// Command line; never empty.
    pub arguments: Vec<String>,
    /// Added to the container's own, `NAME=value`; a later one wins.
    pub environment: Vec<String>,
    /// Absolute path inside; `None`: the container's own.
    pub working_directory: Option<String>,
    /// Empty: the container's own.
    pub user: UserSpec,
    /// A terminal of its own.
    pub terminal: bool,
    /// Its first size, unless whoever starts it gives another.
    pub terminal_size: Option<WindowSize>,
    /// The keys by which a client leaves it, as the API has them; empty: the usual ones.
    pub detach_keys: String,
    /// All capabilities, no seccomp.
    pub privileged: bool,
    /// Standard input is fed by whoever starts it.
    pub stdin: bool,
    /// Standard output is given to whoever starts it.
    pub stdout: bool,
    /// Standard error too.
    pub stderr: bool,
}

/// An exec at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSnapshot {
    /// Its id.
    pub id: ExecId,
    /// The container that it is in.
    pub container: ContainerId,
    /// What was asked for.
    pub spec: ExecSpec,
    /// Process id on the host; `None` before it was started.
    pub pid: Option<i32>,
    /// It was started and has not ended.
    pub running: bool,
    /// Once it has ended.
    pub exit_code: Option<i32>,
}

#[derive(Debug, Clone)]
enum Progress {
    Registered,
    Starting,
    Running { pid: i32 },
    Ended { pid: Option<i32>, exit_code: i32 },
}

#[derive(Debug, Clone)]
struct Known {
    container: ContainerId,
    spec: ExecSpec,
    progress: Progress,
}

/// How long an exec that has ended can be asked after, as long as Docker keeps one at least.
const KEPT: Duration = Duration::from_secs(5 * 60);
/// How many of them there may be, so that a busy health check does not fill the engine's memory.
const KEPT_COUNT: usize = 1024;
/// The code of a process that SIGKILL ended, as those are that live when process 1 ends (pid_namespaces(7)).
const KILLED: i32 = 128 + 9;

/// The execs of all containers. The monitors own them; this is what the engine was told.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<ExecId, Known>,
    /// Those that have ended, in that order, and when.
    ended: VecDeque<(Instant, ExecId)>,
}

impl Table {
    fn set(&mut self, id: &ExecId, progress: Progress) {
        let Some(known) = self.known.get_mut(id) else { return };
        let ends = matches!(progress, Progress::Ended { .. }) && !matches!(known.progress, Progress::Ended { .. });
        known.progress = match (&known.progress, progress) {
            // Word of the start can come after word of the end: they travel on two connections.
            (Progress::Ended { .. }, Progress::Running { .. }) => return,
            (Progress::Running { pid } | Progress::Ended { pid: Some(pid), .. }, Progress::Ended { exit_code, .. }) => {
                Progress::Ended { pid: Some(*pid), exit_code }
            }
            (_, next) => next,
        };
        if ends {
            self.ended.push_back((Instant::now(), id.clone()));
            self.prune(Instant::now());
        }
    }

    fn prune(&mut self, now: Instant) {
        let is_due = |ended: &Instant, count: usize| count > KEPT_COUNT || now.duration_since(*ended) > KEPT;
        while let Some((ended, id)) = self.ended.front() {
            if !is_due(ended, self.ended.len()) {
                return;
            }
            self.known.remove(id);
            self.ended.pop_front();
        }
    }
}

impl Execs {
    pub(crate) fn register(&self, container: ContainerId, spec: ExecSpec) -> ExecId {
        let id = ExecId::random();
        let mut table = self.lock();
        table.prune(Instant::now());
        table.known.insert(id.clone(), Known { container, spec, progress: Progress::Registered });
        id
    }

    /// The container of an exec, by its id.
    pub(crate) fn container_of(&self, id: &ExecId) -> Option<ContainerId> {
        self.lock().known.get(id).map(|known| known.container.clone())
    }

    /// Execs of a container that have not ended, as Docker's inspect lists them.
    pub(crate) fn of(&self, container: &ContainerId) -> Vec<ExecId> {
        self.lock()
            .known
            .iter()
            .filter(|(_, known)| known.container == *container && !matches!(known.progress, Progress::Ended { .. }))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// A monitor's news.
    pub(crate) fn heard(&self, reply: &Reply) {
        let (exec_id, progress) = match reply {
            Reply::ExecStarted { exec_id, pid } => (exec_id, Progress::Running { pid: *pid }),
            Reply::ExecExited { exec_id, exit_code } => (exec_id, Progress::Ended { pid: None, exit_code: *exit_code }),
            _ => return,
        };
        let Ok(id) = exec_id.parse::<ExecId>() else { return };
        self.lock().set(&id, progress);
    }

    /// The container's run is over, and with it its execs. How they ended can still be asked; one that was never started
    /// cannot be any more.
    pub(crate) fn run_ended(&self, container: &ContainerId) {
        let mut table = self.lock();
        table.known.retain(|_, known| known.container != *container || !matches!(known.progress, Progress::Registered));
        let alive = |known: &Known| known.container == *container && !matches!(known.progress, Progress::Ended { .. });
        let killed: Vec<ExecId> =
            table.known.iter().filter(|(_, known)| alive(known)).map(|(id, _)| id.clone()).collect();
        for id in killed {
            table.set(&id, Progress::Ended { pid: None, exit_code: KILLED });
        }
    }

    /// Nobody asks after it any more.
    pub(crate) fn forget(&self, id: &ExecId) {
        let mut table = self.lock();
        table.known.remove(id);
        table.ended.retain(|(_, ended)| ended != id);
    }

    fn set(&self, id: &ExecId, progress: Progress) {
        self.lock().set(id, progress);
    }

    fn get(&self, id: &ExecId) -> Result<Known, EngineError> {
        self.lock().known.get(id).cloned().ok_or_else(|| EngineError::NoSuchExec(id.to_string()))
    }

    /// Takes the right to start it, which there is once.
    fn claim(&self, id: &ExecId) -> Result<Known, EngineError> {
        let mut table = self.lock();
        let known = table.known.get_mut(id).ok_or_else(|| EngineError::NoSuchExec(id.to_string()))?;
        if !matches!(known.progress, Progress::Registered) {
            return Err(EngineError::Conflict {
                message: format!("Error: Exec command {id} is already running"),
                hint: Some("an exec is started once; make another".into()),
            });
        }
        known.progress = Progress::Starting;
        Ok(known.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A handle on one exec.
#[derive(Debug, Clone)]
pub struct Exec {
    pub(crate) id: ExecId,
    pub(crate) container: Container,
}

impl Exec {
    /// Its id.
    pub fn id(&self) -> &ExecId {
        &self.id
    }

    /// Its client has left by the keys for it, and it goes on.
    pub fn announce_detach(&self) {
        let shared = &self.container.shared;
        shared.announce(&self.container.snapshot(), "exec_detach", [("execID".to_owned(), self.id.to_string())]);
    }

    /// What was asked for.
    pub fn spec(&self) -> Result<ExecSpec, EngineError> {
        Ok(self.execs().get(&self.id)?.spec)
    }

    /// Starts it. With `detach`, no streams; a conflict if it was started before.
    pub async fn start(&self, detach: bool, size: Option<WindowSize>) -> Result<Option<StdioStream>, EngineError> {
        // Whoever is brought in while the others are made to stand still would keep the monitor waiting.
        let _moves = self.container.entry.moves.read().await;
        let snapshot = self.container.snapshot();
        pause::check_moves(&snapshot, "exec")?;
        let spec = self.execs().claim(&self.id)?.spec;
        let request = ExecRequest {
            exec_id: self.id.to_string(),
            arguments: spec.arguments.clone(),
            environment: oci::environment(&self.container.shared, &snapshot, spec.environment.iter()),
            working_directory: spec.working_directory.clone(),
            user: spec.user.clone(),
            terminal: spec.terminal,
            size: size.or(spec.terminal_size),
            privileged: spec.privileged,
            stdin: spec.stdin && !detach,
            stdout: spec.stdout && !detach,
            stderr: spec.stderr && !detach,
        };
        let run_directory = self.container.shared.run_directory(&snapshot.id);
        // Until the world has been told: its end comes after it.
        let _told = self.container.entry.news.read().await;
        match MonitorLink::request(&run_directory, &Request::Exec(Box::new(request))).await {
            Ok((link, reply)) => {
                self.execs().heard(&reply);
                let action = format!("exec_start: {}", spec.arguments.join(" "));
                self.container.shared.announce(&snapshot, &action, [("execID".to_owned(), self.id.to_string())]);
                Ok((!detach).then(|| StdioStream {
                    socket: link.into_stream(),
                    terminal: spec.terminal,
                    log_end: None,
                }))
            }
            Err(error) => {
                // Docker's code for an exec that cannot start, whatever the cause, unless the shell has one for it.
                let exit_code = match docker_exit_code(&error) {
                    code @ (126 | 127) => code,
                    _ => 126,
                };
                self.execs().set(&self.id, Progress::Ended { pid: None, exit_code });
                Err(error)
            }
        }
    }

    /// Size of its terminal.
    pub async fn resize(&self, size: WindowSize) -> Result<(), EngineError> {
        self.execs().get(&self.id)?;
        let request = Request::ResizeExec { exec_id: self.id.to_string(), size };
        MonitorLink::request(&self.container.shared.run_directory(&self.container.id), &request).await.map(drop)
    }

    /// What is known of it now. A running one is asked after at its monitor, so that the code of an exec whose
    /// output has ended is there at once.
    pub async fn snapshot(&self) -> Result<ExecSnapshot, EngineError> {
        let mut known = self.execs().get(&self.id)?;
        if matches!(known.progress, Progress::Running { .. } | Progress::Starting) {
            let request = Request::InspectExec { exec_id: self.id.to_string() };
            let run_directory = self.container.shared.run_directory(&self.container.id);
            if let Ok((_, reply)) = MonitorLink::request(&run_directory, &request).await {
                self.execs().heard(&reply);
                known = self.execs().get(&self.id)?;
            }
        }
        let (pid, running, exit_code) = match known.progress {
            Progress::Registered | Progress::Starting => (None, false, None),
            Progress::Running { pid } => (Some(pid), true, None),
            Progress::Ended { pid, exit_code } => (pid, false, Some(exit_code)),
        };
        Ok(ExecSnapshot { id: self.id.clone(), container: known.container, spec: known.spec, pid, running, exit_code })
    }

    fn execs(&self) -> &Execs {
        &self.container.shared.execs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ExecSpec {
        ExecSpec {
            arguments: vec!["true".into()],
            environment: vec![],
            working_directory: None,
            user: UserSpec::default(),
            terminal: false,
            terminal_size: None,
            detach_keys: String::new(),
            privileged: false,
            stdin: false,
            stdout: true,
            stderr: true,
        }
    }

    #[test]
    fn an_exec_is_started_once_and_late_news_of_its_start_changes_nothing() {
        let execs = Execs::default();
        let container = ContainerId::random();
        let id = execs.register(container.clone(), spec());
        assert!(execs.claim(&id).is_ok());
        assert!(matches!(execs.claim(&id), Err(EngineError::Conflict { .. })));
        execs.heard(&Reply::ExecExited { exec_id: id.to_string(), exit_code: 3 });
        execs.heard(&Reply::ExecStarted { exec_id: id.to_string(), pid: 9 });
        assert!(matches!(execs.get(&id).unwrap().progress, Progress::Ended { exit_code: 3, .. }));
    }

    #[test]
    fn how_an_exec_ended_outlives_the_run_and_is_not_kept_for_ever() {
        let execs = Execs::default();
        let (container, other) = (ContainerId::random(), ContainerId::random());
        let code = |id: &ExecId| match execs.get(id).map(|known| known.progress) {
            Ok(Progress::Ended { exit_code, .. }) => Some(exit_code),
            _ => None,
        };
        let started = |container: &ContainerId| {
            let id = execs.register(container.clone(), spec());
            execs.heard(&Reply::ExecStarted { exec_id: id.to_string(), pid: 9 });
            id
        };
        let (ended, running, elsewhere) = (started(&container), started(&container), started(&other));
        let idle = execs.register(container.clone(), spec());
        execs.heard(&Reply::ExecExited { exec_id: ended.to_string(), exit_code: 3 });
        execs.run_ended(&container);
        assert_eq!((code(&ended), code(&running), code(&elsewhere)), (Some(3), Some(137), None));
        assert!(matches!(execs.get(&idle), Err(EngineError::NoSuchExec(_))));
        assert!(execs.of(&container).is_empty() && execs.of(&other) == [elsewhere.clone()]);

        // By number: the oldest goes.
        let more: Vec<_> = (0..KEPT_COUNT - 1).map(|_| started(&other)).collect();
        execs.heard(&Reply::ExecExited { exec_id: elsewhere.to_string(), exit_code: 0 });
        for id in more.iter().skip(1) {
            execs.heard(&Reply::ExecExited { exec_id: id.to_string(), exit_code: 0 });
        }
        assert_eq!(execs.lock().ended.len(), KEPT_COUNT);
        assert!(execs.get(&ended).is_err() && execs.get(&running).is_ok(), "the oldest goes");
        // And by age: all that have ended, and no other.
        execs.lock().prune(Instant::now() + KEPT + Duration::from_secs(1));
        let table = execs.lock();
        assert_eq!((table.ended.len(), table.known.len()), (0, 1));
    }
}
