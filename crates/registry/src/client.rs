//! One repository of a registry, asked: each question goes to one server after the other that has the repository, with what
//! it wants for an answer, again if that may help, and wherever it redirects to.

pub(crate) mod sending;

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dozen_fetch::{Address, Answer, Connections, FetchError, Fetching, Place, Question, Reach};
use dozen_model::Reference;
use dozen_settings::RegistrySettings;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use tokio::sync::OnceCell;

use crate::again::{Again, Failed, again, retry_after};
use crate::authorization::{Ways, Wish};
use crate::error::why;
use crate::redirection::{self, Redirected, redirected};
use crate::secret::shown;
use crate::{
    Authorities, Credentials, Endpoint, OwnRegistry, Patience, Pauses, Proxies, RateLimit, Refusal, RegistryError,
    Scope, Secret,
};
use crate::{Security, endpoints};
use crate::{hosts, pauses};

/// Of an error's body.
const ERROR_BYTES: u64 = 64 * 1024;

/// What one process knows of registries: which of them have no TLS, what they want, and tokens that are still good.
/// Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Client(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Hosts that were reached, of those that need no TLS: whether they have it.
    has_tls: Mutex<HashMap<String, bool>>,
    ways: Ways,
}

/// What is to be done in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub enum Access {
    Pull,
    Push,
}

/// How a repository is reached.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Mirrors, registries without TLS, how often.
    pub settings: RegistrySettings,
    /// For the registry itself, not for its mirrors.
    pub credentials: Option<Credentials>,
    /// One that is known here better than by what the settings and others' credentials say.
    pub own: Option<OwnRegistry>,
    /// Whose certificates are believed.
    pub authorities: Authorities,
    /// Through whom.
    pub proxies: Proxies,
    /// How long.
    pub patience: Patience,
}

/// A repository. Its connections are closed with it.
#[derive(Debug)]
pub struct Repository {
    client: Client,
    /// Its path in the registry.
    name: String,
    /// As the settings have them.
    endpoints: Vec<Endpoint>,
    /// With what the registry's directory says.
    refined: OnceCell<Vec<Endpoint>>,
    /// Why nobody is asked at all.
    unserved: Option<String>,
    /// `None`: a login.
    access: Option<Access>,
    /// What is asked for, and what a server wanted beside it.
    scope: Mutex<Scope>,
    terms: Terms,
    connections: Connections,
    /// Mirrors that have nothing for us.
    given_up: Mutex<HashSet<Endpoint>>,
    rate_limit: Mutex<Option<RateLimit>>,
    /// Servers that have answered on this host itself or on its links.
    places: Mutex<HashMap<String, Place>>,
    /// Who is told of pauses.
    pauses: Option<Pauses>,
    /// What was sent last to prove who we are: to be hidden in what comes back.
    sent: Mutex<Option<Secret>>,
}

/// For what a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Resolve,
    Pull,
    Push,
    LogIn,
}

impl Need {
    fn is_of(self, server: &Endpoint) -> bool {
        let may = server.capabilities;
        match self {
            Self::Resolve => may.resolve,
            Self::Pull => may.pull,
            Self::Push => may.push,
            Self::LogIn => true,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Pull => "pull",
            Self::Push | Self::LogIn => "push",
        }
    }
}

/// What is asked of one server.
pub(crate) type Attempt<'f, T> = Pin<Box<dyn Future<Output = Result<T, RegistryError>> + Send + 'f>>;

/// A question to a registry.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Below `/v2/`, or the rest of a page's reference.
    pub(crate) below: String,
    pub(crate) headers: HeaderMap,
    /// For errors: "the manifest latest".
    pub(crate) what: String,
}

impl Client {
    /// The repository of an image.
    pub fn repository(&self, reference: &Reference, access: Access, terms: Terms) -> Repository {
        let name = reference.path().to_owned();
        let scope = match access {
            Access::Pull => Scope::pull(&name),
            Access::Push => Scope::push(&name),
        };
        if let Some(own) = terms.own.clone().filter(|own| own.is(reference.registry())) {
            let endpoints = vec![own.endpoint()];
            let refined = OnceCell::new_with(Some(endpoints.clone()));
            let unserved = own.door.as_ref().err().cloned();
            // Whoever comes by the door needs none, and those for another registry of this name are not for it.
            let terms = Terms { credentials: None, ..terms };
            let repository = Repository::new(self, name, endpoints, scope, terms, Connections::default());
            return Repository { access: Some(access), refined, unserved, ..repository };
        }
        let mut endpoints = endpoints(reference.registry(), &terms.settings);
        // What a mirror has is somebody else's.
        endpoints.retain(|endpoint| access == Access::Pull || !endpoint.is_mirror);
        let repository = Repository::new(self, name, endpoints, scope, terms, Connections::default());
        Repository { access: Some(access), ..repository }
    }
}

impl Repository {
    pub(crate) fn new(
        client: &Client,
        name: String,
        endpoints: Vec<Endpoint>,
        scope: Scope,
        terms: Terms,
        connections: Connections,
    ) -> Self {
        Self {
            client: client.clone(),
            name,
            endpoints,
            refined: OnceCell::new(),
            unserved: None,
            access: None,
            scope: Mutex::new(scope),
            terms,
            connections,
            given_up: Mutex::default(),
            rate_limit: Mutex::default(),
            places: Mutex::default(),
            pauses: None,
            sent: Mutex::default(),
        }
    }

    /// The same, of whose pauses somebody is told.
    #[must_use]
    pub fn telling(self, pauses: Pauses) -> Self {
        Self { pauses: Some(pauses), ..self }
    }

    pub(crate) async fn pause(&self, below: &str, pause: Duration) {
        pauses::wait(self.pauses.as_ref(), below, pause).await;
    }

    /// How many pulls the registry still gives, if it said so.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        *lock(&self.rate_limit)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn own_host(&self) -> &str {
        self.endpoints.last().map_or("", |own| &own.host)
    }

    pub(crate) fn settings(&self) -> &RegistrySettings {
        &self.terms.settings
    }

    pub(crate) fn attempts(&self) -> u32 {
        u32::from(self.terms.settings.attempts.get())
    }

    /// Whom to ask, the registry's own server last. Its directory is read once.
    async fn servers(&self) -> Result<&[Endpoint], RegistryError> {
        if let Some(why) = &self.unserved {
            let why = format!("it is the engine's own, which is not served: {why}");
            return Err(RegistryError::Unreachable { host: self.own_host().to_owned(), why });
        }
        let refined = self.refined.get_or_try_init(|| async {
            let (planned, access) = (self.endpoints.clone(), self.access);
            let (settings, authorities) = (self.terms.settings.clone(), self.terms.authorities.clone());
            let refine = move || hosts::refine(planned, access, &settings, &authorities);
            let refined = tokio::task::spawn_blocking(refine).await;
            refined.unwrap_or_else(|error| Err(RegistryError::Certificates(error.to_string())))
        });
        refined.await.map(Vec::as_slice)
    }

    /// The registry's own server.
    pub(crate) async fn server(&self) -> Result<&Endpoint, RegistryError> {
        let last = self.servers().await?.last();
        last.ok_or_else(|| RegistryError::Nobody { registry: self.own_host().to_owned(), what: Need::Resolve.what() })
    }

    /// Does something with each server until one of them has it. What the registry itself says counts; a mirror may fail as
    /// it likes.
    pub(crate) async fn of_each<'r: 'f, 'f, T>(
        &'r self,
        ask: impl Fn(&'r Endpoint) -> Attempt<'f, T>,
    ) -> Result<T, RegistryError> {
        let need = match self.access {
            Some(Access::Pull) => Need::Pull,
            Some(Access::Push) => Need::Push,
            None => Need::LogIn,
        };
        self.of_each_able(need, ask).await
    }

    /// The same, with those that may be asked for this.
    pub(crate) async fn of_each_able<'r: 'f, 'f, T>(
        &'r self,
        need: Need,
        ask: impl Fn(&'r Endpoint) -> Attempt<'f, T>,
    ) -> Result<T, RegistryError> {
        let able = self.able(need).await?;
        let Some((own, mirrors)) = able.split_last() else {
            return Err(RegistryError::Nobody { registry: self.own_host().to_owned(), what: need.what() });
        };
        for mirror in mirrors {
            if lock(&self.given_up).contains(*mirror) {
                continue;
            }
            match ask(mirror).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::info!(mirror = mirror.host, error = %error, "a mirror has not got it");
                    if matches!(error, RegistryError::Unreachable { .. } | RegistryError::NoToken { .. }) {
                        lock(&self.given_up).insert((*mirror).clone());
                    }
                }
            }
        }
        ask(own).await
    }

    /// Those that may be asked for this: mirrors, and last the registry itself.
    pub(crate) async fn able(&self, need: Need) -> Result<Vec<&Endpoint>, RegistryError> {
        Ok(self.servers().await?.iter().filter(|server| need.is_of(server)).collect())
    }

    /// Asks one server, again and again if that may help, and gives an answer that is none of refusal.
    pub(crate) async fn ask(&self, endpoint: &Endpoint, asked: &Asked) -> Result<Answer, RegistryError> {
        self.ask_until(endpoint, asked, || Box::pin(self.ask_with_leave(endpoint, asked))).await
    }

    /// The same, whatever one attempt is.
    pub(crate) async fn ask_until<'f>(
        &self,
        endpoint: &Endpoint,
        asked: &Asked,
        attempt: impl Fn() -> Attempt<'f, Answer>,
    ) -> Result<Answer, RegistryError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let failed = match attempt().await {
                Ok(answer) => {
                    self.look_at_limit(&answer);
                    if answer.place != Place::Network {
                        lock(&self.places).insert(endpoint.host.clone(), answer.place);
                    }
                    if answer.status.is_success() {
                        return Ok(answer);
                    }
                    Failure::Refused(answer)
                }
                Err(error @ RegistryError::Broken { .. }) => Failure::Broken(error),
                Err(error) => return Err(error),
            };
            let kind = match &failed {
                Failure::Broken(_) => Failed::Connection,
                Failure::Refused(answer) => Failed::Answer(answer.status.as_u16(), pause_of(answer)),
            };
            match again(kind, attempts, self.attempts(), random()) {
                Again::After(pause) => {
                    tracing::info!(host = endpoint.host, what = asked.what, attempts, "asking again");
                    self.pause(&asked.below, pause).await;
                }
                Again::No => match failed {
                    Failure::Broken(error) => return Err(error),
                    Failure::Refused(answer) => return Err(self.refused(endpoint, asked, answer).await),
                },
            }
        }
    }

    /// Asks once, with what the server wants before it answers.
    async fn ask_with_leave(&self, endpoint: &Endpoint, asked: &Asked) -> Result<Answer, RegistryError> {
        let ways = &self.client.0.ways;
        let mut wish = Wish { scope: lock(&self.scope).clone(), credentials: self.credentials_for(endpoint) };
        let old = match ways.known(endpoint) {
            Some(way) => ways.authorization(self, endpoint, &way, &wish, None).await?,
            None => None,
        };
        let answer = self.reach(endpoint, asked, old.as_ref()).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // A token that was good until now may have been called back; one for more may be wanted.
        let Some((way, more)) = ways.learn(endpoint, &answer, wish.credentials)? else { return Ok(answer) };
        wish.scope = wish.scope.union(more);
        lock(&self.scope).clone_from(&wish.scope);
        let new = ways.authorization(self, endpoint, &way, &wish, old.as_ref()).await?;
        if new.is_none() || new == old {
            return Ok(answer);
        }
        drop(answer);
        self.reach(endpoint, asked, new.as_ref()).await
    }

    pub(crate) fn credentials_for(&self, endpoint: &Endpoint) -> Option<&Credentials> {
        self.terms.credentials.as_ref().filter(|_| !endpoint.is_mirror)
    }

    /// Asks once, by TLS or not as the server has it, and follows where that leads.
    async fn reach(
        &self,
        endpoint: &Endpoint,
        asked: &Asked,
        authorization: Option<&Secret>,
    ) -> Result<Answer, RegistryError> {
        let hosts = &self.client.0.has_tls;
        let by_tls = match endpoint.security {
            Security::Verified | Security::Unverified => {
                return self.follow(endpoint, asked, authorization, true).await;
            }
            Security::Plain => return self.follow(endpoint, asked, authorization, false).await,
            Security::Any => lock(hosts).get(&endpoint.host).copied(),
        };
        let is_there = |found: &Result<Answer, _>| !matches!(found, Err(RegistryError::Unreachable { .. }));
        if by_tls != Some(false) {
            let found = self.follow(endpoint, asked, authorization, true).await;
            if is_there(&found) {
                lock(hosts).insert(endpoint.host.clone(), true);
                return found;
            }
        }
        let found = self.follow(endpoint, asked, authorization, false).await;
        match found.is_ok() {
            true => lock(hosts).insert(endpoint.host.clone(), false),
            // It may have changed: the next one finds out.
            false => lock(hosts).remove(&endpoint.host),
        };
        found
    }

    async fn follow(
        &self,
        endpoint: &Endpoint,
        asked: &Asked,
        authorization: Option<&Secret>,
        by_tls: bool,
    ) -> Result<Answer, RegistryError> {
        let url = endpoint.url(by_tls, &asked.below);
        let address = Address::parse(&url).map_err(|error| self.broken(endpoint, &asked.what, error.to_string()))?;
        self.follow_from(endpoint, address, asked, authorization, Reach::Anywhere).await
    }

    /// The same from any address. `reach`: as far as the first server goes; where that leads is beside it, and so on.
    pub(crate) async fn follow_from(
        &self,
        endpoint: &Endpoint,
        mut address: Address,
        asked: &Asked,
        authorization: Option<&Secret>,
        mut reach: Reach,
    ) -> Result<Answer, RegistryError> {
        if let Some(secret) = authorization {
            let bare = secret.expose().split_once(' ').map_or(secret.expose(), |(_, bare)| bare);
            *lock(&self.sent) = Some(Secret::new(bare));
        }
        let mut authorization = authorization.and_then(|secret| HeaderValue::from_str(secret.expose()).ok());
        let may_be_plain = endpoint.may_be_plain();
        for _ in 0..=redirection::MOST {
            let mut headers = asked.headers.clone();
            if endpoint.is_at(&address) {
                headers.extend(endpoint.headers.iter().cloned());
            }
            if let Some(value) = &mut authorization {
                value.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, value.clone());
            }
            let question = Question { method: asked.method.clone(), address: &address, headers, body: None };
            let fetching = self.fetching(endpoint, &address, reach);
            let answer = fetching.ask(question, &self.connections).await;
            let answer = answer.map_err(|error| self.not_reached(endpoint, &asked.what, &error))?;
            reach = Reach::Beside(answer.place);
            let refused = |to: String, why: String| RegistryError::Redirection { host: endpoint.host.clone(), to, why };
            let next = answer.redirection().map_err(|error| refused("no address".to_owned(), why(&error)))?;
            let Some(next) = next else { return Ok(answer) };
            match redirected(&address, &next, may_be_plain) {
                Redirected::Trusted => {}
                Redirected::Stranger => authorization = None,
                Redirected::Refused(why) => return Err(refused(next.host_and_port(), why.to_owned())),
            }
            address = next;
        }
        let (host, to) = (endpoint.host.clone(), address.host_and_port());
        Err(RegistryError::Redirection { host, to, why: "that is a circle".to_owned() })
    }

    /// A question with a body, which is asked once and follows no redirection.
    pub(crate) async fn post(
        &self,
        endpoint: &Endpoint,
        question: Question<'_>,
        reach: Reach,
    ) -> Result<Answer, RegistryError> {
        let fetching = self.fetching(endpoint, question.address, reach);
        let answer = fetching.ask(question, &self.connections).await;
        answer.map_err(|error| self.not_reached(endpoint, "a token", &error))
    }

    fn fetching(&self, endpoint: &Endpoint, address: &Address, reach: Reach) -> Fetching {
        // Where it leads to is no less to be looked at than any other server.
        let host = address.host_and_port();
        let is_unverified = matches!(endpoint.security, Security::Any | Security::Unverified);
        let authorities = match (endpoint.is_at(address), &endpoint.trust) {
            (true, Some(trust)) => trust.own.clone(),
            (true, None) if is_unverified => Authorities::anybody(),
            (true, None) => self.terms.authorities.clone(),
            (false, _) if self.terms.settings.is_insecure(&host) => Authorities::anybody(),
            (false, Some(trust)) => trust.elsewhere.clone(),
            (false, None) => self.terms.authorities.clone(),
        };
        Fetching {
            proxies: self.terms.proxies.clone(),
            authorities,
            reach,
            may_be_plain: false,
            patience: self.terms.patience,
            door: endpoint.door.clone().filter(|_| endpoint.is_at(address)),
        }
    }

    /// All of an answer's body.
    pub(crate) async fn body(
        &self,
        endpoint: &Endpoint,
        what: &str,
        answer: &mut Answer,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        answer.whole(limit_bytes).await.map_err(|error| match error {
            FetchError::TooLarge { .. } => {
                RegistryError::TooLarge { what: what.to_owned(), host: endpoint.host.clone(), limit_bytes }
            }
            error => self.broken(endpoint, what, why(&error)),
        })
    }

    fn not_reached(&self, endpoint: &Endpoint, what: &str, error: &FetchError) -> RegistryError {
        match error {
            FetchError::Broken { .. } | FetchError::TooLarge { .. } => self.broken(endpoint, what, why(error)),
            _ => RegistryError::Unreachable { host: endpoint.host.clone(), why: why(error) },
        }
    }

    pub(crate) fn broken(&self, endpoint: &Endpoint, what: &str, why: String) -> RegistryError {
        RegistryError::Broken { what: what.to_owned(), host: endpoint.host.clone(), why }
    }

    async fn refused(&self, endpoint: &Endpoint, asked: &Asked, mut answer: Answer) -> RegistryError {
        let body = answer.whole(ERROR_BYTES).await.unwrap_or_default();
        let refusal = self.refusal(answer.status.as_u16(), &body);
        if refusal.status == 401 && self.credentials_for(endpoint).is_none() && refusal.errors.is_empty() {
            return RegistryError::NoCredentials { host: endpoint.host.clone() };
        }
        let pause = pause_of(&answer);
        RegistryError::Refused { what: asked.what.clone(), host: endpoint.host.clone(), refusal, pause }
    }

    pub(crate) fn refusal(&self, status: u16, body: &[u8]) -> Refusal {
        let sent = lock(&self.sent).clone();
        Refusal::read(status, body, |words| shown(words, self.terms.credentials.as_ref(), sent.as_ref()))
    }

    /// Where a server is that has answered.
    pub(crate) fn place_of(&self, endpoint: &Endpoint) -> Place {
        lock(&self.places).get(&endpoint.host).copied().unwrap_or(Place::Network)
    }

    fn look_at_limit(&self, answer: &Answer) {
        let limit = RateLimit::read(answer.field("ratelimit-limit"), answer.field("ratelimit-remaining"));
        if limit.is_some() {
            *lock(&self.rate_limit) = limit;
        }
    }
}

enum Failure {
    Broken(RegistryError),
    Refused(Answer),
}

fn pause_of(answer: &Answer) -> Option<Duration> {
    retry_after(answer.field("retry-after")?, Timestamp::now())
}

pub(crate) fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without any, everybody waits for the shortest time.
    let _ = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
