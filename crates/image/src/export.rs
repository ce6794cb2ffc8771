//! `export`: what a container has as its root, as one tar stream.
//!
//! The tree is read beneath descriptors and no link is followed; it may change meanwhile: what goes away is left out,
//! and a file has the size that its header promised, cut or filled with zeros. What is mounted in the container is not
//! part of it: there are empty mount points, as Docker has them.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use dozen_model::ImageId;
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use tar::EntryType;

use crate::ImageError;
use crate::names::shown;
use crate::pack::{Description, PackError, TarWriter, entry_type, portable, write_file};
use crate::store::ImageStore;
use crate::tree::{self, Place};
use crate::union::{Layers, Union};

impl ImageStore {
    /// Writes the layers of an image and what a container changed (the overlay's upper directory, which may be mounted
    /// and in use) as one tar stream, sorted; whiteouts are applied, hard links, attributes and holes are kept.
    pub fn export(&self, base: &ImageId, upper: &Path, out: impl Write) -> Result<(), ImageError> {
        let inner = &self.0;
        let gone = || ImageError::NoSuchImage(base.to_string());
        let diff_ids = inner.read_state().diff_ids(base)?;
        let _pins = diff_ids.iter().map(|id| inner.pin(id).ok_or_else(gone)).collect::<Result<Vec<_>, _>>()?;
        let lower = self.lower_directories(base)?;
        let paths = [upper].into_iter().chain(lower.iter().map(|path| path.as_path()));
        let union = Union::open(paths).map_err(|(path, error)| ImageError::io("open", path.display())(error))?;
        export(&union, out).map_err(ImageError::exporting)
    }
}

pub(crate) fn export(union: &Union, out: impl Write) -> Result<(), PackError> {
    let mut exporter = Exporter { union, writer: TarWriter::new(out), links: HashMap::new(), parent: None };
    exporter.root_entry()?;
    let mut stack = exporter.below(b"", &union.everywhere())?;
    while let Some((place, layers)) = stack.pop() {
        match exporter.entry(&place, layers[0]) {
            Ok(true) => stack.extend(exporter.below(&place.path(), &layers)?),
            Ok(false) => {}
            // It went away between listing and looking, or something else has come in its place.
            Err(PackError::Read { source: Errno::NOENT | Errno::NOTDIR | Errno::LOOP, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    exporter.writer.finish().map_err(PackError::Write)
}

struct Exporter<'a, W> {
    union: &'a Union,
    writer: TarWriter<W>,
    /// The first path of a file with several names.
    links: HashMap<(u64, u64), Place>,
    /// The directory of the entry before, in its layer.
    parent: Option<(Vec<u8>, u16, OwnedFd)>,
}

impl<W: Write> Exporter<'_, W> {
    /// An archive has an entry of its root only where that is not as an unpacker makes it.
    fn root_entry(&mut self) -> Result<(), PackError> {
        let failed = |source| PackError::Read { path: "/".into(), source };
        let root = self.union.layer(0);
        let stat = rustix::fs::fstat(root).map_err(failed)?;
        let attributes = portable(tree::xattrs(root, b".").map_err(failed)?);
        if (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) != (0o755, 0, 0) || !attributes.is_empty() {
            let header = Description { path: b"./", attributes, ..Description::of(&stat, EntryType::Directory) };
            self.writer.header(&header).map_err(PackError::Write)?;
        }
        Ok(())
    }

    /// What is in a directory, last first.
    fn below(&self, path: &[u8], layers: &Layers) -> Result<Vec<(Place, Layers)>, PackError> {
        let names = self.union.list(path, layers).map_err(|source| PackError::Read { path: shown(path), source })?;
        let above: Rc<[u8]> = path.into();
        Ok(names.into_iter().rev().map(|(name, layers)| (Place::new(&above, name), layers)).collect())
    }

    /// Writes one entry; true if it is a directory to go into.
    fn entry(&mut self, place: &Place, layer: u16) -> Result<bool, PackError> {
        let path = place.path();
        let failed = |source| PackError::Read { path: shown(&path), source };
        if path.len() > tree::PATH_LIMIT - 1 {
            return Err(PackError::Refused { path: shown(&path), why: "its path is too long" });
        }
        let (above, name) = tree::split(&path);
        let parent = match self.parent.take() {
            Some((cached, of, parent)) if cached == above && of == layer => parent,
            _ => tree::open_no_links(self.union.layer(layer), above, tree::DIRECTORY).map_err(failed)?,
        };
        let parent = &self.parent.insert((above.to_vec(), layer, parent)).2;
        let stat = tree::stat(parent.as_fd(), name).map_err(failed)?.ok_or(Errno::NOENT).map_err(failed)?;
        if tree::is_whiteout(&stat) {
            return Ok(false);
        }
        let Some(kind) = entry_type(&stat) else { return Ok(false) };
        let attributes = portable(tree::xattrs(parent.as_fd(), name).map_err(failed)?);
        let link = match kind {
            EntryType::Symlink => tree::read_link(parent.as_fd(), name).map_err(failed)?,
            _ => Vec::new(),
        };
        // NONBLOCK: a pipe may have taken the file's place, and nobody writes to it.
        let file = match kind {
            EntryType::Regular => {
                let file = tree::open_no_links(parent.as_fd(), name, OFlags::RDONLY | OFlags::NONBLOCK);
                Some(file.map_err(|error| failed(if error == Errno::NXIO { Errno::NOENT } else { error }))?)
            }
            _ => None,
        };
        if let Some(file) = file {
            let stat = rustix::fs::fstat(&file).map_err(failed)?;
            if tree::file_type(&stat) != FileType::RegularFile {
                return Ok(false);
            }
            return self.file(place, &stat, attributes, file).map(|()| false);
        }
        let directory_path = [path.as_slice(), b"/"].concat();
        let written = if kind == EntryType::Directory { &directory_path } else { &path };
        let header = Description { path: written, link: &link, attributes, ..Description::of(&stat, kind) };
        self.writer.header(&header).map_err(PackError::Write)?;
        Ok(kind == EntryType::Directory)
    }

    fn file(&mut self, place: &Place, stat: &Stat, attributes: tree::Xattrs, file: OwnedFd) -> Result<(), PackError> {
        let path = place.path();
        if stat.st_nlink > 1 {
            let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| place.clone()).path();
            if first != path {
                let header =
                    Description { path: &path, link: &first, size: 0, ..Description::of(stat, EntryType::Link) };
                return self.writer.header(&header).map_err(PackError::Write);
            }
        }
        let header = Description { path: &path, attributes, ..Description::of(stat, EntryType::Regular) };
        write_file(&mut self.writer, header, file.as_fd(), |_, _, _| Ok(()))
    }
}

#[cfg(test)]
mod tests;
