//! Cache mounts: directories that outlive builds, by the names that Dockerfiles give them. A row first, then the directory;
//! when one is removed, its row goes first.

mod archive;
mod beginning;
pub(crate) mod rows;
mod uses;

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dozen_dockerfile::{Owner, Sharing};
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags};

pub(super) use self::beginning::Beginning;
use self::rows::CacheRow;
pub(super) use self::uses::UsedCache;
pub(crate) use self::uses::{Caches, Place};
use crate::EngineError;
use crate::failpoint::failpoint;
use crate::shared::Shared;
use crate::volumes::{read_directory, remove_tree, warn_and_go_on};

/// Below the data root.
const NAME: &str = "cache-mounts";

/// The directory of a name, made if it is missing.
pub(super) async fn open(
    shared: &Arc<Shared>,
    name: &str,
    sharing: Sharing,
    owner: Owner,
    beginning: Beginning,
) -> Result<UsedCache, EngineError> {
    let mut cache = shared.caches.begin(&beginning.name(name), sharing).await;
    let (shared_too, place) = (shared.clone(), cache.place.clone());
    cache.path = shared.blocking(move || directory(&shared_too, &place, owner, &beginning)).await?;
    Ok(cache)
}

/// Where a cache's directory is.
pub(super) fn path(shared: &Shared, directory: &str) -> PathBuf {
    shared.config.data_root.join(NAME).join(directory)
}

fn fresh_name() -> String {
    dozen_model::ContainerId::random().short().to_owned()
}

/// Whether a directory has such a name.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() == 12 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn directory(shared: &Shared, place: &Place, owner: Owner, beginning: &Beginning) -> Result<PathBuf, EngineError> {
    failpoint("build.cache.before");
    let known = rows::used(&shared.ledger, place, fresh_name(), Timestamp::now().as_second())?;
    failpoint("build.cache.row");
    let path = path(shared, &known);
    if !path.exists() {
        let above = make_above(shared)?;
        // With its owner and its files before it has its name.
        let made = above.join(format!(".{}", fresh_name()));
        let whole = beginning.make(shared, &made, owner).and_then(|()| {
            failpoint("build.cache.filled");
            // Never over one that another step has mounted, if only an empty one.
            let renamed = rustix::fs::renameat_with(CWD, &made, CWD, &path, RenameFlags::NOREPLACE);
            renamed.map_err(EngineError::system(|| format!("make the directory {}", path.display())))
        });
        if let Err(error) = whole {
            warn_and_go_on("cannot remove it; the next start tries again", &made, remove_tree(&made));
            // Another step was faster.
            if !path.exists() {
                return Err(error);
            }
        }
        failpoint("build.cache.made");
    }
    Ok(path)
}

fn make_above(shared: &Shared) -> Result<PathBuf, EngineError> {
    let above = shared.config.data_root.join(NAME);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&above);
    made.map_err(EngineError::system(|| format!("make the directory {}", above.display()))).map(|()| above)
}

/// Removes one with what it holds; false while a build has it, or somebody reads it. Blocks.
pub(super) fn remove(shared: &Shared, row: &CacheRow) -> Result<bool, EngineError> {
    let Some(taken) = shared.caches.take(&row.place) else { return Ok(false) };
    failpoint("cache_remove.before");
    rows::delete(&shared.ledger, vec![row.directory.clone()])?;
    failpoint("cache_remove.row");
    // A build that wants it makes a new one.
    drop(taken);
    remove_tree(&path(shared, &row.directory))?;
    failpoint("cache_remove.after");
    Ok(true)
}

/// Of an engine that starts: directories without a row go, and so do rows without a directory. Blocks.
pub(crate) fn mend(shared: &Shared) -> Result<(), EngineError> {
    let above = shared.config.data_root.join(NAME);
    let known = rows::all(&shared.ledger)?;
    if above.exists() {
        let owned: HashSet<&str> = known.iter().map(|row| row.directory.as_str()).collect();
        for name in read_directory(&above)? {
            if name.to_str().is_some_and(|name| owned.contains(name)) {
                continue;
            }
            let path: &Path = &above.join(name);
            tracing::info!(path = %path.display(), "removing what belongs to no cache mount");
            warn_and_go_on("cannot remove it; the next start tries again", path, remove_tree(path));
        }
    }
    let is_lost = |row: &CacheRow| !path(shared, &row.directory).exists();
    let lost: Vec<String> = known.into_iter().filter(is_lost).map(|row| row.directory).collect();
    if !lost.is_empty() {
        rows::delete(&shared.ledger, lost)?;
    }
    Ok(())
}
