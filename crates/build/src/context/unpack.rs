//! A part of a context made into files, for what mounts it. The directory that it is made in is ours alone, and each name
//! is made new: no link of the context's is ever gone through.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use dozen_image::beneath;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::{Context, ContextError};
use crate::tree::{Content, Node, NodeKind, Tree, join, shown};

/// Makes what stands at a clean path as `name`.
pub(super) fn unpack(context: &Context, path: &[u8], into: BorrowedFd<'_>, name: &[u8]) -> Result<(), ContextError> {
    let failed = |path: &[u8]| {
        let path = shown(path);
        move |source: io::Error| ContextError::Unpack { path, source }
    };
    let mut linked: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    // A directory twice: before what is in it, and after, when its time is not changed any more.
    let mut stack = vec![(path.to_vec(), name.to_vec(), false)];
    while let Some((path, target, is_filled)) = stack.pop() {
        let Some(node) = context.node(&path)? else { continue };
        let (above, last) = beneath::split(&target);
        let parent = beneath::open_no_links(into, above, beneath::DIRECTORY);
        let parent = parent.map_err(io::Error::from).map_err(failed(&path))?;
        if let NodeKind::Directory = node.kind {
            if is_filled {
                let made = beneath::open_no_links(parent.as_fd(), last, beneath::DIRECTORY).map_err(io::Error::from);
                made.and_then(|made| dress(made.as_fd(), &node)).map_err(failed(&path))?;
                continue;
            }
            let made = rustix::fs::mkdirat(&parent, last, Mode::RWXU).map_err(io::Error::from);
            made.map_err(failed(&path))?;
            let names = context.names(&path)?;
            stack.push((path.clone(), target.clone(), true));
            stack.extend(names.into_iter().map(|name| (join(&path, &name), join(&target, &name), false)));
            continue;
        }
        let first = node.identity.and_then(|identity| linked.get(&identity));
        let made = match first {
            Some(first) => link(into, first, parent.as_fd(), last),
            None => make(&node, &parent, last),
        };
        made.map_err(failed(&path))?;
        if let Some(identity) = node.identity {
            linked.entry(identity).or_insert(target);
        }
    }
    Ok(())
}

fn link(into: BorrowedFd<'_>, first: &[u8], parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let (above, last) = beneath::split(first);
    let above = beneath::open_no_links(into, above, beneath::DIRECTORY)?;
    Ok(rustix::fs::linkat(&above, last, parent, name, AtFlags::empty())?)
}

fn make(node: &Node, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let special =
        |kind, (major, minor)| rustix::fs::mknodat(parent, name, kind, Mode::RUSR, rustix::fs::makedev(major, minor));
    match &node.kind {
        NodeKind::File { content, .. } => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
            let file = write(content, file.into())?;
            return dress(file.as_fd(), node);
        }
        NodeKind::Link(target) => rustix::fs::symlinkat(target.as_slice(), parent, name)?,
        NodeKind::Pipe => special(FileType::Fifo, (0, 0))?,
        NodeKind::CharacterDevice(major, minor) => special(FileType::CharacterDevice, (*major, *minor))?,
        NodeKind::BlockDevice(major, minor) => special(FileType::BlockDevice, (*major, *minor))?,
        NodeKind::Directory => {}
    }
    let (owner, group) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    rustix::fs::chownat(parent, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    if !matches!(node.kind, NodeKind::Link(_)) {
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(node.mode), AtFlags::empty())?;
    }
    for (key, value) in &node.attributes {
        beneath::set_xattr_of_special(parent.as_fd(), name, key, value)?;
    }
    Ok(rustix::fs::utimensat(parent, name, &times(node.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// What is nothing but zeros becomes a hole: sparse files stay so.
fn write(content: &Content, file: File) -> io::Result<File> {
    let mut content = content.open()?;
    let mut buffer = vec![0; 128 * 1024];
    let mut at = 0;
    loop {
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                if buffer[..read].iter().any(|byte| *byte != 0) {
                    file.write_all_at(&buffer[..read], at)?;
                }
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    file.set_len(at)?;
    Ok(file)
}

/// Owner before mode: chown(2) takes setuid bits and capabilities away.
fn dress(made: BorrowedFd<'_>, node: &Node) -> io::Result<()> {
    rustix::fs::fchown(made, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)))?;
    rustix::fs::fchmod(made, Mode::from_raw_mode(node.mode))?;
    for (key, value) in &node.attributes {
        beneath::set_xattr(made, key, value)?;
    }
    Ok(rustix::fs::futimens(made, &times(node.mtime))?)
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: i64::from(mtime.1) as _ };
    Timestamps { last_access: time, last_modification: time }
}
