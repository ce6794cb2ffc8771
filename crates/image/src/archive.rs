//! Reading archives, for whoever takes one for something else than images: bounded, whatever they hold.

pub use tar::EntryType;

pub use crate::compression::{Compression, Decompressed, RATIO, allowance, decompress};
pub use crate::names::{normalize, shown};
pub use crate::tarball::{Data, Entry, Sparse, TarReader, begins_tar};
