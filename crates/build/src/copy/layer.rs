//! The layer that is made: what comes into an image, over what the image has.
//!
//! A directory of a layer hides the owner, mode and attributes of the one below it, so those that something is put in come
//! into the layer too, as they are in the image.

use std::collections::{BTreeMap, HashMap};

use dozen_image::beneath::PATH_LIMIT;

use super::{CopyError, Entry};
use crate::tree::{Kind, Node, NodeKind, Tree, TreeError, above, join, shown, split};

pub(super) struct Layer<'a> {
    destination: &'a dyn Tree,
    owner: Option<(u32, u32)>,
    made_at: (i64, u32),
    /// By path. What is above something in it is in it too.
    slots: BTreeMap<Vec<u8>, Slot>,
}

struct Slot {
    node: Node,
    /// A directory of the layer's own: nothing of the image is in it.
    is_fresh: bool,
    /// A directory of the image stood here that is gone.
    hides: bool,
    /// Which source it comes from: files of two of them have nothing in common.
    source: usize,
}

impl<'a> Layer<'a> {
    pub(super) fn new(destination: &'a dyn Tree, owner: Option<(u32, u32)>, made_at: (i64, u32)) -> Self {
        Self { destination, owner, made_at, slots: BTreeMap::new() }
    }

    /// What stands at a path now.
    pub(super) fn kind(&self, path: &[u8]) -> Result<Option<Kind>, TreeError> {
        if let Some(slot) = self.slots.get(path) {
            return Ok(Some(slot.node.short()));
        }
        let mut directory = path;
        while !directory.is_empty() {
            directory = split(directory).0;
            match self.slots.get(directory) {
                Some(slot) if slot.is_fresh || !matches!(slot.node.kind, NodeKind::Directory) => return Ok(None),
                Some(_) => break,
                None => {}
            }
        }
        self.destination.kind(path)
    }

    /// The directory at a path, as it is now.
    pub(super) fn directory(&self, path: &[u8]) -> Result<Option<Node>, TreeError> {
        match self.slots.get(path) {
            Some(slot) => Ok(Some(slot.node.clone())),
            None => self.destination.node(path),
        }
    }

    /// Makes a directory, and those above it, as far as they are missing; the path goes through no link.
    pub(super) fn make_directories(&mut self, path: &[u8]) -> Result<(), CopyError> {
        let all: Vec<Vec<u8>> = above(path).chain([path]).map(<[u8]>::to_vec).collect();
        for directory in all {
            match self.kind(&directory)? {
                Some(Kind::Directory) => {}
                Some(_) => return Err(CopyError::NoDirectory(shown(&directory))),
                None => {
                    let (uid, gid) = self.owner.unwrap_or((0, 0));
                    let node = Node { uid, gid, ..Node::directory(self.made_at) };
                    self.put(&directory, node, 0)?;
                }
            }
        }
        Ok(())
    }

    /// Puts something at a path that goes through no link. A directory on one that stands is that one with another looks;
    /// everything else replaces what stands there, with all that is in it.
    pub(super) fn put(&mut self, path: &[u8], node: Node, source: usize) -> Result<(), CopyError> {
        let refused = |why| Err(CopyError::Refused { path: shown(path), why });
        if split(path).1.starts_with(b".wh.") {
            return refused("in a layer, a name that begins with .wh. means that another file is gone");
        }
        if matches!(node.kind, NodeKind::CharacterDevice(0, 0)) {
            return refused("in a layer, a character device 0:0 means that a file is gone");
        }
        if path.len() > PATH_LIMIT - 16 {
            return refused("its path is too long");
        }
        self.keep_above(path)?;
        let stands_directory = self.kind(path)? == Some(Kind::Directory);
        let comes_directory = matches!(node.kind, NodeKind::Directory);
        let before = self.slots.get(path).map(|slot| (slot.is_fresh, slot.hides));
        let (is_fresh, hides) = match (stands_directory, comes_directory) {
            (true, true) => before.unwrap_or((false, false)),
            (false, comes_directory) => (comes_directory, before.is_some_and(|(_, hides)| hides)),
            (true, false) => {
                self.forget_below(path);
                (false, before.is_none_or(|(is_fresh, hides)| hides || !is_fresh))
            }
        };
        self.slots.insert(path.to_vec(), Slot { node, is_fresh, hides, source });
        Ok(())
    }

    fn forget_below(&mut self, path: &[u8]) {
        let mut from = path.to_vec();
        from.push(b'/');
        let mut to = path.to_vec();
        to.push(b'/' + 1);
        let below: Vec<_> = self.slots.range(from..to).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.slots.remove(&path);
        }
    }

    /// The directories of the image above a path come into the layer as they are.
    fn keep_above(&mut self, path: &[u8]) -> Result<(), CopyError> {
        if path.is_empty() || self.slots.contains_key(split(path).0) {
            return Ok(());
        }
        for directory in above(path) {
            if self.slots.contains_key(directory) {
                continue;
            }
            match self.destination.node(directory)? {
                Some(node) if matches!(node.kind, NodeKind::Directory) => {
                    let slot = Slot { node, is_fresh: false, hides: false, source: 0 };
                    self.slots.insert(directory.to_vec(), slot);
                }
                _ => return Err(CopyError::NoDirectory(shown(directory))),
            }
        }
        Ok(())
    }

    /// All of it, parents first.
    pub(super) fn finish(self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut linked: HashMap<(usize, (u64, u64)), Vec<u8>> = HashMap::new();
        for (path, Slot { node, hides, source, .. }) in self.slots {
            // As an empty layer's root is.
            let is_plain_root =
                path.is_empty() && (node.mode, node.uid, node.gid) == (0o755, 0, 0) && node.attributes.is_empty();
            if is_plain_root {
                continue;
            }
            let mut hard_link = None;
            if let Some(identity) = node.identity {
                let first = linked.entry((source, identity)).or_insert_with(|| path.clone());
                hard_link = Some(first.clone()).filter(|first| *first != path);
            }
            let is_directory = matches!(node.kind, NodeKind::Directory);
            let mark = (hides && is_directory).then(|| join(&path, b".wh..wh..opq"));
            entries.push(Entry { path, node, hard_link });
            // OCI image-spec, layer.md, "Opaque Whiteout".
            entries.extend(mark.map(|path| Entry { path, node: Node::text(b"", (0, 0)), hard_link: None }));
        }
        entries
    }
}
