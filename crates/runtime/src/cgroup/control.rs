//! Control files: written, never made.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::limits::{IfAbsent, Setting};
use crate::error::{Context, RuntimeError};

/// Writes settings, in order; those that may be too early are tried once more after all the others.
pub(super) fn set(settings: Vec<Setting>) -> Result<(), RuntimeError> {
    // A file that is written many times in a row, as that of the devices is, is opened once.
    let mut last: Option<(PathBuf, OwnedFd)> = None;
    let mut too_early = Vec::new();
    for setting in settings {
        let path = setting.directory.join(&*setting.file);
        let opened = match last.take().filter(|(known, _)| *known == path) {
            Some((_, opened)) => opened,
            None => match open_for_writing(&path) {
                Ok(opened) => opened,
                Err(Errno::NOENT) => {
                    write_instead(setting)?;
                    continue;
                }
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

/// This kernel does not have the file.
fn write_instead(setting: Setting) -> Result<(), RuntimeError> {
    match setting.if_absent {
        IfAbsent::Pass => Ok(()),
        IfAbsent::Write(file, value) => set(vec![Setting { file, value, if_absent: IfAbsent::Fail, ..setting }]),
        IfAbsent::Fail if !setting.directory.is_dir() => {
            Err(RuntimeError::NotFound(format!("there is no cgroup {}", setting.directory.display())))
        }
        IfAbsent::Fail => {
            let controller = setting.file.split('.').next().unwrap_or_default();
            Err(RuntimeError::Invalid(format!(
                "there is no {} in {}: this kernel lacks it, or the controller {controller:?} is not enabled there",
                setting.file,
                setting.directory.display()
            )))
        }
    }
}

/// Writes one.
pub(super) fn write(file: &Path, value: &str) -> Result<(), RuntimeError> {
    let opened = open_for_writing(file).context(|| format!("open {} to write it", file.display()))?;
    rustix::io::write(&opened, value.as_bytes()).map(drop).map_err(|errno| refused(file, value, errno))
}

fn open_for_writing(file: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

fn refused(file: &Path, value: &str, errno: Errno) -> RuntimeError {
    // Version 1 does not lower a limit under what cannot be given back (cgroup-v1/memory.rst, "Limits").
    let is_memory = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"memory."));
    if errno == Errno::BUSY && is_memory {
        return RuntimeError::Conflict(format!(
            "unable to set memory limit to {value}: more than that is in use ({})",
            file.display()
        ));
    }
    RuntimeError::system(format!("write {value:?} to {}", file.display()), errno)
}
