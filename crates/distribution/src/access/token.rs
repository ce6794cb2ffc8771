//! Tokens that this registry gives and takes itself: JSON Web Tokens (RFC 7519) signed by HMAC (RFC 7518, section 3.2), since
//! who signs them is who reads them. To clients they are opaque.
//!
//! The key lies beside what is stored, so tokens outlive the server. Each names its user's password by a mark, so it is over
//! with that password, or with the user. One that is for fetching others (a refresh token) has no other end; those that open
//! repositories are good for some minutes, and each use asks the rights again.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dozen_model::base64;
use ring::hmac;
use serde_json::{Value, json};

use crate::access::scope::Granted;

/// How long a token opens something: long enough for old clients, which know no less than a minute ("Token Authentication
/// Specification", `expires_in`).
pub(crate) const LIFE: Duration = Duration::from_secs(5 * 60);
/// Longer ones are nobody's.
const LONGEST_BYTES: usize = 32 << 10;
const KEY_BYTES: usize = 32;
const KEY_FILE: &str = "token.key";

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Requests for what is stored.
    Access,
    /// Requests for tokens.
    Refresh,
}

impl Use {
    /// The first part of each such token, to the byte: none of another kind, and none signed in another way, is taken.
    fn head(self) -> &'static str {
        match self {
            Self::Access => r#"{"typ":"JWT","alg":"HS256"}"#,
            Self::Refresh => r#"{"typ":"refresh+jwt","alg":"HS256"}"#,
        }
    }
}

/// Who has a token, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    /// `None`: nobody has logged in for it.
    pub(crate) user: Option<User>,
    pub(crate) granted: Granted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    /// Of the password that the user had ([`TokenKey::mark`]).
    pub(crate) mark: String,
}

/// Why a server has no key.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum TokenKeyError {
    #[error("cannot keep the key of tokens in {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is no key of tokens: remove it, and everyone logs in again", .0.display())]
    Malformed(PathBuf),
    #[error("others than its owner can read or change {}: say chmod 600, or remove it", .0.display())]
    Readable(PathBuf),
}

/// See the module.
pub struct TokenKey(hmac::Key);

impl std::fmt::Debug for TokenKey {
    /// Says nothing of what is in it.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TokenKey")
    }
}

impl TokenKey {
    /// The one that is kept in this directory; made, if there is none. Whoever calls has the directory for himself.
    ///
    /// # Errors
    /// See [`TokenKeyError`].
    pub fn open(directory: &Path) -> Result<Self, TokenKeyError> {
        let path = directory.join(KEY_FILE);
        let failed = |source| TokenKeyError::File { path: path.clone(), source };
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => {
                if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
                    return Err(TokenKeyError::Readable(path));
                }
                file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bytes = vec![0; KEY_BYTES];
                getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
                keep(&path, &bytes).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        if bytes.len() == KEY_BYTES { Ok(Self::new(&bytes)) } else { Err(TokenKeyError::Malformed(path)) }
    }

    fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Of a user with this hash of a password: it tells nothing of either, and changes with each of them.
    pub(crate) fn mark(&self, name: &str, hash: &str) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        // No token begins so.
        context.update(b"password\0");
        context.update(name.as_bytes());
        context.update(b"\0");
        context.update(hash.as_bytes());
        encode(&context.sign().as_ref()[..16])
    }

    /// A token. `service`: by what the registry is called; `now`: seconds since 1970.
    pub(crate) fn issue(&self, used: Use, service: &str, claims: &Claims, now: u64) -> String {
        let mut body = json!({ "iss": service, "aud": service, "iat": now, "nbf": now, "jti": random() });
        body["sub"] = json!(claims.user.as_ref().map_or("", |user| &user.name));
        if let Some(user) = &claims.user {
            body["mark"] = json!(user.mark);
        }
        if used == Use::Access {
            body["exp"] = json!(now + LIFE.as_secs());
            body["access"] = claims.granted.claims();
        }
        let signed = format!("{}.{}", encode(used.head().as_bytes()), encode(body.to_string().as_bytes()));
        let tag = hmac::sign(&self.0, signed.as_bytes());
        format!("{signed}.{}", encode(tag.as_ref()))
    }

    /// What one of ours says; `None`: it is none, or good no longer.
    pub(crate) fn read(&self, used: Use, service: &str, token: &str, now: u64) -> Option<Claims> {
        if token.len() > LONGEST_BYTES {
            return None;
        }
        let (signed, tag) = token.rsplit_once('.')?;
        let (head, body) = signed.split_once('.')?;
        // In a time that says nothing of the key.
        hmac::verify(&self.0, signed.as_bytes(), &decode(tag)?).ok()?;
        if decode(head)? != used.head().as_bytes() {
            return None;
        }
        let body: Value = serde_json::from_slice(&decode(body)?).ok()?;
        let is_for_us = body["aud"] == service && body["iss"] == service;
        let is_good = match used {
            Use::Access => body["exp"].as_u64().is_some_and(|end| now < end),
            Use::Refresh => true,
        };
        if !is_for_us || !is_good {
            return None;
        }
        let text = |key: &str| body[key].as_str().map(str::to_owned);
        let user = match (text("sub")?, text("mark")) {
            (name, None) if name.is_empty() => None,
            (name, mark) => Some(User { name, mark: mark? }),
        };
        Some(Claims { user, granted: Granted::of_claims(&body["access"]) })
    }
}

/// Whole or not at all, and for its owner alone from the first moment.
pub(super) fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_added_extension("new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&unfinished)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn random() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    encode(&bytes)
}

/// RFC 7515, section 2: base 64 for URLs, without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    base64::encode(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

/// The other way; `None` for what is not the one way to write some bytes.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    if text.contains(['+', '/', '=']) {
        return None;
    }
    let padding = (4 - text.len() % 4) % 4;
    base64::decode(&(text.replace('-', "+").replace('_', "/") + &"="[..].repeat(padding)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERVICE: &str = "registry.example";

    fn claims(key: &TokenKey) -> Claims {
        let user = User { name: "ann".to_owned(), mark: key.mark("ann", "$2b$04$x") };
        Claims { user: Some(user), granted: Granted::parse("repository:a/b:pull,push registry:catalog:*") }
    }

    #[test]
    fn a_token_is_read_by_who_gave_it_and_for_what_it_is() {
        let (key, other) = (TokenKey::new(&[7; KEY_BYTES]), TokenKey::new(&[8; KEY_BYTES]));
        let claims = claims(&key);
        let token = key.issue(Use::Access, SERVICE, &claims, 1000);
        assert_eq!(token.split('.').count(), 3);
        assert!(token.bytes().all(|byte| byte.is_ascii_graphic()));
        let read = |key: &TokenKey, used, service, now| key.read(used, service, &token, now);
        assert_eq!(read(&key, Use::Access, SERVICE, 1299), Some(claims.clone()));
        assert_eq!(read(&key, Use::Access, SERVICE, 1300), None);
        assert_eq!(read(&key, Use::Access, "another", 1000), None);
        assert_eq!(read(&key, Use::Refresh, SERVICE, 1000), None);
        assert_eq!(read(&other, Use::Access, SERVICE, 1000), None);
        // Who has not logged in has a token, too.
        let nobody = Claims { user: None, granted: Granted::parse("repository:a:pull") };
        let token = key.issue(Use::Access, SERVICE, &nobody, 1000);
        assert_eq!(key.read(Use::Access, SERVICE, &token, 1000), Some(nobody));
        // One for further tokens opens nothing, and has no end.
        let refresh = key.issue(Use::Refresh, SERVICE, &claims, 1000);
        assert_eq!(key.read(Use::Access, SERVICE, &refresh, 1000), None);
        let read = key.read(Use::Refresh, SERVICE, &refresh, u64::MAX).unwrap();
        assert_eq!((read.user, read.granted), (claims.user, Granted::default()));
    }

    #[test]
    fn who_signs_otherwise_or_not_at_all_is_not_believed() {
        let key = TokenKey::new(&[7; KEY_BYTES]);
        let token = key.issue(Use::Access, SERVICE, &claims(&key), 1000);
        let (head, rest) = token.split_once('.').unwrap();
        let (body, tag) = rest.split_once('.').unwrap();
        let none = encode(br#"{"typ":"JWT","alg":"none"}"#);
        let resigned = {
            let signed = format!("{none}.{body}");
            format!("{signed}.{}", encode(hmac::sign(&key.0, signed.as_bytes()).as_ref()))
        };
        let cut = &tag[..tag.len() - 2];
        for bad in [
            format!("{none}.{body}."),
            format!("{head}.{body}."),
            format!("{head}.{body}"),
            format!("{head}.{body}.{cut}"),
            format!("{head}.{body}.{tag}="),
            format!("{head}..{tag}"),
            resigned,
            String::new(),
            "...".to_owned(),
            "x".repeat(LONGEST_BYTES + 1),
        ] {
            assert_eq!(key.read(Use::Access, SERVICE, &bad, 1000), None, "{bad}");
        }
    }

    #[test]
    fn a_mark_is_a_users_with_this_password() {
        let key = TokenKey::new(&[7; KEY_BYTES]);
        let marks = [key.mark("ann", "one"), key.mark("ann", "two"), key.mark("bob", "one"), key.mark("annone", "")];
        let different: std::collections::HashSet<_> = marks.iter().collect();
        assert_eq!(different.len(), marks.len());
        assert_eq!(key.mark("ann", "one"), marks[0]);
    }

    #[test]
    fn the_key_is_kept_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let token = {
            let key = TokenKey::open(root.path()).unwrap();
            key.issue(Use::Refresh, SERVICE, &claims(&key), 0)
        };
        let path = root.path().join(KEY_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(TokenKey::open(root.path()).unwrap().read(Use::Refresh, SERVICE, &token, 0).is_some());
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(TokenKey::open(root.path()), Err(TokenKeyError::Readable(_))));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(TokenKey::open(root.path()), Err(TokenKeyError::Malformed(_))));
        // What a server left that was killed meanwhile is no obstacle.
        std::fs::rename(&path, root.path().join("token.key.new")).unwrap();
        TokenKey::open(root.path()).unwrap();
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(bytes: Vec<u8>, text in "[A-Za-z0-9_-]{0,20}") {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
            let _ = decode(&text);
        }

        #[test]
        fn no_byte_of_a_token_can_be_another(at in 0usize..400, letter in "[A-Za-z0-9_.-]") {
            let key = TokenKey::new(&[7; KEY_BYTES]);
            let token = key.issue(Use::Access, SERVICE, &claims(&key), 1000);
            let at = at % token.len();
            let changed = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
            prop_assert_eq!(key.read(Use::Access, SERVICE, &changed, 1000).is_some(), changed == token);
        }
    }
}
