//! A list of manifests goes to a registry. What is in it has to be there: manifests of other repositories of the registry are
//! taken over first, with all that they name, and nothing is copied through here. The list itself goes last.

use std::collections::BTreeSet;

use dozen_model::{Digest, Reference};
use dozen_registry::{Access, Credentials, Document, Found, Manifest, RegistryError, Terms, Uploads, Which};
use dozen_settings::InsecureRegistry;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::pull::{self, terms};
use crate::push::refusal;
use crate::{Engine, EngineError};

/// A list names so many manifests at the most.
const MOST_MANIFESTS: usize = 200;
/// The kinds that there are: OCI's index and Docker's list.
const KINDS: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// A list that is to be pushed.
#[derive(Debug, Clone)]
pub struct ManifestListPush {
    /// With a tag.
    pub reference: Reference,
    /// OCI's index or Docker's list.
    pub media_type: String,
    /// The list.
    pub bytes: Vec<u8>,
    /// What it names, by digest, in repositories of the same registry.
    pub members: Vec<Reference>,
    /// For the registry.
    pub credentials: Option<Credentials>,
    /// The registry may show any certificate, or have no TLS.
    pub is_insecure: bool,
}

/// A list that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedManifestList {
    /// Of the list.
    pub digest: Digest,
    /// What has come from other repositories.
    pub taken_over: Vec<Digest>,
}

impl Engine {
    /// Pushes it.
    ///
    /// # Errors
    /// It is none, or the registry does not take it: its tag is what it was.
    pub async fn push_manifest_list(&self, request: &ManifestListPush) -> Result<PushedManifestList, EngineError> {
        let members = members(request).map_err(|message| EngineError::Invalid { message, hint: None })?;
        let name = &request.reference;
        let mut terms = terms(&self.shared, request.credentials.clone()).await?;
        if request.is_insecure {
            terms.settings.insecure.push(InsecureRegistry::Host(name.registry().to_owned()));
        }
        let repository = self.shared.pulls.client().repository(name, Access::Push, terms.clone());
        let uploads = Uploads::new(repository);
        let mut taken_over = Vec::new();
        for (member, digest) in members.into_iter().filter(|(member, _)| member.path() != name.path()) {
            self.take_over(request, member, digest, &uploads, terms.clone()).await?;
            taken_over.push(Digest::clone(digest));
        }
        let digest = Digest::from_sha256(Sha256::digest(&request.bytes).into());
        let tag = name.tag().unwrap_or("latest");
        uploads
            .put_manifest(tag, &digest, &request.media_type, &request.bytes)
            .await
            .map_err(|error| failed(name, &error))?;
        Ok(PushedManifestList { digest, taken_over })
    }

    /// Has the registry take a manifest over into the list's repository.
    async fn take_over(
        &self,
        request: &ManifestListPush,
        member: &Reference,
        digest: &Digest,
        uploads: &Uploads,
        terms: Terms,
    ) -> Result<(), EngineError> {
        let target = &request.reference;
        let source = self.shared.pulls.client().repository(member, Access::Pull, terms);
        let manifest = source.manifest(&Which::Digest(digest.clone())).await;
        let manifest = manifest.map_err(|error| EngineError::from(pull::failure(member, &error)))?;
        let from = [member.path().to_owned()];
        for blob in blobs(&manifest) {
            if let Found::Nowhere(_) = uploads.find(&blob, &from).await.map_err(|error| failed(target, &error))? {
                let (from, to) = (member.familiar_name(), target.familiar());
                return Err(EngineError::Invalid {
                    message: format!("error mounting {from}@{blob} to {to}"),
                    hint: Some(format!(
                        "the registry does not take it over from there: push the image to {} first",
                        target.familiar_name()
                    )),
                });
            }
        }
        let Manifest { media_type, bytes, .. } = &manifest;
        let put = uploads.put_manifest(digest.as_str(), digest, media_type, bytes).await;
        put.map(drop).map_err(|error| failed(target, &error))
    }
}

fn failed(name: &Reference, error: &RegistryError) -> EngineError {
    refusal::failure(name, error).into()
}

/// What a request's list names, with its digests; or what is wrong with the request.
fn members(request: &ManifestListPush) -> Result<Vec<(&Reference, &Digest)>, String> {
    let name = &request.reference;
    if name.digest().is_some() {
        return Err("a manifest list is pushed by a tag".to_owned());
    }
    if !KINDS.contains(&request.media_type.as_str()) {
        return Err(format!("{:?} is no media type of a manifest list", request.media_type));
    }
    if request.members.len() > MOST_MANIFESTS {
        let count = request.members.len();
        return Err(format!("the list has {count} manifests, and {MOST_MANIFESTS} at the most are pushed"));
    }
    let mut members = Vec::new();
    for member in &request.members {
        if member.registry() != name.registry() {
            let words = "cannot use source images from a different registry than the target image";
            return Err(format!("{words}: {} != {}", member.registry(), name.registry()));
        }
        members.push((member, member.digest().ok_or_else(|| format!("{member} has no digest"))?));
    }
    let document: Value =
        serde_json::from_slice(&request.bytes).map_err(|error| format!("the list is malformed: {error}"))?;
    let listed = document["manifests"].as_array().ok_or("the list names no manifests")?;
    let listed: BTreeSet<_> = listed.iter().map(|entry| entry["digest"].as_str().unwrap_or_default()).collect();
    match listed == members.iter().map(|(_, digest)| digest.as_str()).collect() {
        true => Ok(members),
        false => Err("the list names other manifests than those that it is said to be of".to_owned()),
    }
}

/// What of a manifest has to be where it is. Layers that are elsewhere by leave of the specification need not be
/// (OCI image-spec, descriptor.md, "urls").
fn blobs(manifest: &Manifest) -> Vec<Digest> {
    if manifest.kind == Document::Index {
        return Vec::new();
    }
    let document: Value = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    let layers = document["layers"].as_array().into_iter().flatten();
    let here = layers.filter(|layer| layer["urls"].as_array().is_none_or(Vec::is_empty));
    [&document["config"]].into_iter().chain(here).filter_map(|it| it["digest"].as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(letter: char) -> String {
        format!("sha256:{}", letter.to_string().repeat(64))
    }

    fn request(name: &str, members: &[&str], listed: &Value) -> ManifestListPush {
        ManifestListPush {
            reference: name.parse().unwrap(),
            media_type: KINDS[0].to_owned(),
            bytes: listed.to_string().into_bytes(),
            members: members.iter().map(|member| member.parse().unwrap()).collect(),
            credentials: None,
            is_insecure: false,
        }
    }

    #[test]
    fn a_list_is_of_what_it_names() {
        let (one, other) = (format!("a.example/b@{}", digest('a')), format!("b.example/b@{}", digest('a')));
        let listed = json!({ "manifests": [{ "digest": digest('a') }] });
        assert_eq!(members(&request("a.example/c:1", &[&one], &listed)).unwrap().len(), 1);
        for (name, given, listed, words) in [
            ("a.example/c:1", vec![other.as_str()], listed.clone(), "b.example != a.example"),
            ("a.example/c:1", vec!["a.example/b:1"], listed.clone(), "has no digest"),
            ("a.example/c:1", vec![], listed.clone(), "names other manifests"),
            ("a.example/c:1", vec![], json!({}), "names no manifests"),
            (one.as_str(), vec![], listed.clone(), "is pushed by a tag"),
        ] {
            let said = members(&request(name, &given, &listed)).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        let mut wrong = request("a.example/c:1", &[&one], &listed);
        wrong.media_type = "text/plain".to_owned();
        assert!(members(&wrong).unwrap_err().contains("is no media type"));
    }

    #[test]
    fn what_is_elsewhere_by_leave_need_not_be_there() {
        let layer = |letter, urls: Value| json!({ "digest": digest(letter), "urls": urls });
        let layers = [layer('b', Value::Null), layer('c', json!(["https://a.example"])), layer('d', json!([]))];
        let document = json!({ "config": { "digest": digest('a') }, "layers": layers });
        let manifest = Manifest {
            digest: digest('e').parse().unwrap(),
            bytes: document.to_string().into_bytes(),
            media_type: "m".into(),
            kind: Document::Image,
        };
        let found: Vec<String> = blobs(&manifest).iter().map(ToString::to_string).collect();
        assert_eq!(found, ['a', 'b', 'd'].map(digest));
    }
}
