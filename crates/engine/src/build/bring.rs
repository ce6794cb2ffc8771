//! Images that a build begins from, or takes files from, and that are not here: they are pulled, as who has asked for the
//! build, as far as that is said for the image's registry. A build that is given up gives up its part in the pull.

use std::sync::Arc;

use dozen_image::Platform;
use dozen_model::{Classified, Digest, ErrorKind, Reference};

use super::failure::StepError;
use super::job::Job;
use crate::pull::{Pull, PullEvent, PullRequest};
use crate::{Engine, EngineError};

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
    let request = PullRequest { reference, all_tags: false, platform, is_beside: false, credentials };
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

/// Pulls an image that is here for another platform, so that its name stays with what it is here. Gives the name of its
/// digest, by which it is then found; `None`: there is none, which the caller knows how to say.
pub(super) async fn bring_beside(
    job: &Arc<Job>,
    name: &str,
    platform: Option<&Platform>,
) -> Result<Option<String>, StepError> {
    let reference = name.parse::<Reference>().ok().filter(|it| it.digest().is_none());
    let (Some(reference), Some(platform)) = (reference, platform.cloned()) else { return Ok(None) };
    let credentials = job.request.credentials.get(reference.registry()).cloned();
    let repository = format!("{}/{}", reference.registry(), reference.path());
    let request = PullRequest { reference, all_tags: false, platform: Some(platform), is_beside: true, credentials };
    let engine = Engine { shared: job.shared.clone() };
    match digest_of(engine.pull(request)).await {
        Ok(digest) => Ok(digest.map(|digest| format!("{repository}@{digest}"))),
        // It is not that there is none.
        Err(error) if error.kind() == ErrorKind::Forbidden => {
            let message = format!("failed to resolve source metadata for {name}: {error}");
            Err(StepError::Said { message, hint: error.hint() })
        }
        Err(error) => {
            tracing::info!(name, %error, "no other platform of it comes");
            Ok(None)
        }
    }
}

/// What a pull has brought.
async fn digest_of(mut pull: Pull) -> Result<Option<Digest>, EngineError> {
    let mut found = None;
    while let Some(event) = pull.next().await? {
        if let PullEvent::Resolved(digest) = event {
            found = Some(digest);
        }
    }
    Ok(found)
}
