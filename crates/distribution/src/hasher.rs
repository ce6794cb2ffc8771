//! The digest of bytes that come one after the other.

use dozen_model::Digest;
use sha2::Digest as _;
use sha2::{Sha256, Sha512};

/// By which digest content is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// What nearly everyone uses.
    Sha256,
    /// The other one of the image-spec's registered algorithms.
    Sha512,
}

impl Algorithm {
    /// That of a digest.
    pub fn of(digest: &Digest) -> Self {
        if digest.algorithm() == "sha512" { Self::Sha512 } else { Self::Sha256 }
    }

    /// By its name, as digests begin with it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

/// See the module. Large; lives as long as the upload.
#[derive(Debug, Clone)]
pub enum Hasher {
    #[allow(missing_docs)]
    Sha256(Box<Sha256>),
    #[allow(missing_docs)]
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// Of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Box::default()),
            Algorithm::Sha512 => Self::Sha512(Box::default()),
        }
    }

    /// Which.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// These bytes, too.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Of all so far; more may follow.
    pub fn digest(&self) -> Digest {
        match self.clone() {
            Self::Sha256(hasher) => Digest::from_sha256((*hasher).finalize().into()),
            Self::Sha512(hasher) => Digest::from_sha512((*hasher).finalize().into()),
        }
    }

    /// Of these bytes.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Self::new(algorithm);
        hasher.update(bytes);
        hasher.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's own example, "abc".
    #[test]
    fn both_algorithms_are_what_they_say() {
        let short = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Hasher::of(Algorithm::Sha256, b"abc").as_str(), short);
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"a");
        let before = hasher.digest();
        hasher.update(b"bc");
        assert_ne!(before, hasher.digest());
        assert!(hasher.digest().as_str().starts_with("sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea2"));
        assert_eq!(Algorithm::of(&hasher.digest()), Algorithm::Sha512);
        assert_eq!((Algorithm::parse("sha256"), Algorithm::parse("md5")), (Some(Algorithm::Sha256), None));
    }
}
