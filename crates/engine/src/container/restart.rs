//! Whether a container that has ended runs again, when, and why. Pure.
//!
//! The rules are Docker's (github.com/moby/moby, restartmanager): a pause of 100 ms before the first restart, twice as
//! long before each further one and a minute at most, and from the beginning again after a run of ten seconds. Two things
//! are ours: a pause is a little longer by chance, so that what failed together does not come back together, and a restart
//! that cannot be made counts as one that failed: it is tried again, where Docker gives up.

use std::fmt;
use std::time::Duration;

use dozen_ledger::Migration;
use dozen_model::RestartPolicy;
use serde::{Deserialize, Serialize};

use crate::container::snapshot::{ExitStatus, StartFailure, Waiting};

/// What is known of a container's restarts stands beside its phase.
pub(crate) const MIGRATION: Migration =
    Migration("ALTER TABLE containers ADD COLUMN restarts TEXT NOT NULL DEFAULT '{}';");

/// What ended a run that nobody saw end.
pub(crate) const MACHINE_WENT_DOWN: &str = "the machine went down";

const FIRST_PAUSE_MS: u64 = 100;
const LONGEST_PAUSE_MS: u64 = 60_000;
/// A run of this length was a good one.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// A pause is longer by up to this part of it.
const JITTER_PARTS: u64 = 5;

/// What is known of a container's restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restarts {
    /// How many times it was restarted by itself since someone started it (Docker's RestartCount).
    #[serde(skip_serializing_if = "is_default")]
    pub count: u32,
    /// Why it runs again, or is about to.
    #[serde(skip_serializing_if = "is_default")]
    pub reason: Option<RestartReason>,
    /// Someone stopped or killed it since it was started.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) is_stopped_by_hand: bool,
    /// Its present start, or run, is one that nobody asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) is_by_itself: bool,
    /// The last pause before a restart, without its jitter.
    #[serde(skip_serializing_if = "is_default")]
    pause_ms: u64,
    /// How the run before a restart ended.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) last_exit: Option<ExitStatus>,
    /// Its present start is one that is made whatever its policy says.
    #[serde(skip_serializing_if = "is_default")]
    is_recovery: bool,
    /// Why the engine itself is about to end its run.
    #[serde(skip_serializing_if = "is_default")]
    ending: Option<String>,
}

/// Why a container was started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartReason {
    /// It ended with this code.
    Exited(i32),
    /// The kernel killed it for want of memory.
    OutOfMemory,
    /// It ended in a way that is not its own doing: these words say how.
    Lost(String),
    /// A restart could not be made: these words say why.
    StartFailed(String),
    /// The engine started, and the policy says that it runs then.
    EngineStarted,
    /// The machine went down while it ran, and was started again.
    MachineWentDown,
    /// Someone asked for it.
    Asked,
}

impl fmt::Display for RestartReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "it exited with code {code}"),
            Self::OutOfMemory => f.write_str("it was killed for want of memory"),
            Self::Lost(why) => f.write_str(why),
            Self::StartFailed(why) => write!(f, "it could not be restarted: {why}"),
            Self::EngineStarted => f.write_str("the engine started"),
            Self::MachineWentDown => f.write_str(MACHINE_WENT_DOWN),
            Self::Asked => f.write_str("someone asked for it"),
        }
    }
}

impl Restarts {
    /// Someone starts it: everything begins anew.
    pub(crate) fn begun(reason: Option<RestartReason>) -> Self {
        Self { reason, ..Self::default() }
    }

    /// Someone has stopped or killed it.
    pub(crate) fn stopped_by_hand(&self) -> Self {
        Self { is_stopped_by_hand: true, ..self.clone() }
    }

    /// A run has ended that nobody had wished to end. What it waits for, if it is to run again.
    pub(crate) fn after_end(&self, policy: RestartPolicy, exit: &ExitStatus) -> Option<(Self, Waiting)> {
        let is_wanted = match policy {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure { .. } => exit.exit_code != 0,
        };
        (is_wanted && !self.is_stopped_by_hand && self.is_below(policy))
            .then(|| self.again(exit.clone(), reason_of(exit), None))
    }

    /// It was unwell, and has been stopped for that.
    pub(crate) fn after_recovery(&self, exit: &ExitStatus) -> (Self, Waiting) {
        let (restarts, waiting) = self.again(exit.clone(), reason_of(exit), None);
        (Self { is_recovery: true, ..restarts }, waiting)
    }

    /// It is unwell, and is about to be ended for that.
    pub(crate) fn ending_unhealthy(&self, streak: u32) -> Self {
        let why = match streak {
            1 => "the container was unhealthy: its health check failed".to_owned(),
            _ => format!("the container was unhealthy: its health check failed {streak} times in a row"),
        };
        Self { ending: Some(why), ..self.clone() }
    }

    /// The end of a run, with the reason that it has if the engine itself has brought it about.
    pub(crate) fn explain(&self, exit: ExitStatus) -> ExitStatus {
        ExitStatus { error: exit.error.or_else(|| self.ending.clone()), ..exit }
    }

    /// A restart could not be made. What it waits for, if it is tried again.
    pub(crate) fn after_failure(&self, policy: RestartPolicy, failure: StartFailure) -> Option<(Self, Waiting)> {
        let exit = self.last_exit.clone()?;
        let is_wanted = self.is_by_itself && (self.is_recovery || policy != RestartPolicy::No);
        let reason = RestartReason::StartFailed(failure.message.clone());
        (is_wanted && self.is_below(policy)).then(|| self.again(exit, reason, Some(failure)))
    }

    /// A new engine has found it ended. What it waits for, if it is to run: nothing but those that it needs.
    pub(crate) fn at_engine_start(&self, policy: RestartPolicy, exit: &ExitStatus) -> Option<(Self, Waiting)> {
        let is_wanted = match policy {
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !self.is_stopped_by_hand,
            RestartPolicy::No | RestartPolicy::OnFailure { .. } => false,
        };
        is_wanted.then(|| Self::anew(RestartReason::EngineStarted, exit))
    }

    /// The machine went down under it, in order or not. What it waits for, if it is to run. That is no failure of its own,
    /// so everything begins anew; who ended well while it went down has done its work (Docker's rule, by the exit code).
    pub(crate) fn after_boot(&self, policy: RestartPolicy, exit: &ExitStatus) -> Option<(Self, Waiting)> {
        let is_wanted = match policy {
            RestartPolicy::OnFailure { .. } => self.runs_after_boot(policy) && exit.exit_code != 0,
            _ => self.runs_after_boot(policy),
        };
        is_wanted.then(|| Self::anew(RestartReason::MachineWentDown, exit))
    }

    /// Whether it, which runs, shall run again if the machine goes down at this moment.
    pub(crate) fn runs_after_boot(&self, policy: RestartPolicy) -> bool {
        match policy {
            RestartPolicy::No => false,
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped | RestartPolicy::OnFailure { .. } => !self.is_stopped_by_hand,
        }
    }

    /// It is started by the engine, with no failure behind it.
    fn anew(reason: RestartReason, exit: &ExitStatus) -> (Self, Waiting) {
        let restarts = Self { is_by_itself: true, last_exit: Some(exit.clone()), ..Self::begun(Some(reason)) };
        (restarts, Waiting { exit: exit.clone(), failure: None, pause_ms: 0 })
    }

    /// It is one of those that run because engine or machine have started.
    pub(crate) fn is_of_a_beginning(&self) -> bool {
        matches!(self.reason, Some(RestartReason::EngineStarted | RestartReason::MachineWentDown))
    }

    fn is_below(&self, policy: RestartPolicy) -> bool {
        policy.most() == 0 || self.count < policy.most()
    }

    fn again(&self, exit: ExitStatus, reason: RestartReason, failure: Option<StartFailure>) -> (Self, Waiting) {
        let ran = Duration::try_from(exit.finished.duration_since(exit.started)).unwrap_or_default();
        let pause_ms = match self.pause_ms {
            0 => FIRST_PAUSE_MS,
            _ if failure.is_none() && ran >= GOOD_RUN => FIRST_PAUSE_MS,
            last => (last * 2).min(LONGEST_PAUSE_MS),
        };
        let count = self.count.saturating_add(1);
        // Chance enough: the nanoseconds of its end.
        let chance = u64::from(exit.finished.subsec_nanosecond().unsigned_abs()) + u64::from(count) * 7919;
        let jitter_ms = chance % (pause_ms / JITTER_PARTS + 1);
        let last_exit = Some(exit.clone());
        let restarts = Self {
            count,
            reason: Some(reason),
            is_stopped_by_hand: false,
            is_by_itself: true,
            pause_ms,
            last_exit,
            is_recovery: self.is_recovery && failure.is_some(),
            ending: None,
        };
        (restarts, Waiting { exit, failure, pause_ms: pause_ms + jitter_ms })
    }
}

fn reason_of(exit: &ExitStatus) -> RestartReason {
    match &exit.error {
        Some(why) => RestartReason::Lost(why.clone()),
        None if exit.out_of_memory => RestartReason::OutOfMemory,
        None => RestartReason::Exited(exit.exit_code),
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn exit(code: i32, ran_s: i64) -> ExitStatus {
        let started = Timestamp::UNIX_EPOCH;
        let finished = Timestamp::from_second(ran_s).unwrap();
        ExitStatus { exit_code: code, started, finished, out_of_memory: false, error: None }
    }

    const LIMITLESS: RestartPolicy = RestartPolicy::OnFailure { most: 0 };

    #[test]
    fn policies_are_dockers() {
        use RestartPolicy::{Always, No, UnlessStopped};
        let three = RestartPolicy::OnFailure { most: 3 };
        let new = Restarts::default();
        let after_two = Restarts { count: 2, ..Restarts::default() };
        let after_three = Restarts { count: 3, ..Restarts::default() };
        let by_hand = new.stopped_by_hand();
        for (policy, restarts, code, again, with_engine, with_machine) in [
            (No, &new, 1, false, false, false),
            (Always, &new, 0, true, true, true),
            (Always, &by_hand, 0, false, true, true),
            (UnlessStopped, &new, 0, true, true, true),
            (UnlessStopped, &by_hand, 1, false, false, false),
            (LIMITLESS, &new, 0, false, false, false),
            (LIMITLESS, &after_three, 1, true, false, true),
            (LIMITLESS, &by_hand, 137, false, false, false),
            (three, &after_two, 1, true, false, true),
            (three, &after_three, 1, false, false, true),
        ] {
            let what = format!("{policy:?} {restarts:?} {code}");
            assert_eq!(restarts.after_end(policy, &exit(code, 1)).is_some(), again, "{what}");
            assert_eq!(restarts.at_engine_start(policy, &exit(code, 1)).is_some(), with_engine, "{what}");
            assert_eq!(restarts.after_boot(policy, &exit(code, 1)).is_some(), with_machine, "{what}");
        }
    }

    #[test]
    fn a_machine_that_went_down_is_no_failure_of_the_container() {
        let (failed, _) = Restarts::default().after_end(LIMITLESS, &exit(1, 1)).unwrap();
        let (restarts, waiting) = failed.after_boot(LIMITLESS, &exit(255, 1)).unwrap();
        assert_eq!((restarts.count, restarts.pause_ms, waiting.pause_ms), (0, 0, 0));
        assert_eq!(restarts.reason.unwrap().to_string(), "the machine went down");
    }

    #[test]
    fn pauses_grow_to_a_minute_and_begin_again_after_a_good_run() {
        let mut restarts = Restarts::default();
        let mut pauses = Vec::new();
        let mut step = |ran_s| {
            let (next, waiting) = restarts.after_end(RestartPolicy::Always, &exit(1, ran_s)).unwrap();
            assert!((next.pause_ms..=next.pause_ms * 6 / 5).contains(&waiting.pause_ms), "{waiting:?}");
            pauses.push(next.pause_ms);
            restarts = next;
        };
        (0..11).for_each(|_| step(1));
        step(10);
        step(9);
        let grown = [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000];
        assert_eq!(pauses, [&grown[..], &[100, 200]].concat());
        assert_eq!(restarts.count, 13);
    }

    #[test]
    fn pauses_of_what_failed_together_differ() {
        let at = |nanosecond| ExitStatus { finished: Timestamp::new(1, nanosecond).unwrap(), ..exit(1, 1) };
        let restarts = Restarts { pause_ms: 6400, ..Restarts::default() };
        let pause = |nanosecond| restarts.after_end(RestartPolicy::Always, &at(nanosecond)).unwrap().1.pause_ms;
        assert_ne!(pause(1_000), pause(2_000));
    }

    #[test]
    fn a_restart_that_fails_is_tried_again_and_a_first_start_is_not() {
        let failure = || StartFailure { exit_code: 128, message: "the port is taken".into() };
        assert_eq!(Restarts::default().after_failure(RestartPolicy::Always, failure()), None);
        let (waiting, _) = Restarts::default().after_end(RestartPolicy::Always, &exit(1, 60)).unwrap();
        let (again, shown) = waiting.after_failure(RestartPolicy::Always, failure()).unwrap();
        // That the run before was a good one does not count twice.
        assert_eq!((again.count, again.pause_ms, shown.failure), (2, 200, Some(failure())));
        assert_eq!(again.reason.unwrap().to_string(), "it could not be restarted: the port is taken");
        assert_eq!(waiting.after_failure(RestartPolicy::OnFailure { most: 1 }, failure()), None);
    }

    #[test]
    fn rows_of_an_older_dozen_are_read_and_little_is_written() {
        assert_eq!(serde_json::from_str::<Restarts>("{}").unwrap(), Restarts::default());
        assert_eq!(serde_json::to_string(&Restarts::default()).unwrap(), "{}");
        let (restarts, _) = Restarts::default().after_end(LIMITLESS, &exit(3, 1)).unwrap();
        let text = serde_json::to_string(&restarts).unwrap();
        assert_eq!(serde_json::from_str::<Restarts>(&text).unwrap(), restarts);
    }
}
