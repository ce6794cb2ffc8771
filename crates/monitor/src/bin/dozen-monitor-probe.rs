//! `dozen-monitor-probe monitor`: the monitor alone, for this crate's tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    dozen_monitor::main()
}
