//! Files of artifacts that a container mounts. It holds them from when it is made, by links of its own beside its layer, which
//! go with it: an artifact may be removed, or become another one, and the container starts with the same files. They are
//! mounted through an overlay that nobody writes to; the files themselves are in no place that it reaches.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dozen_image::PlaceInImage;
use dozen_model::{
    ArtifactMount, ContainerSpec, Digest, ImageId, Mount, MountSource, MountedFile, MountedFiles, WantedFiles,
};

use crate::failpoint::failpoint;
use crate::shared::Shared;
use crate::{Engine, EngineError};

/// In a container's directory: links to files, a directory for each mount.
pub(crate) const DIRECTORY: &str = "artifacts";

impl Engine {
    /// What `--mount type=artifact` means for a container of this image: which files, and where. An artifact has to be here.
    pub async fn artifact_to_mount(
        &self,
        image: &ImageId,
        target: &Path,
        name: &str,
        wanted: WantedFiles,
    ) -> Result<ArtifactMount, EngineError> {
        let (shared, image) = (self.shared().clone(), image.clone());
        let (target, name) = (target.to_owned(), name.to_owned());
        let find = move || {
            let (artifact, files) = shared.images.files_to_mount(&name, &wanted)?;
            let place = shared.images.place_in_image(&image, &target)?;
            let files = placed(files, place).ok_or_else(|| EngineError::Invalid {
                message: format!(
                    "artifact {name:?} contains more than one blob and container path {:?} is a file",
                    target.display().to_string()
                ),
                hint: Some("say which one with title= or digest=, or name a directory".into()),
            })?;
            Ok(ArtifactMount { name, manifest: artifact.digest, wanted, files })
        };
        self.shared().blocking(find).await
    }
}

/// As podman-run(1) has it: a directory of the image gets the files, beside what it has; what is alone takes the place of a
/// file, or of nothing; and several are a new directory. `None`: several for the place of a file.
fn placed(mut files: Vec<MountedFile>, place: PlaceInImage) -> Option<MountedFiles> {
    match (place, files.len()) {
        (PlaceInImage::Directory, _) => Some(MountedFiles::Within(files)),
        (_, 1) => files.pop().map(MountedFiles::File),
        (PlaceInImage::Nothing, _) => Some(MountedFiles::Directory(files)),
        (PlaceInImage::File, _) => None,
    }
}

/// Links what the container mounts into its directory. What is there already stays.
///
/// # Errors
/// An artifact has been removed before the container had its files.
pub(crate) fn hold(shared: &Shared, spec: &ContainerSpec, directory: &Path) -> Result<(), EngineError> {
    for (index, artifact) in mounted(&spec.mounts) {
        shared.images.link_artifact(artifact, &place(directory, index))?;
        failpoint("create.artifact");
    }
    if mounted(&spec.mounts).next().is_some() {
        // The files are safe by themselves; these are the names on the way to them.
        let above = [directory.join(DIRECTORY), directory.to_owned()];
        for path in above.iter().map(PathBuf::as_path).chain(directory.parent()) {
            let synced = std::fs::File::open(path).and_then(|directory| directory.sync_all());
            synced.map_err(EngineError::system(|| format!("write {} to the disk", path.display())))?;
        }
    }
    Ok(())
}

/// The directory of the mount with this place in the container's list. After a power cut that took it, it is made again if
/// the artifact is still here.
pub(crate) fn directory_of(
    shared: &Shared,
    directory: &Path,
    index: usize,
    artifact: &ArtifactMount,
) -> Result<PathBuf, EngineError> {
    let place = place(directory, index);
    shared.images.link_artifact(artifact, &place)?;
    Ok(place)
}

/// What containers hold of artifacts.
pub(crate) struct Held {
    /// Manifests of artifacts.
    pub(crate) manifests: BTreeSet<Digest>,
    /// Files of theirs.
    pub(crate) files: BTreeSet<Digest>,
    /// Bytes of the disk that are in no artifact any more.
    pub(crate) left_bytes: u64,
}

/// Blocks.
pub(crate) fn held(shared: &Shared) -> Held {
    let snapshots = shared.registry.snapshots();
    let all: Vec<(&ArtifactMount, PathBuf)> = snapshots
        .iter()
        .flat_map(|snapshot| {
            mounted(&snapshot.spec.mounts).map(|(index, artifact)| (artifact, place(&snapshot.directory, index)))
        })
        .collect();
    let files = all.iter().flat_map(|(artifact, _)| artifact.files.all());
    Held {
        manifests: all.iter().map(|(artifact, _)| artifact.manifest.clone()).collect(),
        files: files.map(|file| file.digest.clone()).collect(),
        left_bytes: shared.images.measured_links(all.iter().map(|(artifact, place)| (*artifact, place.as_path()))),
    }
}

fn mounted(mounts: &[Mount]) -> impl Iterator<Item = (usize, &ArtifactMount)> {
    mounts.iter().enumerate().filter_map(|(index, mount)| match &mount.source {
        MountSource::Artifact(artifact) => Some((index, artifact.as_ref())),
        _ => None,
    })
}

fn place(directory: &Path, index: usize) -> PathBuf {
    directory.join(DIRECTORY).join(index.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_files_are_is_told_by_what_the_image_has() {
        let file = |name: &str| MountedFile { name: name.into(), digest: Digest::from_sha256([7; 32]), size_bytes: 1 };
        let (one, two) = (vec![file("a")], vec![file("a"), file("b")]);
        for (files, place, want) in [
            (&one, PlaceInImage::Nothing, Some(MountedFiles::File(file("a")))),
            (&one, PlaceInImage::File, Some(MountedFiles::File(file("a")))),
            (&one, PlaceInImage::Directory, Some(MountedFiles::Within(one.clone()))),
            (&two, PlaceInImage::Nothing, Some(MountedFiles::Directory(two.clone()))),
            (&two, PlaceInImage::Directory, Some(MountedFiles::Within(two.clone()))),
            (&two, PlaceInImage::File, None),
        ] {
            assert_eq!(placed(files.clone(), place), want, "{files:?} {place:?}");
        }
    }
}
