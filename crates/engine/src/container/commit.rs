//! `commit`: a container's changes become an image's layer, and its configuration, with `--change`, the image's.

use dozen_image::CommitRequest;
use dozen_model::{ImageId, Reference};
use jiff::Timestamp;

use crate::EngineError;
use crate::container::changes::Settings;
use crate::container::snapshot::{Phase, Snapshot};
use crate::shared::Shared;

/// What `commit` may change.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "Docker's words")]
pub struct CommitOptions {
    pub reference: Option<Reference>,
    pub author: Option<String>,
    pub comment: Option<String>,
    /// Dockerfile instructions: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL.
    pub changes: Vec<String>,
    /// `None`: now.
    pub created: Option<Timestamp>,
}

/// Blocks. The container may run: files that change while they are read are taken as they are at that moment. One that
/// is removed meanwhile makes no image.
pub(crate) fn commit(shared: &Shared, snapshot: &Snapshot, options: CommitOptions) -> Result<ImageId, EngineError> {
    let mut settings = Settings::of(snapshot);
    settings.apply_all(&options.changes)?;
    let created_by = snapshot.spec.process.arguments().cloned().collect::<Vec<_>>().join(" ");
    let request = CommitRequest {
        base: snapshot.spec.image.clone(),
        upper: &snapshot.directory.join("upper"),
        config: settings.into_config(),
        author: options.author,
        comment: options.comment,
        created_by,
        created: options.created,
        reference: options.reference,
    };
    // A removal is published before the first file goes: whoever has read all of them before that has them whole.
    let is_whole = || {
        let entry = shared.registry.get(&snapshot.id);
        entry.is_some_and(|entry| !matches!(entry.snapshot().phase, Phase::Removing { .. }))
    };
    shared.images.commit(request, &is_whole)?.ok_or_else(|| EngineError::Conflict {
        message: format!("cannot commit container {}: it is being removed", snapshot.name),
        hint: None,
    })
}
