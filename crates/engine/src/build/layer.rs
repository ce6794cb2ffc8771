//! Layers that are made without a container: of files that are copied, and of a directory.

use std::io::Read;

use dozen_build::copy::{self, CopyError, Entry};
use dozen_build::operation::MakeDirectory;
use dozen_build::tree::{Kind, NodeKind, resolve};
use dozen_image::{LayerEntry, LayerEntryKind, LayerWriter, NewLayer};
use dozen_model::Digest;

use super::failure::StepError;
use super::job::Job;
use crate::EngineError;

/// Writes what a COPY has decided. Blocks.
pub(super) fn of_entries(
    job: &Job,
    mut entries: impl Iterator<Item = Result<Entry, CopyError>>,
) -> Result<NewLayer, StepError> {
    job.shared.images.write_layer(job.latest_s(), |writer| entries.try_for_each(|entry| write(writer, &entry?)))
}

fn write(writer: &mut LayerWriter<'_>, entry: &Entry) -> Result<(), StepError> {
    let nothing = std::io::empty;
    let node = &entry.node;
    let mut content: Box<dyn Read> = Box::new(nothing());
    let kind = match (&entry.hard_link, &node.kind) {
        (Some(earlier), _) => LayerEntryKind::HardLink(earlier),
        (None, NodeKind::Directory) => LayerEntryKind::Directory,
        (None, NodeKind::Link(target)) => LayerEntryKind::Link(target),
        (None, NodeKind::Pipe) => LayerEntryKind::Pipe,
        (None, NodeKind::CharacterDevice(major, minor)) => LayerEntryKind::CharacterDevice(*major, *minor),
        (None, NodeKind::BlockDevice(major, minor)) => LayerEntryKind::BlockDevice(*major, *minor),
        (None, NodeKind::File { size, content: data, .. }) => {
            let path = || String::from_utf8_lossy(&entry.path).into_owned();
            let opened = data.open().map_err(EngineError::system(|| format!("read what becomes /{}", path())))?;
            content = Box::new(opened);
            LayerEntryKind::File(*size)
        }
    };
    let (mode, uid, gid, mtime) = (node.mode, node.uid, node.gid, node.mtime);
    let written = LayerEntry { path: &entry.path, kind, mode, uid, gid, mtime, attributes: node.attributes.clone() };
    Ok(writer.entry(&written, content)?)
}

/// The directory and those above it that are missing; `None`: it is there. Blocks.
pub(super) fn of_directory(job: &Job, wanted: &MakeDirectory, below: &[Digest]) -> Result<Option<NewLayer>, StepError> {
    let seen = job.root_of(below)?;
    let root = seen.tree();
    let found = resolve(|path| root.kind(path), wanted.path.as_bytes(), true)?;
    match found.kind {
        Some(Kind::Directory) => return Ok(None),
        Some(_) => return Err(StepError::said(format!("mkdir {}: not a directory", wanted.path))),
        None => {}
    }
    let owner = if wanted.user.is_empty() { (0, 0) } else { seen.owner(&wanted.user)? };
    let entries = copy::directories(root, &found.path, owner, job.now())?;
    of_entries(job, entries.into_iter().map(Ok)).map(Some)
}
