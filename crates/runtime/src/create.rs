//! A container's first process: created, waiting, started.

mod launch;
mod options;

pub(crate) use self::options::console_size;
pub use self::options::{CreateOptions, Root, Stdio, WindowSize};

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dozen_model::UserSpec;

use self::launch::{launch, want_of_memory};
use crate::about::About;
use crate::agent::Agent;
use crate::cgroup::{Begun, Cgroup};
use crate::error::{Context, RuntimeError};
use crate::failpoint::failpoint;
use crate::hooks;
use crate::plan::{Hooks, Limit, Plan, ProcessPlan};
use crate::process::{Process, start_over};
use crate::seccomp::Listener;
use crate::{capability, child, sys};

/// A container that stands and waits. Dropped, it is killed and undone.
#[derive(Debug)]
pub struct Created {
    process: Process,
    socket: OwnedFd,
    terminal: Option<OwnedFd>,
    /// Gone once the container is started: then it is no longer ours to undo.
    cgroup: Option<Cgroup>,
    user: Option<UserSpec>,
    group_names: Vec<String>,
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
    /// Its further groups, by name: theirs too.
    pub group_names: Vec<String>,
    /// For who answers for its system calls.
    pub(crate) about: Option<About>,
}

/// Creates a container: everything but its program runs. On failure nothing is left.
///
/// The calling process must have one thread.
pub fn create(options: CreateOptions<'_>) -> Result<Created, RuntimeError> {
    create_with(options, None, false, &mut |_, _| Ok(()))
}

/// As [`create`]; with a listening socket, the word to start comes from a connection to it. `listens`: as of
/// [`crate::exec::exec_at`]. `grouped` is told of the cgroup when it is there and nobody is in it, and whether it was not
/// there before; it may refuse it.
pub(crate) fn create_with(
    mut options: CreateOptions<'_>,
    listener: Option<OwnedFd>,
    listens: bool,
    grouped: &mut dyn FnMut(&mut Cgroup, bool) -> Result<(), RuntimeError>,
) -> Result<Created, RuntimeError> {
    if let Stdio::Terminal { size: size @ None } = &mut options.stdio {
        *size = console_size(options.spec)?;
    }
    let mut plan = Plan::new(options.spec, options.bundle, options.user, options.network_namespace.is_some())?;
    plan.process.add_groups(options.group_names);
    let init = if options.init { Some(crate::own_binary()?) } else { None };
    sys::make_undumpable().context(|| "become undumpable".to_owned())?;
    let Begun { mut cgroup, placeholder, is_new } = Cgroup::begin(options.cgroup)?;
    failpoint("create.cgroup");
    if let Err(error) = grouped(&mut cgroup, is_new) {
        drop(placeholder);
        // The first error is the one to tell. What was there before us is not ours to remove.
        let _ = if is_new { cgroup.delete() } else { Ok(()) };
        return Err(error);
    }
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
            let group_names = options.group_names.to_vec();
            Ok(Created { process, socket, terminal, cgroup: Some(cgroup), user, group_names, warnings, told })
        }
        Err(error) => {
            failpoint("failed.before");
            // A hook that came before the failure may have left somebody in it. The first error is the one to tell; one
            // more here would only hide it.
            let _ = if is_new { cgroup.kill() } else { Ok(()) };
            failpoint("failed.killed");
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
            group_names: std::mem::take(&mut self.group_names),
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
