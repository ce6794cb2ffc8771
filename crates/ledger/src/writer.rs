//! The one thread that holds the connection, and group commit.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rusqlite::{Connection, Savepoint};

use crate::migration::{Migration, migrate};
use crate::reserve::Reserve;
use crate::{LedgerError, rusqlite};

/// What a change survives once its caller has been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// `kill -9` of the engine. For what a reboot makes moot: that something runs, its address, its process.
    Kill,
    /// A power cut as well. For create, remove, volumes, tags.
    Power,
}

/// A handle on the ledger; clones share the one writer. The file is closed, and may be opened again, when the last has
/// been dropped.
#[derive(Clone, Debug)]
pub struct Ledger {
    writer: Arc<Writer>,
    reserve: Arc<Reserve>,
}

/// The thread, and the way to it.
#[derive(Debug)]
struct Writer {
    /// Closed to end the thread; `None` only while this is dropped.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// A closed ledger drops the job.
    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // The last handle may have gone along with a change, on the thread itself.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

/// Runs inside a savepoint, or is told why there is none, and gives the action that answers the caller once the commit
/// has succeeded or failed.
type Work = Box<dyn FnOnce(Result<&mut Savepoint<'_>, LedgerError>) -> Answer + Send>;
struct Answer {
    /// False rolls the savepoint back: the closure itself failed.
    keep: bool,
    send: Box<dyn FnOnce(Result<(), LedgerError>) + Send>,
}
enum Job {
    Change {
        durability: Durability,
        work: Work,
    },
    /// Moves the log's pages to the database, so that the log is written over from its beginning: that takes no new
    /// space. Answers when it is done, or when it cannot be.
    Checkpoint(Sender<()>),
}

/// How many waiting changes are committed together at the most, so that the first of them is not kept waiting.
const GROUP_LIMIT: usize = 64;

impl Ledger {
    /// Opens or makes the file, and brings its schema to the newest version.
    pub fn open(path: &Path, migrations: &[Migration]) -> Result<Self, LedgerError> {
        let reserve = Reserve::beside(path);
        let connection = match prepare(path, migrations) {
            Err(LedgerError::Open { source, .. }) if is_disk(&source) && reserve.give_up() => {
                prepare(path, migrations)?
            }
            other => other?,
        };
        // Without it all is well until the disk is full, and `check_room` says so by then.
        let _ = reserve.restore();
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .stack_size(512 * 1024)
            .spawn(move || write_until_closed(connection, &queue))
            .expect("a thread can be started at start-up");
        let writer = Writer { jobs: Some(jobs), thread: Some(thread) };
        Ok(Self { writer: Arc::new(writer), reserve: Arc::new(reserve) })
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
        // Where it is dropped, `done` is dropped too: the caller sees its channel close.
        self.writer.send(Job::Change { durability, work });
    }

    /// As [`Ledger::write`], for what has happened whether it can be written or not: a container has ended, or goes.
    /// On a full disk it takes the space that is kept in reserve. `change` may run more than once, each time on a
    /// transaction without the traces of the time before. Blocks.
    pub fn write_essential<T, F>(&self, durability: Durability, change: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, LedgerError> + Clone + Send + 'static,
    {
        let _ = self.reserve.restore();
        let mut result = self.write(durability, change.clone());
        if matches!(result, Err(LedgerError::Disk(_))) {
            self.checkpoint();
            result = self.write(durability, change.clone());
        }
        if matches!(result, Err(LedgerError::Disk(_))) && self.reserve.give_up() {
            // The log's pages first: once the database has a place for them the log can be written over again and again.
            self.checkpoint();
            result = self.write(durability, change);
        }
        result
    }

    /// Refuses while the reserve is used up: what is new has to wait until there is room for the end of what is there.
    /// Makes the reserve again if that is possible now. Blocks.
    pub fn check_room(&self) -> Result<(), LedgerError> {
        match self.reserve.restore() {
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                Err(LedgerError::Full)
            }
            // Whatever else is wrong with the disk, the change itself will tell.
            _ => Ok(()),
        }
    }

    fn checkpoint(&self) {
        let (done, answered) = channel();
        // Either end is closed when the ledger is, and then there is nothing to wait for.
        self.writer.send(Job::Checkpoint(done));
        let _ = answered.recv();
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

/// The connection, with the newest schema.
fn prepare(path: &Path, migrations: &[Migration]) -> Result<Connection, LedgerError> {
    let failed = |source| LedgerError::Open { path: path.to_owned(), source };
    let mut connection = Connection::open(path).map_err(failed)?;
    // We are the only ones who open it, the engine's lock sees to that: so the index of the log can be in memory, not in
    // a file that a full disk has no room for, and no transaction locks a file (sqlite.org/wal.html#noshm).
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed)?;
    // WAL: a commit is one append; with synchronous=NORMAL it survives the process, with FULL the machine
    // (sqlite.org/wal.html, sqlite.org/pragma.html#pragma_synchronous).
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    connection.pragma_update(None, "cache_size", -1024).map_err(failed)?;
    migrate(&mut connection, path, migrations)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// A failure that more room on the disk could mend.
fn is_disk(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(CannotOpen | DiskFull | SystemIoFailure))
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
        if let Some(Job::Checkpoint(_)) = group.front()
            && let Some(Job::Checkpoint(done)) = group.pop_front()
        {
            checkpoint(&connection);
            // Nobody waits for it any more if this fails.
            let _ = done.send(());
            continue;
        }
        let (answers, committed) = commit_together(&mut connection, &mut group, &mut synced);
        // Every caller learns of a failed commit; rusqlite's error cannot be cloned, so the words are.
        let failure = committed.err().map(|error| (error.sqlite_error().copied(), error.to_string()));
        for answer in answers {
            (answer.send)(failure.as_ref().map_or(Ok(()), |failure| Err(again(failure))));
        }
        // The transaction could not even begin, or broke: who has not had a turn hears of it too, and nobody waits for ever.
        if let Some(failure) = &failure {
            for job in group.drain(..) {
                // A checkpoint that is dropped here answers by that, and whoever asked sees for themselves.
                let Job::Change { work, .. } = job else { continue };
                let answer = work(Err(again(failure)));
                (answer.send)(Ok(()));
            }
        }
    }
}

/// With one connection and no transaction there is nobody to wait for (sqlite.org/pragma.html#pragma_wal_checkpoint).
fn checkpoint(connection: &Connection) {
    // What came of it shows when the next change is written.
    let _ = connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
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
    let durability = |job: &Job| match job {
        Job::Change { durability, .. } => Some(*durability),
        Job::Checkpoint(_) => None,
    };
    let wanted = group.iter().map_while(durability).max().unwrap_or(Durability::Kill);
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
        while let Some(Job::Change { .. }) = group.front() {
            let mut savepoint = transaction.savepoint()?;
            let Some(Job::Change { work, .. }) = group.pop_front() else { break };
            let answer = work(Ok(&mut savepoint));
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

    /// On a file system of two megabytes, in a mount namespace of its own.
    #[test]
    fn on_a_full_disk_what_is_over_is_written_and_what_is_new_is_not() {
        const PLACE: &str = "DOZEN_TEST_SMALL_DISK";
        let Ok(place) = std::env::var(PLACE) else {
            let directory = tempfile::tempdir().unwrap();
            let script = "mount -t tmpfs -o size=2m tmpfs \"$0\" && exec \"$@\"";
            let name = "writer::tests::on_a_full_disk_what_is_over_is_written_and_what_is_new_is_not";
            let status = std::process::Command::new("unshare")
                .args(["--mount", "sh", "-c", script])
                .arg(directory.path())
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .env(PLACE, directory.path())
                .status()
                .unwrap();
            assert!(status.success());
            return;
        };
        let (path, ballast) = (Path::new(&place).join("state.db"), Path::new(&place).join("ballast"));
        let fill = || {
            let mut file = std::fs::File::options().create(true).append(true).open(&ballast).unwrap();
            let full = std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
            assert_eq!(full.kind(), ErrorKind::StorageFull);
        };
        let essential = |ledger: &Ledger, n: i64| {
            let change = move |c: &Connection| Ok(c.execute("UPDATE t SET n = ?1 WHERE n < 0", [-n])?);
            ledger.write_essential(Durability::Power, change)
        };
        let ledger = Ledger::open(&path, &SCHEMA).unwrap();
        insert(&ledger, -1).unwrap();
        ledger.check_room().unwrap();
        fill();
        // The first may find room in what the log has allocated.
        let refused = (0..1000).find_map(|n| insert(&ledger, n).err()).expect("the disk is full");
        assert!(matches!(refused, LedgerError::Disk(_)), "{refused:?}");
        let before = count(&ledger);
        // Far more than the reserve could hold, were the log not written over.
        for n in 1000..2000 {
            assert_eq!(essential(&ledger, n).unwrap(), 1);
        }
        fill();
        for n in 2000..2100 {
            essential(&ledger, n).unwrap();
        }
        assert!(matches!(ledger.check_room(), Err(LedgerError::Full)));
        drop(ledger);
        fill();
        let ledger = Ledger::open(&path, &SCHEMA).unwrap();
        assert_eq!(count(&ledger), before);
        let last: Result<i64, _> =
            ledger.read(|c| Ok::<_, LedgerError>(c.query_row("SELECT min(n) FROM t", [], |row| row.get(0))?));
        assert_eq!(last.unwrap(), -2099);
        std::fs::remove_file(&ballast).unwrap();
        ledger.check_room().unwrap();
        assert!(Path::new(&place).join("state.db-reserve").exists());
        insert(&ledger, 5000).unwrap();
    }

    #[test]
    fn what_was_written_is_there_after_opening_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        insert(&Ledger::open(&path, &SCHEMA).unwrap(), 7).unwrap();
        assert_eq!(count(&Ledger::open(&path, &SCHEMA).unwrap()), 1);
    }

    #[test]
    fn it_can_be_opened_as_soon_as_it_was_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        for round in 0..10 {
            let ledger = Ledger::open(&path, &SCHEMA).unwrap();
            assert_eq!(count(&ledger), round * 100);
            let (done, answered) = channel();
            for n in 0..100 {
                let change = move |c: &Connection| {
                    Ok::<_, LedgerError>(c.execute("INSERT INTO t VALUES (?1)", [round * 100 + n])?)
                };
                let done = done.clone();
                ledger.submit(Durability::Kill, change, move |result| done.send(result.unwrap()).unwrap());
            }
            drop(ledger);
            // Nobody has waited for them, and all is done.
            assert_eq!(answered.try_iter().count(), 100);
        }
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
