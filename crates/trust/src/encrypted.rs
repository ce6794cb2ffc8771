//! A private key behind a passphrase, as cosign keeps it: JSON in PEM, which says how the passphrase becomes a key (scrypt,
//! RFC 7914) and what that opens (`nacl/secretbox`). The form is go-securesystemslib's `encrypted`.

use dozen_model::base64;
use scrypt::{Params, scrypt};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::KeyError;
use crate::secret_box::{open, seal};

/// cosign's of today: 64 MiB and a tenth of a second.
const LOG_N: u8 = 16;
const R: u32 = 8;
const P: u32 = 1;
/// A file says how much memory it takes to open it; nobody's takes more than cosign's twice over (2^17, r 8).
const MOST_MEMORY_BYTES: u64 = 128 << 20;
const MOST_P: u32 = 4;

#[derive(Deserialize)]
struct Written {
    kdf: Derivation,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Derivation {
    name: String,
    params: Cost,
    salt: String,
}

#[derive(Deserialize)]
struct Cost {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

pub(crate) fn decrypt(text: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let malformed = |why: &str| KeyError::Malformed(why.to_owned());
    let written: Written = serde_json::from_slice(text).map_err(|error| KeyError::Malformed(error.to_string()))?;
    let Written { kdf, cipher, ciphertext } = written;
    if (kdf.name.as_str(), cipher.name.as_str()) != ("scrypt", "nacl/secretbox") {
        return Err(malformed("it is encrypted in another way than by scrypt and nacl/secretbox"));
    }
    let Cost { n, r, p } = kdf.params;
    let is_cheap = n.checked_mul(128 * u64::from(r)).is_some_and(|bytes| bytes <= MOST_MEMORY_BYTES) && p <= MOST_P;
    if !n.is_power_of_two() || !is_cheap {
        return Err(malformed("its scrypt parameters are none that anybody uses"));
    }
    let log_n = u8::try_from(n.trailing_zeros()).unwrap_or(u8::MAX);
    let decoded = |text: &str| base64::decode(text).ok_or_else(|| malformed("it is no base 64"));
    let (salt, nonce, sealed) = (decoded(&kdf.salt)?, decoded(&cipher.nonce)?, decoded(&ciphertext)?);
    let nonce: [u8; 24] = nonce.try_into().map_err(|_| malformed("its nonce has not 24 bytes"))?;
    let key = derived(passphrase, &salt, log_n, r, p).map_err(|why| malformed(&why))?;
    open(&key, &nonce, &sealed).ok_or(KeyError::Passphrase)
}

pub(crate) fn encrypt(plain: &[u8], passphrase: &[u8]) -> Result<Vec<u8>, KeyError> {
    let (mut salt, mut nonce) = ([0; 32], [0; 24]);
    getrandom::fill(&mut salt).and_then(|()| getrandom::fill(&mut nonce)).map_err(|_| KeyError::Random)?;
    let key = derived(passphrase, &salt, LOG_N, R, P).map_err(KeyError::Malformed)?;
    let written = json!({
        "kdf": {
            "name": "scrypt",
            "params": { "N": 1_u64 << LOG_N, "r": R, "p": P },
            "salt": base64::encode(&salt),
        },
        "cipher": { "name": "nacl/secretbox", "nonce": base64::encode(&nonce) },
        "ciphertext": base64::encode(&seal(&key, &nonce, plain)),
    });
    Ok(written.to_string().into_bytes())
}

fn derived(passphrase: &[u8], salt: &[u8], log_n: u8, r: u32, p: u32) -> Result<Zeroizing<[u8; 32]>, String> {
    let mut key = Zeroizing::new([0; 32]);
    let params = Params::new(log_n, r, p).map_err(|error| error.to_string())?;
    scrypt(passphrase, salt, &params, &mut *key).map_err(|error| error.to_string())?;
    Ok(key)
}
