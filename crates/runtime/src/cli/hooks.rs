//! Hooks of a container that several commands make: `start` runs those after its start, `delete` those after its end.

use std::path::Path;

use super::state::{Directory, Record};
use crate::Spec;
use crate::about::About;
use crate::error::RuntimeError;
use crate::failpoint::failpoint;
use crate::hooks;
use crate::plan::Hooks;

/// Hooks that are yet to be run, and what they are told.
pub(super) struct HooksToCome {
    hooks: Hooks,
    about: About,
}

impl HooksToCome {
    /// `None` if the container has none.
    pub(super) fn of(directory: &Directory, record: &Record) -> Result<Option<Self>, RuntimeError> {
        if !record.has_hooks {
            return Ok(None);
        }
        Self::of_spec(&directory.read_spec()?, &record.id, &record.bundle)
    }

    pub(super) fn of_spec(spec: &Spec, id: &str, bundle: &Path) -> Result<Option<Self>, RuntimeError> {
        let hooks = Hooks::new(spec)?;
        Ok((!hooks.is_empty()).then(|| Self { hooks, about: About::new(id, bundle, spec) }))
    }

    /// After the program's start.
    pub(super) fn run_poststart(&self, pid: i32) -> Result<(), RuntimeError> {
        hooks::run_poststart(&self.hooks.poststart, &self.about, pid)
    }

    /// After the container's end: what fails is told, and changes nothing.
    pub(super) fn run_poststop(&self, warn: &dyn Fn(&str)) {
        failpoint("hooks.poststop");
        for error in hooks::run_poststop(&self.hooks.poststop, &self.about) {
            warn(&error.to_string());
        }
    }
}
