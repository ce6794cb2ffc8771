//! The lock that proves a monitor's life to any engine: a record lock on `<run_directory>/monitor.lock`.
//!
//! Record locks (fcntl(2), F_SETLK) belong to the process: no child inherits one, and the kernel drops it with the
//! process, however that ends. Looking at one disturbs nobody.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::process::{Flock, FlockOffsetType, FlockType};

const NAME: &str = "monitor.lock";

/// Takes it.
pub fn take(run_directory: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(run_directory.join(NAME))?;
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// The process that has it.
pub fn holder(run_directory: &Path) -> Option<rustix::process::Pid> {
    let file = File::open(run_directory.join(NAME)).ok()?;
    let any = Flock { start: 0, length: 0, pid: None, typ: FlockType::ReadLock, offset_type: FlockOffsetType::Set };
    rustix::process::fcntl_getlk(&file, &any).ok().flatten()?.pid
}
