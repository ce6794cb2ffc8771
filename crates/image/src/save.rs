//! `save`: one archive that is a docker-archive and an OCI layout at once, as Docker has written it since 25.
//!
//! Layers are written plain, whatever their blobs are compressed with: every reader takes them, and the same images
//! give the same bytes wherever they came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use dozen_model::{Digest, Reference};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use crate::ImageError;
use crate::chunks::{CHUNK_BYTES, Chunk, Pool};
use crate::compression::{Compression, decompress};
use crate::image::Image;
use crate::manifest::blob_name;
use crate::pack::{Description, TarWriter};
use crate::recipe::{self, RecipeError};
use crate::schema::LayerRow;
use crate::store::{ImageStore, Inner, State};
use crate::tree;

/// Chunks on their way between the threads: 1 MiB.
const CHUNKS_WAITING: usize = (1 << 20) / CHUNK_BYTES;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A file of the archive.
enum Blob {
    Bytes(Vec<u8>),
    Layer(Arc<LayerRow>),
}

impl ImageStore {
    /// Writes images to a tar stream. A name without a tag stands for all tags of its repository; an image that is
    /// named by its id is saved without a name. Readable by [`ImageStore::load`], Docker, podman and skopeo.
    pub fn save(&self, names: &[String], out: impl Write) -> Result<(), ImageError> {
        let inner = &self.0;
        let (chosen, layers, _pins) = {
            let chosen = choose(&inner.read_state(), names)?;
            let mut pins = Vec::new();
            for diff_id in chosen.iter().flat_map(|(image, _)| image.diff_ids.iter()) {
                let gone = || ImageError::NoSuchImage(chosen[0].0.id.to_string());
                pins.push(inner.pin(diff_id).ok_or_else(gone)?);
            }
            let state = inner.read_state();
            let diff_ids = chosen.iter().flat_map(|(image, _)| image.diff_ids.iter());
            let layers: BTreeMap<Digest, Arc<LayerRow>> =
                diff_ids.map(|diff_id| (diff_id.clone(), state.layers[diff_id].clone())).collect();
            (chosen, layers, pins)
        };
        let mut blobs: BTreeMap<Digest, Blob> = BTreeMap::new();
        let (mut index, mut manifest, mut repositories) = (Vec::new(), Vec::new(), json!({}));
        for (image, references) in &chosen {
            let path = inner.blob_path(image.id.digest());
            let config = std::fs::read(&path).map_err(ImageError::io("read", path.display()))?;
            describe(image, references, &config, &layers, &mut blobs, &mut index);
            manifest.push(manifest_entry(image, references, &layers));
            for reference in references {
                let top = image.diff_ids.last().map_or("", |digest| digest.hex());
                repositories[reference.familiar_name()][reference.tag().unwrap_or_default()] = json!(top);
            }
            blobs.insert(image.id.digest().clone(), Blob::Bytes(config));
        }
        blobs.extend(layers.into_iter().map(|(digest, row)| (digest, Blob::Layer(row))));
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": index });
        let mut archive = Archive(TarWriter::new(out));
        archive.directory(b"blobs/")?;
        archive.directory(b"blobs/sha256/")?;
        for (digest, blob) in &blobs {
            let name = blob_name(digest);
            match blob {
                Blob::Bytes(bytes) => archive.file(&name, bytes)?,
                Blob::Layer(row) => archive.layer(&name, inner, row)?,
            }
        }
        archive.file("index.json", &bytes(&index))?;
        archive.file("manifest.json", &bytes(&Value::Array(manifest)))?;
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if repositories.as_object().is_some_and(|all| !all.is_empty()) {
            archive.file("repositories", &bytes(&repositories))?;
        }
        archive.0.finish().map_err(writing)
    }
}

/// An image, and the names that it is saved under.
type Chosen = (Arc<Image>, BTreeSet<Reference>);

/// Which images, and which of their names. Each image once, in the order in which they were named.
fn choose(state: &State, names: &[String]) -> Result<Vec<Chosen>, ImageError> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut add = |image: &Arc<Image>, reference: Option<&Reference>| {
        let at = chosen.iter().position(|(known, _)| known.id == image.id).unwrap_or_else(|| {
            chosen.push((image.clone(), BTreeSet::new()));
            chosen.len() - 1
        });
        chosen[at].1.extend(reference.cloned());
    };
    for name in names {
        let reference = name.parse::<Reference>().ok().filter(|reference| reference.digest().is_none());
        // A tag is a colon after the last slash.
        let has_tag = name[name.rfind('/').unwrap_or(0)..].contains(':');
        let mut found = false;
        if let Some(reference) = &reference {
            let fits = |known: &Reference| {
                let same = (known.registry(), known.path()) == (reference.registry(), reference.path());
                same && known.digest().is_none() && (!has_tag || known.tag() == reference.tag())
            };
            for (known, id) in state.references.iter().filter(|(known, _)| fits(known)) {
                if let Some(image) = state.images.get(id) {
                    add(image, Some(known));
                    found = true;
                }
            }
        }
        if !found {
            add(&state.find(name)?, None);
        }
    }
    Ok(chosen)
}

/// The image's OCI manifest, and one descriptor of it for each of its names.
fn describe(
    image: &Image,
    references: &BTreeSet<Reference>,
    config: &[u8],
    layers: &BTreeMap<Digest, Arc<LayerRow>>,
    blobs: &mut BTreeMap<Digest, Blob>,
    index: &mut Vec<Value>,
) {
    let manifest = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": image.id, "size": config.len() },
        "layers": image.diff_ids.iter().map(|digest| layer_descriptor(&layers[digest])).collect::<Vec<_>>(),
    }));
    let digest = Digest::from_sha256(Sha256::digest(&manifest).into());
    let descriptor = json!({ "mediaType": MANIFEST, "digest": digest, "size": manifest.len() });
    blobs.insert(digest, Blob::Bytes(manifest));
    if references.is_empty() {
        index.push(descriptor);
        return;
    }
    for reference in references {
        let mut descriptor = descriptor.clone();
        descriptor["annotations"] = json!({
            "io.containerd.image.name": reference.to_string(),
            "org.opencontainers.image.ref.name": reference.tag(),
        });
        index.push(descriptor);
    }
}

fn manifest_entry(image: &Image, references: &BTreeSet<Reference>, layers: &BTreeMap<Digest, Arc<LayerRow>>) -> Value {
    let tags: Vec<_> = references.iter().map(Reference::familiar).collect();
    let sources: BTreeMap<_, _> =
        image.diff_ids.iter().map(|digest| (digest.as_str(), layer_descriptor(&layers[digest]))).collect();
    json!({
        "Config": blob_name(image.id.digest()),
        "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
        "Layers": image.diff_ids.iter().map(blob_name).collect::<Vec<_>>(),
        "LayerSources": sources,
    })
}

fn layer_descriptor(row: &LayerRow) -> Value {
    json!({
        "mediaType": Compression::None.layer_media_type(),
        "digest": row.diff_id,
        "size": row.tar_size_bytes,
    })
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a JSON value serializes")
}

fn writing(source: io::Error) -> ImageError {
    ImageError::Io { attempted: "write", object: "the archive".into(), source }
}

struct Archive<W>(TarWriter<W>);

impl<W: Write> Archive<W> {
    fn directory(&mut self, name: &[u8]) -> Result<(), ImageError> {
        self.0.header(&Description::plain(name, EntryType::Directory, 0o755, 0)).map_err(writing)
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), ImageError> {
        self.entry(name, content.len() as u64, content).map_err(writing)
    }

    fn entry(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<()> {
        self.0.header(&Description::plain(name.as_bytes(), EntryType::Regular, 0o644, size))?;
        self.0.data(content, size)
    }

    /// A layer, plain again and compared with its digest on the way: read by a second thread.
    fn layer(&mut self, name: &str, inner: &Inner, row: &LayerRow) -> Result<(), ImageError> {
        let source = Source::open(inner, row)?;
        let damaged = |what: Option<String>| {
            tracing::error!(layer = %row.diff_id, what, "a stored layer is damaged");
            ImageError::Damaged { path: source.path.clone(), expected: row.diff_id.to_string() }
        };
        self.0
            .header(&Description::plain(name.as_bytes(), EntryType::Regular, 0o644, row.tar_size_bytes))
            .map_err(writing)?;
        let (mut hash, mut left) = (Sha256::new(), row.tar_size_bytes);
        std::thread::scope(|scope| {
            let (sender, chunks) = sync_channel(CHUNKS_WAITING);
            let reading = scope.spawn(|| source.read(sender));
            let mut written = Ok(());
            for chunk in chunks {
                let chunk: Chunk = chunk;
                hash.update(chunk.bytes());
                // More than was promised is damage, and seen below.
                let fits = chunk.bytes().len().min(usize::try_from(left).unwrap_or(usize::MAX));
                left -= fits as u64;
                written = self.0.raw(&chunk.bytes()[..fits]);
                if written.is_err() {
                    break;
                }
            }
            // The channel is gone, and a reader that still had something to say with it.
            let read = reading.join().expect("the reading thread does not panic");
            written.map_err(writing)?;
            read.map_err(|what| damaged(Some(what)))
        })?;
        if Digest::from_sha256(hash.finalize().into()) != row.diff_id {
            return Err(damaged(None));
        }
        self.0.pad(row.tar_size_bytes).map_err(writing)
    }
}

/// What a stored layer is read from.
struct Source {
    /// For the error: its directory, or its blob.
    path: PathBuf,
    kept: File,
    /// The layer's directory, if a recipe is kept.
    root: Option<OwnedFd>,
}

impl Source {
    fn open(inner: &Inner, row: &LayerRow) -> Result<Self, ImageError> {
        let kept_path = inner.content_path(row);
        let kept = File::open(&kept_path).map_err(ImageError::io("open", kept_path.display()))?;
        if row.recipe_size_bytes.is_none() {
            return Ok(Self { path: kept_path, kept, root: None });
        }
        let path = inner.layer_path(&row.directory);
        let root = tree::open_root(&path).map_err(ImageError::io("open", path.display()))?;
        Ok(Self { path, kept, root: Some(root) })
    }

    /// The plain stream in chunks, until it ends or nobody takes them any more; what is damaged, in words.
    fn read(&self, chunks: SyncSender<Chunk>) -> Result<(), String> {
        let pool = Pool::default();
        let kept = self.kept.try_clone().map_err(|error| error.to_string())?;
        let pass = |chunk| chunks.send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into());
        if let Some(root) = &self.root {
            return match recipe::reproduce(kept, root.as_fd(), &pool, pass) {
                Ok(()) | Err(RecipeError::Out(_)) => Ok(()),
                Err(RecipeError::Damaged(what)) => Err(what),
            };
        }
        let (_, mut plain) = decompress(kept).map_err(|error| error.to_string())?;
        loop {
            let mut chunk = pool.chunk();
            chunk.fill_from(&mut plain).map_err(|error| error.to_string())?;
            if chunk.bytes().is_empty() || pass(chunk).is_err() {
                return Ok(());
            }
        }
    }
}
