//! The exit record on disk.
//!
//! It is kill-safe, not power-safe: the rename makes it whole or absent to every process that comes later on this
//! boot, and nothing is synced. After a power cut no container runs anyway; what may be lost is the code of one that
//! had ended a moment before, and the next engine says of it what it says of all that the machine took down with it.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::failpoint::failpoint;
use crate::protocol::ExitRecord;

const NAME: &str = "exit.json";

/// Writes `<data_directory>/exit.json`, by rename.
///
/// # Errors
/// The disk is full or read-only.
pub fn write(data_directory: &Path, record: &ExitRecord) -> io::Result<()> {
    let temporary = data_directory.join("exit.json.new");
    std::fs::write(&temporary, serde_json::to_vec(record)?)?;
    failpoint("record.aside");
    std::fs::rename(temporary, data_directory.join(NAME))
}

/// Reads it; `None` if there is none. One that is no record was torn by a power cut: a file system may keep the name
/// of a file whose contents had not reached the disk (fsync(2)), and then it is as if there were none.
///
/// # Errors
/// It is there and cannot be read.
pub fn read(data_directory: &Path) -> io::Result<Option<ExitRecord>> {
    match std::fs::read(data_directory.join(NAME)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the last run's, before the container starts again. That much is synced, if there is one: a power cut must
/// not bring it back as the record of the new run.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(data_directory: &Path) -> io::Result<()> {
    match std::fs::remove_file(data_directory.join(NAME)) {
        Ok(()) => File::open(data_directory)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), None);
        let record =
            ExitRecord { exit_code: 137, finished_at: "t".to_owned(), out_of_memory: true, oom_kills: 2, error: None };
        write(directory.path(), &record).unwrap();
        assert_eq!(read(directory.path()).unwrap(), Some(record));
        remove(directory.path()).unwrap();
        remove(directory.path()).unwrap();
        assert_eq!(read(directory.path()).unwrap(), None);
    }

    #[test]
    fn what_a_power_cut_tore_is_no_record() {
        let directory = tempfile::tempdir().unwrap();
        for torn in ["", "\0\0\0\0", "{\"exit_code\":13"] {
            std::fs::write(directory.path().join(NAME), torn).unwrap();
            assert_eq!(read(directory.path()).unwrap(), None, "{torn:?}");
        }
        remove(directory.path()).unwrap();
        assert!(!directory.path().join(NAME).exists());
    }
}
