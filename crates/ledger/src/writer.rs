//! The one thread that holds the connection, and group commit.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use rusqlite::{Connection, Savepoint};

use crate::migration::{Migration, migrate};
use crate::{LedgerError, rusqlite};

/// What a change survives once its caller has been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// `kill -9` of the engine. For what a reboot makes moot: that something runs, its address, its process.
    Kill,
    /// A power cut as well. For create, remove, volumes, tags.
    Power,
}

/// A handle on the ledger; clones share the one writer. The file is closed when the last is dropped.
#[derive(Clone, Debug)]
pub struct Ledger {
    jobs: Sender<Job>,
}

/// Runs inside a savepoint, or is told why there is none, and gives the action that answers the caller once the commit
/// has succeeded or failed.
type Work = Box<dyn FnOnce(Result<&mut Savepoint<'_>, LedgerError>) -> Answer + Send>;
struct Answer {
    /// False rolls the savepoint back: the closure itself failed.
    keep: bool,
    send: Box<dyn FnOnce(Result<(), LedgerError>) + Send>,
}
struct Job {
    durability: Durability,
    work: Work,
}

/// How many waiting changes are committed together at the most, so that the first of them is not kept waiting.
const GROUP_LIMIT: usize = 64;

impl Ledger {
    /// Opens or makes the file, and brings its schema to the newest version.
    pub fn open(path: &Path, migrations: &[Migration]) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::Open { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(failed)?;
        // WAL: a commit is one append; with synchronous=NORMAL it survives the process, with FULL the machine
        // (sqlite.org/wal.html, sqlite.org/pragma.html#pragma_synchronous).
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        connection.pragma_update(None, "cache_size", -1024).map_err(failed)?;
        migrate(&mut connection, path, migrations)?;
        connection.set_prepared_statement_cache_capacity(64);
        let (jobs, queue) = channel();
        std::thread::Builder::new()
            .name("ledger".into())
            .stack_size(512 * 1024)
            .spawn(move || write_until_closed(connection, &queue))
            .expect("a thread can be started at start-up");
        Ok(Self { jobs })
    }

    /// Runs `change` in a transaction and waits until it is durable. Blocks: from async code, use a blocking task
    /// or [`Ledger::submit`].
    ///
    /// An error of the closure's rolls back what it did, and only that.
    pub fn write<T, E>(
        &self,
        durability: Durability,
        change: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<LedgerError> + Send + 'static,
    {
        let (answer, answered) = channel();
        self.submit(durability, change, move |result| drop(answer.send(result)));
        answered.recv().unwrap_or_else(|_| Err(LedgerError::Closed.into()))
    }

    /// As [`Ledger::write`], without waiting: `done` is called on the writer's thread once the change is durable
    /// or has failed, and must not block. If the ledger is closed `done` is dropped without a call.
    pub fn submit<T, E>(
        &self,
        durability: Durability,
        change: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        done: impl FnOnce(Result<T, E>) + Send + 'static,
    ) where
        T: Send + 'static,
        E: From<LedgerError> + Send + 'static,
    {
        let work: Work = Box::new(move |savepoint| {
            let result = savepoint.map_err(E::from).and_then(|savepoint| change(savepoint));
            Answer {
                keep: result.is_ok(),
                send: Box::new(move |committed| done(committed.map_err(E::from).and(result))),
            }
        });
        // A closed ledger drops the job, and with it `done`: the caller sees its channel close.
        let _ = self.jobs.send(Job { durability, work });
    }

    /// Runs a query after all changes that were sent before it. Blocks.
    pub fn read<T, E>(&self, query: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<LedgerError> + Send + 'static,
    {
        self.write(Durability::Kill, query)
    }
}

fn write_until_closed(mut connection: Connection, queue: &Receiver<Job>) {
    let mut synced = Durability::Power;
    let mut group = VecDeque::new();
    loop {
        if group.is_empty() {
            let Ok(first) = queue.recv() else { return };
            group.push_back(first);
        }
        group.extend(queue.try_iter().take(GROUP_LIMIT.saturating_sub(group.len())));
        let (answers, committed) = commit_together(&mut connection, &mut group, &mut synced);
        // Every caller learns of a failed commit; rusqlite's error cannot be cloned, so the words are.
        let failure = committed.err().map(|error| (error.sqlite_error().copied(), error.to_string()));
        for answer in answers {
            (answer.send)(failure.as_ref().map_or(Ok(()), |failure| Err(again(failure))));
        }
        // The transaction could not even begin, or broke: who has not had a turn hears of it too, and nobody waits for ever.
        if let Some(failure) = &failure {
            for job in group.drain(..) {
                let answer = (job.work)(Err(again(failure)));
                (answer.send)(Ok(()));
            }
        }
    }
}

/// The same failure for a further caller.
fn again((code, words): &(Option<rusqlite::ffi::Error>, String)) -> LedgerError {
    match code {
        Some(code) => rusqlite::Error::SqliteFailure(*code, Some(words.clone())).into(),
        None => LedgerError::Statement(rusqlite::Error::ToSqlConversionFailure(words.clone().into())),
    }
}

/// Takes jobs from the group for as long as the transaction stands. Whoever had a turn is among the answers, and what
/// they are told is the result of the whole: a transaction that SQLite rolled back on its own is a failure for all.
fn commit_together(
    connection: &mut Connection,
    group: &mut VecDeque<Job>,
    synced: &mut Durability,
) -> (Vec<Answer>, rusqlite::Result<()>) {
    let wanted = group.iter().map(|job| job.durability).max().unwrap_or(Durability::Kill);
    let mut answers = Vec::with_capacity(group.len());
    let committed = (|| {
        if *synced != wanted {
            // NORMAL, not OFF: a checkpoint has to sync the log before it overwrites what earlier callers were
            // promised, also if a kill-safe change happens to be the one that triggers it.
            connection.pragma_update(
                None,
                "synchronous",
                if wanted == Durability::Power { "FULL" } else { "NORMAL" },
            )?;
            *synced = wanted;
        }
        let mut transaction = connection.transaction()?;
        while !group.is_empty() {
            let mut savepoint = transaction.savepoint()?;
            let job = group.pop_front().expect("it is not empty");
            let answer = (job.work)(Ok(&mut savepoint));
            let keep = answer.keep;
            answers.push(answer);
            // An error that breaks the whole transaction (a full disk, say) ends it at once, savepoints and all.
            if savepoint.is_autocommit() {
                drop(savepoint);
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
                    Some("the transaction was rolled back".into()),
                ));
            }
            if keep { savepoint.commit()? } else { drop(savepoint) }
        }
        transaction.commit()
    })();
    (answers, committed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: [Migration; 1] = [Migration("CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT;")];

    fn count(ledger: &Ledger) -> i64 {
        ledger.read(|c| Ok::<_, LedgerError>(c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)).unwrap()
    }

    fn insert(ledger: &Ledger, n: i64) -> Result<usize, LedgerError> {
        ledger.write(Durability::Power, move |c| Ok(c.execute("INSERT INTO t VALUES (?1)", [n])?))
    }

    #[test]
    fn a_failed_change_takes_no_other_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&directory.path().join("state.db"), &SCHEMA).unwrap();
        insert(&ledger, 1).unwrap();
        assert!(matches!(insert(&ledger, 1), Err(LedgerError::Statement(_))));
        std::thread::scope(|scope| {
            for n in 2..40 {
                let ledger = ledger.clone();
                scope.spawn(move || insert(&ledger, n / 2 * 2));
            }
        });
        assert_eq!(count(&ledger), 20);
    }

    #[test]
    fn on_a_full_disk_everyone_is_told_the_truth_and_it_goes_on_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let schema = [Migration("CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB) STRICT;")];
        let ledger = Ledger::open(&directory.path().join("state.db"), &schema).unwrap();
        let pages = |limit: i64| {
            let set = move |c: &Connection| {
                Ok::<_, LedgerError>(c.query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(()))?)
            };
            ledger.write(Durability::Kill, set).unwrap();
        };
        let insert = |n: i64| {
            let insert = move |c: &Connection| {
                Ok::<_, LedgerError>(c.execute("INSERT INTO t VALUES (?1, zeroblob(60000))", [n])?)
            };
            ledger.write(if n % 2 == 0 { Durability::Power } else { Durability::Kill }, insert)
        };
        pages(80);
        let told: Vec<(i64, bool)> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..24).map(|n| scope.spawn(move || (n, insert(n).is_ok()))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(told.iter().any(|(_, ok)| !ok), "the disk was full for some");
        pages(1_000_000);
        insert(100).unwrap();
        let mut expected: Vec<i64> = told.iter().filter(|(_, ok)| *ok).map(|(n, _)| *n).collect();
        expected.push(100);
        let there = ledger.read(|c| {
            let mut rows = c.prepare("SELECT n FROM t ORDER BY n")?;
            let rows = rows.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>();
            Ok::<_, LedgerError>(rows?)
        });
        assert_eq!(there.unwrap(), expected);
    }

    #[test]
    fn what_was_written_is_there_after_opening_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        insert(&Ledger::open(&path, &SCHEMA).unwrap(), 7).unwrap();
        assert_eq!(count(&Ledger::open(&path, &SCHEMA).unwrap()), 1);
    }

    #[test]
    fn an_older_binary_refuses_a_newer_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        drop(Ledger::open(&path, &SCHEMA).unwrap());
        let error = Ledger::open(&path, &[]).unwrap_err();
        assert!(matches!(error, LedgerError::Newer { found: 1, known: 0, .. }), "{error:?}");
    }
}
