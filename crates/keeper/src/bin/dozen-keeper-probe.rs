//! `dozen-keeper-probe keeper RUN_ROOT [CGROUP]`: the keeper alone, for this crate's tests.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(mode), Some(run_root)) if mode == "keeper" => {
            let cgroup = arguments.next();
            dozen_keeper::main(&PathBuf::from(run_root), cgroup.as_deref().and_then(|cgroup| cgroup.to_str()))
        }
        _ => ExitCode::from(2),
    }
}
