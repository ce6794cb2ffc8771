//! `push`: images to registries.
//!
//! A push belongs to who asked for it, and is given up with him. Layers go several at once (`blob`): each is looked for in the
//! registry first, under the names that it had in registries before, is taken over there from another repository if it can
//! be, and is packed only when it really has to be sent, once for all who want it (`packings`). A large one goes while it is
//! packed, and has its name when all of it is there; what is made is kept until then, so that it goes on where a connection
//! broke. Then follow configurations and manifests (`send`), so that nobody
//! finds a manifest of which something is missing. A push that dies leaves files in the image store's `tmp/`, and the next
//! start takes them away; what a registry has by then it has, and the next push finds it there.

pub(crate) mod blob;
mod buffers;
mod packings;
pub(crate) mod refusal;
mod send;
pub(crate) mod told;

use dozen_image::{Platform, Recompression};
use dozen_model::{Digest, Reference};
use dozen_registry::Credentials;
use serde_json::Value;
use tokio::task::AbortHandle;

pub(crate) use self::packings::Packings;
use self::told::Told;
use crate::{Engine, EngineError};

/// What is to be pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRequest {
    /// Its repository; the tag counts unless all are wanted.
    pub reference: Reference,
    /// All tags of the repository that are here.
    pub all_tags: bool,
    /// One image alone, without the index that it came in. `None`: all that is here.
    pub platform: Option<Platform>,
    /// How its layers are to be compressed. `None`: those that are not, as quickly as it goes.
    pub recompression: Option<Recompression>,
    /// For its registry.
    pub credentials: Option<Credentials>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum PushEvent {
    /// It begins.
    Begins {
        /// With its registry.
        repository: String,
    },
    /// A layer moved on.
    Layer {
        /// What it is shown by: the digest of its plain stream, if it is unpacked here.
        id: Digest,
        /// How far it is.
        step: PushStep,
    },
    /// A tag is there.
    Done {
        /// Of its manifest or index.
        digest: Digest,
        /// Of that.
        size_bytes: u64,
        #[expect(missing_docs, reason = "plain")]
        tag: String,
    },
    /// An index is not all here: of its images that one went which is. Both by their descriptors.
    #[expect(missing_docs, reason = "the words say it")]
    InsteadOfIndex { index: Value, manifest: Value },
}

/// How far a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushStep {
    /// It is looked for in the registry.
    Preparing,
    /// Others go first.
    Waiting,
    /// It goes. While it is compressed, the bytes are of the plain stream's.
    #[expect(missing_docs, reason = "plain")]
    Pushing { bytes: u64, of_bytes: u64 },
    /// It is there.
    Pushed,
    /// It was there.
    Exists,
    /// It was in another repository of the registry.
    #[expect(missing_docs, reason = "plain")]
    Mounted { from: String },
}

/// A push, watched. It is given up with this.
#[derive(Debug)]
pub struct Push {
    told: Told,
    task: AbortHandle,
}

impl Engine {
    /// Begins to push.
    pub fn push(&self, request: PushRequest) -> Push {
        let shared = self.shared.clone();
        Push::watched(|told| async move { send::push(&shared, &request, &told).await })
    }
}

impl Push {
    /// Begins with something that tells what happens.
    pub(crate) fn watched<Work>(push: impl FnOnce(Told) -> Work) -> Self
    where
        Work: Future<Output = Result<(), EngineError>> + Send + 'static,
    {
        let told = Told::default();
        let (tell, work) = (told.clone(), push(told.clone()));
        let task = tokio::spawn(async move { tell.end(work.await) });
        Self { told, task: task.abort_handle() }
    }

    /// What happens next; `None` once it is over and went well.
    ///
    /// # Errors
    /// It went wrong: the tag in the registry is what it was.
    pub async fn next(&mut self) -> Result<Option<PushEvent>, EngineError> {
        self.told.next().await
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        self.task.abort();
    }
}
