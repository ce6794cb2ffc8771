//! What goes when the disk fills up: what builds keep and, if the settings say so, images that nobody has. Never a container,
//! never a volume.
//!
//! An [inventory](inventory::take) is decided over by a [plan], which says of each thing what becomes of it and why, and is
//! carried out one by one: what somebody has begun to use meanwhile stays. Each removal is whole before the next begins, so
//! whoever dies in between has collected a part. What is unfinished (half a layer, a packing) is nothing to collect: it goes
//! with who makes it, or when the next engine starts.

mod inventory;
mod plan;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use dozen_model::error_chain;
use dozen_settings::{CollectedImages, Space};
use jiff::Timestamp;

use self::inventory::{Listed, Thing};
use self::plan::{Kind, Plan, Rules};
pub(crate) use self::watch::{Watch, begin, is_moved_by};
use crate::build::sweep;
use crate::events::EventKind;
use crate::failpoint::failpoint;
use crate::shared::Shared;
use crate::{Engine, EngineError};

/// What is asked for, in place of what the settings say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectionRequest {
    /// Until so much of the disk is free.
    pub free_space: Option<Space>,
    /// Which images may go.
    pub images: Option<CollectedImages>,
    /// Only images that nobody has wanted for so long.
    pub unused_for: Option<Duration>,
    /// Nothing goes: it is only said what would.
    pub is_dry_run: bool,
}

/// What has become of everything, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// Those that go first, in order; then those that stay.
    pub items: Vec<CollectionItem>,
    /// How much room that made, or would make: of what is gone, not of what was to go.
    pub reclaimed_bytes: u64,
    /// Of the disk, before.
    pub free_bytes: u64,
    /// Below this something goes.
    pub wanted_free_bytes: u64,
}

/// One thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionItem {
    /// `build-cache`, `image`.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it gives back, or would, if nothing else but those before it went.
    pub size_bytes: u64,
    /// When somebody last wanted it.
    pub last_used: Timestamp,
    #[expect(missing_docs, reason = "plain")]
    pub fate: Fate,
    /// In words.
    pub why: String,
}

/// What becomes of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is gone.
    Removed,
    /// It would go.
    Goes,
    #[expect(missing_docs, reason = "plain")]
    Stays,
}

impl Engine {
    /// Collects at once. What is not said is as the settings have it.
    pub async fn collect(&self, request: CollectionRequest) -> Result<Collection, EngineError> {
        collect(self.shared(), request, Asker::Somebody).await
    }
}

/// Who wants a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    Somebody,
    /// The engine, by itself: the log says so. So much is free once all is given back that it has removed before, which some
    /// file systems do late (btrfs, ZFS).
    Engine {
        promised_free_bytes: u64,
    },
}

/// The work goes on, holds off the next, and is told of, though who asked may have gone.
async fn collect(shared: &Arc<Shared>, request: CollectionRequest, asker: Asker) -> Result<Collection, EngineError> {
    let alone = sweep::lock(shared).await;
    let shared_too = shared.clone();
    let work = move || {
        let _alone = alone;
        let collection = run(&shared_too, &request, asker)?;
        tell(&shared_too, &collection);
        Ok(collection)
    };
    shared.blocking(work).await
}

fn tell(shared: &Arc<Shared>, collection: &Collection) {
    let removed = collection.items.iter().filter(|item| item.fate == Fate::Removed);
    for (kind, of) in [(EventKind::Builder, "build-cache"), (EventKind::Image, "image")] {
        let bytes: Vec<u64> = removed.clone().filter(|item| item.kind == of).map(|item| item.size_bytes).collect();
        if !bytes.is_empty() {
            Engine { shared: shared.clone() }.announce_prune(kind, bytes.iter().sum());
        }
    }
}

/// Blocks.
fn run(shared: &Arc<Shared>, request: &CollectionRequest, asker: Asker) -> Result<Collection, EngineError> {
    let mut disk = Disk::of(shared)?;
    if let Asker::Engine { promised_free_bytes } = asker {
        disk.free_bytes = disk.free_bytes.max(promised_free_bytes);
    }
    let settings = shared.config.settings.get();
    let listed = inventory::take(shared, settings.builder.is_swept)?;
    let used_bytes: u64 = listed.occupied_bytes();
    let wanted_free_bytes = match request.free_space {
        Some(space) => space.of(disk.bytes),
        None => settings.collection.wanted_free(disk.bytes, disk.free_bytes),
    };
    let most = settings.collection.max_size.map_or(u64::MAX, |most| most.of(disk.bytes));
    let missing_bytes = wanted_free_bytes.saturating_sub(disk.free_bytes).max(used_bytes.saturating_sub(most));
    let reserved =
        settings.builder.rules.iter().filter_map(|rule| rule.reserved).map(|space| space.of(disk.bytes)).max();
    let rules = Rules {
        images: request.images.unwrap_or(settings.collection.images),
        unused_for: request.unused_for.unwrap_or(settings.collection.unused_for),
        keep_duration: settings.collection.keep_duration,
        reserved_cache_bytes: reserved.unwrap_or(0),
        missing_bytes,
    };
    if request.unused_for.is_some() && rules.images == CollectedImages::None {
        return Err(EngineError::Invalid {
            message: "unused-for does not act while no image may go".to_owned(),
            hint: Some("say which: images dangling, or unused".to_owned()),
        });
    }
    let plan = plan::plan(&listed.items, &listed.releasable_bytes, &rules, Timestamp::now());
    failpoint("collection.planned");
    let mut collection = described(&listed, &plan);
    collection.free_bytes = disk.free_bytes;
    collection.wanted_free_bytes = wanted_free_bytes;
    if !request.is_dry_run {
        let mut layers = plan::Layers::new(&listed.releasable_bytes);
        for (place, (index, ..)) in plan.going.iter().enumerate() {
            let item = &mut collection.items[place];
            match remove(shared, &listed.things[*index]) {
                Ok(true) => {
                    item.fate = Fate::Removed;
                    // Something that was to go before it may have stayed, with a layer of it.
                    item.size_bytes = layers.given_back(&listed.items[*index], |layer| shared.images.has_layer(layer));
                    let (kind, name, bytes, why) = (item.kind, &item.name, item.size_bytes, &item.why);
                    let is_own = asker != Asker::Somebody;
                    tracing::info!(kind, name, bytes, why, is_own, "collected");
                }
                Ok(false) => {
                    item.fate = Fate::Stays;
                    item.why = "somebody has begun to use it".to_owned();
                }
                // The others are not to stay for it.
                Err(error) => {
                    let name = &item.name;
                    tracing::error!(kind = item.kind, name, error = error_chain(&error), "it could not be collected");
                    item.fate = Fate::Stays;
                    item.why = format!("it could not be removed: {}", error_chain(&error));
                }
            }
            failpoint("collection.removed");
        }
    }
    let gone = collection.items.iter().filter(|item| item.fate != Fate::Stays);
    collection.reclaimed_bytes = gone.map(|item| item.size_bytes).sum();
    Ok(collection)
}

fn described(listed: &Listed, plan: &Plan) -> Collection {
    let item = |index: usize, size_bytes: u64, fate: Fate, why: String| {
        let item = &listed.items[index];
        CollectionItem {
            kind: match item.kind {
                Kind::BuildCache => "build-cache",
                Kind::DanglingImage | Kind::TaggedImage => "image",
            },
            id: item.id.clone(),
            name: listed.things[index].name(),
            size_bytes,
            last_used: item.last_used,
            fate,
            why,
        }
    };
    let going = plan.going.iter().map(|(index, bytes, why)| item(*index, *bytes, Fate::Goes, why.to_string()));
    let staying = plan.staying.iter().map(|(index, bytes, why)| item(*index, *bytes, Fate::Stays, why.to_string()));
    Collection { items: going.chain(staying).collect(), reclaimed_bytes: 0, free_bytes: 0, wanted_free_bytes: 0 }
}

/// False: it stays, since somebody has begun to use it.
fn remove(shared: &Arc<Shared>, thing: &Thing) -> Result<bool, EngineError> {
    match thing {
        Thing::Cache(entry) => Ok(!crate::build::remove_entries(shared, &[entry])?.ids.is_empty()),
        Thing::Image(image) => {
            let known = shared.images.find(&image.seen.id.to_string());
            let removed = shared.images.remove_unused(&image.seen, &|image| shared.image_user(image))?;
            if let (Some(removals), Ok(known)) = (&removed, known) {
                crate::engine::emit_removals(shared, removals, &[known]);
            }
            Ok(removed.is_some())
        }
    }
}

/// What the data root lies on.
#[derive(Debug, Clone, Copy)]
struct Disk {
    bytes: u64,
    free_bytes: u64,
}

impl Disk {
    fn of(shared: &Shared) -> Result<Self, EngineError> {
        let disk = rustix::fs::statvfs(&shared.config.data_root);
        let disk = disk.map_err(EngineError::system(|| format!("look at {}", shared.config.data_root.display())))?;
        let blocks = |count: u64| count.saturating_mul(disk.f_frsize);
        Ok(Self { bytes: blocks(disk.f_blocks), free_bytes: blocks(disk.f_bavail) })
    }
}
