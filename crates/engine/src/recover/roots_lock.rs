//! One engine to a data root, and one to a run root.

use std::fs::{File, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use dozen_model::run_root::LOCK_NAME;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::{EngineConfig, EngineError};

/// How long an engine waits for the one before it to be gone.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(5);

/// Two engines on one data root would each know half of what there is; on one run root they would take each other's
/// socket, ports and cgroups. The locks go with the process, however it ends.
#[derive(Debug)]
pub(crate) struct RootsLock {
    _data_root: File,
    _run_root: File,
}

impl RootsLock {
    /// Takes both, for which there are to be two directories. Blocks while a predecessor that was told to end is at it.
    pub(crate) fn take(config: &EngineConfig) -> Result<Self, EngineError> {
        let deadline = Instant::now() + PREDECESSOR_PATIENCE;
        Ok(Self {
            _data_root: lock(&config.data_root, "data root", "--data-root", deadline)?,
            _run_root: lock(&config.run_root, "run root", "--run-root", deadline)?,
        })
    }
}

fn lock(root: &Path, kind: &str, option: &str, deadline: Instant) -> Result<File, EngineError> {
    let path = root.join(LOCK_NAME);
    let open = || {
        // For root alone: anybody who may open it could keep every engine out.
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        // Also one that an older engine made.
        file.set_permissions(Permissions::from_mode(0o600)).map(|()| file)
    };
    let file = open().map_err(EngineError::system(|| format!("open {}", path.display())))?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Err(Errno::WOULDBLOCK) => {
                return Err(EngineError::Conflict {
                    message: format!("another engine uses the {kind} {}", root.display()),
                    hint: Some(format!("use that one, end it first, or give this one a {option} of its own")),
                });
            }
            Err(error) => return Err(EngineError::system(|| format!("lock {}", path.display()))(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_root_is_shared() {
        let directory = tempfile::tempdir().unwrap();
        let roots = |data: &str, run: &str| {
            let [data_root, run_root] = [data, run].map(|name| directory.path().join(name));
            for root in [&data_root, &run_root] {
                std::fs::create_dir_all(root).unwrap();
            }
            EngineConfig { data_root, run_root, program: "/nonexistent".into(), settings: Default::default() }
        };
        let first = RootsLock::take(&roots("data", "run")).unwrap();
        let refused = |config: EngineConfig| RootsLock::take(&config).unwrap_err().to_string();
        std::thread::scope(|scope| {
            let data = scope.spawn(|| refused(roots("data", "run-2")));
            let run = scope.spawn(|| refused(roots("data-2", "run")));
            let path = directory.path().display();
            assert_eq!(data.join().unwrap(), format!("another engine uses the data root {path}/data"));
            assert_eq!(run.join().unwrap(), format!("another engine uses the run root {path}/run"));
        });
        drop(first);
        RootsLock::take(&roots("data", "run")).unwrap();
    }
}
