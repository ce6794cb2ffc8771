//! Lists of manifests that are being made, where docker's command line keeps them and as it writes them
//! (`DOCKER_CONFIG/manifests/LIST/MANIFEST`, each name with `-` for `:` and `_` for `/`), so that either program goes on with
//! what the other has begun.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use dozen_model::{Digest, Reference};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::document::image;
use crate::commands::system_words;
use crate::failure::Failure;

/// What is larger is no manifest's file: 4 MiB of manifest, once as base64 and once as it is.
const LARGEST_BYTES: u64 = 12 << 20;

/// A manifest of a list, with what it is annotated with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Member {
    #[serde(rename = "Ref")]
    pub name: Reference,
    /// Its `platform` is what annotations change.
    pub descriptor: Map<String, Value>,
    /// The document as it came, in base64.
    pub raw: String,
}

impl Member {
    /// By which the registry knows it.
    pub fn digest(&self) -> Option<Digest> {
        self.descriptor.get("digest")?.as_str()?.parse().ok()
    }

    /// A field of its platform, if it is said.
    pub fn platform(&self, field: &str) -> &str {
        self.descriptor.get("platform").and_then(|platform| platform[field].as_str()).unwrap_or_default()
    }
}

/// All lists of this user.
pub(super) struct Lists {
    root: PathBuf,
}

impl Lists {
    /// Below docker's directory.
    pub fn of(directory: &Path) -> Self {
        Self { root: directory.join("manifests") }
    }

    /// What is in a list, in its files' order; `None`: there is no such list.
    pub fn read(&self, list: &Reference) -> Result<Option<Vec<Member>>, Failure> {
        let directory = self.directory(list);
        let read = || -> io::Result<Vec<PathBuf>> {
            let mut all: Vec<_> = std::fs::read_dir(&directory)?.map(|it| Ok(it?.path())).collect::<io::Result<_>>()?;
            all.sort();
            Ok(all)
        };
        match read() {
            Ok(files) => files.iter().map(|path| read_member(path)).collect::<Result<_, _>>().map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &directory, &error)),
        }
    }

    /// One manifest of a list, by the name that it was put there by.
    pub fn member(&self, list: &Reference, name: &Reference) -> Result<Option<Member>, Failure> {
        let path = self.directory(list).join(file_name(name));
        if !path.exists() {
            return Ok(None);
        }
        read_member(&path).map(Some)
    }

    /// Puts it there, in the place of the one before: all of it, or nothing.
    pub fn write(&self, list: &Reference, name: &Reference, member: &Member) -> Result<(), Failure> {
        let (directory, path) = (self.directory(list), self.directory(list).join(file_name(name)));
        let text = image(&member.name.to_string(), &member.descriptor, &member.raw)
            .ok_or_else(|| Failure::new(format!("the manifest {} cannot be read", member.name)))?;
        // Beside the lists, where nobody takes it for a part of one.
        let new = self.root.join(format!(".new-{}", std::process::id()));
        let written = std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::write(&new, text))
            .and_then(|()| std::fs::rename(&new, &path));
        written.map_err(|error| failed("write", &path, &error))
    }

    /// Whether there was one.
    pub fn remove(&self, list: &Reference) -> Result<bool, Failure> {
        let directory = self.directory(list);
        match std::fs::remove_dir_all(&directory) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", &directory, &error)),
        }
    }

    fn directory(&self, list: &Reference) -> PathBuf {
        self.root.join(file_name(list))
    }
}

/// docker's name of a file (docker/cli, cli/manifest/store).
fn file_name(name: &Reference) -> String {
    name.to_string().replace(':', "-").replace('/', "_")
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot {verb} {}: {}", path.display(), system_words(error)))
}

fn read_member(path: &Path) -> Result<Member, Failure> {
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST_BYTES + 1).read_to_end(&mut text));
    read.map_err(|error| failed("read", path, &error))?;
    let member = match text.len() as u64 > LARGEST_BYTES {
        true => Err("it is too large".to_owned()),
        false => serde_json::from_slice(&text).map_err(|error| error.to_string()),
    };
    member.map_err(|why: String| {
        Failure::new(format!("{} is no manifest of a list: {why}", path.display()))
            .with_hint("remove the list (dozen manifest rm LIST) and make it anew")
    })
}

#[cfg(test)]
mod tests {
    use dozen_model::base64;
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn member(text: &str) -> Member {
        serde_json::from_value(json!({
            "Ref": name(text).to_string(), "Raw": base64::encode(b"{\"layers\": []}"),
            "Descriptor": { "mediaType": "m", "digest": format!("sha256:{}", "a".repeat(64)), "size": 14 },
        }))
        .unwrap()
    }

    #[test]
    fn lists_are_kept_as_docker_keeps_them() {
        let directory = tempfile::tempdir().unwrap();
        let (lists, all) = (Lists::of(directory.path()), name("a.example:5000/team/all:1"));
        assert_eq!(lists.read(&all), Ok(None));
        assert_eq!(lists.member(&all, &name("b")), Ok(None));
        lists.write(&all, &name("busybox"), &member("busybox")).unwrap();
        lists.write(&all, &name("a.example:5000/b:1"), &member("a.example:5000/b:1")).unwrap();
        let path = "manifests/a.example-5000_team_all-1/docker.io_library_busybox-latest";
        let text = std::fs::read_to_string(directory.path().join(path)).unwrap();
        let written: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(written["Ref"], "docker.io/library/busybox:latest");
        assert_eq!(written["SchemaV2Manifest"], json!({ "layers": [] }));
        let found = lists.read(&all).unwrap().unwrap();
        assert_eq!(found, [member("a.example:5000/b:1"), member("busybox")]);
        assert_eq!(lists.member(&all, &name("busybox")), Ok(Some(member("busybox"))));
        assert_eq!((lists.remove(&all), lists.remove(&all)), (Ok(true), Ok(false)));
        assert_eq!(lists.read(&all), Ok(None));
    }

    #[test]
    fn what_is_none_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (lists, all) = (Lists::of(directory.path()), name("all"));
        let path = lists.directory(&all);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("a"), "{}").unwrap();
        let said = lists.read(&all).unwrap_err();
        assert!(said.message.ends_with("is no manifest of a list: missing field `Ref` at line 1 column 2"), "{said}");
    }
}
