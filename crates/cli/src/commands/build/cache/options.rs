//! What stands behind `--cache-from` and `--cache-to` (docs.docker.com/build/cache/backends, "local", "registry",
//! "inline").

use dozen_model::Reference;

use super::super::layout::{Choice, Layout};
use crate::arguments::flags::invalid;
use crate::failure::Failure;

/// Where a cache comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CacheFrom {
    /// A name in a registry. `may_be_image`: or an image of the engine's, with a cache inside.
    Registry {
        name: String,
        may_be_image: bool,
    },
    Directory(Layout, Choice),
}

/// Where one goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CacheTo {
    /// Into the image.
    Inline,
    Directory(Destination),
    Registry(Deposit),
}

/// A name in a registry that a cache goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deposit {
    pub name: String,
    /// As with a directory.
    pub has_all: bool,
    pub compression: Option<String>,
    pub level: Option<i64>,
    pub forces_compression: bool,
    pub ignores_errors: bool,
}

/// A directory that a cache goes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub layout: Layout,
    /// In its index.
    pub name: String,
    /// Of all stages, and not only what the image is made of.
    pub has_all: bool,
    pub compression: Compression,
    /// Also of layers that are there in another form.
    pub forces_compression: bool,
    /// A cache that cannot be written fails no build.
    pub ignores_errors: bool,
}

/// Of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip(u32),
    Zstd(i32),
}

impl Compression {
    /// Of a layer that is compressed so (OCI image-spec, media-types.md).
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip(_) => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd(_) => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    fn read(name: &str, level: Option<i32>) -> Option<Self> {
        let within = |range: std::ops::RangeInclusive<i32>, default: i32| {
            let level = level.unwrap_or(default);
            range.contains(&level).then_some(level)
        };
        match name {
            "uncompressed" => Some(Self::None),
            "gzip" => Some(Self::Gzip(within(0..=9, 6)?.unsigned_abs())),
            // What no decoder takes without being told so is not made (zstd(1), "--ultra").
            "zstd" => Some(Self::Zstd(within(1..=19, 3)?)),
            _ => None,
        }
    }
}

pub(super) fn sources(texts: &[&str]) -> Result<Vec<CacheFrom>, Failure> {
    let mut sources = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let wrong = |why: &str| invalid(text, "cache-from", why);
        // Names alone.
        if !text.contains('=') {
            for name in text.split(',') {
                checked(name).map_err(|why| wrong(&why))?;
                sources.push(CacheFrom::Registry { name: name.to_owned(), may_be_image: true });
            }
            continue;
        }
        let (kind, fields) = fields(text).map_err(|why| wrong(&why))?;
        match kind {
            "local" => {}
            "registry" => {
                let name = registry_source(&fields, &wrong)?;
                sources.push(CacheFrom::Registry { name, may_be_image: false });
                continue;
            }
            other => return Err(other_kind("--cache-from", other)),
        }
        let (mut directory, mut name, mut digest) = (None, "latest".to_owned(), None);
        for (key, value) in fields {
            match key.as_str() {
                "src" => directory = Some(value),
                "tag" => name = value.to_owned(),
                "digest" => {
                    let read = value.parse().map_err(|error: dozen_model::DigestError| wrong(&error.to_string()))?;
                    digest = Some(Choice::Digest(read));
                }
                _ => return Err(Failure::not_built(&format!("{key}={value} of --cache-from type=local"))),
            }
        }
        let directory = directory.ok_or_else(|| wrong("local cache importer requires src"))?;
        sources.push(CacheFrom::Directory(Layout::new(directory), digest.unwrap_or(Choice::Name(name))));
    }
    Ok(sources)
}

pub(super) fn destinations(texts: &[&str]) -> Result<Vec<CacheTo>, Failure> {
    let mut destinations = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        // Names alone.
        if !text.contains('=') {
            for name in text.split(',') {
                destinations.push(CacheTo::Registry(deposit(text, &vec![("ref".to_owned(), name)])?));
            }
            continue;
        }
        let (kind, fields) = fields(text).map_err(|why| invalid(text, "cache-to", why))?;
        destinations.push(match kind {
            "inline" => inline(text, &fields)?,
            "local" => CacheTo::Directory(local(text, &fields)?),
            "registry" => CacheTo::Registry(deposit(text, &fields)?),
            other => return Err(other_kind("--cache-to", other)),
        });
    }
    Ok(destinations)
}

fn registry_source(fields: &Fields<'_>, wrong: &impl Fn(&str) -> Failure) -> Result<String, Failure> {
    let mut name = "";
    for (key, value) in fields {
        match key.as_str() {
            "ref" => name = value,
            _ => return Err(Failure::not_built(&format!("{key}={value} of --cache-from type=registry"))),
        }
    }
    checked(name).map_err(|why| wrong(&why))?;
    Ok(name.to_owned())
}

/// What a name in a registry has to be; the words for none are BuildKit's.
fn checked(name: &str) -> Result<Reference, String> {
    if name.is_empty() {
        return Err("missing ref".to_owned());
    }
    name.parse::<Reference>().map_err(|error| error.to_string())
}

/// "true" or "false", as Go's clients write them.
fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{key}={value}: want true or false")),
    }
}

fn deposit(text: &str, fields: &Fields<'_>) -> Result<Deposit, Failure> {
    let wrong = |why: String| invalid(text, "cache-to", why);
    let (mut name, mut has_all) = ("", false);
    let (mut compression, mut level) = (None, None);
    let (mut forces_compression, mut ignores_errors) = (false, false);
    let not_built = |key: &str, value: &str| Failure::not_built(&format!("{key}={value} of --cache-to type=registry"));
    for (key, value) in fields {
        let flag = || flag(key, value).map_err(wrong);
        match (key.as_str(), *value) {
            ("ref", text) => name = text,
            ("mode", "min") => has_all = false,
            ("mode", "max") => has_all = true,
            ("mode", _) => return Err(wrong(format!("mode={value}: want min or max"))),
            ("compression", "estargz" | "uncompressed") => return Err(not_built(key, value)),
            ("compression", name) => compression = Some(name.to_owned()),
            ("compression-level", text) => {
                level = Some(text.parse().map_err(|_| wrong(format!("compression-level={text}: want a number")))?);
            }
            ("force-compression", _) => forces_compression = flag()?,
            ("ignore-error", _) => ignores_errors = flag()?,
            // It is a manifest of OCI's, and nothing else.
            ("oci-mediatypes" | "image-manifest", _) if flag()? => {}
            _ => return Err(not_built(key, value)),
        }
    }
    if checked(name).map_err(wrong)?.digest().is_some() {
        return Err(wrong("a cache cannot be written to a digest".to_owned()));
    }
    let form = compression.as_deref().unwrap_or("gzip");
    dozen_image::LayerForm::read(form, level).map_err(wrong)?;
    let name = name.to_owned();
    Ok(Deposit { name, has_all, compression, level, forces_compression, ignores_errors })
}

fn inline(text: &str, fields: &Fields<'_>) -> Result<CacheTo, Failure> {
    for (key, value) in fields {
        match (key.as_str(), *value) {
            ("mode", "min") => {}
            ("mode", _) => return Err(invalid(text, "cache-to", "an inline cache has only mode=min")),
            _ => return Err(Failure::not_built(&format!("{key}={value} of --cache-to type=inline"))),
        }
    }
    Ok(CacheTo::Inline)
}

fn local(text: &str, fields: &Fields<'_>) -> Result<Destination, Failure> {
    let wrong = |why: String| invalid(text, "cache-to", why);
    let (mut directory, mut name, mut has_all) = (None, "latest".to_owned(), false);
    let (mut compression, mut level) = ("gzip", None);
    let (mut forces_compression, mut ignores_errors) = (false, false);
    for (key, value) in fields {
        let flag = || flag(key, value).map_err(wrong);
        match (key.as_str(), *value) {
            ("dest", path) => directory = Some(path),
            ("tag", tag) => name = tag.to_owned(),
            ("mode", "min") => has_all = false,
            ("mode", "max") => has_all = true,
            ("mode", _) => return Err(wrong(format!("mode={value}: want min or max"))),
            ("compression", "estargz") => return Err(Failure::not_built("compression=estargz of --cache-to")),
            ("compression", name) => compression = name,
            ("compression-level", text) => {
                level = Some(text.parse().map_err(|_| wrong(format!("compression-level={text}: want a number")))?);
            }
            ("force-compression", _) => forces_compression = flag()?,
            ("ignore-error", _) => ignores_errors = flag()?,
            // It is an OCI layout whose document is a manifest, and nothing else.
            ("oci-mediatypes" | "image-manifest", _) if flag()? => {}
            _ => return Err(Failure::not_built(&format!("{key}={value} of --cache-to type=local"))),
        }
    }
    let compression = Compression::read(compression, level)
        .ok_or_else(|| wrong("want compression=uncompressed, gzip (levels 0-9) or zstd (levels 1-19)".to_owned()))?;
    let directory = directory.ok_or_else(|| wrong("local cache exporter requires dest".to_owned()))?;
    let layout = Layout::new(directory);
    Ok(Destination { layout, name, has_all, compression, forces_compression, ignores_errors })
}

/// Keys in small letters, and what they are.
type Fields<'a> = Vec<(String, &'a str)>;

/// The type, and what else is said.
fn fields(text: &str) -> Result<(&str, Fields<'_>), String> {
    let (mut kind, mut fields) = ("", Vec::new());
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "type" => kind = value,
            key => fields.push((key.to_owned(), value)),
        }
    }
    if kind.is_empty() { Err(format!("type required form> \"{text}\"")) } else { Ok((kind, fields)) }
}

fn other_kind(flag: &str, kind: &str) -> Failure {
    let refused = Failure::not_built(&format!("{flag} type={kind}"));
    match flag {
        "--cache-from" => refused.with_hint("there are type=registry, type=local, and the name of an image"),
        _ => refused.with_hint("there are type=registry, type=local and type=inline"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_buildx_reads_them() {
        let registry = |name: &str, may_be_image| CacheFrom::Registry { name: name.to_owned(), may_be_image };
        let directory = |path: &str, choice| CacheFrom::Directory(Layout::new(path), choice);
        let latest = || Choice::Name("latest".into());
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, expected) in [
            ("web:1,team/app", vec![registry("web:1", true), registry("team/app", true)]),
            ("type=registry,ref=r.example:5000/a:c", vec![registry("r.example:5000/a:c", false)]),
            ("type=local,src=c", vec![directory("c", latest())]),
            ("Type=local,src=c,tag=main", vec![directory("c", Choice::Name("main".into()))]),
            (
                &format!("type=local,src=/c,digest={digest}"),
                vec![directory("/c", Choice::Digest(digest.parse().unwrap()))],
            ),
        ] {
            assert_eq!(sources(&[text]), Ok(expected), "{text}");
        }
        for (text, words) in [
            ("type=local", "local cache importer requires src"),
            ("src=c", "type required form> \"src=c\""),
            ("type=local,src", "invalid value src"),
            ("type=local,src=c,digest=x", "invalid digest"),
            ("type=local,src=c,x=y", "x=y of --cache-from type=local is not built yet"),
            ("type=registry", "missing ref"),
            ("type=registry,ref=A", "invalid reference format"),
            ("type=registry,ref=a,x=y", "x=y of --cache-from type=registry is not built yet"),
            ("type=gha", "--cache-from type=gha is not built yet"),
            ("Web", "invalid reference format"),
        ] {
            let said = sources(&[text]).unwrap_err().message;
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn destinations_are_read_as_buildx_reads_them() {
        let plain = Destination {
            layout: Layout::new("c"),
            name: "latest".into(),
            has_all: false,
            compression: Compression::Gzip(6),
            forces_compression: false,
            ignores_errors: false,
        };
        assert_eq!(destinations(&["type=inline", "type=inline,mode=min"]), Ok(vec![CacheTo::Inline, CacheTo::Inline]));
        assert_eq!(destinations(&["type=local,dest=c"]), Ok(vec![CacheTo::Directory(plain)]));
        let all = "type=local,dest=/c,mode=max,compression=zstd,compression-level=7,tag=main,ignore-error=true,\
            force-compression=1,oci-mediatypes=true,image-manifest=true";
        let expected = Destination {
            layout: Layout::new("/c"),
            name: "main".into(),
            has_all: true,
            compression: Compression::Zstd(7),
            forces_compression: true,
            ignores_errors: true,
        };
        assert_eq!(destinations(&[all]), Ok(vec![CacheTo::Directory(expected)]));
        let plain = Deposit {
            name: "example.org/a".into(),
            has_all: false,
            compression: None,
            level: None,
            forces_compression: false,
            ignores_errors: false,
        };
        for text in ["example.org/a", "type=registry,ref=example.org/a,mode=min,oci-mediatypes=true"] {
            assert_eq!(destinations(&[text]), Ok(vec![CacheTo::Registry(plain.clone())]), "{text}");
        }
        let all = "type=registry,ref=example.org/a,mode=max,compression=zstd,compression-level=7,ignore-error=true,\
            force-compression=1,image-manifest=true";
        let expected = Deposit {
            has_all: true,
            compression: Some("zstd".into()),
            level: Some(7),
            forces_compression: true,
            ignores_errors: true,
            ..plain
        };
        assert_eq!(destinations(&[all]), Ok(vec![CacheTo::Registry(expected)]));
        for (text, words) in [
            ("type=local", "local cache exporter requires dest"),
            ("type=local,dest=c,mode=some", "mode=some: want min or max"),
            ("type=local,dest=c,compression=xz", "want compression=uncompressed"),
            ("type=local,dest=c,compression=gzip,compression-level=10", "gzip (levels 0-9)"),
            ("type=local,dest=c,compression=estargz", "compression=estargz of --cache-to is not built yet"),
            (
                "type=local,dest=c,oci-mediatypes=false",
                "oci-mediatypes=false of --cache-to type=local is not built yet",
            ),
            ("type=local,dest=c,ignore-error=perhaps", "want true or false"),
            ("type=inline,mode=max", "an inline cache has only mode=min"),
            ("type=registry", "missing ref"),
            ("type=registry,ref=a,mode=some", "mode=some: want min or max"),
            ("type=registry,ref=a,compression=xz", "unknown compression \"xz\""),
            ("type=registry,ref=a,compression=zstd,compression-level=99", "invalid compression level"),
            (
                "type=registry,ref=a,compression=uncompressed",
                "compression=uncompressed of --cache-to type=registry is not",
            ),
            (
                "type=registry,ref=a,image-manifest=false",
                "image-manifest=false of --cache-to type=registry is not built",
            ),
            ("type=registry,ref=a,registry.insecure=true", "registry.insecure=true of --cache-to type=registry is not"),
            (&format!("type=registry,ref=a@sha256:{}", "0".repeat(64)), "cannot be written to a digest"),
            ("type=s3,bucket=b", "--cache-to type=s3 is not built yet"),
        ] {
            let said = destinations(&[text]).unwrap_err().message;
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
