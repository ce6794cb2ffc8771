//! Cache mounts: directories that outlive builds, by the names that Dockerfiles give them. A row first, then the directory.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use dozen_dockerfile::{Owner, Sharing};
use dozen_ledger::rusqlite::{Connection, OptionalExtension, params};
use dozen_ledger::{Durability, LedgerError, Migration};
use jiff::Timestamp;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::EngineError;
use crate::failpoint::failpoint;
use crate::shared::Shared;

/// The directories, by the names that they were asked for by.
pub(crate) const MIGRATION: Migration = Migration(
    "
CREATE TABLE cache_mount (
    name              TEXT NOT NULL,          -- as Dockerfiles have it: the id, or the target
    number            INTEGER NOT NULL,       -- 0; more for builds that want one of their own at the same time
    directory         TEXT NOT NULL UNIQUE,   -- its name below cache-mounts/
    created_s         INTEGER NOT NULL,
    last_used_s       INTEGER NOT NULL,
    PRIMARY KEY (name, number)
) STRICT;
",
);

/// Below the data root.
const NAME: &str = "cache-mounts";

/// Who has which one now.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    locked: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
    /// How many have the first of a name, and who of several has which.
    used: Mutex<HashMap<(String, u32), usize>>,
}

/// A cache that a step has; given back when it is dropped.
#[derive(Debug)]
pub(super) struct UsedCache {
    pub(super) path: PathBuf,
    caches: Arc<Caches>,
    place: (String, u32),
    _alone: Option<OwnedMutexGuard<()>>,
}

impl Drop for UsedCache {
    fn drop(&mut self) {
        let mut used = self.caches.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = used.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                used.remove(&self.place);
            }
        }
    }
}

/// The directory of a name, made if it is missing: who asks for it `locked` waits until nobody else who asked so has it, who
/// asks for it `private` has one that nobody else has.
pub(super) async fn open(
    shared: &Arc<Shared>,
    name: &str,
    sharing: Sharing,
    owner: Owner,
) -> Result<UsedCache, EngineError> {
    let caches = shared.caches.clone();
    let alone = match sharing {
        Sharing::Locked => {
            let mut locked = caches.locked.lock().unwrap_or_else(PoisonError::into_inner);
            locked.retain(|_, lock| Arc::strong_count(lock) > 1);
            Some(locked.entry(name.to_owned()).or_default().clone())
        }
        Sharing::Shared | Sharing::Private => None,
    };
    let alone = match alone {
        Some(lock) => Some(lock.lock_owned().await),
        None => None,
    };
    let number = {
        let mut used = caches.used.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = |number: &u32| !used.contains_key(&(name.to_owned(), *number));
        let number = match sharing {
            Sharing::Private => (0..).find(is_free).expect("numbers do not end"),
            Sharing::Shared | Sharing::Locked => 0,
        };
        *used.entry((name.to_owned(), number)).or_default() += 1;
        number
    };
    let place = (name.to_owned(), number);
    let mut cache = UsedCache { path: PathBuf::new(), caches, place, _alone: alone };
    let (shared_too, name) = (shared.clone(), name.to_owned());
    cache.path = shared.blocking(move || directory(&shared_too, &name, number, owner)).await?;
    Ok(cache)
}

fn directory(shared: &Shared, name: &str, number: u32, owner: Owner) -> Result<PathBuf, EngineError> {
    let now_s = Timestamp::now().as_second();
    let fresh = dozen_model::ContainerId::random().short().to_owned();
    let wanted = name.to_owned();
    failpoint("build.cache.before");
    let known =
        shared.ledger.write(Durability::Kill, move |connection| row(connection, &wanted, number, &fresh, now_s))?;
    failpoint("build.cache.row");
    let path = shared.config.data_root.join(NAME).join(known);
    let failed = |error| EngineError::system(|| format!("make the directory {}", path.display()))(error);
    if !path.exists() {
        let above = shared.config.data_root.join(NAME);
        DirBuilder::new().recursive(true).mode(0o700).create(&above).map_err(failed)?;
        let mode = owner.mode.unwrap_or(0o755);
        // With its owner before it has its name.
        let made = above.join(format!(".{}", dozen_model::ContainerId::random().short()));
        let whole = DirBuilder::new().mode(0o700).create(&made).and_then(|()| {
            std::os::unix::fs::chown(&made, Some(owner.user.unwrap_or(0)), Some(owner.group.unwrap_or(0)))?;
            std::fs::set_permissions(&made, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
            std::fs::rename(&made, &path)
        });
        // Another step was faster.
        if let Err(error) = whole {
            let _ = std::fs::remove_dir(&made);
            if !path.exists() {
                return Err(failed(error));
            }
        }
        failpoint("build.cache.made");
    }
    Ok(path)
}

/// The directory's name.
fn row(connection: &Connection, name: &str, number: u32, fresh: &str, now_s: i64) -> Result<String, LedgerError> {
    let known = connection
        .query_row("SELECT directory FROM cache_mount WHERE name = ?1 AND number = ?2", params![name, number], |row| {
            row.get::<_, String>(0)
        })
        .optional()?;
    match known {
        Some(directory) => {
            connection.execute(
                "UPDATE cache_mount SET last_used_s = ?3 WHERE name = ?1 AND number = ?2",
                params![name, number, now_s],
            )?;
            Ok(directory)
        }
        None => {
            connection
                .execute("INSERT INTO cache_mount VALUES (?1, ?2, ?3, ?4, ?4)", params![name, number, fresh, now_s])?;
            Ok(fresh.to_owned())
        }
    }
}
