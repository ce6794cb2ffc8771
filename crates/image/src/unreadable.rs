//! Images whose configuration cannot be read: damaged or lost on the disk, or of another dozen's understanding.
//!
//! Nothing of them is thrown away. Their layers may be sound, containers may stand on them, and what was committed is
//! nowhere else. No listing shows them; who asks for one by name or id is told why. What they have on the disk stays
//! theirs until they are removed, and loading the image again heals it.

use std::collections::BTreeMap;
use std::sync::Arc;

use dozen_ledger::Durability;
use dozen_model::{Digest, ImageId, Reference};

use crate::ImageError;
use crate::failpoint::failpoint;
use crate::remove::{InUse, Removal, conflict};
use crate::schema;
use crate::state::State;
use crate::store::Inner;

/// What is known of such an image: what its rows say.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) parent: Option<ImageId>,
    pub(crate) diff_ids: Arc<[Digest]>,
    /// Removed while a container stood on its layers.
    pub(crate) removed: bool,
    /// What is wrong with its configuration.
    pub(crate) why: String,
}

impl State {
    /// The layers of an image that containers may stand on, lowest first, whether it can be read or not.
    pub(crate) fn diff_ids(&self, id: &ImageId) -> Result<Arc<[Digest]>, ImageError> {
        let readable = self.images.get(id).or_else(|| self.removed.get(id)).map(|image| &image.diff_ids);
        let found = readable.or_else(|| Some(&self.unreadable.get(id)?.diff_ids));
        found.cloned().ok_or_else(|| ImageError::NoSuchImage(id.to_string()))
    }

    /// Why an image is not to be had, by its id.
    pub(crate) fn missing(&self, id: &ImageId) -> ImageError {
        match self.unreadable.get(id) {
            Some(image) => ImageError::Unreadable { image: id.clone(), why: image.why.clone() },
            None => ImageError::NoSuchImage(id.to_string()),
        }
    }

    /// Images that were removed, and stay until no container stands on them.
    pub(crate) fn removed_ids(&self) -> Vec<ImageId> {
        let unreadable = self.unreadable.iter().filter(|(_, image)| image.removed).map(|(id, _)| id);
        self.removed.keys().chain(unreadable).cloned().collect()
    }

    /// One of those has gone.
    pub(crate) fn forget_removed(&mut self, id: &ImageId) {
        self.removed.remove(id);
        self.unreadable.remove(id);
    }

    /// One that cannot be read and has not been removed, by a name, its id, or the beginning of that.
    pub(crate) fn find_unreadable(&self, name: &str) -> Option<&ImageId> {
        let is_there = |id: &&ImageId| self.unreadable.get(*id).is_some_and(|image| !image.removed);
        let named = name.parse::<Reference>().ok().and_then(|name| self.references.get(&name)).filter(is_there);
        if named.is_some() {
            return named;
        }
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let begins = |id: &&ImageId| !digits.is_empty() && id.digest().hex().starts_with(digits);
        let mut found = self.unreadable.keys().filter(is_there).filter(begins);
        found.next().filter(|_| found.next().is_none())
    }
}

impl Inner {
    /// Removes a name of one, and the image with the last. On whose layers a stopped container stands, that goes only by
    /// force, and when the container is gone. The change lock is held.
    pub(crate) fn remove_unreadable(
        &self,
        id: &ImageId,
        name: &str,
        force: bool,
        in_use: InUse<'_>,
    ) -> Result<Vec<Removal>, ImageError> {
        let (names, deletes) = {
            let state = self.read_state();
            let all = state.references.iter().filter(|(_, named)| *named == id).map(|(name, _)| name.clone());
            let all: BTreeMap<Reference, ()> = all.map(|name| (name, ())).collect();
            match name.parse().ok().filter(|name| all.contains_key(name)) {
                Some(one) if all.len() > 1 => (vec![one], false),
                named => {
                    let others = if named.is_none() && all.len() > 1 { all.clone() } else { BTreeMap::new() };
                    if let Some(conflict) = conflict(&state, id, &others, force, in_use) {
                        return Err(conflict.into());
                    }
                    (all.into_keys().collect(), true)
                }
            }
        };
        let is_held = deletes && in_use(id).is_some();
        failpoint("image.remove.before");
        let (of_rows, row) = (names.clone(), id.clone());
        self.ledger.write_essential(Durability::Power, move |connection| {
            of_rows.iter().try_for_each(|name| schema::delete_reference(connection, name))?;
            match (deletes, is_held) {
                (true, false) => schema::delete_image(connection, &row),
                (true, true) => schema::hide_image(connection, &row),
                (false, _) => Ok(()),
            }
        })?;
        failpoint("image.remove.rows");
        {
            let mut state = self.write_state();
            names.iter().for_each(|name| drop(state.references.remove(name)));
            match state.unreadable.get_mut(id) {
                Some(image) if is_held => image.removed = true,
                _ if deletes => drop(state.unreadable.remove(id)),
                _ => {}
            }
        }
        let mut steps: Vec<_> = names.iter().map(|name| Removal::Untagged(name.familiar())).collect();
        if deletes {
            steps.push(Removal::Deleted(id.to_string()));
            if !is_held {
                self.delete_content(id.digest());
            }
        }
        failpoint("image.remove.configurations");
        steps.extend(self.sweep_layers().into_iter().map(|layer| Removal::Deleted(layer.to_string())));
        Ok(steps)
    }

    /// What the rows say of one, for the log as well.
    pub(crate) fn read_unreadable(
        &self,
        row: schema::ImageRow,
        why: String,
        references: &BTreeMap<Reference, ImageId>,
    ) -> Result<Unreadable, ImageError> {
        let id = row.id.clone();
        let diff_ids: Vec<Digest> = self.ledger.read(move |connection| schema::layers_of(connection, &id))?;
        let names = references.iter().filter(|(_, id)| **id == row.id).map(|(name, _)| name.familiar());
        let names = names.collect::<Vec<_>>().join(" ");
        tracing::error!(
            image = %row.id,
            names,
            why,
            "an image cannot be read, and is not shown; its layers stay: load it again to have it back, or remove it"
        );
        Ok(Unreadable { parent: row.parent, diff_ids: diff_ids.into(), removed: row.removed, why })
    }
}
