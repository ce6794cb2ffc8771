//! What a container has written. Of one that ran a step of a build that becomes a layer, and the container is left without.

use crate::EngineError;
use crate::container::snapshot::Snapshot;

/// Whether it still has it.
pub(crate) fn check_is_there(snapshot: &Snapshot) -> Result<(), EngineError> {
    if snapshot.spec.build_step.is_none() || snapshot.directory.join("upper").exists() {
        return Ok(());
    }
    Err(EngineError::Conflict {
        message: format!("container {} ran a step of a build, and what it wrote is a layer by now", snapshot.name),
        hint: Some("it goes with its build; use the image instead".into()),
    })
}
