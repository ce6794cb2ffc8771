//! Control files: written, never made.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::CgroupLayout;
use super::limits::{IfAbsent, Setting};
use crate::error::{Context, RuntimeError};

/// Writes settings, in order; those that may be too early are tried once more after all the others.
pub(super) fn set(layout: &CgroupLayout, settings: Vec<Setting>) -> Result<(), RuntimeError> {
    // A file that is written many times in a row, as that of the devices is, is opened once.
    let mut last: Option<(PathBuf, OwnedFd)> = None;
    let mut too_early = Vec::new();
    for setting in settings {
        let path = setting.directory.join(&*setting.file);
        let opened = match last.take().filter(|(known, _)| *known == path) {
            Some((_, opened)) => opened,
            None => match open_for_writing(&path) {
                Ok(opened) => opened,
                Err(Errno::NOENT) => match enable(layout, &setting).and_then(|()| open_for_writing(&path).ok()) {
                    Some(opened) => opened,
                    None => {
                        write_instead(layout, setting)?;
                        continue;
                    }
                },
                Err(errno) => return Err(RuntimeError::system(format!("open {} to write it", path.display()), errno)),
            },
        };
        match rustix::io::write(&opened, setting.value.as_bytes()) {
            Err(Errno::INVAL) if setting.once_more => too_early.push((path.clone(), setting.value)),
            result => result.map(drop).map_err(|errno| refused(&path, &setting.value, errno))?,
        }
        last = Some((path, opened));
    }
    too_early.iter().try_for_each(|(path, value)| write(path, value))
}

/// In version 2 a controller has files only where all cgroups above hand it on (cgroup-v2.rst, "Enabling and
/// Disabling"). `None` if that is not what is missing.
fn enable(layout: &CgroupLayout, setting: &Setting) -> Option<()> {
    let unified = layout.unified()?;
    let relative = setting.directory.strip_prefix(unified.mount_point()).ok()?;
    let controller = setting.controller();
    let has_it = std::fs::read_to_string(setting.directory.join("cgroup.controllers")).ok()?;
    if !unified.has(controller) || has_it.split_whitespace().any(|known| known == controller) {
        return None;
    }
    let mut above = unified.mount_point().to_path_buf();
    for part in relative {
        // Where it cannot be, the file stays missing, and that is told.
        let _ = std::fs::write(above.join("cgroup.subtree_control"), format!("+{controller}"));
        above.push(part);
    }
    Some(())
}

/// This kernel does not have the file.
fn write_instead(layout: &CgroupLayout, setting: Setting) -> Result<(), RuntimeError> {
    match setting.if_absent {
        IfAbsent::Pass => Ok(()),
        IfAbsent::Write(file, value) => {
            set(layout, vec![Setting { file, value, if_absent: IfAbsent::Fail, ..setting }])
        }
        IfAbsent::Fail if !setting.directory.is_dir() => {
            Err(RuntimeError::NotFound(format!("there is no cgroup {}", setting.directory.display())))
        }
        IfAbsent::Fail => Err(RuntimeError::Invalid(format!(
            "there is no {} in {}: this kernel lacks it, or the controller {:?} is not enabled there",
            setting.file,
            setting.directory.display(),
            setting.controller()
        ))),
    }
}

/// Writes one.
pub(super) fn write(file: &Path, value: &str) -> Result<(), RuntimeError> {
    let opened = open_for_writing(file).context(|| format!("open {} to write it", file.display()))?;
    rustix::io::write(&opened, value.as_bytes()).map(drop).map_err(|errno| refused(file, value, errno))
}

/// Writes one of the cgroup whose directory this is.
pub(super) fn write_in(directory: &OwnedFd, file: &CStr, value: &str) -> Result<(), Errno> {
    let opened = rustix::fs::openat(directory, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&opened, value.as_bytes()).map(drop)
}

fn open_for_writing(file: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

/// What version 1 says of memory by numbers alone (cgroup-v1/memory.rst, "Limits").
fn refused(file: &Path, value: &str, errno: Errno) -> RuntimeError {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match (errno, name) {
        // A limit is not lowered under what cannot be given back.
        (Errno::BUSY, name) if name.starts_with("memory.") => RuntimeError::Conflict(format!(
            "unable to set memory limit to {value}: more than that is in use ({})",
            file.display()
        )),
        // Docker's words for both.
        (Errno::INVAL, "memory.limit_in_bytes") => RuntimeError::Invalid(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
                .to_owned(),
        ),
        (Errno::INVAL, "memory.memsw.limit_in_bytes") => {
            RuntimeError::Invalid("Minimum memoryswap limit should be larger than memory limit".to_owned())
        }
        _ => RuntimeError::system(format!("write {value:?} to {}", file.display()), errno),
    }
}
