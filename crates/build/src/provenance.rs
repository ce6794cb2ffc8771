//! Where an image comes from: who has built it, from what, as it was asked for (slsa.dev/spec/v1.0/provenance). What belongs
//! to builds of Dockerfiles is called as BuildKit calls it (docs/attestations/slsa-definitions.md there).

use dozen_dockerfile::scope::Given;
use dozen_model::{Digest, base64};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::packages::encoded;

/// What stands in a statement for this kind of document.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// Says what the parameters mean.
const BUILD_TYPE: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// What may be known of a public image.
    #[default]
    Minimum,
    /// Values of build arguments, names of secrets and agents, and the Dockerfile besides.
    Maximum,
}

/// A build that is done.
#[derive(Debug, Clone)]
pub struct Provenance<'a> {
    /// How much is told.
    pub mode: Mode,
    /// Who builds, as an address; empty: nobody has said.
    pub builder: &'a str,
    /// The Dockerfile's name and its text.
    pub dockerfile: (&'a str, &'a str),
    /// Arguments, platforms, target.
    pub given: &'a Given,
    /// Names of secrets that were given.
    pub secrets: Vec<&'a str>,
    /// Names of agents that were given.
    pub agents: Vec<&'a str>,
    /// What it was made of.
    pub dependencies: &'a [Dependency],
    /// This build's and no other's.
    pub invocation: &'a str,
    /// When it began.
    pub began: Timestamp,
    /// When it was done.
    pub finished: Timestamp,
}

/// Something that a build has taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependency {
    /// An image: its name, for which platform, and what it is known by.
    Image {
        /// As it was written.
        name: String,
        /// `linux/amd64`.
        platform: String,
        /// What it is.
        digest: ImageDigest,
    },
    /// A file by HTTP, and its digest if the Dockerfile says it.
    File(String, Option<Digest>),
}

/// By what an image is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageDigest {
    /// The manifest or the index that it came with.
    Manifest(Digest),
    /// Its configuration, if it came with none.
    Configuration(Digest),
}

impl Provenance<'_> {
    /// The predicate.
    pub fn predicate(&self) -> Value {
        let is_full = self.mode == Mode::Maximum;
        let (name, text) = self.dockerfile;
        let mut request = json!({
            "frontend": "dockerfile.v0",
            "locals": [{ "name": "context" }, { "name": "dockerfile" }],
        });
        let mut metadata = json!({
            "invocationId": self.invocation,
            "startedOn": self.began,
            "finishedOn": self.finished,
            // Of the context and of what commands fetch nothing is known.
            "buildkit_completeness": { "request": is_full, "resolvedDependencies": false },
        });
        if is_full {
            request["args"] = self.arguments();
            let named = |names: &[&str]| -> Value { names.iter().map(|id| json!({ "id": id })).collect() };
            if !self.secrets.is_empty() {
                request["secrets"] = named(&self.secrets);
            }
            if !self.agents.is_empty() {
                request["ssh"] = named(&self.agents);
            }
            metadata["buildkit_metadata"] = json!({
                "source": {
                    "infos": [{ "filename": name, "language": "Dockerfile", "data": base64::encode(text.as_bytes()) }],
                },
            });
        }
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "configSource": { "path": name }, "request": request },
                "internalParameters": { "builderPlatform": self.given.build_platform.to_string() },
                "resolvedDependencies": self.dependencies.iter().map(Dependency::described).collect::<Value>(),
            },
            "runDetails": {
                "builder": { "id": self.builder, "version": { "dozen": env!("CARGO_PKG_VERSION") } },
                "metadata": metadata,
            },
        })
    }

    /// As BuildKit's clients give them. Proxies are left out: passwords are in them.
    fn arguments(&self) -> Value {
        let proxies: Vec<&str> = self.given.proxies().map(|(name, _)| name).collect();
        let arguments = self.given.arguments.iter().filter(|(name, _)| !proxies.contains(&name.as_str()));
        let arguments = arguments.map(|(name, value)| (format!("build-arg:{name}"), json!(value)));
        let target = Some(&self.given.target_stage).filter(|target| !target.is_empty());
        arguments
            .chain(target.map(|target| ("target".to_owned(), json!(target))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

impl Dependency {
    fn described(&self) -> Value {
        match self {
            Self::Image { name, platform, digest } => {
                let uri = docker_url(name, platform);
                match digest {
                    ImageDigest::Manifest(digest) => {
                        json!({ "uri": uri, "digest": { digest.algorithm(): digest.hex() } })
                    }
                    ImageDigest::Configuration(digest) => json!({
                        "uri": uri,
                        "digest": { digest.algorithm(): digest.hex() },
                        "mediaType": "application/vnd.oci.image.config.v1+json",
                    }),
                }
            }
            Self::File(url, None) => json!({ "uri": url }),
            Self::File(url, Some(digest)) => json!({ "uri": url, "digest": { digest.algorithm(): digest.hex() } }),
        }
    }
}

/// `pkg:docker/web@1?platform=linux%2Famd64` (purl-spec, "docker"), of a name with its tag.
pub fn docker_url(name: &str, platform: &str) -> String {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let colon = name.rfind(':').filter(|colon| !name[*colon..].contains('/'));
    let (path, tag) = colon.map_or((name, "latest"), |colon| (&name[..colon], &name[colon + 1..]));
    let path: Vec<String> = path.split('/').map(encoded).collect();
    format!("pkg:docker/{}@{}?platform={}", path.join("/"), encoded(tag), encoded(platform))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn images_have_the_names_that_others_give_them() {
        for (name, expected) in [
            ("web:1", "pkg:docker/web@1?platform=linux%2Famd64"),
            ("web", "pkg:docker/web@latest?platform=linux%2Famd64"),
            ("host:5000/a/b", "pkg:docker/host:5000/a/b@latest?platform=linux%2Famd64"),
            ("a/b:c@sha256:12", "pkg:docker/a/b@c?platform=linux%2Famd64"),
        ] {
            assert_eq!(docker_url(name, "linux/amd64"), expected);
        }
    }

    #[test]
    fn as_much_is_told_as_was_asked_for() {
        let arguments = [("VERSION", "2"), ("HTTP_PROXY", "http://user:word@proxy"), ("https_proxy", "http://u:w@p")];
        let arguments: BTreeMap<String, String> =
            arguments.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let given = Given { arguments, target_stage: "test".into(), ..Given::default() };
        let digest = |byte| Digest::from_sha256([byte; 32]);
        let image = |digest| Dependency::Image { name: "busybox".into(), platform: "linux/amd64".into(), digest };
        let dependencies = [
            image(ImageDigest::Manifest(digest(1))),
            image(ImageDigest::Configuration(digest(2))),
            Dependency::File("https://example.org/a".into(), None),
            Dependency::File("https://example.org/b".into(), Some(digest(3))),
        ];
        let predicate = |mode| {
            Provenance {
                mode,
                builder: "https://example.org/builder",
                dockerfile: ("web.Dockerfile", "FROM busybox\n"),
                given: &given,
                secrets: vec!["token"],
                agents: vec!["default"],
                dependencies: &dependencies,
                invocation: "1234",
                began: Timestamp::from_second(1_700_000_000).unwrap(),
                finished: Timestamp::from_second(1_700_000_009).unwrap(),
            }
            .predicate()
        };
        let (least, most) = (predicate(Mode::Minimum), predicate(Mode::Maximum));
        insta::assert_json_snapshot!("little_is_told", least);
        insta::assert_json_snapshot!("all_is_told", most);
        for words in ["VERSION", "token", "RlJPT"] {
            assert!(most.to_string().contains(words) && !least.to_string().contains(words), "{words}");
        }
        assert!(!most.to_string().contains("word@") && !most.to_string().contains("u:w@"));
    }
}
