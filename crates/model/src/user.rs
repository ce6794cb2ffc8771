//! `--user` and USER: `user`, `uid`, `user:group`, `uid:gid` and their mixtures.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whom a process runs as, as written; names are looked up in the container's own files when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserSpec {
    /// A name or a number; `None` is the image's user, root if it has none.
    pub user: Option<String>,
    /// A name or a number; `None` is the user's own primary group.
    pub group: Option<String>,
}

/// A text that cannot name a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid user {text:?}: want user, uid, user:group or uid:gid")]
pub struct UserSpecError {
    text: String,
}

impl FromStr for UserSpec {
    type Err = UserSpecError;
    fn from_str(text: &str) -> Result<Self, UserSpecError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let bad = |part: &str| part.chars().any(|c| c.is_control() || c == ':');
        if bad(user) || group.is_some_and(bad) {
            return Err(UserSpecError { text: text.chars().take(80).collect() });
        }
        let part = |part: &str| (!part.is_empty()).then(|| part.to_owned());
        Ok(Self { user: part(user), group: group.and_then(part) })
    }
}

impl TryFrom<String> for UserSpec {
    type Error = UserSpecError;
    fn try_from(text: String) -> Result<Self, UserSpecError> {
        text.parse()
    }
}

impl From<UserSpec> for String {
    fn from(user: UserSpec) -> String {
        user.to_string()
    }
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.user.as_deref().unwrap_or(""))?;
        match &self.group {
            Some(group) => write!(f, ":{group}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_parse_and_print() {
        for text in ["", "root", "1000", "www-data:www-data", "1:2", ":5"] {
            assert_eq!(text.parse::<UserSpec>().map(|u| u.to_string()), Ok(text.to_owned()));
        }
        assert!("a:b:c".parse::<UserSpec>().is_err());
        assert!("a\nb".parse::<UserSpec>().is_err());
    }
}
