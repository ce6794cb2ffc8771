//! How a server is given what it wants before it answers (the distribution project's "Token Authentication Specification").
//! What it wanted once it is given from then on, so that a question costs one round trip; a token is fetched once for all
//! who need the same.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use dozen_fetch::{Address, Answer, Place, Question, Reach, whole};
use dozen_model::{Classified, ErrorKind};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::again::{Again, Failed, again};
use crate::challenge::{Challenge, challenges};
use crate::client::{Asked, lock, random};
use crate::error::why;
use crate::token::Token;
use crate::{Credentials, Endpoint, RegistryError, Repository, Scope, Secret};

/// Of a token service's answer.
const ANSWER_BYTES: u64 = 1024 * 1024;
/// Beyond that, those go that are not good any more.
const MANY: usize = 256;

/// What is known of what servers want.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    known: Mutex<HashMap<Endpoint, Way>>,
    tokens: Mutex<HashMap<Key, Slot>>,
}

/// Locked while it is fetched: whoever wants the same waits for it.
type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// What a server wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// Name and password.
    Basic,
    /// A token.
    Bearer {
        realm: String,
        service: Option<String>,
        /// Where the server is: so may its token service be.
        place: Place,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    way: Way,
    scope: Scope,
    credentials: Option<Credentials>,
}

/// Who wants what.
#[derive(Debug, Clone)]
pub(crate) struct Wish<'a> {
    pub(crate) scope: Scope,
    pub(crate) credentials: Option<&'a Credentials>,
}

impl Ways {
    pub(crate) fn known(&self, endpoint: &Endpoint) -> Option<Way> {
        lock(&self.known).get(endpoint).cloned()
    }

    /// What a server that refused to answer wants, and for what. `None`: it does not say.
    pub(crate) fn learn(
        &self,
        endpoint: &Endpoint,
        answer: &Answer,
        credentials: Option<&Credentials>,
    ) -> Result<Option<(Way, Scope)>, RegistryError> {
        let fields = answer.headers.get_all(header::WWW_AUTHENTICATE);
        let wanted = challenges(fields.iter().map(HeaderValue::as_bytes));
        let host = || endpoint.host.clone();
        let bearer = wanted.iter().find_map(|challenge| match challenge {
            Challenge::Bearer(bearer) if !bearer.realm.is_empty() => Some(bearer.clone()),
            _ => None,
        });
        let (way, scope) = match bearer {
            Some(bearer) => {
                let scope = bearer.scope.as_deref().map(Scope::parse).unwrap_or_default();
                let place = answer.place;
                (Way::Bearer { realm: bearer.realm, service: bearer.service, place }, scope)
            }
            None if wanted.contains(&Challenge::Basic) && credentials.is_some() => (Way::Basic, Scope::default()),
            None if wanted.contains(&Challenge::Basic) => return Err(RegistryError::NoCredentials { host: host() }),
            None => match wanted.into_iter().next() {
                Some(Challenge::Other(scheme)) => return Err(RegistryError::Scheme { host: host(), scheme }),
                _ => return Ok(None),
            },
        };
        lock(&self.known).insert(endpoint.clone(), way.clone());
        Ok(Some((way, scope)))
    }

    /// The value of `Authorization`. Not `refused`, if that is a token which was not taken.
    pub(crate) async fn authorization(
        &self,
        repository: &Repository,
        endpoint: &Endpoint,
        way: &Way,
        wish: &Wish<'_>,
        refused: Option<&Secret>,
    ) -> Result<Option<Secret>, RegistryError> {
        if let Some(Credentials::RegistryToken(_)) = wish.credentials {
            return Ok(wish.credentials.and_then(Credentials::authorization).map(Secret::new));
        }
        let Way::Bearer { realm, service, place } = way else {
            return Ok(wish.credentials.and_then(Credentials::authorization).map(Secret::new));
        };
        let slot =
            self.slot(Key { way: way.clone(), scope: wish.scope.clone(), credentials: wish.credentials.cloned() });
        let mut token = slot.lock().await;
        let is_good = |token: &Token| token.is_good(Instant::now()) && refused != Some(&bearer(token));
        if let Some(token) = token.as_ref().filter(|token| is_good(token)) {
            return Ok(Some(bearer(token)));
        }
        let asking = Asking { repository, endpoint, realm, service: service.as_deref(), place: *place, wish };
        let new = asking.fetch().await?;
        let authorization = bearer(&new);
        *token = Some(new);
        Ok(Some(authorization))
    }

    fn slot(&self, key: Key) -> Slot {
        let mut tokens = lock(&self.tokens);
        if tokens.len() >= MANY {
            let now = Instant::now();
            // One that is being fetched is locked.
            tokens
                .retain(|_, slot| slot.try_lock().map_or(true, |slot| slot.as_ref().is_some_and(|it| it.is_good(now))));
        }
        tokens.entry(key).or_default().clone()
    }
}

fn bearer(token: &Token) -> Secret {
    Secret::new(format!("Bearer {}", token.secret.expose()))
}

/// A token, asked for.
struct Asking<'a> {
    repository: &'a Repository,
    endpoint: &'a Endpoint,
    realm: &'a str,
    service: Option<&'a str>,
    place: Place,
    wish: &'a Wish<'a>,
}

impl Asking<'_> {
    async fn fetch(&self) -> Result<Token, RegistryError> {
        let realm = self.service_address()?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let asked = match self.wish.credentials {
                Some(Credentials::IdentityToken(token)) => self.ask_by_identity(&realm, token).await,
                credentials => self.ask_by_password(&realm, credentials).await,
            };
            let (failed, error) = match asked {
                Ok(mut answer) => {
                    let body = answer.whole(ANSWER_BYTES).await;
                    let body = body.map_err(|error| self.no_token(&realm, why(&error), ErrorKind::Invalid))?;
                    if answer.status == StatusCode::OK {
                        let token = Token::read(&body, Instant::now());
                        return token.map_err(|why| self.no_token(&realm, why.to_owned(), ErrorKind::Invalid));
                    }
                    let refusal = self.repository.refusal(answer.status.as_u16(), &body);
                    let error = self.no_token(&realm, refusal.to_string(), refusal.kind());
                    (Failed::Answer(answer.status.as_u16(), None), error)
                }
                Err(error @ RegistryError::Broken { .. }) => {
                    (Failed::Connection, self.no_token(&realm, error.to_string(), ErrorKind::Unavailable))
                }
                Err(error) => return Err(self.no_token(&realm, error.to_string(), error.kind())),
            };
            match again(failed, attempts, self.repository.attempts(), random()) {
                Again::After(pause) => tokio::time::sleep(pause).await,
                Again::No => return Err(error),
            }
        }
    }

    /// Where the token service is. Without TLS nobody is told a password, unless the service may be asked so, or the registry
    /// itself.
    fn service_address(&self) -> Result<Address, RegistryError> {
        let refused = |why: &str| RegistryError::Realm {
            host: self.endpoint.host.clone(),
            realm: self.realm.chars().take(200).collect(),
            why: why.to_owned(),
        };
        let address = Address::parse(self.realm).map_err(|error| refused(&error.to_string()))?;
        let settings = self.repository.settings();
        let may_be_plain = self.endpoint.may_be_plain() || settings.is_insecure(&address.host_and_port());
        match address.is_secure() || may_be_plain {
            true => Ok(address),
            false => Err(refused("that is without TLS, and anybody could read what proves who we are")),
        }
    }

    async fn ask_by_password(
        &self,
        realm: &Address,
        credentials: Option<&Credentials>,
    ) -> Result<Answer, RegistryError> {
        let mut query = Query(String::new());
        self.service.into_iter().for_each(|service| query.add("service", service));
        self.wish.scope.each().for_each(|scope| query.add("scope", &scope));
        if let Some(Credentials::Password { user, .. }) = credentials {
            query.add("account", user);
        }
        let address = realm.with_query(&query.0);
        let asked =
            Asked { method: Method::GET, below: String::new(), headers: HeaderMap::new(), what: "a token".to_owned() };
        let authorization = credentials.and_then(Credentials::authorization).map(Secret::new);
        self.repository
            .follow_from(self.endpoint, address, &asked, authorization.as_ref(), Reach::Beside(self.place))
            .await
    }

    /// OAuth 2.0 (RFC 6749, section 6): the token for who has logged in stands in the body, not in the address.
    async fn ask_by_identity(&self, realm: &Address, token: &Secret) -> Result<Answer, RegistryError> {
        let mut form = Query(String::new());
        form.add("grant_type", "refresh_token");
        form.add("service", self.service.unwrap_or_default());
        form.add("client_id", "dozen");
        form.add("scope", &self.wish.scope.to_string());
        form.add("refresh_token", token.expose());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let body = Some(whole(form.0.into_bytes()));
        let question = Question { method: Method::POST, address: realm, headers, body };
        self.repository.post(self.endpoint, question, Reach::Beside(self.place)).await
    }

    fn no_token(&self, realm: &Address, why: String, kind: ErrorKind) -> RegistryError {
        let (service, host) = (realm.host_and_port(), self.endpoint.host.clone());
        RegistryError::NoToken { service, host, why, kind }
    }
}

/// `application/x-www-form-urlencoded`: RFC 3986's unreserved letters stay.
#[derive(Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        _ = write!(self.0, "{name}=");
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => self.0.push(char::from(byte)),
                _ => _ = write!(self.0, "%{byte:02X}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_hides_nothing_in_itself() {
        let mut query = Query(String::new());
        query.add("service", "a&b=c d");
        query.add("scope", "repository:a/b:pull,push");
        assert_eq!(query.0, "service=a%26b%3Dc%20d&scope=repository%3Aa%2Fb%3Apull%2Cpush");
    }
}
