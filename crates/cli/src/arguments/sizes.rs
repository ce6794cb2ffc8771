//! Sizes as people type them: `64m`, `1.5g`, `4096`.

/// Bytes. Docker's units are powers of 1024, in either case, with an optional `b` or `ib`.
pub fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if matches!(unit.as_str(), "" | "b") => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    let bytes = number * 1024_f64.powi(power);
    #[expect(clippy::cast_possible_truncation, reason = "it is below 2^63")]
    if bytes < 9.2e18 { Ok(bytes as i64) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("32b", 32),
            ("64k", 65536),
            ("64m", 67_108_864),
            ("64M", 67_108_864),
            ("64mb", 67_108_864),
            ("64MiB", 67_108_864),
            ("1.5g", 1_610_612_736),
            ("1 k", 1024),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1..2", "99999999p", "1ib", "1  k"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
