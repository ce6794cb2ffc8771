//! Where what is asked for by digest lies, and which target a name leads to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use dozen_model::{Digest, ImageId, Reference};

use crate::manifest::{Files, Held, Spooled, blob_name};
use crate::schema::LayerRow;
use crate::state::State;
use crate::store::Inner;
use crate::target::Target;

/// Where the bytes of a digest are.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    /// A file that holds them as they are.
    File(PathBuf),
    /// The plain stream of a layer.
    Layer(Arc<LayerRow>),
}

impl State {
    /// The target of a name, or of an image that was named by its id.
    pub(crate) fn target(&self, reference: Option<&Reference>, image: &ImageId) -> Option<&Arc<Target>> {
        match reference {
            Some(reference) => self.targets.get(self.reference_targets.get(reference)?),
            None => self.targets.values().find(|target| target.image == *image),
        }
        .filter(|target| target.image == *image)
    }

    /// What is to be found by digests.
    pub(crate) fn by_digest(&self, inner: &Inner) -> impl Fn(&Digest) -> Option<Stored> {
        let kept = self.layers.values().filter(|row| row.recipe_size_bytes.is_none());
        let kept: BTreeMap<&Digest, &Arc<LayerRow>> = kept.map(|row| (&row.blob, row)).collect();
        move |digest| {
            let id = ImageId::new(digest.clone());
            if self.blobs.contains_key(digest)
                || kept.contains_key(digest)
                || self.images.contains_key(&id)
                || self.removed.contains_key(&id)
            {
                return Some(Stored::File(inner.blob_path(digest)));
            }
            self.layers.get(digest).cloned().map(Stored::Layer)
        }
    }

    /// What a target leads to, as if it were an archive.
    pub(crate) fn files_of(&self, inner: &Inner, target: &Target) -> Files {
        let find = self.by_digest(inner);
        let spooled = |digest: &Digest| {
            let (held, size) = match find(digest)? {
                Stored::File(path) => {
                    let size = std::fs::metadata(&path).ok()?.len();
                    (Held::File(path), size)
                }
                Stored::Layer(row) => (Held::Known, row.tar_size_bytes),
            };
            Some((blob_name(digest).into_bytes(), Spooled { held, size, digest: digest.clone() }))
        };
        Files { files: target.blobs.iter().filter_map(spooled).collect(), ..Files::default() }
    }
}
