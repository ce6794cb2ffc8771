//! `dozen daemon`: opens the engine and serves its API until it is told to end.

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dozen_api::serve;
use dozen_engine::{Engine, EngineConfig, EngineError};
use dozen_model::run_root::{UNSUPERVISED_NAME, UNSUPERVISED_VARIABLE};
use dozen_model::{Classified, error_chain};
use dozen_settings::{Settings, SharedSettings};
use dozen_tls::Acceptor;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Arguments;
use crate::configuration::{Unconfigured, tls_files};
use crate::listening::Opened;
use crate::log::Log;
use crate::notify::Notify;
use crate::own_registry::OwnRegistry;
use crate::rest::Rest;
use crate::{inherited, listening};

/// Where an engine keeps what lasts, unless it is told.
const DATA_ROOT: &str = "/var/lib/dozen";

/// Threads that run the engine's async code; blocking work has threads of its own, which end when they are idle.
const WORKERS: usize = 2;
/// A build that brings its base image is some twenty functions deep, each with up to 30 KB where nothing is optimised. Less
/// than a huge page: of it a thread would have all, and not only what it has touched.
const STACK_BYTES: usize = 1024 * 1024;

pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = Arguments::read(arguments);
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
    if arguments.validate {
        return validate(&arguments);
    }
    let handed_over = inherited::take();
    let notify = Notify::take();
    let log = Log::start();
    dozen_runtime::rest::keep_little_free_memory();
    let rest = Rest::start().expect("threads can be started at start-up");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .on_thread_unpark(move || rest.put_off())
        .thread_stack_size(STACK_BYTES)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .expect("threads can be started at start-up");
    match runtime.block_on(run(arguments, &notify, log, handed_over)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", error_chain(error.as_ref()));
            let of_engine = error.downcast_ref::<EngineError>().and_then(Classified::hint);
            if let Some(hint) = of_engine.or_else(|| error.downcast_ref::<Unconfigured>()?.hint()) {
                tracing::error!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// `--validate`: Docker's words for a good one.
fn validate(arguments: &Arguments) -> ExitCode {
    let read = arguments.sources().map_err(Unconfigured::Unusable).and_then(|sources| sources.read());
    let (words, code) = match read {
        Ok(_) => ("configuration OK\n".to_owned(), ExitCode::SUCCESS),
        Err(error) => {
            let hint = error.hint().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
            (format!("{}\n{hint}", error_chain(&error)), ExitCode::FAILURE)
        }
    };
    let written = std::io::stderr().write_all(words.as_bytes());
    if written.is_ok() { code } else { ExitCode::FAILURE }
}

/// For clients that find no engine: whether they are the ones to start it.
fn tell_who_starts_the_next(run_root: &Path) -> std::io::Result<()> {
    let path = run_root.join(UNSUPERVISED_NAME);
    if std::env::var_os(UNSUPERVISED_VARIABLE).is_some() {
        return std::fs::write(path, []);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn run(arguments: Arguments, notify: &Notify, log: Log, handed_over: Vec<OwnedFd>) -> Result<(), Box<dyn Error>> {
    // From the first moment on: by itself, SIGHUP would end the process.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let sources = arguments.sources()?;
    let settings = sources.read()?;
    log.set(settings.log_level);
    raise_descriptor_limit();
    // Monitors and keeper are executed from a read-only mount of this very binary: an upgrade replaces the path,
    // not what they run, and nothing in a container can write to it.
    let binary: OwnedFd = dozen_runtime::own_binary()?;
    let program = PathBuf::from(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    let config = EngineConfig {
        data_root: settings.data_root.clone().unwrap_or_else(|| DATA_ROOT.into()),
        run_root: std::path::absolute(&arguments.run_root)?,
        program,
        settings: SharedSettings::new(settings),
    };
    let run_root = config.run_root.clone();
    let engine = Engine::open(config).await?;
    tell_who_starts_the_next(&run_root)?;
    let own_registry = OwnRegistry::open(&engine).await;
    let Opened { sockets, acceptor } = listening::open(&engine, &sources, handed_over).await?;
    notify.ready();
    let own_registry = own_registry.map(|own| tokio::spawn(own.serve()));
    let reloading = tokio::spawn({
        let engine = engine.clone();
        async move {
            while hangup.recv().await.is_some() {
                let sources = sources.clone();
                let read = tokio::task::spawn_blocking(move || sources.read());
                match read.await {
                    Ok(Ok(settings)) => reload(&engine, &log, acceptor.as_ref(), settings),
                    Ok(Err(error)) => {
                        tracing::error!("{}: the settings stay as they were", error_chain(&error));
                    }
                    Err(error) => tracing::error!(%error, "the settings stay as they were"),
                }
            }
        }
    });
    serve(engine.clone(), sockets, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify.stopping();
    })
    .await;
    reloading.abort();
    // What is cut there goes on with the next engine, as after a crash.
    own_registry.inspect(tokio::task::JoinHandle::abort);
    engine.end_builds().await;
    if goes_down_with_the_machine().await {
        engine.farewell().await?;
    } else {
        tokio::task::spawn_blocking(move || engine.retire()).await??;
    }
    drop(binary);
    Ok(())
}

/// Whether we are told to end because the machine goes down. If nobody can say, containers go on, as ever.
async fn goes_down_with_the_machine() -> bool {
    match tokio::task::spawn_blocking(dozen_runtime::machine_goes_down).await {
        Ok(Ok(goes_down)) => goes_down,
        Ok(Err(error)) => {
            tracing::warn!("{}: containers are left as they are", error_chain(&error));
            false
        }
        Err(_) => false,
    }
}

/// These hold from now on, as far as an engine that runs can change.
fn reload(engine: &Engine, log: &Log, acceptor: Option<&Acceptor>, settings: Settings) {
    let present = engine.settings();
    for key in present.needs_restart(&settings) {
        tracing::warn!("{key} has changed: that takes effect when the engine is started again");
    }
    let settings = settings.reloaded_over(&present);
    // The files may be the same and hold new certificates.
    if let (Some(acceptor), Ok(Some(files))) = (acceptor, tls_files(&settings.tls))
        && let Err(error) = acceptor.reload(&files)
    {
        tracing::error!("{}: the certificates stay as they were", error_chain(&error));
    }
    log.set(settings.log_level);
    engine.reload(settings);
    tracing::info!("the settings have been read again");
}

/// A running container costs the engine a descriptor, a client a few: the usual soft limit of 1024 is too near.
pub(crate) fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open descriptors");
    }
}
