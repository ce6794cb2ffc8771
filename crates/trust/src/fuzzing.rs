//! The way in for the fuzzers (`fuzz/`), and the test that runs what they have found again.

use dozen_model::{Digest, Reference};

use crate::payload::{Statement, payload};
use crate::{Policy, PrivateKey, PublicKey};

/// A policy, a key or a payload, by the first byte. What is taken is what it says when it is looked at again.
pub fn trust(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match kind {
        b'p' => {
            let key = |_: &std::path::Path| Ok(include_str!("../tests/keys/p256.pub").to_owned());
            let Ok(policy) = Policy::read(&text, &key) else { return };
            let name: Reference = "registry.example/team/web:1".parse().expect("it is one");
            let digest: Digest = format!("sha256:{}", "a".repeat(64)).parse().expect("it is one");
            let rule = policy.rule_for(&name);
            // Nobody has signed anything: what may come is what needs no signature.
            let may_come = rule.judge(&name, &digest, &[]).is_ok();
            assert_eq!(may_come, rule.needs() == crate::Needs::Nothing, "{text}");
        }
        b'k' => {
            if let Ok(key) = PublicKey::read(&text) {
                assert_eq!(PublicKey::read(&key.to_pem()), Ok(key.clone()));
                assert!(!key.verifies(b"nobody signed this", b"x"));
            }
        }
        b's' => drop(PrivateKey::read(&text, b"")),
        _ => {
            let Ok(Statement { digest, name }) = Statement::read(rest) else { return };
            if let Ok(name) = name.to_string().parse::<Reference>() {
                assert_eq!(Statement::read(&payload(&name, &digest)).map(|read| read.digest), Ok(digest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    include!("../../../fuzz/replay.rs");

    #[test]
    fn what_the_fuzzers_found_stays_mended() {
        replay("trust", super::trust);
    }
}
