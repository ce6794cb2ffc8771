//! All images at one moment, with what each is made of and when somebody last wanted it: what a collection is decided over.

use std::collections::{HashMap, HashSet};

use dozen_model::{Digest, ImageId};
use jiff::Timestamp;

use crate::remove::SeenImage;
use crate::store::ImageStore;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Each image.
    pub images: Vec<InventoryImage>,
    /// Bytes of each layer: of the files in it, and of what is kept beside them.
    pub layer_bytes: HashMap<Digest, u64>,
    /// Layers that stay whichever of these images go: of such as were removed under a container or cannot be read, and what
    /// somebody relies on at this moment.
    pub kept_layers: HashSet<Digest>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InventoryImage {
    /// Which, and as what it was seen.
    pub seen: SeenImage,
    /// What it is pushed and pulled by.
    pub repo_digests: Vec<String>,
    /// The image that it was made from here.
    pub parent: Option<ImageId>,
    /// Its layers, lowest first.
    pub layers: Vec<Digest>,
    /// Somebody relies on its topmost layer at this moment: a build, a push, a save.
    pub is_held: bool,
}

impl ImageStore {
    /// Whether a layer is here: for an image, a step of a build, or who relies on it at this moment.
    pub fn has_layer(&self, layer: &Digest) -> bool {
        self.0.read_state().layers.contains_key(layer)
    }

    /// All of them. Nothing is walked: sizes are those that were noted.
    pub fn inventory(&self) -> Inventory {
        // Pins before state, here as in `pin`.
        let pins = self.0.lock_pins();
        let state = self.0.read_state();
        let image = |image: &crate::Image| InventoryImage {
            seen: SeenImage {
                id: image.id.clone(),
                references: image.references.clone(),
                last_used: state.last_used(&image.id).unwrap_or_else(Timestamp::now),
            },
            repo_digests: image.repo_digests.iter().map(dozen_model::Reference::familiar).collect(),
            parent: image.parent.clone(),
            layers: image.diff_ids.to_vec(),
            is_held: image.diff_ids.last().is_some_and(|layer| pins.contains_key(layer)),
        };
        let bytes = state.layers.values().map(|row| (row.diff_id.clone(), row.content_bytes + row.kept_bytes()));
        let removed = state.removed.values().map(|image| &image.diff_ids);
        let others = removed.chain(state.unreadable.values().map(|image| &image.diff_ids));
        let kept = others.flat_map(|diff_ids| diff_ids.iter()).chain(pins.keys());
        Inventory {
            images: state.images.values().map(|known| image(known)).collect(),
            layer_bytes: bytes.collect(),
            kept_layers: kept.cloned().collect(),
        }
    }
}
