//! The standard command line of OCI runtimes (runtime-spec, runtime.md and the runtime-tools' "command line interface").
//!
//! `create` and `start` are two processes. Between them the container's first process waits for a connection to
//! `<root>/<id>/start.sock`, a listening socket that it was given.

mod arguments;
mod bundle;
mod commands;
mod create;
mod events;
mod exec;
mod features;
mod listening;
mod notify;
mod pause;
mod process;
mod ps;
mod removal;
mod resctrl;
mod show;
mod start;
mod start_socket;
mod state;
mod terminal;
mod told;
mod update;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use dozen_model::Classified;

use self::arguments::{Arguments, Command, LogFormat};
use crate::error::RuntimeError;
use crate::{init, own_binary, sys};

/// The version of the runtime specification that is spoken.
const SPEC_VERSION: &str = "1.2.0";
/// What `--version` says, a fact a line as engines read it, and parts of it that can be absent elsewhere.
const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0\n+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF");

/// `dozen runtime …`, and `dozen-runtime …` for engines whose `--runtime` is a path alone; the first argument is a program's name and not looked at.
pub fn run_cli(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Our own init, before anything large is touched.
    if arguments.get(1).is_some_and(|word| word == "init") {
        return init::run(arguments.into_iter().skip(2));
    }
    // Before anything else is done, since it is done anew after.
    if let Err(error) = protect(&arguments) {
        let _ = writeln!(std::io::stderr(), "dozen runtime: {error}");
        return ExitCode::FAILURE;
    }
    let parsed = match Arguments::try_parse_from(&arguments) {
        Ok(parsed) => parsed.settle(),
        Err(error) => {
            // clap knows by itself whether this is for stdout (--help) or stderr; a closed one is no matter.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    let warn = |warning: &str| {
        if let Some(log) = &parsed.log {
            // The container is there all the same.
            let _ = write_log(log, parsed.log_format, "warning", warning);
        }
    };
    match commands::run(&parsed, &warn) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report(&parsed, &error);
            // A further process that did not come to be is told from one that ended with 1.
            if matches!(parsed.command, Command::Exec(_)) { ExitCode::from(255) } else { ExitCode::FAILURE }
        }
    }
}

/// Starts this very command anew from a read-only mount of our binary, which no container can write to.
fn protect(arguments: &[OsString]) -> Result<(), RuntimeError> {
    use std::os::unix::ffi::OsStrExt;
    if own_binary::is_protected()? {
        return Ok(());
    }
    let binary = own_binary::own_binary()?;
    let string = |text: &std::ffi::OsStr| {
        std::ffi::CString::new(text.as_bytes())
            .map_err(|_| RuntimeError::Invalid("an argument contains a null byte".to_owned()))
    };
    let mut command = vec![c"dozen".to_owned(), c"runtime".to_owned()];
    for argument in arguments.iter().skip(1) {
        command.push(string(argument)?);
    }
    let environment: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| string(&[name, value].join(std::ffi::OsStr::new("="))).ok())
        .collect();
    let errno = sys::execute_descriptor(binary.as_fd(), &command, &environment);
    Err(RuntimeError::system("execute our own binary from a read-only mount", errno))
}

/// To stderr for people, and to --log for those who have named one.
fn report(arguments: &Arguments, error: &RuntimeError) {
    let mut stderr = std::io::stderr();
    // A closed stderr is no reason to fail otherwise.
    let _ = writeln!(stderr, "dozen runtime: {error}");
    if let Some(hint) = error.hint() {
        let _ = writeln!(stderr, "hint: {hint}");
    }
    if let Some(log) = &arguments.log {
        let _ = write_log(log, arguments.log_format, "error", &error.to_string());
    }
}

/// One line; engines read the last of level `error` as the reason of a failure.
fn write_log(path: &Path, format: LogFormat, level: &str, message: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    match format {
        LogFormat::Text => writeln!(file, "level={level} msg={message:?}"),
        LogFormat::Json => {
            writeln!(file, "{}", serde_json::json!({ "level": level, "msg": message, "time": state::now() }))
        }
    }
}
