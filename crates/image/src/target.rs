//! Targets: what of an OCI layout a name leads to, an index or a manifest, kept as it came.
//!
//! An image's id is that of its configuration, whatever brought it in; a target says in which manifest it came, in which
//! index with which other platforms, and with which notes and artifacts about it. All of that is given back by `save` to
//! the byte. What a target leads to is either a layer that the store has anyway (its blob, or its plain stream), the
//! image's configuration, or a blob of its own.
//!
//! A target lives for as long as a name leads to it, or, if its image has no name at all, as long as that.

use std::collections::BTreeSet;

use dozen_model::{Digest, ImageId};
use serde_json::Value;

use crate::manifest::PlannedTarget;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) digest: Digest,
    /// As an `index.json` has it, without names.
    pub(crate) descriptor: Value,
    /// The manifest of the image itself.
    pub(crate) manifest: Digest,
    pub(crate) image: ImageId,
    /// Of all that it leads to, itself included, as far as it is here.
    pub(crate) blobs: BTreeSet<Digest>,
    /// Descriptors of artifacts about something in it.
    pub(crate) referrers: Vec<Value>,
}

impl Target {
    pub(crate) fn new(planned: &PlannedTarget, image: &ImageId) -> Self {
        Self {
            digest: planned.digest.clone(),
            descriptor: planned.descriptor.clone(),
            manifest: planned.manifest.clone(),
            image: image.clone(),
            blobs: planned.blobs.keys().chain(&planned.missing).cloned().collect(),
            referrers: planned.referrers.clone(),
        }
    }

    /// With what of it came once more: of what it leads to, and of what is about it, an archive may hold any part.
    pub(crate) fn joined(mut self, more: &Self) -> Self {
        self.blobs.extend(more.blobs.iter().cloned());
        let known: BTreeSet<&str> = self.referrers.iter().filter_map(digest_of).collect();
        let new = more.referrers.iter().filter(|note| digest_of(note).is_none_or(|digest| !known.contains(digest)));
        let new: Vec<Value> = new.cloned().collect();
        self.referrers.extend(new);
        self
    }
}

fn digest_of(descriptor: &Value) -> Option<&str> {
    descriptor.get("digest")?.as_str()
}
