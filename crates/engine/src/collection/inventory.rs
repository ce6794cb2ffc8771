//! What takes room and could be had again, and who needs it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use dozen_image::InventoryImage;
use dozen_model::{Digest, ImageId};

use super::plan::{Holder, Item, Kind};
use crate::EngineError;
use crate::build::{CacheEntry, noted_entries};
use crate::engine::images_of;
use crate::shared::Shared;

/// The label of docker compose on all that it makes (compose-spec, its implementation's labels).
const PROJECT: &str = "com.docker.compose.project";

/// All of it: items to decide over, and beside each what it is.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) items: Vec<Item>,
    pub(super) things: Vec<Thing>,
    pub(super) layer_bytes: HashMap<Digest, u64>,
    /// Without layers that stay whatever goes.
    pub(super) releasable_bytes: HashMap<Digest, u64>,
}

#[derive(Debug)]
pub(super) enum Thing {
    Cache(Box<CacheEntry>),
    Image(InventoryImage),
}

/// Nothing is walked: sizes are those that were noted. Blocks.
pub(super) fn take(shared: &Arc<Shared>, is_cache_swept: bool) -> Result<Listed, EngineError> {
    let mut users: BTreeMap<ImageId, Holder> = BTreeMap::new();
    for snapshot in shared.registry.snapshots() {
        for image in images_of(&snapshot.spec) {
            let project = snapshot.spec.labels.get(PROJECT).cloned();
            users.insert(image.clone(), Holder::Container(snapshot.name.to_string(), project));
        }
    }
    for image in shared.images_being_used().iter() {
        users.entry(image.clone()).or_insert(Holder::Work);
    }
    let inventory = shared.images.inventory();
    let releasable = inventory.layer_bytes.iter().filter(|(layer, _)| !inventory.kept_layers.contains(layer));
    let releasable_bytes = releasable.map(|(layer, bytes)| (layer.clone(), *bytes)).collect();
    let mut listed = Listed { layer_bytes: inventory.layer_bytes, releasable_bytes, ..Listed::default() };
    for entry in noted_entries(shared)? {
        let is_held = entry.in_use.then_some(Holder::Work);
        listed.items.push(Item {
            kind: Kind::BuildCache,
            id: entry.id.clone(),
            last_used: entry.last_used,
            uses: entry.uses,
            created: entry.created,
            layers: entry.layer().cloned().into_iter().collect(),
            own_bytes: if entry.layer().is_some() { 0 } else { entry.size_bytes },
            parent: None,
            holder: is_held.or((!is_cache_swept).then_some(Holder::BuilderSettings)),
        });
        listed.things.push(Thing::Cache(Box::new(entry)));
    }
    for image in inventory.images {
        let is_held = image.is_held.then_some(Holder::Work);
        listed.items.push(Item {
            kind: if image.seen.references.is_empty() { Kind::DanglingImage } else { Kind::TaggedImage },
            id: image.seen.id.to_string(),
            last_used: image.seen.last_used,
            uses: 0,
            created: image.seen.last_used,
            layers: image.layers.clone(),
            own_bytes: 0,
            parent: image.parent.as_ref().map(ToString::to_string),
            holder: users.get(&image.seen.id).cloned().or(is_held),
        });
        listed.things.push(Thing::Image(image));
    }
    Ok(listed)
}

impl Listed {
    /// Images and what builds keep, together.
    pub(super) fn occupied_bytes(&self) -> u64 {
        let layers: HashSet<&Digest> = self.items.iter().flat_map(|item| &item.layers).collect();
        let own: u64 = self.items.iter().map(|item| item.own_bytes).sum();
        layers.into_iter().filter_map(|layer| self.layer_bytes.get(layer)).sum::<u64>() + own
    }
}

impl Thing {
    /// For people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Cache(entry) => entry.description.clone(),
            Self::Image(image) => {
                let tag = image.seen.references.first().map(dozen_model::Reference::familiar);
                tag.or_else(|| image.repo_digests.first().cloned()).unwrap_or_else(|| "<none>".to_owned())
            }
        }
    }
}
