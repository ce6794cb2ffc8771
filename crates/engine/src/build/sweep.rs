//! What builds keep is kept small by itself: after each build, and once when the engine starts. While nothing is built
//! nothing is looked at.

use std::sync::Arc;

use dozen_model::error_chain;
use dozen_settings::{CacheRule, Space};
use jiff::Timestamp;

use super::kept::Sizes;
use super::prune::{CachePrune, prune};
use crate::EngineError;
use crate::shared::Shared;

/// Carries the settings' rules out, one after the other.
pub(crate) async fn sweep(shared: &Arc<Shared>) {
    let settings = shared.config.settings.get();
    if !settings.builder.is_swept || settings.builder.rules.is_empty() {
        return;
    }
    let alone = lock(shared).await;
    let shared_too = shared.clone();
    let work = move || {
        let _alone = alone;
        settings.builder.rules.iter().try_for_each(|rule| carry_out(&shared_too, rule))
    };
    if let Err(error) = shared.blocking(work).await {
        tracing::error!(error = error_chain(&error), "the build cache stays as it is; the next build tries again");
    }
}

/// One at a time makes room. The guard goes with the work: who waits for that may go away.
pub(crate) async fn lock(shared: &Arc<Shared>) -> tokio::sync::OwnedMutexGuard<()> {
    shared.caches.sweeping.clone().lock_owned().await
}

fn carry_out(shared: &Arc<Shared>, rule: &CacheRule) -> Result<(), EngineError> {
    let disk = rustix::fs::statvfs(&shared.config.data_root);
    let disk = disk.map_err(EngineError::system(|| format!("look at {}", shared.config.data_root.display())))?;
    let Some(wanted) = wanted(rule, Timestamp::now(), disk.f_blocks.saturating_mul(disk.f_frsize)) else {
        return Ok(());
    };
    let pruned = prune(shared, &wanted, Sizes::Noted)?;
    if !pruned.ids.is_empty() {
        let (entries, bytes) = (pruned.ids.len(), pruned.reclaimed_bytes);
        tracing::info!(entries, bytes, "what builds have not used for the longest time was removed");
    }
    Ok(())
}

/// What a rule takes, of a disk of this size. `None`: nothing.
fn wanted(rule: &CacheRule, now: Timestamp, disk_bytes: u64) -> Option<CachePrune> {
    let bytes = |space: &Option<Space>| space.map_or(0, |space| space.of(disk_bytes));
    let unused_since = match rule.unused_for {
        None => None,
        // Longer than there has been time: nothing is as old.
        Some(unused_for) => Some(now.checked_sub(unused_for).ok()?),
    };
    Some(CachePrune {
        all: rule.all,
        unused_since,
        kind: rule.kind.clone(),
        reserved_bytes: bytes(&rule.reserved),
        // A disk of less than a hundred bytes is no reason to keep everything.
        max_used_bytes: rule.max_used.iter().map(|space| space.of(disk_bytes).max(1)).min().unwrap_or(0),
        min_free_bytes: bytes(&rule.min_free),
        ..CachePrune::default()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dozen_settings::BuilderSettings;

    use super::*;

    #[test]
    fn rules_are_of_a_disk_and_a_moment() {
        let now = Timestamp::from_second(1000).unwrap();
        let p = CachePrune::default;
        let default = BuilderSettings::default().rules.remove(0);
        let rule = CacheRule::default;
        // Of a disk that is nearly full nothing is kept back for builds, unless that is said.
        assert_eq!((default.reserved, default.min_free), (None, None));
        let max = |max_used_bytes| Some(CachePrune { max_used_bytes, ..p() });
        for (rule, disk_bytes, expected) in [
            (&default, 50_000_000_000, max(5_000_000_000)),
            (&default, 1 << 50, max(20_000_000_000)),
            (
                &CacheRule {
                    all: true,
                    unused_for: Some(Duration::from_secs(600)),
                    kind: Some("regular".into()),
                    reserved: Some(Space::Percent(50)),
                    min_free: Some(Space::Bytes(7)),
                    ..rule()
                },
                1000,
                Some(CachePrune {
                    all: true,
                    unused_since: Timestamp::from_second(400).ok(),
                    kind: Some("regular".into()),
                    reserved_bytes: 500,
                    min_free_bytes: 7,
                    ..p()
                }),
            ),
            (&CacheRule { unused_for: Some(Duration::from_secs(u64::MAX)), ..rule() }, 1000, None),
        ] {
            assert_eq!(wanted(rule, now, disk_bytes), expected, "{rule:?}");
        }
    }
}
