//! How many pulls are left, as Docker Hub says it (docs.docker.com, "Usage and limits": `ratelimit-limit: 100;w=21600`).

/// What a registry still gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Pulls in each window; `None` if it does not say.
    pub limit: Option<u64>,
    /// Of which so many are left.
    pub remaining: u64,
    /// Seconds of the window, if it says them.
    pub window_s: Option<u64>,
}

impl RateLimit {
    /// Of the fields `ratelimit-limit` and `ratelimit-remaining`.
    pub fn read(limit: Option<&str>, remaining: Option<&str>) -> Option<Self> {
        let (remaining, window) = field(remaining?)?;
        let limit = limit.and_then(field);
        Some(Self { limit: limit.map(|it| it.0), remaining, window_s: window.or(limit.and_then(|it| it.1)) })
    }
}

fn field(text: &str) -> Option<(u64, Option<u64>)> {
    let mut parts = text.split(';').map(str::trim);
    let count = parts.next()?.parse().ok()?;
    Some((count, parts.find_map(|part| part.strip_prefix("w=")?.parse().ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_read() {
        let of = |limit, remaining, window_s| Some(RateLimit { limit, remaining, window_s });
        for (limit, remaining, want) in [
            (Some("100;w=21600"), Some("76;w=21600"), of(Some(100), 76, Some(21600))),
            (Some("100 ; w=60"), Some("0"), of(Some(100), 0, Some(60))),
            (None, Some("5;x=1"), of(None, 5, None)),
            (Some("many"), Some("5"), of(None, 5, None)),
            (Some("100"), None, None),
            (None, Some("-1"), None),
        ] {
            assert_eq!(RateLimit::read(limit, remaining), want, "{limit:?} {remaining:?}");
        }
    }
}
