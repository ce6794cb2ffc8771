//! Serves a store: connections come in, each request is routed, let in or refused, and answered.

mod blobs;
mod body;
mod browse;
mod connection;
mod documents;
mod intake;
mod numbers;
mod socket;
mod tokens;
mod uploads;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dozen_tls::DoorKeeper;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::access::Access;
use crate::hosts::AllowedHosts;
use crate::metrics::Metrics;
use crate::name::RepositoryName;
use crate::refusal::{Kind, Refusal};
use crate::route::{Action, page_not_found, route};
use crate::store::Store;
use crate::upstream::{Source, Upstreams};
use crate::webhook::{Event, Happened, Webhooks, What};
pub(crate) use body::Body;
pub use numbers::serve_metrics;
use socket::Outbox;

/// Clients that may be connected at once. The next one waits in the kernel's queue.
const MOST_CONNECTIONS: usize = 4096;
/// Manifests that may be taken in at once: each is in memory as a whole.
const MOST_MANIFESTS: usize = 64;
/// After a failed accept (no descriptors left, say): trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long requests have to finish once the server ends. An upload that is cut goes on with the next one.
const GRACE: Duration = Duration::from_secs(10);

/// How a registry is served.
#[derive(Debug)]
pub struct Options {
    /// Who is let in.
    pub access: Access,
    /// Nothing is changed.
    pub read_only: bool,
    /// By which names clients may call a server without TLS.
    pub hosts: AllowedHosts,
    /// A client that neither sends nor takes anything for so long is let go.
    pub stall: Duration,
    /// Browsers get a page.
    pub has_page: bool,
    /// Whose repositories are kept here, beside those that are pushed.
    pub upstreams: Option<Upstreams>,
    /// Who looks on.
    pub watch: Watch,
}

/// Who is told of what happens, and has no say in it.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// Counts it.
    pub metrics: Arc<Metrics>,
    /// Tells others of it.
    pub webhooks: Option<Webhooks>,
}

/// What every request needs.
#[derive(Debug)]
struct Server {
    store: Arc<Store>,
    options: Options,
    /// Without it the connection is in the clear, and files go out by sendfile(2).
    has_tls: bool,
    /// Those who send a manifest.
    manifests: Semaphore,
}

type Answer = Result<Response<Body>, Refusal>;

/// Serves until `shutdown` ends: then nobody new is let in, and requests have ten seconds to finish.
pub async fn serve(
    store: Arc<Store>,
    options: Options,
    listener: TcpListener,
    tls: Option<DoorKeeper>,
    shutdown: impl Future<Output = ()>,
) {
    let manifests = Semaphore::new(MOST_MANIFESTS);
    let server = Arc::new(Server { store, options, has_tls: tls.is_some(), manifests });
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (stream, peer) = listener.accept().await?;
            io::Result::Ok((place, stream, peer))
        };
        tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => match accepted {
                Ok((place, stream, peer)) => {
                    let (server, tls, stopping) = (server.clone(), tls.clone(), stopping.clone());
                    connections.spawn(async move {
                        connection::speak(server, tls, stream, peer, stopping).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let finish = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        connections.shutdown().await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}

impl Server {
    /// The answer to a request, refused or not.
    async fn answer(&self, mut request: Request<Incoming>, peer: SocketAddr, outbox: &Outbox) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let begun = Instant::now();
        let action = route(&method, &path);
        let word = action.as_ref().map_or("unknown", Action::word);
        let mut user = None;
        let answered = match action {
            Ok(action) => self.act(action, &mut request, outbox, &mut user).await,
            Err(refusal) => Err(refusal),
        };
        let mut response = answered.unwrap_or_else(|refusal| {
            tracing::debug!("{peer}: {method} {path}: {refusal}");
            refused(&refusal)
        });
        if let (Some(webhooks), Some(happened)) = (&self.options.watch.webhooks, response.extensions_mut().remove())
            && method != Method::HEAD
        {
            webhooks.tell(&self.event(&request, happened, user, peer));
        }
        self.options.watch.metrics.answered(word, response.status().as_u16(), begun.elapsed());
        let is_refused = response.status().is_client_error() || response.status().is_server_error();
        // Who is still sending would not read an answer that comes with a reset; who asked first sends nothing
        // (RFC 9110, section 10.1.1).
        if is_refused && !request.headers().contains_key(http::header::EXPECT) {
            intake::swallow(request.body_mut()).await;
        }
        let version = HeaderValue::from_static("registry/2.0");
        response.headers_mut().insert("docker-distribution-api-version", version);
        let quiet = HeaderValue::from_static("nosniff");
        response.headers_mut().insert("x-content-type-options", quiet);
        // A manifest is of whatever type its client said: to a browser it is never a page of this registry's.
        let sandbox = HeaderValue::from_static("default-src 'none'; sandbox");
        response.headers_mut().entry("content-security-policy").or_insert(sandbox);
        if method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        response
    }

    /// Whose this repository is, if it is kept for an upstream.
    fn source(&self, name: &RepositoryName) -> Option<Arc<Source>> {
        self.options.upstreams.as_ref()?.source(name)
    }

    fn event(&self, request: &Request<Incoming>, happened: Happened, user: Option<String>, peer: SocketAddr) -> Event {
        let field = |name| header(request, name).unwrap_or_default().to_owned();
        Event {
            happened,
            user,
            peer,
            host: field("host"),
            is_secure: self.has_tls,
            method: request.method().to_string(),
            user_agent: field("user-agent"),
        }
    }

    /// Notes with an answer what others are to be told of, if there are any.
    fn note(&self, response: &mut Response<Body>, action: &'static str, name: &RepositoryName, what: What) {
        if self.options.watch.webhooks.is_some() {
            response.extensions_mut().insert(Happened { action, repository: name.to_string(), what });
        }
    }

    async fn act(
        &self,
        action: Action,
        request: &mut Request<Incoming>,
        outbox: &Outbox,
        user: &mut Option<String>,
    ) -> Answer {
        if !self.has_tls {
            self.options.hosts.check(request.headers(), request.uri())?;
        }
        // A browser says so of whatever changes something (fetch.spec.whatwg.org, "Origin" header); registries' clients do
        // not. A page must not write to the registry of whoever looks at it.
        if action.is_write() && request.headers().contains_key(http::header::ORIGIN) {
            return Err(Refusal::new(Kind::Denied, "a page in a browser may not change a registry"));
        }
        match &action {
            Action::Page(_) | Action::Browse(_) if !self.options.has_page => return Err(page_not_found()),
            // It says nothing of what is here: everyone may have it.
            Action::Page(asset) => return Ok(asset.answer(request.headers())),
            Action::Token => return self.token(request).await,
            _ => {}
        }
        let caller = self.options.access.admit(request.headers(), request.uri(), self.has_tls).await?;
        caller.check(action.need())?;
        user.clone_from(&caller.user);
        if self.options.read_only && action.is_write() {
            return Err(Refusal::new(Kind::Unsupported, "this registry is read-only"));
        }
        if let Some(name) = action.pushed_to()
            && let Some(source) = self.source(name)
        {
            return Err(source.refuses_pushes(name));
        }
        match action {
            Action::Base | Action::Token | Action::Page(_) => Ok(documents::base()),
            Action::Browse(what) => self.browse(request, &what, &caller).await,
            Action::ListRepositories => self.list_repositories(request, &caller).await,
            Action::ListTags(name) => self.list_tags(request, &name).await,
            Action::ListReferrers(name, digest) => self.list_referrers(request, &name, &digest).await,
            Action::ReadManifest(name, reference) => self.read_manifest(&name, &reference).await,
            Action::PutManifest(name, reference) => self.put_manifest(request, &name, &reference).await,
            Action::DeleteManifest(name, reference) => self.delete_manifest(&name, &reference).await,
            Action::ReadBlob(name, digest) => self.read_blob(request, &name, &digest, outbox).await,
            Action::DeleteBlob(name, digest) => self.delete_blob(&name, &digest).await,
            Action::BeginUpload(name) => self.begin_upload(request, &name, &caller).await,
            Action::UploadStatus(name, id) => self.upload_status(&name, &id),
            Action::Append(name, id) => self.append(request, &name, &id).await,
            Action::Finish(name, id) => self.finish(request, &name, &id).await,
            Action::Cancel(name, id) => self.cancel(&name, &id).await,
        }
    }
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(Body::whole(refusal.body()));
    *response.status_mut() = refusal.kind.told().0;
    set(&mut response, "content-type", "application/json; charset=utf-8");
    for (name, value) in &refusal.fields {
        set(&mut response, name, value);
    }
    response
}

/// Sets a field whose value is ours: names, digests and numbers, which fit into one.
pub(crate) fn set(response: &mut Response<Body>, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        response.headers_mut().insert(name, value);
    }
}

fn header<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

fn query(request: &Request<Incoming>) -> &str {
    request.uri().query().unwrap_or_default()
}
