//! A large image for `load` and `save`: 652 MB in six layers, of many small files and some large ones, as application
//! images are. The same bytes every time.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::failure::{Attempt, Failure};

/// The image, as engines name it.
pub const NAME: &str = "large:1";
/// Its archive below the bench's directory.
pub const FILE: &str = "large.tar";

const LAYERS: usize = 6;
const LAYER_BYTES: usize = 652_000_000 / LAYERS;
/// Small files of a layer; the rest of it is large ones.
const SMALL_FILES: usize = 2000;
/// Small ones are up to this large, most of them much smaller.
const SMALL_BYTES: usize = 64 << 10;
const LARGE_BYTES: usize = 16 << 20;
const FILES_IN_DIRECTORY: usize = 50;

/// Writes the archive in the form of `docker save`.
pub fn prepare(archive: &Path) -> Result<(), Failure> {
    write(archive, LAYERS, LAYER_BYTES, SMALL_FILES).attempting(format_args!("write {}", archive.display()))
}

fn write(archive: &Path, layers: usize, layer_bytes: usize, small_files: usize) -> std::io::Result<()> {
    let mut out = tar::Builder::new(File::create(archive)?);
    let mut source = Source::new();
    let mut digests = Vec::new();
    for number in 0..layers {
        let layer = layer(&mut source, number, layer_bytes, small_files)?;
        let digest = append_blob(&mut out, &layer)?;
        digests.push(digest);
    }
    let diff_ids: Vec<String> = digests.iter().map(|digest| format!("sha256:{digest}")).collect();
    let config = json!({
        "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" },
        "os": "linux",
        "config": { "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": vec![json!({ "created_by": "bench" }); layers],
    });
    let config = append_blob(&mut out, config.to_string().as_bytes())?;
    let path = |digest: &String| format!("blobs/sha256/{digest}");
    let layers: Vec<String> = digests.iter().map(path).collect();
    let manifest = json!([{ "Config": path(&config), "RepoTags": [NAME], "Layers": layers }]);
    append(&mut out, "manifest.json", manifest.to_string().as_bytes())?;
    out.into_inner()?.flush()
}

fn append_blob(out: &mut tar::Builder<File>, bytes: &[u8]) -> std::io::Result<String> {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    append(out, &format!("blobs/sha256/{digest}"), bytes)?;
    Ok(digest)
}

fn append(out: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    out.append_data(&mut header, path, bytes)
}

fn layer(source: &mut Source, number: usize, bytes: usize, small_files: usize) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::with_capacity(bytes + (2 << 20)));
    let mut content = Vec::new();
    for file in 0..small_files {
        // The square of an even distribution: half of them below a quarter of the largest.
        let part = source.number(1 << 10);
        source.fill(&mut content, (SMALL_BYTES * part * part) >> 20);
        let directory = file / FILES_IN_DIRECTORY;
        append(&mut layer, &format!("usr/lib/layer-{number}/part-{directory}/file-{file}.py"), &content)?;
    }
    let mut file = 0;
    while layer.get_ref().len() < bytes {
        let left = bytes - layer.get_ref().len();
        let length = (LARGE_BYTES / 16 + source.number(LARGE_BYTES)).min(left);
        source.fill(&mut content, length);
        append(&mut layer, &format!("usr/lib/layer-{number}/library-{file}.so"), &content)?;
        file += 1;
    }
    layer.into_inner()
}

/// Bytes that a compressor makes about half of, from a generator that is the same everywhere (xorshift64).
struct Source {
    state: u64,
    pool: Vec<u8>,
}

impl Source {
    const POOL_BYTES: usize = 4 << 20;

    fn new() -> Self {
        let mut source = Self { state: 0x9e37_79b9_7f4a_7c15, pool: Vec::new() };
        source.pool = (0..Self::POOL_BYTES).map(|_| (source.next() >> 40) as u8 & 0x1f).collect();
        source
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn number(&mut self, below: usize) -> usize {
        (self.next() % below as u64) as usize
    }

    /// Pieces of the pool, so that it costs no more than copying.
    fn fill(&mut self, content: &mut Vec<u8>, length: usize) {
        content.clear();
        while content.len() < length {
            let from = self.number(Self::POOL_BYTES / 2);
            let to = (from + length - content.len()).min(Self::POOL_BYTES);
            content.extend_from_slice(&self.pool[from..to]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_an_image_and_the_same_every_time() {
        let directory = tempfile::tempdir().unwrap();
        let archives = ["one", "two"].map(|name| {
            let path = directory.path().join(name);
            write(&path, 2, 300_000, 3).unwrap();
            std::fs::read(path).unwrap()
        });
        assert!(archives[0] == archives[1]);
        let mut names = Vec::new();
        for entry in tar::Archive::new(archives[0].as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            let name = entry.path().unwrap().display().to_string();
            if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(hex, digest);
            }
            names.push(name);
        }
        assert_eq!((names.len(), names.last().map(String::as_str)), (4, Some("manifest.json")));
    }
}
