//! Waiting for something that has no descriptor to wait on.

use std::time::{Duration, Instant};

/// How long anything may take before a test says that it does not happen. Far above what is needed: it is met only by
/// a test that fails anyway.
const PATIENCE: Duration = Duration::from_secs(30);

/// A limit of a test's on this machine: the environment's `DOZEN_TEST_PATIENCE` says how many times as long an emulated
/// processor may take. It moves only the moment at which a test gives up, never what it waits for.
pub fn patience(limit: Duration) -> Duration {
    let factor = std::env::var("DOZEN_TEST_PATIENCE").map_or(1, |text| text.parse().expect("a number of times"));
    limit * factor
}

/// The next second, for `events --until`: whole seconds are what a client sends (of `0s` too), and the last event is to be
/// before it.
pub fn next_second() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970").as_secs();
    (now + 1).to_string()
}

/// Asks again and again, a hundred times a second, until there is an answer. Fails the test after 30 seconds, or the
/// [`patience`] of the environment.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let (begun, limit) = (Instant::now(), patience(PATIENCE));
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
