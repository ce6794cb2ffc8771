//! The store: what is in memory, what is on disk, and the one way from one state to the next.
//!
//! The ledger is the truth; memory holds a copy of it for readers, who never wait for disk. One change at a time:
//! files are put in place and synced first, then rows are written, then memory follows. A crash before the rows
//! leaves files that nobody owns, which [`ImageStore::open`] collects; deletion goes the other way round.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use dozen_ledger::{Durability, Ledger};
use dozen_model::{Digest, ImageId, Reference, error_chain};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::ImageError;
use crate::failpoint::failpoint;
use crate::image::Image;
use crate::schema::{self, ImageRow, LayerRow};
use crate::state::State;
use crate::tree;

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
    pub(crate) pins: Mutex<HashMap<Digest, usize>>,
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageStore").field("layers", &self.0.layers).finish_non_exhaustive()
    }
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
}

impl Inner {
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
}

pub(crate) fn delete(path: &Path) {
    if let Err(error) = tree::remove_tree(path) {
        let error = error_chain(&error);
        tracing::warn!(path = %path.display(), error, "cannot delete; the next start tries again");
    }
}
