//! `diff`: what a container has changed of its image, read from its layers without a mount.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use dozen_model::ImageId;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::ImageError;
use crate::names::shown;
use crate::pack::PackError;
use crate::store::ImageStore;
use crate::tree;
use crate::union::{Layers, Union};

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is another, or, of a directory, something in it.
    Modified,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

impl ImageStore {
    /// What differs between an image and what a container made of it, by path, sorted. `upper` may be mounted and in use:
    /// what goes away meanwhile is left out. `hidden` are paths that the engine makes for itself, without their first
    /// slash; they and what was touched by making them are not told.
    pub fn changes(
        &self,
        base: &ImageId,
        upper: &Path,
        hidden: &dyn Fn(&[u8]) -> bool,
    ) -> Result<BTreeMap<Vec<u8>, ChangeKind>, ImageError> {
        let gone = || ImageError::NoSuchImage(base.to_string());
        let diff_ids = self.0.read_state().diff_ids(base)?;
        let _pins = diff_ids.iter().map(|id| self.0.pin(id).ok_or_else(gone)).collect::<Result<Vec<_>, _>>()?;
        let lower = self.lower_directories(base)?;
        let open = |(path, error): (&Path, Errno)| ImageError::io("open", path.display())(error);
        let image = Union::open(lower.iter().map(|path| path.as_path())).map_err(open)?;
        let written = Union::open([upper]).map_err(open)?;
        changes(&image, &written, hidden).map_err(ImageError::exporting)
    }
}

/// A directory that both have: what is in it decides whether it is told.
struct Directory {
    path: Vec<u8>,
    layers: Layers,
}

fn changes(
    image: &Union,
    written: &Union,
    hidden: &dyn Fn(&[u8]) -> bool,
) -> Result<BTreeMap<Vec<u8>, ChangeKind>, PackError> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![Directory { path: Vec::new(), layers: image.everywhere() }];
    let mut added: Vec<Vec<u8>> = Vec::new();
    while let Some(Directory { path, layers }) = waiting.pop() {
        let failed = |source| PackError::Read { path: shown(&path), source };
        let directory = match tree::open_no_links(written.layer(0), &path, tree::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            directory => directory.map_err(failed)?,
        };
        let below: BTreeMap<Vec<u8>, Layers> = image.list(&path, &layers).map_err(failed)?.into_iter().collect();
        let names = tree::names(directory.as_fd()).map_err(failed)?;
        let (mut touched, mut is_told) = (false, false);
        let is_opaque = tree::xattrs(directory.as_fd(), b".").map_err(failed)?;
        if is_opaque.iter().any(|(name, value)| name == tree::OPAQUE.to_bytes() && value == b"y") {
            // It hides all that the image has there.
            for name in below.keys().filter(|name| names.binary_search(name).is_err()) {
                is_told |= tell(&mut found, hidden, tree::join(&path, name), ChangeKind::Deleted);
            }
        }
        for name in names {
            let at = tree::join(&path, &name);
            let Some(stat) = tree::stat(directory.as_fd(), &name).map_err(failed)? else { continue };
            let before = below.get(&name);
            if hidden(&at) {
                touched = true;
                continue;
            }
            let is_directory = tree::file_type(&stat) == FileType::Directory;
            let kind = match before {
                Some(_) if tree::is_whiteout(&stat) => ChangeKind::Deleted,
                None if tree::is_whiteout(&stat) => continue,
                Some(layers) if is_directory && is_directory_of(image, layers, &at).map_err(failed)? => {
                    waiting.push(Directory { path: at, layers: layers.clone() });
                    continue;
                }
                Some(_) => ChangeKind::Modified,
                None => ChangeKind::Added,
            };
            if is_directory {
                added.push(at.clone());
            }
            is_told |= tell(&mut found, hidden, at, kind);
        }
        let own = rustix::fs::fstat(&directory).map_err(failed)?;
        let before = stat_of(image, &layers, &path).map_err(failed)?;
        let differs = before.is_none_or(|before| is_other(&own, &before, touched));
        if !path.is_empty() && (is_told || differs) {
            tell(&mut found, hidden, path.clone(), ChangeKind::Modified);
        }
    }
    while let Some(path) = added.pop() {
        let failed = |source| PackError::Read { path: shown(&path), source };
        let directory = match tree::open_no_links(written.layer(0), &path, tree::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            directory => directory.map_err(failed)?,
        };
        for name in tree::names(directory.as_fd()).map_err(failed)? {
            let at = tree::join(&path, &name);
            let Some(stat) = tree::stat(directory.as_fd(), &name).map_err(failed)? else { continue };
            if tree::is_whiteout(&stat) || hidden(&at) {
                continue;
            }
            if tree::file_type(&stat) == FileType::Directory {
                added.push(at.clone());
            }
            found.insert(at, ChangeKind::Added);
        }
    }
    // A directory is told with what is in it.
    let told: Vec<Vec<u8>> = found.keys().cloned().collect();
    for path in told {
        let mut above = tree::split(&path).0;
        while !above.is_empty() && !found.contains_key(above) {
            found.insert(above.to_vec(), ChangeKind::Modified);
            above = tree::split(above).0;
        }
    }
    Ok(found)
}

fn tell(
    found: &mut BTreeMap<Vec<u8>, ChangeKind>,
    hidden: &dyn Fn(&[u8]) -> bool,
    path: Vec<u8>,
    kind: ChangeKind,
) -> bool {
    let is_told = !hidden(&path);
    if is_told {
        found.insert(path, kind);
    }
    is_told
}

fn stat_of(image: &Union, layers: &Layers, path: &[u8]) -> Result<Option<Stat>, Errno> {
    let Some(top) = layers.first() else { return Ok(None) };
    match tree::open_no_links(image.layer(*top), path, rustix::fs::OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        found => rustix::fs::fstat(found?).map(Some),
    }
}

fn is_directory_of(image: &Union, layers: &Layers, path: &[u8]) -> Result<bool, Errno> {
    Ok(stat_of(image, layers, path)?.is_some_and(|stat| tree::file_type(&stat) == FileType::Directory))
}

/// By owner and mode, and by its time where nothing of the engine's own was made in it.
fn is_other(now: &Stat, before: &Stat, touched: bool) -> bool {
    let of = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
    of(now) != of(before) || (!touched && time(now) != time(before))
}
