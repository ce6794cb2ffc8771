//! The child of a clone, from its first instruction to execve(2). Whatever fails is told to the parent.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::capability;
use crate::cgroup::Cgroup;
use crate::create::{Root, Stdio};
use crate::error::{Context, RuntimeError, words};
use crate::exec::not_running;
use crate::failpoint::failpoint_of_child;
use crate::init;
use crate::message::{self, Message};
use crate::mounts::{RootTree, is_procfs};
use crate::plan::{Limit, Plan, ProcessPlan, Who};
use crate::sys;
use crate::terminal;
use crate::user::{self, Identity};

/// What a new process is given to speak and to see with.
pub(crate) struct Surroundings {
    /// To the parent.
    pub(crate) socket: OwnedFd,
    /// Where Start comes from, if not from the parent: a listening socket.
    pub(crate) listener: Option<OwnedFd>,
    pub(crate) stdio: Stdio,
    /// Our own binary, if it is to be process 1.
    pub(crate) init: Option<OwnedFd>,
    /// Descriptors 3 and up to hand on.
    pub(crate) preserve_descriptors: u32,
}

/// The container's first process.
pub(crate) struct FirstProcess<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) root: &'a Root,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) network_namespace: Option<BorrowedFd<'a>>,
    /// Where others are already: then this process is only the usher of the container's.
    pub(crate) pid_namespace: Option<BorrowedFd<'a>>,
    pub(crate) surroundings: Surroundings,
}

/// Who brings a further process in.
pub(crate) struct Usher<'a> {
    pub(crate) plan: &'a ProcessPlan,
    pub(crate) cgroup: &'a Cgroup,
    /// Process 1, whose namespaces are joined.
    pub(crate) container: BorrowedFd<'a>,
    pub(crate) surroundings: Surroundings,
}

impl FirstProcess<'_> {
    /// Becomes the container. Never returns.
    pub(crate) fn run(self) -> ! {
        let Self { plan, root, cgroup, network_namespace, pid_namespace, mut surroundings } = self;
        let kept: Vec<RawFd> = network_namespace.iter().chain(&pid_namespace).map(AsRawFd::as_raw_fd).collect();
        let furnished = (|| {
            begin(&surroundings, &kept)?;
            failpoint_of_child("child.begun");
            adjust_oom_score(&plan.process)?;
            join_namespaces(plan, network_namespace)?;
            name_host(plan)?;
            let tree = RootTree::mount(root, plan)?;
            failpoint_of_child("child.rooted");
            tree.furnish(plan, cgroup, || join_cgroups(plan, cgroup, &surroundings.socket))?;
            failpoint_of_child("child.furnished");
            Ok(tree)
        })();
        let prepared = match pid_namespace {
            None => furnished.and_then(|tree| {
                let master = complete(&tree, plan, &surroundings.stdio)?;
                tree.enter(plan)?;
                Ok((become_user(&plan.process, set_limits, true)?, master))
            }),
            Some(namespace) => {
                let ready = furnished.and_then(|tree| {
                    tree.enter(plan)?;
                    sys::setns(namespace, libc::CLONE_NEWPID).map_err(|e| gone_or(e, "join the pid namespace"))?;
                    surroundings.close_all_else(&[]).context(|| "close descriptors".to_owned())
                });
                bring_in(&surroundings, ready);
                in_joined_pid_namespace(plan, cgroup, &surroundings)
            }
        };
        finish(&plan.process, &mut surroundings, prepared)
    }
}

/// What is left to do in a furnished root: the terminal, the working directory, the masks.
fn complete(tree: &RootTree, plan: &Plan, stdio: &Stdio) -> Result<Option<OwnedFd>, RuntimeError> {
    let master = match stdio {
        Stdio::Terminal { size } => {
            let master = tree.open_terminals()?;
            let slave = terminal::open_pair(&master, *size)?;
            if plan.furnish_dev {
                tree.bind_console(&slave)?;
            }
            take_terminal(slave)?;
            Some(master)
        }
        Stdio::Streams(_) => None,
    };
    tree.make_working_directory(&plan.process.working_directory)?;
    tree.close_off(plan)?;
    Ok(master)
}

/// The process that an usher has brought in, in the root that the usher has entered.
fn in_joined_pid_namespace(
    plan: &Plan,
    cgroup: &Cgroup,
    surroundings: &Surroundings,
) -> Result<(Prepared, Option<OwnedFd>), RuntimeError> {
    await_introduction(surroundings)?;
    let tree = RootTree::of_this_process()?;
    tree.mount_procfs(plan, cgroup)?;
    let master = complete(&tree, plan, &surroundings.stdio)?;
    Ok((become_user(&plan.process, set_limits, true)?, master))
}

impl Usher<'_> {
    /// Becomes the usher, and its sibling a process of the container. Never returns.
    ///
    /// The usher stays in our own pid namespace: as long as a process still has something of the host's, be it a
    /// descriptor, its root or its rights, nobody in the container may see it, let alone trace it. What is cloned last
    /// has none of them from its first instruction on.
    pub(crate) fn run(self) -> ! {
        let Self { plan, cgroup, container, mut surroundings } = self;
        let prepared = (|| {
            begin(&surroundings, &[container.as_raw_fd()])?;
            failpoint_of_child("usher.begun");
            cgroup.enter_version_1()?;
            failpoint_of_child("usher.grouped");
            adjust_oom_score(plan)?;
            let namespaces = libc::CLONE_NEWNS
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWCGROUP
                | libc::CLONE_NEWPID;
            sys::setns(container, namespaces).map_err(|errno| gone_or(errno, "join the container's namespaces"))?;
            surroundings.close_all_else(&[]).context(|| "close the container's descriptor".to_owned())?;
            // A terminal of its own is not there yet: what stands in its place is ours.
            let streams = matches!(surroundings.stdio, Stdio::Streams(_));
            let mut prepared = become_user(plan, raise_limits, streams)?;
            if may_be_confined_early(plan) {
                confine(plan, &prepared)?;
                prepared.confined = true;
            }
            Ok(prepared)
        })();
        let (prepared, ready) = match prepared {
            Ok(prepared) => (Some(prepared), Ok(())),
            Err(error) => (None, Err(error)),
        };
        bring_in(&surroundings, ready);
        let prepared = prepared.expect("only what is ready is brought in");
        let prepared = further_process(plan, &surroundings).map(|master| (prepared, master));
        finish(plan, &mut surroundings, prepared)
    }
}

/// Whether what a process brought in has yet to do may be done under its filter: then it never has a right, not even
/// for a moment, that is not the container's. Those in the container who may trace (CAP_SYS_PTRACE) would take it.
fn may_be_confined_early(plan: &ProcessPlan) -> bool {
    const CALLS: [&str; 18] = [
        "brk",
        "capset",
        "close",
        "close_range",
        "dup3",
        "execve",
        "exit_group",
        "fcntl",
        "fstatfs",
        "mmap",
        "mremap",
        "munmap",
        "openat",
        "prctl",
        "prlimit64",
        "recvmsg",
        "sendmsg",
        "setsid",
    ];
    let requests = [libc::TIOCSPTLCK, libc::TIOCGPTPEER, libc::TIOCSWINSZ, libc::TIOCSCTTY];
    plan.filter.as_ref().is_none_or(|filter| {
        filter.permits(&CALLS.map(|name| (name, [0, 0])))
            && filter.permits(&requests.map(|request| ("ioctl", [0, request])))
            && filter.permits(&[("clone", [sys::SIBLING, 0])])
    })
}

/// The usher clones its sibling, tells the parent of it, and is gone: only the sibling returns.
fn bring_in(surroundings: &Surroundings, ready: Result<(), RuntimeError>) {
    let cloned = ready.and_then(|()| {
        // SAFETY: the usher was cloned from a process with one thread and has started none.
        unsafe { sys::clone_sibling() }.map_err(|errno| gone_or(errno, "clone a process into the container"))
    });
    let told = match cloned {
        Ok(sys::Cloned::Child) => return,
        Ok(sys::Cloned::Parent { pid, pidfd }) => (Message::Sibling { pid }, Some(pidfd)),
        Err(error) => (Message::failed(&error), None),
    };
    // If even this fails, the parent sees the end of the connection.
    let _ = message::send(surroundings.socket.as_fd(), &told.0, told.1.as_ref().map(AsFd::as_fd));
    exit()
}

/// What the kernel says of a pid namespace, or a process 1, that has ended; or else what failed.
fn gone_or(errno: Errno, action: &str) -> RuntimeError {
    match errno {
        Errno::SRCH | Errno::NOMEM | Errno::INVAL => not_running(),
        errno => RuntimeError::system(action, errno),
    }
}

/// The process that was brought in waits until its parent knows it.
fn await_introduction(surroundings: &Surroundings) -> Result<(), RuntimeError> {
    // A session of its own again, for its terminal: the usher's was left with the usher.
    rustix::process::setsid().context(|| "begin a session".to_owned())?;
    match message::receive(&surroundings.socket)? {
        Some((Message::Grouped, _)) => Ok(()),
        // The parent has gone, or wants us gone.
        _ => exit(),
    }
}

/// A further process of a running container, brought in: the usher has done all but this.
fn further_process(plan: &ProcessPlan, surroundings: &Surroundings) -> Result<Option<OwnedFd>, RuntimeError> {
    await_introduction(surroundings)?;
    let master = match surroundings.stdio {
        Stdio::Terminal { size } => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let pts =
                rustix::fs::openat(CWD, "/dev/pts", flags, Mode::empty()).context(|| "open /dev/pts".to_owned())?;
            let master = crate::mounts::open_multiplexer(&pts)?;
            take_terminal(terminal::open_pair(&master, size)?)?;
            Some(master)
        }
        Stdio::Streams(_) => None,
    };
    set_limits(plan)?;
    Ok(master)
}

/// The very first: no descriptor, signal or session of the parent's is left.
fn begin(surroundings: &Surroundings, kept: &[RawFd]) -> Result<(), RuntimeError> {
    sys::reset_signals();
    rustix::process::setsid().context(|| "begin a session".to_owned())?;
    if let Stdio::Streams(streams) = &surroundings.stdio {
        for (wanted, stream) in (0..).zip(streams) {
            sys::duplicate_onto(stream.as_raw_fd(), wanted).context(|| "set up the standard streams".to_owned())?;
        }
    }
    surroundings.close_all_else(kept).context(|| "close inherited descriptors".to_owned())?;
    // Without this, kernel keys of whoever started us could be read (keyrings(7)).
    match sys::join_new_session_keyring() {
        Err(Errno::NOSYS) => Ok(()),
        result => result.context(|| "join a new session keyring".to_owned()),
    }
}

impl Surroundings {
    /// Closes every descriptor but these and the standard streams.
    fn close_all_else(&self, kept: &[RawFd]) -> Result<(), Errno> {
        let mut kept: Vec<RawFd> = kept.to_vec();
        kept.push(self.socket.as_raw_fd());
        kept.extend(self.listener.iter().chain(&self.init).map(AsRawFd::as_raw_fd));
        kept.sort_unstable();
        let mut next = self.preserve_descriptors.saturating_add(3);
        for descriptor in kept.into_iter().map(|descriptor| descriptor as u32) {
            if next < descriptor {
                sys::close_range(next, descriptor - 1, false)?;
            }
            next = next.max(descriptor + 1);
        }
        sys::close_range(next, u32::MAX, false)
    }
}

/// Written through the host's procfs, before the container's is there.
fn adjust_oom_score(plan: &ProcessPlan) -> Result<(), RuntimeError> {
    let Some(wanted) = plan.oom_score_adjustment else { return Ok(()) };
    let context = || format!("set oom_score_adj to {wanted}");
    let file = rustix::fs::open("/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .context(context)?;
    if !is_procfs(&file) {
        return Err(RuntimeError::Invalid("/proc is not a procfs".to_owned()));
    }
    match rustix::io::write(&file, wanted.to_string().as_bytes()) {
        // Below what we have ourselves needs CAP_SYS_RESOURCE. Docker carries on in a user namespace, and so do we
        // wherever it is missing: the process is merely not better protected than its starter.
        Err(Errno::ACCESS | Errno::PERM) => Ok(()),
        result => result.map(drop).context(context),
    }
}

fn join_namespaces(plan: &Plan, network: Option<BorrowedFd<'_>>) -> Result<(), RuntimeError> {
    if let Some(network) = network {
        sys::setns(network, libc::CLONE_NEWNET).context(|| "join the network namespace".to_owned())?;
    }
    for (path, kind) in plan.join.iter().filter(|(_, kind)| *kind != libc::CLONE_NEWPID) {
        let context = || format!("join namespace {}", path.display());
        let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context(context)?;
        let changes_network = plan.sysctls.iter().any(|(name, _)| name.starts_with("net/"));
        if *kind == libc::CLONE_NEWNET && changes_network && is_own_network(&namespace).context(context)? {
            return Err(RuntimeError::Invalid("sysctls of net are not allowed in the host's network".to_owned()));
        }
        sys::setns(namespace, *kind).context(context)?;
    }
    Ok(())
}

fn is_own_network(namespace: &OwnedFd) -> Result<bool, Errno> {
    let own = rustix::fs::stat("/proc/self/ns/net")?;
    let other = rustix::fs::fstat(namespace)?;
    Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
}

/// Once the parent has made them; the cgroup namespace begins where the process then is (cgroup_namespaces(7)).
fn join_cgroups(plan: &Plan, cgroup: &Cgroup, socket: &OwnedFd) -> Result<(), RuntimeError> {
    match message::receive(socket)? {
        Some((Message::Grouped, _)) => cgroup.enter_version_1()?,
        // The parent could not, and will say so itself.
        _ => exit(),
    }
    if plan.new_cgroup_namespace {
        sys::unshare(libc::CLONE_NEWCGROUP).context(|| "unshare the cgroup namespace".to_owned())?;
    }
    failpoint_of_child("child.grouped");
    Ok(())
}

fn name_host(plan: &Plan) -> Result<(), RuntimeError> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).context(|| format!("set hostname {name:?}"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).context(|| format!("set domainname {name:?}"))?;
    }
    Ok(())
}

/// The terminal becomes the standard streams, and the session's own.
fn take_terminal(terminal: OwnedFd) -> Result<(), RuntimeError> {
    for wanted in 0..3 {
        sys::duplicate_onto(terminal.as_raw_fd(), wanted).context(|| "set up the terminal".to_owned())?;
    }
    terminal::control(&terminal).context(|| "take control of the terminal".to_owned())
}

/// A process all set up, but for what seccomp could forbid.
struct Prepared {
    program: CString,
    environment: Vec<CString>,
    capabilities: capability::CapabilitySets,
    all_capabilities: u64,
    /// seccomp and the last capabilities are done already.
    confined: bool,
}

/// From root of the host to the user of the container. Only seccomp and the last capabilities are left to do.
fn become_user(
    plan: &ProcessPlan,
    set_limits: fn(&ProcessPlan) -> Result<(), RuntimeError>,
    has_its_streams: bool,
) -> Result<Prepared, RuntimeError> {
    let identity = match &plan.user {
        Who::Named(user) => user::resolve(user)?,
        Who::Numbers(identity) => {
            let has_home = plan.environment.iter().any(|entry| entry.starts_with("HOME="));
            Identity { home: if has_home { String::new() } else { user::home_of(identity.uid) }, ..identity.clone() }
        }
    };
    let environment = plan.environment_with_home(&identity.home)?;
    set_limits(plan)?;
    if has_its_streams {
        give_streams_to(identity.uid);
    }
    // Root may enter what the user may not, and the other way round on a network's file system; each is tried.
    let directory = &plan.working_directory;
    let entered = rustix::process::chdir(directory);
    let ours = sys::capget_permitted().context(|| "read our capabilities".to_owned())?;
    let wanted = match plan.user {
        Who::Named(_) => plan.capabilities.for_user(identity.uid),
        Who::Numbers(_) => plan.capabilities,
    };
    let capabilities = wanted.within(ours);
    capability::drop_bounding(capabilities.bounding).context(|| "drop capabilities".to_owned())?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).context(|| "keep capabilities".to_owned())?;
    sys::set_ids(identity.uid, identity.gid, &identity.groups)
        .context(|| format!("become user {}:{}", identity.uid, identity.gid))?;
    // Credentials may have changed what /proc shows of us.
    sys::make_undumpable().context(|| "become undumpable".to_owned())?;
    rustix::process::umask(Mode::from_raw_mode(plan.umask));
    // With the capabilities that the process will have: what it cannot reach is not found.
    sys::capset(capabilities.effective, ours, capabilities.inheritable).context(|| "set capabilities".to_owned())?;
    entered.or_else(|_| rustix::process::chdir(directory)).map_err(|errno| cannot_enter(directory, errno))?;
    check_working_directory()?;
    let program = find_program(plan)?;
    Ok(Prepared { program, environment, capabilities, all_capabilities: ours, confined: false })
}

fn cannot_enter(directory: &Path, errno: Errno) -> RuntimeError {
    let why = words(&errno.into());
    // Docker's words.
    RuntimeError::Invalid(format!(
        "chdir to cwd ({:?}) set in config.json failed: {why}",
        directory.display().to_string()
    ))
}

/// The working directory must be inside: one of the host's, held by a descriptor, has no path here (CVE-2024-21626).
fn check_working_directory() -> Result<(), RuntimeError> {
    let mut path = [0u8; 4096 + 1];
    // SAFETY: a buffer and its length. The raw call, since libraries replace an answer outside the root.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    if length > 0 && path[0] == b'/' {
        return Ok(());
    }
    Err(RuntimeError::Invalid("current working directory is outside of container mount namespace root".to_owned()))
}

fn set_limits(plan: &ProcessPlan) -> Result<(), RuntimeError> {
    plan.limits.iter().try_for_each(|limit| set_limit(limit, limit.soft, limit.hard))
}

/// For an usher: what needs a right is done, what could stand in its own way, as a limit of processes, is not. Lowering
/// is then everyone's own affair.
fn raise_limits(plan: &ProcessPlan) -> Result<(), RuntimeError> {
    plan.limits.iter().try_for_each(|limit| {
        let room = sys::hard_limit(limit.resource).max(limit.hard);
        set_limit(limit, room, room)
    })
}

fn set_limit(limit: &Limit, soft: u64, hard: u64) -> Result<(), RuntimeError> {
    let resource = limit.resource;
    let set = |soft, hard| {
        let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
        // SAFETY: a valid structure, only read, and no old one wanted.
        match unsafe { libc::prlimit64(0, resource, &raw const limit, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    let mut result = set(soft, hard);
    if result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)) {
        // Raising a hard limit needs CAP_SYS_RESOURCE: as far as we may, then.
        let most = sys::hard_limit(resource);
        result = set(soft.min(most), hard.min(most));
    }
    result.context(|| format!("set {}", limit.name))
}

/// The user may open /dev/stdout and its sisters again. What cannot be given (a socket, a read-only file) is kept.
fn give_streams_to(uid: u32) {
    if uid == 0 {
        return;
    }
    for number in 0..3 {
        // SAFETY: 0 to 2 are open: they were set up by `begin` or `take_terminal`.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        let is_null = rustix::fs::fstat(stream).is_ok_and(|status| {
            FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice
                && status.st_rdev == rustix::fs::makedev(1, 3)
        });
        if !is_null {
            let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

/// Where the program is, by PATH if its name has no slash. Words and rules are those of Go's exec.LookPath, which
/// scripts written for Docker know.
fn find_program(plan: &ProcessPlan) -> Result<CString, RuntimeError> {
    let name = &plan.arguments[0];
    let text = String::from_utf8_lossy(name.as_bytes()).into_owned();
    let failed = |why: &str| RuntimeError::Invalid(format!("exec: {text:?}: {why}"));
    if name.as_bytes().contains(&b'/') {
        return match executable(name.as_bytes()) {
            Ok(()) => Ok(name.clone()),
            Err(Errno::ISDIR) => Err(failed("is a directory")),
            Err(errno) => Err(failed(&words(&errno.into()))),
        };
    }
    let path = plan.environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
    for directory in path.unwrap_or_default().split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = [directory.as_bytes(), b"/", name.as_bytes()].concat();
        match executable(&candidate) {
            Ok(()) => return CString::new(candidate).map_err(|_| failed("invalid argument")),
            Err(_) => continue,
        }
    }
    Err(failed("executable file not found in $PATH"))
}

fn executable(path: &[u8]) -> Result<(), Errno> {
    let path = OsStr::from_bytes(path);
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    let status = rustix::fs::statat(CWD, path, AtFlags::empty())?;
    if FileType::from_raw_mode(status.st_mode).is_dir() {
        return Err(Errno::ISDIR);
    }
    // Root may execute what anyone may: without any such bit the kernel refuses even root.
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// Tells the parent, waits for the word, and executes.
fn finish(
    plan: &ProcessPlan,
    surroundings: &mut Surroundings,
    prepared: Result<(Prepared, Option<OwnedFd>), RuntimeError>,
) -> ! {
    let result = prepared.and_then(|(prepared, master)| {
        let told = message::send(surroundings.socket.as_fd(), &Message::Ready, master.as_ref().map(AsFd::as_fd));
        drop(master);
        told.context(|| "tell that the container is ready".to_owned())?;
        if let Some(listener) = surroundings.listener.take() {
            let flags = rustix::net::SocketFlags::CLOEXEC;
            surroundings.socket =
                rustix::net::accept_with(&listener, flags).context(|| "wait for the start".to_owned())?;
        }
        match message::receive(&surroundings.socket)? {
            Some((Message::Start, _)) => execute(plan, surroundings, prepared),
            // The parent has gone, or wants us gone.
            _ => exit(),
        }
    });
    let Err(error) = result;
    // If even this fails, the parent sees the end of the connection.
    let _ = message::send(surroundings.socket.as_fd(), &Message::failed(&error), None);
    exit()
}

/// The point of no return.
fn execute(
    plan: &ProcessPlan,
    surroundings: &Surroundings,
    prepared: Prepared,
) -> Result<std::convert::Infallible, RuntimeError> {
    sys::close_range(surroundings.preserve_descriptors.saturating_add(3), u32::MAX, true)
        .context(|| "mark descriptors to be closed".to_owned())?;
    if !prepared.confined {
        confine(plan, &prepared)?;
    }
    let Prepared { program, environment, .. } = prepared;
    let errno = match &surroundings.init {
        Some(binary) => sys::execute_descriptor(binary, &init::arguments(program, &plan.arguments), &environment),
        None => sys::execve(&program, &plan.arguments, &environment),
    };
    let text = plan.arguments[0].to_string_lossy();
    Err(RuntimeError::Invalid(format!("exec: {text:?}: {}", words(&errno.into()))))
}

/// seccomp and the last capabilities, in the order in which nothing is forbidden too early.
fn confine(plan: &ProcessPlan, prepared: &Prepared) -> Result<(), RuntimeError> {
    let capabilities = &prepared.capabilities;
    let install = || match &plan.filter {
        Some(filter) => {
            sys::install_filter(&filter.program, filter.flags).context(|| "install the seccomp filter".to_owned())
        }
        None => Ok(()),
    };
    let drop_the_rest = || capability::set(capabilities).context(|| "set capabilities".to_owned());
    if plan.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).context(|| "set no_new_privs".to_owned())?;
        drop_the_rest()?;
        return install();
    }
    // Without no_new_privs a filter needs CAP_SYS_ADMIN, which we give away right after.
    if plan.filter.is_some() {
        let all = prepared.all_capabilities;
        sys::capset(all, all, capabilities.inheritable).context(|| "raise capabilities".to_owned())?;
    }
    install()?;
    drop_the_rest()
}

fn exit() -> ! {
    // SAFETY: ends the process at once; what it holds is the kernel's to clean up.
    unsafe { libc::_exit(1) }
}
