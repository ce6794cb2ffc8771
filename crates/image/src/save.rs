//! `save`: one archive that is a docker-archive and an OCI layout at once, as Docker has written it since 25.
//!
//! What came in an OCI layout is written as it came. Of other images the layers are written plain, whatever their blobs
//! are compressed with: every reader takes them, and the same images give the same bytes wherever they came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use dozen_model::{Digest, Reference};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use crate::ImageError;
use crate::compression::Compression;
use crate::digesting::Digesting;
use crate::find::Stored;
use crate::image::{Image, parse_config};
use crate::manifest::{Spooled, blob_name, no_such_platform, select};
use crate::pack::{Description, TarWriter};
use crate::platform::Platform;
use crate::schema::LayerRow;
use crate::state::State;
use crate::store::{ImageStore, Inner};
use crate::stored_layer::{Check, StoredLayer};
use crate::target::Target;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A file of the archive.
enum Blob {
    Bytes(Vec<u8>),
    Stored(Stored),
}

impl ImageStore {
    /// Writes images to a tar stream. A name without a tag stands for all tags of its repository; an image that is
    /// named by its id is saved without a name. Readable by [`ImageStore::load`], Docker, podman and skopeo.
    ///
    /// An image that came in an OCI layout is given back as it came, with its manifest, its index and all that they lead
    /// to. Others have a manifest made for them.
    pub fn save(&self, names: &[String], out: impl Write) -> Result<(), ImageError> {
        self.save_for(names, None, out)
    }

    /// The same with one platform only of those that an image is for.
    pub fn save_for(&self, names: &[String], platform: Option<&Platform>, out: impl Write) -> Result<(), ImageError> {
        let inner = &self.0;
        let (contents, _pins) = {
            let chosen = choose(&inner.read_state(), names)?;
            let mut pins = Vec::new();
            for diff_id in chosen.iter().flat_map(|(image, _)| image.diff_ids.iter()) {
                let gone = || ImageError::NoSuchImage(chosen[0].0.id.to_string());
                pins.push(inner.pin(diff_id).ok_or_else(gone)?);
            }
            let mut contents = Contents::default();
            for (image, references) in &chosen {
                let added = {
                    let state = inner.read_state();
                    let mut groups = by_target(&state, image, references).into_iter();
                    groups.try_for_each(|(target, references)| match target {
                        Some(target) => contents.add_target(inner, &state, &target, &references, platform),
                        None => contents.add_image(inner, &state, image, &references, platform),
                    })
                };
                added.map_err(|error| inner.note_damage_of(&image.id, error))?;
            }
            // Layers of other platforms stay, too.
            let layers: Vec<Digest> = contents.blobs.keys().cloned().collect();
            pins.extend(layers.iter().filter_map(|digest| inner.pin_content(digest)));
            (contents, pins)
        };
        let Contents { blobs, index, manifest, repositories } = contents;
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": index });
        let mut archive = Archive(TarWriter::new(out));
        archive.directory(b"blobs/")?;
        archive.directory(b"blobs/sha256/")?;
        if blobs.keys().any(|digest| digest.algorithm() == "sha512") {
            archive.directory(b"blobs/sha512/")?;
        }
        for (digest, blob) in &blobs {
            let name = blob_name(digest);
            match blob {
                Blob::Bytes(bytes) => archive.file(&name, bytes)?,
                Blob::Stored(Stored::File(path)) => {
                    let stored = archive.stored(&name, path, digest);
                    stored.inspect_err(|error| inner.note_damage(digest, error))?;
                }
                Blob::Stored(Stored::Layer(row)) => {
                    let written = archive.layer(&name, inner, row);
                    written.inspect_err(|error| inner.note_damage(&row.diff_id, error))?;
                }
            }
        }
        archive.file("index.json", &bytes(&index))?;
        archive.file("manifest.json", &bytes(&Value::Array(manifest)))?;
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if !repositories.is_empty() {
            archive.file("repositories", &bytes(&json!(repositories)))?;
        }
        archive.0.finish().map_err(writing)
    }
}

/// What an archive is going to hold.
#[derive(Default)]
struct Contents {
    blobs: BTreeMap<Digest, Blob>,
    /// Of `index.json`.
    index: Vec<Value>,
    /// Of `manifest.json`.
    manifest: Vec<Value>,
    /// Name, tag, topmost layer.
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl Contents {
    /// A target as it came, or of an index the one image that is wanted.
    fn add_target(
        &mut self,
        inner: &Inner,
        state: &State,
        target: &Target,
        references: &BTreeSet<Reference>,
        platform: Option<&Platform>,
    ) -> Result<(), ImageError> {
        let files = state.files_of(inner, target);
        let selected = match platform {
            Some(_) => select(&files, &target.digest, platform)?,
            None => select(&files, &target.manifest, None)?,
        };
        let find = state.by_digest(inner);
        let wanted: Box<dyn Iterator<Item = &Digest>> = match platform {
            Some(_) => Box::new(selected.blobs.keys()),
            None => Box::new(target.blobs.iter()),
        };
        for digest in wanted {
            if let Some(stored) = find(digest) {
                self.blobs.entry(digest.clone()).or_insert(Blob::Stored(stored));
            }
        }
        match platform {
            Some(_) => self.point(&selected.descriptor, references),
            None => {
                self.point(&target.descriptor, references);
                self.index.extend(target.referrers.iter().cloned());
            }
        }
        let config = selected.config.read_document("a configuration")?;
        let (_, _, diff_ids) = parse_config(&config).map_err(ImageError::Archive)?;
        let size = |file: &Option<Spooled>| file.as_ref().map_or(0, |file| file.size);
        let sources = selected.layers.iter().map(|(digest, media_type, file)| {
            (digest.clone(), json!({ "mediaType": media_type, "digest": digest, "size": size(file) }))
        });
        self.list(&selected.config.digest, diff_ids.iter().zip(sources), references);
        Ok(())
    }

    /// An image with a manifest that is made for it, its layers plain.
    fn add_image(
        &mut self,
        inner: &Inner,
        state: &State,
        image: &Image,
        references: &BTreeSet<Reference>,
        platform: Option<&Platform>,
    ) -> Result<(), ImageError> {
        if let Some(wanted) = platform.filter(|wanted| !wanted.names(&Platform::of_config(&image.raw))) {
            return Err(no_such_platform(&format!("image {}", image.id), wanted));
        }
        let path = inner.blob_path(image.id.digest());
        let config = std::fs::read(&path).map_err(ImageError::io("read", path.display()))?;
        if Digest::from_sha256(Sha256::digest(&config).into()) != *image.id.digest() {
            return Err(ImageError::Damaged { path, expected: image.id.to_string() });
        }
        let layers: Vec<Value> =
            image.diff_ids.iter().map(|diff_id| layer_descriptor(&state.layers[diff_id])).collect();
        let manifest = bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": image.id, "size": config.len() },
            "layers": layers,
        }));
        let digest = Digest::from_sha256(Sha256::digest(&manifest).into());
        self.point(&json!({ "mediaType": MANIFEST, "digest": digest, "size": manifest.len() }), references);
        self.blobs.insert(digest, Blob::Bytes(manifest));
        self.blobs.insert(image.id.digest().clone(), Blob::Bytes(config));
        for diff_id in image.diff_ids.iter() {
            self.blobs.insert(diff_id.clone(), Blob::Stored(Stored::Layer(state.layers[diff_id].clone())));
        }
        let sources = image.diff_ids.iter().cloned().zip(layers);
        self.list(image.id.digest(), image.diff_ids.iter().zip(sources), references);
        Ok(())
    }

    /// In `index.json` a descriptor for each name.
    fn point(&mut self, descriptor: &Value, references: &BTreeSet<Reference>) {
        if references.is_empty() {
            self.index.push(descriptor.clone());
        }
        for reference in references {
            let mut descriptor = descriptor.clone();
            descriptor["annotations"]["io.containerd.image.name"] = json!(reference.to_string());
            descriptor["annotations"]["org.opencontainers.image.ref.name"] = json!(reference.tag());
            self.index.push(descriptor);
        }
    }

    /// In `manifest.json`, and in the older `repositories`. Layers by their plain digests, with the blobs' descriptors.
    fn list<'a>(
        &mut self,
        config: &Digest,
        layers: impl Iterator<Item = (&'a Digest, (Digest, Value))>,
        references: &BTreeSet<Reference>,
    ) {
        let tags: Vec<_> = references.iter().map(Reference::familiar).collect();
        let (mut paths, mut sources, mut top) = (Vec::new(), BTreeMap::new(), "");
        for (diff_id, (digest, descriptor)) in layers {
            top = diff_id.hex();
            paths.push(blob_name(&digest));
            sources.insert(diff_id.as_str(), descriptor);
        }
        for reference in references {
            let tags = self.repositories.entry(reference.familiar_name()).or_default();
            tags.insert(reference.tag().unwrap_or_default().to_owned(), top.to_owned());
        }
        self.manifest.push(json!({
            "Config": blob_name(config),
            "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
            "Layers": paths,
            "LayerSources": sources,
        }));
    }
}

/// Names of one image that lead to the same.
type Group = (Option<Arc<Target>>, BTreeSet<Reference>);

/// The names of an image by what they lead to.
fn by_target(state: &State, image: &Image, references: &BTreeSet<Reference>) -> Vec<Group> {
    if references.is_empty() {
        return vec![(state.target(None, &image.id).cloned(), BTreeSet::new())];
    }
    let mut groups: BTreeMap<Option<Digest>, Group> = BTreeMap::new();
    for reference in references {
        let target = state.target(Some(reference), &image.id).cloned();
        let digest = target.as_ref().map(|target| target.digest.clone());
        groups.entry(digest).or_insert_with(|| (target, BTreeSet::new())).1.insert(reference.clone());
    }
    groups.into_values().collect()
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
                // One that cannot be read is missed, and not left out.
                add(state.images.get(id).ok_or_else(|| state.missing(id))?, Some(known));
                found = true;
            }
        }
        if !found {
            add(&state.find(name)?, None);
        }
    }
    Ok(chosen)
}

pub(crate) fn layer_descriptor(row: &LayerRow) -> Value {
    json!({
        "mediaType": Compression::None.layer_media_type(),
        "digest": row.diff_id,
        "size": row.tar_size_bytes,
    })
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
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

    /// A file as it came, compared with its digest on the way.
    fn stored(&mut self, name: &str, path: &Path, digest: &Digest) -> Result<(), ImageError> {
        let mut file = File::open(path).map_err(ImageError::io("open", path.display()))?;
        let size = file.metadata().map_err(ImageError::io("read", path.display()))?.len();
        self.0.header(&Description::plain(name.as_bytes(), EntryType::Regular, 0o644, size)).map_err(writing)?;
        let (mut hash, mut left) = (Digesting::like(digest), size);
        let mut buffer = vec![0; 256 * 1024];
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = file.read(&mut buffer[..want]).map_err(ImageError::io("read", path.display()))?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            self.0.raw(&buffer[..read]).map_err(writing)?;
            left -= read as u64;
        }
        if left > 0 || hash.finish() != *digest {
            return Err(ImageError::Damaged { path: path.to_owned(), expected: digest.to_string() });
        }
        self.0.pad(size).map_err(writing)
    }

    fn layer(&mut self, name: &str, inner: &Inner, row: &LayerRow) -> Result<(), ImageError> {
        let layer = StoredLayer::open(inner, row)?;
        self.0
            .header(&Description::plain(name.as_bytes(), EntryType::Regular, 0o644, row.tar_size_bytes))
            .map_err(writing)?;
        layer.write(row, Check::Digest, |bytes| self.0.raw(bytes).map_err(writing))?;
        self.0.pad(row.tar_size_bytes).map_err(writing)
    }
}
