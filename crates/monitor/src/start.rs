//! From the spawned process to the running container: the sequence drawn in [`crate::protocol`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use dozen_model::ErrorKind;
use dozen_runtime::detach::{self, Side};

use crate::failpoint::failpoint;
use crate::failure::{complain, internal};
use crate::isolate::Isolate;
use crate::log::ContainerLog;
use crate::monitor::{Files, Monitor};
use crate::protocol::{Failure, LogSettings, StartReply, StartRequest, VERSION};
use crate::session::{self, Session, Wanted};
use crate::{lock, packet, signals};

/// Runs the whole life of a monitor.
pub fn main(isolate: &mut dyn Isolate, cgroup: Option<&str>) -> ExitCode {
    failpoint("begin");
    let born_in_cgroup = match detach::detach(cgroup) {
        Ok(Side::Spawned) => return ExitCode::SUCCESS,
        Ok(Side::Detached { born_in_cgroup }) => born_in_cgroup,
        Err(_) => return ExitCode::FAILURE,
    };
    signals::prepare();
    let Ok(pair) = take_pair() else { return ExitCode::FAILURE };
    failpoint("detached");
    let begun = begin(isolate, &pair, born_in_cgroup);
    let monitor = match begun {
        Ok(monitor) => monitor,
        Err(failure) => {
            // An engine that is gone finds nothing, which is what is left.
            let _ = packet::send(pair.as_fd(), &StartReply::Failed(failure), None);
            return ExitCode::FAILURE;
        }
    };
    match monitor.run(pair) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("the monitor's loop failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Moves the pair away from descriptor 0, so that no child gets it.
fn take_pair() -> io::Result<OwnedFd> {
    let pair = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(pair)
}

/// Up to the container that stands and waits, and the socket that listens.
fn begin<'a>(isolate: &'a mut dyn Isolate, pair: &OwnedFd, born_in_cgroup: bool) -> Result<Monitor<'a>, Failure> {
    let (request, descriptor) =
        packet::receive::<StartRequest>(pair.as_fd()).map_err(|error| internal("read the start request", &error))?;
    if request.version > VERSION {
        return Err(Failure {
            kind: ErrorKind::Internal,
            message: format!("this monitor speaks version {VERSION} of its protocol, the engine {}", request.version),
            hint: None,
        });
    }
    if request.network_namespace_attached != descriptor.is_some() {
        return Err(internal("take the network namespace", &io::Error::other("its descriptor did not come along")));
    }
    failpoint("asked");
    let run_directory = request.run_directory.clone();
    let lock = lock::take(&run_directory)
        .map_err(|error| internal(&format!("lock {}", run_directory.join("monitor.lock").display()), &error))?;
    failpoint("locked");
    isolate.settle(&request, born_in_cgroup);
    failpoint("settled");
    let data_directory = request.data_directory.clone();
    let log = ContainerLog::open(&data_directory, &request.log)
        .map_err(|error| log_failure(&data_directory, &request.log, &error))?;
    failpoint("log");
    let listener = listen(&run_directory)
        .map_err(|error| internal(&format!("listen at {}", run_directory.join("monitor.sock").display()), &error))?;
    failpoint("listening");
    let files = Files { data_directory, run_directory, log, lock: Some(lock), listener: Some(listener) };
    match create(isolate, request, descriptor) {
        Ok((session, stdin_once)) => Monitor::new(isolate, files, session, stdin_once),
        Err(failure) => {
            files.remove_socket();
            Err(failure)
        }
    }
}

/// In Docker's words, where it is a server that cannot be reached.
fn log_failure(data_directory: &Path, settings: &LogSettings, error: &io::Error) -> Failure {
    match &settings.remote {
        Some(remote) => Failure {
            kind: ErrorKind::Unavailable,
            message: format!("failed to initialize logging driver: connect to {}: {error}", remote.address),
            hint: None,
        },
        None => internal(&format!("open the log in {}", data_directory.display()), error),
    }
}

fn create(
    isolate: &mut dyn Isolate,
    request: StartRequest,
    network_namespace: Option<OwnedFd>,
) -> Result<(Session, bool), Failure> {
    let terminal = request.spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    let wanted = Wanted { stdin: request.stdin_open, stdout: true, stderr: true };
    let (streams, ends) =
        session::streams(wanted, terminal, None).map_err(|error| internal("make pipes", &error.into()))?;
    let stdin_once = request.stdin_once;
    failpoint("create.before");
    let process = isolate.create(request, network_namespace, streams)?;
    failpoint("create.after");
    match Session::new(0, None, process, ends) {
        Ok(session) => Ok((session, stdin_once)),
        Err(error) => {
            isolate.undo();
            Err(internal("take over the container's streams", &error.into()))
        }
    }
}

/// Listens on `<run_directory>/monitor.sock`, for root alone. Relative to the directory, since an address holds no
/// more than 108 bytes (unix(7)).
fn listen(run_directory: &Path) -> io::Result<OwnedFd> {
    rustix::process::chdir(run_directory)?;
    let listen = || -> io::Result<OwnedFd> {
        // We hold the lock: whoever made it is dead.
        match std::fs::remove_file("monitor.sock") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let listener = std::os::unix::net::UnixListener::bind("monitor.sock");
        rustix::process::umask(before);
        Ok(listener?.into())
    };
    let listener = listen();
    rustix::process::chdir("/")?;
    listener
}
