//! Disk space kept for what has to be written on a full disk: that a container has ended, or is gone.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Enough for more than a hundred of the ledger's commits, each of which writes a few pages of 4 KiB. When they are
/// used up, the log is written over from its beginning, so that more are rarely needed.
const RESERVE_BYTES: u64 = 512 * 1024;

/// A file of nothing but allocated space, beside the ledger. It is deleted to make room and made again once there is.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    held: Mutex<bool>,
}

impl Reserve {
    /// Beside the ledger's file. Not made yet: [`Self::restore`] does.
    pub(crate) fn beside(ledger: &Path) -> Self {
        let mut path = ledger.as_os_str().to_owned();
        path.push("-reserve");
        Self { path: path.into(), held: Mutex::new(false) }
    }

    /// Makes it if it is not there and there is room.
    pub(crate) fn restore(&self) -> std::io::Result<()> {
        let mut held = self.lock();
        if !*held {
            allocate(&self.path).inspect_err(|_| {
                // Part of it is no reserve, and takes space that someone else could use.
                let _ = std::fs::remove_file(&self.path);
            })?;
            *held = true;
        }
        Ok(())
    }

    /// Gives its space to whoever writes next. Whether there was any.
    pub(crate) fn give_up(&self) -> bool {
        let mut held = self.lock();
        *held = false;
        std::fs::remove_file(&self.path).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Real blocks, not a hole (fallocate(2)); where a file system cannot allocate without writing, zeros.
fn allocate(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(&file),
        other => Ok(other?),
    }
}

fn write_zeros(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let zeros = [0; 64 * 1024];
    for offset in (0..RESERVE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_takes_space_and_gives_it_back() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = Reserve::beside(&directory.path().join("state.db"));
        assert!(!reserve.give_up(), "there is none yet");
        reserve.restore().unwrap();
        reserve.restore().unwrap();
        let path = directory.path().join("state.db-reserve");
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= RESERVE_BYTES);
        assert!(reserve.give_up() && !path.exists());
        write_zeros(&File::create(&path).unwrap()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), RESERVE_BYTES);
        // What an earlier engine has left is taken over.
        Reserve::beside(&directory.path().join("state.db")).restore().unwrap();
    }
}
