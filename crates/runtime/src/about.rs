//! A container as others are told of it: hooks and those who answer for its system calls.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Spec;

/// The version of the specification by which a state is written.
const VERSION: &str = "1.2.0";

/// What is known of a container, whatever becomes of it.
#[derive(Debug, Clone)]
pub(crate) struct About {
    id: String,
    bundle: PathBuf,
    annotations: Option<HashMap<String, String>>,
}

impl About {
    pub(crate) fn new(id: &str, bundle: &Path, spec: &Spec) -> Self {
        Self { id: id.to_owned(), bundle: bundle.to_owned(), annotations: spec.annotations().clone() }
    }

    pub(crate) fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// runtime.md, "State". `pid` as seen by who is told; `None` if there is no process (any more).
    pub(crate) fn state(&self, status: &str, pid: Option<i32>) -> Value {
        let mut state = json!({"ociVersion": VERSION, "id": self.id, "status": status, "bundle": self.bundle});
        if let Some(pid) = pid {
            state["pid"] = json!(pid);
        }
        if let Some(annotations) = &self.annotations {
            state["annotations"] = json!(annotations);
        }
        state
    }

    /// config-linux.md, "The Container Process State": what goes with a filter's descriptor.
    pub(crate) fn process_state(&self, status: &str, pid: i32, metadata: Option<&str>) -> Value {
        let mut state =
            json!({"ociVersion": VERSION, "fds": ["seccompFd"], "pid": pid, "state": self.state(status, Some(pid))});
        if let Some(metadata) = metadata {
            state["metadata"] = json!(metadata);
        }
        state
    }
}
