//! An id per kind of thing, so that one cannot be passed for the other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::hex::{hex, is_hex_64};

/// An id that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {kind} id {text:?}: want 64 lower-case hexadecimal digits")]
pub struct IdError {
    kind: &'static str,
    text: String,
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// A fresh id from the kernel's random source: 256 bits, as Docker's.
            pub fn random() -> Self {
                let mut bytes = [0u8; 32];
                getrandom::fill(&mut bytes).expect("the kernel's random source is always there after boot");
                Self(hex(&bytes).into())
            }

            /// All 64 hexadecimal digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first twelve digits, as listings show them.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_hex_64(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError { kind: $kind, text: text.chars().take(80).collect() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.short())
            }
        }
    };
}

random_id! {
    /// A container's id, made when it is created and never reused.
    ContainerId, "container"
}
random_id! {
    /// The id of one `exec` in a container.
    ExecId, "exec"
}

random_id! {
    /// A network's id.
    NetworkId, "network"
}

impl NetworkId {
    /// The id of a network that every engine has, and no row: its name in hexadecimal, filled up to 64 digits.
    pub fn predefined(name: &str) -> Self {
        Self(format!("{:0<64}", hex(name.as_bytes())).into())
    }
}

/// An image's id: the digest of its configuration blob.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(Digest);

impl ImageId {
    /// The id of the image with this configuration.
    pub fn new(config: Digest) -> Self {
        Self(config)
    }

    /// The digest of the configuration blob.
    pub fn digest(&self) -> &Digest {
        &self.0
    }

    /// The first twelve digits, without the algorithm.
    pub fn short(&self) -> &str {
        &self.0.hex()[..12]
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_parses_back() {
        let id = ContainerId::random();
        assert_eq!(id.as_str().parse::<ContainerId>(), Ok(id.clone()));
        assert_eq!(id.short().len(), 12);
        assert_ne!(id, ContainerId::random());
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "abc", &"A".repeat(64), &"g".repeat(64), &"a".repeat(65), "../../etc/passwd"] {
            assert!(text.parse::<ContainerId>().is_err(), "{text}");
        }
    }
}
