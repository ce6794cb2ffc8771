//! Files that say what a build has made: `--iidfile` and `--metadata-file`. What they said before is gone when a build
//! begins: whoever reads them must not take one build for another.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde_json::{Map, Value, json};

use super::product::Product;
use crate::arguments::flags::text;
use crate::commands::system_words;
use crate::failure::Failure;

#[derive(Debug)]
pub(super) struct Results {
    image_id: Option<PathBuf>,
    metadata: Option<PathBuf>,
    /// What the build is for is an image.
    is_image: bool,
}

impl Results {
    /// Removes what they are to replace.
    pub(super) fn prepare(matches: &ArgMatches, product: &Product) -> Result<Self, Failure> {
        let path = |flag| text(matches, flag).filter(|path| !path.is_empty()).map(PathBuf::from);
        let is_image = matches!(product, Product::Image { .. } | Product::Registry { .. } | Product::Archive(_));
        let results = Self { image_id: path("iidfile"), metadata: path("metadata-file"), is_image };
        for path in results.image_id.iter().chain(&results.metadata) {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let (path, why) = (path.display(), system_words(&error));
                    return Err(Failure::new(format!("ERROR: failed to remove {path}: {why}")));
                }
                _ => {}
            }
        }
        Ok(results)
    }

    /// `names` are in full; `digest` is that by which a registry has it.
    pub(super) fn write(&self, id: &str, digest: Option<&str>, names: &[String]) -> Result<(), Failure> {
        if let Some(path) = &self.image_id {
            write(path, id)?;
        }
        if let Some(path) = &self.metadata {
            let described = if self.is_image { metadata(id, digest, names) } else { json!({}) };
            let text = serde_json::to_string_pretty(&described).expect("texts are JSON");
            write(path, &text)?;
        }
        Ok(())
    }
}

/// In buildx's words (docs.docker.com/reference/cli/docker/buildx/build, "--metadata-file"). An image has no manifest before
/// it leaves the engine: as with docker's own engine, its digest is that of its configuration.
fn metadata(id: &str, digest: Option<&str>, names: &[String]) -> Value {
    let mut said = Map::new();
    said.insert("containerimage.config.digest".to_owned(), json!(id));
    said.insert("containerimage.digest".to_owned(), json!(digest.unwrap_or(id)));
    if !names.is_empty() {
        said.insert("image.name".to_owned(), json!(names.join(",")));
    }
    Value::Object(said)
}

/// Whole, or not at all.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("ERROR: failed to write {}: {}", path.display(), system_words(&error)))
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepare(line: &[&str]) -> Result<Results, Failure> {
        let words = [&["build"], line, &["."]].concat();
        let matches = super::super::command().try_get_matches_from(words).unwrap();
        Results::prepare(&matches, &Product::read(&matches).unwrap())
    }

    #[test]
    fn what_a_build_has_made_is_said_in_buildxs_words() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let (id, metadata) = (at("id"), at("metadata.json"));
        std::fs::write(&metadata, "of another build").unwrap();
        let results = prepare(&["--iidfile", &id, "--metadata-file", &metadata]).unwrap();
        assert!(!Path::new(&metadata).exists());
        results
            .write("sha256:ab", None, &["docker.io/library/web:1".into(), "docker.io/library/web:2".into()])
            .unwrap();
        assert_eq!(std::fs::read_to_string(id).unwrap(), "sha256:ab");
        let read: Value = serde_json::from_str(&std::fs::read_to_string(&metadata).unwrap()).unwrap();
        let want = json!({
            "containerimage.config.digest": "sha256:ab", "containerimage.digest": "sha256:ab",
            "image.name": "docker.io/library/web:1,docker.io/library/web:2",
        });
        assert_eq!(read, want);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
        // Files alone are no image.
        let results = prepare(&["--metadata-file", &metadata, "-o", "out"]).unwrap();
        results.write("sha256:ab", None, &[]).unwrap();
        assert_eq!(std::fs::read_to_string(&metadata).unwrap(), "{}");
    }

    #[test]
    fn what_cannot_be_written_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display().to_string();
        assert!(prepare(&["--metadata-file", &at]).unwrap_err().message.contains("failed to remove"));
        let results = prepare(&["--metadata-file", &format!("{at}/none/m")]).unwrap();
        let message = results.write("sha256:ab", None, &[]).unwrap_err().message;
        assert!(message.ends_with("none/m: no such file or directory"), "{message}");
    }
}
