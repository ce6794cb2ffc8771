//! The packer: an overlay's upper directory as one layer's tar stream, the same bytes for the same tree.
//!
//! Entries come sorted, parents first, headers hold nothing but what the tree says, and the overlay's own marks become
//! whiteouts again (OCI image-spec, layer.md). The tree may change while it is read: a file has the size its header
//! promised, cut or filled with zeros. Holes stay holes.

mod sparse;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use tar::{EntryType, Header};

pub(crate) use self::sparse::write_file;
use crate::names::shown;
use crate::tree::{self, Place, Xattrs};

/// Why a tree could not be packed. Paths are relative to its root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    #[error("cannot read {path:?}")]
    Read { path: String, source: Errno },
    #[error("{path:?} cannot be put in an archive: {why}")]
    Refused { path: String, why: &'static str },
    #[error("the layer cannot be written")]
    Write(io::Error),
}

/// Packs what is below `root`. With `latest`, in seconds since 1970, what was changed after it was changed then: what two
/// runs of the same script have made packs to the same bytes (reproducible-builds.org, "SOURCE_DATE_EPOCH").
pub(crate) fn pack(root: BorrowedFd<'_>, latest: Option<i64>, out: impl Write) -> Result<(), PackError> {
    pack_attended(root, latest, out, &mut Nobody)
}

/// The same while somebody is told of each thing in it.
pub(crate) fn pack_attended<W: Write>(
    root: BorrowedFd<'_>,
    latest: Option<i64>,
    out: W,
    attendant: &mut impl Attend<W>,
) -> Result<(), PackError> {
    let writer = TarWriter::ending(out, latest);
    let mut packer = Packer { root, writer, attendant, links: HashMap::new(), parent: None };
    packer.root_entry()?;
    let mut stack = packer.below(b"")?;
    while let Some(place) = stack.pop() {
        match packer.entry(&place) {
            Ok(true) => stack.extend(packer.below(&place.path())?),
            Ok(false) => {}
            // It went away between listing and looking, or something else has come in its place.
            Err(PackError::Read { source: Errno::NOENT | Errno::NOTDIR | Errno::LOOP, .. }) => {
                packer.attendant.tell(Event::Vanished(&place.path()))?;
            }
            Err(error) => return Err(error),
        }
    }
    packer.writer.finish().map_err(PackError::Write)
}

/// Somebody who is told of a tree while it is packed.
pub(crate) trait Attend<W> {
    /// An error of theirs ends it.
    fn tell(&mut self, event: Event<'_>) -> Result<(), PackError>;

    /// The next so many bytes that are written to `out` are those of a file, from this offset on.
    fn content(&mut self, out: &mut W, path: &[u8], offset: u64, length: u64) -> io::Result<()>;
}

/// What is told of each thing in a tree, in this order; the thing itself must pack to the same entry whatever is done then.
pub(crate) enum Event<'a> {
    /// It is looked at. The root has the name `.`, and an empty path.
    Met(Met<'a>),
    /// It was a whiteout, and has been written.
    Whiteout(Met<'a>),
    /// There is nothing in an archive that it could be.
    LeftOut(Met<'a>),
    /// A file of which all has been written, a directory whose names have been read: open.
    Read { open: BorrowedFd<'a>, path: &'a [u8], before: &'a Stat },
    /// Neither of the two, and no second name of a file: it has been written.
    Written(Met<'a>),
    /// It was there a moment ago, and is not any more or is something else.
    Vanished(&'a [u8]),
}

/// A thing in a tree.
#[derive(Clone, Copy)]
pub(crate) struct Met<'a> {
    /// The directory that it is in.
    pub(crate) parent: BorrowedFd<'a>,
    pub(crate) name: &'a [u8],
    /// From the root.
    pub(crate) path: &'a [u8],
    pub(crate) stat: &'a Stat,
    /// All of them; of a whiteout none is read.
    pub(crate) attributes: &'a Xattrs,
}

/// A tree that is only read.
struct Nobody;

impl<W> Attend<W> for Nobody {
    fn tell(&mut self, _: Event<'_>) -> Result<(), PackError> {
        Ok(())
    }

    fn content(&mut self, _: &mut W, _: &[u8], _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

struct Packer<'a, W, A> {
    root: BorrowedFd<'a>,
    writer: TarWriter<W>,
    attendant: &'a mut A,
    /// The first path of a file with several names.
    links: HashMap<(u64, u64), Place>,
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl<W: Write, A: Attend<W>> Packer<'_, W, A> {
    /// The root is an entry only if it is not as an empty layer's root is: an unchanged tree packs to no entry.
    fn root_entry(&mut self) -> Result<(), PackError> {
        let failed = |source| PackError::Read { path: "/".into(), source };
        let stat = rustix::fs::fstat(self.root).map_err(failed)?;
        let attributes = tree::xattrs(self.root, b".").map_err(failed)?;
        let met = Met { parent: self.root, name: b".", path: b"", stat: &stat, attributes: &attributes };
        self.attendant.tell(Event::Met(met))?;
        let attributes = portable(attributes);
        if (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) != (0o755, 0, 0) || !attributes.is_empty() {
            let header = Description { path: b"./", attributes, ..Description::of(&stat, EntryType::Directory) };
            self.writer.header(&header).map_err(PackError::Write)?;
        }
        Ok(())
    }

    /// What is in a directory, last first.
    fn below(&mut self, path: &[u8]) -> Result<Vec<Place>, PackError> {
        let failed = |source| PackError::Read { path: shown(path), source };
        let directory = match tree::open_no_links(self.root, path, tree::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.attendant.tell(Event::Vanished(path))?;
                return Ok(Vec::new());
            }
            directory => directory.map_err(failed)?,
        };
        let before = rustix::fs::fstat(&directory).map_err(failed)?;
        let names = tree::names(directory.as_fd()).map_err(failed)?;
        self.attendant.tell(Event::Read { open: directory.as_fd(), path, before: &before })?;
        let above: Rc<[u8]> = path.into();
        Ok(names.into_iter().rev().map(|name| Place::new(&above, name)).collect())
    }

    /// Writes one entry; true if it is a directory to go into.
    fn entry(&mut self, place: &Place) -> Result<bool, PackError> {
        let path = &*place.path();
        let failed = |source| PackError::Read { path: shown(path), source };
        let refuse = |why| PackError::Refused { path: shown(path), why };
        if path.len() > tree::PATH_LIMIT - 4 {
            return Err(refuse("its path is too long"));
        }
        let (above, name) = tree::split(path);
        let parent = match self.parent.take() {
            Some((cached, parent)) if cached == above => parent,
            _ => tree::open_no_links(self.root, above, tree::DIRECTORY).map_err(failed)?,
        };
        let (parent, _) = self.parent.insert((above.to_vec(), parent)).as_parts();
        let stat = tree::stat(parent, name).map_err(failed)?.ok_or(Errno::NOENT).map_err(failed)?;
        if tree::is_whiteout(&stat) {
            mark(&mut self.writer, &tree::join(above, &[b".wh.", name].concat()))?;
            let met = Met { parent, name, path, stat: &stat, attributes: &Vec::new() };
            return self.attendant.tell(Event::Whiteout(met)).map(|()| false);
        }
        if name.starts_with(b".wh.") {
            return Err(refuse("in a layer, a name that begins with .wh. means that another file is gone"));
        }
        let attributes = tree::xattrs(parent, name).map_err(failed)?;
        let has = |key: &[u8]| attributes.iter().any(|(name, _)| name == key);
        if has(b"trusted.overlay.redirect") || has(b"trusted.overlay.metacopy") {
            return Err(refuse(
                "the overlay keeps only a part of it here (mount it with redirect_dir=off,metacopy=off)",
            ));
        }
        let met = Met { parent, name, path, stat: &stat, attributes: &attributes };
        self.attendant.tell(Event::Met(met))?;
        let Some(kind) = entry_type(&stat) else {
            return self.attendant.tell(Event::LeftOut(met)).map(|()| false);
        };
        let opaque = attributes.iter().any(|(name, value)| name == OPAQUE_BYTES && value == b"y");
        if kind == EntryType::Regular
            && stat.st_nlink > 1
            && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino))
        {
            let first = first.path();
            let header = Description { path, link: &first, size: 0, ..Description::of(&stat, EntryType::Link) };
            return self.writer.header(&header).map(|()| false).map_err(PackError::Write);
        }
        let link = match kind {
            EntryType::Symlink => tree::read_link(parent, name).map_err(failed)?,
            _ => Vec::new(),
        };
        let file = match kind {
            EntryType::Regular => {
                // NONBLOCK: a pipe may have taken the file's place, and nobody writes to it.
                let file = match tree::open_no_links(parent, name, OFlags::RDONLY | OFlags::NONBLOCK) {
                    Err(Errno::LOOP | Errno::NXIO) => return Err(failed(Errno::NOENT)),
                    file => file.map_err(failed)?,
                };
                let stat = rustix::fs::fstat(&file).map_err(failed)?;
                if tree::file_type(&stat) != FileType::RegularFile {
                    return Err(failed(Errno::NOENT));
                }
                if stat.st_nlink > 1 {
                    self.links.insert((stat.st_dev, stat.st_ino), place.clone());
                }
                Some((file, stat))
            }
            _ => None,
        };
        let directory_path = [path, b"/"].concat();
        let written = if kind == EntryType::Directory { &directory_path } else { path };
        let looks = Description::of(file.as_ref().map_or(&stat, |(_, stat)| stat), kind);
        let header = Description { path: written, link: &link, attributes: portable(attributes.clone()), ..looks };
        match file {
            Some((file, stat)) => {
                let attendant = &mut *self.attendant;
                let note = |out: &mut W, offset, length| attendant.content(out, path, offset, length);
                write_file(&mut self.writer, header, file.as_fd(), note)?;
                attendant.tell(Event::Read { open: file.as_fd(), path, before: &stat })?;
            }
            None => self.writer.header(&header).map_err(PackError::Write)?,
        }
        if opaque {
            mark(&mut self.writer, &tree::join(path, b".wh..wh..opq"))?;
        }
        if !matches!(kind, EntryType::Regular | EntryType::Directory) {
            self.attendant.tell(Event::Written(met))?;
        }
        Ok(kind == EntryType::Directory)
    }
}

/// A whiteout says nothing but its name: overlays share one inode among them, with some other file's time.
fn mark(writer: &mut TarWriter<impl Write>, path: &[u8]) -> Result<(), PackError> {
    writer.header(&Description::plain(path, EntryType::Regular, 0o600, 0)).map_err(PackError::Write)
}

const OPAQUE_BYTES: &[u8] = tree::OPAQUE.to_bytes();

trait AsParts {
    fn as_parts(&self) -> (BorrowedFd<'_>, &[u8]);
}

impl AsParts for (Vec<u8>, OwnedFd) {
    fn as_parts(&self) -> (BorrowedFd<'_>, &[u8]) {
        (self.1.as_fd(), &self.0)
    }
}

pub(crate) fn portable(attributes: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    attributes.into_iter().filter(|(name, _)| tree::is_portable_xattr(name)).collect()
}

/// What one header says.
#[derive(Debug, Clone)]
pub(crate) struct Description<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) kind: EntryType,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) device: (u32, u32),
    pub(crate) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Description<'_> {
    /// A plain file of root's from 1970: what an archive of blobs is made of.
    pub(crate) fn plain(path: &[u8], kind: EntryType, mode: u32, size: u64) -> Description<'_> {
        let (uid, gid, mtime, device) = (0, 0, (0, 0), (0, 0));
        Description { path, link: b"", kind, size, mode, uid, gid, mtime, device, attributes: Vec::new() }
    }

    pub(crate) fn of(stat: &Stat, kind: EntryType) -> Description<'static> {
        let device = match kind {
            EntryType::Char | EntryType::Block => (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            _ => (0, 0),
        };
        let size = if kind == EntryType::Regular { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        Description {
            path: b"",
            link: b"",
            kind,
            size,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            device,
            attributes: Vec::new(),
        }
    }
}

/// Writes ustar headers, with a PAX header before those that do not fit.
pub(crate) struct TarWriter<W> {
    out: W,
    /// Later times become this one.
    latest: Option<i64>,
    /// What data goes through; made when some does.
    buffer: Vec<u8>,
}

/// Bytes of data that are read at once: a small part of what the processor's cache holds.
const BUFFER_BYTES: usize = 128 * 1024;

const NAME_LIMIT: usize = 100;
const OCTAL_7: u32 = 0o7_777_777;
const OCTAL_11: u64 = 0o77_777_777_777;

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self::ending(out, None)
    }

    /// The same, where times later than this one, in seconds since 1970, become it.
    pub(crate) fn ending(out: W, latest: Option<i64>) -> Self {
        Self { out, latest, buffer: Vec::new() }
    }

    pub(crate) fn header(&mut self, entry: &Description<'_>) -> io::Result<()> {
        self.header_with(entry, &[])
    }

    /// The same with PAX records of the caller's own, keys and values.
    pub(crate) fn header_with(&mut self, entry: &Description<'_>, more: &[(&str, Vec<u8>)]) -> io::Result<()> {
        let mut records = Vec::new();
        more.iter().for_each(|(key, value)| record(&mut records, key.as_bytes(), value));
        if entry.path.len() > NAME_LIMIT {
            record(&mut records, b"path", entry.path);
        }
        if entry.link.len() > NAME_LIMIT {
            record(&mut records, b"linkpath", entry.link);
        }
        if entry.size > OCTAL_11 {
            record(&mut records, b"size", entry.size.to_string().as_bytes());
        }
        for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
            if id > OCTAL_7 {
                record(&mut records, key, id.to_string().as_bytes());
            }
        }
        let mtime = self.latest.map_or(entry.mtime, |latest| entry.mtime.min((latest, 0)));
        if mtime.1 != 0 || !(0..=OCTAL_11 as i64).contains(&mtime.0) {
            record(&mut records, b"mtime", format_time(mtime).as_bytes());
        }
        for (name, value) in &entry.attributes {
            record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        if !records.is_empty() {
            let size = records.len() as u64;
            self.block(&Description::plain(b"PaxHeaders/entry", EntryType::XHeader, 0o644, size), 0)?;
            self.data(records.as_slice(), size)?;
        }
        self.block(entry, mtime.0)
    }

    fn block(&mut self, entry: &Description<'_>, mtime_seconds: i64) -> io::Result<()> {
        let mut header = Header::new_ustar();
        let old = header.as_old_mut();
        for (field, value) in [(&mut old.name, entry.path), (&mut old.linkname, entry.link)] {
            let length = value.len().min(NAME_LIMIT);
            field[..length].copy_from_slice(&value[..length]);
        }
        header.set_entry_type(entry.kind);
        header.set_size(entry.size);
        header.set_mode(entry.mode);
        header.set_uid(u64::from(entry.uid.min(OCTAL_7)));
        header.set_gid(u64::from(entry.gid.min(OCTAL_7)));
        header.set_mtime(u64::try_from(mtime_seconds).unwrap_or(0).min(OCTAL_11));
        header.set_device_major(entry.device.0)?;
        header.set_device_minor(entry.device.1)?;
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    /// Exactly `size` bytes: a source that is longer is cut, a shorter one is filled with zeros.
    pub(crate) fn data(&mut self, source: impl Read, size: u64) -> io::Result<()> {
        self.part(source, size)?;
        self.pad(size)
    }

    /// A part of the data, in the same way; whoever writes the last has to [`pad`](Self::pad) it.
    pub(crate) fn part(&mut self, mut source: impl Read, size: u64) -> io::Result<()> {
        self.buffer.resize(BUFFER_BYTES, 0);
        let (mut left, mut is_over) = (size, false);
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER_BYTES);
            let mut read = want;
            if is_over {
                self.buffer[..want].fill(0);
            } else {
                match source.read(&mut self.buffer[..want]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    result => read = result?,
                }
                is_over = read == 0;
            }
            self.out.write_all(&self.buffer[..read])?;
            left -= read as u64;
        }
        Ok(())
    }

    /// Where it all goes.
    pub(crate) fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// Data of an entry as it is; whoever writes it so has to [`pad`](Self::pad) it.
    pub(crate) fn raw(&mut self, data: &[u8]) -> io::Result<()> {
        self.out.write_all(data)
    }

    /// What stands after so many bytes of data.
    pub(crate) fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = usize::try_from(size.wrapping_neg() % 512).expect("less than 512");
        self.out.write_all(&[0; 512][..padding])
    }

    /// Two blocks of zeros end an archive.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.out.write_all(&[0; 1024])?;
        self.out.flush()
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend([length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat());
}

fn format_time((seconds, nanoseconds): (i64, u32)) -> String {
    match (seconds, nanoseconds) {
        (_, 0) => seconds.to_string(),
        (..0, _) => {
            let whole = seconds + 1;
            let sign = if whole == 0 { "-" } else { "" };
            format!("{sign}{whole}.{:09}", 1_000_000_000 - nanoseconds)
        }
        _ => format!("{seconds}.{nanoseconds:09}"),
    }
}

/// As what something is packed. Not a socket, which is nothing without the process behind it; Docker leaves them out too.
pub(crate) fn entry_type(stat: &Stat) -> Option<EntryType> {
    Some(match tree::file_type(stat) {
        FileType::RegularFile => EntryType::Regular,
        FileType::Directory => EntryType::Directory,
        FileType::Symlink => EntryType::Symlink,
        FileType::Fifo => EntryType::Fifo,
        FileType::CharacterDevice => EntryType::Char,
        FileType::BlockDevice => EntryType::Block,
        _ => return None,
    })
}
