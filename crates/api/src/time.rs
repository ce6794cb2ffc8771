//! Times as Docker's API writes and reads them.

use dozen_model::moment;
use jiff::Timestamp;

use crate::error::ApiError;
use crate::extract::Query;

/// Go's zero time, which Docker gives for "never".
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// A moment in a query: seconds since 1970 with an optional fraction, or RFC 3339. Absent and 0 are none.
pub(crate) fn moment(query: &Query, name: &str) -> Result<Option<Timestamp>, ApiError> {
    match query.text(name) {
        None | Some("0") => Ok(None),
        Some(text) => moment::absolute(text).map(Some).ok_or_else(|| {
            ApiError::invalid(format!("invalid value for {name:?}: {text:?}: want seconds since 1970, or RFC 3339"))
        }),
    }
}

/// How long ago, in Docker's words (go-units, HumanDuration): they are coarse on purpose.
pub(crate) fn human(seconds: i64) -> String {
    let hours = (seconds + 1800) / 3600;
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_parse_or_are_refused() {
        let since = |query: &str| moment(&Query::from(query), "since");
        assert_eq!(since("since=1700000000.5"), Ok(Timestamp::new(1_700_000_000, 500_000_000).ok()));
        assert_eq!((since("since=0"), since("")), (Ok(None), Ok(None)));
        assert!(since("since=soon").is_err() && since("since=10m").is_err());
    }

    #[test]
    fn durations_read_as_dockers() {
        for (seconds, want) in [
            (-5, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (2 * 86400, "2 days"),
            (15 * 86400, "2 weeks"),
            (70 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human(seconds), want, "{seconds}");
        }
    }
}
