//! A directory that is no image: a volume, as one tar archive and from one.
//!
//! Both ways by the code that packs and unpacks layers: nothing is followed, and no archive writes beside its directory.
//! Marks of layers (`.wh.…`, OCI image-spec, layer.md, "Whiteouts") mean nothing in a volume, and are refused there.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use crate::ImageError;
use crate::compression::decompress;
use crate::extract::{ExtractError, Limits, extract_plain};
use crate::tree;
use crate::union::Union;

/// Writes what is in a directory as a tar stream, sorted. It may change meanwhile: what goes away is left out, and a file
/// has the size that its header promised.
pub fn export_directory(directory: &Path, out: &mut dyn Write) -> Result<(), ImageError> {
    let union = Union::open([directory]).map_err(|(path, error)| ImageError::io("open", path.display())(error))?;
    crate::export::export(&union, out).map_err(ImageError::exporting)
}

/// Unpacks a tar archive, plain or compressed with gzip or zstd, into an empty directory, and syncs it. A failure leaves
/// there what it leaves: the caller throws it away. At most `bytes` of files, which may be those that are free.
pub fn import_directory(archive: &mut dyn Read, into: &Path, bytes: u64) -> Result<(), ImageError> {
    let reading = |error: io::Error| match ImageError::reading(error) {
        ImageError::Archive(what) => ImageError::Import(what),
        error => error,
    };
    let (_, plain) = decompress(archive).map_err(reading)?;
    let root = tree::open_root(into).map_err(ImageError::io("open", into.display()))?;
    let limits = Limits { entries: MOST_ENTRIES, content_bytes: bytes, hole_bytes: 1 << 50 };
    extract_plain(plain, root.as_fd(), limits).map_err(|error| match error {
        ExtractError::Read(error) => reading(error),
        error => match ImageError::layer("of the archive", error) {
            ImageError::Layer { what, .. } => ImageError::Import(what),
            error => error,
        },
    })?;
    rustix::fs::syncfs(&root).map_err(ImageError::io("sync", into.display()))
}

/// A volume is not bounded by us, but an archive of a few bytes that makes inodes without end is.
const MOST_ENTRIES: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tar::EntryType;

    use super::*;
    use crate::extract::tests::{archive, directory, file, link};

    fn import(archive: &[u8]) -> (tempfile::TempDir, Result<(), ImageError>) {
        let cell = tempfile::tempdir().unwrap();
        std::fs::create_dir(cell.path().join("in")).unwrap();
        let done = import_directory(&mut &*archive, &cell.path().join("in"), 1 << 20);
        (cell, done)
    }

    #[test]
    fn what_was_exported_is_imported() {
        let from = tempfile::tempdir().unwrap();
        std::fs::create_dir(from.path().join("d")).unwrap();
        std::fs::write(from.path().join("d/file"), "content").unwrap();
        std::fs::hard_link(from.path().join("d/file"), from.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/etc", from.path().join("link")).unwrap();
        std::os::unix::fs::chown(from.path().join("d/file"), Some(7), Some(8)).unwrap();
        let mut bytes = Vec::new();
        export_directory(from.path(), &mut bytes).unwrap();
        let (cell, done) = import(&bytes);
        done.unwrap();
        let into = cell.path().join("in");
        assert_eq!(std::fs::read_to_string(into.join("d/file")).unwrap(), "content");
        let metadata = std::fs::metadata(into.join("again")).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.nlink()), (7, 8, 2));
        assert_eq!(std::fs::read_link(into.join("link")).unwrap(), Path::new("/etc"));
    }

    #[test]
    fn hostile_archives_write_nowhere_else() {
        for (entries, words) in [
            (vec![file("../out", "x")], ".."),
            (
                vec![link(EntryType::Symlink, "l", "/tmp"), link(EntryType::Symlink, "l2", ".."), file("l2/out", "x")],
                "",
            ),
            (vec![file(".wh.file", "")], "mark of a layer"),
            (vec![directory("d"), file("d/.wh..wh..opq", "")], "mark of a layer"),
        ] {
            let (cell, done) = import(&archive(&entries));
            assert!(!cell.path().join("out").exists());
            if !words.is_empty() {
                let error = dozen_model::error_chain(&done.unwrap_err());
                assert!(error.contains(words), "{error}");
            }
        }
        let (_cell, done) = import(b"no archive at all");
        assert!(done.is_err());
        let (_cell, done) = import(&archive(&[file("large", &"x".repeat(2 << 20))]));
        assert!(done.is_err());
    }
}
