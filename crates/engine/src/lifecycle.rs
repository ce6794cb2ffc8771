//! What becomes of a container: its present phase and what happened give the next phase and what to do.
//!
//! Pure. The owner (`owner.rs`) carries the effects out, in order, and feeds back what came of them.
//!
//! ```text
//!            Start              Prepared            Started
//! Created ──────────▶ Starting ─────────▶ Starting ─────────▶ Running
//!    ▲  ▲              (no run)            (a run)               │ Ended
//!    │  └──────────────── StartFailed ─────────┘                 ▼
//!    │                                                        Exited ──Start──▶ Starting …
//!    └─ Created, Exited ──Remove──▶ Removing ──▶ (gone)
//! ```

use crate::snapshot::{ExitStatus, Phase, Run, StartFailure};

/// Something that was asked, or that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// Someone wants it to run.
    Start,
    /// The monitor holds a created process that waits for the go-ahead.
    Prepared(Run),
    /// The wanted program runs.
    Started,
    /// It does not, and everything was undone.
    StartFailed(StartFailure),
    /// Process 1 has ended.
    Ended(ExitStatus),
    /// Someone wants it gone.
    Remove,
}

/// Something to do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Write the phase to the ledger; it survives the engine, not a power cut.
    Save,
    /// Bring it up: network, monitor, process.
    Launch,
    /// Give back addresses and ports of a run that is over.
    ReleaseRun(Box<Run>),
    /// Delete its files, its anonymous volumes if asked, and at last its row, power-safe.
    Erase,
    /// Tell the world, by Docker's name for it.
    Announce(&'static str),
    /// It asked to go once it has ended.
    RemoveItself,
}

/// Why a request cannot be met now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It runs already (Docker answers 304).
    AlreadyRunning,
    /// It runs, and must not be removed like this.
    Running,
    /// It is on its way out.
    Removing,
    /// The news does not fit the phase: it is of an earlier run, and is passed over.
    Stale,
}

/// The next phase, and what to do.
pub(crate) fn decide(phase: &Phase, input: Input, auto_remove: bool) -> Result<(Phase, Vec<Effect>), Refusal> {
    use Effect::{Announce, Erase, Launch, ReleaseRun, RemoveItself, Save};
    let and_remove = |mut effects: Vec<Effect>| {
        effects.extend(auto_remove.then_some(RemoveItself));
        effects
    };
    Ok(match (phase, input) {
        (Phase::Removing, Input::Remove) => (Phase::Removing, vec![Erase]),
        (Phase::Removing, _) => return Err(Refusal::Removing),

        (Phase::Created { .. } | Phase::Exited(_), Input::Start) => (Phase::Starting { run: None }, vec![Save, Launch]),
        (Phase::Running(_) | Phase::Starting { .. }, Input::Start) => return Err(Refusal::AlreadyRunning),

        (Phase::Starting { run: None }, Input::Prepared(run)) => (Phase::Starting { run: Some(run) }, vec![Save]),
        (Phase::Starting { run: Some(run) }, Input::Started) => {
            (Phase::Running(run.clone()), vec![Save, Announce("start")])
        }
        (Phase::Starting { run }, Input::StartFailed(failure)) => {
            let release = run.clone().map(|run| ReleaseRun(Box::new(run)));
            let effects = release.into_iter().chain([Save]).collect();
            (Phase::Created { last_failure: Some(failure) }, and_remove(effects))
        }
        // A short-lived process can end before word of its start has come.
        (Phase::Starting { run: Some(run) } | Phase::Running(run), Input::Ended(status)) => {
            let effects = vec![Save, ReleaseRun(Box::new(run.clone())), Announce("die")];
            (Phase::Exited(status), and_remove(effects))
        }

        (Phase::Created { .. } | Phase::Exited(_), Input::Remove) => (Phase::Removing, vec![Save, Erase]),
        (Phase::Running(_) | Phase::Starting { .. }, Input::Remove) => return Err(Refusal::Running),

        (_, Input::Prepared(_) | Input::Started | Input::StartFailed(_) | Input::Ended(_)) => {
            return Err(Refusal::Stale);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn run(pid: i32) -> Run {
        Run { pid, started: Timestamp::UNIX_EPOCH, endpoint: None, ports: vec![] }
    }

    fn status(exit_code: i32) -> ExitStatus {
        let at = Timestamp::UNIX_EPOCH;
        ExitStatus { exit_code, started: at, finished: at, out_of_memory: false, error: None }
    }

    fn failure() -> StartFailure {
        StartFailure { exit_code: 127, message: "no".into() }
    }

    fn new() -> Phase {
        Phase::Created { last_failure: None }
    }

    #[test]
    fn the_whole_life() {
        let mut phase = new();
        let mut effects = vec![];
        for input in [Input::Start, Input::Prepared(run(1)), Input::Started, Input::Ended(status(3)), Input::Remove] {
            let (next, more) = decide(&phase, input, false).unwrap();
            phase = next;
            effects.extend(more);
        }
        use Effect::{Announce, Erase, Launch, ReleaseRun, Save};
        let release = ReleaseRun(Box::new(run(1)));
        assert_eq!(effects, [Save, Launch, Save, Save, Announce("start"), Save, release, Announce("die"), Save, Erase]);
        assert_eq!(phase, Phase::Removing);
    }

    #[test]
    fn a_failed_start_gives_back_what_the_run_had() {
        let (phase, effects) =
            decide(&Phase::Starting { run: Some(run(1)) }, Input::StartFailed(failure()), true).unwrap();
        assert_eq!(phase, Phase::Created { last_failure: Some(failure()) });
        assert_eq!(effects, [Effect::ReleaseRun(Box::new(run(1))), Effect::Save, Effect::RemoveItself]);
    }

    #[test]
    fn refusals() {
        assert_eq!(decide(&Phase::Running(run(1)), Input::Start, false), Err(Refusal::AlreadyRunning));
        assert_eq!(decide(&Phase::Running(run(1)), Input::Remove, false), Err(Refusal::Running));
        assert_eq!(decide(&Phase::Removing, Input::Start, false), Err(Refusal::Removing));
        assert_eq!(decide(&Phase::Exited(status(0)), Input::Ended(status(1)), false), Err(Refusal::Stale));
        assert!(decide(&Phase::Removing, Input::Remove, false).is_ok(), "an interrupted removal can be taken up again");
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![
            Just(Input::Start),
            (1..9i32).prop_map(|pid| Input::Prepared(run(pid))),
            Just(Input::Started),
            Just(Input::StartFailed(failure())),
            (0..9i32).prop_map(|code| Input::Ended(status(code))),
            Just(Input::Remove),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: what a run holds is released exactly once, and only removal erases.
        #[test]
        fn every_run_is_released_exactly_once(inputs in prop::collection::vec(any_input(), 0..60), auto_remove: bool) {
            let mut phase = new();
            let mut held = 0;
            for input in inputs {
                let prepared = matches!(input, Input::Prepared(_));
                let Ok((next, effects)) = decide(&phase, input, auto_remove) else { continue };
                held += i32::from(prepared);
                held -= effects.iter().filter(|effect| matches!(effect, Effect::ReleaseRun(_))).count() as i32;
                let has_run = matches!(next, Phase::Running(_) | Phase::Starting { run: Some(_) });
                prop_assert_eq!(held, i32::from(has_run));
                prop_assert_eq!(effects.contains(&Effect::Erase), next == Phase::Removing);
                phase = next;
            }
        }
    }
}
