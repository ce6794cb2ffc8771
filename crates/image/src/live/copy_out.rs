//! From a living tree into a tar stream: one file, or a directory with all below it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use dozen_model::IdRange;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::EntryType;

use super::ids::Ids;
use super::{LiveError, LivePath};
use crate::names::shown;
use crate::pack::{Description, PackError, TarWriter, entry_type, portable, write_file};
use crate::tree::{self, Place};

/// What is read of a file that the kernel makes up as it is read; larger ones are left out.
const MADE_UP_BYTES: u64 = 64 << 10;

/// Magic numbers of file systems that have no files but answers of the kernel (linux/magic.h): proc, sysfs, cgroups of
/// both versions, debugfs, tracefs, securityfs, selinuxfs, bpf.
const MADE_UP: [i64; 9] =
    [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0x7363_6673, 0xf97c_ff8c, 0xcafe_4a11];

/// Writes what stands at `path`, and all below it; links in it are not followed. Its entries are named as Docker names
/// them: by the last part of the path, or by `name` in its place.
///
/// The tree may change meanwhile: what goes away is left out, and a file has the size that its header promised. What the
/// kernel does not let anyone read of its own file systems is left out too.
///
/// `ids`: the tree is a container's with these users of its own, and we are not in its user namespace: owners come out as
/// the container has them.
pub fn copy_out(
    root: BorrowedFd<'_>,
    path: &LivePath,
    name: Option<&[u8]>,
    ids: Option<IdRange>,
    out: impl Write,
) -> Result<(), LiveError> {
    let found = path.open(root)?;
    let failed = |error| LiveError::system("look at", &path.path, error);
    let stat = rustix::fs::fstat(&found).map_err(failed)?;
    let base = name.unwrap_or(&path.base).to_vec();
    let (top, first) = match tree::file_type(&stat) {
        FileType::Directory => (found, Place::default()),
        _ => {
            let (above, last) = tree::split(&path.path);
            let above = tree::open_in_root(root, above, OFlags::PATH | OFlags::DIRECTORY);
            let above = above.map_err(|error| LiveError::path(&path.path, error))?;
            (above, Place::new(&Rc::from(&b""[..]), last.to_vec()))
        }
    };
    let is_directory = tree::file_type(&stat) == FileType::Directory;
    let mut copier =
        Copier { top, base, is_directory, ids: Ids(ids), writer: TarWriter::new(out), links: HashMap::new() };
    copier.all(first).map_err(|error| match error {
        PackError::Write(error) => LiveError::Out(error),
        PackError::Read { path, source } => LiveError::System { attempted: "read", path, source: source.into() },
        PackError::Refused { path, why } => LiveError::Refused { entry: path, why },
    })
}

struct Copier<W> {
    /// The directory that is copied, or the one that holds the file that is.
    top: OwnedFd,
    base: Vec<u8>,
    is_directory: bool,
    ids: Ids,
    writer: TarWriter<W>,
    /// What a file with several names is called in the archive.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Copier<W> {
    fn all(&mut self, first: Place) -> Result<(), PackError> {
        let mut stack = vec![first];
        let mut is_first = true;
        while let Some(place) = stack.pop() {
            let path = place.path();
            match self.entry(&path) {
                Ok(None) => {}
                Ok(Some(directory)) => {
                    let names = tree::names(directory.as_fd());
                    let names = names.map_err(|source| PackError::Read { path: shown(&path), source })?;
                    let above: Rc<[u8]> = path.into();
                    stack.extend(names.into_iter().rev().map(|name| Place::new(&above, name)));
                }
                // It went away between listing and looking, or something else has come in its place.
                Err(PackError::Read { source: Errno::NOENT | Errno::NOTDIR | Errno::LOOP, .. }) if !is_first => {}
                Err(error) => return Err(error),
            }
            is_first = false;
        }
        self.writer.finish().map_err(PackError::Write)
    }

    /// Writes one entry; the directory to go into, if it is one.
    fn entry(&mut self, path: &[u8]) -> Result<Option<OwnedFd>, PackError> {
        let failed = |source| PackError::Read { path: shown(path), source };
        // A name of its own: never through what it was a moment ago.
        let found = tree::open_no_links(self.top.as_fd(), path, OFlags::PATH).map_err(failed)?;
        let stat = self.ids.inside(rustix::fs::fstat(&found).map_err(failed)?);
        let Some(kind) = entry_type(&stat) else { return Ok(None) };
        let is_made_up = rustix::fs::fstatfs(&found).is_ok_and(|status| MADE_UP.contains(&status.f_type));
        let name = self.name(path, kind == EntryType::Directory);
        let link = match kind {
            EntryType::Symlink => match tree::read_link(found.as_fd(), b"") {
                Err(_) if is_made_up => return Ok(None),
                link => link.map_err(failed)?,
            },
            _ => Vec::new(),
        };
        let attributes = match kind {
            EntryType::Regular | EntryType::Directory if !is_made_up => {
                self.ids.attributes_inside(attributes(&found).map_err(failed)?)
            }
            _ => Vec::new(),
        };
        let header = Description { path: &name, link: &link, attributes, ..Description::of(&stat, kind) };
        match kind {
            EntryType::Directory => {
                let directory = match tree::open_no_links(found.as_fd(), b"", tree::DIRECTORY) {
                    Err(_) if is_made_up => return Ok(None),
                    directory => directory.map_err(failed)?,
                };
                self.writer.header(&header).map_err(PackError::Write)?;
                return Ok(Some(directory));
            }
            EntryType::Regular if is_made_up => self.made_up(&header, &found).map_err(PackError::Write)?,
            EntryType::Regular => self.file(&stat, header, &found, path)?,
            _ => self.writer.header(&header).map_err(PackError::Write)?,
        }
        Ok(None)
    }

    fn file(&mut self, stat: &Stat, header: Description<'_>, found: &OwnedFd, path: &[u8]) -> Result<(), PackError> {
        if stat.st_nlink > 1 {
            let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| header.path.to_vec());
            if first != header.path {
                let of = Description::of(stat, EntryType::Link);
                let header = Description { path: header.path, link: first, size: 0, ..of };
                return self.writer.header(&header).map_err(PackError::Write);
            }
        }
        let failed = |source| PackError::Read { path: shown(path), source };
        write_file(&mut self.writer, header, reopen(found).map_err(failed)?.as_fd(), |_, _, _| Ok(()))
    }

    /// A file of procfs says that it is empty, and is not read, as with Docker: some wait, and some forget what was read
    /// of them.
    fn made_up(&mut self, header: &Description<'_>, found: &OwnedFd) -> std::io::Result<()> {
        let mut content = Vec::new();
        if header.size > MADE_UP_BYTES {
            return Ok(());
        }
        if header.size > 0 {
            let Ok(file) = reopen(found) else { return Ok(()) };
            if File::from(file).take(header.size).read_to_end(&mut content).is_err() {
                return Ok(());
            }
        }
        let size = content.len() as u64;
        self.writer.header(&Description { size, ..header.clone() })?;
        self.writer.data(content.as_slice(), size)
    }

    fn name(&self, path: &[u8], is_directory: bool) -> Vec<u8> {
        let mut name = match (self.is_directory, self.base.as_slice()) {
            (false, base) => base.to_vec(),
            (true, b"/") => [b"/", path].concat(),
            (true, base) if path.is_empty() => base.to_vec(),
            (true, base) => tree::join(base, path),
        };
        if is_directory && !name.ends_with(b"/") {
            name.push(b'/');
        }
        name
    }
}

/// The same file for reading: what was looked at, and not what its name stands for by now.
fn reopen(found: &OwnedFd) -> Result<OwnedFd, Errno> {
    let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
    rustix::fs::open(itself, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
}

fn attributes(found: &OwnedFd) -> Result<tree::Xattrs, Errno> {
    // By the descriptor's own link, which names the inode: it is no link itself.
    let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
    tree::xattrs_at(itself.as_bytes()).map(portable)
}
