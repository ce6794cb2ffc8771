//! A container's first process: created, waiting, started.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use dozen_model::{ErrorKind, UserSpec};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::about::About;
use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::error::{Context, RuntimeError};
use crate::failpoint::failpoint;
use crate::hooks;
use crate::message::{self, Message};
use crate::mounts::Brought;
use crate::plan::{Hooks, Limit, Plan, ProcessPlan};
use crate::process::{Process, set_patience, socket_pair, start_over};
use crate::seccomp::Listener;
use crate::{
    Spec, capability, child, delegation, device_filter, mounts, namespace, net_devices, scheduling, sys, threshold,
};

/// The root file system that a container gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Root {
    /// A directory of the host, used as it is.
    Directory(PathBuf),
    /// A new overlay, never in the host's mount table.
    Overlay {
        /// Read-only layers, the topmost first. At least one.
        lower: Vec<PathBuf>,
        /// Where changes go.
        upper: PathBuf,
        /// overlayfs's own scratch directory, on the same file system as `upper`.
        work: PathBuf,
    },
}

/// What the process's standard streams are.
#[derive(Debug)]
pub enum Stdio {
    /// Standard input, output and error.
    Streams([OwnedFd; 3]),
    /// A new terminal of the container's own devpts; its master comes back with [`Created::terminal`].
    Terminal {
        /// Its first size. `None`: the spec's (`process.consoleSize`).
        size: Option<WindowSize>,
    },
}

/// Rows and columns of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters on a line.
    pub columns: u16,
}

/// Everything that [`create`] has to know.
#[derive(Debug)]
pub struct CreateOptions<'a> {
    /// The container's id.
    pub id: &'a str,
    /// What to run, by the OCI runtime specification. Its `root.path` is not read: see `root`.
    pub spec: &'a Spec,
    /// Relative sources of mounts begin here.
    pub bundle: &'a Path,
    /// The root file system.
    pub root: &'a Root,
    /// The cgroup below each hierarchy's mount point: `/dozen/<id>`; or a scope for systemd to make: `slice:prefix:name`.
    pub cgroup: &'a str,
    /// Joined in place of what the spec says about the network.
    pub network_namespace: Option<BorrowedFd<'a>>,
    /// Whom the process runs as, by the container's own /etc/passwd and /etc/group; wins over the spec's numbers.
    pub user: Option<&'a UserSpec>,
    /// The process's standard streams.
    pub stdio: Stdio,
    /// dozen's own init is process 1: it reaps, forwards signals, and exits as its child does.
    pub init: bool,
    /// Descriptors 3 and up that the process inherits, by number.
    pub preserve_descriptors: u32,
    /// The caller's session keyring (keyrings(7)) goes on to be the process's; else it has a new one.
    pub keep_session_keyring: bool,
}

/// A container that stands and waits. Dropped, it is killed and undone.
#[derive(Debug)]
pub struct Created {
    process: Process,
    socket: OwnedFd,
    terminal: Option<OwnedFd>,
    /// Gone once the container is started: then it is no longer ours to undo.
    cgroup: Option<Cgroup>,
    user: Option<UserSpec>,
    warnings: Vec<String>,
    told: Option<Box<Told>>,
}

/// Others who are told of the container: hooks that are yet to be run, and who answers for its system calls.
#[derive(Debug)]
struct Told {
    about: About,
    hooks: Hooks,
    listener: Option<Listener>,
}

/// A container whose program runs.
#[derive(Debug)]
pub struct Running {
    /// Process 1, in our own pid namespace. Our child: wait for it by `pidfd`.
    pub pid: i32,
    /// The same, by descriptor.
    pub pidfd: OwnedFd,
    /// Where its processes are.
    pub cgroup: Cgroup,
    /// Whom it runs as, if that was asked for by name: further processes do so too.
    pub user: Option<UserSpec>,
    /// For who answers for its system calls.
    pub(crate) about: Option<About>,
}

/// Creates a container: everything but its program runs. On failure nothing is left.
///
/// The calling process must have one thread.
pub fn create(options: CreateOptions<'_>) -> Result<Created, RuntimeError> {
    create_with(options, None, false)
}

/// As [`create`]; with a listening socket, the word to start comes from a connection to it. `listens`: as of
/// [`crate::exec::exec_at`].
pub(crate) fn create_with(
    mut options: CreateOptions<'_>,
    listener: Option<OwnedFd>,
    listens: bool,
) -> Result<Created, RuntimeError> {
    if let Stdio::Terminal { size: size @ None } = &mut options.stdio {
        *size = console_size(options.spec);
    }
    let plan = Plan::new(options.spec, options.bundle, options.user, options.network_namespace.is_some())?;
    let init = if options.init { Some(crate::own_binary()?) } else { None };
    sys::make_undumpable().context(|| "become undumpable".to_owned())?;
    let (cgroup, placeholder) = Cgroup::begin(options.cgroup)?;
    failpoint("create.cgroup");
    let asked = plan.process.filter.as_ref().and_then(|filter| filter.listener.clone());
    let is_told = !plan.hooks.is_empty() || asked.is_some();
    let about = is_told.then(|| About::new(options.id, options.bundle, options.spec));
    let mut is_hooked = false;
    let surroundings = |socket, stdio| child::Surroundings {
        socket,
        listener,
        stdio,
        init,
        preserve_descriptors: options.preserve_descriptors,
        listens,
        keep_session_keyring: options.keep_session_keyring,
    };
    let made = launch(&options, &plan, &cgroup, surroundings, about.as_ref(), &mut is_hooked);
    // By now the container's own process is in the scope, or nobody is to be.
    drop(placeholder);
    match made {
        Ok((process, socket, terminal)) => {
            let (user, warnings) = (options.user.cloned(), warnings(&plan.process, process.pid));
            let told = about.map(|about| Box::new(Told { about, hooks: plan.hooks, listener: asked }));
            Ok(Created { process, socket, terminal, cgroup: Some(cgroup), user, warnings, told })
        }
        Err(error) => {
            failpoint("failed.before");
            // The first error is the one to tell; one more here would only hide it.
            let _ = cgroup.delete();
            failpoint("failed.deleted");
            if let Some(about) = about.filter(|_| is_hooked) {
                // Hooks may have made what these take away (runtime.md, "Lifecycle", steps 3 to 5, 12 and 13).
                drop(hooks::run_poststop(&plan.hooks.poststop, &about));
            }
            Err(error)
        }
    }
}

/// What the process does not get as it was asked for, although nothing failed.
fn warnings(plan: &ProcessPlan, pid: i32) -> Vec<String> {
    let ours = sys::capget_permitted().unwrap_or(0);
    let may_raise = capability::bit("SYS_RESOURCE").is_some_and(|bit| ours & bit != 0);
    let amount = |limit: u64| if limit == libc::RLIM64_INFINITY { "unlimited".to_owned() } else { limit.to_string() };
    let short = |limit: &Limit| {
        let most = sys::hard_limit(limit.resource);
        (limit.hard > most && !may_raise).then(|| {
            let (name, wanted, most) = (&limit.name, amount(limit.hard), amount(most));
            format!("{name}: {most} in place of {wanted}, since raising a hard limit needs CAP_SYS_RESOURCE")
        })
    };
    let missing = capability::names(plan.capabilities.beyond(plan.capabilities.within(ours)));
    let missing =
        missing.map(|name| format!("CAP_{name} cannot be granted in all of the sets that it was asked for in"));
    let score = plan.oom_score_adjustment.filter(|_| !may_raise).and_then(|wanted| {
        let has = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?;
        let why = "since lowering it needs CAP_SYS_RESOURCE";
        (has.trim() != wanted.to_string()).then(|| format!("oomScoreAdj: {} in place of {wanted}, {why}", has.trim()))
    });
    plan.limits.iter().filter_map(short).chain(missing).chain(score).collect()
}

fn launch(
    options: &CreateOptions<'_>,
    plan: &Plan,
    cgroup: &Cgroup,
    surroundings: impl FnOnce(OwnedFd, Stdio) -> child::Surroundings,
    about: Option<&About>,
    is_hooked: &mut bool,
) -> Result<(Process, OwnedFd, Option<OwnedFd>), RuntimeError> {
    let directory = cgroup.unified_directory()?;
    if let Some(rules) = options.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()?.devices().as_ref())
        && let (false, Some(directory)) = (cgroup.has_devices_controller(), &directory)
        && !rules.is_empty()
    {
        sys::attach_device_program(directory, &device_filter::compile(rules)?)
            .context(|| "limit the container's devices".to_owned())?;
    }
    let (socket, childs_socket) = socket_pair()?;
    let stdio = options.stdio.copy()?;
    let joined = plan.join.iter().find(|(_, kind)| *kind == libc::CLONE_NEWPID);
    let pid_namespace = match joined {
        Some((path, kind)) => Some(namespace::open(path, *kind)?),
        None => None,
    };
    let mount_namespace = mounts::open_joined(plan)?;
    let mount_namespace = mount_namespace.as_ref().map(AsFd::as_fd);
    let brought = Brought::new(options.root, plan, mount_namespace)?;
    if plan.user_namespace.is_none()
        && let Some(user) = plan.numbered_user()
    {
        delegation::delegate(plan, cgroup, user)?;
    }
    let namespaces = if plan.needs_threshold() { 0 } else { plan.new_namespaces };
    let child = |brought| child::FirstProcess {
        brought,
        plan,
        root: options.root,
        cgroup,
        network_namespace: options.network_namespace,
        mount_namespace,
        pid_namespace: pid_namespace.as_ref().map(AsFd::as_fd),
        about,
        surroundings: surroundings(childs_socket, stdio),
    };
    // SAFETY: `create` asks its callers for a process with one thread.
    let cloned = unsafe { sys::clone_process(namespaces, directory.as_ref().map(AsFd::as_fd)) }
        .context(|| "clone the container's first process".to_owned())?;
    let mut process = match cloned {
        sys::Cloned::Child => child(brought).run(),
        sys::Cloned::Parent { pid, pidfd } => {
            // The child has its copies; ours go, so that its end is the end of the connection.
            drop(child);
            Process { pid, pidfd }
        }
    };
    failpoint("create.cloned");
    let needs_threshold = plan.needs_threshold();
    if plan.joins_pid_namespace() || needs_threshold {
        let grouped = group(options, cgroup, &socket)
            .and_then(|()| match needs_threshold {
                true => threshold::prepare(&process, &socket, options, plan, cgroup, &brought),
                false => move_devices(options, plan, &process)
                    .and_then(|()| hook_before_pivot(plan, about, &process, &socket, is_hooked)),
            })
            .inspect_err(|_| process.kill_usher(&socket));
        process = grouped.and_then(|()| process.sibling(&socket))?;
        if needs_threshold {
            move_devices(options, plan, &process).inspect_err(|_| process.kill())?;
        }
        // Hooks take the time that they take.
        let is_hookless = plan.hooks.start_container.is_empty() && !(needs_threshold && plan.hooks.before_pivot());
        if plan.joins_pid_namespace() && is_hookless {
            set_patience(&socket).inspect_err(|_| process.kill())?;
        }
        let _ = message::send(socket.as_fd(), &Message::Grouped, None);
        if needs_threshold {
            hook_before_pivot(plan, about, &process, &socket, is_hooked).inspect_err(|_| process.kill())?;
        }
    } else {
        group(options, cgroup, &socket)
            .and_then(|()| move_devices(options, plan, &process))
            .and_then(|()| hook_before_pivot(plan, about, &process, &socket, is_hooked))
            .inspect_err(|_| process.kill())?;
    }
    failpoint("create.limited");
    let terminal = process.wait_until_ready(&socket).map_err(|error| want_of_memory(cgroup).unwrap_or(error))?;
    failpoint("create.ready");
    scheduling::apply(&plan.process.scheduling, process.pid).inspect_err(|_| process.kill())?;
    Ok((process, socket, terminal))
}

/// The host's network devices that the container gets, to the network in which the process is.
fn move_devices(options: &CreateOptions<'_>, plan: &Plan, process: &Process) -> Result<(), RuntimeError> {
    if plan.net_devices.is_empty() {
        return Ok(());
    }
    let joined = plan.join.iter().find(|(_, kind)| *kind == libc::CLONE_NEWNET);
    let path = joined.map_or_else(|| format!("/proc/{}/ns/net", process.pid).into(), |(path, _)| path.clone());
    let opened = match options.network_namespace {
        Some(_) => None,
        None => Some(
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .context(|| format!("open namespace {}", path.display()))?,
        ),
    };
    let network = options.network_namespace.or(opened.as_ref().map(AsFd::as_fd));
    let network = network.expect("one of the two is there");
    if child::is_own_network(network).context(|| "examine the network namespace".to_owned())? {
        return Err(RuntimeError::Invalid("linux.netDevices: the network namespace is the host's".to_owned()));
    }
    net_devices::move_to(&plan.net_devices, network)?;
    failpoint("create.devices_moved");
    Ok(())
}

/// The runtime's own hooks, between the child's mounts and its pivot_root(2).
fn hook_before_pivot(
    plan: &Plan,
    about: Option<&About>,
    process: &Process,
    socket: &OwnedFd,
    is_hooked: &mut bool,
) -> Result<(), RuntimeError> {
    let Some(about) = about.filter(|_| plan.hooks.before_pivot()) else { return Ok(()) };
    match message::receive(socket)? {
        Some((Message::Furnished, _)) => {}
        answer => return Err(Process::failure(answer.map(|(message, _)| message))),
    }
    *is_hooked = true;
    failpoint("hooks.furnished");
    hooks::run_before_pivot(&plan.hooks, about, process.pid)?;
    failpoint("hooks.hooked");
    // A child that has died meanwhile says why when it is listened to.
    let _ = message::send(socket.as_fd(), &Message::Hooked, None);
    Ok(())
}

/// In version 2 the first process lives under the container's limit from its birth, and says nothing when that kills it.
fn want_of_memory(cgroup: &Cgroup) -> Option<RuntimeError> {
    cgroup.oom_killed().is_ok_and(|killed| killed).then(|| RuntimeError::Inside {
        kind: ErrorKind::Invalid,
        message:
            "the container's first process was killed for want of memory while it was set up: the limit is too low"
                .to_owned(),
    })
}

/// What the parent does while the child mounts: cgroups of version 1 with their devices, then everyone's limits.
fn group(options: &CreateOptions<'_>, cgroup: &Cgroup, socket: &OwnedFd) -> Result<(), RuntimeError> {
    let resources = options.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    cgroup.create_version_1()?;
    // Before the child is in it: between two rules it could neither make its devices nor open any.
    resources.map_or(Ok(()), |resources| cgroup.limit_first(resources))?;
    failpoint("create.version_1");
    // A child that has died meanwhile says why when it is listened to.
    let _ = message::send(socket.as_fd(), &Message::Grouped, None);
    failpoint("create.grouped");
    resources.map_or(Ok(()), |resources| cgroup.apply(resources))
}

impl Stdio {
    /// The same for the child, above the numbers that it gives them.
    pub(crate) fn copy(&self) -> Result<Self, RuntimeError> {
        let copy = |stream: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(stream, 3).context(|| "copy a stream".to_owned());
        Ok(match self {
            Self::Streams([input, output, error]) => Self::Streams([copy(input)?, copy(output)?, copy(error)?]),
            Self::Terminal { size } => Self::Terminal { size: *size },
        })
    }
}

/// The spec's size of a terminal.
pub(crate) fn console_size(spec: &Spec) -> Option<WindowSize> {
    let size = spec.process().as_ref()?.console_size()?;
    Some(WindowSize { rows: u16::try_from(size.height()).ok()?, columns: u16::try_from(size.width()).ok()? })
}

impl Created {
    /// Process 1, in our own pid namespace.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// The same, by descriptor.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// The master of the container's terminal, once.
    pub fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// What the process does not get as it was asked for, in sentences for the user.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Lets the program run; returns once execve(2) has succeeded. After a failure nothing is left.
    pub fn start(mut self) -> Result<Running, RuntimeError> {
        // A limit may have come into force only after the process was ready.
        let agent = self.told.as_deref().and_then(|told| told.agent(self.process.pid)).transpose()?;
        start_over(&self.socket, agent)
            .map_err(|error| self.cgroup.as_ref().and_then(want_of_memory).unwrap_or(error))?;
        if let Some(told) = self.told.as_deref().filter(|told| !told.hooks.is_empty()) {
            failpoint("hooks.started");
            // One that fails stops the container; dropped, it is undone (runtime.md, "Lifecycle", step 9).
            hooks::run_poststart(&told.hooks.poststart, &told.about, self.process.pid)?;
            failpoint("hooks.poststarted");
        }
        let cgroup = self.cgroup.take().expect("a created container has its cgroup until it is started or dropped");
        let pidfd = rustix::io::fcntl_dupfd_cloexec(&self.process.pidfd, 3).context(|| "copy a pidfd".to_owned())?;
        Ok(Running {
            pid: self.process.pid,
            pidfd,
            cgroup,
            user: self.user.take(),
            about: self.told.take().map(|told| told.about),
        })
    }

    /// Kills it and removes what was made.
    pub fn kill_and_undo(mut self) -> Result<(), RuntimeError> {
        self.undo()
    }

    /// Leaves it waiting when we are gone: the word to start comes from elsewhere.
    pub(crate) fn leave(mut self) {
        self.cgroup = None;
    }

    fn undo(&mut self) -> Result<(), RuntimeError> {
        let Some(cgroup) = self.cgroup.take() else { return Ok(()) };
        self.process.kill();
        let killed = cgroup.kill();
        failpoint("undo.killed");
        let deleted = cgroup.delete();
        failpoint("undo.deleted");
        let poststop = self.told.take().filter(|told| !told.hooks.is_empty()).map_or(Vec::new(), |told| {
            failpoint("hooks.poststop");
            hooks::run_poststop(&told.hooks.poststop, &told.about)
        });
        deleted.and(killed).and(poststop.into_iter().next().map_or(Ok(()), Err))
    }
}

impl Told {
    /// Connected, if there is anyone to ask.
    fn agent(&self, pid: i32) -> Option<Result<Agent, RuntimeError>> {
        let listener = self.listener.as_ref()?;
        Some(Agent::connect(listener, &self.about, "creating", pid))
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        // Nobody is left to hear of it; who needs to know calls `kill_and_undo`.
        let _ = self.undo();
    }
}
