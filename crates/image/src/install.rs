//! What was staged in a scratch directory is put in place and gets its rows: all of it, or nothing. A load, a commit, an
//! import and the choice of another platform end here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dozen_ledger::{Durability, LedgerError};
use dozen_model::{Digest, ImageId, Reference};
use jiff::Timestamp;

use crate::ImageError;
use crate::build_cache::{self, HeldLayers, StepRow};
use crate::compression::Compression;
use crate::failpoint::failpoint;
use crate::image::Image;
use crate::new_layer::NewLayer;
use crate::pins::Pin;
use crate::recording::Kept;
use crate::schema::{self, ImageRow, LayerRow};
use crate::scratch::Scratch;
use crate::store::Inner;
use crate::target::Target;
use crate::unpack::Unpacked;
use crate::uses::write_use;

/// A layer that is unpacked in a scratch directory and waits to be put in place.
pub(crate) struct Staged {
    /// Its row; the directory's name is still empty.
    pub(crate) row: LayerRow,
    pub(crate) directory: PathBuf,
    /// What is kept beside it: its recipe or its blob.
    pub(crate) kept: PathBuf,
}

/// An image that waits for its row.
pub(crate) struct NewImage {
    pub(crate) id: ImageId,
    pub(crate) config: Vec<u8>,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) parent: Option<ImageId>,
    pub(crate) references: Vec<Reference>,
}

/// What of OCI layouts is kept beside images and layers.
#[derive(Default)]
pub(crate) struct Carried {
    pub(crate) targets: Vec<CarriedTarget>,
    /// Files in the scratch directory that may have to be kept: digest, path, size. A layer that is kept anyway needs none.
    pub(crate) files: BTreeMap<Digest, (PathBuf, u64)>,
    pub(crate) pins: Vec<Pin>,
}

pub(crate) struct CarriedTarget {
    pub(crate) target: Target,
    pub(crate) names: Vec<Reference>,
    /// Blobs that the archive has not, and that the store kept for another target when it was looked at.
    pub(crate) borrowed: Vec<Digest>,
}

impl Inner {
    /// Puts layers and configurations in place, then writes their rows. All or nothing.
    pub(crate) fn install(
        &self,
        scratch: &Scratch,
        staged: Vec<Staged>,
        images: &[NewImage],
    ) -> Result<(), ImageError> {
        self.install_with(scratch, staged, images, &Carried::default())
    }

    /// The same with what an archive says of its images beside them.
    pub(crate) fn install_with(
        &self,
        scratch: &Scratch,
        staged: Vec<Staged>,
        images: &[NewImage],
        carried: &Carried,
    ) -> Result<(), ImageError> {
        failpoint("image.unpacked");
        let _change = self.lock_change();
        let targets = self.targets_of(carried);
        let mut placing = Placing { inner: self, paths: Vec::new(), rows: Vec::new(), blobs: Vec::new() };
        let installed = placing.place(scratch, staged, images, carried).and_then(|parsed| {
            scratch.sync()?;
            let synced = self.sync_steps(&images.iter().flat_map(|image| &image.diff_ids).collect::<Vec<_>>())?;
            failpoint("image.synced");
            self.write_rows(placing.rows.clone(), placing.blobs.clone(), images, &targets, synced.clone())?;
            failpoint("image.rows");
            Ok((parsed, synced))
        });
        if installed.is_err() {
            placing.paths.iter().for_each(|path| self.discard(path));
        }
        let (parsed, synced) = installed?;
        self.show(placing, parsed, images, targets);
        self.write_state().forget_marks(&synced);
        Ok(())
    }

    /// Puts the layer of a build's step in place and writes the step down. Kill-safe: nothing is synced, and the layer is
    /// marked with that. Gives it held.
    pub(crate) fn install_step(
        self: &Arc<Self>,
        new: Option<NewLayer>,
        steps: Vec<StepRow>,
    ) -> Result<HeldLayers, ImageError> {
        failpoint("image.step.before");
        let _change = self.lock_change();
        let mut placing = Placing { inner: self, paths: Vec::new(), rows: Vec::new(), blobs: Vec::new() };
        let mark = self.boot.clone().unwrap_or_default();
        let written = new.map_or(Ok(()), |new| placing.layers(vec![new.staged])).and_then(|()| {
            placing.rows.iter_mut().for_each(|row| row.unsynced_boot = Some(mark.clone()));
            let (layers, steps) = (placing.rows.clone(), steps.clone());
            Ok(self.ledger.write(Durability::Kill, move |connection| {
                layers.iter().try_for_each(|layer| schema::insert_layer(connection, layer))?;
                steps.iter().try_for_each(|step| build_cache::insert(connection, step))
            })?)
        });
        if written.is_err() {
            placing.paths.iter().for_each(|path| self.discard(path));
        }
        written?;
        failpoint("image.step.rows");
        let mut state = self.write_state();
        state.layers.extend(placing.rows.into_iter().map(|row| (row.diff_id.clone(), row.into())));
        let mut replaces = false;
        for step in &steps {
            let before = state.steps.insert(step.key.clone(), step.clone().into());
            replaces |= before.is_some_and(|before| before.diff_id != step.diff_id);
        }
        drop(state);
        let diff_ids: Vec<Digest> = steps.iter().filter_map(|step| step.diff_id.clone()).take(1).collect();
        let missing = || ImageError::NoSuchImage(diff_ids.iter().map(Digest::to_string).collect());
        let held = self.hold_layers(&diff_ids).ok_or_else(missing)?;
        if replaces {
            // A step that was done anew (`--no-cache`): what it had made before is nobody's, if no image has it.
            self.sweep_layers();
        }
        Ok(held)
    }

    /// The targets as they are going to be. One whose parts have gone meanwhile with another is left out, as if it had come
    /// without them. The change lock is held.
    fn targets_of(&self, carried: &Carried) -> Targets {
        let state = self.read_state();
        let is_whole = |new: &&CarriedTarget| new.borrowed.iter().all(|digest| state.blobs.contains_key(digest));
        let joined = |new: &CarriedTarget| match state.targets.get(&new.target.digest) {
            Some(known) => Target::clone(known).joined(&new.target),
            None => new.target.clone(),
        };
        Targets(carried.targets.iter().filter(is_whole).map(|new| (joined(new), new.names.clone())).collect())
    }

    /// What the rows say, in memory.
    fn show(&self, placing: Placing<'_>, parsed: Vec<Image>, images: &[NewImage], targets: Targets) {
        let mut state = self.write_state();
        state.layers.extend(placing.rows.into_iter().map(|row| (row.diff_id.clone(), row.into())));
        state.blobs.extend(placing.blobs);
        for (mut new, image) in parsed.into_iter().zip(images) {
            new.size_bytes = state.size_of(&new.diff_ids);
            if let Some(healed) = state.unreadable.remove(&image.id) {
                // As its row says.
                new.parent = healed.parent;
            }
            if let Some(known) = state.removed.remove(&image.id) {
                state.images.insert(image.id.clone(), known);
            }
            state.images.entry(image.id.clone()).or_insert_with(|| new.into());
            state.note_use(&image.id, Timestamp::now().as_second());
            for reference in &image.references {
                state.point(reference, &image.id, targets.of(reference, &image.id).cloned());
            }
        }
        state.targets.extend(targets.0.into_iter().map(|(target, _)| (target.digest.clone(), target.into())));
        state.name_images();
    }

    fn write_rows(
        &self,
        layers: Vec<LayerRow>,
        blobs: Vec<(Digest, u64)>,
        images: &[NewImage],
        targets: &Targets,
        synced: Vec<Digest>,
    ) -> Result<(), ImageError> {
        let images: Vec<_> = images
            .iter()
            .map(|image| {
                let row = ImageRow { id: image.id.clone(), parent: image.parent.clone(), removed: false };
                let names = image.references.iter();
                let names = names.map(|name| (name.clone(), targets.of(name, &image.id).cloned()));
                (row, image.diff_ids.clone(), names.collect::<Vec<_>>())
            })
            .collect();
        let targets: Vec<_> = targets.0.iter().map(|(target, _)| target.clone()).collect();
        let now_s = Timestamp::now().as_second();
        Ok(self.ledger.write(Durability::Power, move |connection| {
            build_cache::mark_synced(connection, &synced)?;
            layers.iter().try_for_each(|layer| schema::insert_layer(connection, layer))?;
            blobs.iter().try_for_each(|(digest, size)| schema::insert_blob(connection, digest, *size))?;
            images.iter().try_for_each(|(row, diff_ids, _)| schema::insert_image(connection, row, diff_ids))?;
            images.iter().try_for_each(|(row, _, _)| write_use(connection, &row.id, now_s))?;
            targets.iter().try_for_each(|target| schema::insert_target(connection, target))?;
            for (row, _, names) in &images {
                let mut names = names.iter();
                names.try_for_each(|(name, to)| schema::set_reference(connection, name, &row.id, to.as_ref()))?;
            }
            Ok::<_, LedgerError>(())
        })?)
    }
}

/// Files on their way to where they stay. What was placed and belongs to nothing else is taken away if the rest fails.
struct Placing<'a> {
    inner: &'a Inner,
    paths: Vec<PathBuf>,
    rows: Vec<LayerRow>,
    blobs: Vec<(Digest, u64)>,
}

impl Placing<'_> {
    /// All of them; gives the images, read.
    fn place(
        &mut self,
        scratch: &Scratch,
        staged: Vec<Staged>,
        images: &[NewImage],
        carried: &Carried,
    ) -> Result<Vec<Image>, ImageError> {
        self.layers(staged)?;
        self.configurations(scratch, images)?;
        self.carried(&carried.files)?;
        let parsed = images.iter().map(|image| {
            let bad = |what| ImageError::Archive(format!("image {}: {what}", image.id));
            Image::new(image.id.clone(), &image.config, 0, image.parent.clone()).map_err(bad)
        });
        parsed.collect()
    }

    fn layers(&mut self, staged: Vec<Staged>) -> Result<(), ImageError> {
        let mut seen = BTreeSet::new();
        for new in staged {
            let known = self.inner.read_state().layers.get(&new.row.diff_id).cloned();
            // Another load was faster, or it came both plain and compressed: this one goes with the scratch directory.
            if known.is_some() || !seen.insert(new.row.diff_id.clone()) {
                if let Some(known) = known.filter(|known| self.inner.is_damaged(&known.diff_id)) {
                    self.inner.mend(&known, &new)?;
                }
                continue;
            }
            let Staged { mut row, directory, kept } = new;
            row.directory = self.inner.place_layer(&directory)?;
            self.paths.push(self.inner.layer_path(&row.directory));
            failpoint("image.layer_placed");
            let point = if row.recipe_size_bytes.is_some() { "image.recipe_placed" } else { "image.blob_placed" };
            self.file(&kept, self.inner.content_path(&row), point)?;
            self.rows.push(row);
        }
        Ok(())
    }

    fn configurations(&mut self, scratch: &Scratch, images: &[NewImage]) -> Result<(), ImageError> {
        for (number, image) in images.iter().enumerate() {
            let is_known = {
                let state = self.inner.read_state();
                state.images.contains_key(&image.id) || state.removed.contains_key(&image.id)
            };
            if !is_known || self.inner.is_damaged(image.id.digest()) {
                let path = scratch.0.join(format!("c{number}"));
                std::fs::write(&path, &image.config).map_err(ImageError::io("write", path.display()))?;
                self.file(&path, self.inner.blob_path(image.id.digest()), "image.configuration_placed")?;
                self.inner.is_mended(&[image.id.digest()]);
            }
        }
        Ok(())
    }

    fn carried(&mut self, files: &BTreeMap<Digest, (PathBuf, u64)>) -> Result<(), ImageError> {
        if files.is_empty() {
            return Ok(());
        }
        let kept: BTreeSet<Digest> = {
            let state = self.inner.read_state();
            let of_layers = state.layers.values().map(|row| &row.blob).chain(state.layers.keys());
            let new = self.rows.iter().flat_map(|row| [&row.blob, &row.diff_id]);
            let is_sound = |digest: &&Digest| !state.damaged.contains(*digest);
            state.blobs.keys().filter(is_sound).chain(of_layers).chain(new).cloned().collect()
        };
        for (digest, (path, size_bytes)) in files.iter().filter(|(digest, _)| !kept.contains(digest)) {
            self.file(path, self.inner.blob_path(digest), "image.carried_placed")?;
            self.inner.is_mended(&[digest]);
            self.blobs.push((digest.clone(), *size_bytes));
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: PathBuf, point: &'static str) -> Result<(), ImageError> {
        place_file(from, to, &mut self.paths)?;
        failpoint(point);
        Ok(())
    }
}

/// One file. What is there already is something else's, too, and the same: its place is taken by what is on the disk
/// already, or a power cut would leave nothing of either. `new` gets the path of what was not there.
pub(crate) fn place_file(from: &Path, to: PathBuf, new: &mut Vec<PathBuf>) -> Result<(), ImageError> {
    let is_new = !to.exists();
    if !is_new {
        let synced = std::fs::File::open(from).and_then(|file| file.sync_all());
        synced.map_err(ImageError::io("write to the disk", from.display()))?;
    }
    std::fs::rename(from, &to).map_err(ImageError::io("rename to", to.display()))?;
    new.extend(is_new.then_some(to));
    Ok(())
}

impl Staged {
    /// A layer that was unpacked as a plain stream.
    pub(crate) fn plain(unpacked: Unpacked) -> Self {
        let (blob, size) = (unpacked.diff_id.clone(), unpacked.tar_size_bytes);
        let kept = unpacked.kept_path().map(Path::to_owned).unwrap_or_default();
        Self::new(unpacked, Compression::None, blob, size, kept)
    }

    pub(crate) fn new(
        unpacked: Unpacked,
        compression: Compression,
        blob: Digest,
        blob_size_bytes: u64,
        kept: PathBuf,
    ) -> Self {
        let row = LayerRow {
            diff_id: unpacked.diff_id,
            directory: String::new(),
            blob,
            media_type: compression.layer_media_type().to_owned(),
            blob_size_bytes,
            tar_size_bytes: unpacked.tar_size_bytes,
            content_bytes: unpacked.extracted.content_bytes,
            opaque_root: unpacked.extracted.opaque_root,
            recipe_size_bytes: match unpacked.kept {
                Kept::Recipe { size_bytes } => Some(size_bytes),
                Kept::Blob | Kept::Nothing => None,
            },
            unsynced_boot: None,
            tar_crc32: Some(unpacked.tar_crc32),
        };
        Self { row, directory: unpacked.directory, kept }
    }
}

/// Targets with what names lead to them.
struct Targets(Vec<(Target, Vec<Reference>)>);

impl Targets {
    /// What of these a name leads to, or else one that leads to its image.
    fn of(&self, name: &Reference, image: &ImageId) -> Option<&Digest> {
        let of_image = || self.0.iter().filter(|(target, _)| target.image == *image);
        let named = of_image().find(|(_, names)| names.contains(name));
        named.or_else(|| of_image().next()).map(|(target, _)| &target.digest)
    }
}
