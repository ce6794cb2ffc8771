//! A further process in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use dozen_model::UserSpec;
use oci_spec::runtime::Process;
use rustix::io::Errno;

use crate::agent::Agent;
use crate::capability::{self, CapabilitySets};
use crate::child::{Confinement, Surroundings, Usher};
use crate::create::{Running, Stdio};
use crate::error::{Context, RuntimeError};
use crate::failpoint::failpoint;
use crate::message::{self, Message};
use crate::plan::{ProcessPlan, rare_namespaces};
use crate::process::{self, set_patience, socket_pair};
use crate::threshold::Owner;
use crate::{Spec, scheduling, sys};

/// Everything that [`exec`] has to know.
#[derive(Debug)]
pub struct ExecOptions<'a> {
    /// The container, whose process 1 must still run.
    pub container: &'a Running,
    /// What the container was made from: capabilities, limits and seccomp are taken from its process.
    pub spec: &'a Spec,
    /// Command line; never empty.
    pub arguments: &'a [String],
    /// The whole environment, `NAME=value`.
    pub environment: &'a [String],
    /// Absolute; `None`: the container's own.
    pub working_directory: Option<&'a str>,
    /// Empty: the container's own.
    pub user: &'a UserSpec,
    /// The caller's session keyring goes on to be the process's.
    pub keep_session_keyring: bool,
    /// All capabilities, and no seccomp.
    pub privileged: bool,
    /// The process's standard streams.
    pub stdio: Stdio,
    /// Descriptors 3 and up that the process inherits, by number.
    pub preserve_descriptors: u32,
}

/// A further process, whose program runs. Our child.
#[derive(Debug)]
pub struct ExecProcess {
    /// In our own pid namespace.
    pub pid: i32,
    /// The same, by descriptor.
    pub pidfd: OwnedFd,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// Runs a further process; returns once execve(2) has succeeded. On failure nothing is left.
///
/// The calling process must have one thread.
pub fn exec(options: ExecOptions<'_>) -> Result<ExecProcess, RuntimeError> {
    exec_at(options, false, |_| Ok(()))
}

/// The same; `set_terminal` is given the master before the program begins. `listens`: among the descriptors that are handed
/// on are sockets that the process is to take for its own.
pub(crate) fn exec_at(
    options: ExecOptions<'_>,
    listens: bool,
    set_terminal: impl FnOnce(&OwnedFd) -> Result<(), RuntimeError>,
) -> Result<ExecProcess, RuntimeError> {
    let plan = plan(&options)?;
    sys::make_undumpable().context(|| "become undumpable".to_owned())?;
    let (socket, childs_socket) = socket_pair()?;
    let stdio = options.stdio.copy()?;
    let rare_namespaces = rare_namespaces(options.spec);
    if rare_namespaces & libc::CLONE_NEWUSER != 0 {
        Owner::of_process(options.container.pid)?.give_pipes(&options.stdio);
    }
    let confinement = Confinement::of(&plan, &options.stdio, &[]);
    let cgroup = &options.container.cgroup;
    let directory = cgroup.unified_directory()?;
    let container = options.container.pidfd.as_fd();
    set_patience(&socket)?;
    // Who brings it in begins there, and then so does it.
    let visit = plan.scheduling.initial_affinity.as_ref().map(scheduling::Visit::to).transpose()?;
    // SAFETY: `exec` asks its callers for a process with one thread.
    let cloned =
        unsafe { sys::clone_process(0, directory.as_ref().map(AsFd::as_fd)) }.map_err(|errno| match errno {
            // The cgroup, and with it all of the container, is gone.
            Errno::NOENT | Errno::NODEV => not_running(),
            errno => RuntimeError::system("clone a process for the container", errno),
        })?;
    let usher = match cloned {
        sys::Cloned::Child => {
            let surroundings = Surroundings {
                socket: childs_socket,
                listener: None,
                stdio,
                init: None,
                preserve_descriptors: options.preserve_descriptors,
                listens,
                keep_session_keyring: options.keep_session_keyring,
            };
            let pid = options.container.pid;
            Usher { plan: &plan, cgroup, container, pid, rare_namespaces, confinement: &confinement, surroundings }
                .run()
        }
        sys::Cloned::Parent { pid, pidfd } => process::Process { pid, pidfd },
    };
    drop((childs_socket, stdio, visit));
    failpoint("exec.cloned");
    let listener = plan.filter.as_ref().and_then(|filter| filter.listener.as_ref());
    let notifications = match (listener, &confinement) {
        (Some(_), Confinement::Early) => Some(hear_of_filter(&usher, &socket)?),
        _ => None,
    };
    let process = usher.sibling(&socket)?;
    failpoint("exec.brought_in");
    // One that died meanwhile says so by the end of its connection.
    let _ = message::send(socket.as_fd(), &Message::Grouped, None);
    let terminal = process.wait_until_ready(&socket)?;
    let settled = plan.scheduling.final_affinity.as_ref().map_or(Ok(()), |processors| {
        scheduling::set_affinity(process.pid, processors).context(|| "set the final CPU affinity".to_owned())
    });
    settled
        .and_then(|()| scheduling::apply(&plan.scheduling, process.pid))
        .and_then(|()| terminal.as_ref().map_or(Ok(()), set_terminal))
        .inspect_err(|_| process.kill())?;
    let agent = listener.map(|listener| {
        let about = options.container.about.as_ref();
        let about = about.ok_or_else(|| RuntimeError::Invalid("nobody is told of this container".to_owned()))?;
        Agent::connect(listener, about, "running", process.pid)
    });
    let mut agent = agent.transpose().inspect_err(|_| process.kill())?;
    if let Some(notifications) = notifications
        && let Some(agent) = agent.take()
    {
        agent.hand_over(notifications).inspect_err(|_| process.kill())?;
    }
    process.execute(&socket, agent)?;
    Ok(ExecProcess { pid: process.pid, pidfd: process.pidfd, terminal })
}

/// By the usher's filter whoever is brought in is under it too. Only the host's get the descriptor by which it asks.
fn hear_of_filter(usher: &process::Process, socket: &OwnedFd) -> Result<OwnedFd, RuntimeError> {
    let answer = message::receive(socket).inspect_err(|_| usher.kill())?;
    match answer {
        Some((Message::Notifications, Some(notifications))) => Ok(notifications),
        answer => {
            usher.kill();
            Err(process::Process::failure(answer.map(|(message, _)| message)))
        }
    }
}

/// Its process 1 is gone.
pub(crate) fn not_running() -> RuntimeError {
    RuntimeError::Conflict("the container is not running".to_owned())
}

fn plan(options: &ExecOptions<'_>) -> Result<ProcessPlan, RuntimeError> {
    let of_container = options.spec.process().as_ref();
    let mut process: Process =
        of_container.cloned().ok_or_else(|| RuntimeError::Invalid("the spec has no process".to_owned()))?;
    process.set_args(Some(options.arguments.to_vec())).set_env(Some(options.environment.to_vec()));
    if let Some(directory) = options.working_directory {
        process.set_cwd(PathBuf::from(directory));
    }
    let asked = options.user.user.is_some() || options.user.group.is_some();
    let user = if asked { Some(options.user) } else { options.container.user.as_ref() };
    let mut plan = ProcessPlan::new(options.spec, &process, user)?;
    plan.add_groups(&options.container.group_names);
    if options.privileged {
        let all = capability::ALL;
        plan.capabilities =
            CapabilitySets { bounding: all, effective: all, permitted: all, inheritable: 0, ambient: 0 };
        plan.filter = None;
        plan.no_new_privileges = false;
    }
    Ok(plan)
}
