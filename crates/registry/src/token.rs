//! What a token service answers (the distribution project's "Token Authentication Specification", and "Token Authentication
//! Implementation" for OAuth 2.0), and how long it is good for.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::Secret;

/// No token is good for less: older clients know no other.
const LEAST: Duration = Duration::from_secs(60);
/// Nobody keeps one for longer without asking again.
const MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// Before its end a token is not used any more: it has to arrive, too.
const BEFORE_ITS_END: Duration = Duration::from_secs(10);

/// A token, for as long as it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// For `Authorization: Bearer`.
    pub secret: Secret,
    ends: Instant,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

impl Token {
    /// Of an answer that came at `now`. The service's own clock (`issued_at`) may be any, and is not looked at.
    ///
    /// # Errors
    /// It is no such answer, said without any of its bytes.
    pub fn read(answer: &[u8], now: Instant) -> Result<Self, &'static str> {
        let answer: Answer = serde_json::from_slice(answer).map_err(|_| "it is no JSON of a token service")?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or("there is no token in it")?;
        // It becomes a field of HTTP (RFC 6750, section 2.1).
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("what it calls a token cannot be one");
        }
        let life = answer.expires_in.and_then(|it| Duration::try_from_secs_f64(it.as_f64()?).ok()).unwrap_or(LEAST);
        Ok(Self { secret: Secret::new(token), ends: now + life.clamp(LEAST, MOST) })
    }

    /// Whether it can be sent.
    pub fn is_good(&self, now: Instant) -> bool {
        now + BEFORE_ITS_END < self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let now = Instant::now();
        for (answer, want) in [
            (r#"{"token":"a.b","expires_in":300,"issued_at":"2000-01-01T00:00:00Z"}"#, Ok(("a.b", 300))),
            (r#"{"access_token":"x","token":null}"#, Ok(("x", 60))),
            (r#"{"token":"t","access_token":"x","expires_in":1}"#, Ok(("t", 60))),
            (r#"{"token":"t","expires_in":1e300}"#, Ok(("t", 60))),
            (r#"{"token":"t","expires_in":1e9}"#, Ok(("t", 86400))),
            (r#"{"token":"t","expires_in":-5}"#, Ok(("t", 60))),
            (r#"{"token":""}"#, Err("there is no token in it")),
            (r#"{"token":"a\r\nX: y"}"#, Err("what it calls a token cannot be one")),
            ("<html>", Err("it is no JSON of a token service")),
            (r#"{"token":7}"#, Err("it is no JSON of a token service")),
        ] {
            let read = Token::read(answer.as_bytes(), now);
            let read = read.as_ref().map(|token| (token.secret.expose(), (token.ends - now).as_secs()));
            assert_eq!(read.map_err(|why| *why), want, "{answer}");
        }
    }

    #[test]
    fn a_token_is_given_up_before_its_end() {
        let now = Instant::now();
        let token = Token::read(br#"{"token":"t","expires_in":100}"#, now).unwrap();
        assert!(token.is_good(now + Duration::from_secs(89)));
        assert!(!token.is_good(now + Duration::from_secs(90)));
    }
}
