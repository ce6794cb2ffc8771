//! Resource limits (setrlimit(2)).

use crate::error::{Context, RuntimeError};
use crate::plan::{Limit, ProcessPlan};
use crate::sys;

pub(super) fn set_limits(plan: &ProcessPlan) -> Result<(), RuntimeError> {
    plan.limits.iter().try_for_each(|limit| set_limit(limit, limit.soft, limit.hard))
}

/// For an usher: what needs a right is done, what could stand in its own way, as a limit of processes, is not. Lowering
/// is then everyone's own affair.
pub(super) fn raise_limits(plan: &ProcessPlan) -> Result<(), RuntimeError> {
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
