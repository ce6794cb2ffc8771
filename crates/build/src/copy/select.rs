//! What the sources of a COPY are, and the digest of it. Nothing is known of the destination here.

use std::borrow::Cow;
use std::collections::HashMap;

use dozen_dockerfile::FileMode;
use dozen_dockerfile::ignore::IgnoreFile;
use dozen_model::Digest;
use sha2::{Digest as _, Sha256};

use super::{CopyError, Fetched, Sources, glob};
use crate::operation::{Copy, Source};
use crate::tree::{Kind, Node, NodeKind, Tree, join, resolve, shown, split};

/// What is taken, with all that has to be known of it: the trees are not looked at again but for contents.
#[derive(Debug)]
pub struct Selection {
    pub(super) destination: Destination,
    pub(super) instruction: &'static str,
    pub(super) mode: Option<FileMode>,
    /// In order: what comes later replaces what came before.
    pub(super) picked: Vec<Picked>,
    digest: Digest,
}

/// Where it goes.
#[derive(Debug)]
pub(super) struct Destination {
    /// From the root.
    pub(super) path: Vec<u8>,
    /// It ended in a slash.
    pub(super) is_directory: bool,
    /// The image is not looked at.
    pub(super) is_linked: bool,
}

/// One source, or one of those that a pattern has found.
#[derive(Debug)]
pub(super) struct Picked {
    /// What it is called in a directory.
    pub(super) name: Vec<u8>,
    pub(super) what: Taken,
}

#[derive(Debug)]
pub(super) enum Taken {
    /// Something that is no directory.
    File {
        node: Node,
        /// If it is an archive.
        may_unpack: bool,
        /// It was never in a file system: its time is that of the copy.
        is_new: bool,
    },
    /// All that is in a directory, parents first.
    Contents {
        /// Where that is in its tree.
        base: Vec<u8>,
        items: Vec<Item>,
        /// The directory's own time: it becomes the destination's, as with BuildKit. A root's is nobody's.
        mtime: Option<(i64, u32)>,
    },
}

#[derive(Debug)]
pub(super) struct Item {
    /// Below the directory.
    pub(super) path: Vec<u8>,
    /// `None`: it is looked up when it is needed. A context may have a million of them.
    pub(super) node: Option<Box<Node>>,
    /// A directory that comes only for something in it.
    pub(super) is_parent: bool,
}

impl Item {
    /// `origin` is the tree that the sources are looked up in, and `base` where the directory is.
    pub(super) fn node(&self, origin: &dyn Tree, base: &[u8]) -> Result<Cow<'_, Node>, CopyError> {
        match &self.node {
            Some(node) => Ok(Cow::Borrowed(node)),
            None => {
                let path = join(base, &self.path);
                let node = origin.node(&path)?;
                node.map(Cow::Owned).ok_or_else(|| CopyError::NotFound(shown(&path)))
            }
        }
    }
}

impl Selection {
    /// What the files are, for the build cache: names, kinds, modes, owners, contents, link targets, attributes; no times.
    /// An owner or mode that the instruction sets anew is left out. What the instruction itself says (the destination,
    /// `--chown`, …) is no part of it.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// Finds what the sources of an instruction are.
pub fn select(operation: &Copy, sources: &Sources<'_>) -> Result<Selection, CopyError> {
    let mut selecting =
        Selecting { operation, exclude: patterns(operation.exclude.iter().map(String::as_str))?, picked: Vec::new() };
    let mut fetched = sources.fetched.iter();
    for source in &operation.sources {
        match source {
            Source::Path(path) => selecting.path(sources.origin, path)?,
            Source::Inline { name, content } => {
                let node = Node::text(content.as_bytes(), (0, 0));
                let what = Taken::File { node, may_unpack: false, is_new: true };
                selecting.picked.push(Picked { name: name.clone().into_bytes(), what });
            }
            Source::Url(_) | Source::Git(_) => {
                let fetched = fetched.next().ok_or_else(|| CopyError::NotFound(source.shown().into_owned()))?;
                selecting.fetched(fetched)?;
            }
        }
    }
    let destination = operation.destination.as_bytes();
    Ok(Selection {
        destination: Destination {
            path: clean(&operation.destination).into_bytes(),
            is_directory: destination.ends_with(b"/"),
            is_linked: operation.link,
        },
        instruction: if operation.add.is_some() { "ADD" } else { "COPY" },
        mode: operation.mode.clone(),
        digest: digest(operation, &selecting.picked, sources.origin)?,
        picked: selecting.picked,
    })
}

struct Selecting<'a> {
    operation: &'a Copy,
    exclude: IgnoreFile,
    picked: Vec<Picked>,
}

impl Selecting<'_> {
    fn path(&mut self, tree: &dyn Tree, text: &str) -> Result<(), CopyError> {
        let (source, include) = if self.operation.parents {
            // "/./" parts what is taken from what of it is kept.
            let (source, pattern) = text.split_once("/./").unwrap_or(("/", text));
            let pattern = clean(pattern);
            if !glob::has_wildcard(source) && !glob::has_wildcard(&pattern) {
                let path = clean(&format!("{source}/{pattern}"));
                let found = resolve(|path| tree.kind(path), path.as_bytes(), false)?;
                if found.kind.is_none() {
                    return Err(CopyError::NotFound(format!("/{path}")));
                }
            }
            let exception = format!("!{pattern}");
            let include = if pattern.is_empty() { None } else { Some(patterns(["**", &exception])?) };
            (clean(source), include)
        } else {
            (clean(text), None)
        };
        for path in glob::find(tree, &source)? {
            let found = resolve(|path| tree.kind(path), &path, true)?;
            let name = split(&path).1.to_vec();
            let Some(kind) = found.kind else { return Err(CopyError::NotFound(shown(&path))) };
            if kind == Kind::Directory {
                let what = self.contents(tree, &found.path, include.as_ref(), !tree.has_nodes_at_hand())?;
                self.picked.push(Picked { name, what });
            } else if !self.exclude.leaves_out(&String::from_utf8_lossy(&name)) {
                let node = tree.node(&found.path)?.ok_or_else(|| CopyError::Refused {
                    path: shown(&path),
                    why: "a socket is nothing without the process behind it",
                })?;
                let may_unpack = self.operation.add.as_ref().is_some_and(|add| add.unpack.unwrap_or(true));
                self.picked.push(Picked { name, what: Taken::File { node, may_unpack, is_new: false } });
            }
        }
        Ok(())
    }

    fn fetched(&mut self, fetched: &Fetched<'_>) -> Result<(), CopyError> {
        let name = split(fetched.path).1.to_vec();
        let missing = || CopyError::NotFound(shown(fetched.path));
        let found = resolve(|path| fetched.tree.kind(path), fetched.path, true)?;
        let what = if found.kind.ok_or_else(missing)? == Kind::Directory {
            self.contents(fetched.tree, &found.path, None, true)?
        } else {
            let node = fetched.tree.node(&found.path)?.ok_or_else(missing)?;
            let may_unpack = self.operation.add.as_ref().is_some_and(|add| add.unpack == Some(true));
            Taken::File { node, may_unpack, is_new: false }
        };
        self.picked.push(Picked { name, what });
        Ok(())
    }

    /// All that is in a directory and not left out.
    fn contents(
        &self,
        tree: &dyn Tree,
        base: &[u8],
        include: Option<&IgnoreFile>,
        is_remembered: bool,
    ) -> Result<Taken, CopyError> {
        let filters = include.into_iter().chain([&self.exclude]);
        let filters: Vec<&IgnoreFile> = filters.filter(|filter| !filter.is_empty()).collect();
        let mut items = Vec::new();
        // Directories that come if something in them does.
        let mut pending: Vec<Vec<u8>> = Vec::new();
        let mut stack: Vec<Vec<u8>> = Vec::new();
        let below = |path: &[u8]| -> Result<Vec<Vec<u8>>, CopyError> {
            let names = tree.names(&join(base, path))?;
            Ok(names.iter().rev().map(|name| join(path, name)).collect())
        };
        stack.extend(below(b"")?);
        while let Some(path) = stack.pop() {
            pending.retain(|above| is_below(&path, above));
            let text = String::from_utf8_lossy(&path);
            let is_out = filters.iter().any(|filter| filter.leaves_out(&text));
            let at = join(base, &path);
            if is_out {
                let may_see = filters.iter().all(|filter| !filter.leaves_out(&text) || filter.may_see_below(&text));
                if may_see && tree.kind(&at)? == Some(Kind::Directory) {
                    stack.extend(below(&path)?);
                    pending.push(path);
                }
                continue;
            }
            // A socket, or something that went away.
            let Some(node) = tree.node(&at)? else { continue };
            for path in pending.drain(..) {
                if let Some(node) = tree.node(&join(base, &path))? {
                    items.push(Item { path, node: is_remembered.then(|| node.into()), is_parent: true });
                }
            }
            if let NodeKind::Directory = node.kind {
                stack.extend(below(&path)?);
            }
            items.push(Item { path, node: is_remembered.then(|| node.into()), is_parent: false });
        }
        let mtime = if base.is_empty() { None } else { tree.node(base)?.map(|node| node.mtime) };
        Ok(Taken::Contents { base: base.to_vec(), items, mtime })
    }
}

fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"))
}

fn patterns<'p>(patterns: impl IntoIterator<Item = &'p str> + Clone) -> Result<IgnoreFile, CopyError> {
    IgnoreFile::of_patterns(patterns.clone()).map_err(|error| CopyError::Pattern {
        pattern: patterns.into_iter().nth(error.line - 1).unwrap_or_default().trim_start_matches('!').to_owned(),
    })
}

/// A path from the root, without the slash in front; `..` does not lead out of it.
pub(crate) fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => _ = names.pop(),
            name => names.push(name),
        }
    }
    names.join("/")
}

fn digest(operation: &Copy, picked: &[Picked], origin: &dyn Tree) -> Result<Digest, CopyError> {
    let mut summing = Summing {
        sum: Sha256::new(),
        with_owner: operation.owner.is_none(),
        with_mode: !matches!(operation.mode, Some(FileMode::Bits(_))),
    };
    for picked in picked {
        match &picked.what {
            Taken::File { node, may_unpack, is_new: _ } => {
                summing.field(if *may_unpack { b"archive" } else { b"file" });
                summing.node(&picked.name, node, &mut HashMap::new());
            }
            Taken::Contents { base, items, mtime: _ } => {
                summing.field(b"contents");
                summing.number(items.len() as u64);
                let mut linked = HashMap::new();
                for item in items {
                    summing.number(u64::from(item.is_parent));
                    summing.node(&item.path, &*item.node(origin, base)?, &mut linked);
                }
            }
        }
    }
    Ok(Digest::from_sha256(summing.sum.finalize().into()))
}

/// Every field with its length before it: no two selections give the same bytes.
struct Summing {
    sum: Sha256,
    with_owner: bool,
    with_mode: bool,
}

impl Summing {
    fn number(&mut self, number: u64) {
        self.sum.update(number.to_le_bytes());
    }

    fn field(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.sum.update(bytes);
    }

    fn node(&mut self, path: &[u8], node: &Node, linked: &mut HashMap<(u64, u64), u64>) {
        self.field(path);
        let (kind, device, text): (u64, (u32, u32), &[u8]) = match &node.kind {
            NodeKind::Directory => (0, (0, 0), b""),
            NodeKind::File { digest, .. } => (1, (0, 0), digest.as_str().as_bytes()),
            NodeKind::Link(target) => (2, (0, 0), target),
            NodeKind::Pipe => (3, (0, 0), b""),
            NodeKind::CharacterDevice(major, minor) => (4, (*major, *minor), b""),
            NodeKind::BlockDevice(major, minor) => (5, (*major, *minor), b""),
        };
        self.number(kind);
        self.number(u64::from(device.0) << 32 | u64::from(device.1));
        self.field(text);
        // Which names are those of one file is seen in the layer, what they have in common is not.
        let count = linked.len() as u64 + 1;
        self.number(node.identity.map_or(0, |identity| *linked.entry(identity).or_insert(count)));
        if self.with_mode && !matches!(node.kind, NodeKind::Link(_)) {
            self.number(u64::from(node.mode));
        }
        if self.with_owner {
            self.number(u64::from(node.uid) << 32 | u64::from(node.gid));
        }
        self.number(node.attributes.len() as u64);
        for (name, value) in &node.attributes {
            self.field(name);
            self.field(value);
        }
    }
}
