//! Filling an empty volume with what an image has at the place where the volume is mounted.
//!
//! The image is read through its layers as a container would see it, the path is resolved as if the image were `/`,
//! and what is copied is never followed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use dozen_model::{Digest, ImageId, error_chain};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, Stat, Uid};
use rustix::io::Errno;

use crate::ImageError;
use crate::failpoint::failpoint;
use crate::snapshot::{discard, is_gone, share_one};
use crate::store::ImageStore;
use crate::tree::{self, Place};

/// What an image has somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain")]
pub enum PlaceInImage {
    Nothing,
    Directory,
    /// Or anything else that is no directory.
    File,
}

/// Layers above one another, the topmost first. `None`: there are none.
fn root_of(lower: &[PathBuf]) -> Result<Option<OwnedFd>, ImageError> {
    match lower {
        [] => Ok(None),
        // An overlay needs two directories, and one is what it shows.
        [only] => tree::open_root(only).map(Some).map_err(ImageError::io("open", only.display())),
        several => {
            let stacked = dozen_runtime::overlay::mount_detached(several, None);
            stacked.map(Some).map_err(io::Error::other).map_err(ImageError::io("stack the layers of", "an image"))
        }
    }
}

impl ImageStore {
    /// Whether an image has a directory there, which [`ImageStore::copy_up`] would copy.
    pub fn has_directory(&self, id: &ImageId, path_in_image: &Path) -> Result<bool, ImageError> {
        Ok(self.directory(id, path_in_image)?.is_some())
    }

    /// `None`: it has none. What it is in may be removed meanwhile, unless it is pinned.
    fn directory(&self, id: &ImageId, path_in_image: &Path) -> Result<Option<OwnedFd>, ImageError> {
        self.directory_of(&self.lower_directories(id)?, path_in_image)
    }

    /// What an image has there, a link followed. Blocks.
    pub fn place_in_image(&self, id: &ImageId, path_in_image: &Path) -> Result<PlaceInImage, ImageError> {
        let pins = self.0.read_state().diff_ids(id)?;
        let _pins: Vec<_> = pins.iter().filter_map(|layer| self.0.pin(layer)).collect();
        let Some(root) = root_of(&self.lower_directories(id)?)? else { return Ok(PlaceInImage::Nothing) };
        let failed = ImageError::io("look in the image at", path_in_image.display());
        let path = path_in_image.as_os_str().as_bytes();
        match tree::open_in_root(root.as_fd(), path, OFlags::PATH).and_then(rustix::fs::fstat) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(PlaceInImage::Nothing),
            found => match FileType::from_raw_mode(found.map_err(failed)?.st_mode) {
                FileType::Directory => Ok(PlaceInImage::Directory),
                _ => Ok(PlaceInImage::File),
            },
        }
    }

    /// `lower`: the topmost first.
    fn directory_of(&self, lower: &[PathBuf], path_in_image: &Path) -> Result<Option<OwnedFd>, ImageError> {
        let Some(root) = root_of(lower)? else { return Ok(None) };
        let path = path_in_image.as_os_str().as_bytes();
        match tree::open_in_root(root.as_fd(), path, tree::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            found => Ok(Some(found.map_err(ImageError::io("open in the image", path_in_image.display()))?)),
        }
    }

    /// Copies what an image has at `path_in_image` into `destination`, an empty directory of the host's: content, owners,
    /// modes, times, attributes and links. `destination` itself takes owner, mode and attributes of the directory in the
    /// image. False, and nothing done, if the image has no directory there. A failure leaves `destination` empty.
    ///
    /// What was copied is safe from a power cut by one syncfs(2), for whoever then writes down that it is there: a volume
    /// that is not empty is not filled again. Nothing copied, nothing synced.
    pub fn copy_up(&self, id: &ImageId, path_in_image: &Path, destination: &Path) -> Result<bool, ImageError> {
        let pins = self.0.read_state().diff_ids(id)?;
        let _pins: Vec<_> = pins.iter().filter_map(|diff_id| self.0.pin(diff_id)).collect();
        let source = self.directory(id, path_in_image)?;
        source.map_or(Ok(false), |source| copy_out(source, path_in_image, destination).map(|()| true))
    }

    /// The same of layers, lowest first, that the caller holds.
    pub fn copy_layers_up(
        &self,
        layers: &[Digest],
        path_in_image: &Path,
        destination: &Path,
    ) -> Result<bool, ImageError> {
        let source = self.directory_of(&self.directories_of(layers)?, path_in_image)?;
        source.map_or(Ok(false), |source| copy_out(source, path_in_image, destination).map(|()| true))
    }
}

/// What a directory of an image has, into an empty one of the host's.
fn copy_out(source: OwnedFd, path_in_image: &Path, destination: &Path) -> Result<(), ImageError> {
    let target = tree::open_root(destination).map_err(ImageError::io("open", destination.display()))?;
    let copied = copy_tree(source.as_fd(), target.as_fd(), Manner::OfImage).map_err(|Failure { path, error }| {
        let shown = path_in_image.join(std::ffi::OsStr::from_bytes(&path));
        ImageError::io("copy from the image", shown.display())(error)
    });
    let synced = copied.and_then(|anything| {
        if anything {
            failpoint("image.copied");
            rustix::fs::syncfs(&target).map_err(ImageError::io("sync", destination.display()))?;
        }
        Ok(())
    });
    if let Err(error) = synced {
        for name in tree::names(target.as_fd()).unwrap_or_default() {
            if let Err(error) = tree::remove(target.as_fd(), &name) {
                let error = error_chain(&error);
                tracing::warn!(path = %destination.display(), error, "cannot empty the volume again");
            }
        }
        return Err(error);
    }
    Ok(())
}

/// Moves all that is in one directory into another on the same file system, name by name, and gives this one the other's
/// owner, mode, attributes and times. What has a name there already stays, and the other beside it. Each name is there
/// whole or not at all, so that what was interrupted is carried on by doing it again.
pub fn pour(from: &Path, into: &Path) -> Result<(), ImageError> {
    let pour = || -> io::Result<()> {
        let (source, target) = (tree::open_root(from)?, tree::open_root(into)?);
        let stat = rustix::fs::fstat(&source)?;
        for name in tree::names(source.as_fd())? {
            match rename_unless_there(source.as_fd(), &name, target.as_fd()) {
                Ok(()) | Err(Errno::EXIST) => failpoint("image.poured"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(dress(source.as_fd(), target.as_fd(), &stat, Manner::OfImage)?)
    };
    pour().map_err(ImageError::io("fill", into.display()))
}

/// A server's file system need not know how to do it in one step (rename(2), EINVAL); then it is looked before.
fn rename_unless_there(from: BorrowedFd<'_>, name: &[u8], into: BorrowedFd<'_>) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from, name, into, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL) => match rustix::fs::statat(into, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => rustix::fs::renameat(from, name, into, name),
            found => found.and(Err(Errno::EXIST)),
        },
        renamed => renamed,
    }
}

/// What of a tree is copied, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// What an image may carry, which nobody changes meanwhile.
    OfImage,
    /// All that a directory has, which may change meanwhile, with the blocks of files shared between both.
    Sharing,
}

pub(crate) struct Failure {
    pub(crate) path: Vec<u8>,
    pub(crate) error: io::Error,
}

/// Copies all below `source`, then dresses `target`; directories get their times last, when nothing is made in them
/// any more. Says whether there was anything.
pub(crate) fn copy_tree(source: BorrowedFd<'_>, target: BorrowedFd<'_>, manner: Manner) -> Result<bool, Failure> {
    let mut anything = false;
    let mut links = HashMap::new();
    let mut stack = vec![(Place::default(), false)];
    while let Some((place, filled)) = stack.pop() {
        let path = place.path();
        let result = (|| {
            let from = match tree::open_no_links(source, &path, tree::DIRECTORY) {
                Err(error) if is_gone(error) && manner == Manner::Sharing && !path.is_empty() => {
                    return discard(target, &path);
                }
                from => from?,
            };
            let to = tree::open_no_links(target, &path, tree::DIRECTORY)?;
            if filled {
                let stat = rustix::fs::fstat(&from)?;
                return Ok(dress(from.as_fd(), to.as_fd(), &stat, manner)?);
            }
            stack.push((place, true));
            let above: Rc<[u8]> = path.as_slice().into();
            for name in tree::names(from.as_fd())? {
                let Some(stat) = tree::stat(from.as_fd(), &name)? else { continue };
                anything = true;
                if tree::file_type(&stat) == FileType::Directory {
                    rustix::fs::mkdirat(&to, name.as_slice(), Mode::RWXU)?;
                    stack.push((Place::new(&above, name), false));
                } else if manner == Manner::Sharing {
                    let at = Place::new(&above, name.clone());
                    share_one(&from, &to, &name, target, at, &mut links)?;
                } else if !tree::is_whiteout(&stat) {
                    let at = Place::new(&above, name.clone());
                    copy_one(&from, &to, &name, &stat, target, at, &mut links)?;
                }
            }
            Ok(())
        })();
        result.map_err(|error| Failure { path, error })?;
    }
    Ok(anything)
}

/// Gives a directory owner, mode, attributes and times of another.
fn dress(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat, manner: Manner) -> Result<(), Errno> {
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let attributes = match manner {
        Manner::OfImage => portable_xattrs(from, b".")?,
        Manner::Sharing => tree::xattrs(from, b".")?,
    };
    for (key, value) in attributes {
        tree::set_xattr(to, &key, &value)?;
    }
    rustix::fs::futimens(to, &times(stat))
}

fn copy_one(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &[u8],
    stat: &Stat,
    target: BorrowedFd<'_>,
    place: Place,
    links: &mut HashMap<(u64, u64), Place>,
) -> io::Result<()> {
    let kind = tree::file_type(stat);
    if stat.st_nlink > 1 && is_linked(to, name, stat, target, place, links)? {
        return Ok(());
    }
    let (owner, group) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if kind == FileType::RegularFile {
        let mut input = File::from(tree::open_no_links(from.as_fd(), name, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut output = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
        copy_data(&mut input, &mut output)?;
        rustix::fs::fchown(&output, owner, group)?;
        rustix::fs::fchmod(&output, mode)?;
        for (key, value) in portable_xattrs(from.as_fd(), name)? {
            tree::set_xattr(output.as_fd(), &key, &value)?;
        }
        return Ok(rustix::fs::futimens(&output, &times(stat))?);
    }
    match kind {
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(link.as_c_str(), to, name)?;
        }
        FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
            rustix::fs::mknodat(to, name, kind, Mode::RUSR, stat.st_rdev)?;
            own_special(to, name, stat)?;
        }
        _ => return Ok(()),
    }
    if kind == FileType::Symlink {
        rustix::fs::chownat(to, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    for (key, value) in portable_xattrs(from.as_fd(), name)? {
        tree::set_xattr_of_special(to.as_fd(), name, &key, &value)?;
    }
    Ok(rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Of a file with several names: whether it has been copied under another, and has this one now too.
pub(crate) fn is_linked(
    to: &OwnedFd,
    name: &[u8],
    stat: &Stat,
    target: BorrowedFd<'_>,
    place: Place,
    links: &mut HashMap<(u64, u64), Place>,
) -> io::Result<bool> {
    let Some(first) = links.get(&(stat.st_dev, stat.st_ino)) else {
        links.insert((stat.st_dev, stat.st_ino), place);
        return Ok(false);
    };
    let first = first.path();
    let (above, last) = tree::split(&first);
    let above = tree::open_no_links(target, above, tree::DIRECTORY)?;
    rustix::fs::linkat(&above, last, to, name, AtFlags::empty())?;
    Ok(true)
}

/// Copies what a file holds. Its holes stay holes: an image may have files of terabytes that occupy nothing.
fn copy_data(input: &mut File, output: &mut File) -> io::Result<()> {
    let size = input.metadata()?.len();
    let mut at = 0;
    while at < size {
        // ENXIO: there is no data behind this place (lseek(2)).
        let start = match rustix::fs::seek(&*input, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            start => start?,
        };
        at = rustix::fs::seek(&*input, SeekFrom::Hole(start))?;
        rustix::fs::seek(&*input, SeekFrom::Start(start))?;
        rustix::fs::seek(&*output, SeekFrom::Start(start))?;
        if io::copy(&mut (&*input).take(at - start), output)? == 0 {
            break;
        }
    }
    output.set_len(size)
}

/// Owner and mode of a FIFO or device that was just made.
///
/// The volume may be mounted in a container that runs, which can put a link in the place of the name at any moment: so
/// it is the thing itself that is changed, by a descriptor, after a look at whether it is the one that was made.
fn own_special(to: &OwnedFd, name: &[u8], stat: &Stat) -> io::Result<()> {
    let made = tree::open_no_links(to.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW)?;
    let found = rustix::fs::fstat(&made)?;
    let expected = (tree::file_type(stat), stat.st_rdev, 1);
    if (tree::file_type(&found), found.st_rdev, found.st_nlink as u64) != expected {
        return Err(io::Error::other("another process changes the volume meanwhile"));
    }
    let (owner, group) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::chownat(&made, c"", owner, group, AtFlags::EMPTY_PATH)?;
    // By the descriptor's own link, which names the inode: fchmodat2(2) is younger than the kernels we run on.
    let itself = format!("/proc/self/fd/{}", made.as_raw_fd());
    Ok(rustix::fs::chmod(itself, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}

fn portable_xattrs(directory: BorrowedFd<'_>, name: &[u8]) -> Result<tree::Xattrs, Errno> {
    let mut found = tree::xattrs(directory, name)?;
    found.retain(|(key, _)| tree::is_portable_xattr(key));
    Ok(found)
}

pub(crate) fn times(stat: &Stat) -> rustix::fs::Timestamps {
    tree::times((stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    /// A container that has the volume mounted may put anything in the place of what was just made there.
    #[test]
    fn a_special_file_is_owned_by_what_it_is_and_not_by_its_name() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let directory = tree::open_root(place.path()).unwrap();
        let made = |name: &str, kind, device| {
            rustix::fs::mknodat(&directory, name, kind, Mode::RUSR, device).unwrap();
            tree::stat(directory.as_fd(), name.as_bytes()).unwrap().unwrap()
        };
        let null = rustix::fs::makedev(1, 3);
        let mut wanted = made("pipe", FileType::Fifo, 0);
        (wanted.st_mode, wanted.st_uid, wanted.st_gid) = (wanted.st_mode | 0o4777, 7, 8);
        own_special(&directory, b"pipe", &wanted).unwrap();
        let owned = fs::metadata(at("pipe")).unwrap();
        assert_eq!((owned.mode() & 0o7777, owned.uid(), owned.gid()), (0o4777, 7, 8));

        fs::write(at("victim"), "").unwrap();
        fs::set_permissions(at("victim"), fs::Permissions::from_mode(0o600)).unwrap();
        made("other-pipe", FileType::Fifo, 0);
        made("disk", FileType::BlockDevice, rustix::fs::makedev(7, 200));
        made("null", FileType::CharacterDevice, null);
        symlink("victim", at("link")).unwrap();
        symlink("other-pipe", at("link-to-pipe")).unwrap();
        fs::hard_link(at("other-pipe"), at("hard-link")).unwrap();
        let before: Vec<_> = ["victim", "other-pipe", "disk", "null"]
            .map(|name| fs::symlink_metadata(at(name)).map(|found| (found.mode(), found.uid())).unwrap())
            .into();
        // As if a FIFO had been made under each of these names.
        for name in ["victim", "link", "link-to-pipe", "hard-link", "disk", "null"] {
            assert!(own_special(&directory, name.as_bytes(), &wanted).is_err(), "{name}");
        }
        // And a device that is not the one.
        let mut device = tree::stat(directory.as_fd(), b"disk").unwrap().unwrap();
        device.st_rdev = null;
        assert!(own_special(&directory, b"disk", &device).is_err());
        let after: Vec<_> = ["victim", "other-pipe", "disk", "null"]
            .map(|name| fs::symlink_metadata(at(name)).map(|found| (found.mode(), found.uid())).unwrap())
            .into();
        assert_eq!(before, after);
    }

    #[test]
    fn pouring_goes_on_where_it_stopped() {
        let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["a", "b"] {
            fs::write(from.path().join(name), name).unwrap();
        }
        fs::write(into.path().join("a"), "older").unwrap();
        fs::set_permissions(from.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        for _ in 0..2 {
            pour(from.path(), into.path()).unwrap();
        }
        assert_eq!(fs::read_to_string(into.path().join("a")).unwrap(), "older");
        assert_eq!(fs::read_to_string(into.path().join("b")).unwrap(), "b");
        assert_eq!(fs::metadata(into.path()).unwrap().mode() & 0o7777, 0o1777);
    }
}
