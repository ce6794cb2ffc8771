//! Filling a volume that is there and empty: all or nothing, whatever dies in the middle.
//!
//! It is filled beside itself: in `_filling`, which is then renamed `_filled` and emptied into `_data`, name by name. What a
//! crash leaves of the first is thrown away, of the second carried on: nobody ever takes a half for the whole, and a
//! container that has the volume mounted keeps the very directory that it has.
//!
//! Into another file system, which is mounted on `_data`, nothing can be renamed. There it is done in a directory of ours
//! in that file system, whose name has the engine's own in it, since engines of other machines may use it too. What a crash
//! has left there is seen to by the next who fills the volume or mounts it. Others see that directory meanwhile, and may
//! write beside it: theirs stays.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use dozen_model::VolumeName;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::{Claim, Volumes, read_directory, remove_tree, warn_and_go_on};
use crate::EngineError;
use crate::failpoint::failpoint;

/// In the volume's own directory, or in ours within another file system.
pub(super) const FILLING: &str = "_filling";
pub(super) const FILLED: &str = "_filled";

/// Where what is to be in a volume is until all of it is there.
#[derive(Debug)]
pub(super) struct Staging {
    data: PathBuf,
    directory: PathBuf,
    /// The directory is on the volume's file system, made for this alone.
    is_within: bool,
}

impl Staging {
    /// In the directory in which the volume's data is.
    pub(super) fn beside(data: &Path) -> Self {
        let directory = data.parent().unwrap_or(data).to_owned();
        Self { data: data.to_owned(), directory, is_within: false }
    }

    /// In the file system that is mounted there.
    pub(super) fn within(data: &Path, engine: &str) -> Self {
        Self { data: data.to_owned(), directory: data.join(own_name(engine)), is_within: true }
    }

    /// An empty directory, for what is copied.
    fn begin(&self) -> Result<Opened, EngineError> {
        if self.is_within {
            make(&self.directory)?;
        }
        let place = self.open()?.ok_or_else(|| EngineError::System {
            action: format!("open {}", self.directory.display()),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        make(&place.path.join(FILLING))?;
        place.enter(FILLING)?.ok_or_else(|| EngineError::System {
            action: format!("open {}", place.path.join(FILLING).display()),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }

    /// All is there: from now on it is the volume's, whatever happens.
    fn commit(&self) -> Result<(), EngineError> {
        let Some(place) = self.open()? else { return Ok(()) };
        let renamed = std::fs::rename(place.path.join(FILLING), place.path.join(FILLED));
        renamed.map_err(EngineError::system(|| format!("rename {}", self.directory.join(FILLING).display())))
    }

    /// What an interrupted filling has left: nothing of it, or all.
    pub(super) fn finish(&self) -> Result<(), EngineError> {
        let Some(place) = self.open()? else { return Ok(()) };
        if self.is_within && !place.is_ours()? {
            return remove_tree(&self.directory);
        }
        remove_tree(&place.path.join(FILLING))?;
        if let Some(filled) = place.enter(FILLED)? {
            dozen_image::pour(&filled.path, &self.data)?;
        }
        remove_tree(&place.path.join(FILLED))?;
        if self.is_within { self.remove_unseen() } else { Ok(()) }
    }

    /// `None`: there is none. What is no directory of ours goes.
    fn open(&self) -> Result<Option<Opened>, EngineError> {
        if !self.is_within {
            return Ok(Some(Opened { path: self.directory.clone(), descriptor: None }));
        }
        match Opened::at(&self.directory) {
            Err(Errno::LOOP | Errno::NOTDIR) => remove_tree(&self.directory).map(|()| None),
            Err(Errno::NOENT) => Ok(None),
            opened => Ok(Some(opened.map_err(failed_to_open(&self.directory))?)),
        }
    }

    /// Takes our directory out of the volume, which keeps its times.
    fn remove_unseen(&self) -> Result<(), EngineError> {
        let looked = std::fs::metadata(&self.data);
        let before = looked.map_err(EngineError::system(|| format!("look at {}", self.data.display())))?;
        remove_tree(&self.directory)?;
        let times = Timestamps {
            last_access: Timespec { tv_sec: before.atime(), tv_nsec: before.atime_nsec() },
            last_modification: Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() },
        };
        // A file system that has none is as good.
        let _ = rustix::fs::utimensat(CWD, &self.data, &times, AtFlags::SYMLINK_NOFOLLOW);
        Ok(())
    }
}

/// A directory. Where others may write it is held by its descriptor: what they put in its place meanwhile is never come to.
#[derive(Debug)]
struct Opened {
    /// Of it, whatever its name is by now.
    path: PathBuf,
    descriptor: Option<OwnedFd>,
}

impl Opened {
    /// The last part of the path is no link.
    fn at(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { path: format!("/proc/self/fd/{}", descriptor.as_raw_fd()).into(), descriptor: Some(descriptor) })
    }

    /// `None`: there is none, but perhaps something else.
    fn enter(&self, name: &str) -> Result<Option<Self>, EngineError> {
        let path = self.path.join(name);
        match Self::at(&path) {
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(None),
            opened => Ok(Some(opened.map_err(failed_to_open(&path))?)),
        }
    }

    /// Who else may write there could have it carried on what we never copied.
    fn is_ours(&self) -> Result<bool, EngineError> {
        let Some(descriptor) = &self.descriptor else { return Ok(true) };
        let stat = rustix::fs::fstat(descriptor).map_err(failed_to_open(&self.path))?;
        Ok(stat.st_uid == 0 && stat.st_mode & 0o077 == 0)
    }
}

fn failed_to_open(path: &Path) -> impl FnOnce(Errno) -> EngineError {
    let action = format!("open {}", path.display());
    move |errno| EngineError::System { action, source: errno.into() }
}

fn make(directory: &Path) -> Result<(), EngineError> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(directory);
    made.map_err(EngineError::system(|| format!("make {}", directory.display())))
}

/// Of a file system that has just been mounted, before anybody uses it: what an earlier engine has left half done there.
pub(super) fn recover(place: &Path, engine: &str) {
    let what = "what an interrupted copy has left in a volume is still there; the next mount tries again";
    warn_and_go_on(what, place, Staging::within(place, engine).finish());
}

/// By which name our directory goes in other file systems.
fn own_name(engine: &str) -> String {
    format!(".dozen-filling-{}", engine.get(..12).unwrap_or(engine))
}

impl Volumes {
    /// Gives an empty volume what `copy` copies into the directory that it is given, and nothing if it says that there is
    /// nothing. A volume that is `prepared` is nobody's yet, and filled in place.
    pub(crate) fn fill(
        &self,
        name: &VolumeName,
        prepared: bool,
        _claim: &Claim,
        copy: impl FnOnce(&Path) -> Result<bool, EngineError>,
    ) -> Result<(), EngineError> {
        let staging = self.staging(name)?;
        staging.finish()?;
        if !self.content(name)?.is_empty() {
            return Ok(());
        }
        if prepared && !staging.is_within {
            return copy(&staging.data).map(drop);
        }
        let filling = staging.begin()?;
        failpoint("volume.filling");
        match copy(&filling.path) {
            Ok(true) => {}
            other => {
                let undone = if staging.is_within { staging.remove_unseen() } else { staging.finish() };
                return other.and(undone);
            }
        }
        failpoint("volume.copied");
        staging.commit()?;
        failpoint("volume.filled");
        staging.finish()?;
        failpoint("volume.poured");
        Ok(())
    }

    /// What an interrupted filling has left: nothing of it, or all. What is to be mounted there is.
    pub(crate) fn finish_filling(&self, name: &VolumeName) -> Result<(), EngineError> {
        self.staging(name)?.finish()
    }

    /// The names in it, without ours.
    pub(crate) fn content(&self, name: &VolumeName) -> Result<Vec<OsString>, EngineError> {
        let own = own_name(&self.engine);
        Ok(read_directory(&self.mountpoint(name))?.into_iter().filter(|entry| *entry != *own).collect())
    }

    fn staging(&self, name: &VolumeName) -> Result<Staging, EngineError> {
        let data = self.mountpoint(name);
        Ok(match dozen_runtime::is_mount_point(&data)? {
            true => Staging::within(&data, &self.engine),
            false => Staging::beside(&data),
        })
    }
}

#[cfg(test)]
mod tests;
