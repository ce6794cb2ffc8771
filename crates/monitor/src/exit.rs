//! The exit record on disk.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::failpoint::failpoint;
use crate::protocol::ExitRecord;

const NAME: &str = "exit.json";

/// Writes `<data_directory>/exit.json` so that a power cut leaves the old one, none, or all of the new one: written
/// aside, synced, renamed, and the directory synced.
///
/// # Errors
/// The disk is full or read-only.
pub fn write(data_directory: &Path, record: &ExitRecord) -> io::Result<()> {
    let temporary = data_directory.join("exit.json.new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    failpoint("record.aside");
    std::fs::rename(temporary, data_directory.join(NAME))?;
    File::open(data_directory)?.sync_all()
}

/// Reads it; `None` if there is none.
///
/// # Errors
/// It cannot be read, or is not a record.
pub fn read(data_directory: &Path) -> io::Result<Option<ExitRecord>> {
    match std::fs::read(data_directory.join(NAME)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes it, before the container starts again.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(data_directory: &Path) -> io::Result<()> {
    match std::fs::remove_file(data_directory.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), None);
        let record = ExitRecord { exit_code: 137, finished_at: "t".to_owned(), out_of_memory: true, error: None };
        write(directory.path(), &record).unwrap();
        assert_eq!(read(directory.path()).unwrap(), Some(record));
        remove(directory.path()).unwrap();
        remove(directory.path()).unwrap();
        assert_eq!(read(directory.path()).unwrap(), None);
    }
}
