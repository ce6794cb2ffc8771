//! What can go wrong with the keeper, as the engine sees it.

use std::io;
use std::path::PathBuf;

use dozen_model::{Classified, ErrorKind};

/// A failure of the keeper, or of talking to it.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The program could not be run.
    #[error("cannot start the keeper from {}", program.display())]
    Spawn {
        /// The binary.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was started and ended before it was ready.
    #[error("the keeper did not start: {message}")]
    NotReady {
        /// Its own words.
        message: String,
    },
    /// The keeper's socket does not answer.
    #[error("cannot talk to the keeper at {}", path.display())]
    Talk {
        /// keeper.sock.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It lives, and says nothing: stopped, traced, or starved of processor or memory.
    #[error("the keeper (process {pid}) was asked to {action} and has not answered for {seconds} s")]
    Hangs {
        /// What was asked.
        action: &'static str,
        /// Its process; 0 if it has ended since.
        pid: i32,
        /// How long it was waited for.
        seconds: u64,
    },
    /// It was killed because it hung, and does not die.
    #[error("the keeper (process {pid}) hangs and does not die when it is killed")]
    Unkillable {
        /// Its process.
        pid: i32,
    },
    /// The snapshot could not be written.
    #[error("cannot write the keeper's snapshot {}", path.display())]
    Write {
        /// keeper.json.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot listen at the API's path.
    #[error("cannot listen for the API at {}: {message}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        message: String,
        /// errno(3), 0 if there is none.
        errno: i32,
    },
    /// The keeper refused something else.
    #[error("the keeper cannot {action}: {message}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// Why not.
        message: String,
        /// errno(3), 0 if there is none.
        errno: i32,
    },
}

impl Classified for KeeperError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Listen { errno: libc::EADDRINUSE | libc::EEXIST, .. } => ErrorKind::Conflict,
            Self::Listen { errno: libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG, .. } => ErrorKind::Invalid,
            Self::Refused { errno, .. } | Self::Listen { errno, .. } if is_exhausted(*errno) => ErrorKind::Exhausted,
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => ErrorKind::Exhausted,
            _ => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Listen { errno, .. } => match *errno {
                libc::EADDRINUSE => Some("another program listens there; stop it, or choose another path with --host"),
                libc::EEXIST => Some("what is there is no socket; remove it, or choose another path with --host"),
                libc::ENOENT => Some("make the directory first, or choose another path with --host"),
                libc::ENAMETOOLONG => Some("a socket's path has 107 bytes at most (unix(7)); choose a shorter one"),
                _ => None,
            }
            .map(str::to_owned),
            Self::Hangs { pid, .. } => Some(format!(
                "see in /proc/{pid}/status whether it is stopped (`kill -CONT {pid}`), or end it (`kill -9 {pid}`): the \
                 engine starts another, which takes over all that it held"
            )),
            Self::Unkillable { pid } => Some(format!(
                "/proc/{pid}/stack says what the kernel waits for; once the process is gone, the next request starts another"
            )),
            _ => None,
        }
    }
}

/// The host has no more of something.
fn is_exhausted(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOSPC)
}
