//! A container's spec changes after it was made: the ledger first, then what runs, then everyone sees it.
//!
//! ```text
//! owner                        ledger                         what runs
//!   ├─ the spec, and the one before ──▶ (power-safe)
//!   ├─ carry out ───────────────────────────────────────────────▶ refused: the one before is written again
//!   ├─ forget the one before ─────────▶
//!   └─ publish, announce
//! ```
//!
//! An engine that dies in between leaves the one before in the ledger; the next engine carries the change out again, or
//! takes it back.

use std::sync::Arc;

use dozen_ledger::Migration;
use dozen_model::{ContainerId, ContainerSpec, RestartPolicy, error_chain};

use crate::EngineError;
use crate::container::snapshot::Phase;
use crate::container::update::{self, ResourceChange};
use crate::failpoint::failpoint;
use crate::rows::{self, ContainerRow};
use crate::shared::Shared;

/// The spec that a container had before the change that is under way.
pub(crate) const SPEC_BEFORE: Migration = Migration("ALTER TABLE containers ADD COLUMN spec_before TEXT");

/// What of a spec is to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SpecChange {
    /// What `update` changes.
    Update {
        resources: Box<ResourceChange>,
        /// `None`: as it is.
        restart: Option<RestartPolicy>,
    },
}

impl SpecChange {
    /// The spec as it is to be. Pure.
    pub(crate) fn applied_to(&self, spec: &ContainerSpec) -> Result<ContainerSpec, EngineError> {
        let mut after = spec.clone();
        match self {
            Self::Update { resources, restart } => {
                after.resources = resources.applied_to(&spec.resources)?;
                after.restart = restart.unwrap_or(spec.restart);
                if spec.auto_remove && after.restart != RestartPolicy::No {
                    return Err(EngineError::Conflict {
                        message: "Restart policy cannot be updated because AutoRemove is enabled for the container"
                            .into(),
                        hint: None,
                    });
                }
            }
        }
        Ok(after)
    }

    /// Docker's name for what has happened.
    pub(crate) fn event(&self) -> &'static str {
        match self {
            Self::Update { .. } => "update",
        }
    }
}

/// Makes what runs follow its spec; what it refuses is undone. Blocks.
pub(crate) fn carry_out(
    shared: &Shared,
    id: &ContainerId,
    before: &ContainerSpec,
    after: &ContainerSpec,
) -> Result<(), EngineError> {
    if before.resources != after.resources {
        update::carry_out(&shared.container_cgroup(id), &before.resources, &after.resources)?;
    }
    Ok(())
}

/// Finishes the changes that an engine died in, or takes them back. Blocks; before there are owners.
pub(crate) fn settle_interrupted(shared: &Shared, containers: &mut [ContainerRow]) -> Result<(), EngineError> {
    for (id, before) in rows::specs_before(&shared.ledger)? {
        let Some(row) = containers.iter_mut().find(|row| row.id == id) else { continue };
        if matches!(row.phase, Phase::Running(_))
            && let Err(error) = carry_out(shared, &id, &before, &row.spec)
        {
            tracing::warn!(container = id.short(), error = error_chain(&error), "an interrupted change is taken back");
            row.spec = before;
        }
        rows::save_spec(&shared.ledger, &id, &row.spec, None)?;
    }
    Ok(())
}

/// Writes, carries out, and forgets what was before; the spec that holds from now on. Blocks.
pub(crate) fn change(
    shared: &Shared,
    id: &ContainerId,
    runs: bool,
    before: &ContainerSpec,
    after: ContainerSpec,
) -> Result<Arc<ContainerSpec>, EngineError> {
    if after == *before {
        return Ok(Arc::new(after));
    }
    if !runs {
        rows::save_spec(&shared.ledger, id, &after, None)?;
        return Ok(Arc::new(after));
    }
    failpoint("change.before");
    rows::save_spec(&shared.ledger, id, &after, Some(before))?;
    failpoint("change.row");
    if let Err(error) = carry_out(shared, id, before, &after) {
        if let Err(undo) = rows::save_spec(&shared.ledger, id, before, None) {
            tracing::error!(container = id.short(), error = error_chain(&undo), "cannot undo a refused change yet");
        }
        return Err(error);
    }
    failpoint("change.carried");
    // Should it fail, the next engine does it, once more and to the same end.
    if let Err(error) = rows::save_spec(&shared.ledger, id, &after, None) {
        tracing::warn!(container = id.short(), error = error_chain(&error), "a change is not marked as done yet");
    }
    failpoint("change.after");
    Ok(Arc::new(after))
}
