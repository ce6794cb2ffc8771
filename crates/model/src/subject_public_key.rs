//! Public keys as certificates and `PUBLIC KEY` files have them: `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7).

use crate::der::{BIT_STRING, SEQUENCE, element, tagged};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectPublicKey {
    /// What it is a key of.
    pub kind: KeyKind,
    /// A point, or PKCS #1's `RSAPublicKey`.
    pub bytes: Vec<u8>,
}

/// The kinds that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// Why it is none that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectPublicKeyError {
    /// It is no `SubjectPublicKeyInfo`.
    #[error("it is no public key")]
    Malformed,
    /// It is of another kind.
    #[error("{}", KeyKind::KNOWN)]
    Unknown,
}

impl KeyKind {
    /// For people: which keys may be.
    pub const KNOWN: &str = "keys are RSA (2048 bits and more), of the curves P-256 and P-384, or Ed25519";
    const ALL: [Self; 4] = [Self::Rsa, Self::P256, Self::P384, Self::Ed25519];

    /// The algorithm's identifier (RFC 8017, RFC 5480, RFC 8410).
    const fn identifier(self) -> &'static [u8] {
        match self {
            Self::Rsa => b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00",
            Self::P256 => b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
            Self::P384 => b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22",
            Self::Ed25519 => b"\x06\x03\x2b\x65\x70",
        }
    }
}

impl SubjectPublicKey {
    /// Nothing may stand behind it.
    ///
    /// # Errors
    /// It is none, or of another kind.
    pub fn read(info: &[u8]) -> Result<Self, SubjectPublicKeyError> {
        let (identifier, bytes) = parts(info).ok_or(SubjectPublicKeyError::Malformed)?;
        let kind = KeyKind::ALL.into_iter().find(|kind| kind.identifier() == identifier);
        Ok(Self { kind: kind.ok_or(SubjectPublicKeyError::Unknown)?, bytes: bytes.to_vec() })
    }

    /// As [`SubjectPublicKey::read`] reads it.
    pub fn to_der(&self) -> Vec<u8> {
        let bits = [&[0], self.bytes.as_slice()].concat();
        let content = [tagged(SEQUENCE, self.kind.identifier()), tagged(BIT_STRING, &bits)].concat();
        tagged(SEQUENCE, &content)
    }
}

fn parts(info: &[u8]) -> Option<(&[u8], &[u8])> {
    let (SEQUENCE, content, []) = element(info)? else { return None };
    let (SEQUENCE, identifier, behind) = element(content)? else { return None };
    let (BIT_STRING, bits, []) = element(behind)? else { return None };
    let (0, bytes) = bits.split_first()? else { return None };
    Some((identifier, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_as_it_was_written() {
        for kind in KeyKind::ALL {
            let key = SubjectPublicKey { kind, bytes: vec![4; 300] };
            let written = key.to_der();
            assert_eq!(SubjectPublicKey::read(&written).as_ref(), Ok(&key));
            let behind = [&written[..], &[0]].concat();
            assert_eq!(SubjectPublicKey::read(&behind), Err(SubjectPublicKeyError::Malformed));
        }
    }

    #[test]
    fn what_is_none_is_told_from_what_is_not_known() {
        assert_eq!(SubjectPublicKey::read(b"x"), Err(SubjectPublicKeyError::Malformed));
        let other = [tagged(SEQUENCE, &[6, 1, 1]), tagged(BIT_STRING, b"\0x")].concat();
        assert_eq!(SubjectPublicKey::read(&tagged(SEQUENCE, &other)), Err(SubjectPublicKeyError::Unknown));
        // Bits that do not fill the last byte.
        let odd = [tagged(SEQUENCE, KeyKind::P256.identifier()), tagged(BIT_STRING, b"\x01x")].concat();
        assert_eq!(SubjectPublicKey::read(&tagged(SEQUENCE, &odd)), Err(SubjectPublicKeyError::Malformed));
    }
}
