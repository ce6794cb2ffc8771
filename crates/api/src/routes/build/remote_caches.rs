//! Caches in registries, as a client of ours names them in the body's first line.

use dozen_engine::image::LayerForm;
use dozen_engine::{CacheDestination, CacheSource};
use dozen_model::Reference;
use serde::Deserialize;

use crate::error::ApiError;

/// One that a build may find its steps in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct CacheFrom {
    name: String,
    /// An image of the engine's that is called so comes first.
    #[serde(default)]
    may_be_image: bool,
}

/// One that is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct CacheTo {
    name: String,
    /// `mode=max`.
    #[serde(default)]
    has_all: bool,
    #[serde(default)]
    compression: Option<String>,
    #[serde(default)]
    compression_level: Option<i64>,
    #[serde(default)]
    forces_compression: bool,
    #[serde(default)]
    ignores_errors: bool,
}

impl CacheFrom {
    pub(super) fn read(self) -> Result<CacheSource, ApiError> {
        let Self { name, may_be_image } = self;
        Ok(CacheSource { reference: name.parse()?, name, may_be_image })
    }
}

impl CacheTo {
    pub(super) fn read(self) -> Result<CacheDestination, ApiError> {
        let Self { name, has_all, compression, compression_level, forces_compression, ignores_errors } = self;
        let reference: Reference = name.parse()?;
        if reference.digest().is_some() {
            return Err(
                ApiError::invalid(format!("a cache cannot be written to a digest ({name})")).with_hint("name a tag")
            );
        }
        let form = match (compression.as_deref(), compression_level) {
            (None, None) => LayerForm::default(),
            (form, level) => LayerForm::read(form.unwrap_or("gzip"), level).map_err(ApiError::invalid)?,
        };
        let is_forced = forces_compression;
        Ok(CacheDestination { reference, name, has_all, form, is_forced, ignores_errors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> Result<CacheDestination, ApiError> {
        serde_json::from_str::<CacheTo>(text).unwrap().read()
    }

    #[test]
    fn where_a_cache_goes_is_read() {
        let plain = to(r#"{"Name":"r.example/app:cache"}"#).unwrap();
        let expected = CacheDestination {
            reference: "r.example/app:cache".parse().unwrap(),
            name: "r.example/app:cache".into(),
            has_all: false,
            form: LayerForm::default(),
            is_forced: false,
            ignores_errors: false,
        };
        assert_eq!(plain, expected);
        let all = r#"{"Name":"r.example/app:cache","HasAll":true,"Compression":"zstd","CompressionLevel":7,
            "ForcesCompression":true,"IgnoresErrors":true}"#;
        let zstd = LayerForm::read("zstd", Some(7)).unwrap();
        let expected =
            CacheDestination { has_all: true, form: zstd, is_forced: true, ignores_errors: true, ..expected };
        assert_eq!(to(all).unwrap(), expected);
        let digest = format!(r#"{{"Name":"a@sha256:{}"}}"#, "0".repeat(64));
        for (text, words) in [
            (r#"{"Name":"A"}"#, "invalid reference format"),
            (&digest, "a cache cannot be written to a digest"),
            (r#"{"Name":"a","Compression":"uncompressed"}"#, "compression uncompressed is not built yet"),
            (r#"{"Name":"a","Compression":"gzip","CompressionLevel":99}"#, "invalid compression level"),
        ] {
            let error = to(text).unwrap_err();
            assert!(error.message.contains(words), "{text}: {}", error.message);
        }
    }
}
