//! Waiting for something that has no descriptor to wait on.

use std::time::{Duration, Instant};

/// How long anything may take before a test says that it does not happen. Far above what is needed: it is met only by
/// a test that fails anyway.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again, a hundred times a second, until there is an answer. Fails the test after 30 seconds.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
