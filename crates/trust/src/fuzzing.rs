//! The way in for the fuzzers (`fuzz/`), and the test that runs what they have found again.

use dozen_model::{Digest, Reference};

use crate::bundle::{Envelope, signed_image};
use crate::payload::{Statement, payload};
use crate::{Attached, BUNDLE_BYTES, Policy, PrivateKey, PublicKey, bundle_of};

/// A policy, a key, a payload, a bundle, its statement or its manifest, by the first byte. What is taken is what it says when
/// it is looked at again.
pub fn trust(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match kind {
        b'p' => {
            let key = |_: &std::path::Path| Ok(include_str!("../tests/keys/p256.pub").to_owned());
            let Ok(policy) = Policy::read(&text, &key) else { return };
            let name: Reference = "registry.example/team/web:1".parse().expect("it is one");
            let digest = image();
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
        b'b' => bundle(rest),
        b't' => {
            if let Ok(digest) = signed_image(rest) {
                assert!(text.contains(digest.hex()), "{text}");
            }
        }
        b'm' => {
            if let Ok(bundle) = bundle_of(rest, &image()) {
                assert!(bundle.size_bytes <= BUNDLE_BYTES && text.contains(bundle.digest.hex()), "{text}");
            }
        }
        _ => {
            let Ok(Statement { digest, name }) = Statement::read(rest) else { return };
            if let Ok(name) = name.to_string().parse::<Reference>() {
                assert_eq!(Statement::read(&payload(&name, &digest)).map(|read| read.digest), Ok(digest));
            }
        }
    }
}

fn image() -> Digest {
    format!("sha256:{}", "a".repeat(64)).parse().expect("it is one")
}

/// Who has no key cannot make one that is good for anything but the image of the one in the corpus, whatever is done to that;
/// and where the rule says nothing of bundles, it is good for nothing.
fn bundle(data: &[u8]) {
    let read = |more: &str| {
        let text = format!(r#"{{"default":[{{"type":"sigstoreSigned","keyPath":"/k"{more}}}]}}"#);
        Policy::read(&text, &|_| Ok(include_str!("../tests/keys/p256.pub").to_owned())).expect("it is one")
    };
    let name: Reference = "registry.example/team/web:1".parse().expect("it is one");
    let attached = [Attached::Bundle(data.to_vec())];
    let other: Digest = format!("sha256:{}", "b".repeat(64)).parse().expect("it is one");
    let open = read(r#","sigstoreBundles":"acceptWithoutIdentity""#);
    assert!(open.rule_for(&name).judge(&name, &other, &attached).is_err());
    assert!(read("").rule_for(&name).judge(&name, &image(), &attached).is_err());
    if open.rule_for(&name).judge(&name, &image(), &attached).is_ok() {
        let envelope = Envelope::read(data).expect("it was judged");
        assert_eq!(signed_image(&envelope.payload), Ok(image()));
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
