//! Where requests come in: who asks, and whether he may. Only then the store is opened, if it is not, and something is done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::HeaderValue;
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::{OnceCell, Semaphore};

use super::body::Body;
use super::namespace::Meant;
use super::socket::Outbox;
use super::{Answer, MOST_MANIFESTS, Options, Server, header, intake, namespace, refused};
use crate::refusal::{Kind, Refusal};
use crate::route::{Action, page_not_found, route};
use crate::store::LazyStore;
use crate::webhook::{Event, Happened};

/// See the module.
#[derive(Debug)]
pub(super) struct Reception {
    pub(super) options: Arc<Options>,
    has_tls: bool,
    store: LazyStore,
    /// Once the store is open.
    server: OnceCell<Server>,
}

impl Reception {
    pub(super) fn new(store: LazyStore, options: Options, has_tls: bool) -> Self {
        Self { options: Arc::new(options), has_tls, store, server: OnceCell::new() }
    }

    /// The answer to a request, refused or not.
    pub(super) async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        outbox: &Outbox,
    ) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let begun = Instant::now();
        let action = route(&method, &path);
        let word = action.as_ref().map_or("unknown", Action::word);
        let mut user = None;
        let answered = match action {
            Ok(action) => self.let_in(action, &mut request, outbox, &mut user).await,
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
        let waits = request.headers().contains_key(http::header::EXPECT);
        if is_refused
            && (waits && !request.body().is_end_stream() || !waits && !intake::swallow(request.body_mut()).await)
        {
            // Nothing more is read on this connection, which its client could not know (RFC 9112, section 9.6).
            response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        let version = HeaderValue::from_static("registry/2.0");
        response.headers_mut().insert("docker-distribution-api-version", version);
        let quiet = HeaderValue::from_static("nosniff");
        response.headers_mut().insert("x-content-type-options", quiet);
        // What somebody has pushed is, to a browser, never a page of this registry's.
        let sandbox = HeaderValue::from_static("default-src 'none'; sandbox");
        response.headers_mut().entry("content-security-policy").or_insert(sandbox);
        if method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        response
    }

    async fn let_in(
        &self,
        mut action: Action,
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
        let meant = namespace::mean(&mut action, request, self.options.upstreams.as_ref());
        meant.check(&action, &caller)?;
        if let Meant::There(called) = &meant {
            // Of lists, which say their own name.
            request.extensions_mut().insert(called.there.clone());
        }
        user.clone_from(&caller.user);
        if self.options.read_only && action.is_write() {
            return Err(Refusal::new(Kind::Unsupported, "this registry is read-only"));
        }
        let is_write = action.is_write();
        let server = self.server().await?;
        let answered = server.act(action, request, &caller, outbox).await;
        if is_write {
            server.store.stir();
        }
        match meant {
            Meant::There(called) => called.told(answered),
            Meant::Here | Meant::Nowhere { .. } => answered,
        }
    }

    async fn server(&self) -> Result<&Server, Refusal> {
        let open = async || {
            let (store, options) = (self.store.open().await?, self.options.clone());
            Ok(Server { store, options, has_tls: self.has_tls, manifests: Semaphore::new(MOST_MANIFESTS) })
        };
        self.server.get_or_try_init(open).await
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
}
