//! What a container is to be, as the callers of [`crate::create`] say it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use dozen_model::UserSpec;
use serde::{Deserialize, Serialize};

use crate::Spec;
use crate::error::{Context, RuntimeError};

/// The root file system that a container gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Root {
    /// A directory of the host, used as it is.
    Directory(PathBuf),
    /// A new overlay, never in the host's mount table.
    Overlay {
        /// Read-only layers, the topmost first. At least one.
        lower: Vec<PathBuf>,
        /// Where changes go.
        upper: PathBuf,
        /// overlayfs's own scratch directory, on the same file system as `upper`.
        work: PathBuf,
    },
}

/// What the process's standard streams are.
#[derive(Debug)]
pub enum Stdio {
    /// Standard input, output and error.
    Streams([OwnedFd; 3]),
    /// A new terminal of the container's own devpts; its master comes back with [`Created::terminal`].
    Terminal {
        /// Its first size. `None`: the spec's (`process.consoleSize`).
        size: Option<WindowSize>,
    },
}

/// Rows and columns of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters on a line.
    pub columns: u16,
}

/// Everything that [`create`] has to know.
#[derive(Debug)]
pub struct CreateOptions<'a> {
    /// The container's id.
    pub id: &'a str,
    /// What to run, by the OCI runtime specification. Its `root.path` is not read: see `root`.
    pub spec: &'a Spec,
    /// Relative sources of mounts begin here.
    pub bundle: &'a Path,
    /// The root file system.
    pub root: &'a Root,
    /// The cgroup below each hierarchy's mount point: `/dozen/<id>`; or a scope for systemd to make: `slice:prefix:name`.
    pub cgroup: &'a str,
    /// Joined in place of what the spec says about the network.
    pub network_namespace: Option<BorrowedFd<'a>>,
    /// Whom the process runs as, by the container's own /etc/passwd and /etc/group; wins over the spec's numbers.
    pub user: Option<&'a UserSpec>,
    /// Further groups of `user`, by names of the same files.
    pub group_names: &'a [String],
    /// The process's standard streams.
    pub stdio: Stdio,
    /// dozen's own init is process 1: it reaps, forwards signals, and exits as its child does.
    pub init: bool,
    /// Descriptors 3 and up that the process inherits, by number.
    pub preserve_descriptors: u32,
    /// The caller's session keyring (keyrings(7)) goes on to be the process's; else it has a new one.
    pub keep_session_keyring: bool,
}

impl Stdio {
    /// The same for the child, above the numbers that it gives them.
    pub(crate) fn copy(&self) -> Result<Self, RuntimeError> {
        let copy = |stream: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(stream, 3).context(|| "copy a stream".to_owned());
        Ok(match self {
            Self::Streams([input, output, error]) => Self::Streams([copy(input)?, copy(output)?, copy(error)?]),
            Self::Terminal { size } => Self::Terminal { size: *size },
        })
    }
}

/// The spec's size of a terminal; the kernel has 16 bits for each side of it (struct winsize of ioctl_tty(2)).
pub(crate) fn console_size(spec: &Spec) -> Result<Option<WindowSize>, RuntimeError> {
    let Some(size) = spec.process().as_ref().and_then(|process| process.console_size()) else { return Ok(None) };
    let side = |name: &str, value: u64| {
        u16::try_from(value).map_err(|_| {
            RuntimeError::Invalid(format!("process.consoleSize.{name}: {value} is more than {} characters", u16::MAX))
        })
    };
    Ok(Some(WindowSize { rows: side("height", size.height())?, columns: side("width", size.width())? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_terminal_is_as_large_as_the_kernel_can_have_it() {
        let size = |height: u64, width: u64| {
            let process = json!({"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0},
                "consoleSize": {"height": height, "width": width}});
            let spec: Spec = serde_json::from_value(json!({"ociVersion": "1.2.0", "process": process})).unwrap();
            console_size(&spec).map_err(|error| error.to_string())
        };
        assert_eq!(size(24, 65535), Ok(Some(WindowSize { rows: 24, columns: 65535 })));
        assert_eq!(size(65536, 80), Err("process.consoleSize.height: 65536 is more than 65535 characters".to_owned()));
        assert_eq!(
            size(24, 1 << 40),
            Err(format!("process.consoleSize.width: {} is more than 65535 characters", 1u64 << 40))
        );
    }
}
