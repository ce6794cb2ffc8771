//! Passwords and tokens. They are shown nowhere, and what a server sends back of them isn't either.

use std::fmt;

use dozen_model::base64;

/// Text that nobody sees.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// What is from now on to be seen by nobody.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For the one who is to have it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How somebody proves who he is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// RFC 7617.
    Password {
        /// Who.
        user: String,
        #[expect(missing_docs, reason = "plain")]
        password: Secret,
    },
    /// What a token service gives who logs in, in the password's place (OAuth 2.0's refresh token).
    IdentityToken(Secret),
    /// A token for the registry itself.
    RegistryToken(Secret),
}

impl Credentials {
    /// The value of `Authorization`, where it needs no token service.
    pub(crate) fn authorization(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => {
                Some(format!("Basic {}", base64::encode(format!("{user}:{}", password.expose()).as_bytes())))
            }
            Self::RegistryToken(token) => Some(format!("Bearer {}", token.expose())),
            Self::IdentityToken(_) => None,
        }
    }

    fn secret(&self) -> &Secret {
        match self {
            Self::Password { password: secret, .. } | Self::IdentityToken(secret) | Self::RegistryToken(secret) => {
                secret
            }
        }
    }
}

/// A stranger's words, as they may be shown: without control characters, not too long, and without the secrets that were
/// sent to him.
pub(crate) fn shown(words: &str, credentials: Option<&Credentials>, token: Option<&Secret>) -> String {
    const MOST_CHARACTERS: usize = 600;
    let mut words = words.to_owned();
    let basic = credentials.and_then(Credentials::authorization);
    let basic = basic.as_deref().and_then(|field| field.split_once(' ')).map(|(_, value)| value.to_owned());
    let secrets = [credentials.map(|it| it.secret().expose()), token.map(Secret::expose), basic.as_deref()];
    for secret in secrets.into_iter().flatten().filter(|secret| !secret.is_empty()) {
        words = words.replace(secret, "*****");
    }
    let clean: String = words.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let clean = clean.trim();
    match clean.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sees_a_secret() {
        let credentials = Credentials::Password { user: "me".into(), password: Secret::new("hunter2") };
        assert!(!format!("{credentials:?}").contains("hunter2"));
        assert_eq!(credentials.authorization().unwrap(), "Basic bWU6aHVudGVyMg==");
        let said = "you sent hunter2\n(bWU6aHVudGVyMg==) and abc.def";
        let shown = shown(said, Some(&credentials), Some(&Secret::new("abc.def")));
        assert_eq!(shown, "you sent ***** (*****) and *****");
    }

    #[test]
    fn a_stranger_says_no_more_than_is_to_be_heard() {
        assert_eq!(shown(&"é".repeat(10_000), None, None).chars().count(), 601);
        assert_eq!(shown("\u{1b}[2Jx", None, None), "[2Jx");
    }
}
