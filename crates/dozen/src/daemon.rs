//! `dozen daemon`: opens the engine and serves its API until it is told to end.

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dozen_api::serve;
use dozen_engine::{Engine, EngineConfig, EngineError};
use dozen_model::run_root::SOCKET_NAME;
use dozen_model::{Classified, error_chain};
use tokio::signal::unix::{SignalKind, signal};

use crate::notify::Notify;
use crate::rest::Rest;

/// Threads that run the engine's async code; blocking work has threads of its own, which end when they are idle.
const WORKERS: usize = 2;

#[derive(Parser)]
#[command(
    name = "dozen daemon",
    about = "Run the engine in the foreground",
    after_help = "Examples:\n  dozen daemon\n  dozen daemon --data-root /srv/dozen --run-root /run/dozen-2\n\n\
                  SIGTERM ends it. What runs goes on without it, and is found again by the next one."
)]
struct Arguments {
    /// Where images, containers and volumes are kept
    #[arg(long, env = "DOZEN_DATA_ROOT", default_value = "/var/lib/dozen")]
    data_root: PathBuf,
    /// Where sockets and locks are kept
    #[arg(long, env = "DOZEN_RUN_ROOT", default_value = "/run/dozen")]
    run_root: PathBuf,
    /// Address to listen on: unix:///path (by default the socket dozen.sock in the run root)
    #[arg(short = 'H', long, env = "DOZEN_HOST", value_parser = unix_path)]
    host: Option<PathBuf>,
    /// Print the places where the crash suite can kill engine, monitor and keeper, and end
    #[arg(long, hide = true)]
    failpoints: bool,
}

fn unix_path(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        Some(_) => Err("the socket's path is absolute: unix:///path".into()),
        None => Err("only unix:///path is built yet".into()),
    }
}

pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = Arguments::parse_from(arguments);
    if arguments.failpoints {
        let mut out = std::io::stdout().lock();
        let all: &[(&str, &[&str])] = &[
            ("engine", dozen_engine::FAILPOINTS),
            ("engine", &dozen_engine::image::FAILPOINTS),
            ("engine", &dozen_engine::NETWORK_FAILPOINTS),
            ("monitor", &dozen_monitor::FAILPOINTS),
            ("runtime", &dozen_runtime::FAILPOINTS),
            ("keeper", &dozen_keeper::FAILPOINTS),
        ];
        let mut names = all.iter().flat_map(|(process, names)| names.iter().map(move |name| (process, name)));
        let printed = names.try_for_each(|(process, name)| writeln!(out, "{process}.{name}"));
        return if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let notify = Notify::take();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false).init();
    let rest = Rest::start().expect("threads can be started at start-up");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .on_thread_unpark(move || rest.put_off())
        .thread_stack_size(512 * 1024)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .expect("threads can be started at start-up");
    match runtime.block_on(run(arguments, &notify)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", error_chain(error.as_ref()));
            if let Some(hint) = error.downcast_ref::<EngineError>().and_then(Classified::hint) {
                tracing::error!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments, notify: &Notify) -> Result<(), Box<dyn Error>> {
    raise_descriptor_limit();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Monitors and keeper are executed from a read-only mount of this very binary: an upgrade replaces the path,
    // not what they run, and nothing in a container can write to it.
    let binary: OwnedFd = dozen_runtime::own_binary()?;
    let program = PathBuf::from(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    let socket = absolute(arguments.host.unwrap_or_else(|| arguments.run_root.join(SOCKET_NAME)))?;
    let config =
        EngineConfig { data_root: absolute(arguments.data_root)?, run_root: absolute(arguments.run_root)?, program };
    let engine = Engine::open(config).await?;
    let listener = {
        let (engine, socket) = (engine.clone(), socket.clone());
        tokio::task::spawn_blocking(move || engine.listener(&socket)).await??
    };
    let listener = std::os::unix::net::UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    tracing::info!("listening on {}", socket.display());
    notify.ready();
    serve(engine.clone(), listener, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify.stopping();
    })
    .await?;
    tokio::task::spawn_blocking(move || engine.retire()).await??;
    drop(binary);
    Ok(())
}

/// A running container costs the engine a descriptor, a client a few: the usual soft limit of 1024 is too near.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open descriptors");
    }
}

fn absolute(path: PathBuf) -> std::io::Result<PathBuf> {
    std::path::absolute(path)
}
