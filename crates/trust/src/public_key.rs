//! Public keys, as files have them: PEM with a `PUBLIC KEY` (RFC 7468, section 13), and what each of them verifies. Hashes are
//! sigstore's: SHA-256, whatever the key, but for Ed25519, which has its own (cosign's specs/SIGNATURE_SPEC.md).

use std::fmt;

use dozen_model::{KeyKind, SubjectPublicKey, SubjectPublicKeyError};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use crate::pem;

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(SubjectPublicKey);

impl PublicKey {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        match pem::read(text)? {
            ("PUBLIC KEY", bytes) => SubjectPublicKey::read(&bytes).map(Self).map_err(|error| match error {
                SubjectPublicKeyError::Malformed => "what is in it is no public key",
                SubjectPublicKeyError::Unknown => KeyKind::KNOWN,
            }),
            (label, _) if label.ends_with("PRIVATE KEY") => Err("it is a private key: the public one is wanted"),
            ("CERTIFICATE", _) => Err("it is a certificate: the public key alone is wanted"),
            _ => Err("it is PEM, and no PUBLIC KEY"),
        }
    }

    /// Of a point on P-256, uncompressed.
    pub(crate) fn of_p256(point: &[u8]) -> Self {
        Self(SubjectPublicKey { kind: KeyKind::P256, bytes: point.to_vec() })
    }

    /// Whether this is its signature of the message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let how: &'static dyn VerificationAlgorithm = match self.0.kind {
            KeyKind::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
            KeyKind::P256 => &signature::ECDSA_P256_SHA256_ASN1,
            KeyKind::P384 => &signature::ECDSA_P384_SHA256_ASN1,
            KeyKind::Ed25519 => &signature::ED25519,
        };
        UnparsedPublicKey::new(how, &self.0.bytes).verify(message, signature).is_ok()
    }

    /// The same for the envelope of a bundle. There P-384 goes with SHA-384 (sigstore's algorithm registry), and whoever signs
    /// with SHA-256, as ever, is right as well.
    pub(crate) fn verifies_envelope(&self, message: &[u8], signature: &[u8]) -> bool {
        let with_sha384 = || {
            let key = UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_ASN1, &self.0.bytes);
            self.0.kind == KeyKind::P384 && key.verify(message, signature).is_ok()
        };
        self.verifies(message, signature) || with_sha384()
    }

    /// As a file has it.
    pub fn to_pem(&self) -> String {
        pem::write("PUBLIC KEY", &self.0.to_der())
    }
}

/// A public key is no secret, and nobody wants to read it.
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("kind", &self.0.kind).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl genpkey` and `openssl pkey -pubout`.
    const RSA: &str = include_str!("../tests/keys/rsa.pub");
    const ED25519: &str = include_str!("../tests/keys/ed25519.pub");
    const P384: &str = include_str!("../tests/keys/p384.pub");
    const P256: &str = include_str!("../tests/keys/p256.pub");
    const MESSAGE: &[u8] = b"what was signed\n";

    #[test]
    fn what_openssl_signed_is_verified_and_nothing_else() {
        for (key, signature) in [
            (RSA, include_bytes!("../tests/keys/rsa.sig").as_slice()),
            (ED25519, include_bytes!("../tests/keys/ed25519.sig")),
            (P384, include_bytes!("../tests/keys/p384.sig")),
            (P256, include_bytes!("../tests/keys/p256.sig")),
        ] {
            let read = PublicKey::read(key).unwrap();
            assert!(read.verifies(MESSAGE, signature), "{read:?}");
            assert!(!read.verifies(b"what was signed", signature), "{read:?}");
            let mut other = signature.to_vec();
            *other.last_mut().unwrap() ^= 1;
            assert!(!read.verifies(MESSAGE, &other), "{read:?}");
            assert!(!read.verifies(MESSAGE, b""), "{read:?}");
            assert_eq!(read.to_pem(), key, "{read:?}");
        }
    }

    #[test]
    fn what_is_no_public_key_is_named() {
        let twice = format!("{P256}{P384}");
        let private = P256.replace("PUBLIC", "PRIVATE");
        let certificate = P256.replace("PUBLIC KEY", "CERTIFICATE");
        let cut = P256.replacen("MF", "", 1);
        for (text, words) in [
            ("", "it is no PEM"),
            (twice.as_str(), "there has to be one block of PEM"),
            (&private, "it is a private key"),
            (&certificate, "it is a certificate"),
            (&cut, "it"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "what is in it is no public key"),
        ] {
            assert!(PublicKey::read(text).unwrap_err().starts_with(words), "{text}");
        }
    }
}
