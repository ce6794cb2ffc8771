//! A selection comes into an image.

use super::layer::Layer;
use super::select::{Destination, Picked, Selection, Taken};
use super::{CopyError, Entry, Placing, archive, mode};
use crate::tree::{Kind, Node, NodeKind, PlainTree, TreeError, join, resolve, shown, split};

impl Selection {
    /// What the layer holds then.
    pub fn into_entries(self, placing: &Placing<'_>) -> Result<Vec<Entry>, CopyError> {
        let empty = PlainTree::empty();
        let below = if self.destination.is_linked { &empty } else { placing.destination };
        let mut layer = Layer::new(below, placing.owner, placing.made_at);
        let several = self.picked.len() > 1;
        let is_directory = |node: &Node| matches!(node.kind, NodeKind::Directory);
        let dressed = |mut node: Node| {
            if let Some(owner) = placing.owner {
                (node.uid, node.gid) = owner;
            }
            if let Some(change) = &self.mode
                && !matches!(node.kind, NodeKind::Link(_))
            {
                node.mode = mode::changed(node.mode, is_directory(&node), change);
            }
            node
        };
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
                    file(&mut layer, &target, dressed(node), source)?;
                }
                Taken::Contents { items, mtime } => {
                    let target = target(&mut layer, &self.destination)?;
                    match layer.kind(&target)? {
                        Some(Kind::Directory) => {}
                        None => layer.make_directories(&target)?,
                        Some(_) => return Err(CopyError::ToNonDirectory(shown(&target))),
                    }
                    for item in items {
                        let path = join(&target, &item.path);
                        if !is_directory(&item.node) {
                            file(&mut layer, &path, dressed(item.node), source)?;
                            continue;
                        }
                        let mut node = dressed(item.node);
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
fn file(layer: &mut Layer<'_>, path: &[u8], node: Node, source: usize) -> Result<(), CopyError> {
    if layer.kind(path)? == Some(Kind::Directory) {
        return Err(CopyError::ToDirectory(shown(path)));
    }
    layer.put(path, node, source)
}
