//! Who is let in: names and passwords of an htpasswd file (Apache's htpasswd(1); bcrypt alone), by HTTP's basic scheme
//! (RFC 7617), or tokens (RFC 6750), ours (`authorizer.rs`) or another's (`token_service.rs`).
//!
//! A bcrypt is slow on purpose, and clients send their password with each request: one that was right is known by a keyed
//! hash for some minutes. How many are computed at once is bounded, and so is who waits for it: guessing does not take the
//! machine. Whoever is not in the file costs as much time as whoever is.

pub(crate) mod authorizer;
pub(crate) mod caller;
pub(crate) mod public_key;
pub(crate) mod rights;
pub(crate) mod scope;
pub(crate) mod secret;
pub(crate) mod token;
pub(crate) mod token_service;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dozen_model::base64;
use http::{HeaderMap, Uri, header};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use self::authorizer::{Authorizer, now};
use self::caller::{Bad, Caller, Challenge, Shown};
use self::secret::Secret;
use self::token_service::TokenService;
use crate::refusal::{Kind, Refusal};

/// How long a password that was right is believed without computing.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// So many at the most.
const MOST_REMEMBERED: usize = 4096;
/// Who waits for a computation; further ones are sent away.
const MOST_WAITING: usize = 64;
/// One more than this takes minutes: nobody means it.
const HIGHEST_COST: u32 = 16;
/// Told to clients.
pub(crate) const CHALLENGE: &str = "Basic realm=\"dozen registry\", charset=\"UTF-8\"";

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub enum Access {
    /// Everyone is.
    Open,
    /// Those in the file, and they may do everything.
    Passwords(Arc<Passwords>),
    /// Who knows the one password that there is, and he may do everything.
    Secret(Arc<Secret>),
    /// Those in the file, to what the rights say of them; and everyone, to what the rights say of everyone.
    Rights(Arc<Authorizer>),
    /// Who has a token of a service elsewhere, to what it says.
    Tokens(Arc<TokenService>),
}

/// What a request says of who sent it.
pub(crate) enum Credentials {
    None,
    Basic(String, Vec<u8>),
    Bearer(String),
    /// Nothing that is understood.
    Other,
}

/// The names in a file, and what was right lately.
pub struct Passwords {
    entries: RwLock<Entries>,
    /// Of this process alone: who reads its memory later reads no password.
    key: [u8; 32],
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    computing: Semaphore,
    waiting: Semaphore,
}

#[derive(Default)]
struct Entries {
    hashes: HashMap<String, Box<str>>,
    /// What is computed for a name that is not there.
    stand_in: Box<str>,
}

impl std::fmt::Debug for Passwords {
    /// Says nothing of what is in it.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Passwords")
    }
}

/// What is wrong with an htpasswd file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum PasswordsError {
    #[error("cannot read the passwords in {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}, line {line}: {why}")]
    Line { path: String, line: usize, why: &'static str },
    #[error("{path} has no name in it")]
    Empty { path: String },
}

impl Passwords {
    /// Of this file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is not understood.
    pub fn read(path: &Path) -> Result<Self, PasswordsError> {
        let entries = read(path)?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the kernel gives random bytes once it has booted");
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            entries: RwLock::new(entries),
            key,
            remembered: Mutex::default(),
            computing: Semaphore::new((processors / 2).max(1)),
            waiting: Semaphore::new(MOST_WAITING),
        })
    }

    /// From now on what the file says now; what was right before has to be shown again.
    ///
    /// # Errors
    /// As [`Self::read`]; then nothing has changed.
    pub fn reload(&self, path: &Path) -> Result<(), PasswordsError> {
        let entries = read(path)?;
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = entries;
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    /// The hash of somebody's password, if he is in the file.
    pub(crate) fn hash_of(&self, name: &str) -> Option<Box<str>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).hashes.get(name).cloned()
    }

    /// Whether this is his password.
    pub(crate) async fn is_right(&self, name: &str, password: &[u8]) -> Result<bool, Refusal> {
        let (hash, is_known) = {
            let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
            let hash = entries.hashes.get(name);
            (hash.unwrap_or(&entries.stand_in).clone(), hash.is_some())
        };
        let sign = self.sign(&hash, name, password);
        if is_known && self.remembers(&sign) {
            return Ok(true);
        }
        let busy = |_| {
            let words = "too many log in at this moment: try again";
            Refusal::new(Kind::TooMany, words).with_field("retry-after", "2")
        };
        let _waiting = self.waiting.try_acquire().map_err(busy)?;
        let ending = |_| Refusal::new(Kind::Ending, "the registry is going down");
        let _computing = self.computing.acquire().await.map_err(ending)?;
        let password = password.to_vec();
        // As Apache and docker-registry do, of a password only the first 72 bytes count.
        let verified = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash));
        let is_right = matches!(verified.await, Ok(Ok(true))) && is_known;
        if is_right {
            self.remember(sign);
        }
        Ok(is_right)
    }

    /// Of a name and its password, for as long as the file has the same for it. What is compared is a hash that nobody can
    /// compute, so the time of the comparison tells nothing.
    fn sign(&self, hash: &str, name: &str, password: &[u8]) -> [u8; 32] {
        let mut signed = Sha256::new();
        for part in [&self.key, hash.as_bytes(), name.as_bytes(), password] {
            signed.update((part.len() as u64).to_be_bytes());
            signed.update(part);
        }
        signed.finalize().into()
    }

    fn remembers(&self, sign: &[u8; 32]) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(sign).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn remember(&self, sign: [u8; 32]) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.retain(|_, at| at.elapsed() < REMEMBERED);
        }
        if remembered.len() >= MOST_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(sign, Instant::now());
    }
}

impl Access {
    /// Who sent this; what he may do is asked of him. `has_tls`: we speak it ourselves.
    pub(crate) async fn admit(&self, headers: &HeaderMap, uri: &Uri, has_tls: bool) -> Result<Caller, Refusal> {
        match self {
            Self::Open => Ok(Caller::trusted(None)),
            Self::Passwords(passwords) => {
                let Credentials::Basic(name, password) = credentials(headers) else { return Err(password_wanted()) };
                let is_right = passwords.is_right(&name, &password).await?;
                if is_right { Ok(Caller::trusted(Some(name))) } else { Err(password_wanted()) }
            }
            Self::Secret(secret) => match credentials(headers) {
                Credentials::Basic(name, password) if secret.is_right(&name, &password) => {
                    Ok(Caller::trusted(Some(name)))
                }
                _ => Err(password_wanted()),
            },
            Self::Rights(authorizer) => authorizer.admit(headers, uri, has_tls).await,
            Self::Tokens(service) => {
                let (user, shown) = match credentials(headers) {
                    Credentials::None => (None, Shown::Nothing),
                    Credentials::Bearer(token) => match service.read(&token, now()) {
                        Ok((user, granted)) => (user, Shown::Token(granted)),
                        Err(why) => {
                            tracing::debug!("a token counts for nothing: {why}");
                            (None, Shown::Bad(Bad::Token))
                        }
                    },
                    Credentials::Basic(..) | Credentials::Other => (None, Shown::Bad(Bad::Password)),
                };
                let challenge = Challenge { realm: service.realm.clone(), service: service.service.clone() };
                Ok(Caller::by_token(user, shown, challenge))
            }
        }
    }
}

fn password_wanted() -> Refusal {
    let refusal = Refusal::new(Kind::Unauthorized, "authentication required");
    refusal.with_field("www-authenticate", CHALLENGE)
}

/// Of a request's head.
pub(crate) fn credentials(headers: &HeaderMap) -> Credentials {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Credentials::None };
    let said = value.to_str().ok();
    let bearer = said.and_then(|said| said.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match (bearer, said.and_then(basic)) {
        (Some((_, token)), _) => Credentials::Bearer(token.trim().to_owned()),
        (None, Some((name, password))) => Credentials::Basic(name, password),
        (None, None) => Credentials::Other,
    }
}

/// Name and password.
fn basic(value: &str) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = base64::decode(rest.trim())?;
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(bytes[..colon].to_vec()).ok()?;
    Some((name, bytes[colon + 1..].to_vec()))
}

/// For the fuzzer: a name and a password are what was encoded.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_basic(value: &str) {
    if let Some((name, password)) = basic(value) {
        assert!(!name.contains(':') && name.len() + password.len() < value.len());
    }
}

fn read(path: &Path) -> Result<Entries, PasswordsError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| PasswordsError::Read { path: shown.clone(), source })?;
    parse(&text, &shown)
}

fn parse(text: &str, shown: &str) -> Result<Entries, PasswordsError> {
    let mut entries = Entries::default();
    let mut highest = 0;
    for (at, line) in text.lines().enumerate() {
        let line_is = |why| PasswordsError::Line { path: shown.to_owned(), line: at + 1, why };
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (name, hash) = text.split_once(':').ok_or_else(|| line_is("write NAME:HASH"))?;
        let why = "only bcrypt is taken: make it with htpasswd -B";
        let cost = cost_of(hash).ok_or_else(|| line_is(why))?;
        if cost > HIGHEST_COST {
            return Err(line_is("its cost is higher than 16: a login would take minutes"));
        }
        if name.is_empty() {
            return Err(line_is("the name is empty"));
        }
        if cost > highest {
            (highest, entries.stand_in) = (cost, hash.into());
        }
        if entries.hashes.insert(name.to_owned(), hash.into()).is_some() {
            return Err(line_is("the name is there twice"));
        }
    }
    if entries.hashes.is_empty() { Err(PasswordsError::Empty { path: shown.to_owned() }) } else { Ok(entries) }
}

/// `$2y$10$` and 53 letters and digits.
fn cost_of(hash: &str) -> Option<u32> {
    let rest = ["$2y$", "$2b$", "$2a$"].iter().find_map(|prefix| hash.strip_prefix(prefix))?;
    let (cost, rest) = rest.split_once('$')?;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    let is_hash = cost.len() == 2 && rest.len() == 53 && rest.bytes().all(is_letter);
    cost.parse().ok().filter(|cost| is_hash && *cost >= 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn hash(password: &str) -> String {
        let salt = *b"sixteen bytes of";
        bcrypt::hash_with_salt(password, 4, salt).unwrap().format_for_version(bcrypt::Version::TwoY)
    }

    fn passwords(text: &str) -> Passwords {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Passwords::read(file.path()).unwrap()
    }

    fn headers(value: &str) -> HeaderMap {
        [(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    #[tokio::test]
    async fn only_the_right_password_is_let_in() {
        let access = Access::Passwords(Arc::new(passwords(&format!("# ours\n\nann:{}\n", hash("a:b")))));
        let told = async |value: &str| {
            let admitted = access.admit(&headers(value), &Uri::from_static("/v2/"), false).await;
            admitted.map(|caller| caller.user).map_err(|refusal| refusal.kind)
        };
        let encode = |text: &str| format!("Basic {}", base64::encode(text.as_bytes()));
        for _ in 0..2 {
            assert_eq!(told(&encode("ann:a:b")).await, Ok(Some("ann".to_owned())));
            for bad in ["ann:a", "ann:", "bob:a:b", ":a:b", "ann"] {
                assert_eq!(told(&encode(bad)).await, Err(Kind::Unauthorized), "{bad}");
            }
        }
        for bad in ["Bearer x", "Basic", "Basic !!", "basic"] {
            assert_eq!(told(bad).await, Err(Kind::Unauthorized), "{bad}");
        }
        let refusal = access.admit(&HeaderMap::new(), &Uri::from_static("/v2/"), false).await.unwrap_err();
        assert!(refusal.fields[0].1.starts_with("Basic realm="));
        Access::Open.admit(&HeaderMap::new(), &Uri::from_static("/v2/"), false).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_right_is_right_until_the_file_changes() {
        let passwords = passwords(&format!("ann:{}", hash("one")));
        assert!(passwords.is_right("ann", b"one").await.unwrap());
        let sign = passwords.sign(&hash("one"), "ann", b"one");
        assert!(passwords.remembers(&sign));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("ann:{}", hash("two"))).unwrap();
        passwords.reload(file.path()).unwrap();
        assert!(!passwords.remembers(&sign));
        assert!(!passwords.is_right("ann", b"one").await.unwrap());
        assert!(passwords.is_right("ann", b"two").await.unwrap());
        std::fs::write(file.path(), "nonsense").unwrap();
        passwords.reload(file.path()).unwrap_err();
        assert!(passwords.is_right("ann", b"two").await.unwrap());
    }

    #[tokio::test]
    async fn whoever_comes_when_too_many_wait_is_sent_away() {
        let passwords = passwords(&format!("ann:{}", hash("one")));
        let all = passwords.waiting.acquire_many(u32::try_from(MOST_WAITING).unwrap()).await.unwrap();
        assert_eq!(passwords.is_right("ann", b"one").await.unwrap_err().kind, Kind::TooMany);
        drop(all);
        assert!(passwords.is_right("ann", b"one").await.unwrap());
        // One who is remembered waits for nobody.
        let _all = passwords.waiting.acquire_many(u32::try_from(MOST_WAITING).unwrap()).await.unwrap();
        assert!(passwords.is_right("ann", b"one").await.unwrap());
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        let good = hash("x");
        let costly = good.replacen("$04$", "$31$", 1);
        for (text, words) in [
            (String::new(), "no name in it"),
            ("ann".to_owned(), "line 1: write NAME:HASH"),
            (format!("ann:{good}\nbob:$apr1$x$y"), "line 2: only bcrypt"),
            ("ann:{SHA}x".to_owned(), "only bcrypt"),
            (format!("ann:{costly}"), "cost"),
            (format!(":{good}"), "the name is empty"),
            (format!("ann:{good}\nann:{good}"), "twice"),
        ] {
            let error = parse(&text, "f").err().unwrap().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
