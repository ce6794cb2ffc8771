//! A way in for the fuzzer (`fuzz/`), and the test that runs what it has found again.

use http::{HeaderMap, HeaderValue, Method, Uri, header};

use crate::hosts::AllowedHosts;
use crate::manifest::{self, LARGEST_BYTES};
use crate::page::Page;
use crate::range::{ChunkRange, Part, part};
use crate::refusal::Kind;
use crate::route::{parameter, route};
use crate::{Refusal, access};

/// What a client may say in a path, a query, a field or a manifest: the first byte says which parser reads it.
pub fn request(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match which % 8 {
        0 => {
            for method in [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE] {
                if let Ok(action) = route(&method, &text) {
                    // Whatever is named in it, nothing leads elsewhere in a file system; a tag may have two full stops in it.
                    let shown = format!("{action:?}");
                    assert!(!shown.contains("../") && !shown.contains("/.."), "{shown}");
                }
            }
        }
        1 => {
            _ = Page::parse(&text).map(|page| page.cut(vec!["a".to_owned(); 3], "/l"));
            _ = parameter(&text, "digest");
        }
        2 => {
            if let Ok(range) = ChunkRange::parse(&text) {
                assert!(range.length() > 0 && range.check(range.first, Some(range.length())).is_ok());
            }
            for size in [0, 1, 1000, u64::MAX] {
                if let Part::Bytes { first, length } = part(Some(&text), size) {
                    assert!(length > 0 && first.checked_add(length).is_some_and(|end| end <= size));
                }
            }
        }
        3 => {
            if let Ok(manifest) = manifest::parse(rest, None) {
                assert!(manifest.blobs.is_empty() || manifest.manifests.is_empty());
                assert!(manifest.blobs.len() + manifest.manifests.len() <= LARGEST_BYTES);
            }
        }
        4 => access::read_basic(&text),
        6 => {
            // Nobody who asks gets more than he asked for, nor anything without a signature.
            let asked = crate::access::scope::Granted::parse(&text);
            assert_eq!(crate::access::scope::Granted::of_claims(&asked.claims()), asked);
        }
        7 => {
            if let Ok(pattern) = crate::pattern::Pattern::parse(&text) {
                _ = pattern.matches(&"a/b/c".parse().expect("it is a name"), Some("b"));
            }
            _ = crate::access::public_key::PublicKey::read_all(&text);
        }
        _ => {
            let Ok(host) = HeaderValue::from_bytes(rest) else { return };
            let headers: HeaderMap = [(header::HOST, host)].into_iter().collect();
            let told = AllowedHosts::Named(Vec::new()).check(&headers, &Uri::from_static("/v2/"));
            assert!(told.is_ok() || told.is_err_and(|refusal: Refusal| refusal.kind == Kind::Denied));
        }
    }
}

#[cfg(test)]
mod tests {
    include!("../../../fuzz/replay.rs");

    #[test]
    fn requests() {
        replay("distribution", super::request);
    }
}
