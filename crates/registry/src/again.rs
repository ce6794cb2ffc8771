//! Whether something that failed is tried again, and when: a server that has enough of us says so (429, 503, `Retry-After`),
//! others are asked again after a pause that doubles, of which a random part is taken, so that clients who failed together do
//! not come back together.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// The first pause, at the most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Every pause, at the most.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A server that wants to be left alone for longer is told of instead.
const LONGEST_WISH: Duration = Duration::from_secs(60);

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The connection, after it had been there.
    Connection,
    /// An answer with this status, and the pause that it asks for.
    Answer(u16, Option<Duration>),
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Once more, after this pause.
    After(Duration),
    /// It is a failure.
    No,
}

/// Decides after `attempts` that failed, of `most_attempts`. `random`: any number.
pub fn again(failed: Failed, attempts: u32, most_attempts: u32, random: u32) -> Again {
    if attempts >= most_attempts {
        return Again::No;
    }
    let wish = match failed {
        Failed::Connection => None,
        Failed::Answer(408 | 429 | 500 | 502 | 503 | 504, wish) => wish,
        Failed::Answer(..) => return Again::No,
    };
    match wish {
        Some(wish) if wish > LONGEST_WISH => Again::No,
        // All who were sent away are to come back at the same time: a little later each.
        Some(wish) => Again::After(wish + share(Duration::from_secs(1), random)),
        None => {
            let most = FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
            Again::After(most / 2 + share(most / 2, random))
        }
    }
}

fn share(most: Duration, random: u32) -> Duration {
    most.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// `Retry-After`: seconds, or a moment (RFC 9110, section 10.2.3). One that has passed is now.
pub fn retry_after(field: &str, now: Timestamp) -> Option<Duration> {
    let field = field.trim();
    if !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(field.parse().unwrap_or(u64::MAX)));
    }
    let moment = DateTimeParser::new().parse_timestamp(field).ok()?;
    Some(Duration::try_from(moment.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pause_is_read() {
        let now = "1994-11-06T08:49:00Z".parse().unwrap();
        for (field, want) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(field, now).map(|pause| pause.as_secs()), want, "{field}");
        }
    }

    #[test]
    fn what_may_go_better_is_tried_again() {
        let ms = |again| match again {
            Again::After(pause) => Some(pause.as_millis()),
            Again::No => None,
        };
        let wish = |seconds| Some(Duration::from_secs(seconds));
        for (failed, attempts, random, want) in [
            (Failed::Connection, 1, 0, Some(250)),
            (Failed::Connection, 1, u32::MAX, Some(500)),
            (Failed::Connection, 4, u32::MAX, Some(4000)),
            (Failed::Connection, 5, 0, None),
            (Failed::Answer(503, None), 2, u32::MAX, Some(1000)),
            (Failed::Answer(429, wish(7)), 1, 0, Some(7000)),
            (Failed::Answer(429, wish(7)), 1, u32::MAX, Some(8000)),
            (Failed::Answer(429, wish(61)), 1, 0, None),
            (Failed::Answer(404, wish(1)), 1, 0, None),
            (Failed::Answer(401, None), 1, 0, None),
        ] {
            assert_eq!(ms(again(failed, attempts, 5, random)), want, "{failed:?} {attempts}");
        }
    }

    proptest! {
        #[test]
        fn no_pause_is_too_long(attempts in any::<u32>(), random in any::<u32>(), status in 0u16..999, wish in proptest::option::of(any::<u64>())) {
            let failed = Failed::Answer(status, wish.map(Duration::from_secs));
            if let Again::After(pause) = again(failed, attempts, 5, random) {
                prop_assert!(pause <= LONGEST_WISH + Duration::from_secs(1) && attempts < 5);
            }
        }
    }
}
