//! Who else is told of a container that several commands make: hooks after its start, which `start` runs, and after its
//! end, which `delete` does; and who answers for its system calls, which `start` connects.

use std::path::Path;

use super::state::{Directory, Record};
use crate::Spec;
use crate::about::About;
use crate::agent::Agent;
use crate::error::RuntimeError;
use crate::failpoint::failpoint;
use crate::hooks;
use crate::plan::Hooks;
use crate::seccomp::{self, Listener};

/// Hooks that are yet to be run, who answers for system calls, and what they are told.
pub(super) struct Told {
    about: About,
    hooks: Hooks,
    listener: Option<Listener>,
}

impl Told {
    /// `None` if there is nobody.
    pub(super) fn of(directory: &Directory, record: &Record) -> Result<Option<Self>, RuntimeError> {
        if !record.is_told {
            return Ok(None);
        }
        Self::of_spec(&directory.read_spec()?, &record.id, &record.bundle)
    }

    pub(super) fn of_spec(spec: &Spec, id: &str, bundle: &Path) -> Result<Option<Self>, RuntimeError> {
        let hooks = Hooks::new(spec)?;
        let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let listener = seccomp.map_or(Ok(None), seccomp::listener)?;
        let is_told = !hooks.is_empty() || listener.is_some();
        Ok(is_told.then(|| Self { about: About::new(id, bundle, spec), hooks, listener }))
    }

    /// Connected, if there is anyone to ask.
    pub(super) fn agent(&self, pid: i32) -> Result<Option<Agent>, RuntimeError> {
        let connect = |listener| Agent::connect(listener, &self.about, "creating", pid);
        self.listener.as_ref().map(connect).transpose()
    }

    /// After the program's start.
    pub(super) fn run_poststart(&self, pid: i32) -> Result<(), RuntimeError> {
        hooks::run_poststart(&self.hooks.poststart, &self.about, pid)
    }

    /// After the container's end: what fails is told, and changes nothing.
    pub(super) fn run_poststop(&self, warn: &dyn Fn(&str)) {
        if !self.hooks.is_empty() {
            failpoint("hooks.poststop");
        }
        for error in hooks::run_poststop(&self.hooks.poststop, &self.about) {
            warn(&error.to_string());
        }
    }
}
