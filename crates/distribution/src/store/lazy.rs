//! A store that the first who needs it opens. Until then it costs nothing but its name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dozen_model::error_chain;
use tokio::sync::{Notify, OnceCell};

use super::{Store, StoreOptions};
use crate::refusal::{Kind, Refusal};

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub struct LazyStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    opened: OnceCell<Arc<Store>>,
    /// Told once it is open.
    arrived: Notify,
    root: PathBuf,
    options: StoreOptions,
}

impl LazyStore {
    /// Of this directory, which may not be there yet.
    pub fn new(root: &Path, options: StoreOptions) -> Self {
        let opened = OnceCell::new();
        Self(Arc::new(Inner { opened, arrived: Notify::new(), root: root.to_owned(), options }))
    }

    /// The store. It is opened, if it is not: by a task that goes on when whoever asked has gone, for what an opening has begun
    /// it has to end before the next one. What fails is told to those who have waited: the next one tries again.
    pub(crate) async fn open(&self) -> Result<Arc<Store>, Refusal> {
        if let Some(store) = self.0.opened.get() {
            return Ok(store.clone());
        }
        let inner = self.0.clone();
        let opening = tokio::spawn(async move {
            let store = inner.opened.get_or_try_init(|| inner.open()).await?.clone();
            inner.arrived.notify_waiters();
            Ok(store)
        });
        opening.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a task of the registry failed");
            Err(Refusal::new(Kind::Internal, "the registry failed: its log says why"))
        })
    }

    /// The store, as soon as somebody has opened it.
    pub async fn opened(&self) -> Arc<Store> {
        loop {
            let arrived = self.0.arrived.notified();
            if let Some(store) = self.0.opened.get() {
                return store.clone();
            }
            arrived.await;
        }
    }
}

impl Inner {
    async fn open(&self) -> Result<Arc<Store>, Refusal> {
        let opened = Store::open(&self.root, self.options.clone()).await;
        opened.map_err(|error| {
            // The log is told where it is, the client is not.
            tracing::error!("cannot open the registry in {}: {}", self.root.display(), error_chain(&error));
            match error.is_full() {
                true => Refusal::new(Kind::DiskFull, "the registry cannot be opened: its disk is full"),
                false => {
                    let words = "the registry cannot be opened at the moment: its log says why";
                    Refusal::new(Kind::StoreUnavailable, words)
                }
            }
        })
    }
}

impl From<Arc<Store>> for LazyStore {
    fn from(store: Arc<Store>) -> Self {
        let (root, options) = (PathBuf::new(), StoreOptions::default());
        Self(Arc::new(Inner { opened: OnceCell::new_with(Some(store)), arrived: Notify::new(), root, options }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_made_for_the_first_who_needs_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("registry");
        let lazy = LazyStore::new(&root, StoreOptions::default());
        let waiting = tokio::spawn({
            let lazy = lazy.clone();
            async move { lazy.opened().await }
        });
        tokio::task::yield_now().await;
        assert!(!root.exists() && !waiting.is_finished());
        let store = lazy.open().await.unwrap();
        assert!(root.join("index.db").exists());
        assert!(Arc::ptr_eq(&store, &waiting.await.unwrap()));
        assert!(Arc::ptr_eq(&store, &lazy.open().await.unwrap()));
        assert!(Arc::ptr_eq(&store, &lazy.opened().await));
    }

    #[tokio::test]
    async fn what_stands_in_the_way_is_told_and_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("registry");
        let other = Store::open(&root, StoreOptions::default()).await.unwrap();
        let lazy = LazyStore::new(&root, StoreOptions::default());
        let refusal = lazy.open().await.unwrap_err();
        assert_eq!(refusal.kind, Kind::StoreUnavailable);
        assert!(!refusal.message.contains(root.to_str().unwrap()), "{refusal}");
        drop(other);
        lazy.open().await.unwrap();
    }
}
