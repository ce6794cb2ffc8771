use super::*;
use jiff::Timestamp;
use proptest::prelude::*;

use Effect::{
    Announce, Await, End, Erase, Freeze, Launch, Publish, Record, ReleaseRun, RemoveItself, Save, StartAgain, Thaw,
};

fn run(pid: i32) -> Run {
    let boot = Some("this".to_owned());
    Run { pid, started: Timestamp::UNIX_EPOCH, boot, endpoints: vec![], ports: vec![], is_paused: false, oom_kills: 0 }
}

fn status(exit_code: i32) -> ExitStatus {
    let at = Timestamp::UNIX_EPOCH;
    ExitStatus { exit_code, started: at, finished: at, out_of_memory: false, error: None }
}

fn failure() -> StartFailure {
    StartFailure { exit_code: 127, message: "no".into() }
}

const PLAN: StopPlan = StopPlan { signal: Signal::TERM, grace_s: Some(10) };
const REMOVE: Input = Input::Remove { force: false, volumes: false };
const FORCE: Input = Input::Remove { force: true, volumes: true };

fn life(phase: Phase, wish: Wish) -> Life {
    Life { phase, wish, restarts: Restarts::default() }
}

/// As for a container that does not start again by itself.
fn decide(life: &Life, input: Input, auto_remove: bool) -> Result<(Life, Vec<Effect>), Refusal> {
    super::decide(life, input, Terms { auto_remove, policy: RestartPolicy::No })
}

fn new() -> Life {
    life(Phase::Created { last_failure: None }, Wish::None)
}

fn running(wish: Wish) -> Life {
    life(Phase::Running(run(1)), wish)
}

fn starting(wish: Wish) -> Life {
    life(Phase::Starting { run: Some(run(1)) }, wish)
}

fn exited(wish: Wish) -> Life {
    life(Phase::Exited(status(3)), wish)
}

fn removing(volumes: bool) -> Life {
    life(Phase::Removing { volumes, failure: None }, Wish::None)
}

fn released() -> Effect {
    ReleaseRun(Box::new(run(1)))
}

/// What follows from one input.
#[track_caller]
fn check(from: Life, input: Input, auto_remove: bool, to: Life, effects: &[Effect]) {
    let (next, done) = decide(&from, input, auto_remove).unwrap();
    assert_eq!((next.phase, next.wish, done.as_slice()), (to.phase, to.wish, effects));
}

#[test]
fn the_whole_life() {
    let mut life = new();
    let mut effects = vec![];
    for input in [Input::Start, Input::Prepared(run(1)), Input::Started, Input::Ended(status(3)), REMOVE] {
        let (next, more) = decide(&life, input, false).unwrap();
        life = next;
        effects.extend(more);
    }
    let up = [Save, Publish(None), Launch, Record, Record, Publish(Some("start"))];
    let down = [Record, released(), Publish(Some("die")), Record, Publish(None), Erase { volumes: false }];
    assert_eq!(effects, [&up[..], &down[..]].concat());
    assert_eq!(life, removing(false));
    assert_eq!(life.restarts, Restarts::default());
}

#[test]
fn a_failed_start_gives_back_what_the_run_had() {
    let to = life(Phase::Created { last_failure: Some(failure()) }, Wish::None);
    let effects = [Record, released(), Publish(None), RemoveItself { volumes: true }];
    check(starting(Wish::None), Input::StartFailed(failure()), true, to.clone(), &effects);
    check(starting(Wish::Restart(PLAN)), Input::StartFailed(failure()), true, to.clone(), &effects);
    check(starting(Wish::None), Input::StartFailed(failure()), false, to, &effects[..3]);
}

#[test]
fn refusals() {
    let refused = |life: Life, input: Input, why| assert_eq!(decide(&life, input, false), Err(why));
    refused(running(Wish::None), Input::Start, Refusal::AlreadyRunning);
    refused(running(Wish::None), REMOVE, Refusal::Running);
    refused(running(Wish::Restart(PLAN)), REMOVE, Refusal::Running);
    refused(removing(false), Input::Start, Refusal::Removing);
    refused(exited(Wish::None), Input::Ended(status(1)), Refusal::Stale);
    refused(exited(Wish::None), Input::Stop(PLAN), Refusal::NotRunning);
    refused(new(), Input::GivenUp, Refusal::Stale);
    refused(running(Wish::Remove { volumes: false }), Input::Restart(PLAN), Refusal::Removing);
}

#[test]
fn a_stop_is_over_when_the_container_is() {
    let stopping = running(Wish::Stop(PLAN));
    check(running(Wish::None), Input::Stop(PLAN), false, stopping.clone(), &[Record, End(PLAN)]);
    let end = [Record, released(), Publish(Some("die")), Announce("stop"), RemoveItself { volumes: true }];
    check(stopping.clone(), Input::Ended(status(3)), false, exited(Wish::None), &end[..4]);
    check(stopping.clone(), Input::Ended(status(3)), true, exited(Wish::None), &end);
    check(stopping, Input::GivenUp, false, running(Wish::None), &[Record]);
}

#[test]
fn a_restart_ends_it_and_starts_it_again_also_one_that_would_remove_itself() {
    let restarting = Wish::Restart(PLAN);
    for auto_remove in [false, true] {
        let begin = running(restarting.clone());
        check(running(Wish::None), Input::Restart(PLAN), auto_remove, begin.clone(), &[Save, End(PLAN)]);
        let end = [Record, released(), Publish(Some("die")), Announce("stop"), StartAgain];
        check(begin, Input::Ended(status(3)), auto_remove, exited(restarting.clone()), &end);
        let again = life(Phase::Starting { run: None }, restarting.clone());
        check(exited(restarting.clone()), Input::Start, auto_remove, again, &[Save, Publish(None), Launch]);
        let done = [Record, Publish(Some("start")), Announce("restart")];
        check(starting(restarting.clone()), Input::Started, auto_remove, running(Wish::None), &done);
    }
    let begin = life(Phase::Starting { run: None }, restarting.clone());
    check(exited(Wish::None), Input::Restart(PLAN), false, begin, &[Save, Publish(None), Launch]);
    // It ended, and cannot be started: then it is as if it had ended by itself.
    let given_up = [Record, RemoveItself { volumes: true }];
    check(exited(restarting.clone()), Input::GivenUp, true, exited(Wish::None), &given_up);
    check(exited(restarting), Input::GivenUp, false, exited(Wish::None), &given_up[..1]);
}

#[test]
fn of_two_wishes_the_later_holds_but_for_removal() {
    let restarting = || running(Wish::Restart(PLAN));
    check(restarting(), Input::Stop(PLAN), true, running(Wish::Stop(PLAN)), &[Record, End(PLAN)]);
    check(running(Wish::Stop(PLAN)), Input::Restart(PLAN), true, restarting(), &[Save, End(PLAN)]);
    let removal = running(Wish::Remove { volumes: true });
    check(restarting(), FORCE, false, removal.clone(), &[Record, End(StopPlan::KILL)]);
    check(removal.clone(), Input::Stop(PLAN), false, removal.clone(), &[End(PLAN)]);
    let without = Input::Remove { force: true, volumes: false };
    check(removal.clone(), without, false, removal.clone(), &[Record, End(StopPlan::KILL)]);
    let end = [Record, released(), Publish(Some("die")), RemoveItself { volumes: true }];
    check(removal, Input::Ended(status(3)), false, exited(Wish::Remove { volumes: true }), &end);
}

#[test]
fn a_removal_that_fails_is_seen_and_tried_again() {
    let why = || "the disk is full".to_owned();
    let failed = life(Phase::Removing { volumes: true, failure: Some(why()) }, Wish::None);
    check(removing(true), Input::RemovalFailed(why()), false, failed.clone(), &[Publish(None)]);
    check(failed.clone(), REMOVE, false, failed, &[Erase { volumes: true }]);
    check(removing(false), FORCE, false, removing(true), &[Erase { volumes: true }]);
}

#[test]
fn a_new_engine_goes_on_where_the_old_one_died() {
    let found = |life: Life, auto_remove, effects: &[Effect]| {
        let (next, done) = decide(&life, Input::TakenUp, auto_remove).unwrap();
        assert_eq!((next.phase, done.as_slice()), (life.phase, effects));
    };
    found(new(), true, &[]);
    found(exited(Wish::None), false, &[]);
    found(exited(Wish::Stop(PLAN)), false, &[]);
    found(exited(Wish::None), true, &[RemoveItself { volumes: true }]);
    found(exited(Wish::Restart(PLAN)), true, &[StartAgain]);
    found(exited(Wish::Remove { volumes: false }), false, &[RemoveItself { volumes: false }]);
    found(running(Wish::None), true, &[]);
    found(running(Wish::Stop(PLAN)), false, &[End(PLAN)]);
    found(running(Wish::Restart(PLAN)), true, &[End(PLAN)]);
    found(running(Wish::Remove { volumes: true }), false, &[End(StopPlan::KILL)]);
    found(removing(true), false, &[Erase { volumes: true }]);
    // A start that was wished is made once more, and any other is not.
    let again = life(Phase::Starting { run: None }, Wish::None);
    let effects = [Record, released(), Publish(None), Launch];
    check(starting(Wish::Restart(PLAN)), Input::StartLost, true, again.clone(), &effects);
    let (lost, effects) = decide(&again, Input::StartLost, true).unwrap();
    assert!(matches!(lost.phase, Phase::Created { last_failure: Some(_) }));
    assert_eq!(effects, [Record, Publish(None), RemoveItself { volumes: true }]);
}

/// Whoever removes it: once it is written that it goes, that is not written again.
#[test]
fn a_removal_is_written_once() {
    let gone = [Publish(None), Erase { volumes: true }];
    let itself = Input::RemoveItself { volumes: true };
    check(exited(Wish::None), itself.clone(), true, removing(true), &gone);
    check(exited(Wish::Remove { volumes: true }), itself.clone(), false, removing(true), &gone);
    let asked = Input::Remove { force: false, volumes: true };
    check(exited(Wish::None), asked, false, removing(true), &[&[Record][..], &gone].concat());
    assert_eq!(decide(&running(Wish::None), itself, true), Err(Refusal::Stale));
}

const ALWAYS: Terms = Terms { auto_remove: false, policy: RestartPolicy::Always };

/// What follows from inputs one after the other; each is accepted.
#[track_caller]
fn follow(life: &mut Life, terms: Terms, inputs: impl IntoIterator<Item = Input>) -> Vec<Effect> {
    let mut effects = Vec::new();
    for input in inputs {
        let (next, more) = super::decide(life, input, terms).unwrap();
        *life = next;
        effects.extend(more);
    }
    effects
}

fn up(pid: i32) -> [Input; 2] {
    [Input::Prepared(run(pid)), Input::Started]
}

#[test]
fn what_ends_by_itself_waits_and_starts_again() {
    let mut life = new();
    follow(&mut life, ALWAYS, [Input::Start]);
    follow(&mut life, ALWAYS, up(1));
    let end = follow(&mut life, ALWAYS, [Input::Ended(status(3))]);
    let Phase::Waiting(waiting) = &life.phase else { panic!("{life:?}") };
    assert_eq!(end, [Record, released(), Publish(Some("die")), Await(waiting.pause_ms)]);
    assert_eq!((waiting.outcome(), life.restarts.count), (status(3), 1));
    // The next engine waits as well.
    let found = super::decide(&life, Input::TakenUp, ALWAYS).unwrap();
    assert_eq!(found, (life.clone(), vec![Await(waiting.pause_ms)]));
    assert_eq!(follow(&mut life, ALWAYS, [Input::Due]), [Save, Publish(None), Launch]);
    assert_eq!(follow(&mut life, ALWAYS, up(1)), [Record, Record, Publish(Some("start"))]);
    assert_eq!(life.restarts.reason, Some(RestartReason::Exited(3)));
    // Whoever starts it by hand begins anew.
    follow(&mut life, ALWAYS, [Input::Ended(status(3)), Input::Start]);
    assert_eq!((&life.phase, &life.restarts), (&Phase::Starting { run: None }, &Restarts::default()));
}

#[test]
fn what_the_machine_took_down_begins_anew_and_what_was_to_end_has_ended() {
    let down = || Input::WentDown(status(255));
    for wish in [Wish::None, Wish::Stop(PLAN), Wish::Recover(PLAN)] {
        let mut life = running(wish.clone());
        let effects = follow(&mut life, ALWAYS, [down()]);
        assert_eq!(effects, [Record, released(), Publish(Some("die")), Await(0)], "{wish:?}");
        assert_eq!(life.restarts.reason, Some(RestartReason::MachineWentDown));
        assert_eq!((life.restarts.count, &life.wish), (0, &Wish::None));
    }
    let gone = [Record, released(), Publish(Some("die")), RemoveItself { volumes: true }];
    check(running(Wish::None), down(), true, life(Phase::Exited(status(255)), Wish::None), &gone);
    let unless_stopped = Terms { policy: RestartPolicy::UnlessStopped, ..ALWAYS };
    let mut stopped = running(Wish::None);
    follow(&mut stopped, unless_stopped, [Input::Stop(PLAN), down()]);
    assert_eq!(stopped.phase, Phase::Exited(status(255)));
    let restarting = running(Wish::Restart(PLAN));
    let end = [Record, released(), Publish(Some("die")), Announce("stop"), StartAgain];
    check(restarting, down(), false, life(Phase::Exited(status(255)), Wish::Restart(PLAN)), &end);
    let removal = Wish::Remove { volumes: true };
    check(running(removal.clone()), down(), false, life(Phase::Exited(status(255)), removal), &gone);
}

/// What a power cut must not take back is what someone wanted, and no more than that is synced.
#[test]
fn it_is_known_of_each_life_whether_it_goes_on_after_a_boot() {
    use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
    let by_hand = |life: Life| Life { restarts: life.restarts.stopped_by_hand(), ..life };
    for (life, policy, expected) in [
        (new(), Always, Some(false)),
        (starting(Wish::None), Always, None),
        (running(Wish::None), No, Some(false)),
        (running(Wish::None), Always, Some(true)),
        (running(Wish::None), UnlessStopped, Some(true)),
        (running(Wish::None), OnFailure { most: 3 }, Some(true)),
        (by_hand(running(Wish::Stop(PLAN))), Always, Some(true)),
        (by_hand(running(Wish::Stop(PLAN))), UnlessStopped, Some(false)),
        (by_hand(exited(Wish::None)), UnlessStopped, Some(false)),
        (exited(Wish::None), OnFailure { most: 3 }, Some(false)),
        (exited(Wish::Restart(PLAN)), UnlessStopped, None),
        (removing(false), Always, None),
    ] {
        assert_eq!(life.runs_after_boot(policy), expected, "{policy:?} {life:?}");
    }
}

#[test]
fn a_restart_that_fails_waits_longer_and_one_that_engines_die_of_too() {
    let mut life = new();
    follow(&mut life, ALWAYS, [Input::Start]);
    follow(&mut life, ALWAYS, up(1));
    follow(&mut life, ALWAYS, [Input::Ended(status(3))]);
    for (count, input) in [(2, Input::StartFailed(failure())), (3, Input::StartLost)] {
        follow(&mut life, ALWAYS, [Input::Due]);
        let effects = follow(&mut life, ALWAYS, [input]);
        let Phase::Waiting(waiting) = &life.phase else { panic!("{life:?}") };
        assert_eq!(effects, [Record, Publish(None), Await(waiting.pause_ms)]);
        assert_eq!(life.restarts.count, count);
        assert!(waiting.outcome().error.is_some());
    }
    // At the end of all tries it has ended, with the code of the last.
    let thrice = Terms { policy: RestartPolicy::OnFailure { most: 3 }, ..ALWAYS };
    follow(&mut life, thrice, [Input::Due, Input::StartFailed(failure())]);
    let Phase::Exited(exit) = &life.phase else { panic!("{life:?}") };
    assert_eq!((exit.exit_code, exit.error.as_deref()), (127, Some("no")));
}

#[test]
fn a_stop_ends_a_wait_and_only_a_start_or_a_new_engine_begins_again() {
    let waiting = || {
        let mut life = running(Wish::None);
        follow(&mut life, ALWAYS, [Input::Ended(status(3))]);
        life
    };
    let refused = |input| super::decide(&waiting(), input, ALWAYS).unwrap_err();
    assert_eq!(refused(REMOVE), Refusal::Restarting);
    assert_eq!(refused(Input::Pause), Refusal::Restarting);
    let mut life = waiting();
    assert_eq!(follow(&mut life, ALWAYS, [FORCE]), [Record, Publish(None), Erase { volumes: true }]);
    let mut life = waiting();
    let effects = follow(&mut life, ALWAYS, [Input::Stop(PLAN)]);
    assert_eq!(
        (&life.phase, &effects[..]),
        (&Phase::Exited(status(3)), &[Record, Publish(None), Announce("stop")][..])
    );
    assert_eq!(super::decide(&life, Input::Due, ALWAYS), Err(Refusal::Stale));
    // Docker's rule: with `always` it runs once the engine starts anew, and with `unless-stopped` it does not.
    let unless_stopped = Terms { policy: RestartPolicy::UnlessStopped, ..ALWAYS };
    assert_eq!(super::decide(&life, Input::TakenUp, unless_stopped).unwrap(), (life.clone(), vec![]));
    assert_eq!(follow(&mut life, ALWAYS, [Input::TakenUp]), [Record, Publish(None), Await(0)]);
    assert_eq!(life.restarts.reason, Some(RestartReason::EngineStarted));
    // Killed, it stays down, also if it dies of it much later.
    for policy in [RestartPolicy::Always, RestartPolicy::UnlessStopped, RestartPolicy::OnFailure { most: 0 }] {
        let terms = Terms { policy, ..ALWAYS };
        let mut life = running(Wish::None);
        assert_eq!(follow(&mut life, terms, [Input::ByHand, Input::ByHand]), [Record]);
        follow(&mut life, terms, [Input::Ended(status(137))]);
        assert_eq!(life.phase, Phase::Exited(status(137)));
        let mut life = waiting();
        follow(&mut life, terms, [Input::ByHand]);
        assert_eq!(life.phase, Phase::Exited(status(3)));
    }
    let mut life = running(Wish::None);
    follow(&mut life, ALWAYS, [Input::Stop(PLAN), Input::Ended(status(0))]);
    assert_eq!(life.phase, Phase::Exited(status(0)));
}

#[test]
fn a_pause_is_written_before_it_is_true_and_its_end_after() {
    let mut life = running(Wish::None);
    let no = Terms { policy: RestartPolicy::No, ..ALWAYS };
    let refused = |life: &Life, input, why| assert_eq!(super::decide(life, input, no), Err(why));
    refused(&life, Input::Unpause, Refusal::NotPaused);
    assert_eq!(follow(&mut life, no, [Input::Pause]), [Save, Freeze, Publish(Some("pause"))]);
    assert!(life.phase.is_paused() && life.phase.status() == "paused");
    refused(&life, Input::Pause, Refusal::Paused);
    refused(&life, REMOVE, Refusal::Paused);
    // It is ended as any other; that it has to move for that is the edge's business.
    assert_eq!(follow(&mut life.clone(), no, [Input::Stop(PLAN)]), [Record, End(PLAN)]);
    assert_eq!(follow(&mut life.clone(), no, [FORCE]), [Record, End(StopPlan::KILL)]);
    // A new engine finds it as it is, and what the freezer says is true.
    assert_eq!(follow(&mut life.clone(), no, [Input::TakenUp]), []);
    assert_eq!(follow(&mut life.clone(), no, [Input::FoundMoving]), [Record, Publish(None)]);
    assert_eq!(follow(&mut life, no, [Input::Unpause]), [Thaw, Record, Publish(Some("unpause"))]);
    assert_eq!(life, running(Wish::None));
    refused(&running(Wish::Stop(PLAN)), Input::Pause, Refusal::Ending);
    refused(&exited(Wish::None), Input::Pause, Refusal::NotRunning);
}

#[test]
fn what_is_unwell_is_ended_as_was_asked_and_says_why() {
    let unwell = |action| Input::Unhealthy { action, streak: 3, plan: PLAN };
    let why = "the container was unhealthy: its health check failed 3 times in a row";
    let no = Terms { policy: RestartPolicy::No, ..ALWAYS };
    let ended = |action, terms, effects: &[Effect]| {
        let mut life = running(Wish::None);
        assert_eq!(follow(&mut life, terms, [unwell(action)]), effects);
        let found = super::decide(&life, Input::TakenUp, terms).unwrap();
        let is_wished = life.wish != Wish::None;
        assert_eq!(found.1, if is_wished { vec![End(PLAN)] } else { vec![] });
        follow(&mut life, terms, [Input::Ended(status(137))]);
        life
    };
    let life = ended(OnUnhealthy::Stop, ALWAYS, &[Record, End(PLAN)]);
    let Phase::Exited(exit) = &life.phase else { panic!("{life:?}") };
    assert_eq!(exit.error.as_deref(), Some(why));
    let life = ended(OnUnhealthy::Kill, no, &[Record, End(StopPlan::KILL)]);
    assert!(matches!(&life.phase, Phase::Exited(exit) if exit.error.as_deref() == Some(why)));
    for (action, terms) in [(OnUnhealthy::Kill, ALWAYS), (OnUnhealthy::Restart, no)] {
        let plan = if action == OnUnhealthy::Kill { StopPlan::KILL } else { PLAN };
        let mut life = ended(action, terms, &[Record, End(plan)]);
        assert!(matches!(life.phase, Phase::Waiting(_)), "{life:?}");
        assert_eq!(life.restarts.reason.as_ref().unwrap().to_string(), why);
        // That this cannot be made is no reason to give up, and its next end is none of this one's.
        follow(&mut life, terms, [Input::Due, Input::StartFailed(failure()), Input::Due]);
        follow(&mut life, terms, up(1));
        follow(&mut life, no, [Input::Ended(status(1))]);
        assert_eq!(life.phase, Phase::Exited(status(1)));
    }
    assert_eq!(follow(&mut running(Wish::None), no, [unwell(OnUnhealthy::None)]), []);
    // Someone wants it to end anyway.
    let refused = super::decide(&running(Wish::Stop(PLAN)), unwell(OnUnhealthy::Restart), ALWAYS);
    assert_eq!(refused, Err(Refusal::Stale));
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        3 => Just(Input::Start),
        3 => (1..9i32).prop_map(|pid| Input::Prepared(run(pid))),
        3 => Just(Input::Started),
        1 => Just(Input::StartFailed(failure())),
        1 => Just(Input::StartLost),
        3 => (0..9i32).prop_map(|code| Input::Ended(status(code))),
        1 => (0..9i32).prop_map(|code| Input::WentDown(status(code))),
        1 => Just(Input::Stop(PLAN)),
        2 => Just(Input::Restart(PLAN)),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(force, volumes)| Input::Remove { force, volumes }),
        1 => Just(Input::GivenUp),
        1 => Just(Input::RemovalFailed("why".into())),
        1 => Just(Input::TakenUp),
        2 => Just(Input::Due),
        1 => Just(Input::ByHand),
        1 => Just(Input::Pause),
        1 => Just(Input::Unpause),
        1 => prop::sample::select(&OnUnhealthy::ALL[..])
            .prop_map(|action| Input::Unhealthy { action, streak: 3, plan: PLAN }),
    ]
}

fn any_terms() -> impl Strategy<Value = Terms> {
    use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
    let policy = prop::sample::select(vec![No, Always, UnlessStopped, OnFailure { most: 0 }, OnFailure { most: 2 }]);
    (any::<bool>(), policy).prop_map(|(auto_remove, policy)| match auto_remove {
        // The API accepts no more of both.
        true => Terms { auto_remove, policy: No },
        false => Terms { auto_remove, policy },
    })
}

/// A life as the owner leads it: what an effect asks of the container itself is asked at once.
fn lead(life: &mut Life, input: Input, terms: Terms) -> Result<Vec<(Life, Life, Vec<Effect>)>, Refusal> {
    let before = life.clone();
    let (next, effects) = super::decide(life, input, terms)?;
    *life = next.clone();
    let mut steps = vec![(before, next, effects.clone())];
    for effect in effects {
        let asked = match effect {
            StartAgain => Input::Start,
            RemoveItself { volumes } => Input::RemoveItself { volumes },
            _ => continue,
        };
        let more = lead(life, asked, terms);
        steps.extend(more.expect("what a decision asks for can be done"));
    }
    Ok(steps)
}

fn is_written(effect: &Effect) -> bool {
    matches!(effect, Save | Record | ReleaseRun(_))
}

proptest! {
    /// Whatever happens in whatever order.
    #[test]
    fn a_life_holds_its_promises(inputs in prop::collection::vec(any_input(), 0..80), terms in any_terms()) {
        let mut life = new();
        let mut held = 0;
        for input in inputs {
            let prepared = matches!(input, Input::Prepared(_));
            let Ok(steps) = lead(&mut life, input.clone(), terms) else { continue };
            held += i32::from(prepared);
            for (before, after, effects) in steps {
                // What a run holds is released exactly once.
                held -= effects.iter().filter(|effect| matches!(effect, ReleaseRun(_))).count() as i32;
                let has_run = matches!(after.phase, Phase::Running(_) | Phase::Starting { run: Some(_) });
                prop_assert_eq!(held, i32::from(has_run));
                // Only removal erases.
                let erases = effects.iter().any(|effect| matches!(effect, Erase { .. }));
                let leaves = matches!(after.phase, Phase::Removing { .. });
                prop_assert!(!erases || leaves);
                // A save that fails can take all of it back.
                prop_assert!(effects.iter().skip(1).all(|effect| *effect != Save));
                // What is seen is written, and nobody waits for what is still held.
                if let Some(seen) = effects.iter().position(|effect| matches!(effect, Publish(_))) {
                    prop_assert!(effects[seen..].iter().all(|effect| !is_written(effect)));
                    prop_assert!(effects[seen..].iter().all(|effect| !matches!(effect, Freeze | Thaw)));
                    // A removal of its own was, with the end that it follows.
                    prop_assert!(is_written(&effects[0]) || effects[0] == Thaw || leaves);
                }
                // What changes is written; what changes for those who look is seen.
                let removal = matches!(before.phase, Phase::Removing { .. });
                let found = input == Input::TakenUp;
                let by_itself = leaves && !matches!(input, Input::Remove { .. });
                if before != after && !removal && !found && !by_itself {
                    prop_assert!(effects.iter().any(is_written), "{:?} {:?}", before, after);
                }
                let inside = matches!(after.phase, Phase::Starting { run: Some(_) });
                if before.phase != after.phase && !removal && !inside {
                    prop_assert!(effects.iter().any(|effect| matches!(effect, Publish(_))));
                }
                // A container that someone wants to run again is not removed.
                let removes = effects.iter().any(|effect| matches!(effect, RemoveItself { .. }));
                let comes_back = matches!(after.wish, Wish::Restart(_));
                prop_assert!(!removes || !comes_back);
                // A wish lives no longer than what it is about.
                let settled = matches!(after.phase, Phase::Created { .. } | Phase::Removing { .. });
                prop_assert!(!settled || after.wish == Wish::None);
                // Whoever waits is told when, and nobody waits whom someone has stopped.
                let waits = matches!(after.phase, Phase::Waiting(_));
                prop_assert!(!waits || effects.iter().any(|effect| matches!(effect, Await(_))));
                prop_assert!(!waits || !after.restarts.is_stopped_by_hand && after.wish == Wish::None);
            }
        }
    }
}

#[test]
fn want_of_memory_is_told_once() {
    let with = |kills| Run { oom_kills: kills, ..run(1) };
    let decided = |life: &Life, kills| {
        super::decide(life, Input::OutOfMemory(kills), Terms { auto_remove: false, policy: RestartPolicy::No })
    };
    let (after, effects) = decided(&running(Wish::None), Some(2)).unwrap();
    assert_eq!((after.phase.clone(), effects), (Phase::Running(with(2)), vec![Record, Announce("oom")]));
    assert_eq!(decided(&after, Some(2)), Err(Refusal::Stale));
    assert_eq!(decided(&after, Some(3)).unwrap().0.phase, Phase::Running(with(3)));
    // Nobody was killed.
    assert_eq!(decided(&after, None).unwrap(), (after, vec![Announce("oom")]));
    // It has ended before word of its start has come.
    let (after, effects) = decided(&starting(Wish::None), Some(1)).unwrap();
    assert_eq!((after.phase, effects.len()), (Phase::Starting { run: Some(with(1)) }, 2));
    for life in [new(), exited(Wish::None), removing(false)] {
        assert!(decided(&life, Some(1)).is_err() && decided(&life, None).is_err());
    }
}
