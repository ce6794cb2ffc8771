//! Public keys, as files have them: PEM with a `PUBLIC KEY` (RFC 7468, section 13), and what each of them verifies. Hashes are
//! sigstore's: SHA-256, whatever the key, but for Ed25519, which has its own (cosign's specs/SIGNATURE_SPEC.md).

use std::fmt;

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use crate::pem;

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: Kind,
    /// As `ring` wants it: a point, or PKCS #1's `RSAPublicKey`.
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// The algorithm's identifier in a `SubjectPublicKeyInfo` (RFC 5480, RFC 8017, RFC 8410).
const IDENTIFIERS: [(Kind, &[u8]); 4] = [
    (Kind::Rsa, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00"),
    (Kind::P256, P256),
    (Kind::P384, b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22"),
    (Kind::Ed25519, b"\x06\x03\x2b\x65\x70"),
];
const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

impl PublicKey {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        match pem::read(text)? {
            ("PUBLIC KEY", bytes) => of_info(&bytes).ok_or("what is in it is no public key")?,
            (label, _) if label.ends_with("PRIVATE KEY") => Err("it is a private key: the public one is wanted"),
            ("CERTIFICATE", _) => Err("it is a certificate: the public key alone is wanted"),
            _ => Err("it is PEM, and no PUBLIC KEY"),
        }
    }

    /// Of a point on P-256, uncompressed.
    pub(crate) fn of_p256(point: &[u8]) -> Self {
        Self { kind: Kind::P256, bytes: point.to_vec() }
    }

    /// Whether this is its signature of the message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let how: &'static dyn VerificationAlgorithm = match self.kind {
            Kind::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
            Kind::P256 => &signature::ECDSA_P256_SHA256_ASN1,
            Kind::P384 => &signature::ECDSA_P384_SHA256_ASN1,
            Kind::Ed25519 => &signature::ED25519,
        };
        UnparsedPublicKey::new(how, &self.bytes).verify(message, signature).is_ok()
    }

    /// As a file has it.
    pub fn to_pem(&self) -> String {
        let identifier = IDENTIFIERS.iter().find(|(kind, _)| *kind == self.kind).map_or(P256, |(_, bytes)| bytes);
        let bits = [&[0], self.bytes.as_slice()].concat();
        let content = [written(SEQUENCE, identifier), written(BIT_STRING, &bits)].concat();
        pem::write("PUBLIC KEY", &written(SEQUENCE, &content))
    }
}

/// A public key is no secret, and nobody wants to read it.
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn of_info(info: &[u8]) -> Option<Result<PublicKey, &'static str>> {
    let (SEQUENCE, content, []) = element(info)? else { return None };
    let (SEQUENCE, identifier, behind) = element(content)? else { return None };
    let (BIT_STRING, bits, []) = element(behind)? else { return None };
    let (0, bytes) = bits.split_first()? else { return None };
    let kind = IDENTIFIERS.iter().find(|(_, known)| *known == identifier).map(|(kind, _)| *kind);
    let unknown = "keys are RSA (2048 bits and more), of the curves P-256 and P-384, or Ed25519";
    Some(kind.ok_or(unknown).map(|kind| PublicKey { kind, bytes: bytes.to_vec() }))
}

/// X.690's DER: the tag and content of what comes first, and what comes behind.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((*tag, content, behind))
}

/// The same written, for up to 64 KiB.
fn written(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let length: &[u8] = match (high, low) {
        (0, 0..=0x7f) => &[low],
        (0, _) => &[0x81, low],
        _ => &[0x82, high, low],
    };
    [&[tag], length, content].concat()
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
