//! The layer that is made: what comes into an image, over what the image has.
//!
//! A directory of a layer hides the owner, mode and attributes of the one below it, so those that something is put in come
//! into the layer too, as they are in the image.

use std::collections::{BTreeMap, HashMap, btree_map};

use dozen_image::beneath::PATH_LIMIT;

use super::place::Dress;
use super::{CopyError, Entry};
use crate::tree::{Kind, Node, NodeKind, Tree, TreeError, above, join, shown, split};

pub(super) struct Layer<'a> {
    destination: &'a dyn Tree,
    owner: Option<(u32, u32)>,
    made_at: (i64, u32),
    /// By path. What is above something in it is in it too.
    slots: BTreeMap<Vec<u8>, Slot>,
    sources: Vec<Directory<'a>>,
}

/// A directory among the sources, whose files need not be remembered.
pub(super) struct Directory<'a> {
    pub(super) origin: &'a dyn Tree,
    /// Where it is in its tree.
    pub(super) base: Vec<u8>,
    /// And in the layer.
    pub(super) target: Vec<u8>,
    pub(super) dress: Dress,
}

impl Directory<'_> {
    /// Where something of the layer's is in the tree.
    fn path(&self, path: &[u8]) -> Vec<u8> {
        let below = path.strip_prefix(self.target.as_slice()).unwrap_or(path);
        join(&self.base, below.strip_prefix(b"/").unwrap_or(below))
    }

    fn node(&self, path: &[u8]) -> Result<Node, CopyError> {
        let path = self.path(path);
        let node = self.origin.node(&path)?.ok_or_else(|| CopyError::NotFound(shown(&path)))?;
        Ok(self.dress.dressed(node))
    }
}

/// What stands somewhere.
enum Held {
    Node(Box<Node>),
    /// Something of the directory with this number, and not a directory.
    In(u32),
}

struct Slot {
    held: Held,
    /// A directory of the layer's own: nothing of the image is in it.
    is_fresh: bool,
    /// A directory of the image stood here that is gone.
    hides: bool,
    /// Which source it comes from: files of two of them have nothing in common.
    source: usize,
}

impl<'a> Layer<'a> {
    pub(super) fn new(destination: &'a dyn Tree, owner: Option<(u32, u32)>, made_at: (i64, u32)) -> Self {
        Self { destination, owner, made_at, slots: BTreeMap::new(), sources: Vec::new() }
    }

    /// Whose files [`put_later`](Self::put_later) may put.
    pub(super) fn add_source(&mut self, directory: Directory<'a>) -> u32 {
        self.sources.push(directory);
        u32::try_from(self.sources.len() - 1).expect("a line of a Dockerfile names less")
    }

    /// What stands at a path now.
    pub(super) fn kind(&self, path: &[u8]) -> Result<Option<Kind>, TreeError> {
        if let Some(slot) = self.slots.get(path) {
            return match &slot.held {
                Held::Node(node) => Ok(Some(node.short())),
                Held::In(number) => {
                    let source = &self.sources[*number as usize];
                    source.origin.kind(&source.path(path))
                }
            };
        }
        let mut directory = path;
        while !directory.is_empty() {
            directory = split(directory).0;
            match self.slots.get(directory) {
                Some(slot) if slot.is_fresh || !slot.is_directory() => return Ok(None),
                Some(_) => break,
                None => {}
            }
        }
        self.destination.kind(path)
    }

    /// The directory at a path, as it is now.
    pub(super) fn directory(&self, path: &[u8]) -> Result<Option<Node>, TreeError> {
        match self.slots.get(path) {
            Some(Slot { held: Held::Node(node), .. }) => Ok(Some(Node::clone(node))),
            // It is none.
            Some(Slot { held: Held::In(_), .. }) => Ok(None),
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
        self.check(path, &node)?;
        self.hold(path, Held::Node(node.into()), source)
    }

    /// The same with a file of a directory among the sources, which is looked up again when its entry is made.
    pub(super) fn put_later(&mut self, path: &[u8], node: &Node, number: u32, source: usize) -> Result<(), CopyError> {
        self.check(path, node)?;
        self.hold(path, Held::In(number), source)
    }

    fn check(&self, path: &[u8], node: &Node) -> Result<(), CopyError> {
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
        Ok(())
    }

    fn hold(&mut self, path: &[u8], held: Held, source: usize) -> Result<(), CopyError> {
        self.keep_above(path)?;
        let stands_directory = self.kind(path)? == Some(Kind::Directory);
        let comes_directory = held.is_directory();
        let before = self.slots.get(path).map(|slot| (slot.is_fresh, slot.hides));
        let (is_fresh, hides) = match (stands_directory, comes_directory) {
            (true, true) => before.unwrap_or((false, false)),
            (false, comes_directory) => (comes_directory, before.is_some_and(|(_, hides)| hides)),
            (true, false) => {
                self.forget_below(path);
                (false, before.is_none_or(|(is_fresh, hides)| hides || !is_fresh))
            }
        };
        self.slots.insert(path.to_vec(), Slot { held, is_fresh, hides, source });
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
                    let slot = Slot { held: Held::Node(node.into()), is_fresh: false, hides: false, source: 0 };
                    self.slots.insert(directory.to_vec(), slot);
                }
                _ => return Err(CopyError::NoDirectory(shown(directory))),
            }
        }
        Ok(())
    }

    /// All of it, parents first.
    pub(super) fn finish(self) -> Entries<'a> {
        Entries { slots: self.slots.into_iter(), sources: self.sources, linked: HashMap::new(), mark: None }
    }
}

impl Held {
    fn is_directory(&self) -> bool {
        matches!(self, Self::Node(node) if matches!(node.kind, NodeKind::Directory))
    }
}

impl Slot {
    fn is_directory(&self) -> bool {
        self.held.is_directory()
    }
}

/// What a layer holds, one after the other, parents first, no path twice.
pub struct Entries<'a> {
    slots: btree_map::IntoIter<Vec<u8>, Slot>,
    sources: Vec<Directory<'a>>,
    /// The first names of files that have several.
    linked: HashMap<(usize, (u64, u64)), Vec<u8>>,
    /// The mark of the directory that came last.
    mark: Option<Vec<u8>>,
}

impl std::fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entries({} left)", self.slots.len())
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, CopyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(path) = self.mark.take() {
            // OCI image-spec, layer.md, "Opaque Whiteout".
            return Some(Ok(Entry { path, node: Node::text(b"", (0, 0)), hard_link: None }));
        }
        loop {
            let (path, Slot { held, hides, source, .. }) = self.slots.next()?;
            let node = match held {
                Held::Node(node) => *node,
                Held::In(number) => match self.sources[number as usize].node(&path) {
                    Ok(node) => node,
                    Err(error) => return Some(Err(error)),
                },
            };
            // As an empty layer's root is.
            let is_plain_root =
                path.is_empty() && (node.mode, node.uid, node.gid) == (0o755, 0, 0) && node.attributes.is_empty();
            if is_plain_root {
                continue;
            }
            let mut hard_link = None;
            if let Some(identity) = node.identity {
                let first = self.linked.entry((source, identity)).or_insert_with(|| path.clone());
                hard_link = Some(first.clone()).filter(|first| *first != path);
            }
            let is_directory = matches!(node.kind, NodeKind::Directory);
            self.mark = (hides && is_directory).then(|| join(&path, b".wh..wh..opq"));
            return Some(Ok(Entry { path, node, hard_link }));
        }
    }
}
