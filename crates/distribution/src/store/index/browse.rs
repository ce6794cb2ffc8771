//! What a person wants to know of repositories, tags and manifests, at a look.

use std::collections::BTreeMap;

use dozen_ledger::rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::manifests::{manifest_id, manifest_unknown, name_unknown};
use super::{Index, repository_id, signed};
use crate::name::{ManifestReference, RepositoryName};
use crate::refusal::Refusal;

/// An index that is longer is not looked into for its platforms: a list of tags has many.
const LARGEST_INDEX_BYTES: i64 = 256 << 10;
/// Tags of one manifest that are told, and platforms of one tag.
const MOST_TAGS: i64 = 100;
const MOST_PLATFORMS: usize = 50;
/// Letters of a platform that are told, and of what an artifact says that it is: a manifest may have megabytes of either.
const MOST_PLATFORM_LETTERS: usize = 64;
const MOST_TYPE_LETTERS: i64 = 256;
/// Rows that are looked at for sizes, for one question: others wait meanwhile, and somebody may have pushed an index of
/// thousands of manifests of thousands of layers.
const MOST_ROWS: usize = 50_000;
/// The same, of one of many repositories.
const MOST_REPOSITORY_ROWS: i64 = 10_000;

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepositorySummary {
    /// `None`: these are too many to be counted.
    pub(crate) tags: Option<u64>,
    /// Of its blobs and manifests; `None`: these are too many.
    pub(crate) bytes: Option<u64>,
    /// Seconds since 1970; `None`: no tag is there, or too many.
    pub(crate) pushed_at: Option<i64>,
}

/// A tag, and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagSummary {
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) artifact_type: Option<String>,
    /// Seconds since 1970.
    pub(crate) pushed_at: i64,
    /// The same; 0 is never.
    pub(crate) pulled_at: i64,
    /// Of all blobs that it needs, each once; `None`: nobody has looked.
    pub(crate) bytes: Option<u64>,
    /// Of an index.
    pub(crate) platforms: Vec<String>,
}

/// A manifest with what is around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedManifest {
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) artifact_type: Option<String>,
    pub(crate) content: Vec<u8>,
    /// Seconds since 1970: when it was last pushed, or lost a tag.
    pub(crate) named_at: i64,
    /// The same; 0 is never.
    pub(crate) pulled_at: i64,
    /// Some of them.
    pub(crate) tags: Vec<String>,
    /// Of all blobs that it needs, each once; `None`: these are too many to be looked at.
    pub(crate) bytes: Option<u64>,
    /// Blobs of its own that are not there.
    pub(crate) missing: Vec<String>,
    /// Of an index: by digest what of each manifest is here.
    pub(crate) children: BTreeMap<String, DescribedChild>,
}

/// A manifest of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DescribedChild {
    pub(crate) is_here: bool,
    /// Of all its blobs; `None`: nobody has looked.
    pub(crate) bytes: Option<u64>,
}

/// What is looked at for sizes: each blob counts once.
struct Sizes<'a> {
    connection: &'a Connection,
    repository: i64,
    rows_left: usize,
}

/// Blobs and their sizes; `None`: they are too many.
type Blobs = Option<BTreeMap<i64, u64>>;

fn total(blobs: &Blobs) -> Option<u64> {
    blobs.as_ref().map(|blobs| blobs.values().sum())
}

fn add(all: &mut Blobs, more: Blobs) {
    match (all.as_mut(), more) {
        (Some(all), Some(more)) => all.extend(more),
        _ => *all = None,
    }
}

impl Sizes<'_> {
    /// What a manifest names itself.
    fn blobs(&mut self, manifest: i64) -> Result<Blobs, Refusal> {
        let mut query = self.connection.prepare_cached(
            "SELECT b.id, b.size_bytes FROM manifest_blobs n JOIN blobs b ON b.id = n.blob WHERE n.manifest = ?1
             LIMIT ?2",
        )?;
        let limit = signed(self.rows_left as u64).saturating_add(1);
        let rows = query.query_map([manifest, limit], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
        let blobs = rows.collect::<Result<BTreeMap<_, _>, _>>()?;
        let is_too_many = blobs.len() > self.rows_left;
        self.rows_left = self.rows_left.saturating_sub(blobs.len());
        Ok(Some(blobs).filter(|_| !is_too_many))
    }

    /// Whether a manifest of an index is here, and what it names.
    fn child(&mut self, digest: &str) -> Result<(bool, Blobs), Refusal> {
        if self.rows_left == 0 {
            return Ok((true, None));
        }
        self.rows_left -= 1;
        let mut query =
            self.connection.prepare_cached("SELECT id FROM manifests WHERE repository = ?1 AND digest = ?2")?;
        match query.query_row(params![self.repository, digest], |row| row.get(0)).optional()? {
            Some(id) => Ok((true, self.blobs(id)?)),
            None => Ok((false, Some(BTreeMap::new()))),
        }
    }
}

impl Index {
    pub(crate) async fn repository_summary(&self, name: &RepositoryName) -> Result<RepositorySummary, Refusal> {
        let name = name.clone();
        self.read(move |connection| {
            let id = repository_id(connection, &name)?.ok_or_else(|| name_unknown(&name))?;
            // Of so many rows that one more is too many: how many there are, and what comes of them.
            let counted = |select: &str| -> Result<Option<(u64, Option<i64>)>, Refusal> {
                let mut query = connection.prepare_cached(select)?;
                let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?));
                let (count, value) = query.query_row([id, MOST_REPOSITORY_ROWS + 1], row)?;
                Ok(Some((count.unsigned_abs(), value)).filter(|_| count <= MOST_REPOSITORY_ROWS))
            };
            let tags = counted(
                "SELECT count(*), max(pushed_at) FROM (SELECT pushed_at FROM tags WHERE repository = ?1 LIMIT ?2)",
            )?;
            let blobs = counted(
                "SELECT count(*), sum(size_bytes) FROM (
                     SELECT b.size_bytes FROM repository_blobs h JOIN blobs b ON b.id = h.blob
                     WHERE h.repository = ?1 LIMIT ?2)",
            )?;
            let manifests = counted(
                "SELECT count(*), sum(size_bytes) FROM (
                     SELECT size_bytes FROM manifests WHERE repository = ?1 LIMIT ?2)",
            )?;
            let bytes = |(_, bytes): (u64, Option<i64>)| bytes.unwrap_or_default().unsigned_abs();
            Ok(RepositorySummary {
                tags: tags.map(|(count, _)| count),
                bytes: blobs.zip(manifests).map(|(blobs, manifests)| bytes(blobs) + bytes(manifests)),
                pushed_at: tags.and_then(|(_, pushed_at)| pushed_at),
            })
        })
        .await
    }

    /// Tags, sorted: those after one, and so many at the most.
    pub(crate) async fn tag_summaries(
        &self,
        name: &RepositoryName,
        after: String,
        limit: usize,
    ) -> Result<Vec<TagSummary>, Refusal> {
        let name = name.clone();
        self.read(move |connection| {
            let repository = repository_id(connection, &name)?.ok_or_else(|| name_unknown(&name))?;
            let mut query = connection.prepare_cached(
                "SELECT t.name, m.digest, m.media_type, substr(m.artifact_type, 1, ?5), t.pushed_at, m.pulled_at, m.id,
                 CASE WHEN m.size_bytes <= ?4 AND EXISTS (SELECT 1 FROM manifest_blobs n WHERE n.manifest = m.id) = 0
                      THEN m.content END
                 FROM tags t JOIN manifests m ON m.id = t.manifest
                 WHERE t.repository = ?1 AND t.name > ?2 ORDER BY t.name LIMIT ?3",
            )?;
            let mut sizes = Sizes { connection, repository, rows_left: MOST_ROWS };
            let limit = signed(limit as u64);
            let mut rows = query.query(params![repository, after, limit, LARGEST_INDEX_BYTES, MOST_TYPE_LETTERS])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                // What names blobs itself is no index.
                let content: Option<Vec<u8>> = row.get(7)?;
                let mut blobs = sizes.blobs(row.get(6)?)?;
                if content.is_none() && blobs.as_ref().is_some_and(BTreeMap::is_empty) {
                    blobs = None;
                }
                let mut platforms = Vec::new();
                for child in content.iter().flat_map(|content| children(content)) {
                    platforms.extend(child.platform.filter(|_| platforms.len() < MOST_PLATFORMS));
                    add(&mut blobs, sizes.child(&child.digest)?.1);
                }
                all.push(TagSummary {
                    name: row.get(0)?,
                    digest: row.get(1)?,
                    media_type: row.get(2)?,
                    artifact_type: row.get(3)?,
                    pushed_at: row.get(4)?,
                    pulled_at: row.get(5)?,
                    bytes: total(&blobs),
                    platforms,
                });
            }
            Ok(all)
        })
        .await
    }

    /// One manifest. That somebody looks at it is no pull.
    pub(crate) async fn describe(
        &self,
        name: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<DescribedManifest, Refusal> {
        let (name, reference) = (name.clone(), reference.clone());
        self.read(move |connection| {
            let repository = repository_id(connection, &name)?.ok_or_else(|| name_unknown(&name))?;
            let id = manifest_id(connection, repository, &reference)?.ok_or_else(|| manifest_unknown(&reference))?;
            let mut query = connection.prepare_cached(
                "SELECT digest, media_type, substr(artifact_type, 1, ?2), content, named_at, pulled_at FROM manifests
                 WHERE id = ?1",
            )?;
            let mut described = query.query_row([id, MOST_TYPE_LETTERS], |row| {
                Ok(DescribedManifest {
                    digest: row.get(0)?,
                    media_type: row.get(1)?,
                    artifact_type: row.get(2)?,
                    content: row.get(3)?,
                    named_at: row.get(4)?,
                    pulled_at: row.get(5)?,
                    tags: Vec::new(),
                    bytes: None,
                    missing: Vec::new(),
                    children: BTreeMap::new(),
                })
            })?;
            let mut query =
                connection.prepare_cached("SELECT name FROM tags WHERE manifest = ?1 ORDER BY name LIMIT ?2")?;
            described.tags = query.query_map([id, MOST_TAGS], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let mut query = connection.prepare_cached(
                "SELECT b.digest FROM manifest_blobs n JOIN blobs b ON b.id = n.blob
                 WHERE n.manifest = ?1 AND (b.upload IS NULL OR NOT EXISTS (
                     SELECT 1 FROM repository_blobs h WHERE h.blob = b.id AND h.repository = n.repository))",
            )?;
            described.missing = query.query_map([id], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let mut sizes = Sizes { connection, repository, rows_left: MOST_ROWS };
            let mut all = sizes.blobs(id)?;
            for child in children(&described.content) {
                let (is_here, blobs) = sizes.child(&child.digest)?;
                let bytes = total(&blobs).filter(|_| is_here);
                add(&mut all, blobs);
                described.children.insert(child.digest, DescribedChild { is_here, bytes });
            }
            described.bytes = total(&all);
            Ok(described)
        })
        .await
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Child {
    digest: String,
    platform: Option<String>,
}

/// The manifests of an index, as far as its words are understood.
fn children(content: &[u8]) -> Vec<Child> {
    let content: Value = serde_json::from_slice(content).unwrap_or_default();
    let manifests = content.get("manifests").and_then(Value::as_array);
    let child = |one: &Value| {
        let word = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
        let platform = one.get("platform").and_then(|platform| {
            let words = ["os", "architecture", "variant"].map(|name| word(platform, name));
            let shown = words.into_iter().flatten().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("/");
            // So attestations are kept apart (docs.docker.com, "Image attestation storage").
            let is_shown = !shown.is_empty() && shown != "unknown/unknown";
            is_shown.then(|| shown.chars().take(MOST_PLATFORM_LETTERS).collect())
        });
        Some(Child { digest: word(one, "digest")?, platform })
    };
    manifests.into_iter().flatten().filter_map(child).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_platforms_and_what_is_none_is_left_out() {
        let told = |text: &str| -> Vec<(String, Option<String>)> {
            children(text.as_bytes()).into_iter().map(|child| (child.digest, child.platform)).collect()
        };
        let text = r#"{"manifests":[
            {"digest":"a","platform":{"os":"linux","architecture":"arm","variant":"v7"}},
            {"digest":"b","platform":{"os":"unknown","architecture":"unknown"}},
            {"digest":"c"},{"digest":7},"x"]}"#;
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(told(text), [("a".into(), some("linux/arm/v7")), ("b".into(), None), ("c".into(), None)]);
        for other in ["", "[]", "{}", r#"{"manifests":{}}"#] {
            assert_eq!(told(other), [], "{other}");
        }
        let long = format!(r#"{{"manifests":[{{"digest":"a","platform":{{"os":"{}"}}}}]}}"#, "ä".repeat(1000));
        assert_eq!(told(&long), [("a".into(), Some("ä".repeat(64)))]);
    }
}
