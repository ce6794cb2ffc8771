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
use dozen_model::{ContainerId, ContainerName, ContainerSpec, RestartPolicy, error_chain};
use jiff::Timestamp;

use crate::EngineError;
use crate::container::logs;
use crate::container::snapshot::Phase;
use crate::container::update::{self, LogChange, ResourceChange};
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
        log: LogChange,
    },
}

/// Whose spec changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) name: &'a ContainerName,
    pub(crate) created: Timestamp,
    /// Process 1 runs.
    pub(crate) runs: bool,
}

/// What has become of a change.
#[derive(Debug)]
pub(crate) struct Changed {
    /// What holds from now on.
    pub(crate) spec: Arc<ContainerSpec>,
    /// What of it is for the next start, in words for whoever asked.
    pub(crate) later: Vec<String>,
}

impl SpecChange {
    /// The spec as it is to be. Pure.
    pub(crate) fn applied_to(&self, spec: &ContainerSpec) -> Result<ContainerSpec, EngineError> {
        let mut after = spec.clone();
        match self {
            Self::Update { resources, restart, log } => {
                after.resources = resources.applied_to(&spec.resources)?;
                after.restart = restart.unwrap_or(spec.restart);
                after.log = log.applied_to(&spec.log)?;
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

/// Makes what runs follow its spec; what it refuses is undone. Answers what is for the next start. Blocks, within a
/// runtime.
fn carry_out(
    shared: &Shared,
    whose: Whose<'_>,
    before: &ContainerSpec,
    after: &ContainerSpec,
) -> Result<Vec<String>, EngineError> {
    let mut later = Vec::new();
    if before.log != after.log {
        later.extend(logs::change(shared, whose, after)?);
    }
    if before.resources != after.resources
        && let Err(error) =
            update::carry_out(&shared.container_cgroup(whose.id, after), &before.resources, &after.resources)
    {
        if before.log != after.log
            && let Err(undo) = logs::change(shared, whose, before)
        {
            tracing::warn!(container = whose.id.short(), error = error_chain(&undo), "a log has its new options");
        }
        return Err(error);
    }
    Ok(later)
}

/// Finishes the changes that an engine died in, or takes them back. Blocks; before there are owners.
pub(crate) fn settle_interrupted(shared: &Shared, containers: &mut [ContainerRow]) -> Result<(), EngineError> {
    for (id, before) in rows::specs_before(&shared.ledger)? {
        let Some(row) = containers.iter_mut().find(|row| row.id == id) else { continue };
        let whose =
            Whose { id: &id, name: &row.name, created: row.created, runs: matches!(row.phase, Phase::Running(_)) };
        if whose.runs
            && let Err(error) = carry_out(shared, whose, &before, &row.spec)
        {
            tracing::warn!(container = id.short(), error = error_chain(&error), "an interrupted change is taken back");
            row.spec = before;
        }
        rows::save_spec(&shared.ledger, &id, &row.spec, None)?;
    }
    Ok(())
}

/// Writes, carries out, and forgets what was before. Blocks, within a runtime.
pub(crate) fn change(
    shared: &Shared,
    whose: Whose<'_>,
    before: &ContainerSpec,
    after: ContainerSpec,
) -> Result<Changed, EngineError> {
    let id = whose.id;
    if after == *before || !whose.runs {
        if after != *before {
            rows::save_spec(&shared.ledger, id, &after, None)?;
        }
        return Ok(Changed { spec: Arc::new(after), later: Vec::new() });
    }
    failpoint("change.before");
    rows::save_spec(&shared.ledger, id, &after, Some(before))?;
    failpoint("change.row");
    let later = match carry_out(shared, whose, before, &after) {
        Ok(later) => later,
        Err(error) => {
            if let Err(undo) = rows::save_spec(&shared.ledger, id, before, None) {
                tracing::error!(container = id.short(), error = error_chain(&undo), "cannot undo a refused change yet");
            }
            return Err(error);
        }
    };
    failpoint("change.carried");
    // Should it fail, the next engine does it, once more and to the same end.
    if let Err(error) = rows::save_spec(&shared.ledger, id, &after, None) {
        tracing::warn!(container = id.short(), error = error_chain(&error), "a change is not marked as done yet");
    }
    failpoint("change.after");
    Ok(Changed { spec: Arc::new(after), later })
}
