//! Where a path leads within a tree: links are followed as if the tree's root were `/`, and none leads out.

use super::{Kind, TreeError, join, shown, split};

/// How many links are followed on one path: as many as the kernel does (path_resolution(7)).
pub(crate) const LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Clean, through no link; where it would be if nothing is there.
    pub path: Vec<u8>,
    /// What is there. Of a path through what is no directory: nothing.
    pub kind: Option<Kind>,
}

/// Follows a path, its last component only if `follow_last`. What is missing is taken as its name says.
pub fn resolve(
    look: impl Fn(&[u8]) -> Result<Option<Kind>, TreeError>,
    path: &[u8],
    follow_last: bool,
) -> Result<Resolved, TreeError> {
    let mut here = Vec::new();
    let mut kind = Some(Kind::Directory);
    // The last component first.
    let mut rest: Vec<Vec<u8>> = components(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == b".." {
            here.truncate(split(&here).0.len());
            kind = look(&here)?;
            continue;
        }
        let next = join(&here, &name);
        // Below what is missing or no directory there is nothing to look for.
        let found = if kind == Some(Kind::Directory) { look(&next)? } else { None };
        match found {
            Some(Kind::Link(target)) if follow_last || !rest.is_empty() => {
                links += 1;
                if links > LINKS {
                    return Err(TreeError::Circle(shown(path)));
                }
                if target.starts_with(b"/") {
                    here.clear();
                    kind = Some(Kind::Directory);
                }
                rest.extend(components(&target));
            }
            found => (here, kind) = (next, found),
        }
    }
    Ok(Resolved { path: here, kind })
}

/// The names of a path, the last first.
pub(crate) fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.rev().map(<[u8]>::to_vec).collect()
}
