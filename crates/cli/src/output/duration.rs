//! Durations for people, in Docker's words.

/// "About an hour"; `seconds` that are negative count as none.
pub fn human(seconds: i64) -> String {
    let minutes = seconds / 60;
    // Hours are rounded, all else is cut: that is how Docker's words come out.
    let hours = (seconds + 1800) / 3600;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// "2 minutes ago"; nothing for a moment that is not known.
pub fn ago(then_s: i64, now_s: i64) -> String {
    if then_s <= 0 {
        return "N/A".to_owned();
    }
    format!("{} ago", human(now_s - then_s))
}

/// A moment as Go prints one: `2026-11-21 05:06:07 +0000 UTC`, in our zone.
pub fn go_time(unix_s: i64) -> String {
    let Ok(moment) = jiff::Timestamp::from_second(unix_s) else { return unix_s.to_string() };
    let zoned = moment.to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_dockers() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, words) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (2, "2 seconds"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (59 * 60 + 59, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 1799, "About an hour"),
            (HOUR + 1800, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(human(seconds), words, "{seconds}");
        }
        assert_eq!(ago(100, 220), "2 minutes ago");
        assert_eq!(ago(0, 220), "N/A");
    }
}
