//! `dozen registry`: a registry of one's own, which knows of no engine.

mod access;
mod arguments;
mod migrate;
mod reload;
mod retention;
mod store;
mod upstreams;
mod webhooks;

use std::cell::Cell;
use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dozen_distribution::{Options, Retention, Store, Upstreams, Watch, Webhooks};
use dozen_model::error_chain;
use dozen_tls::DoorKeeper;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::log::Log;
use crate::notify::Notify;
use crate::rest::Rest;
use access::Guard;
use arguments::{Check, Command, Serve};
use reload::Files;

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
            done(&mut builder, run(*serve, &notify))
        }
        Command::Retention(asked) => {
            done(tokio::runtime::Builder::new_multi_thread().worker_threads(1), retention::run(asked))
        }
        Command::Check(check) => {
            done(tokio::runtime::Builder::new_multi_thread().worker_threads(1), look_through(check))
        }
        Command::Migrate(migrate) => {
            done(tokio::runtime::Builder::new_multi_thread().worker_threads(2), migrate::migrate(migrate))
        }
    }
}

fn done(runtime: &mut tokio::runtime::Builder, work: impl Future<Output = Result<(), Box<dyn Error>>>) -> ExitCode {
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

async fn run(serve: Serve, notify: &Notify) -> Result<(), Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    serve.check()?;
    crate::daemon::raise_descriptor_limit();
    let tls = match serve.tls_files() {
        Some((certificate, key)) => Some(DoorKeeper::new(certificate, key)?),
        None => None,
    };
    let guard = Guard::read(&serve)?;
    let rules = serve.retention.as_deref().map(Retention::read).transpose()?;
    // All files before the store is opened: who is wrong in one of them has not taken a bucket yet.
    let endpoints = serve.webhooks.as_deref().map(webhooks::read).transpose()?;
    let upstreams = match &serve.upstreams {
        Some(path) => Some(Upstreams::new(upstreams::read(path)?)),
        None => None,
    };
    if upstreams.is_some() && rules.is_none() {
        tracing::warn!(
            "what upstreams bring stays for ever: --retention with keep-pulled and untagged-after lets it go"
        );
    }
    let store = match serve.access.bucket_of(serve.store.as_deref())? {
        None => Store::open(&serve.root, serve.store_options()).await?,
        Some(bucket) => Store::open_bucket(&serve.root, bucket, serve.access.take_over, serve.store_options()).await?,
    };
    let access = guard.access(&serve)?;
    let failed = |error| format!("cannot listen on {}: {error}", serve.listen);
    let listener = TcpListener::bind(serve.listen).await.map_err(failed)?;
    let told = endpoints
        .map(|endpoints| Webhooks::new(endpoints, listener.local_addr().map(|it| it.to_string()).unwrap_or_default()));
    let watch = Watch { webhooks: told, ..Watch::default() };
    let notifying = match &watch.webhooks {
        Some(webhooks) => Some(tokio::spawn(webhooks.clone().run(webhooks::sender()?))),
        None => None,
    };
    let telling = match serve.metrics_listen {
        Some(address) => {
            let failed = |error| format!("cannot listen on {address}: {error}");
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            tracing::info!("numbers are told on http://{}/metrics", listener.local_addr()?);
            Some(tokio::spawn(dozen_distribution::serve_metrics(listener, store.clone(), watch.clone())))
        }
        None => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!("listening on {scheme}://{}", listener.local_addr()?);
    notify.ready();
    let collecting = (!serve.read_only).then(|| {
        let (store, rules, every) = (store.clone(), rules.clone(), serve.collect_every);
        tokio::spawn(collect(store, rules, every, watch.clone()))
    });
    let scrubbing =
        serve.scrub().map(|scrub| tokio::spawn(dozen_distribution::scrub(store.clone(), scrub, watch.metrics.clone())));
    let asked = match dozen_distribution::control(store.clone(), rules.clone(), &serve.root) {
        Ok(answering) => Some(tokio::spawn(answering)),
        // A path that is too long, say: whoever only pushes and pulls needs it not.
        Err(error) => {
            tracing::warn!("dozen registry retention cannot ask this server: {error}");
            None
        }
    };
    let files = Files { guard, rules, tls: tls.clone(), upstreams: upstreams.clone().zip(serve.upstreams.clone()) };
    let reloading = tokio::spawn(files.read_again_on(hangup));
    let options = Options {
        access,
        read_only: serve.read_only,
        hosts: serve.hosts(),
        stall: serve.stall_timeout,
        has_page: !serve.no_page,
        upstreams,
        watch: watch.clone(),
    };
    let is_overtaken = Cell::new(false);
    dozen_distribution::serve(store.clone(), options, listener, tls, async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = store.overtaken() => is_overtaken.set(true),
        }
        notify.stopping();
    })
    .await;
    reloading.abort();
    for task in [collecting, scrubbing, asked, telling, notifying].into_iter().flatten() {
        task.abort();
    }
    if is_overtaken.get() {
        return Err("another registry has taken over the store".into());
    }
    if let Err(refusal) = store.close().await {
        tracing::warn!(
            "the store was not told that this server is over, so the next one may need --take-over: {refusal}"
        );
    }
    Ok(())
}

/// For ever: what the rules let go goes, and then what nothing names.
async fn collect(store: Arc<Store>, rules: Option<Retention>, pause: Duration, watch: Watch) {
    loop {
        if let Some(rules) = &rules {
            match store.retain(rules, false).await {
                Ok(released) => watch.metrics.released(released.len()),
                Err(refusal) => tracing::error!("cannot carry out the rules of retention: {refusal}"),
            }
        }
        match store.collect().await {
            Ok(freed) if freed.blobs + freed.uploads > 0 => {
                watch.metrics.collected(freed.blobs, freed.bytes);
                let (blobs, bytes, uploads) = (freed.blobs, freed.bytes, freed.uploads);
                tracing::info!("collected {blobs} blobs of {bytes} bytes that nothing named, and {uploads} uploads");
            }
            Ok(_) => {}
            Err(refusal) => tracing::error!("cannot collect what nothing names: {refusal}"),
        }
        tokio::time::sleep(pause).await;
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
