//! Removes what a run made, after the run: also after ^C, and after a kill that leaves no time for anything.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use super::{cell, cgroups, disk};
use crate::failure::{Attempt, Failure};

/// How long the last process of a cell may take to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// A janitor that waits.
pub struct Janitor {
    child: Child,
    /// Closed by our end, whatever the end is.
    lifeline: ChildStdin,
}

impl Janitor {
    /// Starts it, before there is anything to remove.
    pub fn hire(prefix: &str, scratch: &Path) -> Result<Self, Failure> {
        let mut command = cell::stage("janitor")?;
        command.arg(prefix).arg(scratch).stdin(Stdio::piped()).stdout(Stdio::null());
        // A group of its own: ^C does not reach it.
        let mut child = command.process_group(0).spawn().attempting("start the janitor")?;
        let lifeline = child.stdin.take().expect("it was piped");
        Ok(Self { child, lifeline })
    }

    /// Lets it work, and waits.
    pub fn finish(mut self) -> Result<(), Failure> {
        drop(self.lifeline);
        let status = self.child.wait().attempting("wait for the janitor")?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::new("the bench left something behind: the reason is above"))
        }
    }
}

/// The janitor's own part.
pub fn work(prefix: &str, scratch: &Path) -> Result<(), Failure> {
    std::io::stdin().read_to_end(&mut Vec::new()).attempting("wait for the bench to end")?;
    // The processes first: they have files open and write to them.
    let cgroups = cgroups::remove(prefix, PATIENCE);
    let files = disk::remove(scratch);
    cgroups.and(files)
}
