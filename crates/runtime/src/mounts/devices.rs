//! /dev: nodes, links, and the console.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::places::make_entry;
use super::{RootTree, attach, clone_tree};
use crate::error::{Context, RuntimeError};
use crate::plan::Device;

/// linux/magic.h.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Where they point is part of the specification (runtime-linux.md, "Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

impl RootTree {
    /// `brought`: those that the parent has made.
    pub(super) fn make_devices(&self, devices: &[Device], brought: Vec<Option<OwnedFd>>) -> Result<(), RuntimeError> {
        // Permission bits are meant as they are written.
        let umask = rustix::process::umask(Mode::empty());
        // Most are in one directory.
        let mut last: Option<(&Path, OwnedFd)> = None;
        let mut brought = brought.into_iter();
        let result = devices.iter().try_for_each(|device| {
            if let Some(node) = brought.next().flatten() {
                return attach(&node, &self.make_no_link(&device.path)?);
            }
            let path = device.path.parent().unwrap_or(Path::new("/"));
            let parent = match last.take().filter(|(known, _)| *known == path) {
                Some((_, parent)) => parent,
                None => self.parent(&device.path)?.0,
            };
            let made = self.make_device(device, &parent);
            last = Some((path, parent));
            made
        });
        rustix::process::umask(umask);
        result
    }

    fn make_device(&self, device: &Device, parent: &OwnedFd) -> Result<(), RuntimeError> {
        let name = device.path.file_name().unwrap_or_default();
        let kind = FileType::from_raw_mode(device.mode);
        let mode = Mode::from_raw_mode(device.mode & 0o7777);
        let number = rustix::fs::makedev(device.major, device.minor);
        match rustix::fs::mknodat(parent, name, kind, mode, number) {
            Ok(()) => {}
            // Something of the image's or of a mount's is there: it stays if it is the same device.
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .context(|| format!("examine {}", device.path.display()))?;
                if FileType::from_raw_mode(there.st_mode) == kind && (kind == FileType::Fifo || there.st_rdev == number)
                {
                    return Ok(());
                }
                rustix::fs::unlinkat(parent, name, AtFlags::empty())
                    .and_then(|()| rustix::fs::mknodat(parent, name, kind, mode, number))
                    .context(|| format!("make device {}", device.path.display()))?;
            }
            // Without the right to make devices, as in a container that we may run in: the host's own, if it is it.
            Err(Errno::PERM) => return self.bind_device(device),
            Err(errno) => return Err(RuntimeError::system(format!("make device {}", device.path.display()), errno)),
        }
        if device.uid != 0 || device.gid != 0 {
            let owner = (Some(Uid::from_raw(device.uid)), Some(Gid::from_raw(device.gid)));
            rustix::fs::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
                .context(|| format!("change the owner of {}", device.path.display()))?;
        }
        Ok(())
    }

    fn bind_device(&self, device: &Device) -> Result<(), RuntimeError> {
        let context = || format!("bind the host's {}", device.path.display());
        let host = rustix::fs::open(&device.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(context)?;
        let status = rustix::fs::fstat(&host).context(context)?;
        // A block device of these numbers is another one than a character device.
        let same_kind = FileType::from_raw_mode(status.st_mode) == FileType::from_raw_mode(device.mode);
        if !same_kind || status.st_rdev != rustix::fs::makedev(device.major, device.minor) {
            return Err(RuntimeError::system(context(), Errno::NODEV));
        }
        let tree = clone_tree(&host, "".as_ref(), false).context(context)?;
        attach(&tree, &self.make_no_link(&device.path)?)
    }

    /// `has_kcore`: its procfs has the file that /dev/core is a link to.
    pub(super) fn link_dev(&self, has_kcore: bool) -> Result<(), RuntimeError> {
        let dev = self.make(Path::new("/dev"), true)?;
        for (name, target) in LINKS {
            match rustix::fs::symlinkat(target, &dev, name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(RuntimeError::system(format!("link /dev/{name} to {target}"), errno)),
            }
        }
        if has_kcore {
            match rustix::fs::symlinkat("/proc/kcore", &dev, "core") {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(RuntimeError::system("link /dev/core".to_owned(), errno)),
            }
        }
        Ok(())
    }

    /// The multiplexer of the container's own terminals; nothing else that lies at its path.
    pub(crate) fn open_terminals(&self) -> Result<OwnedFd, RuntimeError> {
        let context = || "open /dev/pts/ptmx in the root".to_owned();
        let pts = self.open(Path::new("/dev/pts"), OFlags::PATH | OFlags::DIRECTORY).context(context)?;
        open_multiplexer(&pts)
    }

    /// /dev/console is the container's terminal.
    pub(crate) fn bind_console(&self, terminal: &OwnedFd) -> Result<(), RuntimeError> {
        let tree = clone_tree(terminal, "".as_ref(), false).context(|| "clone the terminal's mount".to_owned())?;
        attach(&tree, &self.make_no_link(Path::new("/dev/console"))?)
    }

    /// Where it will be, for who binds it when /dev may be read-only already.
    pub(crate) fn make_console(&self) -> Result<(), RuntimeError> {
        self.make_no_link(Path::new("/dev/console")).map(drop)
    }

    /// A file in the root, made if it is missing. A link there would lead what is bound over another file
    /// (CVE-2025-52565).
    fn make_no_link(&self, path: &Path) -> Result<OwnedFd, RuntimeError> {
        let (parent, name) = self.parent(path)?;
        let context = || format!("make {} in the root", path.display());
        make_entry(&parent, name, false).context(context)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = rustix::fs::openat(&parent, name, flags, Mode::empty()).context(context)?;
        let status = rustix::fs::fstat(&place).context(context)?;
        if FileType::from_raw_mode(status.st_mode).is_symlink() {
            return Err(RuntimeError::Invalid(format!("{} in the root must not be a link", path.display())));
        }
        Ok(place)
    }
}

/// `ptmx` of a directory that must be a devpts.
pub(crate) fn open_multiplexer(pts: &OwnedFd) -> Result<OwnedFd, RuntimeError> {
    let status = rustix::fs::fstatfs(pts).context(|| "examine /dev/pts".to_owned())?;
    if status.f_type != DEVPTS_SUPER_MAGIC {
        return Err(RuntimeError::Invalid("a terminal needs a devpts on /dev/pts".to_owned()));
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(pts, "ptmx", flags, Mode::empty()).context(|| "open /dev/pts/ptmx in the root".to_owned())
}
