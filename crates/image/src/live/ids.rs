//! Owners in a tree that is a container's with users of its own: we see them from outside, an archive has them as the
//! container does.

use std::borrow::Cow;

use dozen_model::IdRange;
use rustix::fs::Stat;

use crate::tree::Xattrs;

/// What the kernel shows of an id that nobody in a user namespace has (user_namespaces(7), "Unmapped user and group IDs").
const NOBODY: u32 = 65534;

/// Of `security.capability` (linux/capability.h): the revision, and what it is without and with the root that it is for.
const REVISION_MASK: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const LENGTH_2: usize = 20;

/// Of an access control list (linux/posix_acl_xattr.h): a header, then entries with a tag, permissions and an id.
const LIST_HEADER: usize = 4;
const LIST_ENTRY: usize = 8;
const NAMED_USER: u16 = 2;
const NAMED_GROUP: u16 = 8;

/// A container's ids, or the host's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids(pub(super) Option<IdRange>);

impl Ids {
    /// As the container sees it.
    pub(super) fn inside(self, mut stat: Stat) -> Stat {
        if let Some(range) = self.0 {
            stat.st_uid = range.inside(stat.st_uid).unwrap_or(NOBODY);
            stat.st_gid = range.inside(stat.st_gid).unwrap_or(NOBODY);
        }
        stat
    }

    /// As the container sees them; what it does not see is left out.
    pub(super) fn attributes_inside(self, attributes: Xattrs) -> Xattrs {
        let Some(range) = self.0 else { return attributes };
        let inside = |id| range.inside(id);
        attributes.into_iter().filter_map(|(name, value)| Some((name.clone(), seen(&name, &value, inside)?))).collect()
    }

    /// On the host, whoever this is in the container; `None`: nobody.
    pub(super) fn outside(self, id: u32) -> Option<u32> {
        self.0.map_or(Some(id), |range| range.outside(id))
    }

    /// The value of an attribute as we have to set it; `None`: it names somebody who is not in the container.
    pub(super) fn attribute_outside<'a>(self, name: &[u8], value: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let Some(range) = self.0 else { return Some(Cow::Borrowed(value)) };
        if name == b"security.capability" && revision(value) == Some(REVISION_2) && value.len() == LENGTH_2 {
            // Those that its root gives.
            let mut own = (magic(value)? & !REVISION_MASK | REVISION_3).to_le_bytes().to_vec();
            own.extend(&value[4..]);
            own.extend(range.first().to_le_bytes());
            return Some(Cow::Owned(own));
        }
        seen(name, value, |id| range.outside(id)).map(Cow::Owned)
    }
}

/// The same value with other ids.
fn seen(name: &[u8], value: &[u8], other: impl Fn(u32) -> Option<u32>) -> Option<Vec<u8>> {
    match name {
        b"security.capability" if revision(value) == Some(REVISION_3) && value.len() == LENGTH_2 + 4 => {
            let root = other(u32::from_le_bytes(value[LENGTH_2..].try_into().ok()?))?;
            if root != 0 {
                return Some([&value[..LENGTH_2], &root.to_le_bytes()[..]].concat());
            }
            // Those of root itself are without it, as the kernel shows them.
            let mut plain = value[..LENGTH_2].to_vec();
            plain[..4].copy_from_slice(&(magic(value)? & !REVISION_MASK | REVISION_2).to_le_bytes());
            Some(plain)
        }
        b"system.posix_acl_access" | b"system.posix_acl_default" if value.len() >= LIST_HEADER => {
            let (header, entries) = value.split_at(LIST_HEADER);
            let mut list = header.to_vec();
            for entry in entries.chunks(LIST_ENTRY) {
                let is_named = entry.len() == LIST_ENTRY
                    && [NAMED_USER, NAMED_GROUP].contains(&u16::from_le_bytes([entry[0], entry[1]]));
                if is_named {
                    list.extend(&entry[..4]);
                    list.extend(other(u32::from_le_bytes(entry[4..].try_into().ok()?))?.to_le_bytes());
                } else {
                    list.extend(entry);
                }
            }
            Some(list)
        }
        _ => Some(value.to_vec()),
    }
}

fn magic(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|magic| u32::from_le_bytes(*magic))
}

fn revision(value: &[u8]) -> Option<u32> {
    magic(value).map(|magic| magic & REVISION_MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Ids = Ids(IdRange::new(100_000, 1000));

    fn capability(magic: u32, root: Option<u32>) -> Vec<u8> {
        let mut value = magic.to_le_bytes().to_vec();
        value.extend([7; 16]);
        value.extend(root.into_iter().flat_map(u32::to_le_bytes));
        value
    }

    fn list(entries: &[(u16, u32)]) -> Vec<u8> {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(6u16.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    #[test]
    fn capabilities_are_of_the_container_s_root() {
        let key = b"security.capability".to_vec();
        let plain = capability(REVISION_2 | 1, None);
        let out = OURS.attribute_outside(&key, &plain).unwrap().into_owned();
        assert_eq!(out, capability(REVISION_3 | 1, Some(100_000)));
        assert_eq!(OURS.attributes_inside(vec![(key.clone(), out)]), [(key.clone(), plain.clone())]);
        // Of a container within it.
        let nested = capability(REVISION_3, Some(500));
        let out = OURS.attribute_outside(&key, &nested).unwrap().into_owned();
        assert_eq!(out, capability(REVISION_3, Some(100_500)));
        assert_eq!(OURS.attributes_inside(vec![(key.clone(), out)]), [(key.clone(), nested)]);
        let foreign = capability(REVISION_3, Some(5));
        assert_eq!(OURS.attributes_inside(vec![(key.clone(), foreign)]), []);
        assert_eq!(OURS.attribute_outside(&key, &capability(REVISION_3, Some(1000))), None);
        for odd in [vec![], vec![1], vec![0, 0, 0, 2], vec![0, 0, 0, 3, 1]] {
            assert_eq!(OURS.attribute_outside(&key, &odd).unwrap(), odd);
        }
        assert_eq!(Ids(None).attribute_outside(&key, &plain).unwrap(), plain);
    }

    #[test]
    fn lists_name_who_is_in_the_container() {
        let key = b"system.posix_acl_access".to_vec();
        let inside = list(&[(1, u32::MAX), (NAMED_USER, 5), (NAMED_GROUP, 999), (32, u32::MAX)]);
        let outside = list(&[(1, u32::MAX), (NAMED_USER, 100_005), (NAMED_GROUP, 100_999), (32, u32::MAX)]);
        assert_eq!(OURS.attribute_outside(&key, &inside).unwrap(), outside);
        assert_eq!(OURS.attributes_inside(vec![(key.clone(), outside)]), [(key.clone(), inside)]);
        assert_eq!(OURS.attribute_outside(&key, &list(&[(NAMED_USER, 1000)])), None);
        let user = (b"user.x".to_vec(), b"y".to_vec());
        assert_eq!(OURS.attributes_inside(vec![user.clone()]), [user]);
    }
}
