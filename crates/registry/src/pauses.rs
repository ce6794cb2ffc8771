//! Pauses before something is asked for again, told to whoever waits.

use std::sync::Arc;
use std::time::Duration;

use dozen_model::Digest;

/// Who is told of which blob is waited for, and how many seconds still.
#[derive(Clone)]
pub struct Pauses(Arc<Told>);

type Told = dyn Fn(&Digest, u64) + Send + Sync;

impl std::fmt::Debug for Pauses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pauses(…)")
    }
}

impl Pauses {
    /// This is told, each second.
    pub fn new(told: impl Fn(&Digest, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

/// Waits before the path is asked for again.
pub(crate) async fn wait(pauses: Option<&Pauses>, below: &str, pause: Duration) {
    let digest = below.rsplit_once("/blobs/").and_then(|(_, digest)| digest.parse::<Digest>().ok());
    let (Some(pauses), Some(digest)) = (pauses, digest) else { return tokio::time::sleep(pause).await };
    for (seconds, part) in parts(pause) {
        (pauses.0)(&digest, seconds);
        tokio::time::sleep(part).await;
    }
}

/// How many seconds are told, and how long that is then so: what is told next is a whole number of seconds before the end.
fn parts(pause: Duration) -> impl Iterator<Item = (u64, Duration)> {
    let whole = pause.as_secs();
    let rest = Duration::from_nanos(u64::from(pause.subsec_nanos()));
    let first = (!rest.is_zero()).then_some((whole + 1, rest));
    first.into_iter().chain((1..=whole).rev().map(|seconds| (seconds, Duration::from_secs(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_counted_down() {
        for (pause_ms, want) in [
            (2300, &[(3, 300), (2, 1000), (1, 1000)][..]),
            (250, &[(1, 250)]),
            (2000, &[(2, 1000), (1, 1000)]),
            (0, &[]),
        ] {
            let found = parts(Duration::from_millis(pause_ms)).map(|(seconds, part)| (seconds, part.as_millis()));
            assert_eq!(found.collect::<Vec<_>>(), want, "{pause_ms}");
        }
    }
}
