//! Makes files as they shall be, and removes them again.

use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, below};
use super::plan::{Kind, Wanted};
use crate::failure::Failure;

/// This very program, also where its file has been replaced.
const OURSELVES: &str = "/proc/self/exe";

/// Whether it is as it shall be already.
pub fn is_done(root: &Path, wanted: &Wanted) -> bool {
    let path = below(root, &wanted.path);
    match &wanted.kind {
        Kind::Text(text) => std::fs::read(&path).is_ok_and(|bytes| bytes == text.as_bytes()),
        Kind::Link(target) => std::fs::read_link(&path).is_ok_and(|present| present == *target),
        Kind::Program => is_same(&path, Path::new(OURSELVES)).unwrap_or(false),
    }
}

/// The same file, or one of the same bytes.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (first, second) = (std::fs::metadata(one)?, std::fs::metadata(other)?);
    if (first.dev(), first.ino()) == (second.dev(), second.ino()) {
        return Ok(true);
    }
    Ok(first.len() == second.len() && std::fs::read(one)? == std::fs::read(other)?)
}

/// Makes one of them, in place of what is there; the directories above it, as far as they are missing, are noted.
pub fn make(root: &Path, wanted: &Wanted, manifest: &mut Manifest) -> Result<(), Failure> {
    let path = below(root, &wanted.path);
    let failed = |error: io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    make_directories(root, &wanted.path, manifest).map_err(failed)?;
    // Beside it and then in its place: a program that runs cannot be written to, and nobody sees half of a file.
    let new = path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
    let _ = std::fs::remove_file(&new);
    let made = match &wanted.kind {
        Kind::Link(target) => std::os::unix::fs::symlink(target, &new),
        Kind::Text(text) => write(&new, 0o644, &mut text.as_bytes()),
        Kind::Program => std::fs::File::open(OURSELVES).and_then(|mut program| write(&new, 0o755, &mut program)),
    };
    let placed = made.and_then(|()| std::fs::rename(&new, &path));
    if placed.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    placed.map_err(failed)
}

fn write(path: &Path, mode: u32, from: &mut dyn io::Read) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    io::copy(from, &mut file)?;
    // Whatever the umask is.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// The directories above a path, noting those that were not there.
pub fn make_directories(root: &Path, path: &Path, manifest: &mut Manifest) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().skip(1).take_while(|directory| !below(root, directory).exists()).collect();
    for directory in missing.into_iter().rev() {
        match std::fs::create_dir(below(root, directory)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if !manifest.directories.iter().any(|noted| noted == directory) {
            manifest.directories.push(directory.to_owned());
        }
    }
    Ok(())
}

/// Removes what the manifest names; goes on past failures, which come back. A directory that has something else in it
/// by now stays.
pub fn remove(root: &Path, manifest: &Manifest, mut tell: impl FnMut(&Path)) -> Vec<Failure> {
    let mut failures = Vec::new();
    for file in manifest.files.iter().rev() {
        let path: PathBuf = below(root, file);
        match std::fs::remove_file(&path) {
            Ok(()) => tell(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failures.push(Failure::new(format!("cannot remove {}: {error}", path.display()))),
        }
    }
    for directory in manifest.directories.iter().rev() {
        let _ = std::fs::remove_dir(below(root, directory));
    }
    failures
}
