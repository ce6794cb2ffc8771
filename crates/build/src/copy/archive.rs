//! ADD unpacks archives: plain tar, or compressed with gzip, bzip2, xz or zstd, by what is in them and not by their names.
//!
//! What an archive names replaces what the image has, a directory what is no directory and the other way round; what it
//! only implies goes through the links of the image, which lead nowhere but below the destination.

use super::layer::Layer;
use super::{CopyError, Placing};
use crate::context::{self, Context, ContextError, Owners};
use crate::tree::{Content, Kind, NodeKind, Tree, TreeError, join, resolve, shown};

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
    // What the archive says of `.` is passed over, and `--chown` is about the destination alone, as with BuildKit: within it
    // things are the archive's.
    // Paths in the archive, and where they are in the layer.
    let mut stack = vec![(Vec::new(), base.to_vec())];
    while let Some((directory, target)) = stack.pop() {
        for name in archive.names(&directory)? {
            let (path, target) = (join(&directory, &name), join(&target, &name));
            let Some(node) = archive.node(&path)? else { continue };
            if !matches!(node.kind, NodeKind::Directory) {
                layer.put(&target, node, source)?;
                continue;
            }
            let target = if archive.is_implied(&path) {
                implied(layer, base, &target)?
            } else {
                layer.put(&target, node, source)?;
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

#[cfg(test)]
mod tests {
    use crate::copy::{Sources, plan};
    use crate::operation::{Add, Copy, Origin, Source};
    use crate::tree::{Node, PlainTree};

    use super::*;

    #[test]
    fn the_destination_is_not_the_archives() {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind) in [("./", tar::EntryType::Directory), ("./a", tar::EntryType::Regular)] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o700);
            header.set_uid(5);
            header.set_gid(6);
            header.set_size(0);
            archive.append_data(&mut header, path, std::io::empty()).unwrap();
        }
        let archive = Node { kind: NodeKind::file(&archive.into_inner().unwrap()), ..Node::directory((0, 0)) };
        let (origin, destination) = (PlainTree::empty().with(b"a.tar", archive), PlainTree::empty());
        let operation = Copy {
            origin: Origin::Context,
            sources: vec![Source::Path("a.tar".to_owned())],
            destination: "/to/".to_owned(),
            owner: None,
            mode: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            add: Some(Add { checksum: None, keep_git_directory: false, unpack: None }),
        };
        let (owner, spool) = (Some((7, 8)), &tempfile::tempfile);
        let placing = Placing { destination: &destination, owner, made_at: (7, 0), spool };
        let made = plan(&operation, &Sources { origin: &origin, fetched: &[] }, &placing).unwrap().entries;
        let made: Vec<_> = made.iter().map(|it| (it.path.as_slice(), it.node.uid, it.node.mode)).collect();
        assert_eq!(made, [(&b"to"[..], 7, 0o755), (b"to/a", 5, 0o700)]);
    }
}
