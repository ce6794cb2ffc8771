//! Which file a name of a program stands for.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::error::{RuntimeError, words};
use crate::plan::ProcessPlan;

/// Where the program is, by PATH if its name has no slash. Words and rules are those of Go's exec.LookPath, which
/// scripts written for Docker know.
pub(super) fn find_program(plan: &ProcessPlan) -> Result<CString, RuntimeError> {
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
