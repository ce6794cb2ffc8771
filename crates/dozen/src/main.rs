//! One binary: its first argument decides what it is, before any thread starts and before anything large is touched.

mod daemon;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    match (arguments.get(1).and_then(|mode| mode.to_str()), arguments.get(2)) {
        (Some("monitor"), cgroup) => dozen_monitor::main(cgroup.and_then(|cgroup| cgroup.to_str())),
        (Some("keeper"), Some(run_root)) => dozen_keeper::main(Path::new(run_root)),
        (Some("runtime"), _) => dozen_runtime::run_cli(arguments.into_iter().skip(1)),
        (Some("daemon"), _) => daemon::main(arguments.into_iter().skip(1)),
        _ => dozen_cli::main(arguments),
    }
}
