//! A container's first process: created, waiting, started.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use dozen_model::UserSpec;
use rustix::process::{PidfdFlags, Signal, WaitIdOptions};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::{Context, RuntimeError};
use crate::message::{self, Message};
use crate::plan::Plan;
use crate::{Spec, child, sys};

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
        /// Its first size.
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
    /// The cgroup below each hierarchy's mount point: `/dozen/<id>`.
    pub cgroup: &'a str,
    /// Joined in place of what the spec says about the network.
    pub network_namespace: Option<BorrowedFd<'a>>,
    /// Whom the process runs as, by the container's own /etc/passwd and /etc/group; wins over the spec's numbers.
    pub user: Option<&'a UserSpec>,
    /// The process's standard streams.
    pub stdio: Stdio,
    /// dozen's own init is process 1: it reaps, forwards signals, and exits as its child does.
    pub init: bool,
    /// Descriptors 3 and up that the process inherits, by number.
    pub preserve_descriptors: u32,
}

/// A container that stands and waits. Dropped, it is killed and undone.
#[derive(Debug)]
pub struct Created {
    process: Process,
    socket: OwnedFd,
    terminal: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
}

/// A container whose program runs.
#[derive(Debug)]
pub struct Running {
    /// Process 1, in our own pid namespace. Our child: wait for it by `pidfd`.
    pub pid: i32,
    /// The same, by descriptor.
    pub pidfd: OwnedFd,
    /// Where its processes are.
    pub cgroup: Cgroup,
}
