//! Whether the machine goes down.

use std::path::Path;

use super::connection::{BusError, Connection};
use crate::error::RuntimeError;

/// There while systemd is process 1 (sd_booted(3)).
const IS_THERE: &str = "/run/systemd/system";
/// What process 1 has become once the units are stopped (systemd-shutdown(8)), as far as the kernel keeps a name.
const LAST_PROGRAM: &str = "systemd-shutdow";
/// The target that every way down begins with (systemd.special(7)), as an object of the manager's.
const TARGET: &str = "/org/freedesktop/systemd1/unit/shutdown_2etarget";

/// Whether systemd is about to halt, reboot or switch off this machine. Where no systemd is process 1, nobody can say: no.
///
/// It is the target's job that tells, since the manager's own state is `starting` until the boot is through, also while
/// the machine goes down again.
///
/// # Errors
/// systemd is there and does not answer.
pub fn machine_goes_down() -> Result<bool, RuntimeError> {
    if std::fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim_end() == LAST_PROGRAM) {
        return Ok(true);
    }
    if !Path::new(IS_THERE).is_dir() {
        return Ok(false);
    }
    has_shutdown_job(&mut Connection::open()?)
}

pub(super) fn has_shutdown_job(connection: &mut Connection) -> Result<bool, RuntimeError> {
    let asked = connection.property(TARGET, "org.freedesktop.systemd1.Unit", "Job");
    let job = asked.and_then(|answer| Ok(answer.job()?));
    job.map(|number| number != 0).map_err(|error: BusError| error.during("ask systemd for shutdown.target".to_owned()))
}
