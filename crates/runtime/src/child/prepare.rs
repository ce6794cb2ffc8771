//! From root of the host to the user of the container.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::program::find_program;
use crate::error::{Context, RuntimeError, words};
use crate::mounts::is_null_device;
use crate::plan::{ProcessPlan, Who};
use crate::user::{self, Identity};
use crate::{capability, scheduling, sys};

/// A process all set up, but for what seccomp could forbid.
pub(super) struct Prepared {
    pub(super) program: CString,
    pub(super) environment: Vec<CString>,
    pub(super) capabilities: capability::CapabilitySets,
    /// What is permitted until the filter is there.
    pub(super) kept_capabilities: u64,
    /// seccomp is done already.
    pub(super) confined: bool,
    /// Its usher has marked the descriptors that its program is not to have.
    pub(super) is_brought_in: bool,
}

/// From root of the host to the user of the container. Only seccomp and the last capabilities are left to do.
pub(super) fn become_user(
    plan: &ProcessPlan,
    set_limits: fn(&ProcessPlan) -> Result<(), RuntimeError>,
    has_its_streams: bool,
) -> Result<Prepared, RuntimeError> {
    let identity = match &plan.user {
        Who::Named(user, groups, names) => user::resolve(user)?.with_groups(groups, names)?,
        Who::Numbers(identity) => {
            let has_home = plan.environment.iter().any(|entry| entry.starts_with("HOME="));
            Identity { home: if has_home { String::new() } else { user::home_of(identity.uid) }, ..identity.clone() }
        }
    };
    let environment = plan.environment_with_home(&identity.home)?;
    scheduling::apply_to_this_process(&plan.scheduling)?;
    set_limits(plan)?;
    if has_its_streams {
        give_streams_to(identity.uid);
    }
    // Root may enter what the user may not, and the other way round on a network's file system; each is tried.
    let directory = &plan.working_directory;
    let entered = rustix::process::chdir(directory);
    let ours = sys::capget_permitted().context(|| "read our capabilities".to_owned())?;
    let wanted = match plan.user {
        Who::Named(..) => plan.capabilities.for_user(identity.uid),
        Who::Numbers(_) => plan.capabilities,
    };
    let capabilities = wanted.within(ours);
    capability::drop_bounding(capabilities.bounding).context(|| "drop capabilities".to_owned())?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).context(|| "keep capabilities".to_owned())?;
    sys::set_ids(identity.uid, identity.gid, &identity.groups).map_err(|errno| cannot_become(&identity, errno))?;
    // Credentials may have changed what /proc shows of us.
    sys::make_undumpable().context(|| "become undumpable".to_owned())?;
    rustix::process::umask(Mode::from_raw_mode(plan.umask));
    // With the capabilities that the process will have: what it cannot reach is not found.
    let kept_capabilities = give_up_rights(plan, &capabilities, ours)?;
    entered.or_else(|_| rustix::process::chdir(directory)).map_err(|errno| cannot_enter(directory, errno))?;
    check_working_directory()?;
    let program = find_program(plan)?;
    Ok(Prepared { program, environment, capabilities, kept_capabilities, confined: false, is_brought_in: false })
}

/// seccomp(2): without no_new_privs only who has CAP_SYS_ADMIN loads a filter.
pub(super) fn needs_right_to_be_confined(plan: &ProcessPlan) -> bool {
    plan.filter.is_some() && !plan.no_new_privileges
}

/// What the process is not to have, but for the one right that loads its filter. What is permitted then.
fn give_up_rights(
    plan: &ProcessPlan,
    capabilities: &capability::CapabilitySets,
    ours: u64,
) -> Result<u64, RuntimeError> {
    let context = || "set capabilities".to_owned();
    if needs_right_to_be_confined(plan) {
        let kept = capabilities.permitted | ours & capability::bit("SYS_ADMIN").unwrap_or(0);
        sys::capset(capabilities.effective, kept, capabilities.inheritable).context(context)?;
        return Ok(kept);
    }
    if plan.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).context(|| "set no_new_privs".to_owned())?;
    }
    capability::set(capabilities).context(context)?;
    Ok(capabilities.permitted)
}

/// EINVAL of setresuid(2): in the user namespace there is nobody of that number.
fn cannot_become(identity: &Identity, errno: Errno) -> RuntimeError {
    let action = format!("become user {}:{}", identity.uid, identity.gid);
    match errno {
        Errno::INVAL => RuntimeError::Invalid(format!(
            "{action}: this user, or one of its groups, is not among the ids of the container's user namespace"
        )),
        errno => RuntimeError::system(action, errno),
    }
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

/// The user may open /dev/stdout and its sisters again. What cannot be given (a socket, a read-only file) is kept.
fn give_streams_to(uid: u32) {
    if uid == 0 {
        return;
    }
    for number in 0..3 {
        // SAFETY: 0 to 2 are open: they were set up by `begin` or `take_terminal`.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        if !is_null_device(stream) {
            let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}
