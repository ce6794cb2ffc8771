//! Names of repositories, tags, and what a manifest is called by (distribution-spec 1.1, "Pulling manifests").

use std::fmt;
use std::str::FromStr;

use dozen_model::{Digest, is_path_component, is_tag};

/// Longer ones no client can say together with a host (the same section).
const LONGEST_NAME_BYTES: usize = 255;

/// The name of a repository: `library/debian`. Never a path of the file system: it is only ever a value in the index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Box<str>);

impl RepositoryName {
    /// As it was said.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for RepositoryName {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let is_name = text.len() <= LONGEST_NAME_BYTES && text.split('/').all(is_path_component);
        if is_name { Ok(Self(text.into())) } else { Err(()) }
    }
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

impl Tag {
    /// As it was said.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        if is_tag(text) { Ok(Self(text.into())) } else { Err(()) }
    }
}

/// By what a manifest is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestReference {
    /// Whatever has the tag at the moment.
    Tag(Tag),
    /// This and no other.
    Digest(Digest),
}

impl FromStr for ManifestReference {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        // No tag has a colon in it.
        match text.contains(':') {
            true => text.parse().map(Self::Digest).map_err(|_| ()),
            false => text.parse().map(Self::Tag),
        }
    }
}

impl fmt::Display for ManifestReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => formatter.write_str(tag.as_str()),
            Self::Digest(digest) => formatter.write_str(digest.as_str()),
        }
    }
}

/// The digits of an upload's name: 128 random bits, so that nobody comes to another's by chance or by trying.
const UPLOAD_DIGITS: usize = 32;

/// What an upload is called. Safe as a file name: digits only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(Box<str>);

impl UploadId {
    /// One that nobody has had before.
    pub fn random() -> Self {
        let mut bytes = [0; UPLOAD_DIGITS / 2];
        getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
    }

    /// As it was said.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UploadId {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == UPLOAD_DIGITS && text.bytes().all(is_digit) { Ok(Self(text.into())) } else { Err(()) }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tags_and_ids_are_what_the_specification_says_or_are_refused() {
        for good in ["a", "library/debian", "a/b/c/d", "a_b", "a__b", "a.b", "a---b", "0", &"a".repeat(255)] {
            assert_eq!(good.parse::<RepositoryName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        let long = "a".repeat(256);
        for bad in
            ["", "/", "a/", "/a", "a//b", "..", "a/../b", "./a", "A", "a b", "a:b", "a_", "a___b", "a\0b", "ä", &long]
        {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad:?}");
        }
        let digest = format!("sha256:{}", "0a".repeat(32));
        assert!(matches!(digest.parse(), Ok(ManifestReference::Digest(_))));
        assert!(matches!("v1.0_a-b".parse(), Ok(ManifestReference::Tag(_))));
        for bad in ["", ".a", "-a", "sha256:1", "a/b", "a:b", &"a".repeat(129)] {
            assert!(bad.parse::<ManifestReference>().is_err(), "{bad:?}");
        }
        let id = UploadId::random();
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_ne!(id, UploadId::random());
        for bad in
            ["", "..", &id.as_str().to_uppercase().replace(|c: char| c.is_ascii_digit(), "A"), "../../etc/passwd"]
        {
            assert!(bad.parse::<UploadId>().is_err(), "{bad:?}");
        }
    }
}
