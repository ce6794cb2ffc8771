//! Upstreams of a registry, asked by our own client of registries: tokens, redirections and what is tried again are its own.

use std::collections::HashMap;
use std::error::Error;
use std::num::NonZeroU8;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dozen_distribution::{
    Asked, FetchedManifest, FetchedReferrer, Secrets, Source, Upstream, UpstreamError, UpstreamErrorKind, UpstreamPlan,
    read_upstreams,
};
use dozen_model::{Classified, Digest, ErrorKind, Reference};
use dozen_registry::{
    Access, Authorities, Client, Credentials, Patience, Proxies, Referrer, RegistryError, Repository, Secret, Terms,
    Which,
};
use dozen_settings::{InsecureRegistry, RegistrySettings};
use tokio::sync::mpsc;

/// A client waits meanwhile, and most often there is something to give him.
const MANIFEST_PATIENCE: Patience = Patience { head: Duration::from_secs(15), silence: Duration::from_secs(15) };
/// A question about a manifest is asked once: an upstream may want to be left alone for a minute (`Retry-After`), where there
/// is most often something to give, and who gets nothing asks again himself.
const MANIFEST_ATTEMPTS: NonZeroU8 = NonZeroU8::MIN;

/// Upstreams of this file, all of which can be asked.
pub(super) fn read(path: &Path) -> Result<Vec<Source>, Box<dyn Error>> {
    let plans = read_upstreams(path)?;
    // What is no text is no address either.
    let variables: HashMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let sources = plans.into_iter().map(|plan| {
        let failed = |why: String| format!("{}, line {}: {why}", path.display(), plan.line);
        let remote = Remote::of(&plan, &variables).map_err(failed)?;
        Ok(Source::new(plan, Arc::new(remote)))
    });
    sources.collect()
}

#[derive(Debug)]
struct Remote {
    client: Client,
    /// As images' names have it.
    registry: String,
    manifests: Terms,
    blobs: Terms,
    /// As the last answer that said so had it.
    remaining_pulls: Mutex<Option<u64>>,
}

impl Remote {
    fn of(plan: &UpstreamPlan, variables: &HashMap<String, String>) -> Result<Self, String> {
        let registry = match plan.host.as_str() {
            "registry-1.docker.io" | "index.docker.io" => "docker.io",
            other => other,
        };
        // Names are what the client begins with, and a host without a dot would be taken for a part of one.
        let reference: Result<Reference, _> = format!("{registry}/a/b").parse();
        if !reference.is_ok_and(|reference| reference.registry() == registry) {
            return Err(format!("{registry:?} is no host as names of images have it: give it a dot or a port"));
        }
        let insecure = plan.is_plain.then(|| InsecureRegistry::Host(registry.to_owned()));
        let settings = RegistrySettings {
            insecure: insecure.into_iter().collect(),
            // Not the host's: by these an engine may be led to this very registry.
            certs_dirs: plan.certificates.clone().into_iter().collect(),
            ..RegistrySettings::default()
        };
        let blobs = Terms {
            settings,
            credentials: credentials(plan, variables)?,
            own: None,
            authorities: Authorities::of_host(None).map_err(|error| error.to_string())?,
            proxies: Proxies::of(|name| variables.get(name).map(String::as_str)),
            patience: Patience::default(),
        };
        let settings = RegistrySettings { attempts: MANIFEST_ATTEMPTS, ..blobs.settings.clone() };
        let manifests = Terms { settings, patience: MANIFEST_PATIENCE, ..blobs.clone() };
        Ok(Self {
            client: Client::default(),
            registry: registry.to_owned(),
            manifests,
            blobs,
            remaining_pulls: Mutex::default(),
        })
    }

    fn repository(&self, name: &str, terms: &Terms) -> Result<Repository, UpstreamError> {
        let reference: Result<Reference, _> = format!("{}/{name}", self.registry).parse();
        let wrong = |error| UpstreamError { kind: UpstreamErrorKind::Missing, words: format!("{name}: {error}") };
        Ok(self.client.repository(&reference.map_err(wrong)?, Access::Pull, terms.clone()))
    }

    fn look_at_limit(&self, repository: &Repository) {
        if let Some(limit) = repository.rate_limit() {
            *self.remaining_pulls.lock().unwrap_or_else(PoisonError::into_inner) = Some(limit.remaining);
        }
    }
}

impl Upstream for Remote {
    fn resolve<'a>(&'a self, repository: &'a str, tag: &'a str) -> Asked<'a, Option<Digest>> {
        Box::pin(async move {
            let repository = self.repository(repository, &self.manifests)?;
            let resolved = repository.resolve(tag).await;
            self.look_at_limit(&repository);
            Ok(resolved.map_err(|error| told(&error))?.map(|resolved| resolved.digest))
        })
    }

    fn manifest<'a>(&'a self, repository: &'a str, reference: &'a str) -> Asked<'a, FetchedManifest> {
        Box::pin(async move {
            let repository = self.repository(repository, &self.manifests)?;
            let which = reference.parse().map_or_else(|_| Which::Tag(reference.to_owned()), Which::Digest);
            let manifest = repository.manifest(&which).await;
            self.look_at_limit(&repository);
            let manifest = manifest.map_err(|error| told(&error))?;
            Ok(FetchedManifest { content: manifest.bytes, media_type: manifest.media_type })
        })
    }

    fn blob<'a>(
        &'a self,
        repository: &'a str,
        digest: &'a Digest,
        size_bytes: u64,
        pieces: mpsc::Sender<Bytes>,
    ) -> Asked<'a, ()> {
        Box::pin(async move {
            let repository = self.repository(repository, &self.blobs)?;
            let mut blob = repository.blob(digest, size_bytes).await.map_err(|error| told(&error))?;
            while let Some(piece) = blob.next_unverified().await.map_err(|error| told(&error))? {
                if pieces.send(piece).await.is_err() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn tags<'a>(&'a self, repository: &'a str) -> Asked<'a, Vec<String>> {
        Box::pin(async move {
            let repository = self.repository(repository, &self.manifests)?;
            let tags = repository.tags().await.map_err(|error| told(&error))?;
            Ok(tags.into_iter().collect())
        })
    }

    fn referrers<'a>(&'a self, repository: &'a str, subject: &'a Digest) -> Asked<'a, Vec<FetchedReferrer>> {
        Box::pin(async move {
            let repository = self.repository(repository, &self.manifests)?;
            // Whatever types are wanted: one list serves all.
            let referrers = repository.referrers(subject, None).await.map_err(|error| told(&error))?;
            Ok(referrers.into_iter().map(fetched).collect())
        })
    }

    fn remaining_pulls(&self) -> Option<u64> {
        *self.remaining_pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fetched(referrer: Referrer) -> FetchedReferrer {
    let Referrer { media_type, digest, size_bytes, artifact_type, annotations } = referrer;
    FetchedReferrer { digest, media_type, size_bytes, artifact_type: Some(artifact_type), annotations }
}

fn told(error: &RegistryError) -> UpstreamError {
    let kind = match error.kind() {
        _ if matches!(error, RegistryError::Unreachable { .. }) => UpstreamErrorKind::Unreachable,
        ErrorKind::NotFound => UpstreamErrorKind::Missing,
        ErrorKind::Unauthorized | ErrorKind::Forbidden => UpstreamErrorKind::Denied,
        ErrorKind::Unavailable => UpstreamErrorKind::Unavailable,
        _ => UpstreamErrorKind::Wrong,
    };
    UpstreamError { kind, words: error.to_string() }
}

fn credentials(plan: &UpstreamPlan, variables: &HashMap<String, String>) -> Result<Option<Credentials>, String> {
    let (Some(user), Some(place)) = (&plan.user, &plan.password) else { return Ok(None) };
    let password = match place {
        Secrets::Variable(name) => {
            variables.get(name).cloned().ok_or_else(|| format!("there is no {name} in the environment"))?
        }
        Secrets::File(path) => {
            let failed = |error| format!("cannot read the password in {}: {error}", path.display());
            if std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o077 != 0 {
                tracing::warn!("others than its owner can read the password in {}: say chmod 600", path.display());
            }
            let text = std::fs::read_to_string(path).map_err(failed)?;
            text.lines().next().unwrap_or_default().to_owned()
        }
    };
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    Ok(Some(Credentials::Password { user: user.clone(), password: Secret::new(password) }))
}
