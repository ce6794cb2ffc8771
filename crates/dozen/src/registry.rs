//! `dozen registry`: a registry of one's own, which knows of no engine.

mod access;
mod arguments;
pub(crate) mod chores;
mod migrate;
mod reload;
mod retention;
mod serve;
mod store;
mod upstreams;
mod webhooks;

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use dozen_model::error_chain;

use crate::log::Log;
use crate::notify::Notify;
use crate::rest::Rest;
use arguments::{Check, Command};

/// Threads that run the server's async code; blocking work has threads of its own, which end when they are idle.
const WORKERS: usize = 4;

pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match Command::read(arguments) {
        Command::Serve(serve) if serve.failpoints => {
            let mut out = std::io::stdout().lock();
            let mut names = dozen_distribution::FAILPOINTS.iter();
            let printed = names.try_for_each(|name| writeln!(out, "registry.{name}"));
            if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Command::Serve(serve) => {
            let notify = Notify::take();
            let log = Log::start();
            log.set(serve.log_level());
            let rest = Rest::start().expect("threads can be started at start-up");
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(WORKERS).on_thread_unpark(move || rest.put_off());
            done(&mut builder, Box::pin(serve::run(*serve, notify)))
        }
        Command::Retention(asked) => {
            done(tokio::runtime::Builder::new_multi_thread().worker_threads(1), Box::pin(retention::run(asked)))
        }
        Command::Check(check) => {
            done(tokio::runtime::Builder::new_multi_thread().worker_threads(1), Box::pin(look_through(check)))
        }
        Command::Migrate(migrate) => {
            done(tokio::runtime::Builder::new_multi_thread().worker_threads(2), Box::pin(migrate::migrate(migrate)))
        }
    }
}

/// In a box: as itself it would be compiled into each of the places where a runtime polls what it blocks on.
type Work = Pin<Box<dyn Future<Output = Result<(), Box<dyn Error>>>>>;

fn done(runtime: &mut tokio::runtime::Builder, work: Work) -> ExitCode {
    let runtime = runtime
        .thread_stack_size(512 * 1024)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
        .expect("threads can be started at start-up");
    match runtime.block_on(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log's form would be one more word for the same.
            let _ = writeln!(std::io::stderr(), "dozen registry: {}", error_chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn look_through(check: Check) -> Result<(), Box<dyn Error>> {
    let checked = match check.access.bucket_of(check.store.as_deref())? {
        None => dozen_distribution::check(&check.root).await?,
        Some(bucket) => {
            // For an index that nobody needs afterwards. Nobody else may have made it.
            let scratch = std::env::temp_dir().join(format!("dozen-registry-check-{}", std::process::id()));
            std::fs::DirBuilder::new().mode(0o700).create(&scratch)?;
            let checked = dozen_distribution::check_bucket(bucket, &scratch).await;
            let _ = std::fs::remove_dir_all(&scratch);
            checked?
        }
    };
    let mut out = std::io::stdout().lock();
    for problem in &checked.problems {
        writeln!(out, "{problem}")?;
    }
    for aside in &checked.aside {
        writeln!(out, "{aside}")?;
    }
    writeln!(out, "{} blobs of {} bytes read, {} problems", checked.blobs, checked.bytes, checked.problems.len())?;
    if checked.problems.is_empty() {
        return Ok(());
    }
    Err("the store is damaged: push what is named above again, or delete it".into())
}
