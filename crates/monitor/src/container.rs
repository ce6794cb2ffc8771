//! The real runtime under the monitor.

use std::os::fd::{AsFd, OwnedFd};

use dozen_runtime::{Cgroup, CreateOptions, Created, ExecOptions, Running, Spec, Stdio};

use crate::failure::{complain, failure, internal, not_running};
use crate::isolate::{Isolate, Process, Streams};
use crate::protocol::{ExecRequest, Failure, StartRequest, WindowSize};

/// One container of `dozen-runtime`.
#[derive(Default)]
pub struct Container {
    created: Option<Created>,
    running: Option<Running>,
    /// For execs, which inherit from it.
    spec: KeptSpec,
}

/// What the container was made from. As text it takes a tenth of its memory.
#[derive(Default)]
enum KeptSpec {
    #[default]
    None,
    Parsed(Box<Spec>),
    Text(Box<[u8]>),
}

impl KeptSpec {
    fn parsed(&mut self) -> Result<&Spec, Failure> {
        if let Self::Text(text) = self {
            let spec = serde_json::from_slice(text).map_err(|error| internal("read the spec again", &error.into()))?;
            *self = Self::Parsed(spec);
        }
        match self {
            Self::Parsed(spec) => Ok(spec),
            _ => Err(not_running()),
        }
    }

    fn shrink(&mut self) {
        if let Self::Parsed(spec) = self
            && let Ok(text) = serde_json::to_vec(spec)
        {
            *self = Self::Text(text.into());
        }
    }
}

fn stdio(streams: Streams) -> Stdio {
    match streams {
        Streams::Each(streams) => Stdio::Streams(streams),
        Streams::Terminal(size) => Stdio::Terminal { size: size.map(window_size) },
    }
}

fn window_size(size: WindowSize) -> dozen_runtime::WindowSize {
    dozen_runtime::WindowSize { rows: size.rows, columns: size.columns }
}

fn copy(descriptor: impl AsFd) -> Result<OwnedFd, Failure> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, 3).map_err(|error| internal("copy a descriptor", &error.into()))
}

/// The spec for process 1 alone, if it knows more than what is kept for execs.
fn with_secrets(request: &StartRequest) -> Option<Spec> {
    if request.secret_environment.0.is_empty() {
        return None;
    }
    let mut spec = (*request.spec).clone();
    let process = spec.process_mut().as_mut()?;
    let others = process.env().clone().unwrap_or_default();
    process.set_env(Some(request.secret_environment.over(others)));
    Some(spec)
}

impl Isolate for Container {
    fn settle(&mut self, request: &StartRequest, born_there: bool) {
        let join = if born_there { Cgroup::join_version_1 } else { Cgroup::join };
        if let Err(error) = join(&request.monitor_cgroup) {
            complain(format_args!("stays in its starter's cgroup: {}", failure(&error).message));
        }
    }

    fn create(
        &mut self,
        request: StartRequest,
        network_namespace: Option<OwnedFd>,
        streams: Streams,
    ) -> Result<Process, Failure> {
        let told = with_secrets(&request);
        let mut created = dozen_runtime::create(CreateOptions {
            id: &request.id,
            spec: told.as_ref().unwrap_or(&request.spec),
            bundle: &request.run_directory,
            root: &request.root,
            cgroup: &request.cgroup,
            network_namespace: network_namespace.as_ref().map(AsFd::as_fd),
            user: Some(&request.user),
            group_names: &request.group_names,
            stdio: stdio(streams),
            init: request.init,
            preserve_descriptors: 0,
            keep_session_keyring: false,
        })
        .map_err(|error| failure(&error))?;
        let process = Process { pid: created.pid(), pidfd: copy(created.pidfd())?, terminal: created.terminal() };
        self.created = Some(created);
        self.spec = KeptSpec::Parsed(request.spec);
        Ok(process)
    }

    fn start(&mut self) -> Result<(), Failure> {
        let created = self.created.take().ok_or_else(not_running)?;
        self.running = Some(created.start().map_err(|error| failure(&error))?);
        Ok(())
    }

    fn undo(&mut self) -> Vec<String> {
        // Dropped, it kills and removes what it has made.
        self.created = None;
        if self.running.is_some() {
            self.finish();
        }
        Vec::new()
    }

    fn rest(&mut self) {
        self.spec.shrink();
    }

    fn exec(&mut self, request: &ExecRequest, streams: Streams) -> Result<Process, Failure> {
        let Some(running) = &self.running else { return Err(not_running()) };
        let process = dozen_runtime::exec(ExecOptions {
            container: running,
            spec: self.spec.parsed()?,
            arguments: &request.arguments,
            environment: &request.environment,
            working_directory: request.working_directory.as_deref(),
            user: &request.user,
            keep_session_keyring: false,
            privileged: request.privileged,
            stdio: stdio(streams),
            preserve_descriptors: 0,
        })
        .map_err(|error| failure(&error))?;
        Ok(Process { pid: process.pid, pidfd: process.pidfd, terminal: process.terminal })
    }

    fn signal_all(&mut self, signal: i32) -> Result<(), Failure> {
        let running = self.running.as_ref().ok_or_else(not_running)?;
        running.cgroup.signal(signal).map_err(|error| failure(&error))
    }

    fn resume(&mut self) {
        if let Some(running) = &self.running
            && let Err(error) = running.cgroup.resume()
        {
            complain(failure(&error).message);
        }
    }

    fn kill_rest(&mut self) {
        if let Some(running) = &self.running
            && let Err(error) = running.cgroup.kill()
        {
            complain(failure(&error).message);
        }
    }

    fn finish(&mut self) -> u64 {
        let Some(running) = self.running.take() else { return 0 };
        let oom_kills = running.cgroup.oom_kills().unwrap_or(0);
        if let Err(error) = running.cgroup.delete() {
            complain(failure(&error).message);
        }
        oom_kills
    }
}
