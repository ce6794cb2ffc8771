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
//!    │                                    its policy says so: Waiting ──Due, or someone's Start───────▶ Starting …
//!    └─ Created, Exited, Waiting ──Remove, `--rm`, or that wish──▶ Removing ──▶ (gone)
//! ```
//!
//! A wish is kept with the phase until it has come true, so that whoever is killed in between, the next engine goes on
//! with it: the container that it finds is not one that someone had stopped, but one that someone wanted to run again.
//! Of two wishes the later holds, but for a removal, which nothing takes back.

use dozen_model::{OnUnhealthy, RestartPolicy, Signal};
use serde::{Deserialize, Serialize};

use crate::container::restart::{RestartReason, Restarts};
use crate::container::snapshot::{ExitStatus, Phase, Run, StartFailure};

/// Everything that is decided about a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    /// Where it is.
    pub(crate) phase: Phase,
    /// What is to become of it once it has ended.
    pub(crate) wish: Wish,
    /// How it came to its present run, and what that says of the next one.
    pub(crate) restarts: Restarts,
}

/// What of a container's spec decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// `--rm`.
    pub(crate) auto_remove: bool,
    /// `--restart`.
    pub(crate) policy: RestartPolicy,
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
    /// It is unwell: it shall end, and start again after a pause, as if its restart policy said so.
    Recover(StopPlan),
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
    /// It has ended with the machine, which was started again.
    WentDown(ExitStatus),
    /// Too many checks of its health have failed, so many in a row.
    Unhealthy {
        /// What follows.
        action: OnUnhealthy,
        /// Failures in a row.
        streak: u32,
        /// How it is stopped, if it is.
        plan: StopPlan,
    },
    /// Memory has run out: so many of it have been killed for that, or nobody (`--oom-kill-disable`).
    OutOfMemory(Option<u64>),
    /// The pause before a restart is over.
    Due,
    /// Someone kills it, and does not want it back.
    ByHand,
    /// Someone wants nobody in it to move.
    Pause,
    /// Someone wants them to go on.
    Unpause,
    /// They move, and were not to.
    FoundMoving,
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
    /// Nobody in it moves any more. If that cannot be, nothing has happened.
    Freeze,
    /// All in it go on. If that cannot be, nothing has happened.
    Thaw,
    /// Say so when this pause, in milliseconds, is over.
    Await(u64),
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
    /// It is about to run again, and must not be removed, or paused, like this.
    Restarting,
    /// It is paused, and must not be removed, or paused again, like this.
    Paused,
    /// It is not paused, and cannot be unpaused.
    NotPaused,
    /// Someone wants it to end: it is not paused.
    Ending,
    /// It is on its way out.
    Removing,
    /// The news does not fit the phase: it is of an earlier run, and is passed over.
    Stale,
}

/// What comes next, and what to do.
pub(crate) fn decide(life: &Life, input: Input, terms: Terms) -> Result<(Life, Vec<Effect>), Refusal> {
    use Effect::{
        Announce, Await, End, Erase, Freeze, Launch, Publish, Record, ReleaseRun, RemoveItself, Save, StartAgain, Thaw,
    };
    let Terms { auto_remove, policy } = terms;
    let (input, went_down) = match input {
        Input::WentDown(status) => (Input::Ended(status), true),
        other => (other, false),
    };
    let (wish, restarts) = (life.wish.clone(), life.restarts.clone());
    let remove_itself = auto_remove.then_some(RemoveItself { volumes: true });
    let turn = |phase: Phase, wish: Wish, restarts: Restarts, effects: Vec<Effect>| {
        Ok((Life { phase, wish, restarts }, effects))
    };
    let next = |phase: Phase, wish: Wish, effects: Vec<Effect>| turn(phase, wish, life.restarts.clone(), effects);
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
        (Phase::Created { .. } | Phase::Exited(_) | Phase::Waiting(_), Input::Start) => {
            // Someone else's start fulfils the wish to restart as well.
            let wish = wish.if_restart();
            let begun = Restarts::begun((wish != Wish::None).then_some(RestartReason::Asked));
            turn(Phase::Starting { run: None }, wish, begun, vec![Save, Publish(None), Launch])
        }
        (Phase::Created { .. } | Phase::Exited(_) | Phase::Waiting(_), Input::Restart(plan)) => {
            let begun = Restarts::begun(Some(RestartReason::Asked));
            turn(Phase::Starting { run: None }, Wish::Restart(plan), begun, vec![Save, Publish(None), Launch])
        }
        (Phase::Waiting(_), Input::Due) => {
            next(Phase::Starting { run: None }, Wish::None, vec![Save, Publish(None), Launch])
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
        (Phase::Starting { run }, input @ (Input::StartLost | Input::StartFailed(_))) => {
            let failure = match input {
                Input::StartFailed(failure) => failure,
                _ => StartFailure { exit_code: 128, message: "the engine ended while it was starting".to_owned() },
            };
            let effects = [Record].into_iter().chain(release(run)).chain([Publish(None)]);
            if let Some((restarts, waiting)) = restarts.after_failure(policy, failure.clone()) {
                let effects = effects.chain([Await(waiting.pause_ms)]).collect();
                return turn(Phase::Waiting(waiting), Wish::None, restarts, effects);
            }
            let phase = match restarts.last_exit.as_ref().filter(|_| restarts.is_by_itself) {
                Some(exit) => Phase::Exited(exit.failing(failure)),
                None => Phase::Created { last_failure: Some(failure) },
            };
            next(phase, Wish::None, effects.chain(remove_itself).collect())
        }

        // ---- it ends ----
        // A short-lived process can end before word of its start has come.
        (Phase::Starting { run: Some(run) } | Phase::Running(run), Input::Ended(status)) => {
            let status = restarts.explain(status);
            let mut effects = vec![Record, ReleaseRun(Box::new(run.clone())), Publish(Some("die"))];
            let again = match &wish {
                _ if auto_remove => None,
                Wish::None | Wish::Stop(_) | Wish::Recover(_) if went_down => restarts.after_boot(policy, &status),
                Wish::None => restarts.after_end(policy, &status),
                Wish::Recover(_) => Some(restarts.after_recovery(&status)),
                _ => None,
            };
            if let Some((restarts, waiting)) = again {
                effects.push(Await(waiting.pause_ms));
                return turn(Phase::Waiting(waiting), Wish::None, restarts, effects);
            }
            let wish = match wish {
                Wish::None | Wish::Recover(_) => {
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

        // ---- memory runs out ----
        (Phase::Starting { run: Some(run) } | Phase::Running(run), Input::OutOfMemory(Some(kills)))
            if kills > run.oom_kills =>
        {
            let run = Run { oom_kills: kills, ..run.clone() };
            let phase = match &life.phase {
                Phase::Running(_) => Phase::Running(run),
                _ => Phase::Starting { run: Some(run) },
            };
            next(phase, wish, vec![Record, Announce("oom")])
        }
        (Phase::Running(_), Input::OutOfMemory(None)) => stay(wish, vec![Announce("oom")]),

        // ---- it shall end ----
        (Phase::Running(_), Input::Stop(plan)) => match wish {
            Wish::Remove { .. } => stay(wish, vec![End(plan)]),
            _ => turn(life.phase.clone(), Wish::Stop(plan), restarts.stopped_by_hand(), vec![Record, End(plan)]),
        },
        (Phase::Running(_), Input::Unhealthy { action, streak, plan }) if wish == Wish::None => {
            let unwell = restarts.ending_unhealthy(streak);
            let phase = life.phase.clone();
            match action {
                OnUnhealthy::None => stay(wish, Vec::new()),
                OnUnhealthy::Stop => turn(phase, Wish::Stop(plan), unwell.stopped_by_hand(), vec![Record, End(plan)]),
                OnUnhealthy::Restart => turn(phase, Wish::Recover(plan), unwell, vec![Record, End(plan)]),
                OnUnhealthy::Kill => turn(phase, wish, unwell, vec![Record, End(StopPlan::KILL)]),
            }
        }
        // Its run is over: it only shall not begin again.
        (Phase::Waiting(waiting), Input::Stop(_)) => {
            let effects = vec![Record, Publish(None), Announce("stop")];
            turn(Phase::Exited(waiting.outcome()), Wish::None, restarts.stopped_by_hand(), effects)
        }
        (Phase::Waiting(waiting), Input::ByHand) => {
            let effects = vec![Record, Publish(None)];
            turn(Phase::Exited(waiting.outcome()), Wish::None, restarts.stopped_by_hand(), effects)
        }
        (Phase::Running(_), Input::ByHand) if policy == RestartPolicy::No || restarts.is_stopped_by_hand => {
            stay(wish, Vec::new())
        }
        (Phase::Running(_), Input::ByHand) => turn(life.phase.clone(), wish, restarts.stopped_by_hand(), vec![Record]),
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
        (Phase::Created { .. } | Phase::Exited(_), Input::Stop(_) | Input::ByHand) => Err(Refusal::NotRunning),

        // ---- nobody in it moves ----
        (Phase::Running(run), Input::Pause) if run.is_paused => Err(Refusal::Paused),
        (Phase::Running(_), Input::Pause) if wish != Wish::None => Err(Refusal::Ending),
        (Phase::Running(run), Input::Pause) => {
            let run = Run { is_paused: true, ..run.clone() };
            next(Phase::Running(run), wish, vec![Save, Freeze, Publish(Some("pause"))])
        }
        (Phase::Running(run), Input::Unpause) if run.is_paused => {
            let run = Run { is_paused: false, ..run.clone() };
            next(Phase::Running(run), wish, vec![Thaw, Record, Publish(Some("unpause"))])
        }
        (Phase::Running(run), Input::FoundMoving) if run.is_paused => {
            let run = Run { is_paused: false, ..run.clone() };
            next(Phase::Running(run), wish, vec![Record, Publish(None)])
        }
        (Phase::Waiting(_), Input::Pause) => Err(Refusal::Restarting),
        (Phase::Created { .. } | Phase::Exited(_), Input::Pause) => Err(Refusal::NotRunning),
        (Phase::Starting { .. }, Input::Pause) => Err(Refusal::NotRunning),
        (_, Input::Unpause) => Err(Refusal::NotPaused),

        // ---- it shall go ----
        (Phase::Waiting(_), Input::Remove { force: false, .. }) => Err(Refusal::Restarting),
        (Phase::Created { .. } | Phase::Exited(_) | Phase::Waiting(_), Input::Remove { volumes, .. }) => {
            let phase = Phase::Removing { volumes, failure: None };
            next(phase, Wish::None, vec![Record, Publish(None), Erase { volumes }])
        }
        // What has been written says so already: that it has ended, and the wish or the spec that it goes then.
        (Phase::Created { .. } | Phase::Exited(_), Input::RemoveItself { volumes }) => {
            let phase = Phase::Removing { volumes, failure: None };
            next(phase, Wish::None, vec![Publish(None), Erase { volumes }])
        }
        (Phase::Running(run), Input::Remove { .. }) if run.is_paused => Err(Refusal::Paused),
        (Phase::Running(_) | Phase::Starting { .. }, Input::Remove { .. }) => Err(Refusal::Running),

        // ---- a new engine ----
        (Phase::Exited(_), Input::TakenUp) if matches!(wish, Wish::Restart(_)) => stay(wish, vec![StartAgain]),
        (Phase::Waiting(waiting), Input::TakenUp) => stay(Wish::None, vec![Await(waiting.pause_ms)]),
        (Phase::Exited(exit), Input::TakenUp) => match wish {
            Wish::Remove { volumes } => stay(wish, vec![RemoveItself { volumes: volumes || auto_remove }]),
            // It had ended, and was about to remove itself.
            _ if auto_remove => stay(Wish::None, remove_itself.into_iter().collect()),
            _ => match restarts.at_engine_start(policy, exit) {
                Some((restarts, waiting)) => {
                    let effects = vec![Record, Publish(None), Await(waiting.pause_ms)];
                    turn(Phase::Waiting(waiting), Wish::None, restarts, effects)
                }
                None => stay(Wish::None, Vec::new()),
            },
        },
        (Phase::Created { last_failure: Some(_) }, Input::TakenUp) => {
            stay(Wish::None, remove_itself.into_iter().collect())
        }
        (Phase::Running(_), Input::TakenUp) => match wish {
            Wish::None => stay(wish, Vec::new()),
            Wish::Stop(plan) | Wish::Restart(plan) | Wish::Recover(plan) => stay(wish, vec![End(plan)]),
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
            | Input::WentDown(_)
            | Input::OutOfMemory(_)
            | Input::Due
            | Input::ByHand
            | Input::FoundMoving
            | Input::Unhealthy { .. }
            | Input::GivenUp
            | Input::RemoveItself { .. }
            | Input::RemovalFailed(_)
            | Input::TakenUp,
        ) => Err(Refusal::Stale),
    }
}

impl Life {
    /// Whether it shall run once the machine has been started again. That is what must not be lost with the machine's
    /// power, of all that a life is: the rest is moot then. `None`: what follows will say.
    pub(crate) fn runs_after_boot(&self, policy: RestartPolicy) -> Option<bool> {
        match &self.phase {
            Phase::Created { .. } => Some(false),
            Phase::Exited(_) if matches!(self.wish, Wish::Restart(_)) => None,
            Phase::Exited(exit) => Some(self.restarts.at_engine_start(policy, exit).is_some()),
            Phase::Running(_) | Phase::Waiting(_) => Some(self.restarts.runs_after_boot(policy)),
            Phase::Starting { .. } | Phase::Removing { .. } => None,
        }
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
