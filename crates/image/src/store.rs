//! The store: what is in memory, what is on disk, and the one way from one state to the next.
//!
//! The ledger is the truth; memory holds a copy of it for readers, who never wait for disk. One change at a time:
//! files are put in place and synced first, then rows are written, then memory follows. A crash before the rows
//! leaves files that nobody owns, which [`ImageStore::open`] collects; deletion goes the other way round.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dozen_ledger::{Durability, Ledger, LedgerError};
use dozen_model::{Digest, ImageId, Reference, error_chain};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::ImageError;
use crate::artifact::Artifact;
use crate::build_cache::StepRow;
use crate::failpoint::failpoint;
use crate::image::Image;
use crate::schema::{self, ImageRow, LayerRow};
use crate::target::Target;
use crate::tree;
use crate::unreadable::Unreadable;
use crate::uses::Uses;

/// The images of one engine. Clones share one store.
#[derive(Clone)]
pub struct ImageStore(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) content: PathBuf,
    pub(crate) layers: PathBuf,
    pub(crate) tmp: PathBuf,
    /// From before anything was written through this store: see `build_cache`.
    pub(crate) opened: OwnedFd,
    /// This boot of the machine; `None` where the kernel does not say.
    pub(crate) boot: Option<String>,
    pub(crate) ledger: Ledger,
    state: RwLock<State>,
    /// Held while rows and files change together.
    pub(crate) change: Mutex<()>,
    /// What is deleted after it.
    pub(crate) discarded: Mutex<Vec<PathBuf>>,
    /// Layers that an operation relies on before an image of its own does.
    pins: Mutex<HashMap<Digest, usize>>,
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageStore").field("layers", &self.0.layers).finish_non_exhaustive()
    }
}

/// The ledger's rows in memory.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) images: BTreeMap<ImageId, Arc<Image>>,
    /// Removed, and not yet deleted because a container stands on their layers.
    pub(crate) removed: BTreeMap<ImageId, Arc<Image>>,
    pub(crate) unreadable: BTreeMap<ImageId, Unreadable>,
    /// What has turned out to be damaged since the store was opened: layers, and files below `content/`.
    pub(crate) damaged: BTreeSet<Digest>,
    pub(crate) references: BTreeMap<Reference, ImageId>,
    pub(crate) layers: HashMap<Digest, Arc<LayerRow>>,
    /// Files below `content/` that are neither a layer's nor an image's own, with their sizes.
    pub(crate) blobs: BTreeMap<Digest, u64>,
    pub(crate) targets: BTreeMap<Digest, Arc<Target>>,
    pub(crate) reference_targets: BTreeMap<Reference, Digest>,
    pub(crate) artifacts: BTreeMap<Reference, Arc<Artifact>>,
    /// What builds have done before, by key.
    pub(crate) steps: HashMap<Digest, Arc<StepRow>>,
    /// When somebody last wanted an image.
    pub(crate) uses: Uses,
}

/// How much the store occupies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of files in unpacked layers, each layer once.
    pub layers_bytes: u64,
    /// Bytes of the recipes and blobs that are kept beside them.
    pub blobs_bytes: u64,
    /// Each image and how many of its bytes it shares with others.
    pub images: Vec<ImageUsage>,
}

/// What one image occupies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image.
    pub id: ImageId,
    /// Bytes of all its layers.
    pub size_bytes: u64,
    /// Bytes of those that another image has too.
    pub shared_bytes: u64,
}

impl ImageStore {
    /// Opens the store below a data root, in which `content/`, `layers/` and `tmp/` are its own.
    ///
    /// The ledger must have been opened with [`crate::MIGRATIONS`], or with each of them among its owner's; no other engine may
    /// use the same root. What a crash left behind (a file without a row, a layer without an image) is deleted.
    pub fn open(root: &Path, ledger: Ledger) -> Result<Self, ImageError> {
        let directory = |name| {
            let path = root.join(name);
            let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(&path);
            made.map_err(ImageError::io("make directory", path.display())).map(|()| path)
        };
        let (content, layers, tmp) = (directory("content/sha256")?, directory("layers")?, directory("tmp")?);
        let boot = dozen_ledger::boot::id();
        let known = boot.clone();
        let rows = ledger.read(move |connection| schema::read(connection, known.as_deref()))?;
        let opened = tree::open_root(&layers).map_err(ImageError::io("open", layers.display()))?;
        let inner = Inner {
            content,
            layers,
            tmp,
            opened,
            boot,
            ledger,
            state: RwLock::default(),
            change: Mutex::default(),
            discarded: Mutex::default(),
            pins: Mutex::default(),
        };
        let mut state = State {
            references: rows.references,
            blobs: rows.blobs,
            targets: rows.targets.into_iter().map(|(digest, target)| (digest, Arc::new(target))).collect(),
            reference_targets: rows.reference_targets,
            artifacts: rows.artifacts,
            steps: rows.steps.into_iter().map(|(key, row)| (key, Arc::new(row))).collect(),
            uses: rows.uses,
            ..State::default()
        };
        state.layers = rows.layers.into_iter().map(|(digest, row)| (digest, Arc::new(row))).collect();
        for row in rows.images {
            match inner.read_image(&row) {
                Ok(mut image) => {
                    image.size_bytes = state.size_of(&image.diff_ids);
                    let images = if row.removed { &mut state.removed } else { &mut state.images };
                    images.insert(row.id, Arc::new(image));
                }
                Err(why) => {
                    let id = row.id.clone();
                    let image = inner.read_unreadable(row, why, &state.references)?;
                    state.unreadable.insert(id, image);
                }
            }
        }
        state.name_images();
        *inner.write_state() = state;
        let store = Self(Arc::new(inner));
        store.0.begin_uses()?;
        store.collect_leftovers()?;
        Ok(store)
    }

    /// All images, by id.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(self.0.read_state().images.values().map(|image| Image::clone(image)).collect())
    }

    /// The image, once every change that is under way is done: what a removal is about to take is not found.
    pub fn find_after_changes(&self, id: &ImageId) -> Result<Image, ImageError> {
        let _change = self.0.lock_change();
        self.find(&id.to_string())
    }

    /// The image of a reference, an id, or the beginning of one (with or without `sha256:`).
    pub fn find(&self, name: &str) -> Result<Image, ImageError> {
        self.0.read_state().find(name).map(|image| Image::clone(&image))
    }

    /// Gives an image one more name; a name that another image has moves.
    pub fn tag(&self, source: &ImageId, target: &Reference) -> Result<(), ImageError> {
        self.tag_found(&source.to_string(), target).map(drop)
    }

    /// The same for an image by any of its names. What this name leads to, the new one does too.
    pub fn tag_found(&self, source: &str, target: &Reference) -> Result<Image, ImageError> {
        if target.digest().is_some() {
            return Err(ImageError::TagWithDigest);
        }
        let _change = self.0.lock_change();
        let (image, leads_to) = {
            let state = self.0.read_state();
            let image = state.find(source)?;
            let name = source.parse::<Reference>().ok().filter(|name| state.references.contains_key(name));
            let leads_to = state.target(name.as_ref(), &image.id).map(|target| target.digest.clone());
            (image, leads_to)
        };
        failpoint("image.tag.before");
        let (id, reference, to) = (image.id.clone(), target.clone(), leads_to.clone());
        self.0.ledger.write(Durability::Power, move |connection| {
            schema::set_reference(connection, &reference, &id, to.as_ref())
        })?;
        failpoint("image.tag.after");
        let mut state = self.0.write_state();
        state.point(target, &image.id, leads_to);
        state.name_images();
        drop(state);
        self.note_use(&image.id);
        Ok(Image::clone(&image))
    }

    /// Of which of these digests the bytes are there: layers' plain tar streams, and blobs as they came. They may be gone in
    /// the next moment. What was found to be damaged is not there: it is to come again.
    pub fn known_contents(&self, digests: Vec<Digest>) -> Vec<Digest> {
        let state = self.0.read_state();
        let blobs: BTreeSet<&Digest> = state.layers.values().map(|row| &row.blob).chain(state.blobs.keys()).collect();
        let is_there = |digest: &Digest| state.layers.contains_key(digest) || blobs.contains(digest);
        digests.into_iter().filter(|digest| is_there(digest) && !state.is_damaged(digest)).collect()
    }

    /// The directories of an image's layers for an overlay, top first. They stay until the image is removed and
    /// [`ImageStore::collect`] finds it unused.
    pub fn lower_directories(&self, id: &ImageId) -> Result<Vec<PathBuf>, ImageError> {
        let state = self.0.read_state();
        self.0.stack(&state, &state.diff_ids(id)?)
    }

    /// How much all images occupy, and what they share.
    pub fn disk_usage(&self) -> Result<DiskUsage, ImageError> {
        let state = self.0.read_state();
        let mut users: HashMap<&Digest, usize> = HashMap::new();
        for image in state.images.values() {
            for diff_id in image.diff_ids.iter().collect::<BTreeSet<_>>() {
                *users.entry(diff_id).or_default() += 1;
            }
        }
        let shared = |image: &Image| {
            let layers: BTreeSet<_> = image.diff_ids.iter().collect();
            layers.into_iter().filter(|layer| users[layer] > 1).map(|layer| state.layers[layer].content_bytes).sum()
        };
        let usage = |image: &Arc<Image>| ImageUsage {
            id: image.id.clone(),
            size_bytes: image.size_bytes,
            shared_bytes: shared(image),
        };
        // Another platform's layer that was unpacked has its blob in common with the index.
        let is_blob = |row: &LayerRow| row.recipe_size_bytes.is_none() && state.blobs.contains_key(&row.blob);
        let kept = state.layers.values().filter(|layer| !is_blob(layer));
        Ok(DiskUsage {
            layers_bytes: state.layers.values().map(|layer| layer.content_bytes).sum(),
            blobs_bytes: kept.map(|layer| layer.kept_bytes()).chain(state.blobs.values().copied()).sum(),
            images: state.images.values().map(usage).collect(),
        })
    }

    /// Deletes layers without an image, and files without a row. What resists stays until the next start.
    fn collect_leftovers(&self) -> Result<(), ImageError> {
        let _change = self.0.lock_change();
        self.0.collect_layers()?;
        for path in self.0.strays()? {
            tracing::info!(path = %path.display(), "deleting what a crash left behind");
            delete(&path);
        }
        for path in paths_in(&self.0.tmp)? {
            tracing::info!(path = %path.display(), "deleting what a crash left behind");
            delete(&path);
        }
        Ok(())
    }
}

/// Everything in one directory.
fn paths_in(directory: &Path) -> Result<Vec<PathBuf>, ImageError> {
    use std::os::fd::AsFd;
    use std::os::unix::ffi::OsStringExt;
    let names = tree::open_root(directory).and_then(|fd| tree::names(fd.as_fd()));
    let names = names.map_err(ImageError::io("read", directory.display()))?;
    Ok(names.into_iter().map(|name| directory.join(std::ffi::OsString::from_vec(name))).collect())
}

impl State {
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Image>, ImageError> {
        self.find_readable(name).map_err(|error| match (&error, self.find_unreadable(name)) {
            (ImageError::NoSuchImage(_), Some(id)) => self.missing(id),
            _ => error,
        })
    }

    fn find_readable(&self, name: &str) -> Result<Arc<Image>, ImageError> {
        let reference = name.parse::<Reference>();
        if let Ok(reference) = &reference {
            if let Some(image) = self.references.get(reference).and_then(|id| self.images.get(id)) {
                return Ok(image.clone());
            }
            // `name:tag@digest` and `name@digest`: the digest decides, the repository has to be right.
            if let Some(digest) = reference.digest() {
                let same =
                    |known: &&Reference| (known.registry(), known.path()) == (reference.registry(), reference.path());
                let of_manifest =
                    self.references.iter().filter(|(known, _)| same(known)).find_map(|(known, id)| {
                        (known.digest() == Some(digest) || id.digest() == digest).then_some(id)
                    });
                if let Some(image) = of_manifest.and_then(|id| self.images.get(id)) {
                    return Ok(image.clone());
                }
            }
        }
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_prefix = !digits.is_empty()
            && digits.len() <= 64
            && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if is_prefix {
            let mut found = self.images.values().filter(|image| image.id.digest().hex().starts_with(digits));
            match (found.next(), found.next()) {
                (Some(image), None) => return Ok(image.clone()),
                (Some(_), Some(_)) => return Err(ImageError::Ambiguous(name.to_owned())),
                _ => {}
            }
            if name.starts_with("sha256:") || digits.len() == 64 {
                return Err(ImageError::NoSuchImage(name.to_owned()));
            }
        }
        Err(ImageError::NoSuchImage(reference?.familiar()))
    }

    /// Gives a name to an image.
    pub(crate) fn point(&mut self, reference: &Reference, id: &ImageId, target: Option<Digest>) {
        self.references.insert(reference.clone(), id.clone());
        match target {
            Some(target) => self.reference_targets.insert(reference.clone(), target),
            None => self.reference_targets.remove(reference),
        };
    }

    /// Layers that images need, also those that are removed and in use, or cannot be read, and those that targets need.
    pub(crate) fn layers_of_images(&self) -> BTreeSet<&Digest> {
        let readable = self.images.values().chain(self.removed.values()).map(|image| &image.diff_ids);
        let of_images = readable.chain(self.unreadable.values().map(|image| &image.diff_ids));
        let by_targets = self.needed_by_targets();
        // Of another platform's layer that was unpacked to run the blob lies there by itself.
        let is_of_target = |digest: &Digest| by_targets.contains(digest) && !self.blobs.contains_key(digest);
        let of_targets = self.layers.values().filter(|layer| is_of_target(&layer.diff_id) || is_of_target(&layer.blob));
        let of_images = of_images.flat_map(|diff_ids| diff_ids.iter());
        of_images.chain(of_targets.map(|layer| &layer.diff_id)).collect()
    }

    /// Layers that go with the steps of builds that made them.
    pub(crate) fn layers_of_steps_alone(&self) -> BTreeSet<&Digest> {
        let of_images = self.layers_of_images();
        let of_steps = self.steps.values().filter_map(|step| step.diff_id.as_ref());
        of_steps.filter(|diff_id| !of_images.contains(diff_id)).collect()
    }

    pub(crate) fn size_of(&self, diff_ids: &[Digest]) -> u64 {
        diff_ids.iter().filter_map(|diff_id| self.layers.get(diff_id)).map(|layer| layer.content_bytes).sum()
    }

    /// Brings the names in the images up to date with the references.
    pub(crate) fn name_images(&mut self) {
        let mut names: BTreeMap<&ImageId, Vec<&Reference>> = BTreeMap::new();
        for (reference, id) in &self.references {
            names.entry(id).or_default().push(reference);
        }
        for (id, image) in &mut self.images {
            let split = |with_digest: bool| {
                let names = names.get(id).into_iter().flatten();
                names.filter(|name| name.digest().is_some() == with_digest).map(|name| Reference::clone(name)).collect()
            };
            let (references, repo_digests): (Vec<_>, Vec<_>) = (split(false), split(true));
            if image.references != references || image.repo_digests != repo_digests {
                *image = Arc::new(Image { references, repo_digests, ..Image::clone(image) });
            }
        }
    }
}

impl Inner {
    /// Layers and files below `content/` that have no row. The change lock is held: what is being put in place is none.
    pub(crate) fn strays(&self) -> Result<Vec<PathBuf>, ImageError> {
        let (layers, contents) = {
            let state = self.read_state();
            let layers: BTreeSet<_> = state.layers.values().map(|layer| layer.directory.clone()).collect();
            let mut contents: BTreeSet<_> = state.layers.values().map(|layer| layer.content_name()).collect();
            contents.extend(state.blobs.keys().map(|digest| digest.hex().to_owned()));
            let images = state.images.keys().chain(state.removed.keys()).chain(state.unreadable.keys());
            contents.extend(images.map(|id| id.digest().hex().to_owned()));
            (layers, contents)
        };
        let mut strays = Vec::new();
        for (directory, owned) in [(&self.layers, layers), (&self.content, contents)] {
            let is_owned = |path: &PathBuf| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| owned.contains(name))
            };
            strays.extend(paths_in(directory)?.into_iter().filter(|path| !is_owned(path)));
        }
        Ok(strays)
    }

    /// Reads an image's configuration; the error says what is wrong with it.
    fn read_image(&self, row: &ImageRow) -> Result<Image, String> {
        let path = self.blob_path(row.id.digest());
        let bytes = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        if Digest::from_sha256(Sha256::digest(&bytes).into()) != *row.id.digest() {
            return Err(format!("{} is damaged: it no longer gives its digest", path.display()));
        }
        Image::new(row.id.clone(), &bytes, 0, row.parent.clone())
    }

    /// The directories of layers for an overlay, top first.
    pub(crate) fn stack(&self, state: &State, diff_ids: &[Digest]) -> Result<Vec<PathBuf>, ImageError> {
        let mut directories = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids.iter().rev() {
            let missing = || ImageError::NoSuchImage(diff_id.to_string());
            let layer = state.layers.get(diff_id).ok_or_else(missing)?;
            let path = self.layers.join(&layer.directory);
            // An overlay refuses one directory twice; the same layer again below its own copy changes nothing there.
            if !directories.contains(&path) {
                directories.push(path);
            }
            if layer.opaque_root {
                break;
            }
        }
        Ok(directories)
    }

    /// Names of digests by sha256 have 64 digits, by sha512 128: none is another's.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.content.join(digest.hex())
    }

    /// What is kept of a layer beside its directory: its recipe or its blob.
    pub(crate) fn content_path(&self, layer: &LayerRow) -> PathBuf {
        self.content.join(layer.content_name())
    }

    pub(crate) fn read_state(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write_state(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_pins(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes every layer that neither an image nor a target nor a build's step needs and nothing pins, and first the targets that have
    /// gone. The change lock is held.
    pub(crate) fn collect_layers(&self) -> Result<Vec<Digest>, ImageError> {
        self.collect_targets()?;
        let dead: Vec<Arc<LayerRow>> = {
            // Pins before state, here as in `pin`.
            let pins = self.lock_pins();
            let state = self.read_state();
            let needed = state.layers_of_images();
            let by_steps: BTreeSet<_> = state.steps.values().filter_map(|step| step.diff_id.as_ref()).collect();
            let is_dead = |layer: &&Arc<LayerRow>| {
                !needed.contains(&layer.diff_id)
                    && !by_steps.contains(&layer.diff_id)
                    && !pins.contains_key(&layer.diff_id)
            };
            let dead: Vec<_> = state.layers.values().filter(is_dead).cloned().collect();
            drop(state);
            // Gone from memory before the pins are let go: nobody can begin to rely on them.
            let mut state = self.write_state();
            dead.iter().for_each(|layer| drop(state.layers.remove(&layer.diff_id)));
            dead
        };
        if dead.is_empty() {
            return Ok(Vec::new());
        }
        let digests: Vec<_> = dead.iter().map(|layer| layer.diff_id.clone()).collect();
        let rows = digests.clone();
        let deleted = self.ledger.write_essential(Durability::Power, move |connection| {
            rows.iter().try_for_each(|diff_id| schema::delete_layer(connection, diff_id))
        });
        if let Err(error) = deleted {
            let mut state = self.write_state();
            state.layers.extend(dead.into_iter().map(|layer| (layer.diff_id.clone(), layer)));
            return Err(LedgerError::into(error));
        }
        failpoint("image.collect.rows");
        // The rows are gone: a file that resists is reported and collected at the next start.
        for layer in &dead {
            self.discard(&self.layers.join(&layer.directory));
            match layer.recipe_size_bytes {
                Some(_) => self.delete_file(&self.content_path(layer)),
                None => self.delete_content(&layer.blob),
            }
        }
        failpoint("image.collect.files");
        Ok(digests)
    }

    /// The same behind what is done and cannot be taken back: what fails is for the next removal, or the next start.
    pub(crate) fn sweep_layers(&self) -> Vec<Digest> {
        self.collect_layers().unwrap_or_else(|error| {
            tracing::error!(error = error_chain(&error), "cannot delete layers that no image needs any more");
            Vec::new()
        })
    }

    /// Deletes what has no row any more.
    pub(crate) fn delete_file(&self, path: &Path) {
        delete(path);
    }

    /// Moves an unpacked layer to a fresh short name below `layers/`, and gives the name. Short, because mount(2) has
    /// one page for the options of an overlay, and 120 layers have to fit.
    pub(crate) fn place_layer(&self, unpacked: &Path) -> Result<String, ImageError> {
        const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        loop {
            let mut random = [0; 8];
            getrandom::fill(&mut random).expect("the kernel's random source is always there after boot");
            let name: String = random.iter().map(|byte| char::from(DIGITS[usize::from(byte % 32)])).collect();
            let target = self.layers.join(&name);
            match rustix::fs::renameat_with(CWD, unpacked, CWD, &target, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(name),
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(ImageError::io("rename to", target.display())(error)),
            }
        }
    }

    pub(crate) fn layer_path(&self, name: &str) -> PathBuf {
        self.layers.join(name)
    }

    /// A directory of one operation's own, deleted with the guard.
    pub(crate) fn scratch(&self) -> Result<Scratch, ImageError> {
        let path = self.unused_name();
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(ImageError::io("make directory", path.display()))?;
        match tree::open_root(&path) {
            Ok(descriptor) => Ok(Scratch(path, descriptor)),
            Err(error) => {
                delete(&path);
                Err(ImageError::io("open", path.display())(error))
            }
        }
    }

    /// Keeps a known layer from being collected; `None` if it is not known.
    pub(crate) fn pin(self: &Arc<Self>, diff_id: &Digest) -> Option<Pin> {
        let mut pins = self.lock_pins();
        if !self.read_state().layers.contains_key(diff_id) {
            return None;
        }
        *pins.entry(diff_id.clone()).or_default() += 1;
        Some(Pin { inner: self.clone(), diff_id: diff_id.clone() })
    }

    /// The same for the layer of a blob, plain or compressed, by the digest of the blob.
    pub(crate) fn pin_content(self: &Arc<Self>, blob: &Digest) -> Option<Pin> {
        let of_blob = self.read_state().layers.values().find(|row| row.blob == *blob).map(|row| row.diff_id.clone());
        self.pin(blob).or_else(|| self.pin(&of_blob?))
    }
}

fn delete(path: &Path) {
    if let Err(error) = tree::remove_tree(path) {
        let error = error_chain(&error);
        tracing::warn!(path = %path.display(), error, "cannot delete; the next start tries again");
    }
}

/// See [`Inner::pin`].
pub(crate) struct Pin {
    inner: Arc<Inner>,
    pub(crate) diff_id: Digest,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.inner.lock_pins();
        if let Some(count) = pins.get_mut(&self.diff_id) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.diff_id);
            }
        }
    }
}

/// See [`Inner::scratch`]. The descriptor is older than anything that is written on behalf of the operation.
pub(crate) struct Scratch(pub(crate) PathBuf, OwnedFd);

impl Scratch {
    /// Makes everything below the data root safe from a power cut, or says that something was lost since this scratch
    /// directory was made.
    ///
    /// One syncfs(2) before the rows are written, instead of marks of what is not synced yet: a row therefore always
    /// means whole files, at the price of one wait for the disk per load or commit. By a descriptor from before the
    /// first write: an error that somebody else has been told meanwhile, by a load at the same time perhaps, is not told
    /// to descriptors that are opened later (syncfs(2), ERRORS and VERSIONS; kernel: lib/errseq.c).
    pub(crate) fn sync(&self) -> Result<(), ImageError> {
        rustix::fs::syncfs(&self.1).map_err(ImageError::io("write to the disk what is in", self.0.display()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        delete(&self.0);
    }
}
