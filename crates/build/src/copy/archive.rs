//! ADD unpacks archives: plain tar, or compressed with gzip, bzip2, xz or zstd, by what is in them and not by their names.
//!
//! What an archive names replaces what the image has, a directory what is no directory and the other way round; what it
//! only implies goes through the links of the image, which lead nowhere but below the destination.

use super::layer::Layer;
use super::{CopyError, Placing};
use crate::context::{self, Context, ContextError, Owners};
use crate::tree::{Content, Kind, Node, NodeKind, Tree, TreeError, join, resolve, shown};

/// Whether a file is one.
pub(super) fn is_archive(content: &Content, name: &[u8]) -> Result<bool, CopyError> {
    let is_archive = content.open().and_then(context::is_archive);
    is_archive.map_err(|error| TreeError::read(name)(error).into())
}

/// Puts all that is in an archive below a directory of the layer's.
pub(super) fn unpack(
    layer: &mut Layer<'_>,
    content: &Content,
    name: &[u8],
    base: &[u8],
    placing: &Placing<'_>,
    source: usize,
) -> Result<(), CopyError> {
    let failed = |source: ContextError| CopyError::Archive { path: shown(name), source };
    let opened = content.open().map_err(TreeError::read(name))?;
    let spool = (placing.spool)().map_err(CopyError::Spool)?;
    let archive = Context::read_with(opened, spool, Owners::Kept).map_err(failed)?;
    let dressed = |mut node: Node| {
        if let Some(owner) = placing.owner {
            (node.uid, node.gid) = owner;
        }
        node
    };
    if !archive.is_implied(b"")
        && let Some(node) = archive.node(b"")?
    {
        layer.put(base, dressed(node), source)?;
    }
    // Paths in the archive, and where they are in the layer.
    let mut stack = vec![(Vec::new(), base.to_vec())];
    while let Some((directory, target)) = stack.pop() {
        for name in archive.names(&directory)? {
            let (path, target) = (join(&directory, &name), join(&target, &name));
            let Some(node) = archive.node(&path)? else { continue };
            if !matches!(node.kind, NodeKind::Directory) {
                layer.put(&target, dressed(node), source)?;
                continue;
            }
            let target = if archive.is_implied(&path) {
                implied(layer, base, &target)?
            } else {
                layer.put(&target, dressed(node), source)?;
                target
            };
            stack.push((path, target));
        }
    }
    Ok(())
}

/// Where a directory is that an archive does not name, made if it is missing.
fn implied(layer: &mut Layer<'_>, base: &[u8], target: &[u8]) -> Result<Vec<u8>, CopyError> {
    let below = target.strip_prefix(base).unwrap_or(target);
    let found = resolve(|path| layer.kind(&join(base, path)), below, true)?;
    let target = join(base, &found.path);
    match found.kind {
        Some(Kind::Directory) => {}
        Some(_) => return Err(CopyError::NoDirectory(shown(&target))),
        None => layer.make_directories(&target)?,
    }
    Ok(target)
}
