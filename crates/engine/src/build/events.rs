//! What a build tells whoever has asked for it.

use dozen_model::{ContainerId, Digest, ImageId};

use super::CacheStep;

/// What a build tells, in order. The last is `Built` or `Failed`.
#[derive(Debug)]
pub enum BuildEvent {
    /// A step begins. Those of several stages go on side by side: `stage` and `number` say which it is.
    Step(StepStarted),
    /// The step was done before.
    Cached(StepId),
    /// The step runs in this container.
    Running(StepId, ContainerId),
    /// The step's command wrote something.
    Output(StepId, crate::OutputStream, Vec<u8>),
    /// The step's command has failed. The build waits, for it was asked for a shell there (`--debug-shell`): whoever asked
    /// attaches to this container and starts it; when it has ended or is gone, the build goes on, and fails.
    Shell(StepId, ContainerId),
    /// The step is done.
    Done(StepId),
    /// The caller's cache has a layer whose files are needed: it is to be brought (`Engine::bring_layer`).
    WantsLayer(Digest),
    /// All steps are done, and may be taken along: the build goes on once the caller has (`Engine::cache_is_taken`).
    CacheReady(Vec<CacheStep>),
    /// The cache is on its way to a registry, under this name: what has been done. `None`: it is there.
    Exporting(String, Option<String>),
    /// Something that the caller should know.
    Warning(String),
    /// A part of a statement about the image, and the file that clients put it into (`provenance.json`).
    Statement(&'static str, String),
    /// The image is there, with its names.
    Built(ImageId),
    /// There is none.
    Failed(BuildFailure),
}

/// Which step: all of a build are numbered from 1, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepId(pub usize);

/// A step that begins.
#[derive(Debug, Clone)]
pub struct StepStarted {
    /// Which.
    pub id: StepId,
    /// The stage's name, or its number.
    pub stage: String,
    /// Its number in the stage, from 1, FROM being the first.
    pub number: usize,
    /// How many the stage has.
    pub count: usize,
    /// How many the build has.
    pub total: usize,
    /// The instruction in one line, with the values of its variables where they are known.
    pub text: String,
    /// The same as it was written.
    pub source: String,
}

impl BuildFailure {
    /// Somebody has ended the build by its id.
    pub fn cancelled() -> Self {
        let hint = Some("somebody has ended it by its id (POST /build/cancel)".to_owned());
        Self { message: "the build was canceled: context canceled".to_owned(), hint, ..Self::default() }
    }
}

/// Why a build has failed.
#[derive(Debug, Default)]
pub struct BuildFailure {
    /// What went wrong; for a RUN, in Docker's words: `The command '/bin/sh -c false' returned a non-zero code: 1`.
    pub message: String,
    /// The lines of the Dockerfile with the place marked.
    pub excerpt: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// The command's status.
    pub exit_code: Option<i64>,
    /// The step that has failed; `None`: it was before the first, or after the last.
    pub step: Option<StepId>,
}
