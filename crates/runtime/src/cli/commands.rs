//! What each command does; `kill` and `delete`.

use std::path::Path;

use dozen_model::Signal;

use super::arguments::{Arguments, CgroupManager, Command, Rootless, RunArguments};
use super::bundle::write_spec;
use super::create::{create_waiting, run_to_the_end};
use super::events::events;
use super::exec::execute;
use super::features::features;
use super::listening::reserve;
use super::pause::{pause, resume};
use super::process::send;
use super::ps::list_processes;
use super::removal;
use super::show::{list, print, print_state, records};
use super::start::start;
use super::state::{Directory, Status};
use super::told::Told;
use super::update::update;
use crate::error::RuntimeError;

/// Does what was asked; the exit code.
///
/// `warn` is told what a container does not get as it was asked for.
pub(super) fn run(arguments: &Arguments, warn: &dyn Fn(&str)) -> Result<u8, RuntimeError> {
    let not_built = |what: &str| Err(RuntimeError::NotBuilt(what.to_owned()));
    if arguments.cgroup_manager == CgroupManager::Disabled {
        return not_built("--cgroup-manager disabled");
    }
    if arguments.rootless == Rootless::True {
        return not_built("--rootless");
    }
    match &arguments.command {
        Command::Create(create) | Command::Run(RunArguments { create, .. }) => reserve(create.preserve_fds)?,
        Command::Exec(exec) => reserve(exec.preserve_fds)?,
        _ => {}
    }
    let directory = |id: &str| Directory::of(&arguments.root, id);
    match &arguments.command {
        Command::Create(create) => {
            let directory = directory(&create.id)?;
            create_waiting(create, &directory, warn).map(|()| 0)
        }
        Command::Start { id } => start(&directory(id)?, warn).map(|()| 0),
        Command::Run(run) => run_to_the_end(run, &directory(&run.create.id)?, warn),
        Command::State { id } => print_state(&directory(id)?).map(|()| 0),
        Command::Kill { id, signal, all } => kill(&directory(id)?, signal, *all).map(|()| 0),
        Command::Delete { id, regex: true, force } => {
            for id in matching(&arguments.root, id)? {
                delete(&directory(&id)?, *force, warn)?;
            }
            Ok(0)
        }
        Command::Delete { id, regex: false, force } => delete(&directory(id)?, *force, warn).map(|()| 0),
        Command::Exec(exec) => execute(exec, &directory(&exec.id)?, warn),
        Command::Pause { id } => pause(&directory(id)?).map(|()| 0),
        Command::Resume { id } => resume(&directory(id)?).map(|()| 0),
        Command::Update(arguments) => update(arguments, &directory(&arguments.id)?).map(|()| 0),
        Command::Ps(arguments) => list_processes(arguments, &directory(&arguments.id)?).map(|()| 0),
        Command::Events(arguments) => events(arguments, &directory(&arguments.id)?).map(|()| 0),
        Command::List { quiet, format } => list(&arguments.root, *quiet, format).map(|()| 0),
        Command::Spec { bundle } => write_spec(bundle).map(|()| 0),
        Command::Features => print(&features()).map(|()| 0),
        Command::Checkpoint(_) => not_built("checkpoint"),
        Command::Restore(_) => not_built("restore"),
    }
}

/// The ids of all containers that an expression matches somewhere.
fn matching(root: &Path, expression: &str) -> Result<Vec<String>, RuntimeError> {
    let expression = regex_lite::Regex::new(expression)
        .map_err(|error| RuntimeError::Invalid(format!("--regex {expression:?}: {error}")))?;
    Ok(records(root)?.into_iter().map(|record| record.id).filter(|id| expression.is_match(id)).collect())
}

fn kill(directory: &Directory, signal: &str, all: bool) -> Result<(), RuntimeError> {
    // 0 is no signal, and asks whether one could be sent (kill(2)).
    let number = if signal == "0" {
        0
    } else {
        let signal: Signal =
            signal.parse().map_err(|error: dozen_model::SignalError| RuntimeError::Invalid(error.to_string()))?;
        signal.number()
    };
    let record = directory.read()?;
    if all {
        return match record.cgroup()? {
            Some(cgroup) => cgroup.signal(number),
            None => Ok(()),
        };
    }
    match record.process() {
        Some(pidfd) => {
            send(&pidfd, number)?;
            // Version 1's freezer keeps even the killed.
            if number == libc::SIGKILL
                && let Some(cgroup) = record.cgroup()?
                && cgroup.is_paused()?
            {
                cgroup.resume()?;
            }
            Ok(())
        }
        None => Err(RuntimeError::Conflict("container not running".to_owned())),
    }
}

fn delete(directory: &Directory, force: bool, warn: &dyn Fn(&str)) -> Result<(), RuntimeError> {
    let record = match directory.read() {
        Err(RuntimeError::NotFound(_)) if force => return directory.remove(),
        record => record?,
    };
    let status = record.phase();
    if matches!(status, Status::Creating | Status::Running) && !force {
        return Err(RuntimeError::Conflict(format!(
            "cannot delete container {} that is not stopped: {status:?}",
            record.id
        )));
    }
    let told = match Told::of(directory, &record) {
        // The spec may have been removed by a `delete` that was killed before it came to the record.
        Err(error) if force => {
            warn(&format!("hooks after the container's end are not run: {error}"));
            None
        }
        told => told?,
    };
    removal::remove(directory, &record, told.as_ref(), warn)
}
