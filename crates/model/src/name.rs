//! Names that people give to containers and volumes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that cannot be a name. The words are Docker's, which scripts match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid {kind} name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
pub struct NameError {
    kind: &'static str,
    text: String,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $shortest:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The name, without a leading slash.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                if is_name(text, $shortest) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError { kind: $kind, text: text.chars().take(260).collect() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A container's name: unique in its engine.
    ContainerName, "container", 2
}
name! {
    /// A volume's name: unique in its engine; also a directory's name, which is why it must be one path component.
    VolumeName, "volume", 2
}

name! {
    /// A network's name: unique in its engine.
    NetworkName, "network", 1
}

/// Docker's rule, `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, with a length that fits a file name; a network's may have one character.
fn is_name(text: &str, shortest: usize) -> bool {
    let bytes = text.as_bytes();
    (shortest..=255).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["web", "a1", "A_b.c-d", "0x"] {
            assert!(good.parse::<ContainerName>().is_ok(), "{good}");
        }
        for bad in ["", "a", "-a", ".a", "a/b", "a b", "ü1", "..", &"a".repeat(256)] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad}");
        }
    }
}
