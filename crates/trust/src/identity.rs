//! Whether the name that was signed is the one that was asked for (containers-policy.json(5), "signedIdentity"). Without it, a
//! signature for one repository would be good for what somebody copies into another.

use dozen_model::{Reference, is_path_component, is_tag};

/// What the signed name has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The same, tag or digest included.
    Exact,
    /// The same; of who asked by digest the repository.
    RepositoryDigestOrExact,
    /// Of the same repository.
    Repository,
    /// This one.
    ExactReference(SignedName),
    /// Of this repository.
    ExactRepository(SignedName),
    /// As `RepositoryDigestOrExact`, where what lies in `prefix` was signed by what lies in `signed_prefix`.
    Remapped { prefix: String, signed_prefix: String },
}

/// A name as a signature has it: unlike a [`Reference`], it may be of a repository alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedName {
    /// Registry and path.
    repository: String,
    /// `:tag`, `@digest`, both or nothing.
    suffix: String,
}

impl SignedName {
    pub(crate) fn read(text: &str) -> Option<Self> {
        // cosign writes the Hub's other name (go-containerregistry's).
        let read: Reference = text.parse().ok()?;
        let last = text.rsplit('/').next().unwrap_or_default();
        let is_bare = !last.contains([':', '@']);
        let repository = format!("{}/{}", read.registry(), read.path());
        let suffix = match is_bare {
            true => String::new(),
            false => read.to_string().strip_prefix(&repository)?.to_owned(),
        };
        Some(Self { repository, suffix })
    }

    /// An image that is asked for; a tag beside a digest does not count.
    fn of(name: &Reference) -> Self {
        let suffix = match (name.digest(), name.tag()) {
            (Some(digest), _) => format!("@{digest}"),
            (None, Some(tag)) => format!(":{tag}"),
            (None, None) => String::new(),
        };
        Self { repository: format!("{}/{}", name.registry(), name.path()), suffix }
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.suffix.is_empty()
    }

    fn is_exactly(&self, other: &Self) -> bool {
        !self.is_bare() && self == other
    }
}

impl std::fmt::Display for SignedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.repository, self.suffix)
    }
}

impl Identity {
    pub(crate) fn accepts(&self, asked: &Reference, signed: &SignedName) -> bool {
        let own = SignedName::of(asked);
        match self {
            Self::Exact => own.is_exactly(signed),
            Self::RepositoryDigestOrExact => of_digest_or_exact(&own, signed),
            Self::Repository => own.repository == signed.repository,
            Self::ExactReference(wanted) => wanted.is_exactly(signed),
            Self::ExactRepository(wanted) => wanted.repository == signed.repository,
            Self::Remapped { prefix, signed_prefix } => {
                let behind = own.repository.strip_prefix(prefix.as_str());
                match behind.filter(|behind| behind.is_empty() || behind.starts_with('/')) {
                    Some(behind) => {
                        let repository = format!("{signed_prefix}{behind}");
                        of_digest_or_exact(&SignedName { repository, ..own }, signed)
                    }
                    None => of_digest_or_exact(&own, signed),
                }
            }
        }
    }

    /// For people: what a signature has to name.
    pub(crate) fn wanted(&self, asked: &Reference) -> String {
        let own = SignedName::of(asked);
        match self {
            Self::Repository => format!("the repository {}", own.repository),
            Self::ExactReference(wanted) => wanted.to_string(),
            Self::ExactRepository(wanted) => format!("the repository {}", wanted.repository),
            Self::Remapped { prefix, signed_prefix } => format!("{own}, with {signed_prefix} for {prefix}"),
            Self::Exact | Self::RepositoryDigestOrExact => own.to_string(),
        }
    }
}

/// That the digest is right is looked at elsewhere. What is signed has a tag or a digest in any case.
fn of_digest_or_exact(own: &SignedName, signed: &SignedName) -> bool {
    match own.suffix.starts_with('@') {
        true => !signed.is_bare() && own.repository == signed.repository,
        false => own.is_exactly(signed),
    }
}

/// A registry's host, a repository, or something in which repositories lie, for `remapIdentity`.
pub(crate) fn is_prefix(text: &str) -> bool {
    let (host, path) = text.split_once('/').map_or((text, None), |(host, path)| (host, Some(path)));
    let is_host = format!("{host}/a/b").parse::<Reference>().is_ok_and(|image| image.registry() == host);
    is_host && path.is_none_or(|path| path.split('/').all(is_path_component))
}

/// As a signature of this name has it. A name by digest alone is signed as its repository's, as cosign does.
pub(crate) fn signed_name(name: &Reference) -> String {
    match name.tag().filter(|tag| name.digest().is_none() && is_tag(tag)) {
        Some(_) => name.to_string(),
        None => format!("{}/{}", name.registry(), name.path()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// For which of these signed names an image is accepted.
    fn accepted(identity: &Identity, asked: &str) -> Vec<&'static str> {
        let by_digest: &'static str = Box::leak(format!("r.example/a/b{DIGEST}").into_boxed_str());
        let signed = [
            "r.example/a/b:1",
            "r.example/a/b:2",
            "r.example/a/b",
            by_digest,
            "r.example/a/bc:1",
            "other.example/a/b:1",
            "s.example/x/b:1",
            "s.example/x/b",
        ];
        let asked: Reference = asked.parse().unwrap();
        signed.into_iter().filter(|signed| identity.accepts(&asked, &SignedName::read(signed).unwrap())).collect()
    }

    #[test]
    fn names_are_compared_as_the_rule_says() {
        let by_digest = &format!("r.example/a/b{DIGEST}");
        let both = &format!("r.example/a/b:1{DIGEST}");
        let name = |text: &str| SignedName::read(text).unwrap();
        let remapped = Identity::Remapped { prefix: "r.example/a".to_owned(), signed_prefix: "s.example/x".to_owned() };
        let elsewhere =
            Identity::Remapped { prefix: "r.example/a/b".to_owned(), signed_prefix: "s.example/x/b".to_owned() };
        for (identity, asked, want) in [
            (Identity::Exact, "r.example/a/b:1", vec!["r.example/a/b:1"]),
            (Identity::Exact, by_digest, vec![by_digest]),
            (Identity::RepositoryDigestOrExact, "r.example/a/b:1", vec!["r.example/a/b:1"]),
            (Identity::RepositoryDigestOrExact, by_digest, vec!["r.example/a/b:1", "r.example/a/b:2", by_digest]),
            (Identity::RepositoryDigestOrExact, both, vec!["r.example/a/b:1", "r.example/a/b:2", by_digest]),
            (
                Identity::Repository,
                "r.example/a/b:1",
                vec!["r.example/a/b:1", "r.example/a/b:2", "r.example/a/b", by_digest],
            ),
            (Identity::ExactReference(name("r.example/a/b:2")), "q.example/c:1", vec!["r.example/a/b:2"]),
            (
                Identity::ExactRepository(name("s.example/x/b")),
                "r.example/a/b:1",
                vec!["s.example/x/b:1", "s.example/x/b"],
            ),
            (remapped.clone(), "r.example/a/b:1", vec!["s.example/x/b:1"]),
            (elsewhere.clone(), "r.example/a/b:1", vec!["s.example/x/b:1"]),
            // What is not in it is compared as it is.
            (elsewhere, "r.example/a/bc:1", vec!["r.example/a/bc:1"]),
            (remapped, by_digest, vec!["s.example/x/b:1"]),
        ] {
            assert_eq!(accepted(&identity, asked), want, "{identity:?} {asked}");
        }
    }

    #[test]
    fn the_hub_has_one_name() {
        let identity = Identity::Repository;
        let asked: Reference = "debian:12".parse().unwrap();
        for (signed, is_good) in [
            ("docker.io/library/debian", true),
            ("index.docker.io/library/debian", true),
            ("debian", true),
            ("debian:11", true),
            ("docker.io/debian2", false),
        ] {
            assert_eq!(identity.accepts(&asked, &SignedName::read(signed).unwrap()), is_good, "{signed}");
        }
        assert_eq!(SignedName::read("a b"), None);
    }

    #[test]
    fn a_prefix_is_of_registries() {
        for (text, is_one) in
            [("r.example", true), ("localhost:5000/a", true), ("team/a", false), ("r.example/", false), ("", false)]
        {
            assert_eq!(is_prefix(text), is_one, "{text}");
        }
    }
}
