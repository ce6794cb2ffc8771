//! What the monitor needs of the runtime, so that it can be tested without one.

use std::os::fd::OwnedFd;

use crate::protocol::{ExecRequest, Failure, StartRequest, WindowSize};

/// What a process gets for its streams.
#[derive(Debug)]
pub enum Streams {
    /// Standard input, output and error.
    Each([OwnedFd; 3]),
    /// A terminal of its own, of this size if it is known.
    Terminal(Option<WindowSize>),
}

/// A child of the monitor's.
#[derive(Debug)]
pub struct Process {
    /// In the host's pid namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The master's side of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// One container, from nothing to nothing. Calls come in this order: create, then start or undo, then exec and
/// signal_all any number of times, then finish.
pub trait Isolate {
    /// Moves this process to the cgroup of monitors, if it can. It may have been born in version 2's half of it.
    fn settle(&mut self, request: &StartRequest, born_there: bool);

    /// Makes the container; its process waits. After a failure nothing is left.
    ///
    /// # Errors
    /// Whatever of the request cannot be had on this host.
    fn create(
        &mut self,
        request: StartRequest,
        network_namespace: Option<OwnedFd>,
        streams: Streams,
    ) -> Result<Process, Failure>;

    /// Lets the process exec.
    ///
    /// # Errors
    /// The program cannot be run; [`Isolate::undo`] has to follow.
    fn start(&mut self) -> Result<(), Failure>;

    /// Kills and deletes what create made. Answers what could not be undone.
    fn undo(&mut self) -> Vec<String>;

    /// Nothing happens: gives back what is not needed until something does.
    fn rest(&mut self) {}

    /// Runs a further process.
    ///
    /// # Errors
    /// The program cannot be run; nothing is left of it.
    fn exec(&mut self, request: &ExecRequest, streams: Streams) -> Result<Process, Failure>;

    /// Sends a signal to every process of the container.
    ///
    /// # Errors
    /// The cgroup cannot be read.
    fn signal_all(&mut self, signal: i32) -> Result<(), Failure>;

    /// Lets every process of the container run that was made to stand still.
    fn resume(&mut self);

    /// Process 1 has ended: kills what is left.
    fn kill_rest(&mut self);

    /// Everything has ended: how many the kernel killed for want of memory. Deletes the cgroup.
    fn finish(&mut self) -> u64;
}
