//! `create`, and with the start at once: `run`.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::arguments::{CreateArguments, RunArguments};
use super::bundle::{Bundle, read_bundle};
use super::listening;
use super::notify::Notify;
use super::process::{Signals, send_terminal, stdio, wait_and_forward, write_pid};
use super::removal;
use super::resctrl::{self, Group, Resctrl};
use super::show::records;
use super::start::pass_on;
use super::start_socket::listen;
use super::state::{self, Directory, Record, Status};
use super::terminal::{carry, write_plain_lines};
use super::told::Told;
use crate::Spec;
use crate::cgroup::Cgroup;
use crate::create::{self, CreateOptions, Created, Root, Stdio};
use crate::error::RuntimeError;
use crate::failpoint::failpoint;

pub(super) fn create_waiting(
    create: &CreateArguments,
    directory: &Directory,
    warn: &dyn Fn(&str),
) -> Result<(), RuntimeError> {
    let bundle = read_bundle(create)?;
    bundle.warnings.iter().for_each(|warning| warn(warning));
    let terminal = wants_terminal(&bundle.spec);
    if terminal && create.console_socket.is_none() {
        return Err(no_console_socket());
    }
    directory.make()?;
    let result = (|| {
        let listener = listen(directory)?;
        let (_, spec) = speaking(&bundle.spec, directory)?;
        let stdio = stdio(&bundle.spec, terminal, false)?;
        let mut created = make(create, &bundle, &spec, directory, Some(listener), stdio)?;
        created.warnings().iter().for_each(|warning| warn(warning));
        if let (Some(socket), Some(master)) = (&create.console_socket, created.terminal()) {
            send_terminal(socket, &master)?;
        }
        created.leave();
        Ok(())
    })();
    result.inspect_err(|_: &RuntimeError| abandon(directory))
}

/// The id is free again, unless there is something of this name that could not be undone: `delete --force` finds it then.
fn abandon(directory: &Directory) {
    let is_gone = |record: Record| {
        record.process().is_none()
            && matches!(record.cgroup(), Ok(None))
            // Without an identity it was somebody else's, and has stayed as it was.
            && record.cgroup_identity.is_none_or(|identity| Cgroup::sweep(&record.cgroup, Some(identity)).is_ok())
    };
    if directory.read().map_or(true, is_gone) {
        // What cannot be removed is there to be seen.
        let _ = directory.remove();
    }
}

pub(super) fn run_to_the_end(
    run: &RunArguments,
    directory: &Directory,
    warn: &dyn Fn(&str),
) -> Result<u8, RuntimeError> {
    let create = &run.create;
    let bundle = read_bundle(create)?;
    bundle.warnings.iter().for_each(|warning| warn(warning));
    let terminal = wants_terminal(&bundle.spec);
    if terminal && run.detach && create.console_socket.is_none() {
        return Err(no_console_socket());
    }
    let told = Told::of_spec(&bundle.spec, &create.id, &bundle.path)?;
    directory.make()?;
    let (mut master, mut listening) = (None, None);
    let started = (|| {
        let (notify, spec) = speaking(&bundle.spec, directory)?;
        listening = notify.map_or(Ok(None), |notify| notify.listen(&spec))?;
        let stdio = stdio(&bundle.spec, terminal, create.console_socket.is_none())?;
        let mut created = make(create, &bundle, &spec, directory, None, stdio)?;
        created.warnings().iter().for_each(|warning| warn(warning));
        master = created.terminal();
        if let Some(socket) = &create.console_socket
            && let Some(master) = master.take()
        {
            send_terminal(socket, &master)?;
        }
        if let Some(master) = &master {
            write_plain_lines(master)?;
        }
        created.start()
    })();
    let running = started.inspect_err(|_| abandon(directory))?;
    if run.detach {
        pass_on(listening, running.pidfd.as_fd(), Some(running.pid), warn);
        return Ok(0);
    }
    let follow = || match master {
        Some(master) => carry(&running.pidfd, master),
        None => wait_and_forward(&running.pidfd),
    };
    let code = match listening {
        None => follow(),
        // Before there is another thread, which would take them.
        Some(_) => Signals::take().and_then(|_| {
            std::thread::scope(|scope| {
                let worker = scope.spawn(|| listening.map(|listening| listening.wait(running.pidfd.as_fd(), None)));
                let code = follow();
                if let Ok(Some(Err(error))) = worker.join() {
                    warn(&error.to_string());
                }
                code
            })
        }),
    };
    if run.keep {
        return code;
    }
    match directory.read() {
        // Somebody has deleted it meanwhile.
        Err(RuntimeError::NotFound(_)) => {}
        record => removal::remove(directory, &record?, told.as_ref(), warn)?,
    }
    code
}

/// The words of runc and of crun.
pub(super) fn no_console_socket() -> RuntimeError {
    RuntimeError::Invalid(
        "cannot allocate tty if runc will detach without setting console socket: use --console-socket".to_owned(),
    )
}

/// The spec of a container that may speak to those to whom we may, and hear for us: the sockets that we were given.
fn speaking<'a>(spec: &'a Spec, directory: &Directory) -> Result<(Option<Notify>, Cow<'a, Spec>), RuntimeError> {
    let mut spec = Cow::Borrowed(spec);
    let listening = listening::count();
    if listening > 0 {
        spec.to_mut().process_mut().iter_mut().for_each(|process| listening::tell(process, listening));
    }
    let notify = Notify::of_environment(directory)?;
    if let Some(notify) = &notify {
        notify.tell(spec.to_mut())?;
    }
    // Seen to by `make`.
    if let Some(linux) = spec.linux().as_ref().filter(|linux| linux.intel_rdt().is_some()) {
        let mut linux = linux.clone();
        linux.set_intel_rdt(None);
        spec.to_mut().set_linux(Some(linux));
    }
    Ok((notify, spec))
}

/// Creates; `listener` is for a start by another process.
fn make(
    create: &CreateArguments,
    bundle: &Bundle,
    spec: &Spec,
    directory: &Directory,
    listener: Option<OwnedFd>,
    stdio: Stdio,
) -> Result<Created, RuntimeError> {
    let mut record = Record {
        id: create.id.clone(),
        pid: 0,
        start_time: 0,
        bundle: bundle.path.clone(),
        rootfs: match &bundle.root {
            Root::Directory(path) => path.clone(),
            Root::Overlay { .. } => PathBuf::new(),
        },
        cgroup: bundle.cgroup.clone(),
        cgroup_identity: None,
        created: state::now(),
        started: false,
        resctrl_group: None,
        keeps_keyring: create.no_new_keyring,
        is_told: Told::of_spec(&bundle.spec, &create.id, &bundle.path)?.is_some(),
        annotations: bundle.spec.annotations().clone(),
    };
    let group = Group::of_spec(&bundle.spec, &create.id)?;
    let resctrl = group.map(|group| Resctrl::mounted().map(|resctrl| (resctrl, group))).transpose()?;
    record.resctrl_group =
        resctrl.as_ref().filter(|(resctrl, group)| resctrl.lacks(group)).map(|(_, group)| group.name.clone());
    failpoint("command.create.directory");
    directory.write_spec(&bundle.config)?;
    directory.begin(&record)?;
    failpoint("command.create.record");
    take_cgroup(directory, &record)?;
    let undo = |record: &Record| drop(resctrl::remove(record.resctrl_group.as_ref()));
    if let Some((resctrl, group)) = &resctrl {
        resctrl.enter(group, std::process::id()).inspect_err(|_| undo(&record))?;
    }
    let listening = listening::count();
    // `run` starts it at once: nobody sees it wait.
    let is_started_at_once = listener.is_none();
    let created = create::create_with(
        CreateOptions {
            id: &create.id,
            spec,
            bundle: &bundle.path,
            root: &bundle.root,
            cgroup: &bundle.cgroup,
            network_namespace: None,
            user: None,
            group_names: &[],
            stdio,
            init: create.init,
            preserve_descriptors: create.preserve_fds.saturating_add(listening),
            keep_session_keyring: create.no_new_keyring,
        },
        listener,
        listening > 0,
        &mut |cgroup, is_new| {
            if !is_new {
                return Err(RuntimeError::Conflict(format!(
                    "cgroup {} is in use: another has just made it",
                    record.cgroup
                )));
            }
            record.cgroup_identity = Some(cgroup.pin()?);
            directory.write(&record)?;
            failpoint("command.create.cgroup");
            Ok(())
        },
    );
    let created = created.inspect_err(|_| undo(&record))?;
    failpoint("command.create.created");
    record.pid = created.pid();
    record.started = is_started_at_once;
    record.start_time = state::start_time(created.pid()).unwrap_or(0);
    directory.write(&record)?;
    failpoint("command.create.process");
    if let Some(file) = &create.pid_file {
        write_pid(file, created.pid())?;
        failpoint("command.create.pid_file");
    }
    Ok(created)
}

/// Who is in a container's cgroup ends with the container: no one may be there before it, nor another container be of
/// the mind that it is its own. What one that has stopped has left goes, and it is told from the new one by that.
fn take_cgroup(directory: &Directory, record: &Record) -> Result<(), RuntimeError> {
    let name = &record.cgroup;
    if Cgroup::open(name)?.is_none() {
        return Ok(());
    }
    // Of two that are being created each has written its record before it comes here, so one sees the other.
    let has_it = |other: &&Record| other.cgroup == *name && other.id != record.id && other.phase() != Status::Stopped;
    if let Some(other) = records(directory.root())?.iter().find(has_it) {
        return Err(RuntimeError::Conflict(format!("cgroup {name} is in use: by container {}", other.id)));
    }
    Cgroup::vacate(name)
}

fn wants_terminal(spec: &Spec) -> bool {
    spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false)
}
