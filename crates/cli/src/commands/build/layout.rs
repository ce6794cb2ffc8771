//! OCI layouts in directories (OCI image-spec, image-layout.md), read with doubt: they come from anywhere. Links are not
//! followed where a blob has to be, and what a document says of its size and its digest has to be so.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use dozen_build::carried::Descriptor;
use dozen_model::Digest;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::tar::{self, Entry};
use crate::commands::system_words;

/// No index, manifest or configuration is larger.
pub(super) const DOCUMENT_LIMIT_BYTES: u64 = 4 << 20;
/// So many documents lead to one another at the most.
const DOCUMENTS_LIMIT: usize = 1000;
/// What a reference in an index is called by (OCI image-spec, annotations.md).
pub(super) const REFERENCE: &str = "org.opencontainers.image.ref.name";
pub(super) const MARK: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub root: PathBuf,
}

/// Which of a layout's documents is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    Digest(Digest),
    /// The one of this name, or else the only one.
    Name(String),
}

impl Choice {
    /// `PATH[:NAME][@DIGEST]`, as buildx reads it; without anything the name is `latest`.
    pub(super) fn split(text: &str) -> Result<(&str, Self), String> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|error| error.to_string())?)),
            None => (text, None),
        };
        let (path, name) = rest.split_once(':').unwrap_or((rest, "latest"));
        Ok((path, digest.map_or_else(|| Self::Name(name.to_owned()), Self::Digest)))
    }
}

impl Layout {
    pub(super) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The descriptors of `index.json`, each as it stands there.
    pub(super) fn index(&self) -> Result<Vec<Value>, String> {
        let path = self.root.join("index.json");
        let bytes = read(&path, DOCUMENT_LIMIT_BYTES)?;
        let index: Value = serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        let manifests = index.get("manifests").and_then(Value::as_array);
        manifests.cloned().ok_or_else(|| format!("{}: it has no manifests", path.display()))
    }

    /// What is meant.
    pub(super) fn find(&self, choice: &Choice) -> Result<Descriptor, String> {
        let index = self.index()?;
        let found = match choice {
            Choice::Digest(digest) => index.iter().find(|it| it["digest"] == digest.as_str()),
            Choice::Name(name) => {
                let named = index.iter().find(|it| it["annotations"][REFERENCE] == name.as_str());
                named.or(if let [only] = index.as_slice() { Some(only) } else { None })
            }
        };
        let what = || match choice {
            Choice::Digest(digest) => digest.to_string(),
            Choice::Name(name) => name.clone(),
        };
        let found = found.ok_or_else(|| format!("{}: there is no {} in it", self.root.display(), what()))?;
        Descriptor::deserialize(found).map_err(|error| format!("{}/index.json: {error}", self.root.display()))
    }

    /// A document, whole and as its descriptor says.
    pub(super) fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, String> {
        let Descriptor { digest, size, .. } = descriptor;
        let path = self.blob(digest);
        if *size > DOCUMENT_LIMIT_BYTES {
            return Err(format!("{}: it is larger than {} MiB", path.display(), DOCUMENT_LIMIT_BYTES >> 20));
        }
        let bytes = read(&path, *size)?;
        if bytes.len() as u64 != *size || Digest::from_sha256(Sha256::digest(&bytes).into()) != *digest {
            return Err(format!("{}: its content is not what its name says", path.display()));
        }
        Ok(bytes)
    }

    /// Where a blob is.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// An archive of a layout with this alone, and with what it leads to as far as it is there.
    pub(super) fn pack(&self, descriptor: &Descriptor, out: &mut impl Write) -> Result<(), PackLayoutError> {
        let files = self.reachable(descriptor).map_err(PackLayoutError::Layout)?;
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] }).to_string();
        for (name, text) in [("oci-layout", MARK), ("index.json", index.as_bytes())] {
            entry(name, text.len() as u64, text, out)?;
        }
        for digest in files {
            let path = self.blob(&digest);
            let opened = open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
            let (size, file) = match opened {
                Ok(opened) => opened,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(PackLayoutError::Layout(failed(&path, &error))),
            };
            entry(&format!("blobs/{}/{}", digest.algorithm(), digest.hex()), size, file, out)?;
        }
        Ok(out.write_all(&[0; 2 * tar::BLOCK])?)
    }

    /// The digests of a document and of all that it leads to, documents before what they name.
    fn reachable(&self, descriptor: &Descriptor) -> Result<Vec<Digest>, String> {
        let (mut seen, mut files) = (BTreeSet::new(), Vec::new());
        let mut left = vec![(descriptor.clone(), true)];
        let mut documents = 0;
        while let Some((descriptor, is_document)) = left.pop() {
            if !seen.insert(descriptor.digest.clone()) {
                continue;
            }
            files.push(descriptor.digest.clone());
            if !is_document || !self.blob(&descriptor.digest).exists() {
                continue;
            }
            documents += 1;
            if documents > DOCUMENTS_LIMIT {
                return Err(format!("{}: it has more than {DOCUMENTS_LIMIT} manifests", self.root.display()));
            }
            let path = self.blob(&descriptor.digest);
            let document: Value = serde_json::from_slice(&self.document(&descriptor)?)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            for (key, is_document) in [("manifests", true), ("config", false), ("layers", false)] {
                let part = &document[key];
                let parts = part.as_array().map_or_else(|| std::slice::from_ref(part), Vec::as_slice);
                left.extend(parts.iter().filter_map(|it| Some((Descriptor::deserialize(it).ok()?, is_document))));
            }
        }
        Ok(files)
    }
}

/// Why an archive of a layout is not whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackLayoutError {
    #[error("{0}")]
    Layout(String),
    #[error("{0}")]
    Out(#[from] io::Error),
}

fn entry(name: &str, size: u64, mut content: impl Read, out: &mut impl Write) -> Result<(), PackLayoutError> {
    let mut header = Vec::new();
    tar::write_header(&Entry { name: name.as_bytes(), kind: b'0', mode: 0o644, size, ..Entry::default() }, &mut header);
    out.write_all(&header)?;
    let copied = io::copy(&mut content.by_ref().take(size), out)?;
    if copied != size {
        return Err(PackLayoutError::Layout(format!("{name} became shorter while it was read")));
    }
    Ok(out.write_all(&[0; tar::BLOCK][..tar::padding(size)])?)
}

/// A regular file: nobody waits for a pipe, and a link may lead anywhere.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
}

/// All of a file that may not be longer.
fn read(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = open(path).and_then(|file| file.take(limit_bytes + 1).read_to_end(&mut bytes));
    read.map_err(|error| failed(path, &error))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(format!("{}: it is longer than {limit_bytes} bytes", path.display()));
    }
    Ok(bytes)
}

fn failed(path: &Path, error: &io::Error) -> String {
    format!("open {}: {}", path.display(), system_words(error))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Puts a blob in place.
    pub(in super::super) fn put(root: &Path, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::from_sha256(Sha256::digest(bytes).into());
        std::fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        std::fs::write(root.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        Descriptor { media_type: media_type.to_owned(), digest, size: bytes.len() as u64 }
    }

    fn index(root: &Path, manifests: &Value) {
        std::fs::write(root.join("index.json"), json!({ "schemaVersion": 2, "manifests": manifests }).to_string())
            .unwrap();
    }

    /// An index of two names, the first with a configuration and a layer.
    fn layout(root: &Path) -> (Layout, Descriptor) {
        let config = put(root, "config", b"{}");
        let layer = put(root, "layer", b"layer");
        let manifest = put(root, "manifest", json!({ "config": config, "layers": [layer] }).to_string().as_bytes());
        let other = put(root, "manifest", b"{\"layers\":[]}");
        let named = |descriptor: &Descriptor, name: &str| {
            let mut value = json!(descriptor);
            value["annotations"] = json!({ REFERENCE: name });
            value
        };
        index(root, &json!([named(&manifest, "one"), named(&other, "two")]));
        (Layout::new(root), manifest)
    }

    #[test]
    fn choices_are_buildxs() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, path, choice) in [
            ("dir", "dir", Choice::Name("latest".into())),
            ("/a/b:one", "/a/b", Choice::Name("one".into())),
            (&format!("dir@{digest}"), "dir", Choice::Digest(digest.parse().unwrap())),
            (&format!("dir:x@{digest}"), "dir", Choice::Digest(digest.parse().unwrap())),
        ] {
            assert_eq!(Choice::split(text), Ok((path, choice)), "{text}");
        }
        assert!(Choice::split("dir@x").unwrap_err().contains("invalid digest"));
    }

    #[test]
    fn what_is_meant_is_found_with_all_that_it_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let (layout, manifest) = layout(directory.path());
        assert_eq!(layout.find(&Choice::Name("one".into())), Ok(manifest.clone()));
        assert_eq!(layout.find(&Choice::Digest(manifest.digest.clone())), Ok(manifest.clone()));
        assert!(layout.find(&Choice::Name("latest".into())).unwrap_err().ends_with("there is no latest in it"));
        assert_eq!(layout.reachable(&manifest).unwrap().len(), 3);
        let mut archive = Vec::new();
        layout.pack(&manifest, &mut archive).unwrap();
        assert_eq!((archive.len() % tar::BLOCK, tar::is_header(&archive)), (0, true));
        let shown = String::from_utf8_lossy(&archive);
        // No name comes along: it would be given to the image.
        assert!(shown.contains(manifest.digest.hex()) && !shown.contains(REFERENCE));
        index(directory.path(), &json!([manifest]));
        assert_eq!(layout.find(&Choice::Name("latest".into())), Ok(manifest));
    }

    #[test]
    fn what_is_not_as_it_says_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let (layout, manifest) = layout(directory.path());
        let path = layout.blob(&manifest.digest);
        let bytes = std::fs::read(&path).unwrap();
        let refused = |what: &str| {
            let said = layout.document(&manifest).unwrap_err();
            assert!(said.contains(what), "{said}\nnot\n{what}");
        };
        std::fs::write(&path, b"x".repeat(bytes.len())).unwrap();
        refused("not what its name says");
        std::fs::write(&path, [bytes.as_slice(), b"x"].concat()).unwrap();
        refused("longer than");
        std::fs::remove_file(&path).unwrap();
        refused("no such file");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        refused(&path.display().to_string());
        let large = Descriptor { size: DOCUMENT_LIMIT_BYTES + 1, ..manifest };
        assert!(layout.document(&large).unwrap_err().contains("larger than 4 MiB"));
        std::fs::write(directory.path().join("index.json"), "{}").unwrap();
        assert!(layout.index().unwrap_err().contains("it has no manifests"));
        std::fs::remove_file(directory.path().join("index.json")).unwrap();
        assert!(layout.index().unwrap_err().contains("index.json: no such file"));
    }
}
