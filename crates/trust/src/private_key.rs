//! Private keys: made, kept in a file and signed with. Those that are made are as cosign makes them: of the curve P-256,
//! behind a passphrase, which may be empty.

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use zeroize::Zeroizing;

use crate::encrypted::{decrypt, encrypt};
use crate::{PublicKey, pem};

/// cosign's labels, the new one first.
const ENCRYPTED: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
/// RFC 5958.
const PLAIN: &str = "PRIVATE KEY";

/// See the module.
pub struct PrivateKey(EcdsaKeyPair);

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is no key, or none that is built.
    #[error("it is no private key that can be used: {0}")]
    Malformed(String),
    /// It is encrypted, and this does not open it.
    #[error("the passphrase is wrong")]
    Passphrase,
    /// The kernel gives no random numbers.
    #[error("there are no random numbers")]
    Random,
}

impl PrivateKey {
    /// A new one, and the file to keep it in.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn generate(passphrase: &[u8]) -> Result<(Self, Zeroizing<String>), KeyError> {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        let made = made.map_err(|_| KeyError::Random)?;
        let file = Zeroizing::new(pem::write(ENCRYPTED[0], &encrypt(made.as_ref(), passphrase)?));
        Ok((Self::of(made.as_ref())?, file))
    }

    /// Whether a file has to be opened with a passphrase.
    pub fn is_encrypted(text: &str) -> bool {
        pem::read(text).is_ok_and(|(label, _)| ENCRYPTED.contains(&label))
    }

    /// Reads a file: cosign's, or PKCS #8 in PEM.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn read(text: &str, passphrase: &[u8]) -> Result<Self, KeyError> {
        let malformed = |why: &str| KeyError::Malformed(why.to_owned());
        let (label, content) = pem::read(text).map_err(malformed)?;
        let content = Zeroizing::new(content);
        match label {
            PLAIN => Self::of(&content),
            label if ENCRYPTED.contains(&label) => Self::of(&decrypt(&content, passphrase)?),
            "EC PRIVATE KEY" => Err(malformed("it is SEC 1: openssl pkcs8 -topk8 -nocrypt makes PKCS #8 of it")),
            "ENCRYPTED PRIVATE KEY" => Err(malformed(
                "it is PKCS #8's own encryption: openssl pkcs8 takes that off, or dozen trust key generate",
            )),
            "PUBLIC KEY" => Err(malformed("it is the public one")),
            _ => Err(malformed("it is PEM of another kind")),
        }
    }

    fn of(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &SystemRandom::new());
        let wrong = |error| KeyError::Malformed(format!("of keys those of the curve P-256 are built ({error})"));
        key.map(Self).map_err(wrong)
    }

    /// What verifies its signatures.
    pub fn public(&self) -> PublicKey {
        PublicKey::of_p256(self.0.public_key().as_ref())
    }

    /// A signature.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| KeyError::Random)?;
        Ok(signature.as_ref().to_vec())
    }
}

/// Nothing of it goes into a log.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_read_and_signs() {
        let (key, file) = PrivateKey::generate(b"sesame").unwrap();
        assert!(
            PrivateKey::is_encrypted(&file) && file.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
        );
        let read = PrivateKey::read(&file, b"sesame").unwrap();
        assert_eq!(read.public(), key.public());
        assert!(key.public().verifies(b"m", &read.sign(b"m").unwrap()));
        assert_eq!(PublicKey::read(&key.public().to_pem()), Ok(key.public()));
        assert_eq!(PrivateKey::read(&file, b"").unwrap_err(), KeyError::Passphrase);
        let old = file.replace("SIGSTORE", "COSIGN");
        assert!(PrivateKey::read(&old, b"sesame").is_ok());
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
    }

    #[test]
    fn openssls_keys_are_read() {
        let key = PrivateKey::read(include_str!("../tests/keys/p256.key"), b"").unwrap();
        assert_eq!(key.public().to_pem(), include_str!("../tests/keys/p256.pub"));
    }

    #[test]
    fn what_is_none_is_named() {
        let of = |kdf: &str, cost: &str| {
            let text = format!(
                r#"{{"kdf":{{"name":"{kdf}","params":{cost},"salt":""}},"cipher":{{"name":"nacl/secretbox","nonce":""}},"ciphertext":""}}"#
            );
            pem::write(ENCRYPTED[0], text.as_bytes())
        };
        for (text, words) in [
            (String::new(), "it is no PEM"),
            (pem::write("PUBLIC KEY", b"x"), "it is the public one"),
            (pem::write("EC PRIVATE KEY", b"x"), "it is SEC 1"),
            (pem::write("PRIVATE KEY", b"x"), "those of the curve P-256 are built"),
            (pem::write(ENCRYPTED[0], b"x"), "expected value"),
            (of("argon2", r#"{"N":2,"r":1,"p":1}"#), "in another way than by scrypt"),
            // A file that would take all of the memory, or an hour.
            (of("scrypt", r#"{"N":1099511627776,"r":8,"p":1}"#), "parameters are none that anybody uses"),
            (of("scrypt", r#"{"N":2,"r":8,"p":4000000}"#), "parameters are none that anybody uses"),
            (of("scrypt", r#"{"N":3,"r":8,"p":1}"#), "parameters are none that anybody uses"),
            (of("scrypt", r#"{"N":2,"r":8,"p":1}"#), "its nonce has not 24 bytes"),
        ] {
            let error = PrivateKey::read(&text, b"").unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
