//! `exec`.

use std::fs;

use dozen_model::UserSpec;

use super::arguments::ExecArguments;
use super::process::{send_terminal, stdio, wait_and_forward, write_pid};
use super::state::Directory;
use crate::about::About;
use crate::cgroup::Cgroup;
use crate::create::Running;
use crate::error::{Context, RuntimeError};
use crate::exec::{ExecOptions, exec};
use crate::reading::read_process;

pub(super) fn execute(
    arguments: &ExecArguments,
    directory: &Directory,
    warn: &dyn Fn(&str),
) -> Result<u8, RuntimeError> {
    let record = directory.read()?;
    let (Some(pidfd), Some(cgroup)) = (record.process(), Cgroup::open(&record.cgroup)?) else {
        return Err(RuntimeError::Conflict("cannot exec in a stopped container".to_owned()));
    };
    // It would stand still with the others before it has said anything.
    if cgroup.is_paused()? {
        return Err(RuntimeError::Conflict("cannot exec in a paused container".to_owned()));
    }
    let mut spec = directory.read_spec()?;
    let mut user = UserSpec::default();
    let mut terminal = arguments.tty;
    let (command, environment, cwd) = match &arguments.process {
        Some(file) => {
            let bytes = fs::read(file).context(|| format!("read {}", file.display()))?;
            let (process, warnings) =
                read_process(&bytes).map_err(|error| RuntimeError::Invalid(format!("{}: {error}", file.display())))?;
            warnings.iter().for_each(|warning| warn(warning));
            terminal |= process.terminal().unwrap_or(false);
            let parts = (
                process.args().clone().unwrap_or_default(),
                process.env().clone().unwrap_or_default(),
                Some(process.cwd().display().to_string()),
            );
            spec.set_process(Some(process));
            parts
        }
        None => {
            if let Some(text) = &arguments.user {
                user = text
                    .parse()
                    .map_err(|error: dozen_model::UserSpecError| RuntimeError::Invalid(error.to_string()))?;
            }
            let own = spec.process().as_ref().and_then(|process| process.env().clone()).unwrap_or_default();
            (arguments.command.clone(), own.into_iter().chain(arguments.env.clone()).collect(), arguments.cwd.clone())
        }
    };
    if terminal && arguments.console_socket.is_none() {
        return Err(RuntimeError::NotBuilt(
            "`dozen runtime exec` with a terminal of its own, without --console-socket,".to_owned(),
        ));
    }
    let about = Some(About::new(&record.id, &record.bundle, &spec));
    let process = exec(ExecOptions {
        container: &Running { pid: record.pid, pidfd, cgroup, user: None, about },
        spec: &spec,
        arguments: &command,
        environment: &environment,
        working_directory: cwd.as_deref(),
        user: &user,
        keep_session_keyring: record.keeps_keyring,
        privileged: false,
        stdio: stdio(&spec, terminal)?,
    })?;
    if let (Some(socket), Some(master)) = (&arguments.console_socket, &process.terminal) {
        send_terminal(socket, master)?;
    }
    if let Some(file) = &arguments.pid_file {
        write_pid(file, process.pid)?;
    }
    if arguments.detach { Ok(0) } else { wait_and_forward(&process.pidfd) }
}
