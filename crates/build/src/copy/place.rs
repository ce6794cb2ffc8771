//! A selection comes into an image.

use std::sync::LazyLock;

use dozen_dockerfile::FileMode;

use super::layer::{Directory, Entries, Layer};
use super::select::{Destination, Picked, Selection, Taken};
use super::{CopyError, Placing, archive, mode};
use crate::tree::{Kind, Node, NodeKind, PlainTree, Tree, TreeError, join, resolve, shown, split};

impl Selection {
    /// What the layer holds then. `origin` is the tree that the sources were looked up in.
    pub fn into_entries<'a>(self, placing: &Placing<'a>, origin: &'a dyn Tree) -> Result<Entries<'a>, CopyError> {
        static EMPTY: LazyLock<PlainTree> = LazyLock::new(PlainTree::empty);
        let below = if self.destination.is_linked { &*EMPTY } else { placing.destination };
        let mut layer = Layer::new(below, placing.owner, placing.made_at);
        let several = self.picked.len() > 1;
        let is_directory = |node: &Node| matches!(node.kind, NodeKind::Directory);
        let dress = Dress { owner: placing.owner, mode: self.mode };
        for (source, Picked { name, what }) in self.picked.into_iter().enumerate() {
            match what {
                Taken::File { mut node, may_unpack, is_new } => {
                    if may_unpack
                        && let NodeKind::File { content, .. } = &node.kind
                        && archive::is_archive(content, &name)?
                    {
                        let base = follow(&layer, &self.destination.path)?;
                        layer.make_directories(&base)?;
                        archive::unpack(&mut layer, content, &name, &base, placing, source)?;
                        continue;
                    }
                    if is_new {
                        node.mtime = placing.made_at;
                    }
                    let mut target = target(&mut layer, &self.destination)?;
                    if layer.kind(&target)? == Some(Kind::Directory) {
                        target = join(&target, &name);
                    } else if several {
                        return Err(CopyError::SeveralSources { instruction: self.instruction });
                    }
                    // A link to what is not there may have led here.
                    layer.make_directories(split(&target).0)?;
                    check_no_directory(&layer, &target)?;
                    layer.put(&target, dress.dressed(node), source)?;
                }
                Taken::Contents { base, items, mtime } => {
                    let target = target(&mut layer, &self.destination)?;
                    match layer.kind(&target)? {
                        Some(Kind::Directory) => {}
                        None => layer.make_directories(&target)?,
                        Some(_) => return Err(CopyError::ToNonDirectory(shown(&target))),
                    }
                    let number = layer.add_source(Directory {
                        origin,
                        base: base.clone(),
                        target: target.clone(),
                        dress: dress.clone(),
                    });
                    for item in items {
                        let path = join(&target, &item.path);
                        let node = item.node(origin, &base)?;
                        if !is_directory(&node) {
                            check_no_directory(&layer, &path)?;
                            match &item.node {
                                None => layer.put_later(&path, &node, number, source)?,
                                Some(_) => layer.put(&path, dress.dressed(node.into_owned()), source)?,
                            }
                            continue;
                        }
                        let mut node = dress.dressed(node.into_owned());
                        match layer.kind(&path)? {
                            // It is there already, and only its mode is taken over.
                            Some(Kind::Directory) if item.is_parent => {
                                if let Some(standing) = layer.directory(&path)? {
                                    node = Node { mode: node.mode, ..standing };
                                }
                            }
                            Some(Kind::Directory) | None => {}
                            Some(_) => return Err(CopyError::ToNonDirectory(shown(&path))),
                        }
                        layer.put(&path, node, source)?;
                    }
                    if let (Some(mtime), Some(standing)) = (mtime, layer.directory(&target)?) {
                        layer.put(&target, Node { mtime, ..standing }, source)?;
                    }
                }
            }
        }
        Ok(layer.finish())
    }
}

/// Where the destination leads, links followed. What has to be a directory is made.
fn target(layer: &mut Layer<'_>, destination: &Destination) -> Result<Vec<u8>, CopyError> {
    let directory = if destination.is_directory { &destination.path } else { split(&destination.path).0 };
    let directory = follow(layer, directory)?;
    layer.make_directories(&directory)?;
    Ok(follow(layer, &destination.path)?)
}

fn follow(layer: &Layer<'_>, path: &[u8]) -> Result<Vec<u8>, TreeError> {
    Ok(resolve(|path| layer.kind(path), path, true)?.path)
}

/// Something that is no directory replaces anything but a directory.
fn check_no_directory(layer: &Layer<'_>, path: &[u8]) -> Result<(), CopyError> {
    if layer.kind(path)? == Some(Kind::Directory) { Err(CopyError::ToDirectory(shown(path))) } else { Ok(()) }
}

/// What the instruction says of all that it copies.
#[derive(Debug, Clone)]
pub(super) struct Dress {
    owner: Option<(u32, u32)>,
    mode: Option<FileMode>,
}

impl Dress {
    pub(super) fn dressed(&self, mut node: Node) -> Node {
        if let Some(owner) = self.owner {
            (node.uid, node.gid) = owner;
        }
        if let Some(change) = &self.mode
            && !matches!(node.kind, NodeKind::Link(_))
        {
            node.mode = mode::changed(node.mode, matches!(node.kind, NodeKind::Directory), change);
        }
        node
    }
}
