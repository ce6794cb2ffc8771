//! The names of a context: inodes, and directories that give them names. A million of them have to fit in memory.

use std::collections::BTreeMap;

use dozen_dockerfile::ignore::IgnoreFile;
use dozen_image::beneath::PATH_LIMIT;

use crate::tree::{self, LINKS, components, join, split};

/// Which inode.
pub(super) type Number = u32;

const ROOT: Number = 0;

/// Something that has a name, or several.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) what: What,
    pub(super) looks: Looks,
    /// How many names it has.
    pub(super) names: u32,
}

/// All that is not about what it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Looks {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    /// Rarely any.
    pub(super) attributes: Option<Box<[Attribute]>>,
}

/// Name and value.
pub(super) type Attribute = (Vec<u8>, Vec<u8>);

#[derive(Debug, Clone)]
pub(super) enum What {
    Directory(Directory),
    /// A part of the spool, and its SHA-256.
    File {
        offset: u64,
        size: u64,
        digest: [u8; 32],
    },
    Link(Box<[u8]>),
    Pipe,
    CharacterDevice(u32, u32),
    BlockDevice(u32, u32),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    below: BTreeMap<Box<[u8]>, Number>,
    /// No entry names it: it is there because something is in it.
    is_implied: bool,
}

/// Why a name cannot be given.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// With the name that it would have.
    Because(&'static str),
    /// There would be too many.
    TooMany,
    /// Their paths would be too long together.
    TooLong,
}

const NOT_A_DIRECTORY: Refusal = Refusal::Because("what its path goes through is no directory");

/// Bytes of all paths from the root, links followed: what it takes to copy them.
const PATHS: usize = 256 << 20;
/// Names that are looked up on the way to all entries: links make long ways of short names.
const STEPS: usize = 1 << 28;

/// All inodes. The first is the root.
#[derive(Debug, Clone)]
pub(super) struct Index {
    inodes: Vec<Inode>,
    /// The directory of the entry before, as the archive calls it: archives come sorted.
    last: Option<(Vec<u8>, Found)>,
    path_bytes: usize,
    steps: usize,
    limit: usize,
}

/// A directory, and how long its path is.
#[derive(Debug, Clone, Copy)]
struct Found {
    number: Number,
    path_bytes: usize,
}

impl Default for Index {
    fn default() -> Self {
        let looks = Looks { mode: 0o755, ..Looks::default() };
        let root =
            Inode { what: What::Directory(Directory { is_implied: true, ..Directory::default() }), looks, names: 1 };
        Self { inodes: vec![root], last: None, path_bytes: 0, steps: 0, limit: super::read::ENTRIES }
    }
}

impl Index {
    #[cfg(test)]
    pub(super) fn with_limit(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn inode(&self, number: Number) -> &Inode {
        &self.inodes[number as usize]
    }

    pub(super) fn count(&self) -> usize {
        let mut count = 0;
        let mut stack = vec![ROOT];
        while let Some(number) = stack.pop() {
            let Some(directory) = self.directory(number) else { continue };
            count += directory.below.len();
            stack.extend(directory.below.values());
        }
        count
    }

    pub(super) fn is_implied(&self, number: Number) -> bool {
        self.directory(number).is_some_and(|directory| directory.is_implied)
    }

    /// By a clean path that goes through no link.
    pub(super) fn find(&self, path: &[u8]) -> Option<Number> {
        let mut here = ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            here = *self.directory(here)?.below.get(name)?;
        }
        Some(here)
    }

    pub(super) fn names(&self, number: Number) -> Vec<Vec<u8>> {
        self.directory(number)
            .map_or_else(Vec::new, |directory| directory.below.keys().map(|name| name.to_vec()).collect())
    }

    fn directory(&self, number: Number) -> Option<&Directory> {
        match &self.inode(number).what {
            What::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    fn directory_mut(&mut self, number: Number) -> Option<&mut Directory> {
        match &mut self.inodes[number as usize].what {
            What::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Puts something at a path of the archive's. A directory takes over what another of its name holds; anything else
    /// replaces what stands there.
    pub(super) fn put(&mut self, path: &[u8], what: What, looks: Looks) -> Result<(), Refusal> {
        if path.is_empty() {
            let What::Directory(_) = what else { return Err(Refusal::Because("only a directory can be the root")) };
            self.inodes[ROOT as usize].looks = looks;
            self.name_directory(ROOT);
            return Ok(());
        }
        let (above, name) = split(path);
        let above = self.parent(above, name, looks.mtime)?;
        if let What::Directory(_) = what
            && let Some(standing) = self.directory(above).and_then(|above| above.below.get(name)).copied()
            && self.directory(standing).is_some()
        {
            self.inodes[standing as usize].looks = looks;
            self.name_directory(standing);
            return Ok(());
        }
        let number = self.add(Inode { what, looks, names: 1 })?;
        self.give(above, name, number);
        Ok(())
    }

    /// Gives what stands at a path another name.
    pub(super) fn link(&mut self, path: &[u8], target: &[u8], mtime: (i64, u32)) -> Result<(), Refusal> {
        const MISSING: Refusal = Refusal::Because("the target of the hard link is not in this archive");
        let (above, name) = split(path);
        if name.is_empty() {
            return Err(Refusal::Because("only a directory can be the root"));
        }
        let (target_above, target_name) = split(target);
        let found = self.walk(target_above, None).map_err(|refusal| match refusal {
            NOT_A_DIRECTORY => MISSING,
            refusal => refusal,
        })?;
        let directory = self.directory(found.number).ok_or(MISSING)?;
        let number = *directory.below.get(target_name).ok_or(MISSING)?;
        if self.directory(number).is_some() {
            return Err(Refusal::Because("a directory cannot have a hard link"));
        }
        let above = self.parent(above, name, mtime)?;
        if self.directory(above).and_then(|above| above.below.get(name)) == Some(&number) {
            return Ok(());
        }
        // Counted as a name too: names are what a context is bounded by.
        self.inodes[number as usize].names += 1;
        self.give(above, name, number);
        Ok(())
    }

    fn give(&mut self, above: Number, name: &[u8], number: Number) {
        let Some(directory) = self.directory_mut(above) else { return };
        let Some(standing) = directory.below.insert(name.into(), number) else { return };
        // What was found by way of it may now be elsewhere.
        self.last = None;
        self.inodes[standing as usize].names -= 1;
        self.forget(standing);
    }

    /// Takes what nobody names any more out of memory, as far as that is easy: the number stays taken.
    fn forget(&mut self, number: Number) {
        let mut stack = vec![number];
        while let Some(number) = stack.pop() {
            let inode = &mut self.inodes[number as usize];
            if inode.names > 0 {
                continue;
            }
            inode.looks = Looks::default();
            if let What::Directory(directory) = std::mem::replace(&mut inode.what, What::Pipe) {
                for below in directory.below.into_values() {
                    self.inodes[below as usize].names -= 1;
                    stack.push(below);
                }
            }
        }
    }

    fn name_directory(&mut self, number: Number) {
        if let Some(directory) = self.directory_mut(number) {
            directory.is_implied = false;
        }
    }

    /// The directory that an entry belongs in, links followed; what is missing of it is made.
    fn parent(&mut self, path: &[u8], name: &[u8], mtime: (i64, u32)) -> Result<Number, Refusal> {
        let found = match &self.last {
            Some((last, found)) if last == path => *found,
            _ => self.walk(path, Some(mtime))?,
        };
        self.last = Some((path.to_vec(), found));
        self.lengthen(found.path_bytes + 1 + name.len())?;
        Ok(found.number)
    }

    fn lengthen(&mut self, path_bytes: usize) -> Result<(), Refusal> {
        // The slash in front is not counted.
        if path_bytes > PATH_LIMIT + 1 {
            return Err(Refusal::Because("its path is longer than 4095 bytes"));
        }
        self.path_bytes += path_bytes;
        if self.path_bytes > PATHS { Err(Refusal::TooLong) } else { Ok(()) }
    }

    /// Goes from the root to a directory, as if the root were `/`. With a time, what is missing is made.
    fn walk(&mut self, path: &[u8], make: Option<(i64, u32)>) -> Result<Found, Refusal> {
        // From the root to where it stands, and what is still to go, the next name last.
        let mut here = vec![Found { number: ROOT, path_bytes: 0 }];
        let mut rest = components(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            self.steps += 1;
            if self.steps > STEPS {
                return Err(Refusal::TooLong);
            }
            if name == b".." {
                here.truncate(here.len().max(2) - 1);
                continue;
            }
            let above = *here.last().ok_or(NOT_A_DIRECTORY)?;
            let found = self.directory(above.number).ok_or(NOT_A_DIRECTORY)?.below.get(&*name).copied();
            let path_bytes = above.path_bytes + 1 + name.len();
            let number = match (found, make) {
                (Some(number), _) => number,
                (None, None) => return Err(NOT_A_DIRECTORY),
                (None, Some(mtime)) => {
                    self.lengthen(path_bytes)?;
                    let looks = Looks { mode: 0o755, mtime, ..Looks::default() };
                    let what = What::Directory(Directory { is_implied: true, ..Directory::default() });
                    let number = self.add(Inode { what, looks, names: 1 })?;
                    self.give(above.number, &name, number);
                    number
                }
            };
            match &self.inode(number).what {
                What::Directory(_) => here.push(Found { number, path_bytes }),
                What::Link(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Refusal::Because("the links on its path lead in circles"));
                    }
                    if target.starts_with(b"/") {
                        here.truncate(1);
                    }
                    rest.extend(components(target));
                }
                _ => return Err(NOT_A_DIRECTORY),
            }
        }
        here.last().copied().ok_or(NOT_A_DIRECTORY)
    }

    fn add(&mut self, inode: Inode) -> Result<Number, Refusal> {
        if self.inodes.len() > self.limit {
            return Err(Refusal::TooMany);
        }
        let number = Number::try_from(self.inodes.len()).map_err(|_| Refusal::TooMany)?;
        self.inodes.push(inode);
        Ok(number)
    }

    /// What an ignore file leaves. A directory that is left out stays where something below it does.
    pub(super) fn ignoring(&self, ignore: &IgnoreFile) -> Self {
        self.part(ROOT, ignore)
    }

    /// What is in a directory, which is the root then.
    pub(super) fn below(&self, directory: Number) -> Self {
        self.part(directory, &IgnoreFile::default())
    }

    /// Only from the root anything may be left out.
    fn part(&self, root: Number, ignore: &IgnoreFile) -> Self {
        let mut kept = Self::default();
        kept.copy(self, b"", root);
        // The first names of what has several.
        let mut linked: BTreeMap<Number, Vec<u8>> = BTreeMap::new();
        let mut stack = vec![(Vec::new(), root)];
        while let Some((above, number)) = stack.pop() {
            let below = self.directory(number).map(|directory| &directory.below);
            let mut is_forced = kept.find(&above).is_none();
            for (name, number) in below.into_iter().flatten() {
                let path = join(&above, name);
                let text = String::from_utf8_lossy(&path);
                let is_out = ignore.leaves_out(&text);
                if self.directory(*number).is_some() && (!is_out || ignore.may_see_below(&text)) {
                    stack.push((path.clone(), *number));
                }
                if is_out {
                    continue;
                }
                // Directories that were left out, and come for what is in them.
                if is_forced {
                    for directory in tree::above(&path) {
                        if let Some(number) = self.find(directory).filter(|_| kept.find(directory).is_none()) {
                            kept.copy(self, directory, number);
                        }
                    }
                    is_forced = false;
                }
                match linked.get(number) {
                    Some(first) => drop(kept.link(&path, first, (0, 0))),
                    None => kept.copy(self, &path, *number),
                }
                if self.inode(*number).names > 1 {
                    linked.entry(*number).or_insert(path);
                }
            }
        }
        kept
    }

    /// Takes over one thing of another index, a directory without what it holds.
    fn copy(&mut self, other: &Self, path: &[u8], number: Number) {
        let Inode { what, looks, .. } = other.inode(number);
        let what = match what {
            What::Directory(directory) => {
                What::Directory(Directory { is_implied: directory.is_implied, ..Directory::default() })
            }
            what => what.clone(),
        };
        // What stood within the bounds once stands within them again.
        let put = self.put(path, what, looks.clone());
        debug_assert!(put.is_ok(), "{put:?}");
    }
}
