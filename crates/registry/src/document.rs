//! What a manifest is, before anything in it is believed: one image's, or a list of several; OCI's or Docker's. What it is
//! said to be, what it says that it is, and what it has in it have to agree: one that is two things at once means another
//! image to each reader (CVE-2021-41190).

use serde::Deserialize;
use serde::de::IgnoredAny;

/// What of it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// Of one image: a configuration and layers.
    Image,
    /// Of several: an index, or Docker's manifest list.
    Index,
}

/// Why it is none. Shown behind the image's name and a colon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum DocumentError {
    #[error(
        "it is of schema 1 (before Docker 1.10), which cannot be verified and is not built: whoever publishes it has to push \
         it anew"
    )]
    SchemaOne,
    #[error("its media type {said:?} is none of an image: {hint}")]
    MediaType { said: String, hint: &'static str },
    #[error("it is malformed: {0}")]
    Malformed(String),
    #[error("it says that it is {says:?}, and is {is}")]
    Lies { says: String, is: &'static str },
    #[error("it has both manifests and layers: nobody knows which of them is meant")]
    Both,
}

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Signed or not.
const SCHEMA_ONE: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// All that a registry may answer with, for `Accept`.
pub(crate) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    config: Option<IgnoredAny>,
    #[serde(default)]
    layers: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

/// Looks at a manifest: at its bytes, and at the `Content-Type` that it came with.
///
/// # Errors
/// See [`DocumentError`].
pub fn document(content_type: &str, bytes: &[u8]) -> Result<Document, DocumentError> {
    let said = essence(content_type);
    if SCHEMA_ONE.contains(&said.as_str()) {
        return Err(DocumentError::SchemaOne);
    }
    // Of a server that has only files of them, the document's own word counts.
    let is_general = matches!(said.as_str(), "" | "application/json" | "application/octet-stream" | "text/plain");
    if kind(&said).is_none() && !is_general {
        let hint = match said.as_str() {
            "text/html" => "what answers is a web page, no registry",
            _ => "there are OCI's and Docker's manifests, indexes and lists",
        };
        return Err(DocumentError::MediaType { said: said.chars().take(100).collect(), hint });
    }
    let written: Written =
        serde_json::from_slice(bytes).map_err(|error| DocumentError::Malformed(error.to_string()))?;
    if written.schema_version == Some(1) || written.fs_layers.is_some() {
        return Err(DocumentError::SchemaOne);
    }
    let (is, name) = match (&written.manifests, written.config.is_some() || written.layers.is_some()) {
        (Some(_), true) => return Err(DocumentError::Both),
        (Some(_), false) => (Document::Index, "an index"),
        (None, true) => (Document::Image, "a manifest"),
        (None, false) => return Err(DocumentError::Malformed("it names neither manifests nor layers".to_owned())),
    };
    let own = written.media_type.as_deref().map(essence);
    for says in own.into_iter().chain((!is_general).then_some(said)) {
        if kind(&says) != Some(is) {
            return Err(DocumentError::Lies { says: says.chars().take(100).collect(), is: name });
        }
    }
    Ok(is)
}

/// Without parameters, in small letters (RFC 9110, section 8.3.1).
pub fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn kind(media_type: &str) -> Option<Document> {
    match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST => Some(Document::Image),
        OCI_INDEX | DOCKER_LIST => Some(Document::Index),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_apart() {
        let image = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let index = r#"{"schemaVersion":2,"manifests":[{},{}]}"#;
        let said = |media_type: &str, body: &str| body.replacen('{', &format!(r#"{{"mediaType":"{media_type}","#), 1);
        for (content_type, body, want) in [
            (OCI_MANIFEST, image.to_owned(), Document::Image),
            (DOCKER_MANIFEST, image.to_owned(), Document::Image),
            (OCI_INDEX, index.to_owned(), Document::Index),
            (
                "Application/VND.docker.distribution.manifest.list.v2+JSON; charset=utf-8",
                index.to_owned(),
                Document::Index,
            ),
            ("application/json", said(OCI_INDEX, index), Document::Index),
            ("", image.to_owned(), Document::Image),
        ] {
            assert_eq!(document(content_type, body.as_bytes()), Ok(want), "{content_type}");
        }
    }

    #[test]
    fn what_is_none_is_named() {
        for (content_type, body, words) in [
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", "", "it is of schema 1"),
            (DOCKER_MANIFEST, r#"{"schemaVersion":1,"config":{}}"#, "it is of schema 1"),
            ("application/json", r#"{"fsLayers":[]}"#, "it is of schema 1"),
            ("text/html", "<html>", "its media type \"text/html\" is none of an image: what answers is a web page"),
            (
                OCI_INDEX,
                r#"{"config":{},"layers":[]}"#,
                "it says that it is \"application/vnd.oci.image.index.v1+json\", and is a manifest",
            ),
            (
                OCI_MANIFEST,
                r#"{"mediaType":"application/vnd.oci.image.index.v1+json","layers":[]}"#,
                "it says that it is",
            ),
            (OCI_MANIFEST, r#"{"mediaType":"x","layers":[]}"#, "it says that it is \"x\""),
            (OCI_INDEX, r#"{"manifests":[],"layers":[]}"#, "it has both manifests and layers"),
            (OCI_INDEX, "{}", "it is malformed: it names neither"),
            (OCI_INDEX, r#"{"manifests":7}"#, "it is malformed: invalid type"),
            (OCI_INDEX, "<html>", "it is malformed: expected value"),
        ] {
            let error = document(content_type, body.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }
}
