//! What a caller asks of a build.

use std::collections::BTreeMap;

use dozen_dockerfile::scope::{Given, Platform};
use dozen_model::{ContainerSpec, Reference};

use super::{Attestations, BuildName, CacheDestination, CacheSource, CacheStep, SshAgent};
use crate::pull::Credentials;

/// What is to be built, and how.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// What the build is called by those who speak of it.
    pub name: BuildName,
    /// Where the Dockerfile is.
    pub dockerfile: DockerfileSource,
    /// Arguments, platforms and the target.
    pub given: Given,
    /// The image's names.
    pub tags: Vec<Reference>,
    /// `--label`, which win over the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// Nothing is taken from the cache.
    pub no_cache: bool,
    /// Stages of which nothing is taken from the cache.
    pub no_cache_stages: Vec<String>,
    /// What caches of the caller's say of steps. Their layers are asked for while the build goes on.
    pub cache_steps: Vec<CacheStep>,
    /// Images that say which steps have made them: `--cache-from`.
    pub cache_images: Vec<String>,
    /// What registries have of caches: `--cache-from type=registry`.
    pub cache_sources: Vec<CacheSource>,
    /// Where in registries the cache goes: `--cache-to type=registry`.
    pub cache_destinations: Vec<CacheDestination>,
    /// The image says which steps have made it: `--cache-to type=inline`.
    pub has_inline_cache: bool,
    /// The caller takes the steps along when they are done: `--cache-to type=local`.
    pub is_cache_taken: bool,
    /// What containers that run its steps are: network, hosts, limits, isolation. Its image, its process and its mounts are
    /// the steps' own.
    pub container: ContainerSpec,
    /// How many users and groups of their own they have, in place of what `container` says.
    pub own_ids: Option<u32>,
    /// `--platform`, if it was given.
    pub platform: Option<Platform>,
    /// `--secret`, by id: never in a log, in an error or in the cache.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`, by id.
    pub agents: BTreeMap<String, SshAgent>,
    /// Certificate authorities in PEM that the commands of RUN trust, too, as far as they heed the usual variables; no part
    /// of the image, and none of what a step is known by.
    pub authorities: Option<String>,
    /// For registries of images that it begins from, or takes files from: each is told its own alone.
    pub credentials: BTreeMap<String, Credentials>,
    /// Images that it begins from, or takes files from, are pulled also where they are here.
    pub pull: bool,
    /// A command that fails is followed by a shell where it has stopped.
    pub debug_shell: bool,
    /// What is said of the image beside it.
    pub attestations: Attestations,
    /// Whoever may: `--allow security.insecure`, `network.host`.
    pub entitlements: Vec<String>,
}

impl BuildRequest {
    /// What is done is wanted elsewhere, too.
    pub(super) fn takes_cache(&self) -> bool {
        self.is_cache_taken || !self.cache_destinations.is_empty()
    }
}

/// Bytes that nobody sees.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Where a Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// A path in the context.
    InContext(String),
    /// Given beside it: what it is called, and its text.
    Text {
        /// For messages.
        name: String,
        /// The file.
        text: String,
    },
}

impl Default for DockerfileSource {
    fn default() -> Self {
        Self::InContext("Dockerfile".into())
    }
}
