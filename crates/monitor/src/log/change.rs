//! Other options for a log that is in use, between two pieces of output: no entry is lost, and none is written twice.

use std::io;
use std::path::Path;

use super::settings::{LogFormat, LogSettings};
use super::{ContainerLog, Encoder, Kept};

impl ContainerLog {
    /// From the next entry on. What is held back of unfinished lines stays, and so does what waits for a log server: it goes
    /// to the new one, if that is another.
    ///
    /// # Errors
    /// A file can be neither opened nor made, or another driver is asked for; then nothing has changed.
    pub fn change(&mut self, data_directory: &Path, settings: &LogSettings) -> io::Result<()> {
        if settings.remote.is_some() != self.remote.is_some() {
            return Err(another_driver());
        }
        // What can fail comes first.
        let begun = match (&self.kept, &settings.file) {
            (None, Some(file)) => Some(Kept::open(data_directory, file)?),
            (Some(kept), Some(file)) if kept.encoder.format() != file.format => return Err(another_driver()),
            _ => None,
        };
        match (&mut self.kept, &settings.file) {
            (Some(kept), Some(file)) => {
                kept.encoder = Encoder::new(file);
                kept.file.keep(file.files);
            }
            (Some(kept), None) => {
                kept.file.close();
                self.kept = None;
            }
            (None, _) => self.kept = begun,
        }
        if let (Some(remote), Some(settings)) = (&mut self.remote, &settings.remote) {
            remote.change(settings.clone());
        }
        Ok(())
    }
}

impl Encoder {
    fn format(&self) -> LogFormat {
        match self {
            Self::Json(_) => LogFormat::Json,
            Self::Compact => LogFormat::Compact,
        }
    }
}

/// The engine does not ask for that.
fn another_driver() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the log driver cannot be changed")
}
