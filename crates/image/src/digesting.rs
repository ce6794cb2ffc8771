//! Digests by the algorithm that was named: what has one by sha512 is compared by sha512 (OCI image-spec, descriptor.md,
//! "Registered Algorithms"). Images and plain streams of layers are known by sha256 alone, whatever else they came as.

use dozen_model::{Digest, ImageId};
use sha2::{Digest as _, Sha256, Sha512};

/// A digest in the making.
pub(crate) enum Digesting {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Digesting {
    /// By the algorithm of this one.
    pub(crate) fn like(digest: &Digest) -> Self {
        match digest.algorithm() {
            "sha512" => Self::Sha512(Sha512::new()),
            _ => Self::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::from_sha256(hash.finalize().into()),
            Self::Sha512(hash) => Digest::from_sha512(hash.finalize().into()),
        }
    }
}

/// Of these bytes, by the algorithm of that digest.
pub(crate) fn digest_like(digest: &Digest, bytes: &[u8]) -> Digest {
    let mut digesting = Digesting::like(digest);
    digesting.update(bytes);
    digesting.finish()
}

/// What an image is known by: the sha256 of its configuration, as with Docker, by whatever digest its manifest names that.
pub(crate) fn image_id(config: &[u8]) -> ImageId {
    ImageId::new(Digest::from_sha256(Sha256::digest(config).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "abc" (FIPS 180-4 examples, SHA256.pdf and SHA512.pdf).
    #[test]
    fn digests_are_compared_by_their_own_algorithm() {
        for known in [
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ] {
            let known: Digest = known.parse().unwrap();
            assert_eq!(digest_like(&known, b"abc"), known);
            assert_ne!(digest_like(&known, b"abd"), known);
        }
        assert_eq!(image_id(b"abc").digest().algorithm(), "sha256");
    }
}
