//! Whether a container is well: what the checks have said so far, and what the next one makes of it. Pure.
//!
//! The rules are Docker's (github.com/moby/moby, daemon/health.go). A new engine begins at `starting` and keeps the count of
//! failures: what failed before it came goes on to fail.
//!
//! `health/probe.rs` runs the checks.

pub(crate) mod probe;

use std::collections::VecDeque;
use std::time::Duration;

use dozen_ledger::Migration;
use dozen_model::HealthCheck;
use jiff::Timestamp;

/// The count of failures stands beside the phase: the next engine goes on with it.
pub(crate) const MIGRATION: Migration =
    Migration("ALTER TABLE containers ADD COLUMN failing_streak INTEGER NOT NULL DEFAULT 0;");

/// Results that are kept, as many as Docker keeps.
const KEPT: usize = 5;
/// A check that could not be made, or took too long.
pub(crate) const NO_RESULT: i32 = -1;

/// What is known of a container's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What it comes to.
    pub status: HealthStatus,
    /// Failures in a row, without those of the start period.
    pub failing_streak: u32,
    /// The last results, oldest first.
    pub log: VecDeque<HealthResult>,
}

/// What the checks come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthStatus {
    /// It has not been well yet, and not been unwell for long enough.
    Starting,
    /// The last check succeeded, or too few have failed since one did.
    Healthy,
    /// Too many have failed.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthResult {
    /// When it began.
    pub start: Timestamp,
    /// When it was over.
    pub end: Timestamp,
    /// 0: it is well; -1: the check could not be made, or took too long.
    pub exit_code: i32,
    /// The beginning of what it said.
    pub output: String,
}

impl Health {
    /// Before the first check of a run; with the failures that the engine before this one has seen of it.
    pub(crate) fn begun(failing_streak: u32) -> Self {
        Self { status: HealthStatus::Starting, failing_streak, log: VecDeque::new() }
    }

    /// With one more result, of a run that has started then.
    #[must_use]
    pub(crate) fn with(&self, check: &HealthCheck, started: Timestamp, result: HealthResult) -> Self {
        let mut next = self.clone();
        if result.exit_code == 0 {
            next.failing_streak = 0;
            next.status = HealthStatus::Healthy;
        } else if self.status != HealthStatus::Starting || since(started, result.start) >= check.start_period() {
            next.failing_streak = self.failing_streak.saturating_add(1);
            if next.failing_streak >= check.retries() {
                next.status = HealthStatus::Unhealthy;
            }
        }
        if next.log.len() >= KEPT {
            next.log.pop_front();
        }
        next.log.push_back(result);
        next
    }

    /// How long after the last check, or after the start, the next one is made.
    pub(crate) fn next_pause(&self, check: &HealthCheck, started: Timestamp, now: Timestamp) -> Duration {
        let left = check.start_period().saturating_sub(since(started, now));
        let interval = check.interval();
        if left.is_zero() {
            return interval;
        }
        let interval = match self.status {
            HealthStatus::Starting => check.start_interval(),
            _ => interval,
        };
        // At the end of the start period at the latest: from there on it counts.
        interval.min(left)
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn result(second: i64, exit_code: i32) -> HealthResult {
        HealthResult { start: at(second), end: at(second + 1), exit_code, output: format!("at {second}") }
    }

    /// Results, with the second of the run that each is of, and what they come to.
    #[track_caller]
    fn check(check: &HealthCheck, from: Health, results: &[(i64, i32)], want: (HealthStatus, u32)) -> Health {
        let health =
            results.iter().fold(from, |health, (second, code)| health.with(check, at(0), result(*second, *code)));
        assert_eq!((health.status, health.failing_streak), want, "{results:?}");
        health
    }

    #[test]
    fn results_come_to_what_docker_makes_of_them() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        let default = HealthCheck::default();
        let new = || Health::begun(0);
        check(&default, new(), &[], (Starting, 0));
        check(&default, new(), &[(30, 1), (60, 1)], (Starting, 2));
        check(&default, new(), &[(30, 1), (60, 2), (90, NO_RESULT)], (Unhealthy, 3));
        check(&default, new(), &[(30, 1), (60, 0), (90, 1)], (Healthy, 1));
        check(&default, new(), &[(30, 1), (60, 1), (90, 1), (120, 1), (150, 0)], (Healthy, 0));
        check(&HealthCheck { retries: 1, ..default.clone() }, new(), &[(30, 0), (60, 1)], (Unhealthy, 1));
        // In the start period failures do not count, until the first success.
        let patient = HealthCheck { start_period_ns: 60_000_000_000, retries: 2, ..default.clone() };
        check(&patient, new(), &[(5, 1), (10, 1), (59, 1)], (Starting, 0));
        check(&patient, new(), &[(5, 1), (60, 1), (65, 1)], (Unhealthy, 2));
        check(&patient, new(), &[(5, 0), (10, 1), (15, 1)], (Unhealthy, 2));
        // The next engine goes on counting.
        check(&default, Health::begun(2), &[(600, 1)], (Unhealthy, 3));
        check(&default, Health::begun(7), &[(600, 0)], (Healthy, 0));
    }

    #[test]
    fn the_last_five_results_are_kept() {
        let results: Vec<(i64, i32)> = (0..8).map(|second| (second, 0)).collect();
        let health = check(&HealthCheck::default(), Health::begun(0), &results, (HealthStatus::Healthy, 0));
        let said: Vec<&str> = health.log.iter().map(|result| result.output.as_str()).collect();
        assert_eq!(said, ["at 3", "at 4", "at 5", "at 6", "at 7"]);
    }

    #[test]
    fn the_start_period_has_an_interval_of_its_own() {
        let second = 1_000_000_000;
        let default = HealthCheck::default();
        let patient = HealthCheck { start_period_ns: 12 * second, interval_ns: 20 * second, ..default.clone() };
        let (starting, well) = (Health::begun(0), Health { status: HealthStatus::Healthy, ..Health::begun(0) });
        for (check, health, now, want) in [
            (&default, &starting, 0, 30),
            (&patient, &starting, 0, 5),
            (&patient, &starting, 5, 5),
            (&patient, &starting, 10, 2),
            (&patient, &starting, 12, 20),
            (&patient, &well, 0, 12),
            (&patient, &well, 30, 20),
        ] {
            assert_eq!(health.next_pause(check, at(0), at(now)).as_secs(), want, "{check:?} {health:?} {now}");
        }
    }
}
