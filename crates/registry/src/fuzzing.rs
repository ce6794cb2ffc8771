//! A way in for the fuzzer (`fuzz/`), and the test that runs what it has found again.

use std::time::Instant;

use jiff::Timestamp;

use crate::challenge::{Challenge, challenges};
use crate::document::document;
use crate::pages::next_page;
use crate::range::Part;
use crate::token::Token;
use crate::{RateLimit, Refusal, Scope};

/// What a registry may say in fields and bodies: the first byte says which parser reads it.
pub fn answer(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match which % 8 {
        0 => {
            for challenge in challenges([rest]) {
                if let Challenge::Bearer(bearer) = challenge {
                    let all =
                        [Some(&bearer.realm), bearer.service.as_ref(), bearer.scope.as_ref(), bearer.error.as_ref()];
                    assert!(all.into_iter().flatten().all(|text| !text.chars().any(char::is_control)), "{bearer:?}");
                }
            }
        }
        1 => {
            let scope = Scope::parse(&text);
            assert_eq!(Scope::parse(&scope.to_string()), scope);
        }
        2 => {
            if let Some(part) = Part::read(&text) {
                assert!(part.begin < part.end && part.whole_bytes.is_none_or(|whole| part.end <= whole));
            }
        }
        3 => _ = crate::again::retry_after(&text, Timestamp::UNIX_EPOCH),
        4 => assert!(Refusal::read(400, rest, str::to_owned).errors.len() <= 4),
        5 => _ = next_page([&*text]).inspect(|next| assert!(text.contains(next.as_str()))),
        6 => {
            let now = Instant::now();
            if let Ok(token) = Token::read(rest, now) {
                assert!(token.is_good(now) && token.secret.expose().bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
        _ => {
            _ = RateLimit::read(Some(&text), Some(&text));
            _ = document("", rest);
        }
    }
}

#[cfg(test)]
mod tests {
    include!("../../../fuzz/replay.rs");

    #[test]
    fn answers() {
        replay("registry", super::answer);
    }
}
