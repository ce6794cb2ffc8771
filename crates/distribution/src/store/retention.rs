//! What rules of retention let go, in all repositories, while everyone goes on.

use crate::failpoint::failpoint;
use crate::name::{ManifestReference, RepositoryName};
use crate::refusal::Refusal;
use crate::retention::Retention;
use crate::store::Store;
use crate::store::index::{Released, StoredManifest, now};

/// When something was last pulled is written down to this many seconds.
const PULLED_TO_SECONDS: i64 = 3600;
/// Repositories that are looked up at once.
const STEP: usize = 1000;

impl Store {
    /// A manifest, which somebody pulls; it is noted when, unless nothing may be changed.
    pub(crate) async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
        may_note: bool,
    ) -> Result<StoredManifest, Refusal> {
        let before = may_note.then(|| now().saturating_sub(PULLED_TO_SECONDS));
        self.index.manifest(repository, reference, before).await
    }

    /// Deletes the tags and manifests that the rules let go, or says what they would (`dry_run`). Each repository is one
    /// transaction: whatever kills the server leaves each as it was or done, and the next round goes on.
    ///
    /// # Errors
    /// The index cannot be read or changed. What went until then is gone.
    pub async fn retain(&self, retention: &Retention, dry_run: bool) -> Result<Vec<Released>, Refusal> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let names = self.index.repositories(after, STEP).await?;
            let Some(last) = names.last().cloned() else { return Ok(all) };
            for name in names {
                let Ok(name) = name.parse::<RepositoryName>() else { continue };
                let Some(rule) = retention.rule_for(&name) else { continue };
                let released = self.index.retain(&name, rule, dry_run).await?;
                if !dry_run && !released.is_empty() {
                    failpoint("retention.applied");
                    for one in &released {
                        tracing::info!("{}{} went: {}", one.repository, one.what, one.why);
                    }
                }
                all.extend(released);
            }
            after = last;
        }
    }
}
