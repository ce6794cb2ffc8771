//! The commands themselves.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use dozen_model::{CapabilityChange, SeccompChoice, Signal, UserSpec};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus};

use super::arguments::{Arguments, Command, CreateArguments, ExecArguments};
use super::state::{self, Directory, Record, Status};
use crate::Spec;
use crate::cgroup::Cgroup;
use crate::create::{self, CreateOptions, Created, Root, Running, Stdio};
use crate::default_spec::{self, DefaultSpec};
use crate::error::{Context, RuntimeError};
use crate::exec::{ExecOptions, exec};
use crate::failpoint::failpoint;

/// Does what was asked; the exit code.
/// `warn` is told what a container does not get as it was asked for.
pub(super) fn run(arguments: &Arguments, warn: &dyn Fn(&str)) -> Result<u8, RuntimeError> {
    if arguments.systemd_cgroup {
        return Err(RuntimeError::NotBuilt("--systemd-cgroup".to_owned()));
    }
    let directory = |id: &str| Directory::of(&arguments.root, id);
    match &arguments.command {
        Command::Create(create) => {
            let directory = directory(&create.id)?;
            create_waiting(create, &directory, warn).map(|()| 0)
        }
        Command::Start { id } => start(&directory(id)?).map(|()| 0),
        Command::Run(create) => run_to_the_end(create, &directory(&create.id)?, warn),
        Command::State { id } => print_state(&directory(id)?).map(|()| 0),
        Command::Kill { id, signal, all } => kill(&directory(id)?, signal, *all).map(|()| 0),
        Command::Delete { id, force } => delete(&directory(id)?, *force).map(|()| 0),
        Command::Exec(exec) => execute(exec, &directory(&exec.id)?),
        Command::List { quiet, format } => list(&arguments.root, *quiet, format).map(|()| 0),
        Command::Spec { bundle } => write_spec(bundle).map(|()| 0),
        Command::Features => print(&features()).map(|()| 0),
    }
}

fn print(value: &serde_json::Value) -> Result<(), RuntimeError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
    writeln!(io::stdout(), "{text}").context(|| "write to standard output".to_owned())
}

/// A bundle, read.
struct Bundle {
    path: PathBuf,
    spec: Spec,
    /// The spec as it was read.
    config: Vec<u8>,
    root: Root,
    cgroup: String,
}

fn read_bundle(create: &CreateArguments) -> Result<Bundle, RuntimeError> {
    if create.no_pivot {
        return Err(RuntimeError::NotBuilt("--no-pivot".to_owned()));
    }
    let path = fs::canonicalize(&create.bundle).context(|| format!("open bundle {}", create.bundle.display()))?;
    let config = path.join("config.json");
    let bytes = fs::read(&config).context(|| format!("read {}", config.display()))?;
    let spec: Spec = serde_json::from_slice(&bytes)
        .map_err(|error| RuntimeError::Invalid(format!("{}: {error}", config.display())))?;
    let root = spec.root().as_ref().ok_or_else(|| RuntimeError::Invalid("the spec has no root".to_owned()))?;
    let root = path.join(root.path());
    if !root.is_dir() {
        return Err(RuntimeError::Invalid(format!("invalid rootfs: {} is no directory", root.display())));
    }
    let cgroup = match spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref()) {
        Some(path) if !path.as_os_str().is_empty() => {
            format!("/{}", path.display().to_string().trim_start_matches('/'))
        }
        _ => format!("/{}", create.id),
    };
    Ok(Bundle { path, spec, config: bytes, root: Root::Directory(root), cgroup })
}

/// Who is in a container's cgroup ends with the container: no one may be there before it.
fn check_cgroup_is_free(name: &str) -> Result<(), RuntimeError> {
    match Cgroup::open(name)? {
        Some(cgroup) if !cgroup.pids()?.is_empty() => {
            Err(RuntimeError::Conflict(format!("cgroup {name} is in use: processes are in it")))
        }
        _ => Ok(()),
    }
}

/// Creates; `listener` is for a start by another process.
fn make(
    create: &CreateArguments,
    bundle: &Bundle,
    directory: &Directory,
    listener: Option<OwnedFd>,
    stdio: Stdio,
) -> Result<Created, RuntimeError> {
    check_cgroup_is_free(&bundle.cgroup)?;
    let mut record = Record {
        id: create.id.clone(),
        pid: 0,
        start_time: 0,
        bundle: bundle.path.clone(),
        cgroup: bundle.cgroup.clone(),
        created: state::now(),
        started: false,
        annotations: bundle.spec.annotations().clone(),
    };
    failpoint("command.create.directory");
    directory.write_spec(&bundle.config)?;
    directory.begin(&record)?;
    failpoint("command.create.record");
    let created = create::create_with(
        CreateOptions {
            id: &create.id,
            spec: &bundle.spec,
            bundle: &bundle.path,
            root: &bundle.root,
            cgroup: &bundle.cgroup,
            network_namespace: None,
            user: None,
            stdio,
            init: create.init,
            preserve_descriptors: create.preserve_fds,
        },
        listener,
    )?;
    failpoint("command.create.created");
    record.pid = created.pid();
    record.start_time = state::start_time(created.pid()).unwrap_or(0);
    directory.write(&record)?;
    failpoint("command.create.process");
    if let Some(file) = &create.pid_file {
        write_pid(file, created.pid())?;
        failpoint("command.create.pid_file");
    }
    Ok(created)
}

/// By rename: an engine that waits for the file never reads half of it.
fn write_pid(file: &Path, pid: i32) -> Result<(), RuntimeError> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, pid.to_string())
        .and_then(|()| fs::rename(&new, file))
        .context(|| format!("write {}", file.display()))
}

fn wants_terminal(spec: &Spec) -> bool {
    spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false)
}

/// Our own streams, or a terminal.
fn stdio(spec: &Spec, terminal: bool) -> Result<Stdio, RuntimeError> {
    if terminal {
        return Ok(Stdio::Terminal { size: create::console_size(spec) });
    }
    let copy = |stream: &dyn AsFd| {
        rustix::io::fcntl_dupfd_cloexec(stream.as_fd(), 3).context(|| "copy a standard stream".to_owned())
    };
    Ok(Stdio::Streams([copy(&io::stdin())?, copy(&io::stdout())?, copy(&io::stderr())?]))
}

fn create_waiting(create: &CreateArguments, directory: &Directory, warn: &dyn Fn(&str)) -> Result<(), RuntimeError> {
    let bundle = read_bundle(create)?;
    let terminal = wants_terminal(&bundle.spec);
    if terminal && create.console_socket.is_none() {
        return Err(RuntimeError::Invalid(
            "cannot allocate tty if runc will detach without setting console socket".to_owned(),
        ));
    }
    directory.make()?;
    let result = (|| {
        let listener = listen(directory)?;
        let mut created = make(create, &bundle, directory, Some(listener), stdio(&bundle.spec, terminal)?)?;
        created.warnings().iter().for_each(|warning| warn(warning));
        if let (Some(socket), Some(master)) = (&create.console_socket, created.terminal()) {
            send_terminal(socket, &master)?;
        }
        created.leave();
        Ok(())
    })();
    // The id is free again if there is nothing of this name.
    result.inspect_err(|_: &RuntimeError| drop(directory.remove()))
}

/// The name is reached through a descriptor of its directory: an address has room for 107 bytes.
fn short_name(directory: &Directory) -> Result<(File, PathBuf), RuntimeError> {
    let held = File::open(&directory.path).context(|| format!("open {}", directory.path.display()))?;
    let name = directory.socket().file_name().map(PathBuf::from).unwrap_or_default();
    let short = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())).join(name);
    Ok((held, short))
}

fn packet_socket() -> Result<OwnedFd, RuntimeError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .and_then(|socket| rustix::io::fcntl_dupfd_cloexec(socket, 3));
    socket.context(|| "make a socket".to_owned())
}

fn listen(directory: &Directory) -> Result<OwnedFd, RuntimeError> {
    let (_held, name) = short_name(directory)?;
    let socket = packet_socket()?;
    rustix::net::SocketAddrUnix::new(&name)
        .and_then(|address| rustix::net::bind(&socket, &address))
        .and_then(|()| rustix::net::listen(&socket, 1))
        .context(|| format!("listen on {}", directory.socket().display()))?;
    Ok(socket)
}

fn start(directory: &Directory) -> Result<(), RuntimeError> {
    let mut record = directory.read()?;
    match record.status() {
        Status::Created => {}
        Status::Creating => {
            return Err(RuntimeError::Conflict("cannot start a container that is being created".to_owned()));
        }
        Status::Running => return Err(RuntimeError::Conflict("cannot start an already running container".to_owned())),
        Status::Stopped => return Err(RuntimeError::Conflict("cannot start a container that has stopped".to_owned())),
    }
    let (_held, name) = short_name(directory)?;
    let socket = packet_socket()?;
    rustix::net::SocketAddrUnix::new(&name).and_then(|address| rustix::net::connect(&socket, &address)).map_err(
        |errno| match errno {
            Errno::CONNREFUSED | Errno::NOENT => {
                RuntimeError::Conflict("cannot start a container that has been started".to_owned())
            }
            errno => RuntimeError::system(format!("connect to {}", directory.socket().display()), errno),
        },
    )?;
    create::start_over(&socket)?;
    failpoint("command.start.told");
    record.started = true;
    directory.write(&record)?;
    failpoint("command.start.record");
    // It has served.
    let _ = fs::remove_file(directory.socket());
    Ok(())
}

fn run_to_the_end(create: &CreateArguments, directory: &Directory, warn: &dyn Fn(&str)) -> Result<u8, RuntimeError> {
    let bundle = read_bundle(create)?;
    let terminal = wants_terminal(&bundle.spec);
    if terminal && create.detach && create.console_socket.is_none() {
        return Err(RuntimeError::Invalid("a detached terminal needs --console-socket".to_owned()));
    }
    if terminal && create.console_socket.is_none() {
        return Err(RuntimeError::NotBuilt(
            "`dozen runtime run` with a terminal of its own, without --console-socket,".to_owned(),
        ));
    }
    directory.make()?;
    let started = (|| {
        let mut created = make(create, &bundle, directory, None, stdio(&bundle.spec, terminal)?)?;
        created.warnings().iter().for_each(|warning| warn(warning));
        if let (Some(socket), Some(master)) = (&create.console_socket, created.terminal()) {
            send_terminal(socket, &master)?;
        }
        created.start()
    })();
    let running = started.inspect_err(|_| drop(directory.remove()))?;
    if create.detach {
        let mut record = directory.read()?;
        record.started = true;
        directory.write(&record)?;
        return Ok(0);
    }
    let code = wait_and_forward(&running.pidfd);
    let gone = running.cgroup.kill().and_then(|()| running.cgroup.delete());
    directory.remove()?;
    gone?;
    code
}

/// Waits for a child of ours, and hands on to it the signals that we get.
fn wait_and_forward(pidfd: &OwnedFd) -> Result<u8, RuntimeError> {
    // SAFETY: sigset_t is plain data that sigemptyset fills; the descriptor is new and ours.
    let signals = unsafe {
        use std::os::fd::FromRawFd;
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in
            [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH]
        {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let descriptor = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC);
        if descriptor < 0 {
            return Err(RuntimeError::system("make a signalfd", io::Error::last_os_error()));
        }
        File::from(OwnedFd::from_raw_fd(descriptor))
    };
    loop {
        let mut polled = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match rustix::event::poll(&mut polled, None) {
            Err(Errno::INTR) => continue,
            result => result.context(|| "wait for the container".to_owned())?,
        };
        if polled[1].revents().contains(PollFlags::IN) {
            // struct signalfd_siginfo begins with the number (signalfd(2)).
            let mut information = [0u8; 128];
            (&signals).read_exact(&mut information).context(|| "read a signal".to_owned())?;
            let number = i32::from_ne_bytes([information[0], information[1], information[2], information[3]]);
            send(pidfd, number)?;
        } else if !polled[0].revents().is_empty() {
            return exit_code(pidfd);
        }
    }
}

/// Reaps a child; 128 and the signal's number if one has killed it.
fn exit_code(pidfd: &OwnedFd) -> Result<u8, RuntimeError> {
    let status: Option<WaitIdStatus> = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        .context(|| "wait for the process".to_owned())?;
    let code = status.map_or(0, |status| match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (_, Some(signal)) => 128 + signal,
        _ => 255,
    });
    Ok(code as u8)
}

fn send(pidfd: &OwnedFd, signal: i32) -> Result<(), RuntimeError> {
    // SAFETY: plain integers, and no siginfo.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(RuntimeError::system(format!("send signal {signal}"), error)),
        },
    }
}

/// The terminal's master to an engine that listens.
fn send_terminal(socket: &Path, master: &OwnedFd) -> Result<(), RuntimeError> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let context = || format!("send the terminal to {}", socket.display());
    let stream = std::os::unix::net::UnixStream::connect(socket).context(context)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [master.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(&stream, &[io::IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::NOSIGNAL).map(drop).context(context)
}

fn print_state(directory: &Directory) -> Result<(), RuntimeError> {
    let record = directory.read()?;
    print(&state_of(&record))
}

/// runtime.md, "State".
fn state_of(record: &Record) -> serde_json::Value {
    let status = record.status();
    let mut state = serde_json::json!({
        "ociVersion": "1.0.2",
        "id": record.id,
        "status": status,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "bundle": record.bundle,
        "created": record.created,
    });
    if let Some(annotations) = &record.annotations {
        state["annotations"] = serde_json::json!(annotations);
    }
    state
}

fn kill(directory: &Directory, signal: &str, all: bool) -> Result<(), RuntimeError> {
    let signal: Signal =
        signal.parse().map_err(|error: dozen_model::SignalError| RuntimeError::Invalid(error.to_string()))?;
    let record = directory.read()?;
    if all {
        return match Cgroup::open(&record.cgroup)? {
            Some(cgroup) => cgroup.signal(signal.number()),
            None => Ok(()),
        };
    }
    match record.process() {
        Some(pidfd) => send(&pidfd, signal.number()),
        None => Err(RuntimeError::Conflict("container not running".to_owned())),
    }
}

fn delete(directory: &Directory, force: bool) -> Result<(), RuntimeError> {
    let record = match directory.read() {
        Err(RuntimeError::NotFound(_)) if force => return directory.remove(),
        record => record?,
    };
    let status = record.status();
    if matches!(status, Status::Creating | Status::Running) && !force {
        return Err(RuntimeError::Conflict(format!(
            "cannot delete container {} that is not stopped: {status:?}",
            record.id
        )));
    }
    let gone = match Cgroup::open(&record.cgroup)? {
        Some(cgroup) => {
            let killed = cgroup.kill();
            // A created container's process is not yet the user's: it goes with the container.
            if let Some(pidfd) = record.process() {
                send(&pidfd, libc::SIGKILL)?;
            }
            failpoint("command.delete.killed");
            cgroup.delete().and(killed)
        }
        None => Ok(()),
    };
    failpoint("command.delete.cgroup");
    directory.remove()?;
    failpoint("command.delete.directory");
    gone
}

fn execute(arguments: &ExecArguments, directory: &Directory) -> Result<u8, RuntimeError> {
    let record = directory.read()?;
    let (Some(pidfd), Some(cgroup)) = (record.process(), Cgroup::open(&record.cgroup)?) else {
        return Err(RuntimeError::Conflict("cannot exec in a stopped container".to_owned()));
    };
    let mut spec = directory.read_spec()?;
    let mut user = UserSpec::default();
    let mut terminal = arguments.tty;
    let (command, environment, cwd) = match &arguments.process {
        Some(file) => {
            let bytes = fs::read(file).context(|| format!("read {}", file.display()))?;
            let process: oci_spec::runtime::Process = serde_json::from_slice(&bytes)
                .map_err(|error| RuntimeError::Invalid(format!("{}: {error}", file.display())))?;
            terminal |= process.terminal().unwrap_or(false);
            let parts = (
                process.args().clone().unwrap_or_default(),
                process.env().clone().unwrap_or_default(),
                Some(process.cwd().display().to_string()),
            );
            spec.set_process(Some(process));
            parts
        }
        None => {
            if let Some(text) = &arguments.user {
                user = text
                    .parse()
                    .map_err(|error: dozen_model::UserSpecError| RuntimeError::Invalid(error.to_string()))?;
            }
            let own = spec.process().as_ref().and_then(|process| process.env().clone()).unwrap_or_default();
            (arguments.command.clone(), own.into_iter().chain(arguments.env.clone()).collect(), arguments.cwd.clone())
        }
    };
    if terminal && arguments.console_socket.is_none() {
        return Err(RuntimeError::NotBuilt(
            "`dozen runtime exec` with a terminal of its own, without --console-socket,".to_owned(),
        ));
    }
    let process = exec(ExecOptions {
        container: &Running { pid: record.pid, pidfd, cgroup, user: None },
        spec: &spec,
        arguments: &command,
        environment: &environment,
        working_directory: cwd.as_deref(),
        user: &user,
        privileged: false,
        stdio: stdio(&spec, terminal)?,
    })?;
    if let (Some(socket), Some(master)) = (&arguments.console_socket, &process.terminal) {
        send_terminal(socket, master)?;
    }
    if let Some(file) = &arguments.pid_file {
        write_pid(file, process.pid)?;
    }
    if arguments.detach { Ok(0) } else { wait_and_forward(&process.pidfd) }
}

fn list(root: &Path, quiet: bool, format: &str) -> Result<(), RuntimeError> {
    let mut records = Vec::new();
    match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries.context(|| format!("read {}", root.display()))?.flatten() {
                let id = entry.file_name().to_string_lossy().into_owned();
                // One that is just being made or removed is not listed.
                records.extend(Directory::of(root, &id).and_then(|directory| directory.read()));
            }
        }
    }
    records.sort_by(|a, b| a.id.cmp(&b.id));
    let mut out = io::stdout();
    let context = || "write to standard output".to_owned();
    match (quiet, format) {
        (true, _) => records.iter().try_for_each(|record| writeln!(out, "{}", record.id)).context(context),
        (_, "json") => print(&records.iter().map(state_of).collect()),
        (_, "table") => {
            writeln!(out, "{:<12} {:<10} {:<10} {:<24} BUNDLE", "ID", "PID", "STATUS", "CREATED").context(context)?;
            records
                .iter()
                .try_for_each(|record| {
                    let status = format!("{:?}", record.status()).to_lowercase();
                    let pid = if status == "stopped" { 0 } else { record.pid };
                    writeln!(
                        out,
                        "{:<12} {pid:<10} {status:<10} {:<24} {}",
                        record.id,
                        record.created,
                        record.bundle.display()
                    )
                })
                .context(context)
        }
        (_, other) => Err(RuntimeError::Invalid(format!("invalid format {other:?}: want table or json"))),
    }
}

fn write_spec(bundle: &Path) -> Result<(), RuntimeError> {
    let mut spec = default_spec::docker(&DefaultSpec {
        privileged: false,
        capabilities: &CapabilityChange::default(),
        seccomp: &SeccompChoice::Default,
        unmasked_system_paths: false,
        host_network: false,
        shm_size_bytes: 64 << 20,
    })?;
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(vec!["sh".to_owned()]));
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        process.set_env(Some(vec![path.to_owned(), "TERM=xterm".to_owned()]));
    }
    spec.set_hostname(Some("dozen".to_owned()));
    let file = bundle.join("config.json");
    let json = serde_json::to_vec_pretty(&spec).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
    let mut new = File::create_new(&file).context(|| format!("make {}", file.display()))?;
    new.write_all(&json).context(|| format!("write {}", file.display()))
}

/// features.md of the runtime specification.
fn features() -> serde_json::Value {
    let capabilities: Vec<String> =
        crate::capability::names(crate::capability::ALL).map(|name| format!("CAP_{name}")).collect();
    serde_json::json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": [],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {
                "enabled": true,
                "archs": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
            },
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
        },
    })
}
