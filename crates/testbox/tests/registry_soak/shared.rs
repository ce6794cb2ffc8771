//! What clients and whoever kills the server have in common.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dozen_testbox::Machine;
use std::sync::Arc;

use crate::content::{FIRST_PASSING, KEPT_TAGS, Pool, REPOSITORIES, TAGS};
use crate::life::GRACE;
use crate::model::{Model, Terms};

/// Lines that are remembered of what was done.
const LINES: usize = 100_000;
/// Of those, they that are told of something.
const TOLD: usize = 25;

/// Something that must not be, and words by which lines are about it.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub what: String,
    pub about: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Shared {
    pub machine: Arc<Machine>,
    pub pool: Pool,
    model: Mutex<Model>,
    troubles: Mutex<Vec<Trouble>>,
    lines: Mutex<VecDeque<String>>,
    /// Even while a server is there, and nobody ends it.
    age: AtomicU64,
    /// Uploads that were begun before are gone: the directory is another.
    pub moves: AtomicU64,
    pub enough: AtomicBool,
    pub answered: AtomicU64,
    pub lost: AtomicU64,
}

impl Shared {
    pub fn new(machine: Arc<Machine>, seed: u64) -> Self {
        let pool = Pool::new(seed);
        let terms = Terms { grace: GRACE, first_passing: FIRST_PASSING, kept_tags: KEPT_TAGS };
        let model = Model::new(terms, pool.shapes(), REPOSITORIES.len(), pool.blobs.len(), TAGS.len());
        Self {
            machine,
            pool,
            model: Mutex::new(model),
            troubles: Mutex::default(),
            lines: Mutex::default(),
            // The first server is not there yet.
            age: AtomicU64::new(1),
            moves: AtomicU64::new(0),
            enough: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn age(&self) -> u64 {
        self.age.load(Ordering::SeqCst)
    }

    /// A server is there, or is about to be ended.
    pub fn turn(&self) {
        self.age.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether a server was there from that age until now, and nobody ended it.
    pub fn was_there_since(&self, age: u64) -> bool {
        age.is_multiple_of(2) && self.age() == age
    }

    pub fn is_over(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    /// What is wrong, once it is.
    pub fn trouble(&self, about: &[&str], what: impl Into<String>) {
        let about = about.iter().map(|word| (*word).to_owned()).collect();
        let trouble = Trouble { what: what.into(), about };
        self.note(&format!("TROUBLE {}", trouble.what));
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).push(trouble);
        self.enough.store(true, Ordering::Relaxed);
    }

    pub fn troubles(&self) -> Vec<Trouble> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A line of what was done.
    pub fn note(&self, line: &str) {
        let now = self.model().now();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(format!("{:>9}.{:06} {line}", now / 1_000_000, now % 1_000_000));
    }

    /// All that is wrong, with what was done last to what it is about.
    pub fn report(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = String::new();
        for Trouble { what, about } in self.troubles().iter().take(5) {
            report += &format!("\n== {what}\n");
            // What was done to the server is about everything.
            let is_about = |line: &&String| {
                line.contains(" -- ") || !about.is_empty() && about.iter().all(|word| line.contains(word))
            };
            let mut told: Vec<&String> = lines.iter().rev().filter(is_about).take(TOLD).collect();
            told.reverse();
            for line in told {
                report += &format!("   {line}\n");
            }
        }
        report
    }
}
