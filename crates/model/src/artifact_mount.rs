//! The files of an artifact that a container mounts, as they were when it was made.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Which files, of which artifact, and where. The container holds them from when it is made until it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactMount {
    /// The artifact, as the user named it.
    pub name: String,
    /// Of the manifest that the name led to.
    pub manifest: Digest,
    /// What was asked for.
    pub wanted: WantedFiles,
    /// What was found.
    pub files: MountedFiles,
}

/// Which files of an artifact are mounted, and by which name (podman-run(1), "Options specific to type=artifact").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedFiles {
    /// All of them, or one.
    pub which: WhichFiles,
    /// The name of the file in a directory, in place of its own; of several, they are called `NAME-0`, `NAME-1` and so on.
    pub file_name: Option<String>,
}

/// All files of an artifact, or one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhichFiles {
    /// All.
    #[default]
    All,
    /// One, by the digest of its bytes, which is its name then, too.
    Digest(Digest),
    /// One, by its own name.
    Title(String),
}

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountedFiles {
    /// The only one is at the target itself.
    File(MountedFile),
    /// The target is a directory that has them and nothing else.
    Directory(Vec<MountedFile>),
    /// The image has a directory at the target, and each of them is mounted in it.
    Within(Vec<MountedFile>),
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedFile {
    /// What it is called in its directory.
    pub name: String,
    /// Of its bytes.
    pub digest: Digest,
    #[expect(missing_docs, reason = "plain")]
    pub size_bytes: u64,
}

impl MountedFiles {
    /// All of them.
    pub fn all(&self) -> &[MountedFile] {
        match self {
            Self::File(file) => std::slice::from_ref(file),
            Self::Directory(files) | Self::Within(files) => files,
        }
    }

    /// What is mounted at `target`: each place with the file of them that is there, or with `None` where all are.
    pub fn places(&self, target: &Path) -> Vec<(PathBuf, Option<PathBuf>)> {
        match self {
            Self::File(file) => vec![(target.to_owned(), Some(PathBuf::from(&file.name)))],
            Self::Directory(_) => vec![(target.to_owned(), None)],
            Self::Within(files) => {
                files.iter().map(|file| (target.join(&file.name), Some(PathBuf::from(&file.name)))).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_at_the_target_or_in_it() {
        let digest = Digest::from_sha256([7; 32]);
        let file = |name: &str| MountedFile { name: name.into(), digest: digest.clone(), size_bytes: 1 };
        let places = |files: MountedFiles| {
            let shown = |(place, part): (PathBuf, Option<PathBuf>)| {
                format!("{} {}", place.display(), part.as_deref().unwrap_or(Path::new("*")).display())
            };
            files.places(Path::new("/m")).into_iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(places(MountedFiles::File(file("a"))), ["/m a"]);
        assert_eq!(places(MountedFiles::Directory(vec![file("a"), file("b")])), ["/m *"]);
        assert_eq!(places(MountedFiles::Within(vec![file("a"), file("b")])), ["/m/a a", "/m/b b"]);
    }
}
