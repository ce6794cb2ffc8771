//! What becomes of a container: where it is, what is wished of it and what happened give what comes next and what to
//! do.
//!
//! Pure. The owner (`owner.rs`) carries the effects out, in order, and feeds back what came of them.
//!
//! ```text
//!            Start              Prepared            Started
//! Created ──────────▶ Starting ─────────▶ Starting ─────────▶ Running ◀─ Stop, Restart, Remove by force: a wish
//!    ▲  ▲              (no run)            (a run)               │ Ended
//!    │  └──────────────── StartFailed ─────────┘                 ▼
//!    │                                                        Exited ──Start, or the wish to restart──▶ Starting …
//!    └─ Created, Exited ──Remove, `--rm`, or that wish──▶ Removing ──▶ (gone)
//! ```
//!
//! A wish is kept with the phase until it has come true, so that whoever is killed in between, the next engine goes on
//! with it: the container that it finds is not one that someone had stopped, but one that someone wanted to run again.
//! Of two wishes the later holds, but for a removal, which nothing takes back.

use dozen_model::Signal;
use serde::{Deserialize, Serialize};

use crate::container::snapshot::{ExitStatus, Phase, Run, StartFailure};

/// Everything that is decided about a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    /// Where it is.
    pub(crate) phase: Phase,
    /// What is to become of it once it has ended.
    pub(crate) wish: Wish,
}

/// What someone has asked for that cannot be done before the container has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wish {
    /// Nothing: what it does by itself, it does (`--rm`).
    #[default]
    None,
    /// It shall end.
    Stop(StopPlan),
    /// It shall end and start again. Until it runs, `--rm` does not remove it.
    Restart(StopPlan),
    /// It shall be killed and removed.
    Remove {
        /// With its anonymous volumes.
        volumes: bool,
    },
}

/// How a container is brought to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StopPlan {
    /// What it is asked with.
    pub(crate) signal: Signal,
    /// How long it may take before it is killed, in seconds; `None`: for ever.
    pub(crate) grace_s: Option<u64>,
}

impl StopPlan {
    /// Without being asked.
    pub(crate) const KILL: Self = Self { signal: Signal::KILL, grace_s: None };
}

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
    /// The engine that was starting it is dead, and everything was undone.
    StartLost,
    /// Process 1 has ended.
    Ended(ExitStatus),
    /// Someone wants it to end.
    Stop(StopPlan),
    /// Someone wants it to end, if it runs, and to start again.
    Restart(StopPlan),
    /// Someone wants it gone; by force: also if it runs.
    Remove {
        /// Kill it first.
        force: bool,
        /// Its anonymous volumes go with it.
        volumes: bool,
    },
    /// It has ended, and goes, as it wished itself or someone else did.
    RemoveItself {
        /// Its anonymous volumes go with it.
        volumes: bool,
    },
    /// What was wished cannot be: it could not be killed, or not be started again.
    GivenUp,
    /// It could not be removed, for this reason. That is tried again.
    RemovalFailed(String),
    /// A new engine has found it in this phase, and knows it to be true.
    TakenUp,
}

/// Something to do, in the order given. Whatever is published has been written down, and what its run held is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Write it to the ledger, before all else: if that fails nothing has happened.
    Save,
    /// Write what has happened anyway. If that fails, it is written later.
    Record,
    /// Give back addresses and ports of a run that is over.
    ReleaseRun(Box<Run>),
    /// Let everyone see the phase and, in the same moment, hear of it by Docker's name for the event.
    Publish(Option<&'static str>),
    /// Tell the world, by Docker's name for it.
    Announce(&'static str),
    /// Bring it up: network, monitor, process.
    Launch,
    /// Ask it to end, wait, and kill it; without waiting for any of it here.
    End(StopPlan),
    /// Start, as was wished.
    StartAgain,
    /// Remove it, as it wished itself, or someone else.
    RemoveItself {
        /// With its anonymous volumes.
        volumes: bool,
    },
    /// Delete its row, power-safe, with those of its anonymous volumes if asked, and its files.
    Erase {
        /// With its anonymous volumes.
        volumes: bool,
    },
}

/// Why a request cannot be met now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It runs already (Docker answers 304).
    AlreadyRunning,
    /// It does not run, so there is nothing to stop (Docker answers 304).
    NotRunning,
    /// It runs, and must not be removed like this.
    Running,
    /// It is on its way out.
    Removing,
    /// The news does not fit the phase: it is of an earlier run, and is passed over.
    Stale,
}

/// What comes next, and what to do.
pub(crate) fn decide(life: &Life, input: Input, auto_remove: bool) -> Result<(Life, Vec<Effect>), Refusal> {
    use Effect::{Announce, End, Erase, Launch, Publish, Record, ReleaseRun, RemoveItself, Save, StartAgain};
    let wish = life.wish.clone();
    let remove_itself = auto_remove.then_some(RemoveItself { volumes: true });
    let next = |phase: Phase, wish: Wish, effects: Vec<Effect>| Ok((Life { phase, wish }, effects));
    let stay = |wish: Wish, effects: Vec<Effect>| next(life.phase.clone(), wish, effects);
    match (&life.phase, input) {
        // ---- on its way out ----
        (Phase::Removing { volumes, failure }, Input::Remove { volumes: more, .. }) => {
            let volumes = *volumes || more;
            next(Phase::Removing { volumes, failure: failure.clone() }, wish, vec![Erase { volumes }])
        }
        (Phase::Removing { volumes, .. }, Input::TakenUp) => stay(wish, vec![Erase { volumes: *volumes }]),
        (Phase::Removing { volumes, .. }, Input::RemovalFailed(why)) => {
            next(Phase::Removing { volumes: *volumes, failure: Some(why) }, wish, vec![Publish(None)])
        }
        (Phase::Removing { .. }, _) => Err(Refusal::Removing),

        // ---- on its way up ----
        (Phase::Created { .. } | Phase::Exited(_), Input::Start) => {
            // Someone else's start fulfils the wish to restart as well.
            next(Phase::Starting { run: None }, wish.if_restart(), vec![Save, Publish(None), Launch])
        }
        (Phase::Created { .. } | Phase::Exited(_), Input::Restart(plan)) => {
            next(Phase::Starting { run: None }, Wish::Restart(plan), vec![Save, Publish(None), Launch])
        }
        (Phase::Starting { run: None }, Input::Prepared(run)) => {
            next(Phase::Starting { run: Some(run) }, wish, vec![Record])
        }
        (Phase::Starting { run: Some(run) }, Input::Started) => {
            let restarted = matches!(wish, Wish::Restart(_)).then_some(Announce("restart"));
            let effects = [Record, Publish(Some("start"))].into_iter().chain(restarted).collect();
            next(Phase::Running(run.clone()), Wish::None, effects)
        }
        (Phase::Starting { run }, Input::StartLost) if matches!(wish, Wish::Restart(_)) => {
            // Once more, and then no more: should it be this start that kills engines, it kills but one other.
            let effects = [Record].into_iter().chain(release(run)).chain([Publish(None), Launch]);
            next(Phase::Starting { run: None }, Wish::None, effects.collect())
        }
        (Phase::Starting { run }, Input::StartLost) => {
            let message = "the engine ended while it was starting".to_owned();
            let failure = StartFailure { exit_code: 128, message };
            let effects = [Record].into_iter().chain(release(run)).chain([Publish(None)]).chain(remove_itself);
            next(Phase::Created { last_failure: Some(failure) }, Wish::None, effects.collect())
        }
        (Phase::Starting { run }, Input::StartFailed(failure)) => {
            let effects = [Record].into_iter().chain(release(run)).chain([Publish(None)]).chain(remove_itself);
            next(Phase::Created { last_failure: Some(failure) }, Wish::None, effects.collect())
        }

        // ---- it ends ----
        // A short-lived process can end before word of its start has come.
        (Phase::Starting { run: Some(run) } | Phase::Running(run), Input::Ended(status)) => {
            let mut effects = vec![Record, ReleaseRun(Box::new(run.clone())), Publish(Some("die"))];
            let wish = match wish {
                Wish::None => {
                    effects.extend(remove_itself);
                    Wish::None
                }
                Wish::Stop(_) => {
                    effects.push(Announce("stop"));
                    effects.extend(remove_itself);
                    Wish::None
                }
                Wish::Restart(plan) => {
                    effects.extend([Announce("stop"), StartAgain]);
                    Wish::Restart(plan)
                }
                Wish::Remove { volumes } => {
                    effects.push(RemoveItself { volumes: volumes || auto_remove });
                    Wish::Remove { volumes }
                }
            };
            next(Phase::Exited(status), wish, effects)
        }

        // ---- it shall end ----
        (Phase::Running(_), Input::Stop(plan)) => match wish {
            Wish::Remove { .. } => stay(wish, vec![End(plan)]),
            _ => stay(Wish::Stop(plan), vec![Record, End(plan)]),
        },
        (Phase::Running(_), Input::Restart(_)) if matches!(wish, Wish::Remove { .. }) => Err(Refusal::Removing),
        (Phase::Running(_), Input::Restart(plan)) => stay(Wish::Restart(plan), vec![Save, End(plan)]),
        (Phase::Running(_), Input::Remove { force: true, volumes }) => {
            let volumes = volumes || wish == Wish::Remove { volumes: true };
            stay(Wish::Remove { volumes }, vec![Record, End(StopPlan::KILL)])
        }
        (Phase::Running(_), Input::GivenUp) if wish != Wish::None => stay(Wish::None, vec![Record]),
        (Phase::Created { .. } | Phase::Exited(_), Input::GivenUp) if wish != Wish::None => {
            stay(Wish::None, [Record].into_iter().chain(remove_itself).collect())
        }
        (Phase::Created { .. } | Phase::Exited(_), Input::Stop(_)) => Err(Refusal::NotRunning),

        // ---- it shall go ----
        (Phase::Created { .. } | Phase::Exited(_), Input::Remove { volumes, .. }) => {
            let phase = Phase::Removing { volumes, failure: None };
            next(phase, Wish::None, vec![Record, Publish(None), Erase { volumes }])
        }
        // What has been written says so already: that it has ended, and the wish or the spec that it goes then.
        (Phase::Created { .. } | Phase::Exited(_), Input::RemoveItself { volumes }) => {
            let phase = Phase::Removing { volumes, failure: None };
            next(phase, Wish::None, vec![Publish(None), Erase { volumes }])
        }
        (Phase::Running(_) | Phase::Starting { .. }, Input::Remove { .. }) => Err(Refusal::Running),

        // ---- a new engine ----
        (Phase::Exited(_), Input::TakenUp) if matches!(wish, Wish::Restart(_)) => stay(wish, vec![StartAgain]),
        (Phase::Exited(_), Input::TakenUp) => match wish {
            Wish::Remove { volumes } => stay(wish, vec![RemoveItself { volumes: volumes || auto_remove }]),
            // It had ended, and was about to remove itself.
            _ => stay(Wish::None, remove_itself.into_iter().collect()),
        },
        (Phase::Created { last_failure: Some(_) }, Input::TakenUp) => {
            stay(Wish::None, remove_itself.into_iter().collect())
        }
        (Phase::Running(_), Input::TakenUp) => match wish {
            Wish::None => stay(wish, Vec::new()),
            Wish::Stop(plan) | Wish::Restart(plan) => stay(wish, vec![End(plan)]),
            Wish::Remove { .. } => stay(wish, vec![End(StopPlan::KILL)]),
        },
        (Phase::Created { .. }, Input::TakenUp) => stay(wish, Vec::new()),

        (Phase::Running(_) | Phase::Starting { .. }, Input::Start)
        | (Phase::Starting { .. }, Input::Stop(_) | Input::Restart(_)) => Err(Refusal::AlreadyRunning),
        (
            _,
            Input::Prepared(_)
            | Input::Started
            | Input::StartFailed(_)
            | Input::StartLost
            | Input::Ended(_)
            | Input::GivenUp
            | Input::RemoveItself { .. }
            | Input::RemovalFailed(_)
            | Input::TakenUp,
        ) => Err(Refusal::Stale),
    }
}

fn release(run: &Option<Run>) -> Option<Effect> {
    run.clone().map(|run| Effect::ReleaseRun(Box::new(run)))
}

impl Wish {
    /// What of it outlives a start.
    fn if_restart(self) -> Self {
        if matches!(self, Self::Restart(_)) { self } else { Self::None }
    }
}

#[cfg(test)]
mod tests;
