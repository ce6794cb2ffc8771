//! A cache that goes to a directory. Blobs come first, each under another name until it is whole, and the index last: what
//! was there before is good until then, whoever is killed. Two who write to the same directory do it one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use dozen_build::carried::{Descriptor, Step};
use dozen_model::{Digest, error_chain};
use flate2::write::GzEncoder;
use http::{Method, StatusCode};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::layout::{Choice, Layout, MARK, REFERENCE};
use super::super::progress::Progress;
use super::format::{self, ARTIFACT, CONFIG, MANIFEST};
use super::import::Imports;
use super::options::{Compression, Destination};
use crate::client::Query;
use crate::commands::{Context, pieces, system_words};
use crate::failure::Failure;

/// What is not whole yet begins so.
const UNFINISHED: &str = ".unfinished-";
/// Held by whoever writes; BuildKit's name.
const LOCK: &str = "index.json.lock";
const BUFFER_BYTES: usize = 256 << 10;

/// What stands in the way.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Makes the directory, and sees that it can be written to.
pub(super) fn prepare(destination: &Destination) -> Result<(), Failure> {
    let root = &destination.layout.root;
    let probe = blobs(root).join(format!("{UNFINISHED}{}", std::process::id()));
    let tried = std::fs::create_dir_all(blobs(root)).and_then(|()| File::create(&probe));
    let tried = tried.and_then(|_| remove(&probe));
    tried.map_err(|error| {
        let why = system_words(&error);
        Failure::new(format!("ERROR: failed to prepare the cache directory {}: {why}", root.display()))
    })
}

fn blobs(root: &Path) -> PathBuf {
    root.join("blobs/sha256")
}

/// One build's cache on its way to one directory.
pub(super) struct Export<'a> {
    pub context: &'a Context,
    pub build: &'a str,
    pub destination: &'a Destination,
    pub imports: &'a Imports,
}

impl Export<'_> {
    /// Takes the steps along that the directory is to have.
    pub(super) async fn take(&self, steps: &[Step], progress: &mut Progress) -> Result<(), String> {
        let Destination { layout, name, has_all, .. } = self.destination;
        let shown = progress.begin(&format!("exporting cache to client directory {}", layout.root.display()));
        let mut wanted: Vec<Step> = steps.iter().filter(|step| *has_all || step.is_of_image).cloned().collect();
        let root = layout.root.clone();
        let _locked = blocking(move || Ok(lock(&root)?)).await?;
        // One that was there may have been written in another form, or be no cache of ours.
        let known = format::read(layout, &Choice::Name(name.clone())).map(|cache| cache.layers).unwrap_or_default();
        let mut diff_ids: Vec<Digest> = Vec::new();
        let mut layers: Vec<Descriptor> = Vec::new();
        let all: BTreeSet<Digest> = wanted.iter().filter_map(|step| step.layer.clone()).collect();
        for diff_id in all {
            if let Some(layer) = self.layer(&diff_id, &known).await? {
                layers.push(layer);
                progress.say(shown, &format!("writing layer {diff_id} done"));
                diff_ids.push(diff_id);
            } else {
                // Of a cache that was imported: nothing has needed it, and so nobody has noticed.
                progress.warn(&format!("the layer {diff_id} of an imported cache cannot be had, and is left out"));
                wanted.retain(|step| step.layer.as_ref() != Some(&diff_id));
            }
        }
        let (root, name) = (layout.root.clone(), name.clone());
        let written = blocking(move || {
            let config = document(&root, CONFIG, &format::config(&wanted, &diff_ids))?;
            let manifest = document(&root, MANIFEST, &format::manifest(&config, &layers))?;
            replace(&root.join("oci-layout"), MARK)?;
            index(&Layout::new(root), &name, &manifest)?;
            Ok(manifest)
        });
        let manifest = written.await?;
        progress.say(shown, &format!("writing cache manifest {} done", manifest.digest));
        progress.end(shown);
        Ok(())
    }

    /// A layer's blob: the one that is there, one of another directory, or the engine's layer, packed. `None`: nobody has it.
    async fn layer(
        &self,
        diff_id: &Digest,
        known: &BTreeMap<Digest, Descriptor>,
    ) -> Result<Option<Descriptor>, String> {
        let Destination { layout, compression, forces_compression, .. } = self.destination;
        let is_sound = !self.imports.is_spoiled(diff_id);
        let fits = |descriptor: &Descriptor| {
            is_sound && (!forces_compression || descriptor.media_type == compression.media_type())
        };
        if let Some(descriptor) =
            known.get(diff_id).filter(|descriptor| fits(descriptor) && is_there(layout, descriptor))
        {
            return Ok(Some(descriptor.clone()));
        }
        if let Some((mut file, descriptor)) = self.imports.blob(diff_id).filter(|(_, descriptor)| fits(descriptor)) {
            if is_there(layout, descriptor) {
                return Ok(Some(descriptor.clone()));
            }
            let (root, media_type) = (layout.root.clone(), descriptor.media_type.clone());
            let copied = blocking(move || {
                let mut blob = Blob::begin(&root)?;
                io::copy(&mut file, &mut blob)?;
                Ok(blob.finish(&media_type)?)
            });
            let copied = copied.await?;
            if copied == *descriptor {
                return Ok(Some(copied));
            }
        }
        let query = Query::new().with("id", self.build).with("layer", diff_id.as_str());
        let path = format!("/build/carried/layer{query}");
        let response = self.context.client.stream(Method::GET, &path, None).await.map_err(|error| error.to_string())?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let (root, compression, expected) = (layout.root.clone(), *compression, diff_id.clone());
        let pack = move |plain: &mut dyn Read| -> Result<Descriptor, Failed> {
            let mut blob = Blob::begin(&root)?;
            let found = pack(plain, &mut blob, compression)?;
            if found != expected {
                return Err(format!("the layer {expected} came as {found}").into());
            }
            Ok(blob.finish(compression.media_type())?)
        };
        let packed = pieces::read_through(response, move |plain| pack(plain).map_err(|error| words(&error).into()));
        packed.await.map(|(descriptor, _)| Some(descriptor)).map_err(|failure| failure.message)
    }
}

/// What may wait for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failed> + Send + 'static) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    done.map_err(|error| words(&error))
}

fn words(error: &Failed) -> String {
    error.downcast_ref::<io::Error>().map_or_else(|| error_chain(error.as_ref()), system_words)
}

/// Waits until nobody else writes here, and takes away what those have left who were killed.
fn lock(root: &Path) -> io::Result<File> {
    let locked = File::options().create(true).truncate(false).write(true).open(root.join(LOCK))?;
    flock(&locked, FlockOperation::LockExclusive)?;
    for entry in std::fs::read_dir(blobs(root))? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED)) {
            remove(&entry.path())?;
        }
    }
    Ok(locked)
}

/// Somebody else may have done it.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// It is looked at no closer: whoever imports it does.
fn is_there(layout: &Layout, descriptor: &Descriptor) -> bool {
    let found = std::fs::symlink_metadata(layout.blob(&descriptor.digest));
    found.is_ok_and(|found| found.is_file() && found.len() == descriptor.size)
}

/// Compresses a plain stream; its digest.
fn pack(plain: &mut dyn Read, out: &mut impl Write, compression: Compression) -> io::Result<Digest> {
    match compression {
        Compression::None => copy(plain, out),
        Compression::Gzip(level) => {
            let mut packed = GzEncoder::new(out, flate2::Compression::new(level));
            let digest = copy(plain, &mut packed)?;
            packed.finish()?;
            Ok(digest)
        }
        Compression::Zstd(level) => {
            let mut packed = zstd::stream::write::Encoder::new(out, level)?;
            let digest = copy(plain, &mut packed)?;
            packed.finish()?;
            Ok(digest)
        }
    }
}

fn copy(plain: &mut dyn Read, out: &mut impl Write) -> io::Result<Digest> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; BUFFER_BYTES]);
    loop {
        match plain.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_sha256(hash.finalize().into())),
            Ok(read) => {
                hash.update(&buffer[..read]);
                out.write_all(&buffer[..read])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A blob that is being written. Dropped, it is deleted.
struct Blob {
    root: PathBuf,
    path: PathBuf,
    file: File,
    hash: Sha256,
    size: u64,
}

impl Blob {
    fn begin(root: &Path) -> io::Result<Self> {
        let path = blobs(root).join(format!("{UNFINISHED}{}", std::process::id()));
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Self { root: root.to_owned(), path, file, hash: Sha256::new(), size: 0 })
    }

    /// Gives it the name that its content has.
    fn finish(self, media_type: &str) -> io::Result<Descriptor> {
        let digest = Digest::from_sha256(self.hash.clone().finalize().into());
        std::fs::rename(&self.path, blobs(&self.root).join(digest.hex()))?;
        Ok(Descriptor { media_type: media_type.to_owned(), digest, size: self.size })
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        // It has another name by now, if it is whole.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Write for Blob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn document(root: &Path, media_type: &str, text: &[u8]) -> io::Result<Descriptor> {
    let mut blob = Blob::begin(root)?;
    blob.write_all(text)?;
    blob.finish(media_type)
}

/// A file's new content: all of it, or what it had.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}

/// The name leads to this manifest; other names stay.
fn index(layout: &Layout, name: &str, manifest: &Descriptor) -> io::Result<()> {
    let mut manifests: Vec<Value> = layout.index().unwrap_or_default();
    manifests.retain(|known| known["annotations"][REFERENCE] != name);
    let mut new = json!(manifest);
    new["artifactType"] = json!(ARTIFACT);
    new["annotations"] = json!({ REFERENCE: name });
    manifests.push(new);
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
    replace(&layout.root.join("index.json"), index.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::options;
    use super::*;

    fn destination(root: &Path) -> Destination {
        let text = format!("type=local,dest={}", root.display());
        match options::destinations(&[&text]).unwrap().remove(0) {
            options::CacheTo::Directory(destination) => destination,
            other => panic!("{other:?} is no directory"),
        }
    }

    #[test]
    fn what_is_packed_is_what_was_given() {
        let plain = vec![7; 1 << 20];
        let expected = Digest::from_sha256(Sha256::digest(&plain).into());
        for compression in [Compression::None, Compression::Gzip(1), Compression::Zstd(3)] {
            let directory = tempfile::tempdir().unwrap();
            prepare(&destination(directory.path())).unwrap();
            let mut blob = Blob::begin(directory.path()).unwrap();
            assert_eq!(pack(&mut plain.as_slice(), &mut blob, compression).unwrap(), expected);
            let descriptor = blob.finish(compression.media_type()).unwrap();
            let path = Layout::new(directory.path()).blob(&descriptor.digest);
            let packed = std::fs::read(path).unwrap();
            assert_eq!((packed.len() as u64, compression == Compression::None), (descriptor.size, packed == plain));
            assert_eq!(Digest::from_sha256(Sha256::digest(&packed).into()), descriptor.digest);
        }
    }

    #[test]
    fn who_was_killed_leaves_nothing_and_names_stay() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        prepare(&destination(root)).unwrap();
        std::fs::write(blobs(root).join(format!("{UNFINISHED}1")), "half").unwrap();
        std::fs::write(blobs(root).join("whole"), "whole").unwrap();
        drop(lock(root).unwrap());
        drop(Blob::begin(root).unwrap());
        let names = |path: PathBuf| -> Vec<_> {
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(names(blobs(root)), ["whole"]);
        let layout = Layout::new(root);
        let one = document(root, MANIFEST, b"1").unwrap();
        let other = document(root, MANIFEST, b"2").unwrap();
        index(&layout, "one", &one).unwrap();
        index(&layout, "other", &other).unwrap();
        index(&layout, "one", &other).unwrap();
        let shown: Vec<_> = layout.index().unwrap().iter().map(|it| it["annotations"][REFERENCE].clone()).collect();
        assert_eq!(shown, ["other", "one"]);
        assert_eq!(layout.find(&Choice::Name("one".into())).unwrap(), other);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_refused_before_anything_is_built() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let failure = prepare(&destination(&file)).unwrap_err();
        assert!(failure.message.contains("failed to prepare the cache directory"), "{}", failure.message);
    }
}
