//! An archive on its way in: read once, front to back, nothing of it in memory.
//!
//! What says which file is what may stand at the end. So a file that begins as a tar stream is taken for a layer and
//! unpacked as it comes, which spares writing it twice; if the archive then does not name it as one, it goes with the
//! scratch directory. Other files, compressed layers among them, are set aside. A layer whose name is the digest of one
//! that the store has is read over.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use dozen_model::Digest;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::{Progress, ProgressEvent};
use crate::ImageError;
use crate::chunks::{Chunk, Pool};
use crate::compression::decompress;
use crate::digesting::Digesting;
use crate::extract::ExtractError;
use crate::manifest::{Files, Held, Spooled};
use crate::names::{normalize, shown};
use crate::pins::Pin;
use crate::scratch::Scratch;
use crate::store::Inner;
use crate::tarball::{Entry, TarReader, begins_tar};
use crate::tree;
use crate::unpack::{Place, Unpacked, Unpacking};

/// Files in one archive.
const FILES_LIMIT: usize = 100_000;
/// Bytes of their names and of what links lead to, which are all in memory at once.
const NAMES_LIMIT: usize = 16 * 1024 * 1024;
/// Layers that are still being unpacked while the next one comes.
const UNFINISHED_LIMIT: usize = 2;

/// What came in.
pub(super) struct Intake<'a> {
    inner: &'a Arc<Inner>,
    scratch: &'a Scratch,
    progress: &'a dyn Progress,
    pub(super) pool: Pool,
    pub(super) files: Files,
    /// By the numbers in [`Held::Unpacked`].
    pub(super) unpacked: Vec<Option<Result<Unpacked, ExtractError>>>,
    unfinished: VecDeque<(usize, Unpacking)>,
    /// Layers that were read over stay while this lives.
    pins: Vec<Pin>,
    /// Bytes of all files so far.
    total: u64,
    /// Bytes of the archive, compressed as it came.
    pub(super) archive_bytes: u64,
}

struct Counted<'a, R>(R, &'a Cell<u64>);

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.set(self.1.get() + read as u64);
        Ok(read)
    }
}

impl<'a> Intake<'a> {
    pub(super) fn new(inner: &'a Arc<Inner>, scratch: &'a Scratch, progress: &'a dyn Progress) -> Self {
        Self {
            inner,
            scratch,
            progress,
            pool: Pool::default(),
            files: Files::default(),
            unpacked: Vec::new(),
            unfinished: VecDeque::new(),
            pins: Vec::new(),
            total: 0,
            archive_bytes: 0,
        }
    }

    /// Reads an archive to its end.
    pub(super) fn read(&mut self, archive: impl Read) -> Result<(), ImageError> {
        let archive_bytes = Cell::new(0);
        let (_, mut plain) = decompress(Counted(archive, &archive_bytes)).map_err(ImageError::reading)?;
        let mut first = Vec::new();
        plain.by_ref().take(512).read_to_end(&mut first).map_err(ImageError::reading)?;
        if !begins_tar(&first) {
            return Err(ImageError::NotAnArchive { is_empty: first.is_empty() });
        }
        let mut reader = TarReader::new(first.as_slice().chain(plain));
        let (mut count, mut names_bytes) = (0, 0);
        while let Some(entry) = reader.next_entry().map_err(ImageError::reading)? {
            let shown = shown(&entry.path);
            let bad = |what| ImageError::Archive(format!("entry {shown:?}: {what}"));
            let name = normalize(&entry.path).map_err(bad)?;
            count += 1;
            if count > FILES_LIMIT {
                return Err(ImageError::Archive(format!("it holds more than {FILES_LIMIT} files")));
            }
            names_bytes += name.len() + entry.link.len();
            if names_bytes > NAMES_LIMIT {
                return Err(ImageError::Archive(format!("the names of its files are longer than {NAMES_LIMIT} bytes")));
            }
            match entry.kind {
                EntryType::Directory => {}
                EntryType::Regular | EntryType::Continuous => {
                    let file = self.file(count, &name, &entry, &mut reader)?;
                    self.files.files.insert(name, file);
                }
                EntryType::Link => {
                    let target = normalize(&entry.link).map_err(bad)?;
                    self.files.links.insert(name, target);
                }
                EntryType::Symlink => {
                    let target = link_target(&name, &entry.link).map_err(bad)?;
                    self.files.links.insert(name, target);
                }
                _ => return Err(bad("an image archive holds files, directories and links only")),
            }
        }
        reader.drain().map_err(ImageError::reading)?;
        self.archive_bytes = archive_bytes.get();
        self.finish_all_but(0);
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        count: usize,
        name: &[u8],
        entry: &Entry,
        reader: &mut TarReader<R>,
    ) -> Result<Spooled, ImageError> {
        let size = entry.size;
        let claimed = claimed_digest(name);
        if let Some(claimed) = &claimed
            && !self.inner.is_damaged(claimed)
            && let Some(pin) = self.inner.pin_content(claimed)
        {
            self.progress.report(ProgressEvent::Exists { layer: &pin.digest });
            self.pins.push(pin);
            while !self.chunk(reader)?.bytes().is_empty() {}
            return Ok(Spooled { held: Held::Known, size, digest: claimed.clone() });
        }
        let first = self.chunk(reader)?;
        let block = first.bytes().get(..512);
        // A plain layer is known by its sha256; what is named by another digest is kept as it came.
        let is_by_sha256 = claimed.as_ref().is_none_or(|claimed| claimed.algorithm() == "sha256");
        if is_by_sha256 && block.is_some_and(begins_tar) {
            self.layer(first, claimed, size, reader)
        } else {
            self.set_aside(count, first, claimed.as_ref(), reader)
        }
    }

    /// The next bytes of the current entry; none at its end.
    fn chunk<R: Read>(&mut self, reader: &mut TarReader<R>) -> Result<Chunk, ImageError> {
        let mut chunk = self.pool.chunk();
        while !chunk.is_full() && chunk.read_from(reader.data()).map_err(ImageError::reading)? > 0 {}
        self.total += chunk.bytes().len() as u64;
        self.progress.report(ProgressEvent::Reading { bytes: self.total });
        Ok(chunk)
    }

    fn set_aside<R: Read>(
        &mut self,
        count: usize,
        mut chunk: Chunk,
        claimed: Option<&Digest>,
        reader: &mut TarReader<R>,
    ) -> Result<Spooled, ImageError> {
        let path = self.scratch.0.join(format!("f{count}"));
        let failed = |source: std::io::Error| ImageError::io("write", path.display())(source);
        let mut file = File::create_new(&path).map_err(failed)?;
        let mut hash = claimed.map_or_else(|| Digesting::Sha256(Sha256::new()), Digesting::like);
        let mut size = 0;
        while !chunk.bytes().is_empty() {
            hash.update(chunk.bytes());
            file.write_all(chunk.bytes()).map_err(failed)?;
            size += chunk.bytes().len() as u64;
            chunk = self.chunk(reader)?;
        }
        let digest = hash.finish();
        Ok(Spooled { held: Held::File(path), size, digest })
    }

    fn layer<R: Read>(
        &mut self,
        mut chunk: Chunk,
        claimed: Option<Digest>,
        size: u64,
        reader: &mut TarReader<R>,
    ) -> Result<Spooled, ImageError> {
        let number = self.unpacked.len();
        self.finish_all_but(UNFINISHED_LIMIT);
        let place = Place::new(&self.scratch.0, number)?;
        let mut unpacking = Unpacking::start(place, Some(size), true)?;
        self.unpacked.push(None);
        let mut done = 0;
        while !chunk.bytes().is_empty() {
            done += chunk.bytes().len() as u64;
            // That it is given up counts when an image turns out to need it.
            unpacking.feed(chunk);
            if let Some(layer) = &claimed {
                self.progress.report(ProgressEvent::Unpacking { layer, bytes: done, blob_bytes: size });
            }
            chunk = self.chunk(reader)?;
        }
        let digest = unpacking.digest();
        self.unfinished.push_back((number, unpacking));
        if claimed.is_none() {
            self.progress.report(ProgressEvent::Unpacking { layer: &digest, bytes: done, blob_bytes: size });
        }
        Ok(Spooled { held: Held::Unpacked(number), size, digest })
    }

    /// Keeps a layer of the store's by the digest of its blob.
    pub(super) fn pin(&self, blob: &Digest) -> Option<Pin> {
        self.inner.pin_content(blob)
    }

    /// Whether the store keeps a blob of this digest for some target of its own.
    pub(super) fn has_blob(&self, digest: &Digest) -> bool {
        self.inner.read_state().blobs.contains_key(digest)
    }

    fn finish_all_but(&mut self, count: usize) {
        while self.unfinished.len() > count {
            let Some((number, unpacking)) = self.unfinished.pop_front() else { break };
            self.unpacked[number] = Some(unpacking.finish());
        }
    }
}

/// The digest that a file has by its name: `blobs/sha256/HEX` and `blobs/sha512/HEX` are that of its bytes, and so is a bare `HEX` of a packed
/// directory of skopeo's; `HEX.tar` at the top, as skopeo and podman write it, is that of a plain layer.
fn claimed_digest(name: &[u8]) -> Option<Digest> {
    let name = std::str::from_utf8(name).ok()?;
    if let Some(hex) = name.strip_prefix("blobs/sha512/") {
        return format!("sha512:{hex}").parse().ok();
    }
    let hex = name.strip_prefix("blobs/sha256/").or_else(|| name.strip_suffix(".tar")).unwrap_or(name);
    if hex.len() == 64 { format!("sha256:{hex}").parse().ok() } else { None }
}

/// Where a symbolic link of the archive itself leads, as a name in it. Inside an archive `..` is honest: docker save wrote
/// `../ID/layer.tar`. The name only keys a map.
fn link_target(name: &[u8], link: &[u8]) -> Result<Vec<u8>, &'static str> {
    if link.len() > tree::PATH_LIMIT {
        return Err("its target is longer than 4095 bytes");
    }
    let mut target = tree::split(name).0.to_vec();
    for component in link.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => target.truncate(tree::split(&target).0.len()),
            component => {
                if !target.is_empty() {
                    target.push(b'/');
                }
                target.extend_from_slice(component);
            }
        }
    }
    Ok(target)
}
