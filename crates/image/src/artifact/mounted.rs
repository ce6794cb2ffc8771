//! Files of an artifact that a container mounts. It has them by links of its own to the blobs' files, in a directory of its
//! own: they stay as long as it does, whatever becomes of the artifact's name, and take no room twice. They are shown to it
//! through an overlay that nobody writes to, so that no right that it has reaches the files themselves.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use dozen_model::{ArtifactMount, Digest, MountedFile, WantedFiles, WhichFiles};
use rustix::io::Errno;

use super::document::{ArtifactDocument, ArtifactFile};
use super::selection::check_title;
use super::{Artifact, Selection};
use crate::ImageError;
use crate::failpoint::failpoint;
use crate::store::{ImageStore, Inner};

/// What everybody may do with a file: a container's user is not always root.
const READABLE: u32 = 0o444;

impl ImageStore {
    /// The artifact of a name, or of the beginning of its digest, and the files of it that are wanted. Blocks.
    pub fn files_to_mount(&self, name: &str, wanted: &WantedFiles) -> Result<(Artifact, Vec<MountedFile>), ImageError> {
        let artifact = self.artifact(name)?;
        let document = ArtifactDocument::read(&self.artifact_manifest(&artifact)?)?;
        let files = named(&document, wanted)?;
        Ok((artifact, files))
    }

    /// Links the files into a directory, which is made; what is there already stays. Safe from a power cut when it returns.
    /// Blocks.
    ///
    /// # Errors
    /// One of them is not here any more, or is damaged; some are there then.
    pub fn link_artifact(&self, mount: &ArtifactMount, directory: &Path) -> Result<(), ImageError> {
        let making = |source| ImageError::Io { attempted: "make", object: directory.display().to_string(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(making)?;
        // Whatever the umask is: whoever runs in the container looks for names in it.
        std::fs::set_permissions(directory, Permissions::from_mode(0o755)).map_err(making)?;
        let mut is_new = false;
        for file in mount.files.all() {
            is_new |= self.0.link_artifact_file(&mount.name, file, &directory.join(&file.name))?;
        }
        failpoint("image.artifact.linked");
        if is_new {
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(ImageError::io("write to the disk", directory.display()))?;
        }
        Ok(())
    }

    /// Bytes of the disk in such directories that are in no artifact any more: what several have is counted once. Blocks.
    pub fn measured_links<'d>(&self, directories: impl IntoIterator<Item = (&'d ArtifactMount, &'d Path)>) -> u64 {
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for (mount, directory) in directories {
            for file in mount.files.all() {
                let Ok(here) = std::fs::symlink_metadata(directory.join(&file.name)) else { continue };
                let id = (here.dev(), here.ino());
                let stored = std::fs::symlink_metadata(self.0.blob_path(&file.digest));
                if !stored.is_ok_and(|stored| (stored.dev(), stored.ino()) == id) && seen.insert(id) {
                    // stat(2) counts them in 512 bytes.
                    bytes += here.blocks() * 512;
                }
            }
        }
        bytes
    }
}

impl Inner {
    /// Whether it had to be linked. `artifact` is for the errors.
    fn link_artifact_file(&self, artifact: &str, file: &MountedFile, to: &Path) -> Result<bool, ImageError> {
        match std::fs::symlink_metadata(to) {
            Ok(known) if known.is_file() && known.len() == file.size_bytes => return Ok(false),
            // A copy that was not finished.
            Ok(_) => std::fs::remove_file(to).map_err(ImageError::io("remove", to.display()))?,
            Err(_) => {}
        }
        if self.read_state().is_damaged(&file.digest) {
            let path = self.blob_path(&file.digest);
            return Err(ImageError::Damaged { path, expected: file.digest.to_string() });
        }
        let absent = || ImageError::NoSuchArtifact(artifact.to_owned());
        let from = self.sound_blob(&file.digest).ok_or_else(absent)?;
        match std::fs::hard_link(&from, to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
            // On another file system, or with as many names as this one gives to a file (link(2)).
            Err(error)
                if [Errno::XDEV, Errno::MLINK, Errno::PERM]
                    .map(|errno| Some(errno.raw_os_error()))
                    .contains(&error.raw_os_error()) =>
            {
                copy(&from, to).map_err(ImageError::io("copy to", to.display()))?;
            }
            Err(error) => return Err(ImageError::io("link to", to.display())(error)),
        }
        let looking = ImageError::io("look at", to.display());
        let linked = std::fs::metadata(to).map_err(looking)?;
        if linked.len() != file.size_bytes {
            return Err(ImageError::Damaged { path: from, expected: file.digest.to_string() });
        }
        if linked.mode() & READABLE != READABLE {
            let mode = Permissions::from_mode(linked.mode() & 0o777 | READABLE);
            std::fs::set_permissions(to, mode).map_err(ImageError::io("change the mode of", to.display()))?;
        }
        Ok(true)
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

/// The files with the names that they get, by podman-run(1). Names are a stranger's: they are those of files in one directory,
/// and no two are the same.
pub(crate) fn named(document: &ArtifactDocument, wanted: &WantedFiles) -> Result<Vec<MountedFile>, ImageError> {
    let selection = match &wanted.which {
        WhichFiles::All => Selection::All,
        WhichFiles::Digest(digest) => Selection::Digest(digest.clone()),
        WhichFiles::Title(title) => Selection::Title(title.clone()),
    };
    let found: Vec<(String, &ArtifactFile)> = match &wanted.file_name {
        None => selection.of(document)?,
        Some(name) => {
            check_title(name)?;
            let found = selection.found(document)?;
            let is_alone = found.len() == 1;
            let numbered = |(index, file)| (if is_alone { name.clone() } else { format!("{name}-{index}") }, file);
            found.into_iter().enumerate().map(numbered).collect()
        }
    };
    let mounted = |(name, file): (String, &ArtifactFile)| {
        // With its number it may have become too long.
        check_title(&name)?;
        let (digest, size_bytes): (Digest, u64) = (file.blob.digest.clone(), file.blob.size_bytes);
        Ok(MountedFile { name, digest, size_bytes })
    };
    found.into_iter().map(mounted).collect()
}

#[cfg(test)]
mod tests;
