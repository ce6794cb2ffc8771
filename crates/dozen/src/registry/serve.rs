//! `dozen registry serve`, from its files to its end.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use dozen_distribution::{Endpoint, Options, Retention, Store, Upstreams, Watch, Webhooks};
use dozen_tls::DoorKeeper;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::access::Guard;
use super::arguments::Serve;
use super::chores::{Chores, collect_each};
use super::reload::Files;
use super::{upstreams, webhooks};
use crate::notify::Notify;

/// Clients that may be connected at once. The next one waits in the kernel's queue.
const MOST_CONNECTIONS: usize = 4096;
/// Clients that the kernel keeps until they are let in, as tokio and the standard library have it.
const BACKLOG: u32 = 1024;

/// What all files say: who is wrong in one of them has taken nothing yet.
struct Plan {
    tls: Option<DoorKeeper>,
    guard: Guard,
    rules: Option<Retention>,
    endpoints: Option<Vec<Endpoint>>,
    upstreams: Option<Upstreams>,
}

impl Plan {
    fn read(serve: &Serve) -> Result<Self, Box<dyn Error>> {
        serve.check()?;
        let plan = Self {
            tls: serve.tls_files().map(|(certificate, key)| DoorKeeper::new(certificate, key)).transpose()?,
            guard: Guard::read(serve)?,
            rules: serve.retention.as_deref().map(Retention::read).transpose()?,
            endpoints: serve.webhooks.as_deref().map(webhooks::read).transpose()?,
            upstreams: match &serve.upstreams {
                Some(path) => Some(Upstreams::new(upstreams::read(path)?)),
                None => None,
            },
        };
        if plan.upstreams.is_some() && plan.rules.is_none() {
            tracing::warn!(
                "what upstreams bring stays for ever: --retention with keep-pulled and untagged-after lets it go"
            );
        }
        Ok(plan)
    }
}

/// Where it is going to listen. An address that somebody else has is told before a store is taken; nobody is let in before
/// there is one, and who comes too early is refused and not kept waiting.
struct Doors {
    registry: TcpSocket,
    metrics: Option<TcpSocket>,
}

impl Doors {
    fn reserve(serve: &Serve) -> Result<Self, String> {
        Ok(Self { registry: reserve(serve.listen)?, metrics: serve.metrics_listen.map(reserve).transpose()? })
    }
}

fn reserve(address: SocketAddr) -> Result<TcpSocket, String> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // For the address of a server that has just ended.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        io::Result::Ok(socket)
    };
    bind().map_err(|error| format!("cannot listen on {address}: {error}"))
}

fn listen(socket: TcpSocket) -> Result<(TcpListener, SocketAddr), String> {
    let address = socket.local_addr();
    let listen = || {
        let address = address?;
        Ok((socket.listen(BACKLOG)?, address))
    };
    listen().map_err(|error: io::Error| format!("cannot listen: {error}"))
}

/// How a server has ended.
enum Ended {
    InOrder,
    /// Another one serves the store from now on.
    Overtaken,
}

pub(super) async fn run(serve: Serve, notify: Notify) -> Result<(), Box<dyn Error>> {
    let signals = Signals::take()?;
    let plan = Plan::read(&serve)?;
    crate::daemon::raise_descriptor_limit();
    let doors = Doors::reserve(&serve)?;
    let store = match serve.access.bucket_of(serve.store.as_deref())? {
        None => Store::open(&serve.root, serve.store_options()).await?,
        Some(bucket) if serve.store_redirect && serve.tls_files().is_some() && !bucket.is_secure() => {
            return Err("--store-redirect would send clients from TLS to a store without: they refuse that".into());
        }
        Some(bucket) => Store::open_bucket(&serve.root, bucket, serve.access.take_over, serve.store_options()).await?,
    };
    let ended = until_over(&serve, plan, doors, &store, &notify, signals).await;
    if let Ok(Ended::Overtaken) = ended {
        return Err("another registry has taken over the store".into());
    }
    // Also if it never began to serve: the store is taken by then.
    if let Err(refusal) = store.close().await {
        tracing::warn!(
            "the store was not told that this server is over, so the next one may need --take-over: {refusal}"
        );
    }
    ended.map(|_| ())
}

async fn until_over(
    serve: &Serve,
    plan: Plan,
    doors: Doors,
    store: &Arc<Store>,
    notify: &Notify,
    mut signals: Signals,
) -> Result<Ended, Box<dyn Error>> {
    let access = plan.guard.access(serve)?;
    let (listener, address) = listen(doors.registry)?;
    let mut chores = Chores::default();
    let mut watch = Watch::default();
    if let Some(endpoints) = plan.endpoints {
        let told = Webhooks::new(endpoints, address.to_string());
        chores.add(told.clone().run(webhooks::sender()?));
        watch.webhooks = Some(told);
    }
    if let Some(socket) = doors.metrics {
        let (listener, address) = listen(socket)?;
        tracing::info!("numbers are told on http://{address}/metrics");
        chores.add(dozen_distribution::serve_metrics(listener, store.clone(), watch.clone()));
    }
    tracing::info!("listening on {}://{address}", if plan.tls.is_some() { "https" } else { "http" });
    notify.ready();
    if !serve.read_only {
        let metrics = watch.metrics.clone();
        chores.add(collect_each(serve.collect_every, store.clone(), plan.rules.clone(), metrics));
    }
    if let Some(scrub) = serve.scrub() {
        chores.add(dozen_distribution::scrub(store.clone(), scrub, watch.metrics.clone()));
    }
    chores.answer_owner(store, plan.rules.clone(), &serve.root);
    let options = Options {
        access,
        read_only: serve.read_only,
        hosts: serve.hosts(),
        stall: serve.stall_timeout,
        redirects: serve.store_redirect,
        has_page: !serve.no_page,
        most_connections: MOST_CONNECTIONS,
        upstreams: plan.upstreams.clone(),
        watch,
    };
    let tls = plan.tls.clone();
    let upstreams = plan.upstreams.zip(serve.upstreams.clone());
    let files = Files { guard: plan.guard, rules: plan.rules, tls: plan.tls, upstreams };
    chores.add(files.read_again_on(signals.hangup));
    let mut ended = Ended::InOrder;
    dozen_distribution::serve(store.clone(), options, listener, tls, async {
        tokio::select! {
            _ = signals.terminate.recv() => {}
            _ = signals.interrupt.recv() => {}
            () = store.overtaken() => ended = Ended::Overtaken,
        }
        notify.stopping();
    })
    .await;
    Ok(ended)
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From the first moment on: by itself, SIGHUP would end the process.
    fn take() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}
