//! How much of the disk the store takes, measured: what du(1) would say.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use dozen_model::Digest;

use crate::ImageError;
use crate::schema::LayerRow;
use crate::store::{DiskUsage, ImageStore, ImageUsage, Inner};
use crate::tree::disk_bytes;

impl ImageStore {
    /// As [`ImageStore::disk_usage`], in blocks of the disk rather than in bytes of files, and without what goes with the
    /// build cache ([`ImageStore::measured_steps`]) and what has no row ([`ImageStore::strays`]). Every layer is walked:
    /// blocks.
    pub fn measured_usage(&self) -> DiskUsage {
        let (layers, alone, images) = {
            let state = self.0.read_state();
            let of_steps = state.layers_of_steps_alone();
            let (alone, layers): (Vec<_>, Vec<_>) =
                state.layers.values().partition(|row| of_steps.contains(&row.diff_id));
            let layers: Vec<_> = layers.into_iter().map(|row| self.0.places(row)).collect();
            let alone: Vec<_> = alone.into_iter().map(|row| self.0.places(row).content).collect();
            let images: Vec<_> =
                state.images.values().map(|image| (image.id.clone(), image.diff_ids.clone())).collect();
            (layers, alone, images)
        };
        let mut tree_bytes: HashMap<Digest, u64> = HashMap::new();
        let mut kept_bytes: HashMap<Digest, u64> = HashMap::new();
        for Places { diff_id, directory, content } in layers {
            tree_bytes.insert(diff_id.clone(), disk_bytes(&directory));
            kept_bytes.insert(diff_id, disk_bytes(&content));
        }
        let of_steps: u64 = alone.iter().map(|content| disk_bytes(content)).sum();
        let strays = self.strays().unwrap_or_default();
        let of_strays: u64 =
            strays.iter().filter(|path| path.starts_with(&self.0.content)).map(|path| disk_bytes(path)).sum();
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
            blobs_bytes: disk_bytes(&self.0.content).saturating_sub(of_steps + of_strays),
            images: images.iter().map(usage).collect(),
        }
    }

    /// What lies among layers and blobs and has no row. Waits for a change that is under way: blocks.
    pub fn strays(&self) -> Result<Vec<PathBuf>, ImageError> {
        let _change = self.0.lock_change();
        self.0.strays()
    }

    /// What the layers of cached steps take of the disk, by layer: each with what is kept beside it. Every one is walked:
    /// blocks.
    pub fn measured_steps(&self) -> HashMap<Digest, u64> {
        let layers: Vec<Places> = {
            let state = self.0.read_state();
            let of_steps: BTreeSet<&Digest> = state.steps.values().filter_map(|step| step.diff_id.as_ref()).collect();
            let rows = of_steps.into_iter().filter_map(|diff_id| state.layers.get(diff_id));
            rows.map(|row| self.0.places(row)).collect()
        };
        let measured = |layer: Places| (layer.diff_id, disk_bytes(&layer.directory) + disk_bytes(&layer.content));
        layers.into_iter().map(measured).collect()
    }
}

/// Where a layer lies.
struct Places {
    diff_id: Digest,
    directory: PathBuf,
    /// What is kept beside it.
    content: PathBuf,
}

impl Inner {
    fn places(&self, row: &LayerRow) -> Places {
        let (directory, content) = (self.layer_path(&row.directory), self.content_path(row));
        Places { diff_id: row.diff_id.clone(), directory, content }
    }
}
