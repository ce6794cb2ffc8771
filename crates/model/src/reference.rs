//! Image references: `[registry/]path[:tag][@digest]`, after the grammar of the distribution project's
//! `reference` package (distribution-spec, "Pulling manifests", takes its names from it).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The registry of a reference that names none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The first component of a one-word name at the default registry.
const DEFAULT_NAMESPACE: &str = "library";
/// The tag of a reference that names neither tag nor digest.
const DEFAULT_TAG: &str = "latest";

/// A reference in full: what was left out has been filled in.
///
/// `Display` gives the full form, [`Reference::familiar`] the form that people type and listings show.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is no reference. The first words are Docker's, which scripts match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: {why}: {text:?}")]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

impl Reference {
    /// Host and port of the registry: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path in the registry: `library/debian`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag. At least one of tag and digest is there.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and path in the form that people type: `debian`, `team/app`, `localhost:5000/app`.
    ///
    /// It names the same repository when it is read again: `docker.io/other.example/app` stays as it is, for without its
    /// registry it would be another's.
    pub fn familiar_name(&self) -> String {
        let first = self.path.split('/').next().unwrap_or_default();
        match (self.registry.as_str(), self.path.strip_prefix("library/")) {
            (DEFAULT_REGISTRY, _) if is_registry(first) => format!("{}/{}", self.registry, self.path),
            (DEFAULT_REGISTRY, Some(name)) if !name.contains('/') => name.to_owned(),
            (DEFAULT_REGISTRY, _) => self.path.clone(),
            _ => format!("{}/{}", self.registry, self.path),
        }
    }

    /// The form that people type, with its tag: `debian:bookworm`.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    /// The same repository with another tag, and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        let whole = format!("{}/{}:{tag}", self.registry, self.path);
        if is_tag(tag) {
            Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
        } else {
            Err(error(&whole, "a tag is up to 128 letters, digits, '_', '.' and '-'"))
        }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => {
                let digest = digest.parse().map_err(|_| error(text, "the part after '@' is no digest"))?;
                (named, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash begins the tag; one before it belongs to the registry's port.
        let last = named.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match named[last..].split_once(':') {
            Some((_, tag)) => (&named[..named.len() - tag.len() - 1], Some(tag)),
            None => (named, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(error(text, "a tag is up to 128 letters, digits, '_', '.' and '-'"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
            Some(_) => (DEFAULT_REGISTRY, name.to_owned()),
            None => (DEFAULT_REGISTRY, format!("{DEFAULT_NAMESPACE}/{name}")),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let path = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("{DEFAULT_NAMESPACE}/{path}")
        } else {
            path
        };
        if name.is_empty() {
            return Err(error(text, "the name is empty"));
        }
        if name.chars().any(|c| c.is_ascii_uppercase()) && path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(error(text, "repository name must be lowercase"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(error(text, "a name is lower-case letters and digits, parted by '/', '.', '_' or '-'"));
        }
        if registry.len() + path.len() + 1 > 255 {
            return Err(error(text, "the name is longer than 255 characters"));
        }
        if tag.is_none() && digest.is_none() && name.len() == 64 && crate::hex::is_hex_64(name) {
            return Err(error(text, "a name of 64 hexadecimal digits would be taken for an id"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), path, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.path, self.suffix())
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

fn error(text: &str, why: &'static str) -> ReferenceError {
    ReferenceError { text: text.chars().take(300).collect(), why }
}

/// A first component is a registry if it cannot be a user's name: it has a dot, a port, or is localhost.
fn is_registry(component: &str) -> bool {
    let (host, port) = match component.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (component, None),
    };
    let looks_like_a_host = component.contains(['.', ':']) || component == "localhost";
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_is_valid = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    let port_is_valid = port.is_none_or(|port| port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit()));
    looks_like_a_host && host_is_valid && port_is_valid
}

/// Up to 128 letters, digits, `_`, `.` and `-`; neither of the last two first.
pub fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    (1..=128).contains(&bytes.len())
        && (bytes[0].is_ascii_alphanumeric() || bytes[0] == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// A component of a repository's path: runs of lower-case letters and digits, parted by one `.`, one or two `_`, or any
/// number of `-`.
pub fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(*first)
        && alphanumeric(*last)
        && bytes
            .split(|b| alphanumeric(*b))
            .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, full: &str, familiar: &str) {
        let reference: Reference = text.parse().unwrap();
        assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (full, familiar));
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        check("debian", "docker.io/library/debian:latest", "debian:latest");
        check("debian:bookworm-slim", "docker.io/library/debian:bookworm-slim", "debian:bookworm-slim");
        check("team/app", "docker.io/team/app:latest", "team/app:latest");
        check("localhost/app", "localhost/app:latest", "localhost/app:latest");
        check("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1");
        check("[::1]:5000/a/b", "[::1]:5000/a/b:latest", "[::1]:5000/a/b:latest");
        check("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest");
        check("docker.io/b.example/a", "docker.io/b.example/a:latest", "docker.io/b.example/a:latest");
        check("docker.io/localhost/a", "docker.io/localhost/a:latest", "docker.io/localhost/a:latest");
        let digest = format!("sha256:{}", "ab".repeat(32));
        check(&format!("a@{digest}"), &format!("docker.io/library/a@{digest}"), &format!("a@{digest}"));
        check(&format!("a:1@{digest}"), &format!("docker.io/library/a:1@{digest}"), &format!("a:1@{digest}"));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "a".repeat(256);
        for bad in [
            "",
            ":",
            "a:",
            "UPPER",
            "a/B",
            "a//b",
            "a@sha256:1",
            "-a",
            "a-",
            "a..b",
            "a:b:c",
            "a b",
            "../a",
            "a/",
            &long,
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference.clone()));
                prop_assert_eq!(reference.familiar().parse::<Reference>(), Ok(reference));
            }
        }

        #[test]
        fn what_looks_like_a_reference_parses_back(text in "([a-z]{1,5}[.:]?[0-9]{0,4}/)?[a-z0-9]{1,5}([._-][a-z0-9]{1,4})?(:[a-z0-9]{1,5})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
            }
        }
    }
}
