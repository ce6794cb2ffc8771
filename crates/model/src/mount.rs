//! What is mounted into a container, and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::artifact_mount::ArtifactMount;
use crate::digest::Digest;
use crate::id::ImageId;
use crate::name::VolumeName;

/// One mount into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where: an absolute path inside, without `..`.
    pub target: PathBuf,
    /// What.
    pub source: MountSource,
    /// `:ro`.
    pub read_only: bool,
    /// It was asked for by `--mount`, in the API's structured form: inspect shows it so.
    #[serde(default)]
    pub structured: bool,
    /// Of a bind or a volume: who owns in the container what the source's owner owns on disk.
    #[serde(default)]
    pub owner: MountOwner,
    /// It was another container's, and came with `--volumes-from`: inspect shows that in its place.
    #[serde(default)]
    pub inherited: bool,
}

impl Mount {
    /// Each place at which something is mounted, and what of the source is there, if that is not all: of an artifact's
    /// files there may be several.
    pub fn places(&self) -> Vec<(PathBuf, Option<PathBuf>)> {
        match &self.source {
            MountSource::Artifact(artifact) => artifact.files.places(&self.target),
            _ => vec![(self.target.clone(), self.part().map(Path::to_owned))],
        }
    }

    fn part(&self) -> Option<&Path> {
        match &self.source {
            MountSource::Volume { subpath, .. }
            | MountSource::Image { subpath, .. }
            | MountSource::Layers { subpath, .. } => subpath.as_deref(),
            MountSource::Bind { .. } | MountSource::Tmpfs(_) | MountSource::Artifact(_) => None,
        }
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// An absolute path on the host.
        path: PathBuf,
        /// `-v` makes a missing directory, `--mount` does not.
        create_missing: bool,
        /// How mounts below it travel.
        propagation: BindPropagation,
        /// What becomes of the mounts that are below it.
        #[serde(default)]
        recursion: BindRecursion,
    },
    /// A volume of this engine's.
    Volume {
        /// Its name; anonymous ones have a random one.
        name: VolumeName,
        /// It was made for this container and goes with it on `rm -v` and `--rm`.
        anonymous: bool,
        /// Fill an empty volume with what the image has at the target.
        copy_up: bool,
        /// Only this of it: a relative path that does not lead out.
        #[serde(default)]
        subpath: Option<PathBuf>,
        /// What it is made with, if it is not there yet.
        #[serde(default)]
        new: NewVolume,
    },
    /// Memory.
    Tmpfs(TmpfsOptions),
    /// The file system of an image, read-only.
    Image {
        /// Which.
        id: ImageId,
        /// As the user named it.
        name: String,
        /// Only this of it: a relative path that does not lead out.
        #[serde(default)]
        subpath: Option<PathBuf>,
    },
    /// Files of an artifact, read-only.
    Artifact(Box<ArtifactMount>),
    /// What layers make when they lie above one another: for a step of a build, which holds them.
    Layers {
        /// Lowest first.
        layers: Vec<Digest>,
        /// Only this of it: a relative path that does not lead out.
        subpath: Option<PathBuf>,
        /// A directory of the host's for what is written, with `upper` and `work` in it (overlayfs.rst). `None`: nobody
        /// can write.
        #[serde(default)]
        scratch: Option<PathBuf>,
    },
}

/// Owners in the container for what has one owner on disk (mount_setattr(2), "ID-mapped mounts"): this user and this
/// group have what the owner of the source has on disk, and the other way round. `None`: as on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOwner {
    /// A user id of the container.
    pub user: Option<u32>,
    /// A group id of the container.
    pub group: Option<u32>,
}

/// What a volume is made with by the first container that mounts it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewVolume {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the local driver.
    pub options: BTreeMap<String, String>,
}

/// What becomes of the mounts below a bind's source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindRecursion {
    /// They come along, and are read-only where the bind is.
    #[default]
    Enabled,
    /// They stay away.
    Disabled,
    /// They come along, and stay writable where the bind is read-only.
    Writable,
    /// As [`Self::Enabled`], for who wants an error where the kernel cannot: it always can.
    ReadOnly,
}

/// Mount propagation of a bind (mount_namespaces(7), "SHARED SUBTREES").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the kernel's own words")]
pub enum BindPropagation {
    #[default]
    Rprivate,
    Private,
    Rshared,
    Shared,
    Rslave,
    Slave,
}

impl BindPropagation {
    /// The kernel's own word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rprivate => "rprivate",
            Self::Private => "private",
            Self::Rshared => "rshared",
            Self::Shared => "shared",
            Self::Rslave => "rslave",
            Self::Slave => "slave",
        }
    }
}

/// A tmpfs, by Docker's defaults nosuid, nodev and noexec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsOptions {
    /// `None`: the kernel's default, half of the memory.
    pub size_bytes: Option<u64>,
    /// Permission bits of its root; `None`: 1777.
    pub mode: Option<u32>,
    /// Further options that `--tmpfs` allows, as written: `exec`, `uid=1`, …
    pub options: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_older_rows_are_read() {
        let read = |text: &str| serde_json::from_str::<Mount>(text).unwrap();
        let bind = read(
            r#"{"target":"/a","source":{"bind":{"path":"/b","create_missing":true,"propagation":"rslave"}},"read_only":true}"#,
        );
        assert!(!bind.structured && !bind.inherited && bind.owner == MountOwner::default());
        assert!(matches!(bind.source, MountSource::Bind { recursion: BindRecursion::Enabled, .. }));
        let volume = read(
            r#"{"target":"/a","source":{"volume":{"name":"vol","anonymous":false,"copy_up":true}},"read_only":false}"#,
        );
        assert!(matches!(volume.source, MountSource::Volume { subpath: None, .. }));
        let again: Mount = serde_json::from_str(&serde_json::to_string(&volume).unwrap()).unwrap();
        assert_eq!(again, volume);
    }
}
