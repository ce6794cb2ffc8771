//! Files below a descriptor of a root that may hold anything: what the rest of this crate reaches them with.

pub use crate::tree::{
    DIRECTORY, PATH_LIMIT, is_portable_xattr, names, open_no_links, read_link, set_xattr, set_xattr_of_special, split,
    stat, xattrs,
};
