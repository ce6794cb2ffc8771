//! What a registry's server does beside answering, all with one owner: it ends with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dozen_distribution::{Metrics, Retention, Store, control};
use tokio::task::JoinSet;

/// See the module. Whoever drops it ends them all.
#[derive(Debug, Default)]
pub(crate) struct Chores(JoinSet<()>);

impl Chores {
    pub(crate) fn add(&mut self, chore: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(chore);
    }

    /// Answers the owner of the directory, if he asks. `rules`: those that are carried out.
    pub(crate) fn answer_owner(&mut self, store: &Arc<Store>, rules: Option<Retention>, root: &Path) {
        match control(store.clone(), rules, root) {
            Ok(answering) => self.add(answering),
            // A path that is too long, say: whoever only pushes and pulls needs it not.
            Err(error) => tracing::warn!("dozen registry retention cannot ask this server: {error}"),
        }
    }
}

/// For ever: what the rules let go goes, and then what nothing names.
pub(crate) async fn collect_each(pause: Duration, store: Arc<Store>, rules: Option<Retention>, metrics: Arc<Metrics>) {
    loop {
        if let Some(rules) = &rules {
            match store.retain(rules, false).await {
                Ok(released) => metrics.released(released.len()),
                Err(refusal) if refusal.is_for_ending() => {}
                Err(refusal) => tracing::error!("cannot carry out the rules of retention: {refusal}"),
            }
        }
        collect(&store, &metrics).await;
        tokio::time::sleep(pause).await;
    }
}

/// For ever, too: what nothing names goes. Nobody wakes up for a registry in which nothing happens.
pub(crate) async fn collect_when_stirred(pause: Duration, store: Arc<Store>) {
    let metrics = Metrics::default();
    loop {
        collect(&store, &metrics).await;
        if let Err(refusal) = store.until_stirred().await
            && !refusal.is_for_ending()
        {
            tracing::error!("cannot tell what nothing names: {refusal}");
        }
        tokio::time::sleep(pause).await;
    }
}

async fn collect(store: &Arc<Store>, metrics: &Metrics) {
    match store.collect().await {
        Ok(freed) if freed.blobs + freed.uploads > 0 => {
            metrics.collected(freed.blobs, freed.bytes);
            let (blobs, bytes, uploads) = (freed.blobs, freed.bytes, freed.uploads);
            tracing::info!("collected {blobs} blobs of {bytes} bytes that nothing named, and {uploads} uploads");
        }
        Ok(_) => {}
        Err(refusal) if refusal.is_for_ending() => {}
        Err(refusal) => tracing::error!("cannot collect what nothing names: {refusal}"),
    }
}
