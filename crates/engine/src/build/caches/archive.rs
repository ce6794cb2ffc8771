//! A cache mount as one tar archive, and from one: to another machine, or from the machine before this one.

use std::fs::DirBuilder;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use jiff::Timestamp;

use super::rows::{self, CacheRow};
use super::{Place, fresh_name, make_above, path, remove};
use crate::failpoint::failpoint;
use crate::volumes::{read_directory, remove_tree, warn_and_go_on};
use crate::{Engine, EngineError};

/// A name is a path in a container, or a word.
const NAME_LIMIT_BYTES: usize = 4096;

impl Engine {
    /// Writes what a cache mount holds. Not while a build has it; one that begins meanwhile is not held up, and then this
    /// fails, since nobody could say what has been read. Blocks.
    pub fn export_cache_mount(&self, name: &str, out: &mut dyn Write) -> Result<(), EngineError> {
        let rows = self.cache_mounts(name)?;
        let row = rows.first().ok_or_else(|| EngineError::NoSuchCacheMount(name.to_owned()))?;
        let Some(read) = self.shared.caches.read(&row.place) else { return Err(in_use("export", name)) };
        dozen_image::export_directory(&path(&self.shared, &row.directory), out)?;
        if read.is_undisturbed() { Ok(()) } else { Err(in_use("export", name)) }
    }

    /// Fills a cache mount that is missing or empty with an archive's content: all of it, or, whatever fails or dies,
    /// nothing. Blocks.
    pub fn import_cache_mount(&self, name: &str, archive: &mut dyn Read) -> Result<(), EngineError> {
        if name.is_empty() || name.len() > NAME_LIMIT_BYTES || name.contains('\0') {
            return Err(EngineError::Invalid {
                message: "import: a cache mount's name has 1 to 4096 bytes, none of them 0".into(),
                hint: Some("it is what --mount=type=cache has as id=, or else as target=".into()),
            });
        }
        let shared = &self.shared;
        let place = Place { name: name.to_owned(), number: 0 };
        let here = || -> Result<Option<CacheRow>, EngineError> {
            Ok(rows::all(&shared.ledger)?.into_iter().find(|row| row.place == place))
        };
        let check_empty = |row: &CacheRow| match read_directory(&path(shared, &row.directory)) {
            Ok(names) if !names.is_empty() => Err(EngineError::Conflict {
                message: format!("import {name}: the cache mount is not empty"),
                hint: Some(format!("dozen builder cache rm {name} first")),
            }),
            _ => Ok(()),
        };
        let known = here()?;
        known.iter().try_for_each(check_empty)?;
        // Without a row it is nobody's, and goes at the next start.
        let fresh = fresh_name();
        let filling = make_above(shared)?.join(&fresh);
        let like = known.map(|row| path(shared, &row.directory));
        let filled = fill(archive, &filling, like.as_deref()).and_then(|()| {
            failpoint("cache_import.filled");
            let taken = shared.caches.take(&place).ok_or_else(|| in_use("import", name))?;
            let before = here()?;
            before.iter().try_for_each(check_empty)?;
            rows::place(&shared.ledger, &place, fresh.clone(), Timestamp::now().as_second())?;
            failpoint("cache_import.row");
            drop(taken);
            Ok(before)
        });
        match filled {
            Ok(before) => {
                if let Some(before) = before {
                    let path = path(shared, &before.directory);
                    warn_and_go_on("cannot remove an empty cache mount", &path, remove_tree(&path));
                }
                failpoint("cache_import.after");
                Ok(())
            }
            Err(error) => {
                warn_and_go_on("cannot undo an import", &filling, remove_tree(&filling));
                Err(error)
            }
        }
    }

    /// Removes a cache mount with what it holds, by its name or its id. Blocks.
    pub fn remove_cache_mount(&self, name: &str) -> Result<(), EngineError> {
        for row in self.cache_mounts(name)? {
            if !remove(&self.shared, &row)? {
                return Err(in_use("remove", name));
            }
        }
        Ok(())
    }

    /// Of this name, the first one first, or the one with this id.
    fn cache_mounts(&self, name: &str) -> Result<Vec<CacheRow>, EngineError> {
        let (named, others): (Vec<_>, Vec<_>) =
            rows::all(&self.shared.ledger)?.into_iter().partition(|row| row.place.name == name);
        let found = match named.is_empty() {
            true => others.into_iter().filter(|row| row.directory == name).collect(),
            false => named,
        };
        if found.is_empty() { Err(EngineError::NoSuchCacheMount(name.to_owned())) } else { Ok(found) }
    }
}

/// `like`: whose owner and mode it has, unless the archive says.
fn fill(archive: &mut dyn Read, into: &Path, like: Option<&Path>) -> Result<(), EngineError> {
    let failed = EngineError::system(|| format!("make the directory {}", into.display()));
    let make = || {
        DirBuilder::new().mode(0o755).create(into)?;
        if let Some(like) = like.and_then(|like| std::fs::metadata(like).ok()) {
            std::os::unix::fs::chown(into, Some(like.uid()), Some(like.gid()))?;
            std::fs::set_permissions(into, like.permissions())?;
        }
        Ok::<_, std::io::Error>(())
    };
    make().map_err(failed)?;
    let free = rustix::fs::statvfs(into).map_err(EngineError::system(|| format!("look at {}", into.display())))?;
    Ok(dozen_image::import_directory(archive, into, free.f_bavail.saturating_mul(free.f_frsize))?)
}

fn in_use(verb: &str, name: &str) -> EngineError {
    EngineError::Conflict {
        message: format!("{verb} {name}: a build has the cache mount"),
        hint: Some("wait until the build is over".into()),
    }
}
