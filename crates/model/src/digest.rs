//! Content digests: `sha256:` and 64 digits, or `sha512:` and 128 (OCI image-spec, descriptor.md, "Digests").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hex::{hex, is_lower_hex};

/// The digest of some bytes. Safe as a file name once the colon is split off: digits only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Box<str>);

/// A text that is no digest of a registered algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {text:?}: want sha256: and 64, or sha512: and 128, lower-case hexadecimal digits")]
pub struct DigestError {
    text: String,
}

impl Digest {
    /// The SHA-256 digest whose 32 bytes these are.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        Self(format!("sha256:{}", hex(&bytes)).into())
    }

    /// The SHA-512 digest whose 64 bytes these are.
    pub fn from_sha512(bytes: [u8; 64]) -> Self {
        Self(format!("sha512:{}", hex(&bytes)).into())
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        &self.0[..6]
    }

    /// The digits, without the algorithm.
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// The whole, `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = match text.split_once(':') {
            Some(("sha256", digits)) if digits.len() == 64 => digits,
            Some(("sha512", digits)) if digits.len() == 128 => digits,
            _ => "not hexadecimal",
        };
        if is_lower_hex(digits) {
            Ok(Self(text.into()))
        } else {
            Err(DigestError { text: text.chars().take(160).collect() })
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0.into()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_parse_or_are_refused() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().map(|d| d.hex().len()), Ok(64));
        assert_eq!(Digest::from_sha256([10; 32]).as_str(), good);
        for bad in ["", "sha256:", "sha256:zz", "md5:0a", "sha256:../../../etc/passwd", &good.to_uppercase()] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
