//! Builds by the ids that their callers gave them, so that they can be spoken of while they go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;

use super::exchange::Exchange;
use crate::{Engine, EngineError};

/// An id is no longer.
const LIMIT_BYTES: usize = 256;

/// The builds of an engine that have ids.
#[derive(Debug, Default)]
pub(crate) struct NamedBuilds(Mutex<HashMap<String, Weak<Named>>>);

/// What a build is called, or nothing. No other has the id until the last of these is dropped: by then nothing is left of
/// the build.
#[derive(Debug, Clone, Default)]
pub struct BuildName(Arc<Named>);

#[derive(Debug, Default)]
struct Named {
    is_cancelled: watch::Sender<bool>,
    exchange: Exchange,
}

impl Engine {
    /// Gives a build that is about to begin an id.
    pub fn name_build(&self, id: &str) -> Result<BuildName, EngineError> {
        if id.len() > LIMIT_BYTES {
            let message = format!("the id of a build is longer than {LIMIT_BYTES} bytes");
            return Err(EngineError::Invalid { message, hint: None });
        }
        self.shared.named_builds.name(id).ok_or_else(|| EngineError::Conflict {
            message: format!("another build has the id {id:?}"),
            hint: Some("let each build have an id of its own".into()),
        })
    }

    /// Ends a build: as if its client had gone, but that this hears of it.
    pub fn cancel_build(&self, id: &str) -> Result<(), EngineError> {
        let named = self.shared.named_builds.find(id).ok_or_else(|| EngineError::NoSuchBuild(id.to_owned()))?;
        named.0.is_cancelled.send_replace(true);
        Ok(())
    }
}

impl NamedBuilds {
    /// `None`: another build has it.
    fn name(&self, id: &str) -> Option<BuildName> {
        let mut builds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        builds.retain(|_, build| build.strong_count() > 0);
        if builds.contains_key(id) {
            return None;
        }
        let name = BuildName::default();
        builds.insert(id.to_owned(), Arc::downgrade(&name.0));
        Some(name)
    }

    pub(super) fn find(&self, id: &str) -> Option<BuildName> {
        let builds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        builds.get(id).and_then(Weak::upgrade).map(BuildName)
    }
}

impl BuildName {
    pub(super) fn exchange(&self) -> &Exchange {
        &self.0.exchange
    }

    /// Waits until somebody cancels the build.
    pub async fn cancelled(&self) {
        let mut cancelled = self.0.is_cancelled.subscribe();
        let waited = cancelled.wait_for(|cancelled| *cancelled).await;
        waited.expect("the sender is this name's");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_id_is_one_builds_until_that_is_gone() {
        let builds = NamedBuilds::default();
        let (one, other) = (builds.name("one").unwrap(), builds.name("other").unwrap());
        assert!(builds.name("one").is_none() && builds.find("none").is_none());
        let held = one.clone();
        drop(one);
        assert!(builds.name("one").is_none());
        builds.find("one").unwrap().0.is_cancelled.send_replace(true);
        held.cancelled().await;
        assert!(!*other.0.is_cancelled.borrow());
        drop(held);
        assert!(builds.find("one").is_none() && builds.name("one").is_some());
    }
}
