//! One binary: its first argument decides what it is, before any thread starts and before anything large is touched.

mod daemon;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    match arguments.get(1).and_then(|mode| mode.to_str()) {
        Some("monitor") => dozen_monitor::main(),
        Some("keeper") => dozen_keeper::main(),
        Some("runtime") => dozen_runtime::run_cli(arguments.into_iter().skip(1)),
        Some("daemon") => daemon::main(arguments.into_iter().skip(1)),
        _ => dozen_cli::main(arguments),
    }
}
