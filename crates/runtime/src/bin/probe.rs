//! `dozen runtime` by itself, for the tests: one thread, the runtime's command line, dozen's own init.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    match arguments.next() {
        Some(name) if name == dozen_runtime::INIT_NAME => dozen_runtime::run_init(arguments),
        _ => dozen_runtime::run_cli(arguments),
    }
}
