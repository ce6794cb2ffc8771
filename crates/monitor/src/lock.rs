//! The lock that proves a monitor's life to any engine: a record lock on `<run_directory>/monitor.lock`.
//!
//! Record locks (fcntl(2), F_SETLK) belong to the process: no child inherits one, and the kernel drops it with the
//! process, however that ends. Looking at one disturbs nobody.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Flock, FlockOffsetType, FlockType, PidfdFlags};
use rustix::time::Timespec;

const NAME: &str = "monitor.lock";

/// A monitor of this container's last run may still be undoing it; it is waited for no longer than this.
const PATIENCE: Timespec = Timespec { tv_sec: 3, tv_nsec: 0 };

/// Takes it.
pub fn take(run_directory: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(run_directory.join(NAME))?;
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::AGAIN | Errno::ACCESS) => wait_for_holder(run_directory),
        other => return other.map(|()| file).map_err(io::Error::from),
    }
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Until it has ended, at most.
fn wait_for_holder(run_directory: &Path) {
    if let Ok(Some(holder)) = holder(run_directory)
        && let Ok(process) = rustix::process::pidfd_open(holder, PidfdFlags::empty())
    {
        let _ = rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&PATIENCE));
    }
}

/// The process that has it.
pub fn holder(run_directory: &Path) -> std::io::Result<Option<rustix::process::Pid>> {
    let file = match File::open(run_directory.join(NAME)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let any = Flock { start: 0, length: 0, pid: None, typ: FlockType::ReadLock, offset_type: FlockOffsetType::Set };
    Ok(rustix::process::fcntl_getlk(&file, &any)?.and_then(|lock| lock.pid))
}
