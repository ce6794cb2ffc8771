//! New limits for those who run already.

use std::fs;

use oci_spec::runtime::LinuxResources;

use super::{Cgroup, control, limits};
use crate::error::RuntimeError;

impl Cgroup {
    /// Changes the limits that are named, and leaves the others as they are: what is missing or 0 is not changed, -1 is
    /// no limit. Rules of devices are passed over: they stay those that the container was made with.
    ///
    /// # Errors
    /// [`RuntimeError::Invalid`]: the limit or its combination with those in force cannot be, or this machine lacks the
    /// controller or the file, which the message names. [`RuntimeError::Conflict`]: more is in use than the new limit
    /// allows. Limits written before the failing one stay changed.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), RuntimeError> {
        let present = |controller: &str, file: &str| self.read(controller, file);
        let settings = limits::decide_update(self.layout, &self.name, resources, &present)?;
        self.check_memory(resources)?;
        self.scope.as_ref().map_or(Ok(()), |scope| scope.limit(&settings, self.layout.is_unified()))?;
        control::set(self.layout, settings)
    }

    /// A control file's text, `None` where it is not there.
    pub(super) fn read(&self, controller: &str, file: &str) -> Option<String> {
        fs::read_to_string(self.layout.controller(controller)?.directory(&self.name).join(file)).ok()
    }

    /// `checkBeforeUpdate`: version 2 would kill for it, where version 1 refuses by itself.
    fn check_memory(&self, resources: &LinuxResources) -> Result<(), RuntimeError> {
        let Some(memory) = resources.memory().filter(|memory| memory.check_before_update() == Some(true)) else {
            return Ok(());
        };
        if !self.layout.controller("memory").is_some_and(super::Hierarchy::is_unified) {
            return Ok(());
        }
        let amount = |file| self.read("memory", file).and_then(|text| text.trim().parse::<i64>().ok());
        let limit = memory.limit().filter(|limit| *limit > 0);
        let swap = match memory.swap().filter(|swap| *swap > 0) {
            Some(swap) => Some(limits::swap_alone(limit.or_else(|| amount("memory.max")).or(Some(-1)), swap)?),
            None => None,
        };
        for (limit, file) in [(limit, "memory.current"), (swap, "memory.swap.current")] {
            if let (Some(limit), Some(used)) = (limit, amount(file))
                && used > limit
            {
                return Err(RuntimeError::Conflict(format!(
                    "rejecting memory limit update: {used} bytes are in use ({file}), the new limit is {limit}"
                )));
            }
        }
        Ok(())
    }
}
