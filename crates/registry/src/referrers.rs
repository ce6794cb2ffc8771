//! What a repository has about a manifest (OCI distribution-spec 1.1, "Listing Referrers"): asked of the registry, or, where
//! it keeps no such list, of the index that clients keep under a tag ("Referrers Tag Schema").

use std::collections::{BTreeMap, BTreeSet};

use dozen_model::Digest;
use dozen_model::json::memory_of;
use http::{HeaderMap, HeaderValue, Method, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::{Asked, Need};
use crate::document::{OCI_INDEX, essence};
use crate::manifest::digest_of;
use crate::tags::next;
use crate::{Document, Endpoint, Manifest, RegistryError, Repository, Uploads, Which};

/// Of one page, and of the index under a tag.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// Of all pages together, whatever is in them.
const ALL_BYTES: usize = 16 * 1024 * 1024;
/// The same.
const MOST_REFERRERS: usize = 10_000;
/// The index under a tag in memory, when one more is put into it: ten thousand such as ours.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;
/// A registry that leads us on without an end gives us none.
const MOST_PAGES: usize = 1_000;
/// Others may write the same index at the same time: so often it is looked at whether ours is in it.
const ATTEMPTS: usize = 5;

/// Something about a manifest: a descriptor as the list has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the specification's words")]
pub struct Referrer {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    #[serde(rename = "size")]
    pub size_bytes: u64,
    #[serde(default)]
    pub artifact_type: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nothing_is_empty")]
    pub annotations: BTreeMap<String, String>,
}

fn nothing_is_empty<'d, D: serde::Deserializer<'d>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    manifests: Option<Vec<Referrer>>,
}

impl Repository {
    /// All that refers to a manifest, of one type if one is asked for, each once. A mirror that keeps no such lists, or knows of
    /// nothing, is not the one to say that there is nothing: mirrors bring what is asked for by name.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let last = self.able(Need::Resolve).await?.pop();
        let ask = |endpoint| async move {
            let listed = self.referrers_of(endpoint, subject, artifact_type).await?;
            let is_mirror = last.is_some_and(|last| !std::ptr::eq(last, endpoint));
            match listed.as_ref().is_none_or(Vec::is_empty) && is_mirror {
                true => Err(self.broken(endpoint, &what(subject), "it lists none".to_owned())),
                false => Ok(listed),
            }
        };
        let listed = self.of_each_able(Need::Resolve, |endpoint| Box::pin(ask(endpoint))).await?;
        let mut all = match listed {
            Some(listed) => listed,
            None => self.referrers_by_tag(subject).await?,
        };
        // A registry need not filter, and a tag does not.
        let mut seen = BTreeSet::new();
        all.retain(|it| {
            artifact_type.is_none_or(|wanted| it.artifact_type == wanted) && seen.insert(it.digest.clone())
        });
        Ok(all)
    }

    /// `None`: this registry keeps no such lists.
    async fn referrers_of(
        &self,
        endpoint: &Endpoint,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Referrer>>, RegistryError> {
        let what = what(subject);
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(OCI_INDEX));
        let first = format!("{}/referrers/{subject}", self.name());
        let filter = artifact_type.map(|wanted| format!("?artifactType={}", crate::upload::encoded(wanted)));
        let below = format!("{first}{}", filter.unwrap_or_default());
        let mut asked = Asked { method: Method::GET, below, headers, what: what.clone() };
        let (mut all, mut bytes_before) = (Vec::new(), 0);
        for _ in 0..MOST_PAGES {
            let mut answer = match self.ask(endpoint, &asked).await {
                Ok(answer) => answer,
                // What there is no such route for is answered by whatever serves the others.
                Err(RegistryError::Refused { refusal, .. }) if matches!(refusal.status, 400 | 404 | 405 | 501) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            if essence(answer.field("content-type").unwrap_or_default()) != OCI_INDEX {
                return Ok(None);
            }
            let bytes = self.body(endpoint, &what, &mut answer, PAGE_BYTES).await?;
            bytes_before += bytes.len();
            if bytes_before > ALL_BYTES {
                return Err(self.broken(endpoint, &what, format!("there are more than {ALL_BYTES} bytes of them")));
            }
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|error| self.broken(endpoint, &what, format!("it is malformed: {error}")))?;
            all.extend(page.manifests.unwrap_or_default());
            if all.len() > MOST_REFERRERS {
                return Err(self.broken(endpoint, &what, format!("there are more than {MOST_REFERRERS}")));
            }
            match next(&answer, &first) {
                Some(next) if next == asked.below => {
                    return Err(self.broken(endpoint, &what, "its pages lead in a circle".to_owned()));
                }
                Some(next) => asked.below = next,
                None => return Ok(Some(all)),
            }
        }
        Err(self.broken(endpoint, &what, format!("it has more than {MOST_PAGES} pages")))
    }

    async fn referrers_by_tag(&self, subject: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        let tag = referrers_tag(subject);
        let Some(index) = self.index_of(&tag).await? else { return Ok(Vec::new()) };
        let page: Page =
            serde_json::from_slice(&index.bytes).map_err(|error| self.no_list(&tag, &error.to_string()))?;
        Ok(page.manifests.unwrap_or_default())
    }

    /// The index under a tag; `None`: there is none.
    async fn index_of(&self, tag: &str) -> Result<Option<Manifest>, RegistryError> {
        match self.manifest(&Which::Tag(tag.to_owned())).await {
            Ok(manifest) if manifest.kind == Document::Index => Ok(Some(manifest)),
            Ok(_) => Err(self.no_list(tag, "it is no index")),
            Err(RegistryError::Refused { refusal, .. }) if refusal.status == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn no_list(&self, tag: &str, why: &str) -> RegistryError {
        let (what, host) = (format!("the list of referrers {tag}"), self.own_host().to_owned());
        RegistryError::Broken { what, host, why: why.to_owned() }
    }
}

impl Uploads {
    /// Puts a manifest there that is about another one, and sees to it that it is found by that.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn put_referrer(
        &self,
        name: &str,
        subject: &Digest,
        referrer: &Referrer,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let (_, answer) = self.put(name, &referrer.digest, &referrer.media_type, bytes).await?;
        // "Pushing Manifests with Subject": who says this keeps the list itself.
        if answer.field("oci-subject").is_some() {
            return Ok(());
        }
        let tag = referrers_tag(subject);
        for _ in 0..ATTEMPTS {
            let before = self.repository.index_of(&tag).await?;
            let before = before.map(|index| index.bytes);
            let listed = listed(before.as_deref(), referrer).map_err(|why| self.repository.no_list(&tag, &why))?;
            let Some(index) = listed else { return Ok(()) };
            if index.len() as u64 > PAGE_BYTES {
                let why = format!("with one more it would have more than {PAGE_BYTES} bytes");
                return Err(self.repository.no_list(&tag, &why));
            }
            self.put_manifest(&tag, &digest_of(&index, "sha256"), OCI_INDEX, &index).await?;
        }
        // The last one that was put had it: whoever has taken it out since then is not found by asking again.
        match self.repository.referrers_by_tag(subject).await?.iter().any(|it| it.digest == referrer.digest) {
            true => Ok(()),
            false => Err(self.repository.no_list(&tag, "others write it all the time: push again")),
        }
    }
}

fn what(subject: &Digest) -> String {
    format!("the referrers of {subject}")
}

/// The tag of a subject's list: at most 32 letters of the algorithm and 64 of the digest ("Referrers Tag Schema").
fn referrers_tag(subject: &Digest) -> String {
    format!("{}-{}", subject.algorithm(), &subject.hex()[..64])
}

/// The index with one more referrer; `None`: it is in it. What others have put there stays as it is.
fn listed(index: Option<&[u8]>, referrer: &Referrer) -> Result<Option<Vec<u8>>, String> {
    let empty = || json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] });
    let mut index: Value = match index {
        Some(bytes) if memory_of(bytes) > MEMORY_BYTES => {
            return Err(format!("it would take more than {MEMORY_BYTES} bytes of memory"));
        }
        Some(bytes) => serde_json::from_slice(bytes).map_err(|error| error.to_string())?,
        None => empty(),
    };
    let manifests = index.get_mut("manifests").and_then(Value::as_array_mut).ok_or("it names no manifests")?;
    if manifests.iter().any(|known| known["digest"] == referrer.digest.as_str()) {
        return Ok(None);
    }
    manifests.push(serde_json::to_value(referrer).map_err(|error| error.to_string())?);
    Ok(Some(index.to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn referrer(letter: char) -> Referrer {
        Referrer {
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            digest: format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap(),
            size_bytes: 7,
            artifact_type: "application/vnd.example".into(),
            annotations: BTreeMap::from([("a".into(), "b".into())]),
        }
    }

    #[test]
    fn a_list_grows_and_keeps_what_is_in_it() {
        let first = listed(None, &referrer('a')).unwrap().unwrap();
        let read: Value = serde_json::from_slice(&first).unwrap();
        assert_eq!(
            read["manifests"][0],
            json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": referrer('a').digest, "size": 7,
                    "artifactType": "application/vnd.example", "annotations": { "a": "b" } })
        );
        assert_eq!(listed(Some(&first), &referrer('a')), Ok(None));
        let foreign = json!({ "mediaType": OCI_INDEX, "x": 1, "manifests": [{ "digest": "d", "y": 2 }] });
        let second = listed(Some(foreign.to_string().as_bytes()), &referrer('b')).unwrap().unwrap();
        let read: Value = serde_json::from_slice(&second).unwrap();
        assert_eq!((&read["x"], &read["manifests"][0]["y"]), (&json!(1), &json!(2)));
        assert_eq!(read["manifests"][1]["digest"], referrer('b').digest.as_str());
        for wrong in ["{", "{}", r#"{"manifests":7}"#] {
            assert!(listed(Some(wrong.as_bytes()), &referrer('a')).is_err(), "{wrong}");
        }
        let intricate = format!(r#"{{"manifests":[{}{{}}]}}"#, "{},".repeat(100_000));
        let why = listed(Some(intricate.as_bytes()), &referrer('a')).unwrap_err();
        assert!(why.contains("more than 67108864 bytes of memory"), "{why}");
    }

    #[test]
    fn a_list_has_the_subjects_tag() {
        let sha512: Digest = format!("sha512:{}", "b".repeat(128)).parse().unwrap();
        assert_eq!(referrers_tag(&referrer('a').digest), format!("sha256-{}", "a".repeat(64)));
        assert_eq!(referrers_tag(&sha512), format!("sha512-{}", "b".repeat(64)));
    }

    #[test]
    fn a_descriptor_may_say_little() {
        let read = |text: &str| serde_json::from_str::<Referrer>(text).map_err(|error| error.to_string());
        let digest = referrer('a').digest;
        let little = read(&format!(r#"{{"digest":"{digest}","size":1,"annotations":null}}"#)).unwrap();
        assert_eq!((little.artifact_type.as_str(), little.annotations.len()), ("", 0));
        assert!(read(r#"{"digest":"x","size":1}"#).is_err());
    }
}
