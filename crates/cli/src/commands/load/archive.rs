//! What of an archive need not be sent: a plain archive's headers are read by seeking over all else, and of the layers
//! that its manifest names, those that the engine has are left out.
//!
//! It is only a short cut. Whatever is unusual in the archive ends it, and the archive is sent whole: judging archives is
//! the engine's work.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use serde::Deserialize;

const BLOCK: u64 = 512;
/// Entries of an archive that is looked at; image archives have some ten.
const ENTRIES_LIMIT: usize = 10_000;
/// Bytes of a document that is looked at.
const DOCUMENT_LIMIT: u64 = 4 << 20;

/// A plain archive that was looked through.
#[derive(Debug)]
pub struct Archive {
    entries: Vec<Entry>,
    /// The names of layers, and the digest of the plain layer that each of their users wants.
    layers: BTreeMap<String, BTreeSet<String>>,
    end: u64,
}

#[derive(Debug)]
struct Entry {
    /// `None` for what is described by more than one header.
    name: Option<String>,
    /// All of it, headers and padding.
    whole: Range<u64>,
    data: Range<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl Archive {
    /// Looks an archive through; `None` if it is compressed, unusual, or not an archive of `docker save`'s form.
    pub fn look(file: &File) -> Option<Self> {
        let end = file.metadata().ok()?.len();
        let entries = entries(file, end)?;
        let document = |name: &str| {
            // A name that comes twice means the last.
            let entry = entries.iter().rev().find(|entry| entry.name.as_deref() == Some(name))?;
            let length = entry.data.end - entry.data.start;
            let mut bytes = vec![0; usize::try_from(length).ok().filter(|_| length <= DOCUMENT_LIMIT)?];
            file.read_exact_at(&mut bytes, entry.data.start).ok()?;
            Some(bytes)
        };
        let images: Vec<Image> = serde_json::from_slice(&document("manifest.json")?).ok()?;
        let mut layers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for image in images {
            let config: Config = serde_json::from_slice(&document(&image.config)?).ok()?;
            if config.rootfs.diff_ids.len() != image.layers.len() {
                return None;
            }
            for (name, diff_id) in image.layers.into_iter().zip(config.rootfs.diff_ids) {
                layers.entry(name).or_default().insert(diff_id);
            }
        }
        Some(Self { entries, layers, end })
    }

    /// The digests of all layers that its images want, and of the files that these are in.
    pub fn digests(&self) -> BTreeSet<String> {
        self.layers.iter().flat_map(|(name, wanted)| wanted.iter().cloned().chain(digest_of(name))).collect()
    }

    /// The parts of the file to send to an engine that has these contents, in order; `None`: all of it. A compressed layer
    /// is sent to an engine that has the layer alone: a manifest in the archive may name these very bytes.
    pub fn without(&self, known: &BTreeSet<String>) -> Option<Vec<Range<u64>>> {
        let is_known = |name: &String| {
            let has_layer = self.layers.get(name).is_some_and(|wanted| wanted.is_subset(known));
            has_layer && digest_of(name).is_none_or(|digest| known.contains(&digest))
        };
        let mut parts: Vec<Range<u64>> = Vec::new();
        let mut from = 0;
        for entry in self.entries.iter().filter(|entry| entry.name.as_ref().is_some_and(is_known)) {
            parts.push(from..entry.whole.start);
            from = entry.whole.end;
        }
        if from == 0 {
            return None;
        }
        parts.push(from..self.end);
        parts.retain(|part| !part.is_empty());
        Some(parts)
    }
}

/// Of the bytes of a file that is called by it.
fn digest_of(name: &str) -> Option<String> {
    Some(format!("sha256:{}", name.strip_prefix("blobs/sha256/")?))
}

/// All entries until the end of the archive; `None` if there is anything that an archive of images need not have.
fn entries(file: &File, end: u64) -> Option<Vec<Entry>> {
    let (mut entries, mut at) = (Vec::new(), 0);
    let mut described_from = None;
    while at < end {
        let mut header = [0; BLOCK as usize];
        file.read_exact_at(&mut header, at).ok()?;
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        if entries.len() >= ENTRIES_LIMIT || !has_its_checksum(&header) {
            return None;
        }
        let size = octal(&header[124..136])?;
        let data = at + BLOCK..at.checked_add(BLOCK)?.checked_add(size)?;
        let next = data.end.checked_next_multiple_of(BLOCK)?;
        if next > end {
            return None;
        }
        match header[156] {
            // Long names and PAX records belong to what follows, and may say another size.
            b'L' | b'K' => drop(described_from.get_or_insert(at)),
            b'0' | 0 => {
                let described = described_from.take();
                let name = if described.is_none() { name(&header) } else { None };
                entries.push(Entry { name, whole: described.unwrap_or(at)..next, data });
            }
            b'1' | b'2' | b'5' if size == 0 => described_from = None,
            _ => return None,
        }
        at = next;
    }
    Some(entries)
}

/// The name, with the prefix of the ustar format (pax(1), "ustar Interchange Format").
fn name(header: &[u8; BLOCK as usize]) -> Option<String> {
    let text = |field: &[u8]| {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        String::from_utf8(field[..end].to_vec()).ok()
    };
    let name = text(&header[..100])?;
    let prefix = if &header[257..263] == b"ustar\0" { text(&header[345..500])? } else { String::new() };
    let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
    Some(name.strip_prefix("./").map(str::to_owned).unwrap_or(name))
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

/// The checksum counts its own eight bytes as spaces.
fn has_its_checksum(header: &[u8; BLOCK as usize]) -> bool {
    let sum = header[..148].iter().chain(&header[156..]).map(|byte| u64::from(*byte)).sum::<u64>() + 8 * 32;
    octal(&header[148..156]) == Some(sum)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    fn entry(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut header = [0; BLOCK as usize];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[156] = kind;
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * 32;
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = [&header, content].concat();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn file(entries: &[Vec<u8>]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&entries.concat()).unwrap();
        file.write_all(&[0; 1024]).unwrap();
        file
    }

    pub(crate) fn image(layers: [&str; 2]) -> Vec<Vec<u8>> {
        let manifest =
            format!(r#"[{{"Config":"c.json","RepoTags":["a:1"],"Layers":["{}","{}"]}}]"#, layers[0], layers[1]);
        vec![
            entry("dir/", b'5', b""),
            entry("one", b'0', &[1; 700]),
            entry("two", 0, &[2; 512]),
            entry("c.json", b'0', br#"{"rootfs":{"diff_ids":["sha256:1","sha256:2"]}}"#),
            entry("manifest.json", b'0', manifest.as_bytes()),
        ]
    }

    fn parts(file: &File, known: &[&str]) -> Option<Vec<Range<u64>>> {
        Archive::look(file).unwrap().without(&known.iter().map(|known| (*known).to_owned()).collect())
    }

    #[test]
    fn what_the_engine_has_is_left_out() {
        let file = file(&image(["one", "two"]));
        let end = file.metadata().unwrap().len();
        assert_eq!(Archive::look(&file).unwrap().digests().into_iter().collect::<Vec<_>>(), ["sha256:1", "sha256:2"]);
        for (known, expected) in [
            (&[][..], None),
            (&["sha256:0"], None),
            (&["sha256:1"], Some(vec![0..512, 2048..end])),
            (&["sha256:2"], Some(vec![0..2048, 3072..end])),
            (&["sha256:1", "sha256:2"], Some(vec![0..512, 3072..end])),
        ] {
            let expected = expected
                .map(|parts: Vec<Range<u64>>| parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>());
            let found = parts(&file, known).map(|parts| {
                // Neighbours are one.
                parts.into_iter().fold(Vec::<Range<u64>>::new(), |mut merged, part| {
                    match merged.last_mut().filter(|last| last.end == part.start) {
                        Some(last) => last.end = part.end,
                        None => merged.push(part),
                    }
                    merged
                })
            });
            assert_eq!(found, expected, "{known:?}");
        }
    }

    #[test]
    fn a_compressed_layer_is_sent_unless_its_own_bytes_are_there() {
        let mut entries = image(["blobs/sha256/a", "two"]);
        entries[1] = entry("blobs/sha256/a", b'0', &[1; 700]);
        let file = file(&entries);
        let asked = Archive::look(&file).unwrap().digests();
        assert_eq!(asked.into_iter().collect::<Vec<_>>(), ["sha256:1", "sha256:2", "sha256:a"]);
        assert_eq!(parts(&file, &["sha256:1"]), None);
        assert_eq!(parts(&file, &["sha256:a"]), None);
        assert!(parts(&file, &["sha256:1", "sha256:a"]).is_some());
    }

    #[test]
    fn a_file_that_two_layers_want_differently_is_sent() {
        let file = file(&image(["one", "one"]));
        assert_eq!(parts(&file, &["sha256:1"]), None);
        assert!(parts(&file, &["sha256:1", "sha256:2"]).is_some());
    }

    #[test]
    fn the_unusual_is_sent_whole() {
        let looked = |entries: &[Vec<u8>]| Archive::look(&file(entries)).is_some();
        let image = image(["one", "two"]);
        assert!(looked(&image));
        assert!(!looked(&image[..4]));
        assert!(!looked(&[vec![0x1f, 0x8b], vec![0; 510]]));
        assert!(!looked(&[]));
        assert!(!looked(&[&[entry("x", b'x', b"11 size=700")], image.as_slice()].concat()));
        assert!(!looked(&[&[entry("sparse", b'S', b"")], image.as_slice()].concat()));
        let mut damaged = image.clone();
        damaged[1][0] ^= 1;
        assert!(!looked(&damaged));
        let cut = file(&image);
        cut.set_len(1500).unwrap();
        assert!(Archive::look(&cut).is_none());
        // A long name belongs to what follows: nobody looks for that entry, and it goes with what describes it.
        let long = [&[entry("long", b'L', b"one\0")], image.as_slice()].concat();
        assert!(looked(&long));
    }
}
