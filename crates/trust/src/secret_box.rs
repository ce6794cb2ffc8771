//! NaCl's `secretbox` (nacl.cr.yp.to/secretbox.html): XSalsa20, whose first 32 bytes are the key of the Poly1305 that stands
//! before what is encrypted. Which bytes are what is said here; the ciphers are RustCrypto's.

use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

const TAG_BYTES: usize = 16;

pub(crate) fn seal(key: &[u8; 32], nonce: &[u8; 24], plain: &[u8]) -> Vec<u8> {
    let (mut cipher, authenticator) = begin(key, nonce);
    let mut text = plain.to_vec();
    cipher.apply_keystream(&mut text);
    [authenticator.compute_unpadded(&text).as_slice(), &text].concat()
}

/// `None`: the key is wrong, or somebody has changed it.
pub(crate) fn open(key: &[u8; 32], nonce: &[u8; 24], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (tag, text) = sealed.split_at_checked(TAG_BYTES)?;
    let (mut cipher, authenticator) = begin(key, nonce);
    let wanted = authenticator.compute_unpadded(text);
    // It takes as long wherever they differ.
    let differ = wanted.iter().zip(tag).fold(0, |differ, (wanted, found)| differ | (wanted ^ found));
    if differ != 0 {
        return None;
    }
    let mut plain = Zeroizing::new(text.to_vec());
    cipher.apply_keystream(&mut plain);
    Some(plain)
}

fn begin(key: &[u8; 32], nonce: &[u8; 24]) -> (XSalsa20, Poly1305) {
    let mut cipher = XSalsa20::new(key.into(), nonce.into());
    let mut first = Zeroizing::new([0; 32]);
    cipher.apply_keystream(&mut *first);
    let authenticator = Poly1305::new((&*first).into());
    (cipher, authenticator)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of NaCl's own tests (`tests/secretbox.c`): its beginning.
    #[test]
    fn nacls_own_example() {
        let hex = |text: &str| -> Vec<u8> {
            text.as_bytes()
                .chunks(2)
                .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
                .collect()
        };
        let key: [u8; 32] = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389").try_into().unwrap();
        let nonce: [u8; 24] = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37").try_into().unwrap();
        let plain = hex(
            "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01\
             233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd\
             4924ca1c60902e52f0a089bc76897040e082f937763848645e0705",
        );
        let sealed = hex(
            "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c\
             98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfea\
             bd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5",
        );
        assert_eq!(seal(&key, &nonce, &plain), sealed);
        assert_eq!(open(&key, &nonce, &sealed).unwrap().as_slice(), plain);
        let mut other = sealed.clone();
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(open(&key, &nonce, &other), None);
        assert_eq!(open(&[0; 32], &nonce, &sealed), None);
        assert_eq!(open(&key, &nonce, &sealed[..15]), None);
    }
}
