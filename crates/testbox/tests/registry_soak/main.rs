//! A registry under many clients at once, which is killed, ended, moved, and loses its directory, while rules of retention,
//! collections and scrubs are at work (`cargo xtask soak --of registry`). What it has answered is kept as plain data, and
//! whatever is found has to fit to it: nothing that was pushed is lost, nothing that was deleted comes again, and nothing is
//! left that nobody names.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod audit;
mod content;
mod http;
mod life;
mod model;
mod reading;
mod register;
mod shared;
mod uploads;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dozen_testbox::{Machine, Random, number, seed};

use audit::Audit;
use life::Life;
use shared::Shared;
use worker::Worker;

const MINUTES: u64 = 60;
/// Of the long run, on one machine.
const LAP: Duration = Duration::from_secs(120);
/// How long the clients work before all is looked at.
const ROUND: Duration = Duration::from_secs(8);
const CLIENTS: usize = 4;

/// Plays for so long: what is wrong, in words.
fn soak(seed: u64, has_store: bool, length: Duration, round: Duration) -> Result<(), String> {
    let shared = Arc::new(Shared::new(Arc::new(Machine::new()), seed));
    let mut chance = Random::new(seed);
    let mut life = Life::begin(shared.clone(), chance.split(), has_store);
    let mut audit = Audit::new(&shared, chance.split());
    let begun = Instant::now();
    while begun.elapsed() < length && !shared.is_over() {
        play(&shared, &mut life, &mut chance, round);
        shared.enough.store(!shared.troubles().is_empty(), Ordering::Relaxed);
        if !shared.is_over() {
            audit.look(&mut life, true);
        }
    }
    life.end(rustix::process::Signal::TERM);
    let (answered, lost) = (shared.answered.load(Ordering::Relaxed), shared.lost.load(Ordering::Relaxed));
    println!(
        "-- {} s, {answered} answers, {lost} requests lost, {} kills, {} ends in order, {} directories lost, {} moves, {:?} at the most until it listened",
        begun.elapsed().as_secs(),
        life.kills,
        life.ends,
        life.losses,
        life.moves,
        life.longest_begin
    );
    match shared.troubles().len() {
        0 => Ok(()),
        count => {
            Err(format!("DOZEN_TEST_SEED={seed}: {count} things are wrong{}\n{}", shared.report(), life.log_tail()))
        }
    }
}

/// One round of clients, and of what befalls their server.
fn play(shared: &Arc<Shared>, life: &mut Life, chance: &mut Random, round: Duration) {
    std::thread::scope(|scope| {
        let _enough = Enough(shared);
        for number in 0..CLIENTS {
            let worker = Worker::new(shared.clone(), &format!("client-{number}"), chance.split());
            scope.spawn(move || worker.work());
        }
        let begun = Instant::now();
        while begun.elapsed() < round && !shared.is_over() {
            // The random moment itself, not a wait for anything.
            std::thread::sleep(Duration::from_millis(100 + chance.below(1500)));
            life.happen();
        }
    });
}

/// The clients end with whoever plays with them, also if he fails.
struct Enough<'a>(&'a Shared);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.enough.store(true, Ordering::Relaxed);
    }
}

fn short(has_store: bool) {
    let played = soak(20_261_123, has_store, Duration::from_secs(5), Duration::from_secs(5));
    played.unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn seconds_of_pushes_to_a_directory_lose_nothing() {
    short(false);
}

#[test]
fn seconds_of_pushes_to_a_store_lose_nothing() {
    short(true);
}

#[test]
#[ignore = "an hour: cargo xtask soak --of registry"]
fn an_hour_of_pushes_loses_nothing() {
    let first = seed();
    let length = Duration::from_secs(60 * number("DOZEN_TEST_SOAK_MINUTES").unwrap_or(MINUTES));
    let begun = Instant::now();
    for lap in 0.. {
        if begun.elapsed() > length {
            break;
        }
        let (seed, has_store) = (first + lap, (first + lap) % 2 == 1);
        println!(
            "-- DOZEN_TEST_SEED={seed} DOZEN_TEST_SOAK_MINUTES=2, {}",
            if has_store { "a store" } else { "a directory" }
        );
        soak(seed, has_store, LAP, ROUND).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

/// A file that goes behind the server's back is found, and so is one in whose place another lies: the soak can fail.
#[test]
fn what_is_taken_away_or_spoiled_is_found() {
    for is_spoiled in [false, true] {
        let shared = Arc::new(Shared::new(Arc::new(Machine::new()), 1));
        let mut chance = Random::new(1);
        let mut life = Life::begin(shared.clone(), chance.split(), false);
        let mut audit = Audit::new(&shared, chance.split());
        assert!(audit.put_something());
        audit.look(&mut life, false);
        assert!(shared.troubles().is_empty(), "{}", shared.report());
        let blob = &shared.pool.blobs[shared.pool.manifests[0].shape.blobs[0]];
        let file = find(&life.blobs(), blob.digest.split(':').nth(1).unwrap());
        std::fs::remove_file(&file).unwrap();
        if is_spoiled {
            std::fs::write(&file, vec![b'x'; blob.bytes.len()]).unwrap();
        }
        audit.look(&mut life, false);
        let report = shared.report();
        assert!(report.contains(&blob.digest) && report.contains("POST"), "{report}");
    }
}

fn find(directory: &std::path::Path, begin: &str) -> std::path::PathBuf {
    let shelf = directory.join("sha256").join(&begin[..2]);
    let mut entries = std::fs::read_dir(shelf).unwrap().flatten();
    entries.find(|entry| entry.file_name().to_str().unwrap().starts_with(begin)).unwrap().path()
}
