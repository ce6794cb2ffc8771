//! Ways in for the fuzzers (`fuzz/`), and the test that runs what they have found again.
//!
//! Each takes any bytes and asserts what must hold whatever they are: no panic, nothing outside, nothing left.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dozen_ledger::Ledger;
use dozen_model::{Digest, ImageId, WantedFiles, WhichFiles};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::artifact::{ArtifactDocument, NewDocument, Selection, named};
use crate::compression::decompress;
use crate::extract::{ExtractError, Limits, extract};
use crate::image::Image;
use crate::pack::{Description, TarWriter, pack};
use crate::recording::{Kept, Paths, Recording, Sum};
use crate::{ImageError, ImageStore, MIGRATIONS, tree};

/// A store of its own, that every input is loaded into: to make one for each would take longer than the load.
pub struct Loader {
    store: ImageStore,
    place: Place,
}

impl Loader {
    /// Makes the store, in the directory for temporary files. It goes with the value.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        let place = Place::new();
        let ledger = Ledger::open(&place.0.join("state.db"), &MIGRATIONS).expect("the ledger opens");
        let store = ImageStore::open(&place.0, ledger).expect("the store opens");
        Self { store, place }
    }

    /// What an archive's documents say, as one text. Its first byte tells what the first document is (`d`:
    /// manifest.json, `o`: index.json of an OCI layout, else both); the documents stand between RS bytes (0x1e). In
    /// each, `@1` to `@9` is the digest in hexadecimal of that document, if it stands further behind, and `@a` and `@b`
    /// are those of two layers.
    pub fn manifest(&self, data: &[u8]) {
        let Some((kind, text)) = data.split_first() else { return };
        let mut documents: Vec<Vec<u8>> = text.split(|byte| *byte == 0x1e).take(10).map(<[u8]>::to_vec).collect();
        let layers = [layer_of(b"a"), layer_of(b"b")];
        let mut names = vec![(b'a', hex_digest(&layers[0])), (b'b', hex_digest(&layers[1]))];
        for number in (0..documents.len()).rev() {
            documents[number] = replaced(&documents[number], &names);
            names.push((b'0' + number as u8, hex_digest(&documents[number])));
        }
        let mut archive = Vec::new();
        let mut writer = TarWriter::new(&mut archive);
        let mut file = |name: &str, content: &[u8]| {
            let size = content.len() as u64;
            let header = Description::plain(name.as_bytes(), EntryType::Regular, 0o644, size);
            writer.header(&header).and_then(|()| writer.data(content, size)).expect("memory takes it");
        };
        if *kind != b'o' {
            file("manifest.json", &documents[0]);
        }
        if *kind != b'd' {
            file("index.json", &documents[0]);
            file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        }
        for content in documents[1..].iter().chain(&layers) {
            let hex = hex_digest(content);
            file(&format!("blobs/sha256/{hex}"), content);
            file(&format!("{hex}.json"), content);
        }
        writer.finish().expect("memory takes it");
        self.load(&archive);
    }

    /// A whole archive, as `load` takes it. Checksums of headers are put right first: a fuzzer does not guess them.
    pub fn archive(&self, data: &[u8]) {
        let mut data = data.to_vec();
        mend_checksums(&mut data);
        self.load(&data);
    }

    /// Loads, and takes away what came of it. Nothing is left, whether it worked or not.
    fn load(&self, archive: &[u8]) {
        // Whose fault it is when the disk is full is not for the fuzzer to say.
        let Self { store, place } = self;
        match store.load(archive, &()) {
            Ok(loaded) => {
                assert!(!loaded.is_empty());
                for image in loaded {
                    let id = image.id.to_string();
                    store.history(&id).expect("what was loaded has a history");
                    store.save(std::slice::from_ref(&id), &mut std::io::sink()).expect("what was loaded can be saved");
                    store.remove(&id, true, false, &|_| None).expect("what was loaded can be removed");
                }
            }
            Err(ImageError::Ledger(error)) => panic!("{error}"),
            Err(error) => assert!(error.to_string().len() < 4096, "an error of {} bytes", error.to_string().len()),
        }
        assert!(store.list().expect("the list is in memory").is_empty());
        for name in ["content/sha256", "layers", "tmp"] {
            let left = fs::read_dir(place.0.join(name)).expect("it is the store's").count();
            assert_eq!(left, 0, "files are left in {name}");
        }
    }
}

/// A layer's tar stream, extracted and recorded. What comes of it packs, and that is the same after one more round.
pub fn layer(data: &[u8]) {
    let mut data = data.to_vec();
    mend_checksums(&mut data);
    let place = Place::new();
    let secret = place.0.join("secret");
    fs::write(&secret, "secret").expect("the scratch directory takes a file");
    let roots = ["one", "two"].map(|name| place.0.join(name));
    let unpack = |bytes: &[u8], root: &Path| {
        fs::create_dir(root).expect("the scratch directory takes a directory");
        let opened = tree::open_root(root).expect("it was just made");
        let at = |suffix: &str| root.with_extension(suffix);
        let paths = Paths { recipe: at("recipe"), blob: at("blob") };
        let recording =
            Recording::new(opened.as_fd(), Some(paths.clone())).expect("the scratch directory takes a file");
        let limits = Limits { entries: 10_000, content_bytes: 1 << 20, hole_bytes: 8 << 20 };
        let extracted = extract(bytes, opened.as_fd(), recording, limits);
        assert!(!matches!(extracted, Err(ExtractError::Record(_))), "{extracted:?}");
        let (_, kept) = extracted?;
        // Whatever is accepted is given again to the byte.
        let mut given = Sum::default();
        given.update(bytes);
        let of_recipe = || Sum::of_recipe(&paths.recipe, opened.as_fd()).expect("the recipe gives the stream").finish();
        match kept {
            Kept::Blob => assert!(fs::read(&paths.blob).expect("it is kept") == bytes, "the blob differs"),
            Kept::Recipe { .. } => assert_eq!(of_recipe(), given.finish(), "the recipe gives other bytes"),
            Kept::Nothing => panic!("nothing was recorded"),
        }
        for path in [&paths.recipe, &paths.blob] {
            let _ = fs::remove_file(path);
        }
        Ok::<_, ExtractError>(opened)
    };
    if let Ok(root) = unpack(&data, &roots[0]) {
        let mut first = Vec::new();
        if pack(root.as_fd(), None, &mut first).is_ok() {
            let again = unpack(&first, &roots[1]).expect("what was packed unpacks");
            let mut second = Vec::new();
            pack(again.as_fd(), None, &mut second).expect("what was packed once packs again");
            assert!(first == second, "the second packing differs");
        }
    }
    assert_eq!(fs::read(&secret).expect("it is still there"), b"secret");
    let names: Vec<_> = fs::read_dir(&place.0).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    let ours = ["secret", "one", "one.recipe", "one.blob", "two", "two.recipe", "two.blob"];
    assert!(names.iter().all(|name| ours.iter().any(|ours| name == ours)), "{names:?}");
}

/// An image's configuration: what is accepted has the same layers when it is read again.
pub fn config(data: &[u8]) {
    let id = ImageId::new(Digest::from_sha256(Sha256::digest(data).into()));
    if let Ok(image) = Image::new(id.clone(), data, 0, None) {
        let again = serde_json::to_vec(&*image.raw).expect("a JSON value serializes");
        let again = Image::new(id, &again, 0, None).expect("what was accepted is accepted again");
        assert_eq!(image.diff_ids, again.diff_ids);
    }
}

/// Bytes that may be compressed: no more comes out than the limits say.
pub fn compressed(data: &[u8]) {
    if let Ok((_, plain)) = decompress(data) {
        // The free gigabyte is not gone through for each of a million inputs.
        let _ = std::io::copy(&mut plain.take(8 << 20), &mut std::io::sink());
    }
}

fn layer_of(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = TarWriter::new(&mut bytes);
    writer.header(&Description::plain(name, EntryType::Regular, 0o644, 0)).expect("memory takes it");
    writer.finish().expect("memory takes it");
    bytes
}

fn hex_digest(bytes: &[u8]) -> String {
    Digest::from_sha256(Sha256::digest(bytes).into()).hex().to_owned()
}

fn replaced(text: &[u8], names: &[(u8, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        let known = rest.as_slice().first().and_then(|next| names.iter().find(|(name, _)| name == next));
        match known.filter(|_| *byte == b'@') {
            Some((_, hex)) => {
                out.extend_from_slice(hex.as_bytes());
                rest.next();
            }
            None => out.push(*byte),
        }
    }
    out
}

/// The manifest of an artifact: the names of its files stay in their directory, and what is read of it is the same once
/// something was added.
pub fn artifact(data: &[u8]) {
    let Ok(document) = ArtifactDocument::read(data) else { return };
    let mounted = |file_name: Option<&str>| {
        let wanted = WantedFiles { which: WhichFiles::All, file_name: file_name.map(str::to_owned) };
        named(&document, &wanted).unwrap_or_default().into_iter().map(|file| file.name).collect::<Vec<_>>()
    };
    let extracted = Selection::All.of(&document).unwrap_or_default().into_iter().map(|(name, _)| name);
    let extracted: Vec<String> = extracted.collect();
    for name in extracted.iter().chain(&mounted(None)).chain(&mounted(Some("n"))) {
        assert!(!name.contains('/') && !matches!(name.as_str(), "" | "." | ".."), "{name:?}");
    }
    if let Ok(bytes) = NewDocument::Appended(data.to_vec()).with(&[]) {
        assert_eq!(ArtifactDocument::read(&bytes).expect("it was read before"), document);
    }
}

/// Gives every header of a tar stream the checksum that it should have, as far as its sizes lead.
fn mend_checksums(data: &mut [u8]) {
    let mut at = 0usize;
    while let Some(block) = data.get_mut(at..at.saturating_add(512)) {
        if block.iter().all(|byte| *byte == 0) {
            return;
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        let size = usize::try_from(header.entry_size().unwrap_or(0)).unwrap_or(usize::MAX);
        at = at.saturating_add(512).saturating_add(size.saturating_add(511) / 512 * 512);
    }
}

/// A directory of one input's own.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dozen-fuzz-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("the directory for temporary files takes one");
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        crate::remove_tree(&self.0).expect("whatever was unpacked can be removed");
    }
}

#[cfg(test)]
mod tests {
    include!("../../../fuzz/replay.rs");

    #[test]
    fn manifests() {
        let loader = super::Loader::new();
        replay("manifest", |data| loader.manifest(data));
    }

    #[test]
    fn archives() {
        let loader = super::Loader::new();
        replay("archive", |data| loader.archive(data));
    }

    #[test]
    fn artifacts() {
        replay("artifact", super::artifact);
    }

    #[test]
    fn layers() {
        replay("layer", super::layer);
    }

    #[test]
    fn configurations() {
        replay("config", super::config);
    }

    #[test]
    fn compressions() {
        replay("compressed", super::compressed);
    }
}
