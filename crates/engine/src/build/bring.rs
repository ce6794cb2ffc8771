//! Images that a build begins from, or takes files from, and that are not here: they are pulled, as anybody may. A build that
//! is given up gives up its part in the pull.

use std::sync::Arc;

use dozen_image::Platform;
use dozen_model::{Classified, ErrorKind, Reference};

use super::failure::StepError;
use super::job::Job;
use crate::Engine;
use crate::pull::PullRequest;

/// Pulls it. `near`: a stage that may have been meant.
pub(super) async fn bring(
    job: &Arc<Job>,
    name: &str,
    platform: Option<Platform>,
    near: Option<&str>,
) -> Result<(), StepError> {
    let suggestion = near.map(|near| format!(" (did you mean the stage {near}?)")).unwrap_or_default();
    let Ok(reference) = name.parse::<Reference>() else {
        return Err(StepError::said(format!("failed to resolve source metadata for {name}: not found{suggestion}")));
    };
    let request = PullRequest { reference, all_tags: false, platform, credentials: None };
    let engine = Engine { shared: job.shared.clone() };
    engine.pull(request).finish().await.map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::Unauthorized | ErrorKind::NotFound => {
                "of a registry that wants a password it has to be pulled before: dozen pull".to_owned()
            }
            _ => error.hint().unwrap_or_else(|| "load it from an archive: dozen load -i FILE".to_owned()),
        };
        StepError::with_hint(format!("failed to resolve source metadata for {name}: {error}{suggestion}"), hint)
    })
}
