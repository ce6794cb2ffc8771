//! Manifests and tags.

use std::collections::BTreeMap;

use dozen_ledger::Durability;
use dozen_ledger::rusqlite::{Connection, OptionalExtension, params};
use dozen_model::Digest;
use serde_json::json;

use super::{Index, check_quota, now, repository_id, repository_made, signed};
use crate::manifest::{self, Manifest, NamedBlob};
use crate::name::{ManifestReference, RepositoryName, Tag};
use crate::refusal::{Kind, Refusal};

/// As it is given to whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredManifest {
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) content: Vec<u8>,
}

/// What is to be stored.
#[derive(Debug, Clone)]
pub(crate) struct PutManifest {
    pub(crate) repository: RepositoryName,
    pub(crate) digest: Digest,
    pub(crate) tag: Option<Tag>,
    pub(crate) manifest: Manifest,
    pub(crate) content: Vec<u8>,
    pub(crate) quota_bytes: Option<u64>,
    /// It is an upstream's: what it names comes later, or never.
    pub(crate) is_cached: bool,
}

/// A manifest that is about another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Referrer {
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) size_bytes: u64,
    pub(crate) artifact_type: Option<String>,
    /// As JSON: an object of texts.
    pub(crate) annotations: String,
}

impl Referrer {
    /// A descriptor's own words, and what JSON puts around them; more or less.
    pub(crate) fn told_bytes(&self) -> usize {
        let words = self.media_type.len() + self.artifact_type.as_ref().map_or(0, String::len);
        self.annotations.len() + words + 400
    }
}

impl Index {
    /// One manifest. `renew_before`: one that was last pulled before this is pulled now.
    pub(crate) async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
        renew_before: Option<i64>,
    ) -> Result<StoredManifest, Refusal> {
        let (repository, reference) = (repository.clone(), reference.clone());
        self.read(move |connection| {
            let id = repository_id(connection, &repository)?.ok_or_else(|| name_unknown(&repository))?;
            let id = manifest_id(connection, id, &reference)?.ok_or_else(|| manifest_unknown(&reference))?;
            let mut query = connection
                .prepare_cached("SELECT digest, media_type, content, pulled_at FROM manifests WHERE id = ?1")?;
            let (found, pulled_at): (_, i64) = query.query_row([id], |row| {
                let found = StoredManifest { digest: row.get(0)?, media_type: row.get(1)?, content: row.get(2)? };
                Ok((found, row.get(3)?))
            })?;
            if renew_before.is_some_and(|before| pulled_at < before) {
                connection.prepare_cached("UPDATE manifests SET pulled_at = ?2 WHERE id = ?1")?.execute([id, now()])?;
            }
            Ok(found)
        })
        .await
    }

    /// Stores one, with what it names, and the tag, all at once. Durable.
    pub(crate) async fn put_manifest(&self, put: PutManifest) -> Result<(), Refusal> {
        self.change(Durability::Power, move |connection| {
            let repository = repository_made(connection, &put.repository)?;
            let reference = ManifestReference::Digest(put.digest.clone());
            let id = match manifest_id(connection, repository, &reference)? {
                // The same bytes name the same things.
                Some(id) => {
                    lose_tag(connection, id)?;
                    if !put.is_cached {
                        own(connection, repository, id, &put)?;
                    }
                    id
                }
                None => insert(connection, repository, &put)?,
            };
            if let Some(tag) = &put.tag {
                if let Some(before) = manifest_id(connection, repository, &ManifestReference::Tag(tag.clone()))? {
                    lose_tag(connection, before)?;
                }
                connection
                    .prepare_cached(
                        "INSERT INTO tags (repository, name, manifest, pushed_at) VALUES (?1, ?2, ?3, ?4)
                         ON CONFLICT DO UPDATE SET manifest = excluded.manifest, pushed_at = excluded.pushed_at",
                    )?
                    .execute(params![repository, tag.as_str(), id, now()])?;
            }
            Ok(())
        })
        .await
    }

    /// How long a blob is by what a manifest of this repository says that names it.
    pub(crate) async fn promised_bytes(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>, Refusal> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT m.content, m.media_type FROM manifest_blobs n JOIN manifests m ON m.id = n.manifest
                 JOIN repositories r ON r.id = n.repository JOIN blobs b ON b.id = n.blob
                 WHERE r.name = ?1 AND b.digest = ?2 ORDER BY m.id DESC LIMIT 1",
            )?;
            let found = query.query_row([repository.as_str(), digest.as_str()], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?))
            });
            let Some((content, media_type)) = found.optional()? else { return Ok(None) };
            let named = manifest::parse(&content, Some(&media_type))?.blobs;
            Ok(named.into_iter().find(|blob| blob.digest == digest).map(|blob| blob.size_bytes))
        })
        .await
    }

    /// A tag, or a manifest with all its tags. Durable. What it named is no longer named by it.
    pub(crate) async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<(), Refusal> {
        let (repository, reference) = (repository.clone(), reference.clone());
        self.free(move |connection| {
            let id = repository_id(connection, &repository)?.ok_or_else(|| name_unknown(&repository))?;
            let deleted = match &reference {
                ManifestReference::Tag(tag) => {
                    if let Some(manifest) = manifest_id(connection, id, &reference)? {
                        lose_tag(connection, manifest)?;
                    }
                    connection
                        .execute("DELETE FROM tags WHERE repository = ?1 AND name = ?2", params![id, tag.as_str()])?
                }
                ManifestReference::Digest(digest) => connection.execute(
                    "DELETE FROM manifests WHERE repository = ?1 AND digest = ?2",
                    params![id, digest.as_str()],
                )?,
            };
            if deleted == 0 { Err(manifest_unknown(&reference)) } else { Ok(()) }
        })
        .await
    }

    /// Tags, sorted: those after one, and so many at the most.
    pub(crate) async fn tags(
        &self,
        repository: &RepositoryName,
        after: String,
        limit: usize,
    ) -> Result<Vec<String>, Refusal> {
        let repository = repository.clone();
        self.read(move |connection| {
            let id = repository_id(connection, &repository)?.ok_or_else(|| name_unknown(&repository))?;
            let mut rows = connection
                .prepare_cached("SELECT name FROM tags WHERE repository = ?1 AND name > ?2 ORDER BY name LIMIT ?3")?;
            let rows = rows.query_map(params![id, after, signed(limit as u64)], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Who is about this manifest, sorted by digest: those after one, until they have so many bytes together.
    pub(crate) async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<String>,
        after: String,
        limit_bytes: usize,
    ) -> Result<(Vec<Referrer>, bool), Refusal> {
        let (repository, subject) = (repository.clone(), subject.clone());
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT m.digest, m.media_type, m.size_bytes, m.artifact_type, m.annotations
                 FROM manifests m JOIN repositories r ON r.id = m.repository
                 WHERE r.name = ?1 AND m.subject = ?2 AND m.digest > ?3 AND (?4 IS NULL OR m.artifact_type = ?4)
                 ORDER BY m.digest",
            )?;
            let mut rows = query.query(params![repository.as_str(), subject.as_str(), after, artifact_type])?;
            let (mut found, mut bytes): (Vec<Referrer>, usize) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let referrer = Referrer {
                    digest: row.get(0)?,
                    media_type: row.get(1)?,
                    size_bytes: row.get::<_, i64>(2)?.unsigned_abs(),
                    artifact_type: row.get(3)?,
                    annotations: row.get(4)?,
                };
                bytes += referrer.told_bytes();
                if bytes > limit_bytes && !found.is_empty() {
                    return Ok((found, true));
                }
                found.push(referrer);
            }
            Ok((found, false))
        })
        .await
    }
}

pub(super) fn manifest_id(
    connection: &Connection,
    repository: i64,
    reference: &ManifestReference,
) -> Result<Option<i64>, Refusal> {
    let (mut query, word) = match reference {
        ManifestReference::Tag(tag) => {
            (connection.prepare_cached("SELECT manifest FROM tags WHERE repository = ?1 AND name = ?2")?, tag.as_str())
        }
        ManifestReference::Digest(digest) => (
            connection.prepare_cached("SELECT id FROM manifests WHERE repository = ?1 AND digest = ?2")?,
            digest.as_str(),
        ),
    };
    Ok(query.query_row(params![repository, word], |row| row.get(0)).optional()?)
}

/// From now on counts how long it has been without a tag, if it is.
fn lose_tag(connection: &Connection, manifest: i64) -> Result<(), Refusal> {
    connection.prepare_cached("UPDATE manifests SET named_at = ?2 WHERE id = ?1")?.execute([manifest, now()])?;
    Ok(())
}

fn insert(connection: &Connection, repository: i64, put: &PutManifest) -> Result<i64, Refusal> {
    check_quota(connection, repository, &put.repository, put.content.len() as u64, put.quota_bytes)?;
    let annotations: &BTreeMap<_, _> = &put.manifest.annotations;
    connection
        .prepare_cached(
            "INSERT INTO manifests (repository, digest, media_type, size_bytes, subject, artifact_type, annotations,
             content, named_at, is_cached) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            repository,
            put.digest.as_str(),
            put.manifest.media_type,
            signed(put.content.len() as u64),
            put.manifest.subject.as_ref().map(Digest::as_str),
            put.manifest.artifact_type,
            json!(annotations).to_string(),
            put.content,
            now(),
            put.is_cached,
        ])?;
    let id = connection.last_insert_rowid();
    if put.is_cached {
        promise(connection, id, repository, &put.manifest.blobs)?;
    } else {
        name_all(connection, repository, id, put)?;
    }
    Ok(id)
}

/// One that was an upstream's and is pushed now has to have all it names, as any other.
fn own(connection: &Connection, repository: i64, id: i64, put: &PutManifest) -> Result<(), Refusal> {
    let mut change =
        connection.prepare_cached("UPDATE manifests SET is_cached = 0 WHERE id = ?1 AND is_cached <> 0")?;
    if change.execute([id])? == 0 { Ok(()) } else { name_all(connection, repository, id, put) }
}

/// Names blobs that the repository does not have: their rows say nothing of a file until one comes. Somebody else's file
/// does not become this repository's by being named.
fn promise(connection: &Connection, manifest: i64, repository: i64, blobs: &[NamedBlob]) -> Result<(), Refusal> {
    let mut make =
        connection.prepare_cached("INSERT INTO blobs (digest, size_bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
    let mut name = connection.prepare_cached(
        "INSERT OR IGNORE INTO manifest_blobs (manifest, repository, blob)
         SELECT ?1, ?2, id FROM blobs WHERE digest = ?3",
    )?;
    for blob in blobs {
        make.execute(params![blob.digest.as_str(), signed(blob.size_bytes)])?;
        name.execute(params![manifest, repository, blob.digest.as_str()])?;
    }
    Ok(())
}

fn name_all(connection: &Connection, repository: i64, id: i64, put: &PutManifest) -> Result<(), Refusal> {
    for blob in &put.manifest.blobs {
        name_blob(connection, repository, id, blob)?;
    }
    for digest in &put.manifest.manifests {
        if manifest_id(connection, repository, &ManifestReference::Digest(digest.clone()))?.is_none() {
            return Err(not_here("manifest", digest));
        }
    }
    Ok(())
}

fn name_blob(connection: &Connection, repository: i64, manifest: i64, blob: &NamedBlob) -> Result<(), Refusal> {
    let mut query = connection.prepare_cached(
        "SELECT b.id, b.size_bytes FROM blobs b JOIN repository_blobs h ON h.blob = b.id
         WHERE h.repository = ?1 AND b.digest = ?2 AND b.upload IS NOT NULL",
    )?;
    let found = query.query_row(params![repository, blob.digest.as_str()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    });
    match found.optional()? {
        Some((id, size)) if size == blob.size_bytes => {
            connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO manifest_blobs (manifest, repository, blob) VALUES (?1, ?2, ?3)",
                )?
                .execute([manifest, repository, id])?;
            Ok(())
        }
        Some((_, size)) => {
            let words = format!("it says that {} has {} bytes, where it has {size}", blob.digest, blob.size_bytes);
            Err(Refusal::new(Kind::ManifestInvalid, words))
        }
        None if blob.may_be_missing => Ok(()),
        None => Err(not_here("blob", &blob.digest)),
    }
}

fn not_here(what: &str, digest: &Digest) -> Refusal {
    let detail = json!({ "digest": digest.as_str() });
    Refusal::new(Kind::ManifestBlobUnknown, format!("{what} unknown to registry: {digest}")).with_detail(detail)
}

pub(super) fn name_unknown(repository: &RepositoryName) -> Refusal {
    let detail = json!({ "name": repository.as_str() });
    Refusal::new(Kind::NameUnknown, "repository name not known to registry").with_detail(detail)
}

pub(super) fn manifest_unknown(reference: &ManifestReference) -> Refusal {
    let detail = json!({ "reference": reference.to_string() });
    Refusal::new(Kind::ManifestUnknown, "manifest unknown").with_detail(detail)
}
