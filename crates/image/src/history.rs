//! `history`: how an image came about, newest step first.

use dozen_model::ImageId;
use jiff::Timestamp;

use crate::ImageError;
use crate::store::ImageStore;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image that ends with this step, if it is here.
    pub id: Option<ImageId>,
    /// When.
    pub created: Option<Timestamp>,
    /// The command.
    pub created_by: String,
    /// The names of that image, in the familiar form.
    pub tags: Vec<String>,
    /// Bytes of the files in the layer that it made; 0 if it made none.
    pub size_bytes: u64,
    /// What whoever did it wrote.
    pub comment: String,
}

impl ImageStore {
    /// The steps of an image, newest first. Layers that its configuration says nothing of are steps without words.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>, ImageError> {
        let state = self.0.read_state();
        let image = state.find(name)?;
        let mut sizes = image.diff_ids.iter().map(|diff_id| state.layers[diff_id].content_bytes);
        let mut entries = Vec::new();
        for step in image.config.history().iter().flatten() {
            let empty = step.empty_layer().unwrap_or(false);
            entries.push(HistoryEntry {
                id: None,
                created: step.created().as_ref().and_then(|text| text.parse().ok()),
                created_by: step.created_by().clone().unwrap_or_default(),
                tags: Vec::new(),
                size_bytes: if empty { 0 } else { sizes.next().unwrap_or(0) },
                comment: step.comment().clone().unwrap_or_default(),
            });
        }
        entries.extend(sizes.map(|size_bytes| HistoryEntry {
            id: None,
            created: image.created,
            created_by: String::new(),
            tags: Vec::new(),
            size_bytes,
            comment: String::new(),
        }));
        entries.reverse();
        // A commit adds one step to its parent's, so the images of the steps are found along the parents.
        let mut next = Some(&image);
        for entry in &mut entries {
            let Some(image) = next else { break };
            entry.id = Some(image.id.clone());
            entry.tags = image.references.iter().map(|reference| reference.familiar()).collect();
            next = image.parent.as_ref().and_then(|parent| state.images.get(parent));
        }
        Ok(entries)
    }
}
