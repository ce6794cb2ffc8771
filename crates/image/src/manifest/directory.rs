//! The directory that skopeo and podman write as `dir:`, packed: one manifest or index by the name `manifest.json`, the
//! manifests of an index by `HEX.manifest.json`, every other blob by its digest alone, and a `version`
//! (containers/image, docs/containers-transports.5.md, "dir:path").
//!
//! It is read as the OCI layout that it would be; it has no place for a name.

use serde_json::{Value, json};

use super::layout::{self, INDEX, MANIFEST};
use super::{Files, Planned, blob_name};
use crate::ImageError;
use crate::platform::Platform;

const VERSION: &str = "Directory Transport Version: ";

/// Whether the archive is one of these: none other has a `version` that says so.
pub(super) fn is_one(files: &Files) -> bool {
    files.get("version").is_some_and(|file| {
        file.size < 100 && file.read_document("version").is_ok_and(|text| text.starts_with(VERSION.as_bytes()))
    })
}

/// Its images: one, or as many as its index has.
pub(super) fn images(files: &Files, wanted: Option<&Platform>) -> Result<Vec<Planned>, ImageError> {
    let version = files.find("version")?.read_document("version")?;
    let version = String::from_utf8_lossy(&version[VERSION.len()..]);
    if !version.starts_with("1.") {
        return Err(ImageError::NotBuilt(format!(
            "a directory of skopeo's of version {:?} is not built yet",
            version.trim_end()
        )));
    }
    let manifest: Value = files.json("manifest.json")?;
    let file = files.find("manifest.json")?;
    let usual = if manifest.get("manifests").is_some() { INDEX } else { MANIFEST };
    let media_type = manifest.get("mediaType").and_then(Value::as_str).unwrap_or(usual);
    let members = [("mediaType", json!(media_type)), ("digest", json!(file.digest)), ("size", json!(file.size))];
    let descriptor = members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    layout::of_index(&as_layout(files), vec![descriptor], wanted)
}

/// The same files by the names that an OCI layout has for them. What they say of their digests is looked at as there.
fn as_layout(files: &Files) -> Files {
    let named = files.files.iter().filter_map(|(name, file)| {
        let name = std::str::from_utf8(name).ok()?;
        if name == "manifest.json" {
            return Some((blob_name(&file.digest), file));
        }
        let hex = name.strip_suffix(".manifest.json").unwrap_or(name);
        let digest = (hex.len() == 64).then(|| format!("sha256:{hex}").parse().ok())??;
        Some((blob_name(&digest), file))
    });
    Files { files: named.map(|(name, file)| (name.into_bytes(), file.clone())).collect(), ..Files::default() }
}
