//! `exec`.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path};

use dozen_model::UserSpec;
use oci_spec::runtime::{Capability, Process};

use super::arguments::ExecArguments;
use super::create::no_console_socket;
use super::listening;
use super::process::{send_terminal, stdio, wait_and_forward, write_pid};
use super::resctrl::{Group, Resctrl};
use super::state::Directory;
use super::terminal::{carry, write_plain_lines};
use crate::Spec;
use crate::about::About;
use crate::cgroup::Cgroup;
use crate::create::Running;
use crate::error::{Context, RuntimeError};
use crate::exec::{ExecOptions, exec_at};
use crate::reading::read_process;

pub(super) fn execute(
    arguments: &ExecArguments,
    directory: &Directory,
    warn: &dyn Fn(&str),
) -> Result<u8, RuntimeError> {
    let record = directory.read()?;
    let (Some(pidfd), Some(cgroup)) = (record.process(), record.cgroup()?) else {
        return Err(RuntimeError::Conflict("cannot exec in a stopped container".to_owned()));
    };
    // It would stand still with the others before it has said anything.
    if !arguments.ignore_paused && cgroup.is_paused()? {
        return Err(RuntimeError::Conflict(
            "cannot exec in a paused container (use --ignore-paused to override)".to_owned(),
        ));
    }
    let cgroup = match &arguments.cgroup {
        Some(below) => inner_cgroup(&record.cgroup, below)?,
        None => cgroup,
    };
    let mut spec = directory.read_spec()?;
    // Numbers are as they are, and leave the further groups alone; names are looked up in the container.
    let numbers = arguments.user.as_deref().and_then(numbers);
    let user = match &arguments.user {
        Some(text) if numbers.is_none() => {
            text.parse().map_err(|error: dozen_model::UserSpecError| RuntimeError::Invalid(error.to_string()))?
        }
        _ => UserSpec::default(),
    };
    let mut process = match &arguments.process {
        Some(file) => given_process(file, &spec, warn)?,
        None => described_process(arguments, &spec, numbers)?,
    };
    let listening = listening::count();
    if listening > 0 {
        listening::tell(&mut process, listening);
    }
    let terminal = arguments.tty || process.terminal().unwrap_or(false);
    if terminal && arguments.detach && arguments.console_socket.is_none() {
        return Err(no_console_socket());
    }
    let (command, environment) =
        (process.args().clone().unwrap_or_default(), process.env().clone().unwrap_or_default());
    spec.set_process(Some(process));
    if let Some(group) = Group::of_spec(&spec, &record.id)? {
        Resctrl::mounted()?.join(&group.name, std::process::id())?;
    }
    let about = Some(About::new(&record.id, &record.bundle, &spec));
    let options = ExecOptions {
        container: &Running { pid: record.pid, pidfd, cgroup, user: None, group_names: Vec::new(), about },
        spec: &spec,
        arguments: &command,
        environment: &environment,
        working_directory: None,
        user: &user,
        keep_session_keyring: record.keeps_keyring,
        privileged: false,
        stdio: stdio(&spec, terminal, arguments.console_socket.is_none())?,
        preserve_descriptors: arguments.preserve_fds.saturating_add(listening),
    };
    let mut process = exec_at(options, listening > 0, |master| match arguments.console_socket {
        Some(_) => Ok(()),
        None => write_plain_lines(master),
    })?;
    if let Some(socket) = &arguments.console_socket
        && let Some(master) = process.terminal.take()
    {
        send_terminal(socket, &master)?;
    }
    if let Some(file) = &arguments.pid_file {
        write_pid(file, process.pid)?;
    }
    match process.terminal {
        _ if arguments.detach => Ok(0),
        Some(master) => carry(&process.pidfd, master),
        None => wait_and_forward(&process.pidfd),
    }
}

/// What `--process` names. Rights, limits and labels that it says nothing of are the container's.
fn given_process(file: &Path, spec: &Spec, warn: &dyn Fn(&str)) -> Result<Process, RuntimeError> {
    let bytes = fs::read(file).context(|| format!("read {}", file.display()))?;
    let invalid = |error: serde_json::Error| RuntimeError::Invalid(format!("{}: {error}", file.display()));
    let mut value: serde_json::Value = serde_json::from_slice(&bytes).map_err(invalid)?;
    // Go's zero value: runc and crun take a process without a user for root's.
    if let Some(fields) = value.as_object_mut() {
        fields.entry("user").or_insert_with(|| serde_json::json!({"uid": 0, "gid": 0}));
    }
    let (mut process, warnings) = read_process(value.to_string().as_bytes()).map_err(invalid)?;
    warnings.iter().for_each(|warning| warn(warning));
    if let Some(own) = spec.process() {
        if process.capabilities().is_none() {
            process.set_capabilities(own.capabilities().clone());
        }
        if process.rlimits().is_none() {
            process.set_rlimits(own.rlimits().clone());
        }
        // As with runc: an engine that names none does not mean a process that is not confined.
        let says_nothing = |label: &Option<String>| label.as_ref().is_none_or(String::is_empty);
        if says_nothing(process.apparmor_profile()) {
            process.set_apparmor_profile(own.apparmor_profile().clone());
        }
        if says_nothing(process.selinux_label()) {
            process.set_selinux_label(own.selinux_label().clone());
        }
    }
    Ok(process)
}

/// The container's own process, changed as the command line says.
fn described_process(
    arguments: &ExecArguments,
    spec: &Spec,
    numbers: Option<(u32, Option<u32>)>,
) -> Result<Process, RuntimeError> {
    let own = spec.process().as_ref();
    let mut process = own.cloned().ok_or_else(|| RuntimeError::Invalid("the spec has no process".to_owned()))?;
    let mut environment = process.env().clone().unwrap_or_default();
    for variable in &arguments.env {
        let name = |entry: &str| entry.split('=').next().map(str::to_owned);
        environment.retain(|entry| name(entry) != name(variable));
        environment.push(variable.clone());
    }
    process.set_env(Some(environment)).set_args(Some(arguments.command.clone())).set_terminal(Some(arguments.tty));
    process.set_console_size(None);
    if let Some(cwd) = &arguments.cwd {
        process.set_cwd(cwd.into());
    }
    if let Some((uid, gid)) = numbers {
        let gid = gid.unwrap_or(process.user().gid());
        process.user_mut().set_uid(uid).set_gid(gid);
    }
    if !arguments.additional_gids.is_empty() {
        let groups = process.user().additional_gids().iter().flatten().chain(&arguments.additional_gids);
        let groups = groups.copied().collect();
        process.user_mut().set_additional_gids(Some(groups));
    }
    if !arguments.cap.is_empty() {
        add_capabilities(&mut process, &arguments.cap);
    }
    if arguments.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &arguments.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &arguments.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    Ok(process)
}

/// `uid` or `uid:gid`.
fn numbers(user: &str) -> Option<(u32, Option<u32>)> {
    match user.split_once(':') {
        Some((uid, gid)) => Some((uid.parse().ok()?, Some(gid.parse().ok()?))),
        None => Some((user.parse().ok()?, None)),
    }
}

/// To all sets but the inheritable (CVE-2022-29162) and the ambient one. Names that nobody knows are left out, as the
/// specification wants it of the spec's.
fn add_capabilities(process: &mut Process, names: &[String]) {
    let named: HashSet<Capability> = names.iter().filter_map(|name| capability(name)).collect();
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<HashSet<Capability>>| Some(set.iter().flatten().chain(&named).copied().collect());
    let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
}

fn capability(name: &str) -> Option<Capability> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
}

/// A cgroup below the container's own, which is there.
fn inner_cgroup(container: &str, below: &str) -> Result<Cgroup, RuntimeError> {
    if below.contains(':') {
        return Err(RuntimeError::NotBuilt("--cgroup with a controller's name".to_owned()));
    }
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir | Component::RootDir);
    if !Path::new(below).components().all(plain) {
        return Err(RuntimeError::Invalid(format!("{below:?} is not a sub cgroup path")));
    }
    let name = format!("{}/{}", container.trim_end_matches('/'), below.trim_start_matches('/'));
    Cgroup::open(name.trim_end_matches('/'))?
        .ok_or_else(|| RuntimeError::NotFound(format!("cgroup {name} does not exist")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_a_label_has_the_containers() {
        let spec = |process: &str| -> Spec {
            serde_json::from_str(&format!(r#"{{"ociVersion": "1.2.0", "process": {process}}}"#)).unwrap()
        };
        let container = spec(
            r#"{"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["x"], "apparmorProfile": "tight", "selinuxLabel": "a:b:c:s0"}"#,
        );
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("process.json");
        for (json, profile) in [
            (r#"{"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["y"]}"#, "tight"),
            (r#"{"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["y"], "apparmorProfile": ""}"#, "tight"),
            (r#"{"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["y"], "apparmorProfile": "other"}"#, "other"),
        ] {
            fs::write(&file, json).unwrap();
            let process = given_process(&file, &container, &|_| {}).unwrap();
            assert_eq!(process.apparmor_profile().as_deref(), Some(profile), "{json}");
            assert_eq!(process.selinux_label().as_deref(), Some("a:b:c:s0"));
        }
    }
}
