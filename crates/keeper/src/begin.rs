//! The keeper's process: how it begins.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use dozen_runtime::Cgroup;
use dozen_runtime::detach::{Side, detach, name};

use crate::failpoint::failpoint;
use crate::handover::Handover;
use crate::server::Server;
use crate::signals;

/// `dozen keeper RUN_ROOT [CGROUP]`, with standard input a stream to whoever started it: it reads `ready`, or why not.
///
/// Detaches itself: the process that was spawned ends at once. It lives in that cgroup from then on, if it can: what a
/// service's own cgroup has in it is killed when the service is stopped (systemd.kill(5)). Must be called while the
/// process has one thread.
pub fn main(run_root: &Path, cgroup: Option<&str>) -> ExitCode {
    match Handover::found() {
        Ok(None) => {}
        // Its starter is the program before it, which has detached; what cannot be taken over is given up, and the
        // engine starts a new keeper from the snapshot.
        Ok(Some((handover, descriptors))) => {
            name();
            return match Server::take_over(run_root, handover, descriptors).map(|mut server| server.serve()) {
                Ok(Ok(())) => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            };
        }
        Err(_) => return ExitCode::FAILURE,
    }
    failpoint("begin");
    let born_in_cgroup = match detach(cgroup) {
        Ok(Side::Spawned) => return ExitCode::SUCCESS,
        Ok(Side::Detached { born_in_cgroup }) => born_in_cgroup,
        Err(error) => return fail(&format!("cannot detach: {error}")),
    };
    signals::ignore();
    failpoint("begin.detached");
    if let Some(cgroup) = cgroup {
        let join = if born_in_cgroup { Cgroup::join_version_1 } else { Cgroup::join };
        // One that cannot serves all the same, where it is; the next engine tries again and says why.
        let _ = join(cgroup);
    }
    failpoint("begin.settled");
    let mut server = match Server::begin(run_root) {
        Ok(server) => server,
        Err(message) => return fail(&message),
    };
    tell("ready\n");
    failpoint("begin.ready");
    match server.serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(message: &str) -> ExitCode {
    tell(message);
    ExitCode::FAILURE
}

/// Says it on standard input's socket, and hangs up.
fn tell(words: &str) {
    let Ok(stream) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else { return };
    // Whoever started us may be gone; that changes nothing.
    let _ = UnixStream::from(stream).write_all(words.as_bytes());
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
}
