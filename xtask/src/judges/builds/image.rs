//! What an engine has made, from the archive that it saves (docker's form, which all three write): the configuration, and
//! the files, the layers laid on one another (image-spec, layer.md).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

use crate::failure::{Attempt, Failure};

/// An image.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Image {
    /// The document as it is.
    pub configuration: Value,
    /// Of each layer, whether anything is another than before but times of directories.
    pub layers: Vec<bool>,
    /// By path, relative; the root's own is empty.
    pub tree: BTreeMap<String, Node>,
    /// How many files have been met.
    pub met: usize,
}

/// A file of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    pub mode: u32,
    pub user: u64,
    pub group: u64,
    /// Seconds.
    pub modified_s: u64,
    /// security.capability, in hexadecimal digits: other attributes docker does not save.
    pub capabilities: String,
    /// Paths that are the same file have the same number.
    pub inode: usize,
    /// Of which layer.
    layer: usize,
}

impl Node {
    /// The same file for all but who asks when a directory was changed.
    fn is_as(&self, other: &Self) -> bool {
        let said = |node: &Self| (node.user, node.group, node.mode, node.capabilities.clone());
        let is_of_time = self.kind == Kind::Directory || self.modified_s == other.modified_s;
        self.kind == other.kind && said(self) == said(other) && is_of_time
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// What is in it, or its digest if that is long.
    File {
        size: u64,
        content: String,
    },
    Directory,
    Link(String),
    Pipe,
    Device {
        is_block: bool,
        number: (u32, u32),
    },
}

/// Writes what an OCI layout in an archive holds as docker's form has it, under a name: docker loads nothing else.
pub fn write_base(layout: &Path, name: &str, target: &Path) -> Result<(), Failure> {
    let said = format!("write {}", target.display());
    let blob = |descriptor: &Value| {
        format!("blobs/sha256/{}", descriptor["digest"].as_str().unwrap_or_default().trim_start_matches("sha256:"))
    };
    let document = |name: &str| serde_json::from_slice::<Value>(&file(layout, name)?).attempting(&said);
    let manifest = document(&blob(&document("index.json")?["manifests"][0]))?;
    let configuration = blob(&manifest["config"]);
    let layers: Vec<String> = manifest["layers"].as_array().into_iter().flatten().map(blob).collect();
    let mut builder = tar::Builder::new(File::create(target).attempting(&said)?);
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).attempting(&said)
    };
    for name in layers.iter().chain([&configuration]) {
        add(name, &file(layout, name)?)?;
    }
    let manifest = json!([{ "Config": configuration, "RepoTags": [name], "Layers": layers }]);
    add("manifest.json", manifest.to_string().as_bytes())?;
    builder.finish().attempting(said)
}

/// Reads an archive.
pub fn read(path: &Path) -> Result<Image, Failure> {
    let said = format!("read {}", path.display());
    let manifest: Value = serde_json::from_slice(&file(path, "manifest.json")?).attempting(&said)?;
    let manifest = &manifest[0];
    let configuration = manifest["Config"].as_str().unwrap_or_default();
    let configuration = serde_json::from_slice(&file(path, configuration)?).attempting(&said)?;
    let mut image = Image { configuration, ..Image::default() };
    for layer in manifest["Layers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let bytes = file(path, layer)?;
        // RFC 1952, 2.3.1.
        if bytes.starts_with(&[0x1f, 0x8b]) {
            image.lay(GzDecoder::new(bytes.as_slice())).attempting(&said)?;
        } else {
            image.lay(bytes.as_slice()).attempting(&said)?;
        }
    }
    Ok(image)
}

/// A file of an archive; a link leads to another one of it, as in docker's of old.
fn file(path: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let said = format!("read {name} of {}", path.display());
    let mut archive = Archive::new(File::open(path).attempting(&said)?);
    for entry in archive.entries().attempting(&said)? {
        let mut entry = entry.attempting(&said)?;
        if entry.path().is_ok_and(|path| path == Path::new(name)) {
            if let Ok(Some(target)) = entry.link_name() {
                let target = target.to_string_lossy().into_owned();
                return file(path, target.trim_start_matches("../"));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).attempting(&said)?;
            return Ok(bytes);
        }
    }
    Err(Failure::new(format!("{} has no {name}", path.display())))
}

impl Image {
    /// Lays a layer on those before it.
    fn lay(&mut self, layer: impl Read) -> std::io::Result<()> {
        let number = self.layers.len();
        let mut before = self.tree.clone();
        let mut archive = Archive::new(layer);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let mut path = relative(&entry.path_bytes());
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                self.remove_below(parent, number);
                continue;
            }
            if let Some(gone) = name.strip_prefix(".wh.") {
                let gone = if parent.is_empty() { gone.to_owned() } else { format!("{parent}/{gone}") };
                self.remove(&gone, number);
                continue;
            }
            self.met += 1;
            let node = self.node(&mut entry, &mut path, number)?;
            if node.kind != Kind::Directory || self.tree.get(&path).is_some_and(|old| old.kind != Kind::Directory) {
                self.remove(&path, number);
            }
            self.tree.insert(path, node);
        }
        // Docker's RUN leaves it, where it has mounted something.
        if let Some(dev) = self.tree.get("dev").filter(|node| node.kind == Kind::Directory) {
            before.entry("dev".to_owned()).or_insert_with(|| dev.clone());
        }
        let is_same = |(path, node): (&String, &Node)| before.get(path).is_some_and(|old| old.is_as(node));
        let changes = before.len() != self.tree.len() || !self.tree.iter().all(is_same);
        self.layers.push(changes);
        Ok(())
    }

    /// What an entry is. Its path may be another one than it seemed.
    fn node<R: Read>(&self, entry: &mut tar::Entry<'_, R>, path: &mut String, layer: usize) -> std::io::Result<Node> {
        let mut capabilities = String::new();
        let mut is_sparse = false;
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            match extension.key_bytes() {
                b"SCHILY.xattr.security.capability" => capabilities = hexadecimal(extension.value_bytes()),
                // GNU tar's manual, "PAX Format, Version 1.0".
                b"GNU.sparse.name" => *path = relative(extension.value_bytes()),
                b"GNU.sparse.major" => is_sparse = extension.value_bytes() == b"1",
                _ => {}
            }
        }
        let link = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
        let header = entry.header();
        // Of anything else the field may be empty.
        let device = || -> std::io::Result<(u32, u32)> {
            Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
        };
        let kind = match header.entry_type() {
            EntryType::Link => {
                let target = relative(&link);
                let node = self.tree.get(&target).map(|node| Node { layer, ..node.clone() });
                return node
                    .ok_or_else(|| std::io::Error::other(format!("a hard link to {target}, which is not there")));
            }
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Link(shown(&link)),
            EntryType::Fifo => Kind::Pipe,
            EntryType::Char => Kind::Device { is_block: false, number: device()? },
            EntryType::Block => Kind::Device { is_block: true, number: device()? },
            _ => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                if is_sparse {
                    bytes = filled(&bytes).ok_or_else(|| std::io::Error::other("a sparse file that cannot be read"))?;
                }
                let content = if bytes.len() > 1000 { hexadecimal(&Sha256::digest(&bytes)) } else { shown(&bytes) };
                Kind::File { size: bytes.len() as u64, content }
            }
        };
        let header = entry.header();
        let (mode, user, group, modified_s) = (header.mode()? & 0o7777, header.uid()?, header.gid()?, header.mtime()?);
        // Nobody asks for a mode of a link.
        let mode = if matches!(kind, Kind::Link(_)) { 0o777 } else { mode };
        Ok(Node { kind, mode, user, group, modified_s, capabilities, inode: self.met, layer })
    }

    /// What is there of earlier layers, with all below it.
    fn remove(&mut self, path: &str, before: usize) {
        if self.tree.get(path).is_some_and(|node| node.layer < before) {
            self.tree.remove(path);
        }
        self.remove_below(path, before);
    }

    fn remove_below(&mut self, path: &str, before: usize) {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        self.tree.retain(|other, node| node.layer >= before || other.is_empty() || !other.starts_with(&prefix));
    }
}

/// A sparse file with its holes: the data begin with a list of where they go, in decimal lines, and padded to a block (GNU
/// tar's manual, "PAX Format, Version 1.0").
fn filled(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes;
    let mut number = || -> Option<usize> {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let number = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        rest = &rest[end + 1..];
        Some(number)
    };
    let count = number()?;
    let pieces: Vec<(usize, usize)> = (0..count).map(|_| Some((number()?, number()?))).collect::<Option<_>>()?;
    let mut data = bytes.get((bytes.len() - rest.len()).next_multiple_of(512)..)?;
    let mut whole = Vec::new();
    for (at, length) in pieces {
        whole.resize(at, 0);
        whole.extend_from_slice(data.get(..length)?);
        data = &data[length..];
    }
    Some(whole)
}

/// Without what stands for the root, before and behind.
fn relative(path: &[u8]) -> String {
    let path = shown(path);
    let path = path.strip_prefix("./").unwrap_or(&path).trim_matches('/');
    if path == "." { String::new() } else { path.to_owned() }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| bytes.escape_ascii().to_string())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(7);
            header.set_size(0);
            if kind.is_hard_link() || kind.is_symlink() {
                builder.append_link(&mut header, path, content).unwrap();
            } else {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, content.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn layers_lie_on_one_another() {
        use EntryType::{Directory, Link, Regular};
        let mut image = Image::default();
        for entries in [
            &[("a/", Directory, ""), ("a/x", Regular, "1"), ("a/y", Regular, "2"), ("b", Regular, "3")][..],
            &[("a/", Directory, ""), ("a/.wh.x", Regular, ""), ("c", Link, "b"), ("d/", Directory, "")],
            &[("a/z", Regular, "4"), ("a/.wh..wh..opq", Regular, ""), (".wh.d", Regular, ""), ("b/", Directory, "")],
        ] {
            let bytes = layer(entries);
            // A hard link's file is of an earlier layer here: no engine writes that, but it has to be read.
            image.lay(bytes.as_slice()).unwrap();
        }
        assert_eq!(image.tree.keys().collect::<Vec<_>>(), ["a", "a/z", "b", "c"]);
        assert_eq!(image.tree["b"].kind, Kind::Directory);
        assert!(matches!(image.tree["c"].kind, Kind::File { size: 1, .. }));
        image.lay(layer(&[("a/", Directory, ""), (".wh.nothing", Regular, "")]).as_slice()).unwrap();
        assert_eq!(image.layers, [true, true, true, false]);
    }

    #[test]
    fn holes_are_filled() {
        let mut bytes = b"2\n3\n2\n7\n0\n".to_vec();
        bytes.resize(512, 0);
        bytes.extend(b"ab");
        assert_eq!(filled(&bytes).unwrap(), b"\0\0\0ab\0\0");
        assert_eq!(filled(b"2\n3\n"), None);
    }
}
