//! Manifests of upstreams. What is done with what an upstream says is decided on plain data ([`decide`]).

use std::sync::Arc;
use std::time::Instant;

use dozen_model::Digest;

use super::asking::{PAUSE, Told};
use super::{FetchedManifest, Source, UpstreamError, Upstreams};
use crate::hasher::{Algorithm, Hasher};
use crate::manifest::{self, LARGEST_BYTES};
use crate::metrics::Cached;
use crate::name::{ManifestReference, RepositoryName};
use crate::refusal::{Kind, Refusal};
use crate::store::{PutManifest, Store, StoredManifest};

/// A manifest to be given.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) manifest: StoredManifest,
    /// One that is stale may be old, since the upstream could not be asked.
    pub(crate) how: Cached,
}

/// What comes after a question.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// What is here is what is there.
    Same,
    /// What is here is given, though nobody knows.
    Stale,
    /// Nothing is given.
    Refused(UpstreamError),
    /// The manifest of this digest is wanted.
    Fetch(Digest),
    /// Whatever the tag leads to is wanted.
    FetchTag,
}

/// `here`: what the tag leads to here. `said`: what it leads to there.
fn decide(here: Option<&str>, said: Result<Option<Digest>, UpstreamError>) -> Next {
    match (here, said) {
        (Some(here), Ok(Some(there))) if here == there.as_str() => Next::Same,
        (_, Ok(Some(there))) => Next::Fetch(there),
        (_, Ok(None)) => Next::FetchTag,
        (here, Err(error)) => failed(here.is_some(), error),
    }
}

/// The same, if nothing came.
fn failed(is_here: bool, error: UpstreamError) -> Next {
    if is_here && error.is_silence() { Next::Stale } else { Next::Refused(error) }
}

impl Upstreams {
    /// A manifest, of here or of there.
    pub(crate) async fn manifest(
        &self,
        store: &Arc<Store>,
        source: &Arc<Source>,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<Given, Refusal> {
        if let Some(given) = self.at_hand(store, repository, reference).await? {
            return Ok(given);
        }
        let what = format!("{repository}:{reference}");
        if let Some(error) = self.0.refusals.of(&what) {
            return Err(source.refusal(&error, Kind::ManifestUnknown));
        }
        let (turn, arrived) = (self.0.turns.of(what.clone()), Instant::now());
        let mut last = turn.lock_owned().await;
        // Somebody else may have brought it meanwhile.
        if let Some(given) = self.at_hand(store, repository, reference).await? {
            return Ok(given);
        }
        match last.as_ref().and_then(|told| told.since(arrived)) {
            Some(Err(error)) => return Err(source.refusal(error, Kind::ManifestUnknown)),
            Some(Ok(())) => {
                if let Some(manifest) = here(store, repository, reference).await? {
                    return Ok(Given { manifest, how: Cached::Hit });
                }
            }
            None => {}
        }
        // It goes on if who wants it goes away: who has less patience than the upstream needs finds it when he comes again.
        let (all, store, source) = (self.clone(), store.clone(), source.clone());
        let (repository, reference) = (repository.clone(), reference.clone());
        let asked = tokio::spawn(async move {
            let fetched = all.ask(&store, &source, &repository, &reference).await?;
            *last = Some(Told::now(fetched.as_ref().map(|_| ()).map_err(Clone::clone)));
            fetched.map_err(|error| {
                all.refused(&source, &repository, what, &error);
                source.refusal(&error, Kind::ManifestUnknown)
            })
        });
        asked.await.unwrap_or_else(|_| Err(Refusal::new(Kind::Internal, "the registry failed: its log says why")))
    }

    /// What is given without a question.
    async fn at_hand(
        &self,
        store: &Store,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<Option<Given>, Refusal> {
        let is_stale = match reference {
            ManifestReference::Digest(_) => Some(false),
            ManifestReference::Tag(tag) => self.known(repository, tag),
        };
        let Some(is_stale) = is_stale else { return Ok(None) };
        let here = here(store, repository, reference).await?;
        let how = if is_stale { Cached::Stale } else { Cached::Hit };
        Ok(here.map(|manifest| Given { manifest, how }))
    }

    async fn ask(
        &self,
        store: &Arc<Store>,
        source: &Source,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<Result<Given, UpstreamError>, Refusal> {
        let there = source.plan.there(repository).unwrap_or_default();
        let here = here(store, repository, reference).await?;
        let digest_here = here.as_ref().map(|manifest| manifest.digest.as_str());
        let mut next = match reference {
            ManifestReference::Digest(digest) => Next::Fetch(digest.clone()),
            ManifestReference::Tag(_) if here.is_some() && source.rests() => Next::Stale,
            ManifestReference::Tag(tag) => {
                decide(digest_here, source.question(source.client.resolve(&there, tag.as_str())).await)
            }
        };
        let wanted = match &next {
            Next::Fetch(digest) => Some((digest.to_string(), Some(digest.clone()))),
            Next::FetchTag => Some((reference.to_string(), None)),
            _ => None,
        };
        let (mut fetched, mut how) = (None, Cached::Checked);
        if let Some((called, digest)) = wanted {
            // A tag may go back to what is here.
            let known = match &digest {
                Some(digest) => self::here(store, repository, &ManifestReference::Digest(digest.clone())).await?,
                None => None,
            };
            let answer = match known {
                Some(known) => Ok(FetchedManifest { content: known.content, media_type: known.media_type }),
                None => {
                    how = Cached::Miss;
                    source.question(source.client.manifest(&there, &called)).await
                }
            };
            match answer.and_then(|answer| checked(answer, digest.as_ref())) {
                Ok(found) => fetched = Some(found),
                Err(error) => next = failed(here.is_some(), error),
            }
        }
        let tag = match reference {
            ManifestReference::Tag(tag) => Some(tag.clone()),
            ManifestReference::Digest(_) => None,
        };
        let is_stale = next == Next::Stale;
        let manifest = match (next, fetched, here) {
            (Next::Refused(error), ..) => return Ok(Err(error)),
            (_, Some(found), _) => keep(store, repository, tag.clone(), found).await?,
            (_, None, Some(here)) => here,
            (_, None, None) => return Ok(Err(UpstreamError::wrong("it says that nothing has changed"))),
        };
        if let Some(tag) = &tag {
            if is_stale {
                let host = &source.plan.host;
                tracing::warn!(
                    "{host} cannot be asked for {repository}:{reference}: what is here is given, and may be old"
                );
            }
            self.know(source, repository, tag, if is_stale { PAUSE } else { source.plan.fresh }, is_stale);
        }
        Ok(Ok(Given { manifest, how: if is_stale { Cached::Stale } else { how } }))
    }
}

/// One that may be kept.
struct Checked {
    manifest: manifest::Manifest,
    digest: Digest,
    content: Vec<u8>,
}

/// Whether it is what was asked for.
fn checked(fetched: FetchedManifest, asked: Option<&Digest>) -> Result<Checked, UpstreamError> {
    let FetchedManifest { content, media_type } = fetched;
    if content.len() > LARGEST_BYTES {
        return Err(UpstreamError::wrong(format!("a manifest has up to {LARGEST_BYTES} bytes")));
    }
    let digest = Hasher::of(asked.map_or(Algorithm::Sha256, Algorithm::of), &content);
    if asked.is_some_and(|asked| *asked != digest) {
        return Err(UpstreamError::wrong(format!("the manifest is damaged: it has the digest {digest}")));
    }
    let manifest = manifest::parse(&content, Some(&media_type));
    let manifest = manifest.map_err(|refusal| UpstreamError::wrong(refusal.message))?;
    Ok(Checked { manifest, digest, content })
}

async fn keep(
    store: &Arc<Store>,
    repository: &RepositoryName,
    tag: Option<crate::name::Tag>,
    found: Checked,
) -> Result<StoredManifest, Refusal> {
    let kept = StoredManifest {
        digest: found.digest.to_string(),
        media_type: found.manifest.media_type.clone(),
        content: found.content.clone(),
    };
    let put = PutManifest {
        repository: repository.clone(),
        digest: found.digest,
        tag,
        manifest: found.manifest,
        content: found.content,
        quota_bytes: None,
        is_cached: true,
    };
    store.put_manifest(put).await?;
    Ok(kept)
}

async fn here(
    store: &Store,
    repository: &RepositoryName,
    reference: &ManifestReference,
) -> Result<Option<StoredManifest>, Refusal> {
    match store.manifest(repository, reference, true).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(refusal) if matches!(refusal.kind, Kind::ManifestUnknown | Kind::NameUnknown) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::UpstreamErrorKind;

    #[test]
    fn what_an_upstream_says_decides_what_is_given() {
        use UpstreamErrorKind::{Denied, Missing, Unavailable, Wrong};
        let digest = |byte: u8| Digest::from_sha256([byte; 32]);
        let error = |kind| UpstreamError { kind, words: "so it is".to_owned() };
        let (one, two) = (digest(1), digest(2));
        let here = Some(one.as_str());
        for (here, said, next) in [
            (here, Ok(Some(one.clone())), Next::Same),
            (here, Ok(Some(two.clone())), Next::Fetch(two.clone())),
            (None, Ok(Some(two.clone())), Next::Fetch(two.clone())),
            (here, Ok(None), Next::FetchTag),
            (None, Ok(None), Next::FetchTag),
            (here, Err(error(Unavailable)), Next::Stale),
            (here, Err(error(Wrong)), Next::Stale),
            (here, Err(error(Missing)), Next::Refused(error(Missing))),
            (here, Err(error(Denied)), Next::Refused(error(Denied))),
            (None, Err(error(Unavailable)), Next::Refused(error(Unavailable))),
        ] {
            assert_eq!(decide(here, said.clone()), next, "{here:?} {said:?}");
        }
    }

    #[test]
    fn what_is_no_such_manifest_is_not_kept() {
        let content = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
        let fetched =
            |media_type: &str| FetchedManifest { content: content.clone(), media_type: media_type.to_owned() };
        let right = Hasher::of(Algorithm::Sha256, &content);
        assert_eq!(checked(fetched(manifest::OCI_INDEX), Some(&right)).map(|it| it.digest), Ok(right));
        for (fetched, asked, words) in [
            (fetched(manifest::OCI_INDEX), Some(Digest::from_sha256([0; 32])), "is damaged"),
            (fetched(manifest::OCI_MANIFEST), None, "neither manifests"),
            (FetchedManifest { content: vec![b' '; LARGEST_BYTES + 1], media_type: String::new() }, None, "up to"),
        ] {
            let error = checked(fetched, asked.as_ref()).map(|it| it.digest).unwrap_err();
            assert!(error.kind == UpstreamErrorKind::Wrong && error.words.contains(words), "{error:?}");
        }
    }
}
