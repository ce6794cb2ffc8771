//! A shell where a command has failed (`--debug-shell`): in a container like the step's own, with its mounts, its variables
//! and its network, on the files as the command has left them. Whoever builds attaches to it, starts it and ends it; it
//! changes nothing of what becomes of the build.
//!
//! The step's container has ended, and its upper directory becomes the other one's. Both are containers of a build, and
//! go with it, or at the next start of the engine.

use std::sync::Arc;

use dozen_model::{ContainerSpec, StdinMode, error_chain};
use dozen_monitor::protocol::SecretEnvironment;

use super::failure::StepError;
use super::job::{Job, RunningStep};
use super::{BuildEvent, StepId};
use crate::container::Container;
use crate::container::snapshot::{Phase, Snapshot};
use crate::{CreateRequest, EngineError};

/// What a failed command has left.
#[derive(Debug)]
pub(super) struct Left {
    /// Its container, which has ended.
    pub(super) running: RunningStep,
    pub(super) spec: ContainerSpec,
    pub(super) secrets: SecretEnvironment,
}

/// Opens one if this is a failed command that has left something, and waits until it is over. One for each build: where two
/// stages fail, the second waits until nobody is in the first one's.
pub(super) async fn open(job: &Arc<Job>, step: StepId, error: &mut StepError) {
    let StepError::Command { left, .. } = error else { return };
    let Some(left) = left.take() else { return };
    let Left { running, spec, secrets } = *left;
    let mut was_open = job.shell.lock().await;
    if !std::mem::replace(&mut *was_open, true) {
        let request = CreateRequest { name: None, spec: with_shell(spec), own_ids: job.request.own_ids };
        let opened = match job.begin_beside(request).await {
            Ok(shell) => {
                let ended = converse(job, step, &running.container, &shell.container, secrets).await;
                shell.end().await;
                ended
            }
            Err(error) => Err(error),
        };
        if let Err(error) = opened {
            let words = format!("no shell can be opened where the step has failed: {}", error_chain(&error));
            job.tell(BuildEvent::Warning(words)).await;
        }
    }
    drop(was_open);
    running.end().await;
}

async fn converse(
    job: &Arc<Job>,
    step: StepId,
    failed: &Container,
    shell: &Container,
    secrets: SecretEnvironment,
) -> Result<(), EngineError> {
    let (from, to) = (failed.clone(), shell.snapshot());
    job.shared.blocking(move || hand_over(&from, &to)).await?;
    let _given = job.shared.secrets.give(shell.id(), secrets);
    let mut snapshots = shell.entry.snapshots.clone();
    job.tell(BuildEvent::Shell(step, shell.id().clone())).await;
    // An error means that it has been removed.
    let _ = snapshots.wait_for(|snapshot| is_over(snapshot)).await;
    Ok(())
}

/// It has run, or cannot run, or is on its way out.
fn is_over(snapshot: &Snapshot) -> bool {
    snapshot.exits > 0 || matches!(snapshot.phase, Phase::Created { last_failure: Some(_) } | Phase::Removing { .. })
}

/// What the failed container has written becomes the other one's, which has not begun. Blocks.
fn hand_over(failed: &Container, shell: &Snapshot) -> Result<(), EngineError> {
    let before = failed.snapshot();
    let (from, to) = (before.directory.join("upper"), shell.directory.join("upper"));
    // The other one is empty: rename(2) puts this in its place.
    let moved = std::fs::rename(&from, &to);
    moved.map_err(EngineError::system(|| format!("move {} to {}", from.display(), to.display())))?;
    // Whoever has it mounted had begun before it was moved, and is seen.
    let after = failed.snapshot();
    match after.phase {
        Phase::Exited(_) if before.exits == after.exits => Ok(()),
        _ => Err(EngineError::Conflict {
            message: format!("container {}, which ran this step, was touched by somebody else", before.name),
            hint: Some("leave containers of builds alone".into()),
        }),
    }
}

/// The same container with a shell on a terminal.
fn with_shell(mut spec: ContainerSpec) -> ContainerSpec {
    let process = &mut spec.process;
    process.command = vec![shell_of(&process.command).to_owned()];
    (process.terminal, process.stdin, process.attach) = (true, StdinMode::Open, [true; 3]);
    spec
}

/// The one that ran the command, or the one that there is most often.
fn shell_of(command: &[String]) -> &str {
    const SHELLS: [&str; 7] = ["sh", "ash", "bash", "dash", "ksh", "zsh", "fish"];
    let is_shell = |program: &&String| SHELLS.contains(&program.rsplit('/').next().unwrap_or_default());
    command.first().filter(is_shell).map_or("/bin/sh", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_is_that_of_the_step() {
        for (command, shell) in [
            (&["/bin/sh", "-c", "false"][..], "/bin/sh"),
            (&["/bin/bash", "-euc", "false"], "/bin/bash"),
            (&["bash", "script"], "bash"),
            (&["/usr/bin/make"], "/bin/sh"),
            (&["/bin/sh/"], "/bin/sh"),
            (&[], "/bin/sh"),
        ] {
            let command: Vec<String> = command.iter().map(ToString::to_string).collect();
            assert_eq!(shell_of(&command), shell, "{command:?}");
        }
    }
}
