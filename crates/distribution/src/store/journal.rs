//! The rows of a store whose data lies in a bucket: what changes in them is written there before anybody is answered.
//!
//! The index on this machine's disk stays what decides; the bucket is what remains. Each transaction changes the index,
//! then [`Journal::ship`] puts an object with all rows that have changed since the last one, as they are now, and only then
//! is the client answered. So whoever has been answered finds it all in the bucket: the newest snapshot, and what the
//! journal has after it. Changes that wait for one another go together.
//!
//! **One server at a time.** Objects of the journal are numbered, and put only where there is none
//! (`If-None-Match: *`). A server begins with an entry of its own: one that was there before, and still thinks itself the
//! only one, finds that number taken when it next writes, and ends. Such entries stay when the others go into a snapshot,
//! so that however late it writes, its number is taken. Nobody deletes a blob before the deletion of its row is in the
//! journal, so a server that has been overtaken deletes none.

mod capture;
mod entry;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dozen_ledger::rusqlite::{Connection, OptionalExtension, params};
use dozen_ledger::{Durability, Ledger};
use tokio::sync::{Mutex, watch};

use super::bucket::{Bucket, list_all, read_whole};
use crate::failpoint::failpoint;
use crate::name::UploadId;
use crate::refusal::{Kind, Refusal};
use crate::store::blocking;

pub(super) use entry::{Header, damaged, read_entry, read_header, write_entry, write_snapshot};

/// So many entries go into one snapshot; a server that begins reads no more than these.
const SNAPSHOT_EVERY: u64 = 1000;
/// Numbers at which servers have begun, that stay taken.
const FENCES_KEPT: usize = 100;

/// Where the entry of this number is.
pub(super) fn entry_name(number: u64) -> String {
    format!("journal/{number:020}")
}

/// Where the snapshot is that has all up to this entry.
pub(super) fn snapshot_name(number: u64) -> String {
    format!("snapshot/{number:020}")
}

/// The number in such a name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let (_, digits) = name.split_once('/')?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

/// As far as the journal goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// The number that is next.
    pub(super) next: u64,
    /// The last entry's own name, by which it is known from another server's of the same number.
    pub(super) last: String,
    /// Numbers at which servers have begun.
    pub(super) fences: Vec<u64>,
}

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    bucket: Arc<dyn Bucket>,
    /// This directory's own name.
    owner: String,
    ship: Arc<Mutex<Ship>>,
    /// There is an entry of which nobody knows whether it is there.
    is_unsettled: Arc<AtomicBool>,
    overtaken: Arc<watch::Sender<bool>>,
}

#[derive(Debug)]
struct Ship {
    position: Position,
    /// The entry that was begun. It is put until the store says that it is there, byte for byte the same: a request whose
    /// answer was lost may still arrive.
    unsettled: Option<Unsettled>,
    entries_since_snapshot: u64,
}

#[derive(Debug)]
struct Unsettled {
    header: Header,
    content: Bytes,
    through: i64,
}

impl Journal {
    pub(super) fn new(bucket: Arc<dyn Bucket>, owner: String, position: Position, entries_since_snapshot: u64) -> Self {
        Self {
            bucket,
            owner,
            ship: Arc::new(Mutex::new(Ship { position, unsettled: None, entries_since_snapshot })),
            is_unsettled: Arc::default(),
            overtaken: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Comes true when another server has taken the bucket over.
    pub(super) async fn overtaken(&self) {
        let mut overtaken = self.overtaken.subscribe();
        let _ = overtaken.wait_for(|overtaken| *overtaken).await;
    }

    /// Before a change: while the store cannot be reached nothing more is changed here either.
    pub(crate) async fn settle(&self, ledger: &Ledger) -> Result<(), Refusal> {
        if self.is_unsettled.load(Ordering::Acquire) { self.ship(ledger).await } else { Ok(()) }
    }

    /// Puts what has changed into the journal, whoever changed it. All that was committed before is in the bucket when this
    /// has succeeded. It goes on to its end if nobody waits for it any more.
    pub(crate) async fn ship(&self, ledger: &Ledger) -> Result<(), Refusal> {
        let (journal, ledger) = (self.clone(), ledger.clone());
        let shipped = tokio::spawn(async move {
            let mut ship = journal.ship.lock().await;
            while journal.put_one(&mut ship, &ledger, false).await? {}
            Ok(())
        });
        shipped.await.unwrap_or_else(|error| Err(Refusal::of_task(&error)))
    }

    /// Says in the bucket that this server is over: whoever is next need not ask.
    pub(super) async fn close(&self, ledger: &Ledger) -> Result<(), Refusal> {
        self.ship(ledger).await?;
        let mut ship = self.ship.lock().await;
        self.put_one(&mut ship, ledger, true).await.map(|_| ())
    }

    /// One entry: what is unsettled, or all that has changed since. Whether there was any; `closes`: in any case, the last.
    async fn put_one(&self, ship: &mut Ship, ledger: &Ledger, closes: bool) -> Result<bool, Refusal> {
        if *self.overtaken.borrow() {
            return Err(overtaken());
        }
        if ship.unsettled.is_none() {
            let ledger = ledger.clone();
            let pending = blocking(move || ledger.read(|connection| Ok::<_, Refusal>(capture::pending(connection)?)));
            let pending = pending.await?;
            if pending.is_none() && !closes {
                return Ok(false);
            }
            let (changes, through) = pending.map_or((Vec::new(), 0), |pending| (pending.changes, pending.through));
            let header = Header::new(&self.owner, closes);
            let content = Bytes::from(entry::write_entry(&header, &changes));
            ship.unsettled = Some(Unsettled { header, content, through });
            self.is_unsettled.store(true, Ordering::Release);
        }
        let Some(Unsettled { header, content, through }) = &ship.unsettled else { return Ok(false) };
        self.put_entry(ship.position.next, header, content.clone()).await?;
        failpoint("journal.put");
        let position = Position { next: ship.position.next + 1, last: header.id.clone(), ..ship.position.clone() };
        let (ledger, kept, through) = (ledger.clone(), position.clone(), *through);
        let cut = blocking(move || {
            ledger.write(Durability::Kill, move |connection| {
                connection.execute("DELETE FROM changed WHERE id <= ?1", [through])?;
                write_position(connection, &kept)?;
                Ok::<_, Refusal>(())
            })
        });
        // If this fails, the same entry is put again, is found there, and the list cut then.
        cut.await?;
        (ship.position, ship.unsettled) = (position, None);
        ship.entries_since_snapshot += 1;
        self.is_unsettled.store(false, Ordering::Release);
        Ok(true)
    }

    /// Puts an entry where there is none, or finds that it is there already.
    async fn put_entry(&self, number: u64, header: &Header, content: Bytes) -> Result<(), Refusal> {
        let name = entry_name(number);
        let failed = |error| Refusal::of_bucket("write to", &name, &error);
        if self.bucket.put_new(&name, content).await.map_err(failed)? {
            return Ok(());
        }
        let found = read_whole(&*self.bucket, &name).await.map_err(failed)?;
        if read_header(&found).is_some_and(|found| found.id == header.id) {
            return Ok(());
        }
        tracing::error!(
            "another registry has taken over {}: this one changes nothing any more, and ends",
            self.bucket.address()
        );
        self.overtaken.send_replace(true);
        Err(overtaken())
    }

    /// Whether another server has begun, of one that writes nothing.
    pub(super) async fn look_around(&self) -> Result<(), Refusal> {
        let (last, next) = {
            let ship = self.ship.lock().await;
            if ship.unsettled.is_some() {
                return Ok(());
            }
            (entry_name(ship.position.next - 1), ship.position.next)
        };
        let failed = |error| Refusal::of_bucket("look through", "journal", &error);
        let found = self.bucket.list("journal/", Some(&last)).await.map_err(failed)?;
        if found.is_empty() || self.ship.lock().await.position.next != next {
            return Ok(());
        }
        tracing::error!("another registry has taken over {}: this one ends", self.bucket.address());
        self.overtaken.send_replace(true);
        Err(overtaken())
    }

    /// Makes a snapshot once the journal is long, and takes away what it has made needless. Everyone else goes on while it
    /// is on its way: what they change is in later entries.
    pub(super) async fn condense(&self, ledger: &Ledger, scratch: &Path) -> Result<(), Refusal> {
        let mut ship = self.ship.lock().await;
        if ship.entries_since_snapshot < SNAPSHOT_EVERY {
            return Ok(());
        }
        while self.put_one(&mut ship, ledger, false).await? {}
        let mut position = ship.position.clone();
        let dropped = position.fences.len().saturating_sub(FENCES_KEPT);
        position.fences.drain(..dropped);
        let header = Header::of_snapshot(&self.owner, &position, false);
        let (file, length) = snapshot_file(ledger, header, scratch).await?;
        (ship.position.fences, ship.entries_since_snapshot) = (position.fences.clone(), 0);
        drop(ship);
        put_snapshot(&self.bucket, &position, file, length).await?;
        failpoint("journal.snapshot");
        remove_needless(&*self.bucket, &position).await
    }
}

/// All rows in a file, which has no name any more.
pub(super) async fn snapshot_file(ledger: &Ledger, header: Header, scratch: &Path) -> Result<(File, u64), Refusal> {
    let (ledger, path) = (ledger.clone(), scratch.to_owned());
    blocking(move || {
        ledger.read(move |connection| {
            let written = write_snapshot(connection, &header, &path);
            let length = written.map_err(|error| Refusal::of_disk("write", &path, &error))?;
            let opened = File::open(&path).and_then(|file| std::fs::remove_file(&path).map(|()| file));
            Ok((opened.map_err(|error| Refusal::of_disk("open", &path, &error))?, length))
        })
    })
    .await
}

/// Puts such a file in its place.
pub(super) async fn put_snapshot(
    bucket: &Arc<dyn Bucket>,
    position: &Position,
    file: File,
    length: u64,
) -> Result<(), Refusal> {
    let name = snapshot_name(position.next - 1);
    let put = bucket.put_file(&name, Arc::new(file), length).await;
    put.map_err(|error| Refusal::of_bucket("write", &name, &error))
}

/// Entries and snapshots that the newest snapshot has all of. Numbers at which servers have begun stay taken.
async fn remove_needless(bucket: &dyn Bucket, position: &Position) -> Result<(), Refusal> {
    let newest = position.next - 1;
    let failed = |error| Refusal::of_bucket("look through", "journal", &error);
    let mut needless = Vec::new();
    let is_old = |name: &str| number_of(name).is_some_and(|number| number < newest);
    let is_fence = |name: &str| number_of(name).is_some_and(|number| position.fences.contains(&number));
    list_all(bucket, "journal/", |object| {
        if is_old(&object.name) && !is_fence(&object.name) {
            needless.push(object.name);
        }
    })
    .await
    .map_err(failed)?;
    list_all(bucket, "snapshot/", |object| {
        if is_old(&object.name) {
            needless.push(object.name);
        }
    })
    .await
    .map_err(failed)?;
    for name in needless {
        bucket.remove(&name).await.map_err(|error| Refusal::of_bucket("remove", &name, &error))?;
    }
    Ok(())
}

/// Has the index remember what changes, from this position on.
pub(super) fn begin(connection: &Connection, position: &Position) -> Result<(), Refusal> {
    capture::watch(connection)?;
    write_position(connection, position)
}

/// Writes rows as an entry or a snapshot has them.
pub(super) fn apply(connection: &Connection, changes: &[entry::Change], now: i64) -> Result<(), Refusal> {
    Ok(capture::apply(connection, changes, now)?)
}

fn write_position(connection: &Connection, position: &Position) -> Result<(), Refusal> {
    connection.execute("DELETE FROM journal_state", [])?;
    let next = i64::try_from(position.next).unwrap_or(i64::MAX);
    let fences = serde_json::json!(position.fences).to_string();
    connection.execute(
        "INSERT INTO journal_state (next, last, fences) VALUES (?1, ?2, ?3)",
        params![next, position.last, fences],
    )?;
    Ok(())
}

/// What the index on this disk says; `None`: it was never whole.
pub(super) fn read_position(connection: &Connection) -> Result<Option<Position>, Refusal> {
    let is_there: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'journal_state')",
        [],
        |row| row.get(0),
    )?;
    if !is_there {
        return Ok(None);
    }
    let found = connection.query_row("SELECT next, last, fences FROM journal_state", [], |row| {
        Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?, row.get::<_, String>(2)?))
    });
    Ok(found.optional()?.map(|(next, last, fences)| Position {
        next,
        last,
        fences: serde_json::from_str(&fences).unwrap_or_default(),
    }))
}

fn overtaken() -> Refusal {
    Refusal::new(Kind::Ending, "another registry has taken over what this one served")
}

/// A name that nobody has had before.
pub(super) fn fresh_name() -> String {
    UploadId::random().as_str().to_owned()
}
