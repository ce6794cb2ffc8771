//! The way in for the fuzzers (`fuzz/`), and the test that runs what they have found again.

use crate::Proxies;
use crate::address::Address;

/// An address, and behind it, one on each line, where each answer redirects to. The first line says for which hosts there is
/// no proxy. Whatever is taken can be asked for as it is, and a password goes to the host that it is for and no other.
pub fn address(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let without = lines.next().unwrap_or_default();
    let Ok(mut at) = Address::parse(lines.next().unwrap_or_default()) else { return };
    let proxies = Proxies { plain: "me:pw@proxy:3128".into(), secure: "proxy".into(), without: without.to_owned() };
    look(&at);
    for reference in lines.take(20) {
        let _ = proxies.of_address(&at);
        let Ok(next) = at.follow(reference) else { return };
        look(&next);
        let is_elsewhere = (&next.host, next.port) != (&at.host, at.port);
        if is_elsewhere && !reference.contains('@') {
            assert_eq!(next.credentials, None, "{at} to {reference:?}");
        }
        at = next;
    }
}

fn look(address: &Address) {
    assert!(!address.host.is_empty() && address.port > 0);
    assert!(address.path_and_query.starts_with('/'));
    // It goes into the first line of a request, and its host into a field.
    let asked = format!("{}{}", address.host_and_port(), address.path_and_query);
    assert!(asked.bytes().all(|byte| byte.is_ascii_graphic()), "{asked:?}");
    let shown = address.to_string();
    let again = Address::parse(&shown).expect("what was an address is one");
    assert_eq!(Address { credentials: address.credentials.clone(), ..again }, *address);
    if let Some(name) = address.file_name() {
        assert!(!matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']), "{name:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    include!("../../../fuzz/replay.rs");

    #[test]
    fn addresses() {
        replay("address", super::address);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z.*/]{0,6}\nhttps?://[a-z@:0-9%.\\[\\]]{1,12}[/?#@a-z%2.]{0,9}(\n[a-z:/?#@%2.\\[\\]\\\\é ]{0,12}){0,4}") {
            super::address(text.as_bytes());
        }

        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            super::address(&data);
        }
    }
}
