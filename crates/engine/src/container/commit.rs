//! `commit`: a container's changes become an image's layer, and its configuration, with `--change`, the image's.

use std::cell::Cell;

use dozen_image::CommitRequest;
use dozen_model::{HealthCheck, HealthTest, ImageId, Reference};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::EngineError;
use crate::build;
use crate::container::changes::Settings;
use crate::container::hold::{self, Hold};
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
    /// A running container's processes stand still while its changes are read. Without it, files that change meanwhile
    /// are taken as they are at that moment.
    pub pause: bool,
}

/// A check as images and clients have it, what has its default left out (Docker's `Healthcheck`).
pub fn healthcheck_config(check: &HealthCheck) -> Value {
    let words = |kind: &str, words: &[String]| std::iter::once(kind.to_owned()).chain(words.iter().cloned()).collect();
    let test: Vec<String> = match &check.test {
        HealthTest::None => vec!["NONE".to_owned()],
        HealthTest::Exec(command) => words("CMD", command),
        HealthTest::Shell(command) => words("CMD-SHELL", command),
    };
    let mut shown = Map::from_iter([("Test".to_owned(), json!(test))]);
    for (name, number) in [
        ("Interval", check.interval_ns),
        ("Timeout", check.timeout_ns),
        ("StartPeriod", check.start_period_ns),
        ("StartInterval", check.start_interval_ns),
        ("Retries", u64::from(check.retries)),
    ] {
        if number != 0 {
            shown.insert(name.to_owned(), json!(number));
        }
    }
    Value::Object(shown)
}

/// Blocks. A container that is removed meanwhile makes no image, nor does one that was to stand still and did not.
pub(crate) fn commit(
    shared: &Shared,
    snapshot: &Snapshot,
    options: CommitOptions,
    hold: Option<Hold>,
) -> Result<ImageId, EngineError> {
    build::check_no_step(snapshot)?;
    let mut settings = Settings::of(snapshot);
    settings.apply_all(&options.changes)?;
    let created_by = snapshot.spec.process.arguments().cloned().collect::<Vec<_>>().join(" ");
    let request = CommitRequest {
        base: snapshot.spec.image.clone(),
        upper: &snapshot.directory.join("upper"),
        config: settings.into_config(),
        healthcheck: snapshot.spec.health.as_ref().map(healthcheck_config),
        author: options.author,
        comment: options.comment,
        created_by,
        created: options.created,
        reference: options.reference,
    };
    hold.as_ref().map_or(Ok(()), Hold::stand_still)?;
    // It is asked when all has been read: the container runs on while the image is made.
    let has_moved = Cell::new(false);
    // A removal is published before the first file goes: whoever has read all of them before that has them whole.
    let is_whole = || {
        has_moved.set(hold.as_ref().is_some_and(|hold| !hold.release()));
        if has_moved.get() {
            return false;
        }
        let entry = shared.registry.get(&snapshot.id);
        entry.is_some_and(|entry| !matches!(entry.snapshot().phase, Phase::Removing { .. }))
    };
    shared.images.commit(request, &is_whole)?.ok_or_else(|| match has_moved.get() {
        true => hold::moved(snapshot),
        false => EngineError::Conflict {
            message: format!("cannot commit container {}: it is being removed", snapshot.name),
            hint: None,
        },
    })
}
