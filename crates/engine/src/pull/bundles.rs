//! Bundles as cosign 3 makes them: what refers to an image is asked for, by the list that the registry keeps, or that
//! clients keep for it under a tag, and each of it that may be one is fetched.

use std::cmp::Reverse;

use dozen_model::Digest;
use dozen_registry::{Referrer, RegistryError, Repository, Which};
use dozen_trust::{
    Attached, BUNDLE_BYTES, BUNDLE_MANIFEST_BYTES, BUNDLE_TYPE, BundleBlob, MOST_BUNDLES, PREDICATE_ANNOTATION,
    bundle_of, may_be_signature,
};

use super::signatures::unusable;

/// So many are looked at for a hint.
const ASKED_FOR: usize = 3;

/// What may be a bundle.
pub(super) struct Candidate(Referrer);

/// Those that are looked at, and how many there are besides.
pub(super) async fn candidates(
    repository: &Repository,
    image: &Digest,
) -> Result<(Vec<Candidate>, usize), RegistryError> {
    // Of one type alone would not do: what go-containerregistry keeps under a tag has another (cosign#4641).
    Ok(chosen(repository.referrers(image, None).await?))
}

/// The likely ones first, and of those the newest. Whoever may write the list may hide all, and needs no dates for it.
fn chosen(mut listed: Vec<Referrer>) -> (Vec<Candidate>, usize) {
    let predicate = |it: &Referrer| it.annotations.get(PREDICATE_ANNOTATION).cloned();
    listed.retain(|it| may_be_signature(&it.artifact_type, predicate(it).as_deref()));
    let created = |it: &Referrer| it.annotations.get("org.opencontainers.image.created").cloned();
    let likely = |it: &Referrer| (predicate(it).is_some(), it.artifact_type == BUNDLE_TYPE, created(it));
    listed.sort_by_cached_key(|it| Reverse(likely(it)));
    let more = listed.len().saturating_sub(MOST_BUNDLES);
    listed.truncate(MOST_BUNDLES);
    (listed.into_iter().map(Candidate).collect(), more)
}

/// Whether there is any, for who is told that none counts. What does not answer has none.
pub(super) async fn are_there(repository: &Repository, image: &Digest) -> bool {
    let Ok((candidates, _)) = candidates(repository, image).await else { return false };
    for candidate in candidates.into_iter().take(ASKED_FOR) {
        if let Ok(Ok(_)) = blob(repository, image, candidate).await {
            return true;
        }
    }
    false
}

pub(super) async fn fetched(
    repository: &Repository,
    image: &Digest,
    candidate: Candidate,
) -> Result<Attached, RegistryError> {
    let blob = match blob(repository, image, candidate).await {
        Ok(Ok(blob)) => blob,
        Ok(Err(why)) => return Ok(Attached::Unusable(why)),
        Err(error) => return unusable(error),
    };
    match repository.small_blob(&blob.digest, blob.size_bytes, BUNDLE_BYTES).await {
        Ok(bundle) => Ok(Attached::Bundle(bundle)),
        Err(error) => unusable(error),
    }
}

/// Where the bundle is, or why it is none.
async fn blob(
    repository: &Repository,
    image: &Digest,
    Candidate(referrer): Candidate,
) -> Result<Result<BundleBlob, String>, RegistryError> {
    if referrer.size_bytes > BUNDLE_MANIFEST_BYTES {
        return Ok(Err(format!("what refers to it has a manifest of more than {BUNDLE_MANIFEST_BYTES} bytes")));
    }
    let manifest = repository.manifest(&Which::Digest(referrer.digest)).await?;
    Ok(bundle_of(&manifest.bytes, image))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

    fn referrer(number: usize, artifact_type: &str, annotations: &[(&str, &str)]) -> Referrer {
        Referrer {
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            digest: format!("sha256:{number:064x}").parse().unwrap(),
            size_bytes: 7,
            artifact_type: artifact_type.into(),
            annotations: annotations
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    fn numbers(listed: Vec<Referrer>) -> (Vec<String>, usize) {
        let (chosen, more) = chosen(listed);
        let number = |it: &Candidate| it.0.digest.hex().trim_start_matches('0').to_owned();
        (chosen.iter().map(number).collect(), more)
    }

    #[test]
    fn the_likely_ones_are_looked_at_first_and_not_too_many() {
        let created = "org.opencontainers.image.created";
        let listed = vec![
            referrer(1, "application/spdx+json", &[]),
            referrer(2, "application/vnd.oci.empty.v1+json", &[]),
            referrer(3, BUNDLE_TYPE, &[(PREDICATE_ANNOTATION, "https://slsa.dev/provenance/v1")]),
            referrer(4, BUNDLE_TYPE, &[]),
            referrer(5, BUNDLE_TYPE, &[(PREDICATE_ANNOTATION, SIGN), (created, "2026-01-01T00:00:00Z")]),
            referrer(6, BUNDLE_TYPE, &[(PREDICATE_ANNOTATION, SIGN), (created, "2026-02-01T00:00:00Z")]),
        ];
        assert_eq!(numbers(listed), (["6", "5", "4", "2"].map(str::to_owned).to_vec(), 0));
        let many = (0..40).map(|number| referrer(number + 1, "", &[])).chain([referrer(99, BUNDLE_TYPE, &[])]);
        let (numbers, more) = numbers(many.collect());
        assert_eq!((numbers.len(), numbers[0].as_str(), more), (MOST_BUNDLES, "63", 9));
    }
}
