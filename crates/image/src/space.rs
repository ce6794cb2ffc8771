//! How much of the disk the store takes, measured: what du(1) would say.

use std::collections::{BTreeSet, HashMap};

use dozen_model::Digest;

use crate::store::{DiskUsage, ImageStore, ImageUsage};
use crate::tree::disk_bytes;

impl ImageStore {
    /// As [`ImageStore::disk_usage`], in blocks of the disk rather than in bytes of files. Every layer is walked: blocks.
    pub fn measured_usage(&self) -> DiskUsage {
        let (layers, images) = {
            let state = self.0.read_state();
            let layer = |row: &crate::schema::LayerRow| {
                (row.diff_id.clone(), self.0.layers.join(&row.directory), self.0.content.join(row.content_name()))
            };
            let layers: Vec<_> = state.layers.values().map(|row| layer(row)).collect();
            let images: Vec<_> =
                state.images.values().map(|image| (image.id.clone(), image.diff_ids.clone())).collect();
            (layers, images)
        };
        let mut tree_bytes: HashMap<Digest, u64> = HashMap::new();
        let mut kept_bytes: HashMap<Digest, u64> = HashMap::new();
        for (diff_id, directory, content) in layers {
            tree_bytes.insert(diff_id.clone(), disk_bytes(&directory));
            kept_bytes.insert(diff_id, disk_bytes(&content));
        }
        let of = |layer: &Digest| tree_bytes.get(layer).unwrap_or(&0) + kept_bytes.get(layer).unwrap_or(&0);
        let mut users: HashMap<&Digest, usize> = HashMap::new();
        for (_, layers) in &images {
            for layer in layers.iter().collect::<BTreeSet<_>>() {
                *users.entry(layer).or_default() += 1;
            }
        }
        let usage = |(id, layers): &(dozen_model::ImageId, std::sync::Arc<[Digest]>)| {
            let layers: BTreeSet<&Digest> = layers.iter().collect();
            ImageUsage {
                id: id.clone(),
                size_bytes: layers.iter().map(|layer| of(layer)).sum(),
                shared_bytes: layers.iter().filter(|layer| users[*layer] > 1).map(|layer| of(layer)).sum(),
            }
        };
        DiskUsage {
            layers_bytes: tree_bytes.values().sum(),
            blobs_bytes: disk_bytes(&self.0.content),
            images: images.iter().map(usage).collect(),
        }
    }
}
