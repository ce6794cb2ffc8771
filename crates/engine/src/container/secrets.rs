//! Variables of a container's first process that nobody else sees: they are in no spec, no row and no `inspect`, and no
//! exec has them. Memory holds them until the start, which hands them to the monitor beside the spec.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dozen_model::ContainerId;
use dozen_monitor::protocol::SecretEnvironment;

/// Who is to have which.
#[derive(Debug, Default)]
pub(crate) struct Secrets(Mutex<HashMap<ContainerId, SecretEnvironment>>);

/// A container's variables, forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Given {
    secrets: Arc<Secrets>,
    id: ContainerId,
}

impl Drop for Given {
    fn drop(&mut self) {
        self.secrets.lock().remove(&self.id);
    }
}

impl Secrets {
    /// Each start of the container has these, until what comes back is dropped.
    pub(crate) fn give(self: &Arc<Self>, id: &ContainerId, environment: SecretEnvironment) -> Given {
        self.lock().insert(id.clone(), environment);
        Given { secrets: self.clone(), id: id.clone() }
    }

    /// Those of a container that starts.
    pub(crate) fn of(&self, id: &ContainerId) -> SecretEnvironment {
        self.lock().get(id).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, SecretEnvironment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_one_containers_and_forgotten_with_what_it_does() {
        let (secrets, id) = (Arc::new(Secrets::default()), ContainerId::random());
        let given = secrets.give(&id, SecretEnvironment(vec!["A=hunter2".into()]));
        assert_eq!(secrets.of(&id).0, ["A=hunter2"]);
        assert!(secrets.of(&ContainerId::random()).0.is_empty());
        assert!(!format!("{secrets:?} {given:?}").contains("hunter2"));
        drop(given);
        assert!(secrets.of(&id).0.is_empty());
    }
}
