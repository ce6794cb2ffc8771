//! Public keys of a token service, as files have them: PEM (`PUBLIC KEY`, or a `CERTIFICATE` for its key), or a JSON Web Key
//! or a set of them (RFC 7517); and what each of them verifies (RFC 7518, section 3.1; RFC 8037).
//!
//! A key says how it is used: what a token says of it can only agree.

use dozen_model::der::{SEQUENCE, element, tagged};
use dozen_model::{KeyKind, SubjectPublicKey, SubjectPublicKeyError, base64};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::Value;

use crate::access::token::decode;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicKey {
    key: SubjectPublicKey,
    /// By what tokens call it; `None`: they may call it as they like.
    id: Option<String>,
}

impl PublicKey {
    /// All of a file's.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn read_all(text: &str) -> Result<Vec<Self>, &'static str> {
        let keys = match text.trim_start().starts_with('{') {
            true => of_json(text)?,
            false => of_pem(text)?,
        };
        if keys.is_empty() { Err("there is no key in it") } else { Ok(keys) }
    }

    /// Whether it may be the one that a token calls so.
    pub(crate) fn is_called(&self, id: Option<&str>) -> bool {
        self.id.is_none() || id.is_none() || self.id.as_deref() == id
    }

    /// Whether this is its signature, by the algorithm of this name.
    pub(crate) fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let how: &'static dyn VerificationAlgorithm = match (self.key.kind, algorithm) {
            (KeyKind::Rsa, "RS256") => &signature::RSA_PKCS1_2048_8192_SHA256,
            (KeyKind::Rsa, "RS384") => &signature::RSA_PKCS1_2048_8192_SHA384,
            (KeyKind::Rsa, "RS512") => &signature::RSA_PKCS1_2048_8192_SHA512,
            (KeyKind::Rsa, "PS256") => &signature::RSA_PSS_2048_8192_SHA256,
            (KeyKind::Rsa, "PS384") => &signature::RSA_PSS_2048_8192_SHA384,
            (KeyKind::Rsa, "PS512") => &signature::RSA_PSS_2048_8192_SHA512,
            (KeyKind::P256, "ES256") => &signature::ECDSA_P256_SHA256_FIXED,
            (KeyKind::P384, "ES384") => &signature::ECDSA_P384_SHA384_FIXED,
            (KeyKind::Ed25519, "EdDSA") => &signature::ED25519,
            _ => return false,
        };
        UnparsedPublicKey::new(how, &self.key.bytes).verify(message, signature).is_ok()
    }
}

fn of_pem(text: &str) -> Result<Vec<PublicKey>, &'static str> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once("-----BEGIN ") {
        let (label, begun) = begun.split_once("-----").ok_or("a line of PEM does not end")?;
        let (body, behind) = begun.split_once("-----END ").ok_or("a block of PEM does not end")?;
        rest = behind;
        let letters: String = body.split_ascii_whitespace().collect();
        let bytes = base64::decode(&letters).ok_or("a block of PEM is no base 64")?;
        let malformed = "a block of PEM is not what its label says";
        match label {
            "PUBLIC KEY" => keys.push(of_info(&bytes, malformed)?),
            "CERTIFICATE" => keys.push(of_info(info_of_certificate(&bytes).ok_or(malformed)?, malformed)?),
            "RSA PUBLIC KEY" => {
                keys.push(PublicKey { key: SubjectPublicKey { kind: KeyKind::Rsa, bytes }, id: None });
            }
            word if word.ends_with("PRIVATE KEY") => {
                return Err("there is a private key in it: the token service alone has that");
            }
            _ => return Err("it has a block of PEM that is neither PUBLIC KEY nor CERTIFICATE"),
        }
    }
    Ok(keys)
}

fn of_info(info: &[u8], malformed: &'static str) -> Result<PublicKey, &'static str> {
    match SubjectPublicKey::read(info) {
        Ok(key) => Ok(PublicKey { key, id: None }),
        Err(SubjectPublicKeyError::Malformed) => Err(malformed),
        Err(SubjectPublicKeyError::Unknown) => Err(KeyKind::KNOWN),
    }
}

/// RFC 5280, section 4.1: version, serial number, algorithm, issuer, validity and subject stand before the key. Who made the
/// certificate does not matter: it was given to us.
fn info_of_certificate(certificate: &[u8]) -> Option<&[u8]> {
    const VERSION: u8 = 0xa0;
    let (_, content, _) = element(certificate)?;
    let (_, mut rest, _) = element(content)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    for _ in 0..5 {
        rest = element(rest)?.2;
    }
    let (_, _, behind) = element(rest)?;
    Some(&rest[..rest.len() - behind.len()])
}

fn of_json(text: &str) -> Result<Vec<PublicKey>, &'static str> {
    let value: Value = serde_json::from_str(text).map_err(|_| "it is no JSON")?;
    match value.get("keys") {
        None => of_key(&value).map(|key| vec![key]),
        Some(keys) => {
            let keys = keys.as_array().ok_or("\"keys\" is no list")?;
            let signs = |key: &&Value| key.get("use").is_none_or(|used| used == "sig");
            keys.iter().filter(signs).map(of_key).collect()
        }
    }
}

fn of_key(key: &Value) -> Result<PublicKey, &'static str> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let number = |name: &str| text(name).and_then(decode).ok_or("a key has no number where one belongs");
    if key.get("d").is_some() {
        return Err("there is a private key in it: the token service alone has that");
    }
    let point = |length: usize| {
        let (x, y) = (number("x")?, number("y")?);
        let is_point = x.len() == length && y.len() == length;
        if is_point { Ok([&[4][..], &x, &y].concat()) } else { Err("a key's point is not on its curve") }
    };
    let (kind, bytes) = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => (KeyKind::Rsa, rsa(&number("n")?, &number("e")?)),
        (Some("EC"), Some("P-256")) => (KeyKind::P256, point(32)?),
        (Some("EC"), Some("P-384")) => (KeyKind::P384, point(48)?),
        (Some("OKP"), Some("Ed25519")) => (KeyKind::Ed25519, number("x")?),
        _ => return Err(KeyKind::KNOWN),
    };
    Ok(PublicKey { key: SubjectPublicKey { kind, bytes }, id: text("kid").map(str::to_owned) })
}

/// PKCS #1's `RSAPublicKey` (RFC 8017, appendix A.1.1).
fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let content = [integer(modulus), integer(exponent)].concat();
    tagged(SEQUENCE, &content)
}

fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    // One that begins with a one would be negative.
    let sign = if number.first().is_none_or(|first| *first >= 0x80) { &[0][..] } else { &[] };
    tagged(0x02, &[sign, number].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::access::token::encode;
    use dozen_model::der::BIT_STRING;

    /// RFC 7515, appendix A.2 and A.3: keys, what was signed, and its signatures.
    const RSA: &str = r#"{"kty":"RSA",
        "n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#;
    const RSA_SIGNED: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const RSA_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const EC_SIGNED: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const EC_SIGNATURE: &str = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

    #[test]
    fn the_standards_own_examples() {
        for (key, signed, text, algorithm) in
            [(RSA, RSA_SIGNED, RSA_SIGNATURE, "RS256"), (EC, EC_SIGNED, EC_SIGNATURE, "ES256")]
        {
            let key = &PublicKey::read_all(key).unwrap()[0];
            let mut signature = decode(text).unwrap();
            assert!(key.verifies(algorithm, signed.as_bytes(), &signature));
            for wrong in ["none", "HS256", "RS512", "PS256", "ES384", "EdDSA", ""] {
                assert!(!key.verifies(wrong, signed.as_bytes(), &signature), "{wrong}");
            }
            assert!(!key.verifies(algorithm, b"another", &signature));
            signature[0] ^= 1;
            assert!(!key.verifies(algorithm, signed.as_bytes(), &signature));
        }
    }

    fn pem(label: &str, bytes: &[u8]) -> String {
        let text = base64::encode(bytes);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    fn info(kind: KeyKind, key: &[u8]) -> Vec<u8> {
        SubjectPublicKey { kind, bytes: key.to_vec() }.to_der()
    }

    #[test]
    fn keys_are_read_from_files_of_each_kind() {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap();
        let file = pem("PUBLIC KEY", &info(KeyKind::P256, pair.public_key().as_ref()));
        let made = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let edwards = Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap();
        let both = file + &pem("PUBLIC KEY", &info(KeyKind::Ed25519, edwards.public_key().as_ref()));
        let keys = PublicKey::read_all(&both).unwrap();
        let signature = pair.sign(&random, b"words").unwrap();
        assert!(keys[0].verifies("ES256", b"words", signature.as_ref()));
        assert!(keys[1].verifies("EdDSA", b"words", edwards.sign(b"words").as_ref()));
        assert!(keys[0].is_called(Some("anything")));
        // A certificate stands for its key.
        let certified = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&certified).unwrap();
        let (of_certificate, alone) =
            (PublicKey::read_all(&made.pem()), PublicKey::read_all(&certified.public_key_pem()));
        assert_eq!(of_certificate.unwrap(), alone.unwrap());
        let set = format!("{{\"keys\":[{},{{\"use\":\"enc\"}}]}}", EC.replacen('{', "{\"kid\":\"one\",", 1));
        let keys = PublicKey::read_all(&set).unwrap();
        assert!(keys.len() == 1 && keys[0].is_called(Some("one")) && !keys[0].is_called(Some("two")));
        assert_eq!(rsa(&[0x80], &[1, 0, 1])[..4], [0x30, 9, 2, 2]);
    }

    #[test]
    fn what_is_no_public_key_is_refused_with_the_reason() {
        let large = encode(&[1; 33]);
        let other = [tagged(SEQUENCE, &[6, 1, 1]), tagged(BIT_STRING, b"\0x")].concat();
        let other = tagged(SEQUENCE, &other);
        for (text, words) in [
            (String::new(), "no key"),
            ("{".to_owned(), "no JSON"),
            ("{}".to_owned(), "keys are RSA"),
            ("{\"keys\":[]}".to_owned(), "no key"),
            (EC.replacen('{', "{\"d\":\"x\",", 1), "private key"),
            (EC.replace("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", &large), "not on its curve"),
            (pem("EC PRIVATE KEY", b"x"), "private key"),
            (pem("PUBLIC KEY", b"x"), "not what its label says"),
            (pem("PUBLIC KEY", &other), "keys are RSA"),
            (pem("CERTIFICATE", &[0x30, 0x84, 0, 0, 0, 0]), "not what its label says"),
            ("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----".to_owned(), "no base 64"),
            ("-----BEGIN PUBLIC KEY-----".to_owned(), "does not end"),
            (pem("X509 CRL", b"x"), "neither"),
        ] {
            let why = PublicKey::read_all(&text).unwrap_err();
            assert!(why.contains(words), "{text}: {why}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, label in "PUBLIC KEY|CERTIFICATE", text in "\\PC{0,60}") {
            let _ = PublicKey::read_all(&pem(&label, &bytes));
            let _ = PublicKey::read_all(&text);
        }
    }
}
