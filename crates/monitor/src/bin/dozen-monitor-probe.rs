//! `dozen-monitor-probe monitor`: the monitor alone, for this crate's tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    dozen_monitor::main(std::env::args().nth(2).as_deref())
}
