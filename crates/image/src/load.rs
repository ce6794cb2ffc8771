//! `load`: an archive of images, read once, front to back.
//!
//! What says which file is what may stand at the end of the stream, so files are set aside on disk as they come, hashed
//! on the way; a layer's file is then already where its blob will stay, and moving it is a rename.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use dozen_ledger::{Durability, LedgerError};
use dozen_model::{Digest, ImageId, Reference};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use crate::ImageError;
use crate::compression::decompress;
use crate::extract::normalize;
use crate::failpoint::failpoint;
use crate::image::{Image, parse_config};
use crate::manifest::{Files, Spooled, plan};
use crate::schema::{self, ImageRow, LayerRow};
use crate::store::{ImageStore, Inner, Pin, Scratch};
use crate::tarball::{TarReader, begins_tar};
use crate::tree;
use crate::unpack::unpack;

/// Files in one archive.
const FILES_LIMIT: usize = 100_000;
/// Bytes of their names and of what links lead to, which are all in memory at once.
const NAMES_LIMIT: usize = 16 * 1024 * 1024;

/// One image that `load` brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The names that it got.
    pub references: Vec<Reference>,
}

/// Is told how far an operation is. Called often, from other threads too; it must be quick and must not block.
pub trait Progress: Send + Sync {
    /// Something moved on.
    fn report(&self, event: ProgressEvent<'_>);
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressEvent<'a> {
    /// Reading the archive, before its layers are known.
    Reading {
        /// Bytes of its files so far.
        bytes: u64,
    },
    /// Unpacking a layer.
    Unpacking {
        /// Digest of the plain layer.
        layer: &'a Digest,
        /// Plain bytes so far.
        bytes: u64,
        /// Bytes of its blob, compressed as it is.
        blob_bytes: u64,
    },
    /// A layer was there already.
    Exists {
        /// Digest of the plain layer.
        layer: &'a Digest,
    },
}

/// Nobody is watching.
impl Progress for () {
    fn report(&self, _: ProgressEvent<'_>) {}
}

/// A layer that is unpacked in a scratch directory and waits to be put in place.
pub(crate) struct Staged {
    /// Its row; the directory's name is still empty.
    pub(crate) row: LayerRow,
    pub(crate) directory: PathBuf,
    pub(crate) blob: PathBuf,
}

/// An image that waits for its row.
pub(crate) struct NewImage {
    pub(crate) id: ImageId,
    pub(crate) config: Vec<u8>,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) parent: Option<ImageId>,
    pub(crate) references: Vec<Reference>,
}

impl ImageStore {
    /// Reads images from a docker-archive or an OCI layout in a tar stream, plain or compressed with gzip or zstd.
    ///
    /// All digests are verified. Either all images of the archive are there afterwards, or nothing is.
    pub fn load(&self, archive: impl Read, progress: &dyn Progress) -> Result<Vec<Loaded>, ImageError> {
        let inner = &self.0;
        let scratch = inner.scratch()?;
        let files = spool(archive, &scratch, progress)?;
        failpoint("image.spooled");
        let mut pins: Vec<Pin> = Vec::new();
        let mut staged: Vec<Staged> = Vec::new();
        let mut images: Vec<NewImage> = Vec::new();
        for image in plan(&files)? {
            let id = ImageId::new(image.config.digest.clone());
            let config = image.config.read_document(&format!("the configuration of image {id}"))?;
            let (_, _, diff_ids) =
                parse_config(&config).map_err(|what| ImageError::Archive(format!("image {id}: {what}")))?;
            if diff_ids.len() != image.layers.len() {
                return Err(ImageError::Archive(format!(
                    "image {id} has {} layers by its configuration and {} by its manifest",
                    diff_ids.len(),
                    image.layers.len()
                )));
            }
            for (diff_id, (name, file)) in diff_ids.iter().zip(&image.layers) {
                if staged.iter().any(|layer| layer.row.diff_id == *diff_id) {
                    continue;
                }
                if let Some(pin) = inner.pin(diff_id) {
                    progress.report(ProgressEvent::Exists { layer: diff_id });
                    pins.push(pin);
                    continue;
                }
                let Some(file) = file else {
                    return Err(ImageError::Layer {
                        layer: name.clone(),
                        what: "it is missing in the archive, which may be cut short".into(),
                    });
                };
                staged.push(stage(&scratch, staged.len(), name, file, Some(diff_id), progress)?);
            }
            images.push(NewImage { id, config, diff_ids, parent: None, references: image.references });
        }
        inner.install(&scratch, staged, &images)?;
        drop(pins);
        Ok(images.into_iter().map(|image| Loaded { id: image.id, references: image.references }).collect())
    }
}

/// Sets an archive's files aside.
fn spool(archive: impl Read, scratch: &Scratch, progress: &dyn Progress) -> Result<Files, ImageError> {
    let (_, mut plain) = decompress(archive).map_err(ImageError::reading)?;
    let mut first = Vec::new();
    plain.by_ref().take(512).read_to_end(&mut first).map_err(ImageError::reading)?;
    if !begins_tar(&first) {
        return Err(ImageError::NotAnArchive { is_empty: first.is_empty() });
    }
    let mut reader = TarReader::new(first.as_slice().chain(plain));
    let mut files = Files::default();
    let mut buffer = vec![0; 256 * 1024];
    let (mut total, mut count, mut names_bytes) = (0, 0, 0);
    while let Some(entry) = reader.next_entry().map_err(ImageError::reading)? {
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
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
                let path = scratch.0.join(format!("f{count}"));
                let failed = |source: std::io::Error| ImageError::io("write", path.display())(source);
                let mut file = File::create_new(&path).map_err(failed)?;
                let (mut hash, mut size) = (Sha256::new(), 0);
                loop {
                    let read = reader.read_data(&mut buffer).map_err(ImageError::reading)?;
                    if read == 0 {
                        break;
                    }
                    hash.update(&buffer[..read]);
                    file.write_all(&buffer[..read]).map_err(failed)?;
                    size += read as u64;
                    total += read as u64;
                    progress.report(ProgressEvent::Reading { bytes: total });
                }
                let digest = Digest::from_sha256(hash.finalize().into());
                files.files.insert(name, Spooled { path, size, digest });
            }
            EntryType::Link => {
                let target = normalize(&entry.link).map_err(bad)?;
                files.links.insert(name, target);
            }
            EntryType::Symlink => {
                let target = link_target(&name, &entry.link).map_err(bad)?;
                files.links.insert(name, target);
            }
            _ => return Err(bad("an image archive holds files, directories and links only")),
        }
    }
    reader.drain().map_err(ImageError::reading)?;
    Ok(files)
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

/// Unpacks one blob in the scratch directory. With `expected`, its plain bytes must have that digest.
pub(crate) fn stage(
    scratch: &Scratch,
    number: usize,
    name: &str,
    file: &Spooled,
    expected: Option<&Digest>,
    progress: &dyn Progress,
) -> Result<Staged, ImageError> {
    let directory = scratch.0.join(format!("l{number}"));
    let failed = ImageError::io("make directory", directory.display());
    let root = rustix::fs::mkdir(&directory, rustix::fs::Mode::from_raw_mode(0o755))
        .and_then(|()| tree::open_root(&directory))
        .and_then(|root| rustix::fs::fchmod(&root, rustix::fs::Mode::from_raw_mode(0o755)).map(|()| root))
        .map_err(failed)?;
    let blob = File::open(&file.path).map_err(ImageError::io("open", file.path.display()))?;
    let watch = |bytes| {
        if let Some(layer) = expected {
            progress.report(ProgressEvent::Unpacking { layer, bytes, blob_bytes: file.size });
        }
    };
    let unpacked = unpack(blob, file.size, root.as_fd(), watch).map_err(|error| ImageError::layer(name, error))?;
    if let Some(expected) = expected.filter(|expected| **expected != unpacked.diff_id) {
        return Err(ImageError::Layer {
            layer: name.to_owned(),
            what: format!("the configuration wants {expected}, but its bytes have the digest {}", unpacked.diff_id),
        });
    }
    let row = LayerRow {
        diff_id: unpacked.diff_id,
        directory: String::new(),
        blob: file.digest.clone(),
        media_type: unpacked.compression.layer_media_type().to_owned(),
        blob_size_bytes: file.size,
        tar_size_bytes: unpacked.tar_size_bytes,
        content_bytes: unpacked.extracted.content_bytes,
        opaque_root: unpacked.extracted.opaque_root,
    };
    Ok(Staged { row, directory, blob: file.path.clone() })
}

impl Inner {
    /// Puts layers and configurations in place, then writes their rows. All or nothing.
    pub(crate) fn install(
        &self,
        scratch: &Scratch,
        staged: Vec<Staged>,
        images: &[NewImage],
    ) -> Result<(), ImageError> {
        failpoint("image.unpacked");
        let _change = self.lock_change();
        let mut placed = Vec::new();
        let installed = self.place_and_write(scratch, staged, images, &mut placed);
        if installed.is_err() {
            placed.iter().for_each(|path| self.delete_file(path));
        }
        installed
    }

    fn place_and_write(
        &self,
        scratch: &Scratch,
        staged: Vec<Staged>,
        images: &[NewImage],
        placed: &mut Vec<PathBuf>,
    ) -> Result<(), ImageError> {
        let mut rows = Vec::new();
        for Staged { mut row, directory, blob } in staged {
            // Another load was faster; ours goes with the scratch directory.
            if self.read_state().layers.contains_key(&row.diff_id) {
                continue;
            }
            row.directory = self.place_layer(&directory)?;
            placed.push(self.layer_path(&row.directory));
            failpoint("image.layer_placed");
            let target = self.blob_path(&row.blob);
            rename(&blob, &target)?;
            failpoint("image.blob_placed");
            placed.push(target);
            rows.push(row);
        }
        for (number, image) in images.iter().enumerate() {
            let known = {
                let state = self.read_state();
                state.images.contains_key(&image.id) || state.removed.contains_key(&image.id)
            };
            if known {
                continue;
            }
            let path = scratch.0.join(format!("c{number}"));
            std::fs::write(&path, &image.config).map_err(ImageError::io("write", path.display()))?;
            let target = self.blob_path(image.id.digest());
            rename(&path, &target)?;
            failpoint("image.configuration_placed");
            placed.push(target);
        }
        let mut parsed = Vec::new();
        for image in images {
            let bad = |what| ImageError::Archive(format!("image {}: {what}", image.id));
            parsed.push(Image::new(image.id.clone(), &image.config, 0, image.parent.clone()).map_err(bad)?);
        }
        self.sync()?;
        failpoint("image.synced");
        self.write_rows(rows.clone(), images)?;
        failpoint("image.rows");
        let mut state = self.write_state();
        state.layers.extend(rows.into_iter().map(|row| (row.diff_id.clone(), row.into())));
        for (mut new, image) in parsed.into_iter().zip(images) {
            new.size_bytes = state.size_of(&new.diff_ids);
            if let Some(known) = state.removed.remove(&image.id) {
                state.images.insert(image.id.clone(), known);
            }
            state.images.entry(image.id.clone()).or_insert_with(|| new.into());
            for reference in &image.references {
                state.references.insert(reference.clone(), image.id.clone());
            }
        }
        state.name_images();
        Ok(())
    }

    fn write_rows(&self, layers: Vec<LayerRow>, images: &[NewImage]) -> Result<(), ImageError> {
        let images: Vec<_> = images
            .iter()
            .map(|image| {
                let row = ImageRow { id: image.id.clone(), parent: image.parent.clone(), removed: false };
                (row, image.diff_ids.clone(), image.references.clone())
            })
            .collect();
        Ok(self.ledger.write(Durability::Power, move |connection| {
            layers.iter().try_for_each(|layer| schema::insert_layer(connection, layer))?;
            for (row, diff_ids, references) in &images {
                schema::insert_image(connection, row, diff_ids)?;
                references.iter().try_for_each(|name| schema::set_reference(connection, name, &row.id))?;
            }
            Ok::<_, LedgerError>(())
        })?)
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), ImageError> {
    std::fs::rename(from, to).map_err(ImageError::io("rename to", to.display()))
}
