//! The registry as its own token service: who logs in by name and password gets tokens for what the rights allow (the
//! distribution project's "Token Authentication Specification" and "Oauth2 Token Authentication").

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, Uri, header};

use crate::access::caller::{Bad, Caller, Challenge, Shown};
use crate::access::rights::Rights;
use crate::access::scope::Granted;
use crate::access::token::{Claims, LIFE, TokenKey, Use, User};
use crate::access::{Credentials, Passwords, credentials};
use crate::refusal::{Kind, Refusal};

/// See the module.
#[derive(Debug)]
pub struct Authorizer {
    passwords: Arc<Passwords>,
    rights: Rights,
    key: TokenKey,
    /// Where clients find the token service, if that is not where they found the registry.
    realm: Option<String>,
    service: String,
}

/// How somebody proves who he is to whom he wants a token.
pub(crate) enum Proof {
    Nobody,
    Password(String, Vec<u8>),
    Refresh(String),
}

/// What the token service gives.
pub(crate) struct Issued {
    pub(crate) token: String,
    /// For further ones.
    pub(crate) refresh: Option<String>,
    /// What it is for in the end.
    pub(crate) scope: String,
    pub(crate) seconds: u64,
}

impl Authorizer {
    /// With these passwords and rights; `service` is what the registry is called in tokens. `realm`: the URL of the token
    /// service, where a proxy stands before it.
    pub fn new(
        passwords: Arc<Passwords>,
        rights: Rights,
        key: TokenKey,
        realm: Option<String>,
        service: impl Into<String>,
    ) -> Self {
        Self { passwords, rights, key, realm, service: service.into() }
    }

    /// Who sent this. `has_tls`: we speak it ourselves.
    pub(crate) async fn admit(&self, headers: &HeaderMap, uri: &Uri, has_tls: bool) -> Result<Caller, Refusal> {
        let realm = self.realm.clone().unwrap_or_else(|| realm_of(headers, uri, has_tls));
        let challenge = Challenge { realm, service: self.service.clone() };
        let (user, shown) = match credentials(headers) {
            Credentials::None => (None, Shown::Nothing),
            Credentials::Basic(name, password) => match self.passwords.is_right(&name, &password).await? {
                true => (Some(name), Shown::Password),
                false => (None, Shown::Bad(Bad::Password)),
            },
            Credentials::Bearer(token) => match self.key.read(Use::Access, &self.service, &token, now()) {
                Some(claims) if self.is_still(claims.user.as_ref()) => {
                    (claims.user.map(|user| user.name), Shown::Token(claims.granted))
                }
                _ => (None, Shown::Bad(Bad::Token)),
            },
            Credentials::Other => (None, Shown::Bad(Bad::Password)),
        };
        Ok(Caller::by_policy(self.rights.policy(), user, shown, challenge))
    }

    /// Whether he is there, with the password for which the token was given.
    fn is_still(&self, user: Option<&User>) -> bool {
        user.is_none_or(|user| {
            let mark = self.passwords.hash_of(&user.name).map(|hash| self.key.mark(&user.name, &hash));
            // It came with a signature of ours: nobody can try others.
            mark.as_ref() == Some(&user.mark)
        })
    }

    /// A token for what of `asked` the rights give him; for nothing of it, too, which is no error. `wants_refresh`: with one
    /// to get others by, if he has logged in by his password.
    pub(crate) async fn issue(&self, proof: Proof, asked: &str, wants_refresh: bool) -> Result<Issued, Refusal> {
        let wrong = || Refusal::new(Kind::Unauthorized, "incorrect username or password");
        let (user, refresh) = match proof {
            Proof::Nobody => (None, None),
            Proof::Password(name, password) => {
                let hash = self.passwords.hash_of(&name);
                let is_right = self.passwords.is_right(&name, &password).await?;
                // If the file has changed meanwhile, nobody knows for which of the two it was right.
                let hash = hash.filter(|hash| is_right && self.passwords.hash_of(&name).as_ref() == Some(hash));
                let hash = hash.ok_or_else(wrong)?;
                let user = User { mark: self.key.mark(&name, &hash), name };
                let claims = Claims { user: Some(user.clone()), granted: Granted::default() };
                let refresh = wants_refresh.then(|| self.key.issue(Use::Refresh, &self.service, &claims, now()));
                (Some(user), refresh)
            }
            Proof::Refresh(token) => {
                let over = || Refusal::new(Kind::Unauthorized, "the login is over: log in again");
                let claims = self.key.read(Use::Refresh, &self.service, &token, now()).ok_or_else(over)?;
                if claims.user.is_none() || !self.is_still(claims.user.as_ref()) {
                    return Err(over());
                }
                (claims.user, Some(token))
            }
        };
        let (policy, name) = (self.rights.policy(), user.as_ref().map(|user| user.name.as_str()));
        let granted = Granted::parse(asked).limited(|repository| policy.rights(name, repository));
        let scope = granted.text();
        tracing::debug!("a token for {name:?}, for {scope:?}");
        let token = self.key.issue(Use::Access, &self.service, &Claims { user, granted }, now());
        Ok(Issued { token, refresh, scope, seconds: LIFE.as_secs() })
    }

    /// Whether tokens for a service of this name are ours to give.
    pub(crate) fn is_called(&self, service: &str) -> bool {
        service == self.service
    }
}

/// The token service at the address by which the registry was called.
fn realm_of(headers: &HeaderMap, uri: &Uri, has_tls: bool) -> String {
    let said = uri.authority().map(http::uri::Authority::as_str);
    let said = said.or_else(|| headers.get(header::HOST)?.to_str().ok()).unwrap_or_default();
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    let host = if !said.is_empty() && said.bytes().all(is_letter) { said } else { "localhost" };
    format!("{}://{host}/v2/token", if has_tls { "https" } else { "http" })
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_service_is_where_the_registry_is() {
        let realm = |host: &str, has_tls| {
            let headers: HeaderMap = [(header::HOST, host.parse().unwrap())].into_iter().collect();
            realm_of(&headers, &Uri::from_static("/v2/"), has_tls)
        };
        assert_eq!(realm("registry.example:5000", true), "https://registry.example:5000/v2/token");
        assert_eq!(realm("[::1]:5000", false), "http://[::1]:5000/v2/token");
        for bad in ["", "a\"b", "a/b", "a b", "a@b"] {
            assert_eq!(realm(bad, false), "http://localhost/v2/token", "{bad}");
        }
    }
}
