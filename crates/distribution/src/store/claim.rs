//! A server begins with what lies in a bucket: it makes sure that nobody else serves it, has its rows on this disk as they
//! are there, and says that it has begun.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use dozen_ledger::Ledger;
use dozen_ledger::rusqlite::Connection;

use super::bucket::{Bucket, BucketError, list_all, read_whole};
use super::index::{Index, UploadRow, now};
use super::journal::{self, Header, Journal, Position, damaged, entry_name, number_of, snapshot_name};
use super::schema::MIGRATIONS;
use super::{OpenError, blocking};
use crate::failpoint::failpoint;
use crate::refusal::{Kind, Refusal};

/// So many rows are written at once.
const ROWS_AT_ONCE: usize = 1000;
/// Entries of a journal that are on their way at once: each is small, and takes as long as the way to the store and back.
const ENTRIES_AT_ONCE: usize = 16;

/// What of a journal lies in a bucket.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The newest.
    snapshot: Option<u64>,
    /// All, sorted.
    entries: Vec<u64>,
}

impl Found {
    pub(super) async fn look(bucket: &dyn Bucket) -> Result<Self, BucketError> {
        let mut found = Self::default();
        list_all(bucket, "snapshot/", |object| found.snapshot = number_of(&object.name).or(found.snapshot)).await?;
        list_all(bucket, "journal/", |object| found.entries.extend(number_of(&object.name))).await?;
        Ok(found)
    }

    /// The number of the last entry; `None`: there is no registry yet.
    pub(super) fn last(&self) -> Option<u64> {
        self.snapshot.max(self.entries.last().copied())
    }

    fn after_snapshot(&self) -> impl Iterator<Item = u64> {
        let snapshot = self.snapshot;
        self.entries.iter().copied().filter(move |number| Some(*number) > snapshot)
    }

    /// The header of what is last.
    pub(super) async fn last_header(&self, bucket: &dyn Bucket) -> Result<Option<Header>, OpenError> {
        let Some(last) = self.last() else { return Ok(None) };
        let name = if self.entries.last() == Some(&last) { entry_name(last) } else { snapshot_name(last) };
        let failed = |source| OpenError::Bucket { address: bucket.address(), source };
        let mut pieces = bucket.read(&name, None).await.map_err(failed)?;
        let mut first = Vec::new();
        while !first.contains(&b'\n') {
            let Some(piece) = pieces.recv().await else { break };
            first.extend_from_slice(&piece.map_err(failed)?);
        }
        let header = journal::read_header(&first).ok_or_else(|| damaged(&name, "it is no entry of a journal"))?;
        header.check().map_err(|why| damaged(&name, &why))?;
        Ok(Some(header))
    }
}

/// Whose the directory on this disk is: a name that it keeps.
pub(super) fn owner(local: &Path) -> std::io::Result<String> {
    let path = local.join("owner");
    match std::fs::read_to_string(&path) {
        Ok(owner) if !owner.is_empty() => return Ok(owner),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (owner, new) = (journal::fresh_name(), local.join("owner.new"));
    let mut file = std::fs::File::create(&new)?;
    file.write_all(owner.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, &path)?;
    Ok(owner)
}

/// Begins to serve a bucket. `takes_over`: also if another directory's server has not said that it is over.
pub(super) async fn begin(bucket: &Arc<dyn Bucket>, local: &Path, takes_over: bool) -> Result<Index, OpenError> {
    let address = || bucket.address();
    let owner = owner(local).map_err(|source| OpenError::Directory { path: local.to_owned(), source })?;
    let failed = |source| OpenError::Bucket { address: address(), source };
    let found = Found::look(&**bucket).await.map_err(failed)?;
    let last = found.last_header(&**bucket).await?;
    match &last {
        Some(last) if last.owner != owner && !last.closes && !takes_over => {
            return Err(OpenError::Claimed { address: address(), host: last.host.clone() });
        }
        None if !bucket.list("", None).await.map_err(failed)?.is_empty() => return Err(OpenError::Foreign(address())),
        _ => {}
    }
    let path = local.join("index.db");
    let (index, mut position, entries) = match at_hand(&path, &found, last.as_ref()).await? {
        AtHand::Index(index, position) => {
            let entries = position.next - 1 - found.snapshot.unwrap_or_default();
            (index, position, entries)
        }
        AtHand::Uploads(uploads) => {
            if last.is_some() {
                tracing::info!("reading the index from {}", address());
            }
            let position = restore(bucket, &found, &path).await?;
            let entries = found.after_snapshot().count() as u64;
            let index = Index::open(&path)?;
            for upload in uploads {
                index.record_upload(upload).await?;
            }
            (index, position, entries)
        }
    };
    put_header(bucket, &mut position, Header::opening(&owner)).await?;
    failpoint("journal.opened");
    let journal = Journal::new(bucket.clone(), owner, position.clone(), entries + 1);
    Ok(index.with_journal(journal, &position).await?)
}

/// Puts an entry that only says who begins or ends.
pub(super) async fn put_header(
    bucket: &Arc<dyn Bucket>,
    position: &mut Position,
    header: Header,
) -> Result<(), OpenError> {
    let failed = |source| OpenError::Bucket { address: bucket.address(), source };
    let name = entry_name(position.next);
    if !bucket.put_new(&name, journal::write_entry(&header, &[]).into()).await.map_err(failed)? {
        let there = read_whole(&**bucket, &name).await.map_err(failed)?;
        if journal::read_header(&there).is_none_or(|there| there.id != header.id) {
            return Err(OpenError::Claimed {
                address: bucket.address(),
                host: "another machine, at this moment".into(),
            });
        }
    }
    if header.opens {
        position.fences.push(position.next);
    }
    (position.next, position.last) = (position.next + 1, header.id);
    Ok(())
}

/// What is on this disk.
enum AtHand {
    /// All that the bucket has.
    Index(Index, Position),
    /// Nothing, or what is older or newer: a server that is killed when an entry is there and before it knows leaves such a
    /// one. Open uploads are here alone.
    Uploads(Vec<UploadRow>),
}

async fn at_hand(path: &Path, found: &Found, last: Option<&Header>) -> Result<AtHand, OpenError> {
    if !path.exists() {
        return Ok(AtHand::Uploads(Vec::new()));
    }
    let index = Index::open(path)?;
    let position = index.position().await?;
    let is_last = |position: &Position| {
        found.last() == position.next.checked_sub(1) && last.is_some_and(|last| last.id == position.last)
    };
    Ok(match position.filter(is_last) {
        Some(position) => AtHand::Index(index, position),
        None => AtHand::Uploads(index.uploads().await?),
    })
}

/// Makes the index anew of what lies in the bucket.
pub(super) async fn restore(bucket: &Arc<dyn Bucket>, found: &Found, path: &Path) -> Result<Position, OpenError> {
    for end in ["", "-wal", "-shm", "-reserve"] {
        let mut file = path.as_os_str().to_owned();
        file.push(end);
        match std::fs::remove_file(&file) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(OpenError::Directory { path: path.to_owned(), source });
            }
            _ => {}
        }
    }
    // For its tables.
    drop(Ledger::open(path, &MIGRATIONS)?);
    let mut position = Position { next: 1, last: String::new(), fences: Vec::new() };
    if found.last().is_none() {
        return Ok(position);
    }
    let mut connection = Connection::open(path).map_err(Refusal::from)?;
    // What belongs together comes one after the other; it is looked at in the end.
    connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF; BEGIN").map_err(Refusal::from)?;
    let failed = |source| OpenError::Bucket { address: bucket.address(), source };
    if let Some(number) = found.snapshot {
        let name = snapshot_name(number);
        let scratch = path.with_extension("snapshot");
        download(&**bucket, &name, &scratch).await?;
        let (header, back) = blocking(move || {
            let header = read_snapshot(&connection, &scratch, &name);
            let _ = std::fs::remove_file(&scratch);
            Ok((header?, connection))
        })
        .await?;
        connection = back;
        position = Position { next: number + 1, last: header.id, fences: header.fences };
    }
    let mut asked = found.after_snapshot().map(|number| {
        let (bucket, name) = (bucket.clone(), entry_name(number));
        (number, tokio::spawn(async move { read_whole(&*bucket, &name).await }))
    });
    let mut coming: VecDeque<_> = asked.by_ref().take(ENTRIES_AT_ONCE).collect();
    while let Some((number, content)) = coming.pop_front() {
        let name = entry_name(number);
        if number != position.next {
            return Err(damaged(&entry_name(position.next), "it is missing").into());
        }
        let content = content.await.map_err(|error| Refusal::new(Kind::Internal, error.to_string()))?;
        let content = content.map_err(failed)?;
        coming.extend(asked.next());
        let (header, changes) =
            journal::read_entry(&content).ok_or_else(|| damaged(&name, "it is no entry of a journal"))?;
        header.check().map_err(|why| damaged(&name, &why))?;
        connection = blocking(move || journal::apply(&connection, &changes, now()).map(|()| connection)).await?;
        if header.opens {
            position.fences.push(number);
        }
        (position.next, position.last) = (number + 1, header.id);
    }
    let checked = connection.prepare("PRAGMA foreign_key_check").and_then(|mut query| query.exists([]));
    if checked.map_err(Refusal::from)? {
        return Err(damaged("the journal", "its rows contradict each other").into());
    }
    connection.execute_batch("COMMIT").map_err(Refusal::from)?;
    Ok(position)
}

async fn download(bucket: &dyn Bucket, name: &str, to: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Directory { path: to.to_owned(), source };
    let unread = |source| OpenError::Bucket { address: bucket.address(), source };
    let mut file = std::fs::File::create(to).map_err(failed)?;
    let mut pieces = bucket.read(name, None).await.map_err(unread)?;
    while let Some(piece) = pieces.recv().await {
        file.write_all(&piece.map_err(unread)?).map_err(failed)?;
    }
    Ok(())
}

fn read_snapshot(connection: &Connection, path: &Path, name: &str) -> Result<Header, Refusal> {
    let unread = |error: std::io::Error| Refusal::of_disk("read", path, &error);
    let odd = |error: serde_json::Error| damaged(name, &error.to_string());
    let mut lines = BufReader::new(std::fs::File::open(path).map_err(unread)?).lines();
    let first = lines.next().transpose().map_err(unread)?.unwrap_or_default();
    let header: Header = serde_json::from_str(&first).map_err(odd)?;
    header.check().map_err(|why| damaged(name, &why))?;
    let mut changes = Vec::new();
    for line in lines {
        changes.push(serde_json::from_str(&line.map_err(unread)?).map_err(odd)?);
        if changes.len() == ROWS_AT_ONCE {
            journal::apply(connection, &changes, now())?;
            changes.clear();
        }
    }
    journal::apply(connection, &changes, now())?;
    Ok(header)
}
