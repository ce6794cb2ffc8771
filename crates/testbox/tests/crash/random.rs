//! Kills at random moments. `DOZEN_TEST_SEED` plays one round again, `DOZEN_TEST_ROUNDS` says how many are played.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Pid;

use crate::bench::kill;
use crate::{Ring, scenario};

const ROUNDS: u64 = 20;
/// A scenario takes about so long.
const SCENARIO: Duration = Duration::from_millis(1500);

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled").
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn kills_at_random_moments_are_survived() {
    let first = number("DOZEN_TEST_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 1_000_000_007);
    let rounds = number("DOZEN_TEST_ROUNDS").unwrap_or(ROUNDS);
    let mut ring = Ring::new();
    for seed in first..first + rounds {
        ring.bench.forget_log();
        // Seen only if the test fails.
        println!("-- DOZEN_TEST_SEED={seed} DOZEN_TEST_ROUNDS=1");
        round(&mut ring, &mut Random((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        ring.check();
    }
}

fn round(ring: &mut Ring, random: &mut Random) {
    let kills: Vec<(Duration, u64)> = (0..=random.below(2))
        .map(|_| (Duration::from_micros(random.below(SCENARIO.as_micros() as u64)), random.below(3)))
        .collect();
    println!("   {kills:?} (0 engine, 1 monitor, 2 keeper)");
    let run = ring.bench.machine.directory().join("run");
    let innocent = ring.innocent.id[..12].to_owned();
    let engine = ring.bench.engine_pid();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (after, whom) in kills {
                // The random moment itself, not a wait for anything.
                std::thread::sleep(after);
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
