//! An overlay's upper directory that becomes a layer where it lies: nothing that was written is written a second time.
//!
//! It is packed as any other, but only for its digest and its recipe, and is mended on the way: what comes of it is what
//! would have come of packing and unpacking it. Whatever is done to it leaves a tree that packs to the same bytes, so
//! that one in which something turns up that has to be made anew ([`Fate::Unfit`] and others) is still good for that.
//!
//! Nobody else may have it any more. It is taken away from where overlays look for it ([`ImageStore::take`]), and of those
//! that found it before the kernel knows ([`is_given_up`]): a container's processes are gone with it, but a file of it may
//! be open elsewhere, sent over a socket in a volume, and what is written to that would make of the layer another one than
//! its name says.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dozen_model::error_chain;
use dozen_runtime::overlay;
use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::ImageError;
use crate::chunks::{Chunk, Pool};
use crate::extract::Extracted;
use crate::failpoint::failpoint;
use crate::hashing::Hashing;
use crate::install::Staged;
use crate::names::shown;
use crate::new_layer::{NewLayer, pack_and_unpack};
use crate::pack::{Attend, Event, Met, PackError, pack_attended};
use crate::recording::{Paths, Recording, Sum};
use crate::scratch::Scratch;
use crate::store::ImageStore;
use crate::tree;
use crate::unpack::{ENTRIES_LIMIT, HOLES_LIMIT_BYTES, Unpacked};

/// An upper directory that was taken away from its container, and is the store's: dropped, it is deleted.
pub struct Taken {
    directory: PathBuf,
    scratch: Scratch,
}

impl std::fmt::Debug for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Taken").field(&self.directory).finish()
    }
}

impl Taken {
    /// Where it is now.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl ImageStore {
    /// Takes an upper directory from its place. `None`, and it stays: from there it cannot come into the store by a
    /// rename, since it is on another file system, or as good as that.
    pub fn take(&self, upper: &Path) -> Result<Option<Taken>, ImageError> {
        let scratch = self.0.scratch()?;
        let directory = scratch.0.join("upper");
        failpoint("image.take.before");
        match rustix::fs::renameat_with(CWD, upper, CWD, &directory, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::XDEV) => return Ok(None),
            Err(error) => return Err(ImageError::io("take away", upper.display())(error)),
        }
        failpoint("image.take.after");
        Ok(Some(Taken { directory, scratch }))
    }

    /// Makes a layer of what was taken, as [`ImageStore::layer_of`] does, without copying anything where that can be. Of a
    /// directory that two overlays have had at the same time the kernel does not know whether the second still does.
    pub fn adopt(&self, taken: Taken, latest: Option<i64>) -> Result<NewLayer, ImageError> {
        if !is_given_up(&taken) {
            return self.copy_taken(taken, latest);
        }
        let Taken { directory, scratch } = taken;
        let staged = match settle(&directory, latest, &scratch.0)? {
            Ok(unpacked) => Staged::plain(unpacked),
            Err(unfit) => {
                tracing::debug!(%unfit, "a layer is copied that cannot become one where it lies");
                pack_and_unpack(&directory, latest, &scratch)?
            }
        };
        failpoint("image.take.settled");
        Ok(NewLayer { staged, _scratch: scratch })
    }

    /// The same by copying it: it may still be mounted somewhere.
    pub fn copy_taken(&self, taken: Taken, latest: Option<i64>) -> Result<NewLayer, ImageError> {
        let staged = pack_and_unpack(&taken.directory, latest, &taken.scratch)?;
        Ok(NewLayer { staged, _scratch: taken.scratch })
    }
}

/// How long whoever still has a file of the container's open is waited for, longer each time: a kernel that is busy closes
/// some a moment after the process has ended.
const PAUSES_MS: [u64; 5] = [2, 8, 20, 60, 120];

/// No overlay has it any more. Blocks.
fn is_given_up(taken: &Taken) -> bool {
    for (number, pause) in PAUSES_MS.map(Duration::from_millis).into_iter().enumerate() {
        match is_written(taken, number) {
            Ok(false) => return true,
            Ok(true) => std::thread::sleep(pause),
            Err(error) => {
                tracing::debug!(error, "cannot know who else has what a container has written");
                return false;
            }
        }
    }
    tracing::debug!("somebody still has open what a container has written: its layer is copied");
    false
}

fn is_written(taken: &Taken, number: usize) -> Result<bool, String> {
    let [empty, work] = ["empty", "work"].map(|name| taken.scratch.0.join(format!("{name}{number}")));
    for path in [&empty, &work] {
        let made = rustix::fs::mkdirat(CWD, path, Mode::RWXU);
        made.map_err(|error| format!("make the directory {}: {error}", path.display()))?;
    }
    overlay::is_written(&taken.directory, &empty, &work).map_err(|error| error_chain(&error))
}

/// Makes a tree a layer in its place; or says what of it has to be made anew.
fn settle(directory: &Path, latest: Option<i64>, beside: &Path) -> Result<Result<Unpacked, PackError>, ImageError> {
    let root = tree::open_root(directory).map_err(ImageError::io("open", directory.display()))?;
    let paths = Paths { recipe: beside.join("upper.recipe"), blob: beside.join("upper.blob") };
    let unwritten = |error: io::Error| ImageError::io("write", paths.recipe.display())(error);
    let pool = Pool::default();
    let mut settling = Settling {
        latest,
        usual: Usual::of(beside).map_err(ImageError::io("look at", beside.display()))?,
        done: Extracted::default(),
        hole_bytes: 0,
        read_bytes: 0,
        unfit: None,
    };
    let recording = Recording::new(root.as_fd(), Some(paths.clone())).map_err(unwritten)?;
    let mut out = Out { recording, hashing: Hashing::start()?, chunk: pool.chunk(), pool: &pool };
    let packed = pack_attended(root.as_fd(), latest, &mut out, &mut settling);
    match (packed, settling.unfit) {
        (Ok(()), _) => {}
        (Err(error), Some(Unfit)) => return Ok(Err(error)),
        (Err(error), None) => return Err(ImageError::packing(error)),
    }
    let kept = out.recording.finish().map_err(unwritten)?;
    let hashed = out.hashing.finish();
    // One program has read the files and written down where they lie: to read them all again would prove it to nobody
    // but its own tests.
    debug_assert!(
        Sum::of_recipe(&paths.recipe, root.as_fd()).is_ok_and(|sum| sum.finish() == hashed.sum),
        "the recipe does not give what was hashed"
    );
    let (diff_id, (tar_crc32, tar_size_bytes)) = (hashed.digest, hashed.sum);
    let directory = directory.to_owned();
    Ok(Ok(Unpacked { directory, diff_id, tar_crc32, tar_size_bytes, extracted: settling.done, kept, paths }))
}

/// A stream that nobody unpacks.
struct Out<'a> {
    recording: Recording<'a>,
    hashing: Hashing,
    chunk: Chunk,
    pool: &'a Pool,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        let taken = self.chunk.read_from(&mut rest)?;
        self.recording.passed(&bytes[..taken])?;
        if self.chunk.is_full() {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, self.pool.chunk());
        self.hashing.feed(Arc::new(chunk));
        Ok(())
    }
}

/// What becomes of an attribute.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// The archive has it, or a layer's directory has it in the place of a mark of the archive's.
    Stays,
    /// The archive has not.
    Goes,
    /// Nobody can take it away, or nobody knows what it does.
    Unfit,
}

/// Where an attribute is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bearer {
    Root,
    Directory,
    Other,
}

/// Pure. `label`: SELinux's of what is made in the store.
fn fate(bearer: Bearer, name: &[u8], value: &[u8], label: Option<&[u8]>) -> Fate {
    if tree::is_portable_xattr(name) {
        return Fate::Stays;
    }
    if name == tree::OPAQUE.to_bytes() && value == b"y" {
        return match bearer {
            // Nobody packs it.
            Bearer::Root => Fate::Goes,
            Bearer::Directory => Fate::Stays,
            // It packs to a mark that no unpacker takes.
            Bearer::Other => Fate::Unfit,
        };
    }
    if name == b"security.selinux" {
        return if label == Some(value) { Fate::Stays } else { Fate::Unfit };
    }
    // What overlayfs has noted for itself is among the first (kernel: fs/overlayfs/overlayfs.h, `enum ovl_xattr`).
    if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") { Fate::Goes } else { Fate::Unfit }
}

/// What is made in the store has all by itself.
struct Usual {
    label: Option<Vec<u8>>,
    flags: u32,
}

/// Flags of chattr(1) that say what may become of a file, or how it is kept (linux/fs.h, FS_*_FL): all but those by which
/// a file system says how it has laid it out. An archive has none of them.
const FLAGS: u32 = 0x1 // SECRM
    | 0x2 // UNRM
    | 0x4 // COMPR
    | 0x8 // SYNC
    | 0x10 // IMMUTABLE
    | 0x20 // APPEND
    | 0x40 // NODUMP
    | 0x80 // NOATIME
    | 0x400 // NOCOMP
    | 0x800 // ENCRYPT
    | 0x4000 // JOURNAL_DATA
    | 0x8000 // NOTAIL
    | 0x1_0000 // DIRSYNC
    | 0x2_0000 // TOPDIR
    | 0x10_0000 // VERITY
    | 0x80_0000 // NOCOW
    | 0x200_0000 // DAX
    | 0x2000_0000 // PROJINHERIT
    | 0x4000_0000; // CASEFOLD

impl Usual {
    fn of(directory: &Path) -> Result<Self, Errno> {
        let opened = tree::open_root(directory)?;
        let attributes = tree::xattrs(opened.as_fd(), b".")?;
        let label = attributes.into_iter().find(|(name, _)| name == b"security.selinux").map(|(_, value)| value);
        Ok(Self { label, flags: flags(opened.as_fd())? })
    }
}

fn flags(open: BorrowedFd<'_>) -> Result<u32, Errno> {
    match rustix::fs::ioctl_getflags(open) {
        // A file system without any.
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(0),
        flags => Ok(flags?.bits() & FLAGS),
    }
}

/// Something has to be made anew: the error that goes with it says what.
#[derive(Clone, Copy)]
struct Unfit;

/// Makes a layer of a tree while it is packed.
struct Settling {
    latest: Option<i64>,
    usual: Usual,
    done: Extracted,
    hole_bytes: u64,
    /// What has been read of the file that is being packed.
    read_bytes: u64,
    unfit: Option<Unfit>,
}

impl<'o, 'r> Attend<&'o mut Out<'r>> for Settling {
    fn tell(&mut self, event: Event<'_>) -> Result<(), PackError> {
        match event {
            Event::Met(met) => self.met(&met),
            Event::Whiteout(met) => self.whiteout(&met),
            Event::LeftOut(met) => self.left_out(&met),
            Event::Read { open, path, before } => self.read(open, path, before),
            Event::Written(met) => self.written(&met),
            Event::Vanished(path) => Err(self.unfit(path, "it went away")),
        }
    }

    fn content(&mut self, out: &mut &'o mut Out<'r>, path: &[u8], offset: u64, length: u64) -> io::Result<()> {
        self.read_bytes += length;
        out.recording.content(path, offset, length)
    }
}

impl Settling {
    fn unfit(&mut self, path: &[u8], why: &'static str) -> PackError {
        self.unfit = Some(Unfit);
        PackError::Refused { path: shown(path), why }
    }

    /// What the file system does not let us do, whoever makes it anew may not have to.
    fn tried<T>(&mut self, path: &[u8], done: Result<T, Errno>) -> Result<T, PackError> {
        done.map_err(|source| {
            self.unfit = Some(Unfit);
            PackError::Read { path: shown(path), source }
        })
    }

    /// As an unpacker counts, which refuses what is beyond its bounds.
    fn count(&mut self, path: &[u8], entries: u64) -> Result<(), PackError> {
        self.done.entries += entries;
        if self.done.entries > ENTRIES_LIMIT { Err(self.unfit(path, "it is one too many")) } else { Ok(()) }
    }

    fn met(&mut self, met: &Met<'_>) -> Result<(), PackError> {
        /// Less than what an unpacker takes of one entry.
        const DESCRIPTION_LIMIT_BYTES: usize = 512 * 1024;
        let bearer = match tree::file_type(met.stat) {
            FileType::Directory if met.path.is_empty() => Bearer::Root,
            FileType::Directory => Bearer::Directory,
            _ => Bearer::Other,
        };
        // It and its mark.
        self.count(met.path, 1 + u64::from(bearer == Bearer::Directory))?;
        if met.attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > DESCRIPTION_LIMIT_BYTES
        {
            return Err(self.unfit(met.path, "it has many attributes"));
        }
        for (name, value) in met.attributes {
            match fate(bearer, name, value, self.usual.label.as_deref()) {
                Fate::Stays => {}
                Fate::Goes => {
                    let removed = rustix::fs::lremovexattr(tree::proc_path(met.parent, met.name), name.as_slice());
                    self.tried(met.path, removed)?;
                }
                Fate::Unfit => return Err(self.unfit(met.path, "it has an attribute that is not ours to change")),
            }
        }
        Ok(())
    }

    /// Overlays have one inode for all of them, which stays as it is.
    fn whiteout(&mut self, met: &Met<'_>) -> Result<(), PackError> {
        self.count(met.path, 1)?;
        let is_plain = (met.stat.st_mode & 0o7777, met.stat.st_uid, met.stat.st_gid) == (0, 0, 0);
        if !is_plain || met.name.starts_with(b".wh.") {
            return Err(self.unfit(met.path, "overlayfs has not made this whiteout"));
        }
        Ok(())
    }

    /// Its directory has been packed, and keeps its times.
    fn left_out(&mut self, met: &Met<'_>) -> Result<(), PackError> {
        let taken_out = rustix::fs::fstat(met.parent).and_then(|before| {
            rustix::fs::unlinkat(met.parent, met.name, AtFlags::empty())?;
            rustix::fs::futimens(met.parent, &times_of(&before))
        });
        self.tried(met.path, taken_out)
    }

    fn read(&mut self, open: BorrowedFd<'_>, path: &[u8], before: &Stat) -> Result<(), PackError> {
        let (now, flags) = self.tried(path, rustix::fs::fstat(open).and_then(|now| Ok((now, flags(open)?))))?;
        let said = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        if said(&now) != said(before) {
            return Err(self.unfit(path, "it changed while it was read"));
        }
        if flags & !self.usual.flags != 0 {
            return Err(self.unfit(path, "it has flags that an archive has not"));
        }
        if tree::file_type(&now) == FileType::RegularFile {
            let size = u64::try_from(now.st_size).unwrap_or(0);
            self.done.content_bytes = self.done.content_bytes.saturating_add(size);
            self.hole_bytes += size - std::mem::take(&mut self.read_bytes).min(size);
            if self.hole_bytes > HOLES_LIMIT_BYTES {
                return Err(self.unfit(path, "there are too many holes"));
            }
        }
        self.tried(path, rustix::fs::futimens(open, &self.settled(&now)))
    }

    fn written(&mut self, met: &Met<'_>) -> Result<(), PackError> {
        if met.stat.st_nlink > 1 {
            return Err(self.unfit(met.path, "it has several names, which an archive tells of files alone"));
        }
        let times = self.settled(met.stat);
        self.tried(met.path, rustix::fs::utimensat(met.parent, met.name, &times, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// The times that the archive gives it: the first one, which it has not got, is as the second.
    fn settled(&self, stat: &Stat) -> Timestamps {
        let mtime = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        tree::times(self.latest.map_or(mtime, |latest| mtime.min((latest, 0))))
    }
}

fn times_of(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests;
