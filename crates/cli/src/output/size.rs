//! Sizes for people: powers of 1000, as many digits as Docker shows.

const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];

/// "7.8MB": three digits, as listings of images have it.
pub fn of_image(bytes: i64) -> String {
    with_digits(bytes, 3)
}

/// "7.834MB": four digits, as everything else has it.
pub fn human(bytes: i64) -> String {
    with_digits(bytes, 4)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "for people"
)]
fn with_digits(bytes: i64, digits: usize) -> String {
    let mut size = bytes.max(0) as f64;
    let mut unit = 0;
    // What would be rounded to a thousand belongs to the next unit.
    let limit = 1000.0 - 0.5 * 10_f64.powi(3 - digits as i32);
    while size >= limit && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let whole = if size < 10.0 {
        1
    } else if size < 100.0 {
        2
    } else {
        3
    };
    let text = format!("{size:.*}", digits.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (bytes, image, other) in [
            (0, "0B", "0B"),
            (1, "1B", "1B"),
            (999, "999B", "999B"),
            (1000, "1kB", "1kB"),
            (1024, "1.02kB", "1.024kB"),
            (7_834_123, "7.83MB", "7.834MB"),
            (7_800_000, "7.8MB", "7.8MB"),
            (74_800_000, "74.8MB", "74.8MB"),
            (124_849_152, "125MB", "124.8MB"),
            (1_000_000, "1MB", "1MB"),
            (2_500_000_000, "2.5GB", "2.5GB"),
            (999_999, "1MB", "1MB"),
        ] {
            assert_eq!((of_image(bytes).as_str(), human(bytes).as_str()), (image, other), "{bytes}");
        }
    }
}
