//! Images that a build begins from, or takes files from, and that are not here: they are pulled, as who has asked for the
//! build, as far as that is said for the image's registry. A build that is given up gives up its part in the pull.

use std::sync::Arc;

use dozen_image::Platform;
use dozen_model::{Classified, ErrorKind, Reference};

use super::failure::StepError;
use super::job::Job;
use crate::Engine;
use crate::pull::PullRequest;
use crate::remote_manifest::digest_for;

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
    let registry = reference.registry().to_owned();
    let credentials = job.request.credentials.get(&registry).cloned();
    let request = PullRequest { reference, all_tags: false, platform, credentials };
    let engine = Engine { shared: job.shared.clone() };
    engine.pull(request).finish().await.map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::Unauthorized | ErrorKind::NotFound => {
                format!("if the registry wants to know who asks: dozen login {registry}")
            }
            _ => error.hint().unwrap_or_else(|| "load it from an archive: dozen load -i FILE".to_owned()),
        };
        StepError::with_hint(format!("failed to resolve source metadata for {name}: {error}{suggestion}"), hint)
    })
}

/// Pulls an image that is here for another platform: by the digest of its manifest, so that its name stays with what it is
/// here. Gives the name by which it is then found; `None`: there is none, which the caller knows how to say.
pub(super) async fn bring_beside(job: &Arc<Job>, name: &str, platform: Option<&Platform>) -> Option<String> {
    let reference = name.parse::<Reference>().ok().filter(|it| it.digest().is_none())?;
    let credentials = job.request.credentials.get(reference.registry()).cloned();
    let engine = Engine { shared: job.shared.clone() };
    let digest = digest_for(&engine, &reference, credentials.clone(), platform?).await;
    let digest =
        digest.inspect_err(|error| tracing::info!(name, %error, "no other platform of it is found")).ok()??;
    let other = format!("{}/{}@{digest}", reference.registry(), reference.path());
    let request =
        PullRequest { reference: other.parse().ok()?, all_tags: false, platform: platform.cloned(), credentials };
    let pulled = engine.pull(request).finish().await;
    pulled.inspect_err(|error| tracing::info!(name, %error, "its other platform does not come")).ok()?;
    Some(other)
}
