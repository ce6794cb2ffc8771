//! `--since` and `--until`: a moment, or how long ago.

use dozen_model::moment;
use jiff::Zoned;

/// The moment as the API takes it: seconds since 1970 with a fraction of nine digits.
pub fn parse(text: &str, now: &Zoned) -> Result<String, String> {
    // Seconds go as they are: 0 means "no moment" to the API.
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if is_digits(seconds.strip_prefix('-').unwrap_or(seconds)) && is_digits(fraction) {
        return Ok(text.to_owned());
    }
    match moment::parse(text, now) {
        Some(moment) => Ok(unix(moment.as_nanosecond())),
        None => Err(format!("failed to parse value as time or duration: \"{text}\"")),
    }
}

fn unix(nanoseconds: i128) -> String {
    format!("{}.{:09}", nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_become_the_apis() {
        let now: Zoned = "2026-11-21T12:00:00+02:00[+02:00]".parse().unwrap();
        let now_s = now.timestamp().as_second();
        for (text, parsed) in [
            ("10m", format!("{}.000000000", now_s - 600)),
            ("1.5s", format!("{}.500000000", now_s - 2)),
            ("0", "0".to_owned()),
            ("1700000000", "1700000000".to_owned()),
            ("1700000000.25", "1700000000.25".to_owned()),
            ("2026-11-21T10:00:00.5Z", format!("{now_s}.500000000")),
            ("2026-11-21", format!("{}.000000000", now_s - 12 * 3600)),
        ] {
            assert_eq!(parse(text, &now), Ok(parsed), "{text}");
        }
        let words = "failed to parse value as time or duration: \"yesterday\"";
        assert_eq!(parse("yesterday", &now), Err(words.to_owned()));
    }
}
