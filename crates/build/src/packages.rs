//! Which packages are in an image, by what their managers have written down: dpkg and apk in their databases, Python and
//! Node beside each package. An image may come from anyone, so all of it is read with limits, and what cannot be read is
//! no package.
//!
//! A list that leaves something out without a word is worse than none: an image that goes beyond a limit is refused.

mod alpine;
mod debian;
mod fields;
mod node;
mod purl;
mod python;
mod release;

use std::collections::BTreeSet;

pub(crate) use self::purl::encoded;
pub use self::release::Release;
use crate::tree::{Kind, LiveTree, Tree, TreeError, join};

/// Of one database.
const DATABASE_LIMIT_BYTES: u64 = 128 << 20;
/// Of what is said of one package alone: its name and version come first.
const NOTE_LIMIT_BYTES: u64 = 1 << 20;
/// Of one word about a package: names and versions have some dozens.
const WORD_LIMIT_BYTES: usize = 1024;
const MOST_PACKAGES: usize = 200_000;
/// Files and directories of an image; the largest that people use have a tenth of it.
const MOST_FILES: usize = 5_000_000;
/// Longer ones the kernel does not look up at once (`PATH_MAX`, with its null byte).
const PATH_LIMIT_BYTES: usize = 4095;

/// Who has brought a package in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manager {
    /// dpkg.
    Debian,
    /// apk.
    Alpine,
    /// pip and its like.
    Python,
    /// npm and its like.
    Node,
}

/// A package that an image has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Who has brought it in.
    pub manager: Manager,
    /// Its name, as that one calls it.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is for, as that one calls it.
    pub architecture: Option<String>,
    /// What it was made from, if that has another name or version: a source package, and its version if it is said.
    pub source: Option<(String, Option<String>)>,
    /// Its licence, in the packagers' words.
    pub license: Option<String>,
    /// The file that says so, from the root.
    pub found_in: String,
}

/// All packages of an image, each once, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Which system it is.
    pub release: Release,
    /// See there.
    pub packages: Vec<Package>,
}

/// They cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The files cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// There is more than anyone has.
    #[error("the image has more than {0}: its packages cannot be listed")]
    TooMuch(String),
}

/// Files of an image, as far as they have to be read here.
pub trait Root {
    /// What stands where.
    fn tree(&self) -> &dyn Tree;
    /// What a file holds, and no more of it than this; `None` if there is none.
    fn beginning(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, TreeError>;
}

impl Root for LiveTree {
    fn tree(&self) -> &dyn Tree {
        self
    }

    fn beginning(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, TreeError> {
        Self::beginning(self, path, limit_bytes)
    }
}

/// Looks through all of an image. Nothing is followed: what has a link in its path is seen where it is.
pub fn find(root: &dyn Root) -> Result<Inventory, InventoryError> {
    let mut found = BTreeSet::new();
    let mut files = 0;
    let mut left = vec![Vec::new()];
    while let Some(directory) = left.pop() {
        for name in root.tree().names(&directory)? {
            files += 1;
            if files > MOST_FILES {
                return Err(InventoryError::TooMuch(format!("{MOST_FILES} files")));
            }
            let path = join(&directory, &name);
            match root.tree().kind(&path)? {
                Some(Kind::Directory) if path.len() <= PATH_LIMIT_BYTES => left.push(path),
                Some(Kind::Directory) => {
                    return Err(InventoryError::TooMuch(format!("{PATH_LIMIT_BYTES} bytes in a path")));
                }
                Some(Kind::File) => {
                    let Some((path, notes)) = Notes::at(&path) else { continue };
                    let limit = notes.limit_bytes();
                    let Some(bytes) = root.beginning(path, limit + 1)? else { continue };
                    if notes.is_database() && bytes.len() as u64 > limit {
                        return Err(InventoryError::TooMuch(format!("{} MiB in /{path}", limit >> 20)));
                    }
                    notes.read(&bytes, path, &mut |package| {
                        found.insert(package);
                    });
                    if found.len() > MOST_PACKAGES {
                        return Err(InventoryError::TooMuch(format!("{MOST_PACKAGES} packages")));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(Inventory { release: release(root)?, packages: found.into_iter().collect() })
}

/// os-release(5): the first of two places.
fn release(root: &dyn Root) -> Result<Release, TreeError> {
    for path in ["etc/os-release", "usr/lib/os-release"] {
        if let Some(bytes) = root.beginning(path, NOTE_LIMIT_BYTES)? {
            return Ok(Release::parse(&bytes));
        }
    }
    Ok(Release::default())
}

/// What a file says of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notes {
    Debian,
    Alpine,
    Python,
    Node,
}

impl Notes {
    /// By its path.
    fn at(path: &[u8]) -> Option<(&str, Self)> {
        let text = std::str::from_utf8(path).ok()?;
        let kind = match text {
            "var/lib/dpkg/status" => Self::Debian,
            "lib/apk/db/installed" | "usr/lib/apk/db/installed" => Self::Alpine,
            _ => {
                let (above, name) = text.rsplit_once('/')?;
                let directory = above.rsplit('/').next()?;
                match name {
                    // Without a package manager in the image each package has a file of its own, and its sums.
                    _ if above == "var/lib/dpkg/status.d" && !name.ends_with(".md5sums") => Self::Debian,
                    "METADATA" if directory.ends_with(".dist-info") => Self::Python,
                    "PKG-INFO" if directory.ends_with(".egg-info") => Self::Python,
                    _ if name.ends_with(".egg-info") => Self::Python,
                    "package.json" if is_of_node(above) => Self::Node,
                    _ => return None,
                }
            }
        };
        Some((text, kind))
    }

    /// All packages are in one file; a part of it would be a part of them.
    fn is_database(self) -> bool {
        matches!(self, Self::Debian | Self::Alpine)
    }

    fn limit_bytes(self) -> u64 {
        if self.is_database() { DATABASE_LIMIT_BYTES } else { NOTE_LIMIT_BYTES }
    }

    fn read(self, bytes: &[u8], path: &str, found: &mut dyn FnMut(Package)) {
        let mut checked = |mut package: Package| {
            package.found_in = format!("/{path}");
            let words = [Some(&package.name), Some(&package.version), package.architecture.as_ref()];
            if words.into_iter().flatten().all(|word| is_word(word)) {
                package.license = package.license.filter(|license| is_word(license));
                let is_sound = |(name, version): &(String, Option<String>)| {
                    is_word(name) && version.as_deref().is_none_or(is_word)
                };
                package.source = package.source.filter(is_sound);
                found(package);
            }
        };
        match self {
            Self::Debian => debian::read(bytes, &mut checked),
            Self::Alpine => alpine::read(bytes, &mut checked),
            Self::Python => python::read(bytes).into_iter().for_each(checked),
            Self::Node => node::read(bytes).into_iter().for_each(checked),
        }
    }
}

/// Something that can be said of a package.
fn is_word(word: &str) -> bool {
    !word.is_empty() && word.len() <= WORD_LIMIT_BYTES && !word.chars().any(char::is_control)
}

/// `…/node_modules/NAME` or `…/node_modules/@SCOPE/NAME`: what lies deeper is a package's own.
fn is_of_node(directory: &str) -> bool {
    let mut above = directory.rsplit('/').skip(1);
    match above.next() {
        Some("node_modules") => true,
        Some(scope) if scope.starts_with('@') => above.next() == Some("node_modules"),
        _ => false,
    }
}

/// All that files of every kind say, for the fuzzers: whatever they hold, what comes of it is words.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_all(bytes: &[u8]) -> Vec<Package> {
    let mut found = Vec::new();
    for (notes, path) in [(Notes::Debian, "d"), (Notes::Alpine, "a"), (Notes::Python, "p"), (Notes::Node, "n")] {
        notes.read(bytes, path, &mut |package| found.push(package));
    }
    found
}

#[cfg(test)]
mod tests;
