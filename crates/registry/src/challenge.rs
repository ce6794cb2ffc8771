//! What a server wants before it answers: the field `WWW-Authenticate` (RFC 9110, section 11.6.1; for registries: the
//! distribution project's "Token Authentication Specification"). Whoever sends it may mean ill.

/// Of one field; real ones have some hundred.
const LONGEST_BYTES: usize = 8 * 1024;
/// Of all fields together.
const MOST_CHALLENGES: usize = 16;

/// One way to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A token of a token service.
    Bearer(Bearer),
    /// A name and a password (RFC 7617).
    Basic,
    /// Another scheme, by its name in small letters.
    Other(String),
}

/// Which token is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bearer {
    /// The token service's URL.
    pub realm: String,
    /// Who the token is for.
    pub service: Option<String>,
    /// What it is to allow.
    pub scope: Option<String>,
    /// Why the last one was not taken: `invalid_token`, `insufficient_scope`.
    pub error: Option<String>,
}

/// All challenges of all such fields. Where a field makes no sense, the rest of it is left out.
pub fn challenges<'f>(fields: impl IntoIterator<Item = &'f [u8]>) -> Vec<Challenge> {
    let mut all = Vec::new();
    for field in fields {
        let mut rest = Rest(&field[..field.len().min(LONGEST_BYTES)]);
        while all.len() < MOST_CHALLENGES
            && let Some(challenge) = rest.challenge()
        {
            all.push(challenge);
        }
    }
    all
}

/// What has not been read.
struct Rest<'f>(&'f [u8]);

impl<'f> Rest<'f> {
    fn challenge(&mut self) -> Option<Challenge> {
        self.skip_list();
        let scheme = self.token()?.to_ascii_lowercase();
        let mut parameters = Vec::new();
        if self.blanks() > 0 && !self.token68() {
            while let Some(parameter) = self.parameter() {
                parameters.push(parameter);
            }
        }
        let mut take = |name: &str| {
            let place = parameters.iter().position(|(known, _): &(String, String)| known == name)?;
            Some(parameters.remove(place).1)
        };
        Some(match scheme.as_str() {
            "basic" => Challenge::Basic,
            "bearer" => Challenge::Bearer(Bearer {
                realm: take("realm").unwrap_or_default(),
                service: take("service"),
                scope: take("scope"),
                error: take("error"),
            }),
            _ => Challenge::Other(scheme),
        })
    }

    /// `name = value`, with the comma behind it. `None`, and nothing read: what comes is another challenge, or nothing.
    fn parameter(&mut self) -> Option<(String, String)> {
        let before = self.0;
        self.skip_list();
        let read = self.token().and_then(|name| {
            self.blanks();
            self.0 = self.0.strip_prefix(b"=")?;
            self.blanks();
            Some((name.to_ascii_lowercase(), self.value()?))
        });
        if read.is_none() {
            self.0 = before;
        }
        read
    }

    /// A quoted string, or what goes on to the next comma or blank: URLs without quotation marks are seen.
    fn value(&mut self) -> Option<String> {
        let mut value = Vec::new();
        let Some(quoted) = self.0.strip_prefix(b"\"") else {
            let end = self.0.iter().position(|byte| b", \t".contains(byte)).unwrap_or(self.0.len());
            let (value, rest) = self.0.split_at(end);
            self.0 = rest;
            return text(value.to_vec());
        };
        let mut bytes = quoted.iter().enumerate();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    self.0 = &quoted[at + 1..];
                    return text(value);
                }
                b'\\' => value.push(*bytes.next()?.1),
                byte => value.push(*byte),
            }
        }
        None
    }

    /// Credentials in one piece, as `Negotiate` has them; they must be all that the challenge has.
    fn token68(&mut self) -> bool {
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
        let end = self.0.iter().position(|byte| !is_letter(byte)).unwrap_or(self.0.len());
        let padding = self.0[end..].iter().take_while(|byte| **byte == b'=').count();
        let mut behind = Rest(&self.0[end + padding..]);
        behind.blanks();
        let is_one = end > 0 && (behind.0.is_empty() || behind.0.starts_with(b","));
        if is_one {
            self.0 = behind.0;
        }
        is_one
    }

    /// RFC 9110, section 5.6.2.
    fn token(&mut self) -> Option<String> {
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let end = self.0.iter().position(|byte| !is_letter(byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (!token.is_empty()).then(|| String::from_utf8_lossy(token).into_owned())
    }

    /// Blanks and empty members of a list (RFC 9110, section 5.6.1.2).
    fn skip_list(&mut self) {
        let end = self.0.iter().position(|byte| !b", \t".contains(byte)).unwrap_or(self.0.len());
        self.0 = &self.0[end..];
    }

    fn blanks(&mut self) -> usize {
        let end = self.0.iter().position(|byte| !b" \t".contains(byte)).unwrap_or(self.0.len());
        self.0 = &self.0[end..];
        end
    }
}

fn text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer(Bearer { realm: realm.into(), service: owned(service), scope: owned(scope), error: None })
    }

    #[test]
    fn challenges_are_read() {
        let other = |name: &str| Challenge::Other(name.into());
        for (field, want) in [
            ("", vec![]),
            (", ,", vec![]),
            ("Basic realm=\"r\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            ("BEARER Realm = \"a\\\"b\" , SERVICE = s", vec![bearer("a\"b", Some("s"), None)]),
            (
                "Bearer realm=https://a.example/token?x,service=s",
                vec![bearer("https://a.example/token?x", Some("s"), None)],
            ),
            ("Basic realm=\"a, b\", Bearer realm=\"c\"", vec![Challenge::Basic, bearer("c", None, None)]),
            ("Negotiate YWJj==, Basic", vec![other("negotiate"), Challenge::Basic]),
            ("Newauth realm=\"apps\", type=1,\n  title=\"Login\", Basic", vec![other("newauth")]),
            (
                "Newauth realm=\"apps\", type=1, title=\"Login to \\\"apps\\\"\", Basic realm=\"simple\"",
                vec![other("newauth"), Challenge::Basic],
            ),
            ("Bearer realm=\"a\",realm=\"b\"", vec![bearer("a", None, None)]),
            ("Bearer realm=\"unfinished", vec![bearer("", None, None), other("realm")]),
            ("Bearer realm=\"new\nline\"", vec![bearer("", None, None), other("realm")]),
            ("=", vec![]),
            ("Bearer", vec![bearer("", None, None)]),
        ] {
            assert_eq!(challenges([field.as_bytes()]), want, "{field}");
        }
    }

    #[test]
    fn why_a_token_was_not_taken_is_kept() {
        let found = challenges([&b"Bearer realm=\"r\",error=\"insufficient_scope\""[..], b"Basic"]);
        let Challenge::Bearer(bearer) = &found[0] else { panic!("{found:?}") };
        assert_eq!((bearer.error.as_deref(), found.len()), (Some("insufficient_scope"), 2));
    }

    #[test]
    fn a_server_cannot_make_a_list_without_end() {
        let field = "Basic,".repeat(100_000);
        assert_eq!(challenges([field.as_bytes()]).len(), MOST_CHALLENGES);
    }
}
