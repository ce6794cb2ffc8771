//! What goes and what stays, each with its reason: decided over a list, and nothing else.
//!
//! What has outlived its time goes first, however much is free. Then, as long as something is missing: what builds keep, since
//! it can be made again; then images without a tag; then images with one. Of each, what nobody has wanted for the longest time.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use dozen_model::Digest;
use dozen_settings::CollectedImages;
use jiff::{SignedDuration, Timestamp};

/// Something that takes room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) kind: Kind,
    /// Unique among those of its kind.
    pub(super) id: String,
    /// When somebody last wanted it.
    pub(super) last_used: Timestamp,
    /// How often what a build keeps was found again. Of an image 0.
    pub(super) uses: u64,
    /// When it was made; of an image, when somebody last wanted it.
    pub(super) created: Timestamp,
    /// What others may have, too.
    pub(super) layers: Vec<Digest>,
    /// What goes with it, whoever has its layers.
    pub(super) own_bytes: u64,
    /// The image that it was made from.
    pub(super) parent: Option<String>,
    /// Why it stays, whatever is asked.
    pub(super) holder: Option<Holder>,
}

impl Item {
    /// Whether what is said of images lets it go.
    fn is_chosen(&self, images: CollectedImages) -> bool {
        match self.kind {
            Kind::BuildCache => true,
            Kind::DanglingImage => images != CollectedImages::None,
            Kind::TaggedImage => images == CollectedImages::Unused,
        }
    }

    /// Whether it may go by these settings, now or once nobody needs it any more.
    pub(super) fn may_ever_go(&self, images: CollectedImages) -> bool {
        self.holder != Some(Holder::BuilderSettings) && self.is_chosen(images)
    }
}

/// In the order in which they go. Of one kind goes first what was wanted last the longest time ago, and of the same time, as a
/// prune of the build cache has it, what was found least often and then what was made last: the others may be found without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// What builds keep.
    BuildCache,
    /// An image that no tag names.
    DanglingImage,
    /// One that has a tag.
    TaggedImage,
}

/// Who needs something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// A container, by its name, and the Compose project that it is of.
    Container(String, Option<String>),
    /// A build, a push, or whoever else has it at this moment.
    Work,
    /// The settings say that what builds keep stays.
    BuilderSettings,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// Which images may go.
    pub(super) images: CollectedImages,
    /// An image that somebody has wanted since stays.
    pub(super) unused_for: Duration,
    /// An image that nobody has wanted for so long goes.
    pub(super) keep_duration: Option<Duration>,
    /// So much of what builds keep stays, in bytes.
    pub(super) reserved_cache_bytes: u64,
    /// So many bytes are to go.
    pub(super) missing_bytes: u64,
}

/// What becomes of each item: by its place in the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In this order, with the bytes that it gives back, if those before it have gone.
    pub(super) going: Vec<(usize, u64, Going)>,
    /// With the bytes that only it has of what stays.
    pub(super) staying: Vec<(usize, u64, Staying)>,
}

/// Why something goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Going {
    /// Nobody has wanted it for so long.
    Outlived(Duration),
    /// Room is missing, and of what may go it was wanted last the longest time ago.
    Room,
}

/// Why something stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Staying {
    Held(Holder),
    /// There is room.
    Enough,
    /// What is said of images spares it.
    NotChosen(CollectedImages),
    /// Somebody has wanted it not so long ago.
    Recent(Duration),
    /// An image was made from it, and stays.
    Parent(String),
    /// What it takes, others take too: to remove it makes no room.
    Shared,
    /// So much of what builds keep is to stay.
    Reserved,
}

/// Decides. Layers that are not in `layer_bytes` take no room.
pub(super) fn plan(items: &[Item], layer_bytes: &HashMap<Digest, u64>, rules: &Rules, now: Timestamp) -> Plan {
    let mut state = State::new(items, layer_bytes, rules, now);
    if let Some(limit) = rules.keep_duration {
        // Those that others were made from follow them.
        while let Some(index) = state.first(|state, item| state.age(item) >= limit && item.kind != Kind::BuildCache) {
            state.take(index, Going::Outlived(limit));
        }
    }
    while state.freed_bytes < rules.missing_bytes {
        let Some(index) = state.first(State::makes_room) else { break };
        state.take(index, Going::Room);
    }
    state.end()
}

struct State<'a> {
    items: &'a [Item],
    layer_bytes: &'a HashMap<Digest, u64>,
    rules: &'a Rules,
    now: Timestamp,
    /// All of them, in the order in which they go.
    order: Vec<usize>,
    stays: Vec<bool>,
    /// How many of those that stay have a layer.
    users: HashMap<&'a Digest, usize>,
    /// What builds keep that has a layer, gone or not.
    caches: HashMap<&'a Digest, Vec<usize>>,
    /// What was made from an image, gone or not.
    children: HashMap<&'a str, Vec<usize>>,
    /// What builds keep that nobody else has.
    cached_bytes: u64,
    freed_bytes: u64,
    going: Vec<(usize, u64, Going)>,
}

impl<'a> State<'a> {
    fn new(items: &'a [Item], layer_bytes: &'a HashMap<Digest, u64>, rules: &'a Rules, now: Timestamp) -> Self {
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|index| {
            let item = &items[*index];
            (item.kind, item.last_used, item.uses, Reverse(item.created), &item.id)
        });
        let (stays, going) = (vec![true; items.len()], Vec::new());
        let (users, caches, children) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (cached_bytes, freed_bytes) = (0, 0);
        let mut state = Self {
            items,
            layer_bytes,
            rules,
            now,
            order,
            stays,
            users,
            caches,
            children,
            cached_bytes,
            freed_bytes,
            going,
        };
        for (index, item) in items.iter().enumerate() {
            for layer in layers(item) {
                *state.users.entry(layer).or_default() += 1;
                if item.kind == Kind::BuildCache {
                    state.caches.entry(layer).or_default().push(index);
                }
            }
            if let Some(parent) = &item.parent {
                state.children.entry(parent).or_default().push(index);
            }
        }
        let caches = items.iter().filter(|item| item.kind == Kind::BuildCache);
        state.cached_bytes = caches.map(|item| state.own_bytes(item)).sum();
        state
    }

    fn age(&self, item: &Item) -> Duration {
        let age = self.now.duration_since(item.last_used).max(SignedDuration::ZERO);
        age.unsigned_abs()
    }

    /// Of those that may go, and of which this is true, the one that goes first.
    fn first(&self, is_wanted: impl Fn(&Self, &Item) -> bool) -> Option<usize> {
        self.order.iter().copied().find(|index| {
            let item = &self.items[*index];
            self.stays[*index] && self.obstacle(item).is_none() && is_wanted(self, item)
        })
    }

    fn indexes(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.items.len()).filter(|index| self.stays[*index])
    }

    /// Whether it gives back something, if only with what builds keep of it.
    fn makes_room(&self, item: &Item) -> bool {
        self.own_bytes(item) > 0 || (item.kind != Kind::BuildCache && self.opens_a_cache(item))
    }

    /// Whether something that builds keep may go once this image has, and gives back a layer of it.
    fn opens_a_cache(&self, image: &Item) -> bool {
        let opened: Vec<(usize, u64)> = layers(image)
            .filter(|layer| self.users.get(layer) == Some(&2))
            .filter_map(|layer| Some((self.cache_with(layer)?, self.bytes(layer))))
            .collect();
        let cached_bytes = self.cached_bytes + opened.iter().map(|(_, bytes)| bytes).sum::<u64>();
        opened.iter().any(|(cache, _)| {
            let of_image: u64 = opened.iter().filter(|(other, _)| other == cache).map(|(_, bytes)| bytes).sum();
            let cache = &self.items[*cache];
            let left = cached_bytes - self.own_bytes(cache) - of_image;
            cache.holder.is_none() && of_image > 0 && left >= self.rules.reserved_cache_bytes
        })
    }

    /// What builds keep of a layer.
    fn cache_with(&self, layer: &Digest) -> Option<usize> {
        self.caches.get(layer)?.iter().copied().find(|index| self.stays[*index])
    }

    fn bytes(&self, layer: &Digest) -> u64 {
        self.layer_bytes.get(layer).copied().unwrap_or(0)
    }

    /// Bytes that nothing else has of what stays.
    fn own_bytes(&self, item: &Item) -> u64 {
        let own = layers(item).filter(|layer| self.users.get(layer) == Some(&1));
        item.own_bytes + own.map(|layer| self.bytes(layer)).sum::<u64>()
    }

    /// Why it may not go at all; of what takes no room of its own nothing is said here.
    fn obstacle(&self, item: &Item) -> Option<Staying> {
        if let Some(holder) = &item.holder {
            return Some(Staying::Held(holder.clone()));
        }
        if item.kind == Kind::BuildCache {
            let reserved_bytes = self.rules.reserved_cache_bytes;
            let is_reserved = reserved_bytes > 0 && self.cached_bytes - self.own_bytes(item) < reserved_bytes;
            return is_reserved.then_some(Staying::Reserved);
        }
        if !item.is_chosen(self.rules.images) {
            return Some(Staying::NotChosen(self.rules.images));
        }
        let mut children = self.children.get(item.id.as_str()).into_iter().flatten();
        if let Some(child) = children.find(|index| self.stays[**index]) {
            return Some(Staying::Parent(self.items[*child].id.clone()));
        }
        (self.age(item) < self.rules.unused_for).then_some(Staying::Recent(self.rules.unused_for))
    }

    fn take(&mut self, index: usize, why: Going) {
        let item = &self.items[index];
        let own_bytes = self.own_bytes(item);
        self.going.push((index, own_bytes, why));
        self.freed_bytes += own_bytes;
        self.stays[index] = false;
        if item.kind == Kind::BuildCache {
            self.cached_bytes -= own_bytes;
        }
        for layer in layers(item) {
            let users = self.users.entry(layer).or_default();
            *users -= 1;
            // Of what has it now alone.
            if *users == 1 && self.cache_with(layer).is_some() {
                self.cached_bytes += self.bytes(layer);
            }
        }
    }

    fn end(self) -> Plan {
        let is_enough = self.freed_bytes >= self.rules.missing_bytes;
        let why = |item: &Item| {
            self.obstacle(item).unwrap_or_else(|| match self.makes_room(item) {
                false => Staying::Shared,
                true => {
                    debug_assert!(is_enough, "something could go, and did not");
                    Staying::Enough
                }
            })
        };
        let staying = self.indexes().map(|index| {
            let item = &self.items[index];
            (index, self.own_bytes(item), why(item))
        });
        Plan { staying: staying.collect(), going: self.going }
    }
}

/// Layers that take room, while one thing after the other goes.
pub(super) struct Layers<'a> {
    bytes: &'a HashMap<Digest, u64>,
    gone: HashSet<Digest>,
}

impl<'a> Layers<'a> {
    pub(super) fn new(bytes: &'a HashMap<Digest, u64>) -> Self {
        Self { bytes, gone: HashSet::new() }
    }

    /// What has gone with an item: of its layers those that are not there any more, and did not go with another.
    pub(super) fn given_back(&mut self, item: &Item, is_there: impl Fn(&Digest) -> bool) -> u64 {
        let gone = layers(item).filter(|layer| !is_there(layer) && self.gone.insert((*layer).clone()));
        item.own_bytes + gone.filter_map(|layer| self.bytes.get(layer)).sum::<u64>()
    }
}

/// Each once.
fn layers(item: &Item) -> impl Iterator<Item = &Digest> {
    item.layers.iter().enumerate().filter(|(at, layer)| !item.layers[..*at].contains(layer)).map(|(_, layer)| layer)
}

impl fmt::Display for Going {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outlived(limit) => {
                write!(f, "nobody has wanted it for {} (imagesKeepDuration)", spoken(*limit))
            }
            Self::Room => f.write_str("room is missing, and nobody has wanted it for the longest time"),
        }
    }
}

impl fmt::Display for Staying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(Holder::Container(name, None)) => write!(f, "container {name} stands on it"),
            Self::Held(Holder::Container(name, Some(project))) => {
                write!(f, "container {name} of the Compose project {project} stands on it")
            }
            Self::Held(Holder::Work) => f.write_str("a build, a push or a save has it at this moment"),
            Self::Held(Holder::BuilderSettings) => f.write_str("the settings keep it (builder.gc.enabled is false)"),
            Self::Enough => f.write_str("there is room enough"),
            Self::NotChosen(CollectedImages::Dangling) => f.write_str("a tag names it (images is \"dangling\")"),
            Self::NotChosen(_) => f.write_str("no image goes by itself (images is \"none\")"),
            Self::Recent(limit) => {
                write!(f, "somebody has wanted it within {} (imagesUnusedFor)", spoken(*limit))
            }
            Self::Parent(child) => write!(f, "image {} was made from it", short(child)),
            Self::Shared => f.write_str("others have all that it is made of: it takes no room of its own"),
            Self::Reserved => f.write_str("so much of what builds keep stays (reservedSpace)"),
        }
    }
}

/// As settings have it: `36h`, `90m`, `5s`.
fn spoken(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

#[cfg(test)]
mod tests;
