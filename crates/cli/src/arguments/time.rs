//! `--since` and `--until`: a moment, or how long ago.

use jiff::{Timestamp, Zoned, civil};

/// The moment as the API takes it: seconds since 1970 with a fraction of nine digits.
pub fn parse(text: &str, now: &Zoned) -> Result<String, String> {
    if let Some(nanoseconds) = duration_ns(text) {
        let moment = now.timestamp().as_nanosecond() - nanoseconds;
        return Ok(unix(moment));
    }
    let is_unix = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if is_unix(seconds.strip_prefix('-').unwrap_or(seconds)) && is_unix(fraction) {
        return Ok(text.to_owned());
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(unix(moment.as_nanosecond()));
    }
    // Without a zone it is ours.
    let local = text.parse::<civil::DateTime>().ok().or_else(|| {
        let padded = if text.len() == 13 { format!("{text}:00") } else { text.to_owned() };
        civil::DateTime::strptime("%Y-%m-%dT%H:%M", padded).ok()
    });
    match local.and_then(|local| local.to_zoned(now.time_zone().clone()).ok()) {
        Some(moment) => Ok(unix(moment.timestamp().as_nanosecond())),
        None => Err(format!("failed to parse value as time or duration: \"{text}\"")),
    }
}

fn unix(nanoseconds: i128) -> String {
    format!("{}.{:09}", nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000))
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

    #[test]
    fn moments_parse() {
        let now: Zoned = "2026-11-21T12:00:00+02:00[+02:00]".parse().unwrap();
        let now_s = now.timestamp().as_second();
        for (text, parsed) in [
            ("10m", format!("{}.000000000", now_s - 600)),
            ("1h30m", format!("{}.000000000", now_s - 5400)),
            ("1.5s", format!("{}.500000000", now_s - 2)),
            ("1700000000", "1700000000".to_owned()),
            ("1700000000.25", "1700000000.25".to_owned()),
            ("2026-11-21T10:00:00Z", format!("{now_s}.000000000")),
            ("2026-11-21T10:00:00.5Z", format!("{now_s}.500000000")),
            ("2026-11-21T12:00:00", format!("{now_s}.000000000")),
            ("2026-11-21T12:00", format!("{now_s}.000000000")),
            ("2026-11-21T12", format!("{now_s}.000000000")),
            ("2026-11-21", format!("{}.000000000", now_s - 12 * 3600)),
        ] {
            assert_eq!(parse(text, &now), Ok(parsed), "{text}");
        }
        for bad in ["", "yesterday", "10", "1x", "h"] {
            assert_eq!(parse(bad, &now).is_ok(), bad == "10", "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[-+0-9.hmsTZ:]{0,24}") {
            let now: Zoned = "2026-11-21T12:00:00+02:00[+02:00]".parse().unwrap();
            let _ = parse(&text, &now);
        }
    }
}
