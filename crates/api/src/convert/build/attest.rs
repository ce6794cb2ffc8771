//! `attest=type=provenance,mode=max`, `attest=type=sbom`: what is said of an image beside it, in buildx's words
//! (docs.docker.com/reference/cli/docker/buildx/build, "--attest"). Given again for a type, the last one counts.

use dozen_engine::{Attestations, ProvenanceWanted};

use crate::error::ApiError;

pub(super) fn read<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Attestations, ApiError> {
    let mut wanted = Attestations::default();
    for text in texts.filter(|text| !text.is_empty()) {
        let (mut kind, mut is_disabled) = ("", false);
        let mut options = Vec::new();
        for field in text.split(',') {
            let (key, value) = field
                .split_once('=')
                .ok_or_else(|| ApiError::invalid(format!("attestation {text:?}: {field:?} is no key=value")))?;
            match key.trim().to_ascii_lowercase().as_str() {
                "type" => kind = value,
                "disabled" => is_disabled = boolean(text, value)?,
                key => options.push((key.to_owned(), value)),
            }
        }
        match kind {
            "provenance" => wanted.provenance = (!is_disabled).then(|| provenance(text, &options)).transpose()?,
            "sbom" => {
                if let Some((key, value)) = options.first() {
                    return Err(not_built(key, value, "the engine itself looks for the packages: leave it out"));
                }
                wanted.bill_of_materials = !is_disabled;
            }
            "" => return Err(ApiError::invalid(format!("attestation {text:?}: type is required"))),
            other => {
                return Err(ApiError::not_built(format_args!("attestations of type {other:?}"))
                    .with_hint("there are provenance and sbom"));
            }
        }
    }
    Ok(wanted)
}

fn provenance(text: &str, options: &[(String, &str)]) -> Result<ProvenanceWanted, ApiError> {
    let mut wanted = ProvenanceWanted::default();
    for (key, value) in options {
        match (key.as_str(), *value) {
            ("mode", "min") => wanted.is_full = false,
            ("mode", "max") => wanted.is_full = true,
            ("mode", other) => {
                return Err(ApiError::invalid(format!(
                    "attestation {text:?}: the mode {other:?} is neither min nor max"
                )));
            }
            ("builder-id", id) => wanted.builder = id.to_owned(),
            ("version", "v1") => {}
            // They ask for what is so anyway.
            ("inline-only" | "reproducible", value) if !boolean(text, value)? => {}
            ("version", _) => return Err(not_built(key, value, "it is SLSA's version 1: version=v1")),
            _ => return Err(not_built(key, value, "leave it out")),
        }
    }
    Ok(wanted)
}

/// As Go reads it (strconv, ParseBool).
fn boolean(text: &str, value: &str) -> Result<bool, ApiError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ApiError::invalid(format!("attestation {text:?}: {value:?} is neither true nor false"))),
    }
}

fn not_built(key: &str, value: &str, hint: &str) -> ApiError {
    ApiError::not_built(format_args!("{key}={value} of an attestation")).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_read_or_refused_by_name() {
        let provenance = |is_full, builder: &str| Attestations {
            provenance: Some(ProvenanceWanted { is_full, builder: builder.into() }),
            bill_of_materials: false,
        };
        let sbom = Attestations { provenance: None, bill_of_materials: true };
        for (texts, expected) in [
            (&[][..], Attestations::default()),
            (&["", "type=provenance,disabled=true", "type=sbom,disabled=1"], Attestations::default()),
            (&["type=provenance"], provenance(false, "")),
            (&["type=provenance,mode=max,builder-id=https://b,version=v1"], provenance(true, "https://b")),
            (&["mode=min,type=provenance,disabled=false,inline-only=false"], provenance(false, "")),
            (&["type=sbom"], sbom),
            (&["type=sbom", "type=sbom,disabled=true"], Attestations::default()),
            (&["type=provenance,mode=max", "type=provenance"], provenance(false, "")),
        ] {
            assert_eq!(read(texts.iter().copied()).unwrap(), expected, "{texts:?}");
        }
        for (text, status, words) in [
            ("sbom", 400, "is no key=value"),
            ("mode=max", 400, "type is required"),
            ("type=provenance,mode=all", 400, "the mode \"all\" is neither min nor max"),
            ("type=provenance,disabled=maybe", 400, "neither true nor false"),
            ("type=provenance,version=v0.2", 501, "version=v0.2 of an attestation is not built yet"),
            ("type=provenance,reproducible=true", 501, "reproducible=true of an attestation"),
            ("type=provenance,filename=x", 501, "filename=x of an attestation"),
            (
                "type=sbom,generator=docker/scout-sbom-indexer",
                501,
                "generator=docker/scout-sbom-indexer of an attestation",
            ),
            ("type=vex", 501, "attestations of type \"vex\" is not built yet"),
        ] {
            let error = read([text].into_iter()).unwrap_err();
            assert!(error.status() == status && error.message.contains(words), "{text}: {}", error.message);
        }
    }
}
