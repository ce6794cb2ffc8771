//! `dozen runtime` by itself, for the tests: one thread and the runtime's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    dozen_runtime::run_cli(std::env::args_os().skip(1))
}
