//! An OCI image layout (image-spec image-layout.md) as one tar.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::recipe::{Recipe, SOURCE_DATE_EPOCH};
use super::tarball::{difference, hex};
use crate::failure::{Attempt, Failure};

/// 2025-01-01T00:00:00Z is [`SOURCE_DATE_EPOCH`]; a test holds the two together.
const CREATED: &str = "2025-01-01T00:00:00Z";

/// A layer that lies packed in a file.
struct Layer {
    digest: String,
    size: u64,
    diff_id: String,
}

/// Writes the archive of an image whose root file system is the tar `root`. With a base, whose archive lies at `base`,
/// the base's layers come first and only the difference is a layer of its own.
pub fn write(
    target: &Path,
    recipe: &Recipe,
    architecture: &str,
    root: &Path,
    base: Option<&Path>,
    scratch: &Path,
) -> Result<(), Failure> {
    let doing = format!("pack image {}", recipe.name);
    let mut layers = match base {
        Some(base) => layers_of(base).attempting(format_args!("read {}", base.display()))?,
        None => Vec::new(),
    };
    let packed = scratch.join("layer.tar.gz");
    let whole = open(root).attempting(&doing)?;
    let mut packer = Packer::create(&packed).attempting(&doing)?;
    match (base, layers.last()) {
        (Some(base), Some(lower)) => {
            let blob = blob(base, &lower.digest).attempting(&doing)?;
            difference(BufReader::new(GzDecoder::new(blob)), whole, &mut packer).attempting(&doing)?;
        }
        _ => {
            io::copy(&mut { whole }, &mut packer).attempting(&doing)?;
        }
    }
    let own = packer.finish().attempting(&doing)?;
    let own_digest = own.digest.clone();
    layers.push(own);
    archive(target, recipe, architecture, &layers, |digest, into| {
        if *digest == own_digest {
            return io::copy(&mut File::open(&packed)?, into).map(|_| ());
        }
        let base = base.ok_or_else(|| io::Error::other("a layer of nobody"))?;
        io::copy(&mut blob(base, digest)?, into).map(|_| ())
    })
    .attempting(&doing)
}

fn open(root: &Path) -> io::Result<impl Read + use<>> {
    let file = File::open(root)?;
    let bar = super::byte_bar(file.metadata()?.len(), "packing");
    Ok(BufReader::with_capacity(1 << 20, bar.wrap_read(file)))
}

fn archive(
    target: &Path,
    recipe: &Recipe,
    architecture: &str,
    layers: &[Layer],
    mut copy: impl FnMut(&String, &mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let history: Vec<Value> = (recipe.chain().iter())
        .map(|link| json!({ "created": CREATED, "created_by": format!("packages of {}", link.name) }))
        .collect();
    let diff_ids: Vec<&String> = layers.iter().map(|layer| &layer.diff_id).collect();
    let config = json!({
        "created": CREATED, "architecture": architecture, "os": "linux", "config": (recipe.config)(),
        "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": history,
    })
    .to_string();
    let describe = |kind: &str, bytes: &str| json!({ "mediaType": kind, "digest": sha256(bytes), "size": bytes.len() });
    let layer_descriptors: Vec<Value> = (layers.iter())
        .map(|layer| {
            let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
            json!({ "mediaType": kind, "digest": layer.digest, "size": layer.size })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("application/vnd.oci.image.config.v1+json", &config), "layers": layer_descriptors,
    })
    .to_string();
    let (repository, tag) = recipe.repository_and_tag();
    let mut pointer = describe("application/vnd.oci.image.manifest.v1+json", &manifest);
    pointer["platform"] = json!({ "architecture": architecture, "os": "linux" });
    pointer["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/{repository}:{tag}"),
        "org.opencontainers.image.ref.name": tag,
    });
    let index =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [pointer] });

    let mut builder = tar::Builder::new(BufWriter::with_capacity(1 << 20, File::create(target)?));
    let add = |builder: &mut tar::Builder<_>, path: &str, bytes: &str| {
        builder.append_data(&mut header(bytes.len() as u64), path, bytes.as_bytes())
    };
    add(&mut builder, "oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut builder, "index.json", &index.to_string())?;
    add(&mut builder, &blob_path(&sha256(&manifest)), &manifest)?;
    add(&mut builder, &blob_path(&sha256(&config)), &config)?;
    for layer in layers {
        let mut header = header(layer.size);
        header.set_path(blob_path(&layer.digest))?;
        header.set_cksum();
        let out = builder.get_mut();
        out.write_all(header.as_bytes())?;
        copy(&layer.digest, out)?;
        out.write_all(&[0; 512][..(layer.size.next_multiple_of(512) - layer.size) as usize])?;
    }
    builder.into_inner()?.into_inner().map_err(|error| error.into_error())?.sync_all()
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_mtime(SOURCE_DATE_EPOCH);
    header.set_size(size);
    header
}

fn sha256(text: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(text)))
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// The layers of an archive that we wrote.
fn layers_of(archive: &Path) -> io::Result<Vec<Layer>> {
    let read = |path: &str| -> io::Result<Value> { Ok(serde_json::from_reader(entry(archive, path)?)?) };
    let text =
        |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| io::Error::other("not an archive of ours"));
    let index = read("index.json")?;
    let manifest = read(&blob_path(&text(&index["manifests"][0]["digest"])?))?;
    let config = read(&blob_path(&text(&manifest["config"]["digest"])?))?;
    let descriptors = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    (descriptors.iter().enumerate())
        .map(|(number, layer)| {
            let diff_id = text(&config["rootfs"]["diff_ids"][number])?;
            Ok(Layer { digest: text(&layer["digest"])?, size: layer["size"].as_u64().unwrap_or_default(), diff_id })
        })
        .collect()
}

fn blob(archive: &Path, digest: &str) -> io::Result<impl Read + use<>> {
    entry(archive, &blob_path(digest))
}

/// One file of an archive: its place is found, then the file is read from there.
fn entry(archive: &Path, path: &str) -> io::Result<impl Read + use<>> {
    use std::io::{Seek, SeekFrom};
    let mut reader = tar::Archive::new(File::open(archive)?);
    for entry in reader.entries_with_seek()? {
        let entry = entry?;
        if entry.path()?.as_ref() == Path::new(path) {
            let mut file = File::open(archive)?;
            file.seek(SeekFrom::Start(entry.raw_file_position()))?;
            return Ok(BufReader::with_capacity(1 << 20, file.take(entry.size())));
        }
    }
    Err(io::Error::other(format!("it has no {path}")))
}

/// Hashes, packs and hashes again what is written to it.
struct Packer {
    plain: Sha256,
    packed: GzEncoder<Hashing>,
}

struct Hashing {
    hasher: Sha256,
    size: u64,
    file: BufWriter<File>,
}

impl Packer {
    fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let packed = GzEncoder::new(Hashing { hasher: Sha256::new(), size: 0, file }, Compression::new(6));
        Ok(Self { plain: Sha256::new(), packed })
    }

    fn finish(self) -> io::Result<Layer> {
        let Hashing { hasher, size, mut file } = self.packed.finish()?;
        file.flush()?;
        let name = |hasher: Sha256| format!("sha256:{}", hex(&hasher.finalize()));
        Ok(Layer { digest: name(hasher), size, diff_id: name(self.plain) })
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.packed.write_all(bytes)?;
        self.plain.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.packed.flush()
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(path: &Path, files: &[(&str, &str)]) {
        let mut builder = tar::Builder::new(File::create(path).unwrap());
        for (name, text) in files {
            builder.append_data(&mut header(text.len() as u64), name, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap();
    }

    #[test]
    fn an_image_on_a_base_shares_its_layer_and_is_the_same_every_time() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let (lower, upper) =
            (super::super::recipe::find("debian:bookworm-slim"), super::super::recipe::find("redis:7"));
        root(&at("lower"), &[("a", "1"), ("b", "1")]);
        root(&at("upper"), &[("a", "1"), ("b", "2")]);
        write(&at("base.tar"), lower.unwrap(), "amd64", &at("lower"), None, scratch.path()).unwrap();
        let upper = upper.unwrap();
        for name in ["one.tar", "two.tar"] {
            write(&at(name), upper, "amd64", &at("upper"), Some(&at("base.tar")), scratch.path()).unwrap();
        }
        assert_eq!(std::fs::read(at("one.tar")).unwrap(), std::fs::read(at("two.tar")).unwrap());

        let (base, layers) = (layers_of(&at("base.tar")).unwrap(), layers_of(&at("one.tar")).unwrap());
        assert_eq!(layers.len(), 2);
        assert_eq!(base[0].digest, layers[0].digest);
        for layer in &layers {
            let mut packed = Vec::new();
            blob(&at("one.tar"), &layer.digest).unwrap().read_to_end(&mut packed).unwrap();
            assert_eq!(format!("sha256:{}", hex(&Sha256::digest(&packed))), layer.digest);
            let mut plain = Vec::new();
            GzDecoder::new(packed.as_slice()).read_to_end(&mut plain).unwrap();
            assert_eq!(format!("sha256:{}", hex(&Sha256::digest(&plain))), layer.diff_id);
        }
    }

    #[test]
    fn both_spellings_of_the_time_agree() {
        // 55 years from 1970 to 2025, of which 14 were leap years (1972, …, 2024).
        assert_eq!((55 * 365 + 14) * 86_400, SOURCE_DATE_EPOCH);
        assert!(CREATED.starts_with("2025-01-01T00:00:00"));
    }
}
