//! `rmi`: what may be deleted, decided as Docker decides it (moby, daemon/images/image_delete.go), then done.

use std::collections::BTreeMap;

use dozen_ledger::Durability;
use dozen_model::{ImageId, Reference};
use jiff::Timestamp;

mod prune;

use crate::ImageError;
use crate::failpoint::failpoint;
use crate::schema;
use crate::state::State;
use crate::store::{ImageStore, Inner};

/// A container that stands on an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The container's short id, for the message.
    pub container_short: String,
    /// Whether it runs; a running one cannot lose its image by force either.
    pub running: bool,
}

/// An image as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenImage {
    /// Its id.
    pub id: ImageId,
    /// Its tags.
    pub references: Vec<Reference>,
    /// When somebody last wanted it.
    pub last_used: Timestamp,
}

/// One thing that was removed, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// A name, in the familiar form.
    Untagged(String),
    /// An image's id, or the digest of a layer that nothing needs any more.
    Deleted(String),
}

/// What a removal does, in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    untag: Vec<Reference>,
    delete: Vec<ImageId>,
    /// In the order that the caller is told; layers follow.
    steps: Vec<Removal>,
}

pub(crate) type InUse<'a> = &'a dyn Fn(&ImageId) -> Option<Use>;

impl ImageStore {
    /// Removes a name, and the image with its last name. Without `no_prune`, parents that have no name go with it.
    ///
    /// `in_use` gives a container that stands on an image, a running one if there is one; it is called with the store's
    /// change lock held and must not call back. An image that is removed by force while a stopped container stands on
    /// it disappears from all listings, and its layers stay until [`ImageStore::collect`] finds the container gone.
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        no_prune: bool,
        in_use: InUse<'_>,
    ) -> Result<Vec<Removal>, ImageError> {
        let inner = &self.0;
        let _change = inner.lock_change();
        let unreadable = {
            let state = inner.read_state();
            matches!(state.find(name), Err(ImageError::Unreadable { .. })).then(|| state.find_unreadable(name).cloned())
        };
        if let Some(id) = unreadable.flatten() {
            return inner.remove_unreadable(&id, name, force, in_use);
        }
        let plan = plan(&inner.read_state(), name, force, !no_prune, in_use)?;
        inner.carry_out(plan, in_use)
    }

    /// Removes an image with all its names, if it is as it was when it was looked at: nobody has wanted it since, no container
    /// stands on it, and no image was made from it. `None`: it stays.
    pub fn remove_unused(&self, seen: &SeenImage, in_use: InUse<'_>) -> Result<Option<Vec<Removal>>, ImageError> {
        let inner = &self.0;
        let _change = inner.lock_change();
        let plan = {
            let state = inner.read_state();
            let Some(image) = state.images.get(&seen.id) else { return Ok(None) };
            let is_same = image.references == seen.references && state.last_used(&seen.id) == Some(seen.last_used);
            // No name stands in the way: they all go.
            if !is_same || conflict(&state, &seen.id, &BTreeMap::new(), false, in_use).is_some() {
                return Ok(None);
            }
            let mut plan = Plan::default();
            image.references.iter().chain(&image.repo_digests).for_each(|name| plan.untag(name));
            plan.steps.push(Removal::Deleted(seen.id.to_string()));
            plan.delete.push(seen.id.clone());
            plan
        };
        inner.carry_out(plan, in_use).map(Some)
    }

    /// Deletes what was removed by force while in use, once it is not. To be called when a container has been removed,
    /// and after opening.
    pub fn collect(&self, in_use: InUse<'_>) -> Result<(), ImageError> {
        let inner = &self.0;
        let removed = || inner.read_state().removed_ids();
        if removed().is_empty() {
            return Ok(());
        }
        let _change = inner.lock_change();
        let free: Vec<_> = removed().into_iter().filter(|id| in_use(id).is_none()).collect();
        if free.is_empty() {
            return Ok(());
        }
        let rows = free.clone();
        inner.ledger.write_essential(Durability::Power, move |connection| {
            rows.iter().try_for_each(|id| schema::delete_image(connection, id))
        })?;
        for id in &free {
            inner.write_state().forget_removed(id);
            inner.delete_content(id.digest());
        }
        inner.collect_layers().map(drop)
    }
}

impl Inner {
    /// The change lock is held.
    fn carry_out(&self, plan: Plan, in_use: InUse<'_>) -> Result<Vec<Removal>, ImageError> {
        let Plan { untag, delete, mut steps } = plan;
        let (held, free): (Vec<_>, Vec<_>) = delete.into_iter().partition(|id| in_use(id).is_some());
        let rows = (untag.clone(), held.clone(), free.clone());
        failpoint("image.remove.before");
        self.ledger.write_essential(Durability::Power, move |connection| {
            let (untag, held, free) = &rows;
            untag.iter().try_for_each(|reference| schema::delete_reference(connection, reference))?;
            held.iter().try_for_each(|id| schema::hide_image(connection, id))?;
            free.iter().try_for_each(|id| schema::delete_image(connection, id))
        })?;
        failpoint("image.remove.rows");
        {
            let mut state = self.write_state();
            untag.iter().for_each(|reference| drop(state.references.remove(reference)));
            for id in &held {
                if let Some(image) = state.images.remove(id) {
                    state.removed.insert(id.clone(), image);
                }
            }
            free.iter().for_each(|id| drop(state.images.remove(id)));
            state.name_images();
            state.forget_uses();
        }
        free.iter().for_each(|id| self.delete_content(id.digest()));
        failpoint("image.remove.configurations");
        steps.extend(self.sweep_layers().into_iter().map(|layer| Removal::Deleted(layer.to_string())));
        Ok(steps)
    }
}

fn plan(state: &State, name: &str, force: bool, prune: bool, in_use: InUse<'_>) -> Result<Plan, ImageError> {
    let image = state.find(name)?;
    let mut plan = Plan::default();
    let names: Vec<&Reference> = image.references.iter().chain(&image.repo_digests).collect();
    let mut left: BTreeMap<&Reference, ()> = names.iter().map(|name| (*name, ())).collect();
    // A reference wins over an id that reads the same, as it does in a look-up.
    let reference = name.parse::<Reference>().ok().filter(|name| left.contains_key(name));
    let quiet = reference.is_some();
    if let Some(reference) = reference {
        if !force
            && is_single(&names)
            && let Some(container) = in_use(&image.id)
        {
            return Err(ImageError::Conflict(format!(
                "unable to remove repository reference {name:?} (must force) - container {} is using its referenced \
                 image {}",
                container.container_short,
                image.id.short()
            )));
        }
        left.remove(&reference);
        plan.untag(&reference);
        // With the last tag of a repository its digests go too.
        let same = |other: &Reference| (other.registry(), other.path()) == (reference.registry(), reference.path());
        if reference.digest().is_none() && !left.keys().any(|other| same(other) && other.digest().is_none()) {
            let digests: Vec<_> = left.keys().filter(|other| same(other)).copied().cloned().collect();
            for digest in &digests {
                left.remove(digest);
                plan.untag(digest);
            }
        }
        if !left.is_empty() {
            return Ok(plan);
        }
    } else if is_single(&names) {
        let ignored = BTreeMap::new();
        if let Some(conflict) = conflict(state, &image.id, &ignored, force, in_use) {
            return Err(conflict.into());
        }
        names.iter().for_each(|name| plan.untag(name));
        left.clear();
    }
    let left = left.into_keys().map(|name| (name.clone(), ())).collect();
    plan.delete_line(state, Some((image.id.clone(), left, force, quiet)), prune, in_use)?;
    Ok(plan)
}

/// An image that may go, with the names that it still has; whether by force, and whether it is no failure if it stays.
type Next = (ImageId, BTreeMap<Reference, ()>, bool, bool);

impl Plan {
    /// Deletes an image; with `prune` also what it was made from, as far as that has no name.
    fn delete_line(
        &mut self,
        state: &State,
        mut next: Option<Next>,
        prune: bool,
        in_use: InUse<'_>,
    ) -> Result<(), ImageError> {
        while let Some((id, names, force, quiet)) = next.take() {
            if let Some(conflict) = conflict_of(state, &id, &names, force, in_use, &self.delete) {
                let dangling = names.is_empty();
                if quiet && (!dangling || conflict.used || !self.delete.is_empty()) {
                    break;
                }
                if quiet && conflict.hard {
                    // The name is gone, which is what was asked; the image stays for its children.
                    break;
                }
                return Err(conflict.into());
            }
            names.keys().for_each(|name| self.untag(name));
            self.steps.push(Removal::Deleted(id.to_string()));
            self.delete.push(id.clone());
            let parent = state.images.get(&id).and_then(|image| image.parent.clone());
            if let Some(parent) = parent.filter(|parent| prune && state.images.contains_key(parent)) {
                let parent_image = &state.images[&parent];
                let names = parent_image.references.iter().chain(&parent_image.repo_digests);
                next = Some((parent, names.map(|name| (name.clone(), ())).collect(), false, true));
            }
        }
        Ok(())
    }

    fn untag(&mut self, reference: &Reference) {
        self.untag.push(reference.clone());
        self.steps.push(Removal::Untagged(reference.familiar()));
    }
}

/// At most one tag, and digests of no other repository.
fn is_single(names: &[&Reference]) -> bool {
    if names.len() <= 1 {
        return true;
    }
    let tags = names.iter().filter(|name| name.digest().is_none()).count();
    let first = (names[0].registry(), names[0].path());
    tags <= 1 && names.iter().all(|name| (name.registry(), name.path()) == first)
}

#[derive(Debug)]
pub(crate) struct ConflictWith {
    hard: bool,
    used: bool,
    message: String,
}

impl From<ConflictWith> for ImageError {
    fn from(conflict: ConflictWith) -> Self {
        Self::Conflict(conflict.message)
    }
}

pub(crate) fn conflict(
    state: &State,
    id: &ImageId,
    names: &BTreeMap<Reference, ()>,
    force: bool,
    in_use: InUse<'_>,
) -> Option<ConflictWith> {
    conflict_of(state, id, names, force, in_use, &[])
}

/// Hard conflicts first, which no force overcomes; children that go as well do not count.
fn conflict_of(
    state: &State,
    id: &ImageId,
    names: &BTreeMap<Reference, ()>,
    force: bool,
    in_use: InUse<'_>,
    going: &[ImageId],
) -> Option<ConflictWith> {
    let conflict = |hard, used, why: &str| ConflictWith {
        hard,
        used,
        message: format!(
            "unable to delete {} ({}) - {why}",
            id.short(),
            if hard { "cannot be forced" } else { "must be forced" }
        ),
    };
    let is_child =
        |other: &std::sync::Arc<crate::Image>| other.parent.as_ref() == Some(id) && !going.contains(&other.id);
    if state.images.values().any(is_child) {
        return Some(conflict(true, false, "image has dependent child images"));
    }
    let container = in_use(id);
    if let Some(container) = container.as_ref().filter(|container| container.running) {
        let why = format!("image is being used by running container {}", container.container_short);
        return Some(conflict(true, true, &why));
    }
    if force {
        return None;
    }
    if !names.is_empty() {
        return Some(conflict(false, false, "image is referenced in multiple repositories"));
    }
    container.map(|container| {
        let why = format!("image is being used by stopped container {}", container.container_short);
        conflict(false, true, &why)
    })
}

#[cfg(test)]
mod tests;
