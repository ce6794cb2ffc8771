//! One binary: its first argument decides what it is, before any thread starts and before anything large is touched.

mod addresses;
mod arguments;
mod configuration;
mod daemon;
mod defaults;
mod group;
mod inherited;
mod listening;
mod log;
mod notify;
mod own_registry;
mod registries;
mod registry;
mod rest;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let text = |index: usize| arguments.get(index).and_then(|argument: &OsString| argument.to_str());
    // An engine's `--runtime` is a path without arguments: the name that dozen is called by then stands for the word.
    if arguments.first().and_then(|name| Path::new(name).file_name()).is_some_and(|name| name == "dozen-runtime") {
        return dozen_runtime::run_cli(arguments);
    }
    match (text(1), arguments.get(2)) {
        (Some("monitor"), _) => dozen_monitor::main(text(2)),
        (Some("keeper"), Some(run_root)) => dozen_keeper::main(Path::new(run_root), text(3)),
        (Some("runtime"), _) => dozen_runtime::run_cli(arguments.into_iter().skip(1)),
        (Some("daemon"), _) => daemon::main(arguments.into_iter().skip(1)),
        (Some("registry"), _) => registry::main(arguments.into_iter().skip(1)),
        _ => dozen_cli::main(arguments),
    }
}
