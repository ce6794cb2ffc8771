//! Kills at random moments. `DOZEN_TEST_SEED` plays one round again, `DOZEN_TEST_ROUNDS` says how many are played.

use std::time::{Duration, Instant};

use dozen_testbox::{Random, number, seed};
use rustix::process::Pid;

use crate::bench::kill;
use crate::{Ring, scenario};

const ROUNDS: u64 = 30;

#[test]
fn kills_at_random_moments_are_survived() {
    let first = seed();
    let rounds = number("DOZEN_TEST_ROUNDS").unwrap_or(ROUNDS);
    let mut ring = Ring::new();
    let begun = Instant::now();
    scenario::run(&mut ring.bench);
    let length = begun.elapsed();
    for seed in first..first + rounds {
        ring.bench.forget_log();
        // Seen only if the test fails.
        println!("-- DOZEN_TEST_SEED={seed} DOZEN_TEST_ROUNDS=1");
        let mut random = Random::new(seed);
        round(&mut ring, length, &mut random);
        ring.chapter = random.below(scenario::CHAPTERS.len() as u64) as usize;
        ring.check();
    }
}

fn round(ring: &mut Ring, length: Duration, random: &mut Random) {
    let within = length.as_micros() as u64;
    let mut kills: Vec<(Duration, u64)> =
        (0..=random.below(3)).map(|_| (Duration::from_micros(random.below(within)), random.below(3))).collect();
    kills.sort_unstable();
    println!("   {kills:?} (0 engine, 1 monitor, 2 keeper)");
    let run = ring.bench.machine.directory().join("run");
    let innocent = ring.innocent.id[..12].to_owned();
    let engine = ring.bench.engine_pid();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (moment, whom) in kills {
                // The random moment itself, not a wait for anything.
                std::thread::sleep(moment.saturating_sub(begun.elapsed()));
                let victim: Option<Pid> = match whom {
                    0 => engine,
                    1 => crate::bench::monitors(&run)
                        .into_iter()
                        .find(|(short, _)| *short != innocent)
                        .map(|(_, pid)| pid),
                    _ => crate::bench::holder(&run.join("keeper.lock")),
                };
                if let Some(pid) = victim {
                    kill(pid);
                }
            }
        });
        scenario::try_run(&mut ring.bench);
    });
}
