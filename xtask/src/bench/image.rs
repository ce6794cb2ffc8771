//! The busybox image in a form that every engine loads, and unpacked for the runtimes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::failure::{Attempt, Failure};
use crate::images;

/// The image, as engines name it.
pub const NAME: &str = "busybox";

/// Writes the image to `archive`, and its files to `root`.
pub fn prepare(archive: &Path, root: &Path) -> Result<(), Failure> {
    let source = images::ensure(&[NAME], false)?.remove(0);
    let said = format!("read {}", source.display());
    let layout = unpack(&source).attempting(&said)?;
    let manifest = docker_manifest(&layout).attempting(&said)?;

    let mut builder = tar::Builder::new(File::create(archive).attempting(format_args!("write {}", archive.display()))?);
    let entries = layout.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let manifest_text = json!([manifest]).to_string();
    for (name, bytes) in entries.chain([("manifest.json", manifest_text.as_bytes())]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).attempting(format_args!("write {}", archive.display()))?;
    }
    builder.finish().attempting(format_args!("write {}", archive.display()))?;

    std::fs::create_dir_all(root).attempting(format_args!("create {}", root.display()))?;
    for layer in manifest["Layers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let bytes = blob(&layout, layer).attempting(&said)?;
        let mut layer: tar::Archive<Box<dyn Read>> = if bytes.starts_with(&[0x1f, 0x8b]) {
            tar::Archive::new(Box::new(GzDecoder::new(bytes)))
        } else {
            tar::Archive::new(Box::new(bytes))
        };
        // Our own build's layer: nothing hostile is in it.
        layer.unpack(root).attempting(format_args!("unpack the image into {}", root.display()))?;
    }
    Ok(())
}

type Files = Vec<(String, Vec<u8>)>;

fn unpack(archive: &Path) -> std::io::Result<Files> {
    let mut files = Vec::new();
    for entry in tar::Archive::new(File::open(archive)?).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.push((name, bytes));
        }
    }
    Ok(files)
}

/// The entry of `manifest.json` for an OCI layout's first image: docker before 27 loads nothing else
/// (moby, image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset Format").
fn docker_manifest(layout: &Files) -> Result<Value, String> {
    let read = |name: &str| -> Result<Value, String> {
        serde_json::from_slice(blob(layout, name)?).map_err(|error| format!("{name}: {error}"))
    };
    let path = |descriptor: &Value| -> Result<String, String> {
        let digest = descriptor["digest"].as_str().and_then(|digest| digest.split_once(':'));
        let (algorithm, hash) = digest.ok_or("a descriptor without a digest")?;
        Ok(format!("blobs/{algorithm}/{hash}"))
    };
    let manifest = read(&path(&read("index.json")?["manifests"][0])?)?;
    let layers = manifest["layers"].as_array().ok_or("a manifest without layers")?;
    let layers = layers.iter().map(path).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({ "Config": path(&manifest["config"])?, "RepoTags": [format!("{NAME}:latest")], "Layers": layers }))
}

fn blob<'a>(layout: &'a Files, name: &str) -> Result<&'a [u8], String> {
    let found = layout.iter().find(|(path, _)| path == name);
    found.map(|(_, bytes)| bytes.as_slice()).ok_or_else(|| format!("it has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_gets_dockers_manifest() {
        let descriptor = |hash: &str| json!({ "digest": format!("sha256:{hash}") });
        let layout = vec![
            ("index.json".to_owned(), json!({ "manifests": [descriptor("m")] }).to_string().into_bytes()),
            (
                "blobs/sha256/m".to_owned(),
                json!({ "config": descriptor("c"), "layers": [descriptor("l")] }).to_string().into_bytes(),
            ),
        ];
        let expected = json!({
            "Config": "blobs/sha256/c", "RepoTags": ["busybox:latest"], "Layers": ["blobs/sha256/l"],
        });
        assert_eq!(docker_manifest(&layout).unwrap(), expected);
        assert_eq!(docker_manifest(&layout[..1].to_vec()).unwrap_err(), "it has no blobs/sha256/m");
    }
}
