//! Hooks: other people's programs, run at the stages of a container's life (runtime-spec, config.md, "POSIX-platform
//! Hooks"; runtime.md, "Lifecycle").
//!
//! | stage | who runs it | where its path is looked up | the process id it is told | when one fails |
//! |---|---|---|---|---|
//! | prestart, createRuntime | the runtime | on the host | the host's | nothing is created |
//! | createContainer | the container's first process, before pivot_root(2) | on the host | its own | nothing is created |
//! | startContainer | the same, when all but execve(2) is done, confined as the program will be | inside | its own | it is not started |
//! | poststart | the runtime | on the host | the host's | the container is stopped |
//! | poststop | the runtime | on the host | none | the others are run, and it is told |

use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::about::About;
use crate::error::{Context, RuntimeError, words};
use crate::plan::Hook;
use crate::sys;

/// When hooks are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// The container's status, which hooks are told.
    fn status(self) -> &'static str {
        match self {
            Self::Prestart | Self::CreateRuntime | Self::CreateContainer => "creating",
            Self::StartContainer => "created",
            Self::Poststart => "running",
            Self::Poststop => "stopped",
        }
    }
}

/// What hooks find where they begin.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place<'a> {
    /// `None`: where we are.
    pub(crate) directory: Option<BorrowedFd<'a>>,
    /// For those that have none of their own. `None`: ours.
    pub(crate) environment: Option<&'a [CString]>,
}

/// As much of what a hook says is told when it fails.
const KEPT_OUTPUT: usize = 4096;

/// Runs the hooks of a stage in order, until one fails.
pub(crate) fn run(stage: Stage, hooks: &[Hook], about: &About, pid: i32, place: Place<'_>) -> Result<(), RuntimeError> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = about.state(stage.status(), Some(pid)).to_string();
    hooks.iter().enumerate().try_for_each(|(number, hook)| run_one(stage, number, hook, &state, place))
}

/// Runs those of the runtime's own that come before the container's root is entered.
pub(crate) fn run_before_pivot(hooks: &crate::plan::Hooks, about: &About, pid: i32) -> Result<(), RuntimeError> {
    let bundle = bundle(about);
    let place = at(bundle.as_ref());
    run(Stage::Prestart, &hooks.prestart, about, pid, place)?;
    run(Stage::CreateRuntime, &hooks.create_runtime, about, pid, place)
}

/// Runs those that come after the program's start.
pub(crate) fn run_poststart(hooks: &[Hook], about: &About, pid: i32) -> Result<(), RuntimeError> {
    run(Stage::Poststart, hooks, about, pid, at(bundle(about).as_ref()))
}

/// Runs all that come after the container's end, and says which have failed.
pub(crate) fn run_poststop(hooks: &[Hook], about: &About) -> Vec<RuntimeError> {
    if hooks.is_empty() {
        return Vec::new();
    }
    let bundle = bundle(about);
    let state = about.state(Stage::Poststop.status(), None).to_string();
    let run = |(number, hook)| run_one(Stage::Poststop, number, hook, &state, at(bundle.as_ref())).err();
    hooks.iter().enumerate().filter_map(run).collect()
}

/// Where the runtime's own hooks begin. One that is gone by now is no reason not to run them.
fn bundle(about: &About) -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(about.bundle(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn at(directory: Option<&OwnedFd>) -> Place<'_> {
    Place { directory: directory.map(AsFd::as_fd), environment: None }
}

fn run_one(stage: Stage, number: usize, hook: &Hook, state: &str, place: Place<'_>) -> Result<(), RuntimeError> {
    let failed = |why: &str, output: &[u8]| {
        let said = String::from_utf8_lossy(output);
        let said = if said.is_empty() { String::new() } else { format!(", output: {}", said.trim_end()) };
        // runc's words, of which some scripts look for the first part and others for the second.
        RuntimeError::Invalid(format!("error running {} hook #{number}: error running hook: {why}{said}", stage.name()))
    };
    let input = input(state)?;
    let (output, childs_output) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).context(|| "make a pipe".to_owned())?;
    // Its end is the hook's alone, and as it expects it.
    rustix::fs::fcntl_setfl(&childs_output, rustix::fs::OFlags::empty()).context(|| "set up a pipe".to_owned())?;
    // SAFETY: who comes here has a single thread: the runtime asks that of its callers, and a child of its has no other.
    let cloned = unsafe { sys::clone_helper() }.context(|| format!("clone a process for a {} hook", stage.name()))?;
    let (pid, pidfd) = match cloned {
        sys::Cloned::Child => become_hook(hook, &input, &childs_output, place),
        sys::Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((input, childs_output));
    let mut said = Vec::new();
    let finished = wait(&pidfd, &output, hook.timeout, &mut said);
    if !matches!(finished, Ok(true)) {
        // With what it may have started. It is not reaped yet: the number is its own.
        // SAFETY: plain integers.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
    }
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        .context(|| format!("wait for a {} hook", stage.name()))?;
    if !finished? {
        let after = hook.timeout.unwrap_or_default().as_secs();
        return Err(failed(&format!("{} timed out after {after} s", hook.path.to_string_lossy()), &said));
    }
    match status.map(|status| (status.exit_status(), status.terminating_signal())) {
        Some((Some(0), _)) => Ok(()),
        Some((Some(code), _)) => Err(failed(&format!("exit status {code}"), &said)),
        Some((_, Some(signal))) => Err(failed(&format!("signal: {}", signal_name(signal)), &said)),
        _ => Err(failed("it has not ended", &said)),
    }
}

/// "killed", "bad system call" (strsignal(3)).
fn signal_name(signal: i32) -> String {
    // SAFETY: the C library's own text, which is copied before anyone asks for another: there is one thread.
    let name = unsafe { CStr::from_ptr(libc::strsignal(signal)) };
    name.to_string_lossy().to_lowercase()
}

/// The state in a pipe: who wants to open /dev/stdin anew can do so, and who does not read it ends nobody.
fn input(state: &str) -> Result<OwnedFd, RuntimeError> {
    /// What a pipe holds by itself (pipe(7)).
    const CAPACITY: usize = 65_536;
    let context = || "prepare a hook's standard input".to_owned();
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).context(context)?;
    if state.len() > CAPACITY {
        rustix::pipe::fcntl_setpipe_size(&writer, state.len()).context(context)?;
    }
    let mut rest = state.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(&writer, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(RuntimeError::system(context(), errno)),
        }
    }
    rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::empty()).context(context)?;
    Ok(reader)
}

/// In the child: streams, directory, nothing else of ours, and the program.
fn become_hook(hook: &Hook, input: &OwnedFd, output: &OwnedFd, place: Place<'_>) -> ! {
    use std::os::fd::AsRawFd;
    let errno = (|| {
        // A group of its own, to be killed as a whole.
        // SAFETY: plain integers; a filter may forbid it, and then the hook alone is killed.
        unsafe { libc::setpgid(0, 0) };
        sys::reset_signals();
        if let Some(directory) = place.directory {
            rustix::process::fchdir(directory)?;
        }
        // All are above 2: see `raised`.
        let (input, output) = (raised(input.as_raw_fd())?, raised(output.as_raw_fd())?);
        for (descriptor, wanted) in [(input.as_raw_fd(), 0), (output.as_raw_fd(), 1), (output.as_raw_fd(), 2)] {
            sys::duplicate_onto(descriptor, wanted)?;
        }
        sys::close_range(3, u32::MAX, true)?;
        let ours;
        let environment = match (&hook.environment, place.environment) {
            (Some(own), _) => own,
            (None, Some(environment)) => environment,
            (None, None) => {
                ours = own_environment();
                &ours
            }
        };
        Ok::<Errno, Errno>(sys::execve(&hook.path, &hook.arguments, environment))
    })()
    .unwrap_or_else(|errno| errno);
    let text = format!("{}: {}\n", hook.path.to_string_lossy(), words(&errno.into()));
    // SAFETY: 2 is the pipe's end if we came that far; a failure to write changes nothing. Nothing of ours is to be
    // cleaned up.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::_exit(127)
    }
}

fn own_environment() -> Vec<CString> {
    use std::os::unix::ffi::OsStringExt;
    let entry = |(name, value): (OsString, OsString)| [name.into_vec(), value.into_vec()].join(&b'=');
    std::env::vars_os().filter_map(|variable| CString::new(entry(variable)).ok()).collect()
}

/// The same above the standard streams, whose numbers are about to be taken.
fn raised(descriptor: std::os::fd::RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: it is open: our caller holds it.
    rustix::io::fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(descriptor) }, 3)
}

/// Until it has ended (true) or its time is over (false); collects the beginning of what it says.
fn wait(
    pidfd: &OwnedFd,
    output: &OwnedFd,
    timeout: Option<Duration>,
    said: &mut Vec<u8>,
) -> Result<bool, RuntimeError> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut open = true;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        let left: Option<Timespec> = left.and_then(|left| left.try_into().ok());
        let mut polled = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(output, PollFlags::IN)];
        let watched = if open { 2 } else { 1 };
        match rustix::event::poll(&mut polled[..watched], left.as_ref()) {
            Err(Errno::INTR) => continue,
            result => result.context(|| "wait for a hook".to_owned())?,
        };
        let ended = !polled[0].revents().is_empty();
        // What it has said before its end is in the pipe; who else holds the pipe is not waited for.
        open = open && collect(output, said);
        if ended {
            return Ok(true);
        }
    }
}

/// Reads what is there; false at the end of it all.
fn collect(output: &OwnedFd, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; KEPT_OUTPUT];
    // What one pipe holds is enough at a time: a hook's child could talk for ever.
    for _ in 0..16 {
        match rustix::io::read(output, &mut buffer) {
            Ok(0) => return false,
            Ok(length) => said.extend(&buffer[..length.min(KEPT_OUTPUT - said.len())]),
            Err(Errno::INTR) => {}
            Err(errno) => return errno == Errno::AGAIN,
        }
    }
    true
}
