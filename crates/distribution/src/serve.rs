//! Serves a store: connections come in, each request is routed, let in or refused (`reception`), and answered.

mod blobs;
mod body;
mod browse;
mod connection;
mod documents;
mod intake;
mod lists;
mod namespace;
mod numbers;
mod reception;
mod socket;
mod tokens;
mod uploads;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dozen_accept::Limits;
use dozen_tls::DoorKeeper;
use http::header::{HeaderName, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use crate::access::Access;
use crate::access::caller::Caller;
use crate::hosts::AllowedHosts;
use crate::metrics::Metrics;
use crate::name::RepositoryName;
use crate::refusal::Refusal;
use crate::route::Action;
use crate::store::{LazyStore, Store};
use crate::upstream::{Source, Upstreams};
use crate::webhook::{Happened, Webhooks, What};
pub(crate) use body::Body;
use connection::Visitor;
pub use numbers::serve_metrics;
use reception::Reception;
use socket::Outbox;

/// Manifests that may be taken in at once: each is in memory as a whole.
const MOST_MANIFESTS: usize = 64;
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
    /// Who pulls a large blob that lies in a store is sent there for it.
    pub redirects: bool,
    /// Browsers get a page.
    pub has_page: bool,
    /// Clients that may be connected at once.
    pub most_connections: usize,
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

/// What every request needs that is done.
#[derive(Debug)]
struct Server {
    store: Arc<Store>,
    options: Arc<Options>,
    /// Without it the connection is in the clear, and files go out by sendfile(2).
    has_tls: bool,
    /// Those who send a manifest.
    manifests: Semaphore,
}

type Answer = Result<Response<Body>, Refusal>;

/// Serves until `shutdown` ends: then nobody new is let in, and requests have ten seconds to finish. A store that is opened
/// for the first who needs it costs nothing until somebody comes who may.
pub async fn serve(
    store: impl Into<LazyStore>,
    options: Options,
    listener: TcpListener,
    tls: Option<DoorKeeper>,
    shutdown: impl Future<Output = ()>,
) {
    let accept = move |context: &mut Context<'_>| listener.poll_accept(context).map_ok(Visitor::from);
    serve_visitors(store.into(), options, accept, tls, shutdown).await;
}

/// The same for who is in this process, and sends one of two connected sockets for each connection.
pub async fn serve_inside(
    store: impl Into<LazyStore>,
    options: Options,
    mut visitors: mpsc::Receiver<UnixStream>,
    shutdown: impl Future<Output = ()>,
) {
    let accept = move |context: &mut Context<'_>| match visitors.poll_recv(context) {
        Poll::Ready(Some(stream)) => Poll::Ready(Ok(Visitor::Inside(stream))),
        // Nobody can come any more.
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    };
    serve_visitors(store.into(), options, accept, None, shutdown).await;
}

async fn serve_visitors(
    store: LazyStore,
    options: Options,
    accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<Visitor>>,
    tls: Option<DoorKeeper>,
    shutdown: impl Future<Output = ()>,
) {
    let limits = Limits { most: Some(options.most_connections), grace: GRACE };
    let reception = Arc::new(Reception::new(store, options, tls.is_some()));
    let speak = |visitor, ending| connection::speak(reception.clone(), tls.clone(), visitor, ending);
    dozen_accept::serve(accept, speak, limits, shutdown).await;
}

impl Server {
    /// Whose this repository is, if it is kept for an upstream.
    fn source(&self, name: &RepositoryName) -> Option<Arc<Source>> {
        self.options.upstreams.as_ref()?.source(name)
    }

    /// Notes with an answer what others are to be told of, if there are any.
    fn note(&self, response: &mut Response<Body>, action: &'static str, name: &RepositoryName, what: What) {
        if self.options.watch.webhooks.is_some() {
            response.extensions_mut().insert(Happened { action, repository: name.to_string(), what });
        }
    }

    /// Does what somebody may do.
    async fn act(&self, action: Action, request: &mut Request<Incoming>, caller: &Caller, outbox: &Outbox) -> Answer {
        if let Some(name) = action.pushed_to()
            && let Some(source) = self.source(name)
        {
            return Err(source.refuses_pushes(name));
        }
        match action {
            Action::Base | Action::Token | Action::Page(_) => Ok(documents::base()),
            Action::Browse(what) => self.browse(request, &what, caller).await,
            Action::ListRepositories => self.list_repositories(request, caller).await,
            Action::ListTags(name) => self.list_tags(request, &name).await,
            Action::ListReferrers(name, digest) => self.list_referrers(request, &name, &digest).await,
            Action::ReadManifest(name, reference) => self.read_manifest(&name, &reference).await,
            Action::PutManifest(name, reference) => self.put_manifest(request, &name, &reference).await,
            Action::DeleteManifest(name, reference) => self.delete_manifest(&name, &reference).await,
            Action::ReadBlob(name, digest) => self.read_blob(request, &name, &digest, outbox).await,
            Action::DeleteBlob(name, digest) => self.delete_blob(&name, &digest).await,
            Action::BeginUpload(name) => self.begin_upload(request, &name, caller).await,
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
