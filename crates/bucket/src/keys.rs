//! The keys of a store: from the environment or from a file, never from a command line, where everyone on the machine would
//! see them.

use std::fmt;
use std::path::{Path, PathBuf};

/// See the module. Shown without what is secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keys(…)")
    }
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum KeysError {
    #[error(
        "there are no keys for the store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give a file with \
         --store-credentials"
    )]
    Missing,
    #[error("cannot read the keys in {}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} has no aws_access_key_id and aws_secret_access_key below [default]", .0.display())]
    Incomplete(PathBuf),
}

impl Keys {
    /// As the tools of AWS name them.
    ///
    /// # Errors
    /// One of both is not there.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Self, KeysError> {
        let said = |name| variable(name).filter(|value| !value.is_empty());
        match (said("AWS_ACCESS_KEY_ID"), said("AWS_SECRET_ACCESS_KEY")) {
            (Some(id), Some(secret)) => Ok(Self { id, secret, token: said("AWS_SESSION_TOKEN") }),
            _ => Err(KeysError::Missing),
        }
    }

    /// From a file as the tools of AWS keep it (`~/.aws/credentials`): of the section `[default]`.
    ///
    /// # Errors
    /// It cannot be read, or has none.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let unreadable = |source| KeysError::Unreadable { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text).ok_or_else(|| KeysError::Incomplete(path.to_owned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let (mut id, mut secret, mut token) = (None, None, None);
        let mut section = "default";
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.trim();
            } else if let Some((name, value)) = line.split_once('=').filter(|_| section == "default") {
                let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
                match name.trim() {
                    "aws_access_key_id" => id = value,
                    "aws_secret_access_key" => secret = value,
                    "aws_session_token" => token = value,
                    _ => {}
                }
            }
        }
        Some(Self { id: id?, secret: secret?, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_default_section() {
        let keys = |id: &str, secret: &str, token: Option<&str>| {
            Some(Keys { id: id.into(), secret: secret.into(), token: token.map(str::to_owned) })
        };
        for (text, expected) in [
            ("[default]\naws_access_key_id = a\naws_secret_access_key=b/c=\n", keys("a", "b/c=", None)),
            ("aws_access_key_id=a\naws_secret_access_key=b\naws_session_token=t", keys("a", "b", Some("t"))),
            (
                "[other]\naws_access_key_id=x\n[default]\n# no\naws_access_key_id=a\naws_secret_access_key=b",
                keys("a", "b", None),
            ),
            ("[other]\naws_access_key_id=a\naws_secret_access_key=b", None),
            ("[default]\naws_access_key_id=a\naws_secret_access_key=", None),
            ("", None),
        ] {
            assert!(Keys::parse(text) == expected, "{text}");
        }
        let of = |name: &str| Some(name.to_lowercase()).filter(|name| name != "aws_session_token");
        assert!(Keys::of(of).unwrap() == keys("aws_access_key_id", "aws_secret_access_key", None).unwrap());
        assert!(matches!(Keys::of(|_| None), Err(KeysError::Missing)));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let keys = Keys { id: "id".into(), secret: "hidden".into(), token: None };
        assert_eq!(format!("{keys:?}"), "Keys(…)");
    }
}
