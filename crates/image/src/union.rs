//! What an overlay of several directories shows, read without a mount: the layers of a container, and above them what
//! it has written. An overlay's upper directory must not be mounted a second time, and what is mounted in the
//! container does not stand in the way here.
//!
//! The rules are the kernel's (Documentation/filesystems/overlayfs.rst, "Directories" and "whiteouts and opaque
//! directories"): the topmost of a name is what is seen; directories are merged with those below them down to one that
//! is opaque, or to something else of that name; a character device 0:0 hides the name.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::tree;

/// Directories as an overlay stacks them, top first. The topmost may change while it is read.
pub(crate) struct Union(Vec<OwnedFd>);

/// Where in the union something is found: the numbers of layers, topmost first. What is no directory is in one.
pub(crate) type Layers = Rc<[u16]>;

/// What is known of one name while the layers are gone through from the top.
struct Seen {
    layers: Vec<u16>,
    /// Nothing below adds to it: it is no directory, hidden, or opaque.
    is_whole: bool,
}

impl Union {
    pub(crate) fn open<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<Self, (&'a Path, Errno)> {
        let open = |path: &'a Path| tree::open_root(path).map_err(|error| (path, error));
        paths.into_iter().map(open).collect::<Result<Vec<_>, _>>().map(Self)
    }

    /// All layers: where the union's own root is found.
    pub(crate) fn everywhere(&self) -> Layers {
        (0..).take(self.0.len()).collect()
    }

    pub(crate) fn layer(&self, number: u16) -> BorrowedFd<'_> {
        self.0[usize::from(number)].as_fd()
    }

    /// The names in a directory that is found in these layers, sorted, and where each of them is. A directory that has
    /// gone away meanwhile has none.
    pub(crate) fn list(&self, path: &[u8], layers: &[u16]) -> Result<Vec<(Vec<u8>, Layers)>, Errno> {
        let mut seen: BTreeMap<Vec<u8>, Seen> = BTreeMap::new();
        for number in layers {
            let directory = match tree::open_no_links(self.layer(*number), path, tree::DIRECTORY) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                directory => directory?,
            };
            for name in tree::names(directory.as_fd())? {
                let found = seen.get(&name);
                if found.is_some_and(|found| found.is_whole) {
                    continue;
                }
                let Some(stat) = tree::stat(directory.as_fd(), &name)? else { continue };
                let is_directory = tree::file_type(&stat) == FileType::Directory;
                let is_first = found.is_none();
                let is_whole = !is_directory || is_opaque(directory.as_fd(), &name)?;
                let found = seen.entry(name).or_insert_with(|| Seen { layers: Vec::new(), is_whole: false });
                found.is_whole = is_whole;
                // Below a directory, anything else only ends it.
                if is_directory || (is_first && !tree::is_whiteout(&stat)) {
                    found.layers.push(*number);
                }
            }
        }
        let shown = seen.into_iter().filter(|(_, found)| !found.layers.is_empty());
        Ok(shown.map(|(name, found)| (name, found.layers.into())).collect())
    }
}

fn is_opaque(directory: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
    const MARK: &CStr = tree::OPAQUE;
    let mut value = [0; 2];
    match rustix::fs::lgetxattr(tree::proc_path(directory, name), MARK, &mut value) {
        Ok(length) => Ok(value[..length] == *b"y"),
        // No such mark, another one ("x": whiteouts of a newer kind, which we make none of), or no directory any more.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
