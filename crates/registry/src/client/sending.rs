//! Questions with a body, which cannot be asked twice as they are: each is sent once, to an address that is known, and whoever
//! sends it decides what comes next.

use dozen_fetch::{Address, Answer, Body, Question, Reach};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{Asked, Repository, Wish, lock};
use crate::{Endpoint, RegistryError, Scope, Secret, Security};

/// What is sent.
#[derive(Debug)]
pub(crate) struct Sending<'a> {
    pub(crate) method: Method,
    pub(crate) address: &'a Address,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Body>,
    /// For errors.
    pub(crate) what: &'a str,
    /// Who is there is told who we are.
    pub(crate) is_trusted: bool,
    /// How far that address may lead.
    pub(crate) reach: Reach,
}

/// What became of it.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is looked at once")]
pub(crate) enum Sent {
    /// Any but a redirection that somebody follows.
    Answered(Answer),
    /// Who is there wanted to know who we are, and will be told when it is sent again.
    LetInNow,
}

impl Repository {
    /// The address of something below `/v2/`, of a server that has answered before.
    pub(crate) fn address_of(&self, endpoint: &Endpoint, below: &str) -> Result<Address, RegistryError> {
        let by_tls = match endpoint.security {
            Security::Verified | Security::Unverified => true,
            Security::Plain => false,
            Security::Any => lock(&self.client.0.has_tls).get(&endpoint.host).copied().unwrap_or(true),
        };
        let address = Address::parse(&endpoint.url(by_tls, below));
        address.map_err(|error| self.broken(endpoint, below, error.to_string()))
    }

    /// The same repository for one question that needs leave for more.
    pub(crate) fn allowed_also(&self, more: Scope) -> Self {
        let scope = lock(&self.scope).clone().union(more);
        let (endpoints, terms, connections) = (self.endpoints.clone(), self.terms.clone(), self.connections.clone());
        let same = Self::new(&self.client, self.name.clone(), endpoints, scope, terms, connections);
        let (refined, unserved) = (self.refined.clone(), self.unserved.clone());
        Self { access: self.access, refined, unserved, ..same }
    }

    /// Sends once. No redirection is followed.
    pub(crate) async fn send(&self, endpoint: &Endpoint, sending: Sending<'_>) -> Result<Sent, RegistryError> {
        let Sending { method, address, mut headers, body, what, is_trusted, reach } = sending;
        if endpoint.is_at(address) {
            headers.extend(endpoint.headers.iter().cloned());
        }
        let leave = if is_trusted { self.leave(endpoint, None).await? } else { None };
        if let Some(secret) = &leave {
            let bare = secret.expose().split_once(' ').map_or(secret.expose(), |(_, bare)| bare);
            *lock(&self.sent) = Some(Secret::new(bare));
            if let Ok(mut value) = HeaderValue::from_str(secret.expose()) {
                value.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, value);
            }
        }
        let fetching = self.fetching(endpoint, address, reach);
        let asked = fetching.ask(Question { method, address, headers, body }, &self.connections).await;
        let answer = asked.map_err(|error| self.not_reached(endpoint, what, &error))?;
        if answer.status != StatusCode::UNAUTHORIZED || !is_trusted {
            return Ok(Sent::Answered(answer));
        }
        let credentials = self.credentials_for(endpoint);
        let Some((_, more)) = self.client.0.ways.learn(endpoint, &answer, credentials)? else {
            return Ok(Sent::Answered(answer));
        };
        let wider = lock(&self.scope).clone().union(more);
        *lock(&self.scope) = wider;
        let new = self.leave(endpoint, leave.as_ref()).await?;
        if new.is_none() || new == leave { Ok(Sent::Answered(answer)) } else { Ok(Sent::LetInNow) }
    }

    /// What proves who we are, as far as it is known what is wanted. Not `refused`, if that is a token which was not taken.
    async fn leave(&self, endpoint: &Endpoint, refused: Option<&Secret>) -> Result<Option<Secret>, RegistryError> {
        let ways = &self.client.0.ways;
        let wish = Wish { scope: lock(&self.scope).clone(), credentials: self.credentials_for(endpoint) };
        match ways.known(endpoint) {
            Some(way) => ways.authorization(self, endpoint, &way, &wish, refused).await,
            None => Ok(None),
        }
    }

    /// What a refusal means.
    pub(crate) async fn refused_to_send(&self, endpoint: &Endpoint, what: &str, answer: Answer) -> RegistryError {
        let (below, headers) = (String::new(), HeaderMap::new());
        let asked = Asked { method: Method::PUT, below, headers, what: what.to_owned() };
        self.refused(endpoint, &asked, answer).await
    }
}
