//! Moments as people and Docker's clients write them (moby, api/types/time): absolute, or how long ago.

use jiff::{Timestamp, Zoned, civil};

/// What `--since`, `--until` and the filter `until` take: `10m` ago, what [`absolute`] takes, or a date with as much of
/// a time as one likes (`2026-11-21`, `2026-11-21T10`), in the zone of `now`.
pub fn parse(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Some(nanoseconds) = duration_ns(text) {
        return Timestamp::from_nanosecond(now.timestamp().as_nanosecond() - nanoseconds).ok();
    }
    absolute(text).or_else(|| local(text, now))
}

/// `1700000000`, `1700000000.5`, `2023-11-14T22:13:20Z`: seconds since 1970, or RFC 3339.
pub fn absolute(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let Ok(seconds) = seconds.parse::<i64>() else { return text.parse().ok() };
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds, if text.starts_with('-') { -nanoseconds } else { nanoseconds }).ok()
}

fn local(text: &str, now: &Zoned) -> Option<Timestamp> {
    let local = text.parse::<civil::DateTime>().ok().or_else(|| {
        let padded = if text.len() == 13 { format!("{text}:00") } else { text.to_owned() };
        civil::DateTime::strptime("%Y-%m-%dT%H:%M", padded).ok()
    });
    Some(local?.to_zoned(now.time_zone().clone()).ok()?.timestamp())
}

/// Go's durations: `1h30m`, `90s`, `1.5h`, `300ms`.
pub fn duration_ns(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut total: f64 = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let nanoseconds = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * nanoseconds;
        rest = tail;
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be far below 2^127")]
    (total < 1e25).then_some(sign * total as i128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Zoned {
        "2026-11-21T12:00:00+02:00[+02:00]".parse().unwrap()
    }

    #[test]
    fn moments_parse() {
        let now_ns = now().timestamp().as_nanosecond();
        let ago = |seconds: f64| now_ns - (seconds * 1e9) as i128;
        for (text, nanoseconds) in [
            ("10m", ago(600.0)),
            ("1h30m", ago(5400.0)),
            ("24h", ago(86400.0)),
            ("1.5s", ago(1.5)),
            ("-1s", ago(-1.0)),
            ("1700000000", 1_700_000_000_000_000_000),
            ("1700000000.25", 1_700_000_000_250_000_000),
            ("1700000000.000000001", 1_700_000_000_000_000_001),
            ("-1.5", -1_500_000_000),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
            ("2026-11-21T10:00:00.5Z", now_ns + 500_000_000),
            ("2026-11-21T12:00:00", now_ns),
            ("2026-11-21T12:00", now_ns),
            ("2026-11-21T12", now_ns),
            ("2026-11-21", ago(43200.0)),
        ] {
            assert_eq!(parse(text, &now()).map(Timestamp::as_nanosecond), Some(nanoseconds), "{text}");
        }
        for bad in ["", "yesterday", "1x", "h", "1.x", "1.0000000001", "99999999999999999999", "1.-5", "9999999999h"] {
            assert_eq!(parse(bad, &now()), None, "{bad}");
        }
        assert_eq!((absolute("24h"), absolute("2026-11-21")), (None, None));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[-+0-9.hmsTZ:e]{0,30}") {
            let _ = parse(&text, &now());
        }
    }
}
