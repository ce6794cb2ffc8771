//! What rules let go, repository by repository: it is looked at, decided and deleted in one transaction, so that no push comes
//! in between.

use dozen_ledger::rusqlite::{Connection, params};

use super::{Index, now, repository_id};
use crate::manifest;
use crate::name::RepositoryName;
use crate::refusal::Refusal;
use crate::retention::{Facts, ManifestFact, Plan, Rule, TagFact, decide};

/// What goes of a repository, or would: tag or digest, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Which repository's.
    pub repository: String,
    /// `:tag`, or `@digest`.
    pub what: String,
    /// In words.
    pub why: String,
}

impl Index {
    /// Carries a rule out, or says what it would take (`dry_run`).
    pub(crate) async fn retain(
        &self,
        repository: &RepositoryName,
        rule: Rule,
        dry_run: bool,
    ) -> Result<Vec<Released>, Refusal> {
        let repository = repository.clone();
        let act = move |connection: &Connection| {
            let Some(id) = repository_id(connection, &repository)? else { return Ok(Vec::new()) };
            let (facts, ids) = facts(connection, id)?;
            let plan = decide(&rule, &facts, now());
            if !dry_run {
                carry_out(connection, id, &facts, &ids, &plan)?;
            }
            Ok(told(&repository, &facts, &plan))
        };
        if dry_run { self.read(act).await } else { self.free(act).await }
    }
}

/// With the rows' ids, in the order of the manifests.
fn facts(connection: &Connection, repository: i64) -> Result<(Facts, Vec<i64>), Refusal> {
    let mut query = connection.prepare_cached(
        "SELECT id, digest, named_at, pulled_at, subject,
         CASE WHEN media_type NOT IN (?2, ?3) THEN content END
         FROM manifests WHERE repository = ?1 ORDER BY id",
    )?;
    let mut rows = query.query(params![repository, manifest::OCI_MANIFEST, manifest::DOCKER_MANIFEST])?;
    let (mut facts, mut ids) = (Facts::default(), Vec::new());
    while let Some(row) = rows.next()? {
        ids.push(row.get::<_, i64>(0)?);
        let content: Option<Vec<u8>> = row.get(5)?;
        // It was looked through when it came. If it cannot be read any more, nothing of this repository goes.
        let children = content.map(|content| manifest::parse(&content, None)).transpose()?.map(|read| read.manifests);
        facts.manifests.push(ManifestFact {
            digest: row.get(1)?,
            named_at: row.get(2)?,
            pulled_at: row.get(3)?,
            subject: row.get(4)?,
            children: children.into_iter().flatten().map(|digest| digest.to_string()).collect(),
        });
    }
    let mut query =
        connection.prepare_cached("SELECT name, manifest, pushed_at FROM tags WHERE repository = ?1 ORDER BY name")?;
    let mut rows = query.query([repository])?;
    while let Some(row) = rows.next()? {
        if let Ok(manifest) = ids.binary_search(&row.get(1)?) {
            facts.tags.push(TagFact { name: row.get(0)?, manifest, pushed_at: row.get(2)? });
        }
    }
    Ok((facts, ids))
}

fn carry_out(connection: &Connection, repository: i64, facts: &Facts, ids: &[i64], plan: &Plan) -> Result<(), Refusal> {
    let mut tag = connection.prepare_cached("DELETE FROM tags WHERE repository = ?1 AND name = ?2")?;
    let mut named = connection.prepare_cached("UPDATE manifests SET named_at = ?2 WHERE id = ?1")?;
    for (place, _) in &plan.tags {
        let fact = &facts.tags[*place];
        tag.execute(params![repository, fact.name])?;
        named.execute([ids[fact.manifest], now()])?;
    }
    let mut manifest = connection.prepare_cached("DELETE FROM manifests WHERE id = ?1")?;
    for (place, _) in &plan.manifests {
        manifest.execute([ids[*place]])?;
    }
    Ok(())
}

fn told(repository: &RepositoryName, facts: &Facts, plan: &Plan) -> Vec<Released> {
    let released = |what: String, why: &str| Released { repository: repository.to_string(), what, why: why.to_owned() };
    let tags = plan.tags.iter().map(|(place, why)| released(format!(":{}", facts.tags[*place].name), why));
    let manifests =
        plan.manifests.iter().map(|(place, why)| released(format!("@{}", facts.manifests[*place].digest), why));
    tags.chain(manifests).collect()
}

#[cfg(test)]
impl Index {
    /// Changes what the rules count from.
    pub(crate) async fn set_times(&self, change: &'static str) -> Result<(), Refusal> {
        self.change(dozen_ledger::Durability::Kill, move |connection| Ok(connection.execute_batch(change)?)).await
    }
}
