//! What is remembered of a container between two commands: `<root>/<id>/state.json`, and its spec beside it.
//!
//! The record is written before anything is made and once more when the process is known, so that `delete --force`
//! finds all that there is of a container, wherever its `create` was killed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use crate::Spec;
use crate::cgroup::{Cgroup, Identity};
use crate::error::{Context, RuntimeError};

/// A container's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    /// 0 until it is known.
    pub(super) pid: i32,
    /// Field 22 of /proc/PID/stat: tells process from a later one with its number.
    pub(super) start_time: u64,
    pub(super) bundle: PathBuf,
    /// Absolute.
    #[serde(default)]
    pub(super) rootfs: PathBuf,
    pub(super) cgroup: String,
    /// Which of that name: `None` until it is made, before anybody is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cgroup_identity: Option<Identity>,
    pub(super) created: String,
    /// `start` has been called.
    pub(super) started: bool,
    /// Others are told of it (`told`): `start` and `delete` have to read the spec.
    #[serde(default)]
    pub(super) is_told: bool,
    /// The group of the resctrl file system that was made for it (`resctrl`), if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) resctrl_group: Option<String>,
    /// It has the session keyring of who created it.
    #[serde(default)]
    pub(super) keeps_keyring: bool,
    /// The spec's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<HashMap<String, String>>,
}

/// Where a container is in its life (runtime.md, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Creating,
    Created,
    Running,
    /// Created or running, and nobody moves.
    Paused,
    Stopped,
}

/// One container's directory.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    id: String,
}

impl Directory {
    /// The directory of this id, there or not.
    pub(super) fn of(root: &Path, id: &str) -> Result<Self, RuntimeError> {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.');
        if let Some(bad) = id.chars().find(|bad| !u8::try_from(*bad).is_ok_and(|byte| plain(&byte))) {
            return Err(RuntimeError::Invalid(format!(
                "invalid container ID format: invalid character `{bad}` in the ID {id:?}"
            )));
        }
        if id.is_empty() || id.len() > 1024 || id == "." || id == ".." {
            return Err(RuntimeError::Invalid(format!("invalid container ID format: {id:?}")));
        }
        Ok(Self { path: root.join(id), id: id.to_owned() })
    }

    /// Takes the id: of two that try, one succeeds.
    pub(super) fn make(&self) -> Result<(), RuntimeError> {
        let root = self.root();
        // Whoever may write here decides whom `kill` and `delete` meet.
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o711)
            .create(root)
            .context(|| format!("make {}", root.display()))?;
        match rustix::fs::mkdirat(CWD, &self.path, Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => Err(RuntimeError::Conflict(format!("container with id exists already: {}", self.id))),
            result => result.context(|| format!("make {}", self.path.display())),
        }
    }

    /// For the one who starts it, until what is returned is closed.
    pub(super) fn lock(&self) -> Result<File, RuntimeError> {
        let context = || format!("lock {}", self.path.display());
        let directory = File::open(&self.path).context(context)?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                Err(RuntimeError::Conflict("cannot start a container that is being started".to_owned()))
            }
            locked => locked.context(context).map(|()| directory),
        }
    }

    /// That of all containers.
    pub(super) fn root(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    pub(super) fn remove(&self) -> Result<(), RuntimeError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RuntimeError::system(format!("remove {}", self.path.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// A copy of the bundle's: it holds even if the bundle changes.
    pub(super) fn write_spec(&self, config: &[u8]) -> Result<(), RuntimeError> {
        let path = self.path.join("config.json");
        fs::write(&path, config).context(|| format!("write {}", path.display()))
    }

    pub(super) fn read_spec(&self) -> Result<Spec, RuntimeError> {
        let path = self.path.join("config.json");
        let bytes = fs::read(&path).context(|| format!("read {}", path.display()))?;
        let (spec, _) = crate::reading::read_spec(&bytes)
            .map_err(|error| RuntimeError::Invalid(format!("{}: {error}", path.display())))?;
        Ok(spec)
    }

    pub(super) fn read(&self) -> Result<Record, RuntimeError> {
        let path = self.path.join("state.json");
        let not_found = || Err(RuntimeError::NotFound(format!("container does not exist: {}", self.id)));
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return not_found(),
            result => result.context(|| format!("read {}", path.display()))?,
        };
        if bytes.is_empty() {
            return not_found();
        }
        serde_json::from_slice(&bytes).map_err(|error| RuntimeError::Invalid(format!("{}: {error}", path.display())))
    }

    /// The first record of a container. Who reads it too early finds nothing in it, and no container.
    pub(super) fn begin(&self, record: &Record) -> Result<(), RuntimeError> {
        let path = self.path.join("state.json");
        let bytes = serde_json::to_vec(record).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
        fs::write(&path, bytes).context(|| format!("write {}", path.display()))
    }

    /// By rename, so that a reader sees one or the other.
    pub(super) fn write(&self, record: &Record) -> Result<(), RuntimeError> {
        let (path, new) = (self.path.join("state.json"), self.path.join("state.json.new"));
        let bytes = serde_json::to_vec(record).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
        fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path)).context(|| format!("write {}", path.display()))
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path.join("start.sock")
    }
}

impl Record {
    /// Process 1, if it still lives.
    pub(super) fn process(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at after it was opened: a number used again has another start.
        (start_time(self.pid) == Some(self.start_time)).then_some(pidfd)
    }

    /// Where its processes are; `None` if that is gone, also if others have a cgroup of that name by now.
    pub(super) fn cgroup(&self) -> Result<Option<Cgroup>, RuntimeError> {
        self.cgroup_identity.map_or(Ok(None), |identity| Cgroup::open_pinned(&self.cgroup, identity))
    }

    /// Where it is in its life, paused or not.
    pub(super) fn phase(&self) -> Status {
        if self.pid == 0 {
            return Status::Creating;
        }
        match (self.process(), self.started) {
            (None, _) => Status::Stopped,
            (Some(_), true) => Status::Running,
            (Some(_), false) => Status::Created,
        }
    }

    pub(super) fn status(&self) -> Status {
        let is_paused = || self.cgroup().ok().flatten().is_some_and(|it| it.is_paused().unwrap_or(false));
        match self.phase() {
            Status::Created | Status::Running if is_paused() => Status::Paused,
            phase => phase,
        }
    }
}

/// When a process began, in ticks since boot; `None` if it has ended (a zombie has).
pub(super) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// RFC 3339, UTC, seconds.
pub(super) fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    format_time(since)
}

/// Days to a date by the civil calendar (proleptic Gregorian).
fn format_time(since_epoch_s: u64) -> String {
    let (days, seconds) = (since_epoch_s / 86_400, since_epoch_s % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        assert_eq!(format_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(format_time(951_826_154), "2000-02-29T12:09:14Z");
        assert_eq!(format_time(1_767_225_599), "2025-12-31T23:59:59Z");
    }

    #[test]
    fn ids_are_names_of_one_directory() {
        for bad in ["", ".", "..", "a/b", "a b", "\0"] {
            assert!(Directory::of(Path::new("/r"), bad).is_err(), "{bad:?}");
        }
        assert!(Directory::of(Path::new("/r"), "a.b-c_D+1").is_ok());
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = std::process::id() as i32;
        assert!(start_time(own).is_some());
        assert_eq!(start_time(i32::MAX), None);
    }
}
