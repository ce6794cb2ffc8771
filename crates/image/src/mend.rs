//! What `save` has found to be damaged is mended by the next `load` that brings it.
//!
//! Containers may stand on a layer's directory, and run meanwhile: their overlay has it mounted. So no directory takes
//! another's place. What differs is written into the files that are there, as a disk would be repaired under them; what is
//! missing comes back, and nothing is taken away but what stands where something else has to be.
//!
//! What is damaged is known for as long as the engine runs. It is found again by whoever saves the image again.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use dozen_model::{Digest, ImageId};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat, XattrFlags};
use rustix::io::{Errno, Result};

use crate::ImageError;
use crate::digesting::Digesting;
use crate::failpoint::failpoint;
use crate::find::Stored;
use crate::install::Staged;
use crate::schema::LayerRow;
use crate::state::State;
use crate::store::Inner;
use crate::tree::{self, Place};

impl Inner {
    /// What is stored of this digest, a layer or a file, could not be given: it is damaged, or lost.
    pub(crate) fn note_damage(&self, digest: &Digest, error: &ImageError) {
        // An archive that cannot be written is not ours.
        if matches!(error, ImageError::Damaged { .. } | ImageError::Io { attempted: "open" | "read", .. }) {
            self.write_state().damaged.insert(digest.clone());
        }
    }

    /// The same where an image could not be read together: looks which of the files that it came with are at fault, and
    /// gives the error for one of them.
    pub(crate) fn note_damage_of(&self, image: &ImageId, error: ImageError) -> ImageError {
        self.note_damage(image.digest(), &error);
        let files: Vec<(Digest, PathBuf)> = {
            let state = self.read_state();
            let find = state.by_digest(self);
            let of_image = state.targets.values().filter(|target| target.image == *image);
            let stored = of_image.flat_map(|target| &target.blobs).filter_map(|digest| match find(digest)? {
                Stored::File(path) => Some((digest.clone(), path)),
                Stored::Layer(_) => None,
            });
            stored.collect()
        };
        let is_sound = |(digest, path): &(Digest, PathBuf)| digest_of(path, digest).is_ok_and(|found| found == *digest);
        files.into_iter().filter(|file| !is_sound(file)).fold(error, |error, (digest, path)| {
            let expected = digest.to_string();
            self.write_state().damaged.insert(digest);
            if matches!(error, ImageError::Damaged { .. }) { error } else { ImageError::Damaged { path, expected } }
        })
    }

    /// See [`State::is_damaged`].
    pub(crate) fn is_damaged(&self, digest: &Digest) -> bool {
        self.read_state().is_damaged(digest)
    }

    /// These bytes are on the disk again as they have to be.
    pub(crate) fn is_mended(&self, digests: &[&Digest]) {
        self.write_state().damaged.retain(|digest| !digests.contains(&digest));
    }

    /// Mends a layer with one that has just been unpacked, whose digest is the same. One that came in another form than it
    /// is kept in cannot give back what is kept. The change lock is held.
    pub(crate) fn mend(&self, row: &LayerRow, with: &Staged) -> std::result::Result<(), ImageError> {
        let form = |row: &LayerRow| (row.blob.clone(), row.recipe_size_bytes.is_some());
        if form(row) != form(&with.row) {
            let (layer, kept, came) = (&row.diff_id, &row.media_type, &with.row.media_type);
            tracing::warn!(%layer, kept, came, "a damaged layer is not mended by an archive that has it in another form");
            return Ok(());
        }
        let path = self.layer_path(&row.directory);
        let roots = tree::open_root(&path).and_then(|damaged| Ok((damaged, tree::open_root(&with.directory)?)));
        roots
            .and_then(|(damaged, sound)| mend_tree(sound.as_fd(), damaged.as_fd()))
            .map_err(ImageError::io("mend what is stored in", path.display()))?;
        // On the disk before it takes the other's place, which may be sound.
        let kept = self.content_path(row);
        std::fs::File::open(&with.kept)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&with.kept, &kept))
            .map_err(ImageError::io("mend", kept.display()))?;
        failpoint("image.mended");
        tracing::info!(layer = %row.diff_id, "a damaged layer has been mended");
        self.is_mended(&[&row.diff_id, &row.blob]);
        Ok(())
    }
}

impl State {
    /// Whether damage was found of a layer, by its digest or its blob's, or of a file below `content/`.
    pub(crate) fn is_damaged(&self, digest: &Digest) -> bool {
        let is_found = |digest| self.damaged.contains(digest);
        let is_of = |row: &LayerRow| row.diff_id == *digest || row.blob == *digest;
        let mut layers = self.layers.values().filter(|row| is_of(row));
        !self.damaged.is_empty()
            && (is_found(digest) || layers.any(|row| is_found(&row.diff_id) || is_found(&row.blob)))
    }
}

/// Gives `damaged` all that is in `sound`, which may lose it.
fn mend_tree(sound: BorrowedFd<'_>, damaged: BorrowedFd<'_>) -> Result<()> {
    let mut links: HashMap<(u64, u64), Place> = HashMap::new();
    let mut stack = vec![Place::default()];
    while let Some(place) = stack.pop() {
        let path = place.path();
        let from = tree::open_no_links(sound, &path, tree::DIRECTORY)?;
        let to = tree::open_no_links(damaged, &path, tree::DIRECTORY)?;
        let (stat, mut is_changed) = (rustix::fs::fstat(&from)?, false);
        let above: Rc<[u8]> = path.into();
        for name in tree::names(from.as_fd())? {
            let Some(wanted) = tree::stat(from.as_fd(), &name)? else { continue };
            let place = Place::new(&above, name.clone());
            let first = match wanted.st_nlink > 1 && tree::file_type(&wanted) != FileType::Directory {
                true => Some(links.entry((wanted.st_dev, wanted.st_ino)).or_insert_with(|| place.clone()).path()),
                false => None,
            };
            let standing = tree::stat(to.as_fd(), &name)?;
            if standing.as_ref().is_some_and(|standing| is_alike(&wanted, standing, (&from, &to), &name)) {
                match tree::file_type(&wanted) {
                    FileType::Directory => stack.push(place),
                    FileType::RegularFile => mend_file(from.as_fd(), to.as_fd(), &name, &wanted)?,
                    _ => {}
                }
                continue;
            }
            is_changed = true;
            if standing.is_some() {
                tree::remove(to.as_fd(), &name)?;
            }
            match first.filter(|first| *first != place.path()) {
                // Its other name is in its place by now.
                Some(first) => {
                    let (above, first) = tree::split(&first);
                    let above = tree::open_no_links(damaged, above, tree::DIRECTORY)?;
                    rustix::fs::linkat(&above, first, &to, &*name, AtFlags::empty())?;
                }
                None => rustix::fs::renameat(&from, &*name, &to, &*name)?,
            }
        }
        if is_changed {
            dress(to.as_fd(), &stat, &tree::xattrs(from.as_fd(), b".")?)?;
        }
    }
    Ok(())
}

/// Whether what stands there is of the same kind, and of those that cannot be written to the same.
fn is_alike(wanted: &Stat, standing: &Stat, (from, to): (&OwnedFd, &OwnedFd), name: &[u8]) -> bool {
    let kind = tree::file_type(wanted);
    kind == tree::file_type(standing)
        && match kind {
            FileType::Symlink => {
                let target = |at: &OwnedFd| tree::read_link(at.as_fd(), name);
                target(from).is_ok_and(|wanted| target(to) == Ok(wanted))
            }
            FileType::CharacterDevice | FileType::BlockDevice => wanted.st_rdev == standing.st_rdev,
            _ => true,
        }
}

/// Writes what differs into the file that is there.
fn mend_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8], wanted: &Stat) -> Result<()> {
    let sound = tree::open_no_links(from, name, OFlags::RDONLY)?;
    let damaged = tree::open_no_links(to, name, OFlags::RDWR)?;
    let size = u64::try_from(wanted.st_size).unwrap_or(0);
    let mut differs = rustix::fs::fstat(&damaged)?.st_size != wanted.st_size;
    if differs {
        rustix::fs::ftruncate(&damaged, size)?;
    }
    let mut buffers = [vec![0; 128 * 1024], vec![0; 128 * 1024]];
    let mut at = 0;
    // Where both have a hole there is nothing to compare: files may be terabytes that occupy nothing.
    let data =
        |at| [&sound, &damaged].into_iter().filter_map(|file| rustix::fs::seek(file, SeekFrom::Data(at)).ok()).min();
    while let Some(next) = data(at).filter(|next| *next < size) {
        at = next;
        let [wanted, found] = &mut buffers;
        let length = read_at(&sound, wanted, at)?;
        if length == 0 {
            return Err(Errno::IO);
        }
        // What cannot be read is written anew.
        let is_same =
            read_at(&damaged, found, at).is_ok_and(|read| read >= length) && wanted[..length] == found[..length];
        if !is_same {
            differs = true;
            let mut written = 0;
            while written < length {
                written += rustix::io::pwrite(&damaged, &wanted[written..length], at + written as u64)?;
            }
        }
        at += length as u64;
    }
    if differs {
        // To write takes file capabilities away, and gives it a time of its own.
        dress(damaged.as_fd(), wanted, &tree::xattrs(from, name)?)?;
    }
    Ok(())
}

/// Of a file, by the algorithm of that digest.
fn digest_of(path: &Path, like: &Digest) -> std::io::Result<Digest> {
    let (mut file, mut hash) = (std::fs::File::open(path)?, Digesting::like(like));
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hash.finish())
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[filled..], offset + filled as u64))? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Mode, attributes and times of something sound.
fn dress(to: BorrowedFd<'_>, stat: &Stat, attributes: &tree::Xattrs) -> Result<()> {
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for (key, value) in attributes {
        rustix::fs::fsetxattr(to, key.as_slice(), value, XattrFlags::empty())?;
    }
    rustix::fs::futimens(to, &tree::times((stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0))))
}
