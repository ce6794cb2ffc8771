//! What goes by itself when the disk fills up: `collection`, which is ours.

use std::time::Duration;

use dozen_model::moment::duration_ns;
use serde_json::{Map, Value};

use crate::SettingsError;
use crate::builder::{Space, space};
use crate::settings::Reader;

const KEY: &str = "collection";
const KEYS: [&str; 7] =
    ["enabled", "minFreeSpace", "targetFreeSpace", "maxSize", "images", "imagesUnusedFor", "imagesKeepDuration"];

/// What is collected, and when. Never a volume, never a container, and an image only if `images` says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionSettings {
    /// `enabled`: by itself. Who asks for a collection gets one anyway.
    pub is_on: bool,
    /// `minFreeSpace`: with less of the disk free something goes.
    pub min_free: Space,
    /// `targetFreeSpace`: until so much is free.
    pub target_free: Space,
    /// `maxSize`: no more than this for images and what builds keep, together. `None`: no matter.
    pub max_size: Option<Space>,
    /// `images`: which of those that no container has may go.
    pub images: CollectedImages,
    /// `imagesUnusedFor`: only those that nobody has used for so long.
    pub unused_for: Duration,
    /// `imagesKeepDuration`: those that nobody has used for so long go, however much is free. `None`: they stay.
    pub keep_duration: Option<Duration>,
}

/// Which images may go that no container has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CollectedImages {
    /// None.
    #[default]
    None,
    /// Those that no tag names.
    Dangling,
    /// All of them.
    Unused,
}

impl Default for CollectionSettings {
    fn default() -> Self {
        Self {
            is_on: true,
            min_free: Space::Percent(5),
            target_free: Space::Percent(10),
            max_size: None,
            images: CollectedImages::None,
            unused_for: Duration::from_secs(24 * 3600),
            keep_duration: None,
        }
    }
}

impl std::str::FromStr for CollectedImages {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "none" => Ok(Self::None),
            "dangling" => Ok(Self::Dangling),
            "unused" => Ok(Self::Unused),
            _ => Err(()),
        }
    }
}

impl CollectionSettings {
    pub(crate) fn of(reader: &Reader<'_>) -> Result<Self, SettingsError> {
        let default = Self::default();
        let Some(value) = reader.get(KEY) else { return Ok(default) };
        let Value::Object(object) = value else { return Err(bad("it", value, "no object")) };
        if let Some(unknown) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let why = format!("it has the key {unknown:?}, which does not act; those that do: {}", KEYS.join(", "));
            return Err(SettingsError::value(KEY, why));
        }
        let min_free = space_of(object, "minFreeSpace")?;
        let target_free = space_of(object, "targetFreeSpace")?;
        if target_free.is_some_and(|target| target.is_less_than(min_free.unwrap_or(default.min_free))) {
            let why = match min_free {
                Some(_) => "less than minFreeSpace",
                None => "less than minFreeSpace, which is 5% unless it is said",
            };
            return Err(bad("targetFreeSpace", &object["targetFreeSpace"], why));
        }
        let min_free = min_free.unwrap_or(default.min_free);
        let keep_duration = duration_of(object, "imagesKeepDuration")?;
        let unused_for = duration_of(object, "imagesUnusedFor")?;
        if let (Some(unused), Some(keep)) = (unused_for, keep_duration)
            && keep < unused
        {
            let why = "less than imagesUnusedFor, within which no image goes";
            return Err(bad("imagesKeepDuration", &object["imagesKeepDuration"], why));
        }
        let settings = Self {
            is_on: match object.get("enabled") {
                None => true,
                Some(value) => value.as_bool().ok_or_else(|| bad("enabled", value, "neither true nor false"))?,
            },
            min_free,
            // Of a disk on which more has to be free than the default's target, that much.
            target_free: target_free.unwrap_or_else(|| match default.target_free.is_less_than(min_free) {
                true => min_free,
                false => default.target_free,
            }),
            max_size: space_of(object, "maxSize")?,
            images: match object.get("images") {
                None => default.images,
                Some(value) => {
                    let read = value.as_str().and_then(|text| text.parse().ok());
                    read.ok_or_else(|| bad("images", value, "none of \"none\", \"dangling\", \"unused\""))?
                }
            },
            // Who keeps images for an hour does not want the default's day.
            unused_for: unused_for.unwrap_or_else(|| default.unused_for.min(keep_duration.unwrap_or(Duration::MAX))),
            keep_duration,
        };
        if settings.images == CollectedImages::None
            && let Some(key) = ["imagesUnusedFor", "imagesKeepDuration"].iter().find(|key| object.contains_key(**key))
        {
            let why = format!("{key} does not act without images: write \"images\": \"dangling\", or \"unused\"");
            return Err(SettingsError::value(KEY, why));
        }
        if settings.max_size.is_some_and(|most| most.of(100) == 0) {
            return Err(bad("maxSize", &object["maxSize"], "nothing: it would leave no build and no image"));
        }
        Ok(settings)
    }
}

impl CollectionSettings {
    /// How much of a disk is to be free, in bytes: more than is to be there, once there is less.
    pub fn wanted_free(&self, disk_bytes: u64, free_bytes: u64) -> u64 {
        let least = self.min_free.of(disk_bytes);
        if free_bytes >= least { least } else { self.target_free.of(disk_bytes).max(least) }
    }
}

fn space_of(object: &Map<String, Value>, key: &str) -> Result<Option<Space>, SettingsError> {
    let read = |value| space(value).ok_or_else(|| bad(key, value, "no size: write \"10GB\", or \"10%\" of the disk"));
    object.get(key).map(read).transpose()
}

fn duration_of(object: &Map<String, Value>, key: &str) -> Result<Option<Duration>, SettingsError> {
    let read = |value: &Value| {
        let nanoseconds = value.as_str().and_then(duration_ns).and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
        nanoseconds.map(Duration::from_nanos).ok_or_else(|| bad(key, value, "no duration: write \"48h\""))
    };
    object.get(key).map(read).transpose()
}

fn bad(what: &str, value: &Value, why: &str) -> SettingsError {
    let shown: String = value.to_string().chars().take(100).collect();
    SettingsError::value(KEY, format!("{what}: {shown} is {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<CollectionSettings, String> {
        let keys = json!({ "collection": value });
        CollectionSettings::of(&Reader(keys.as_object().unwrap())).map_err(|error| error.to_string())
    }

    #[test]
    fn what_may_go_is_read() {
        let default = CollectionSettings::default;
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        for (value, want) in [
            (json!({}), default()),
            (json!({ "enabled": false }), CollectionSettings { is_on: false, ..default() }),
            (
                json!({ "minFreeSpace": "10GB", "targetFreeSpace": "20GB", "maxSize": "50%" }),
                CollectionSettings {
                    min_free: Space::Bytes(10 << 30),
                    target_free: Space::Bytes(20 << 30),
                    max_size: Some(Space::Percent(50)),
                    ..default()
                },
            ),
            (
                json!({ "minFreeSpace": "30%" }),
                CollectionSettings { min_free: Space::Percent(30), target_free: Space::Percent(30), ..default() },
            ),
            (
                json!({ "images": "unused", "imagesUnusedFor": "0s", "imagesKeepDuration": "720h" }),
                CollectionSettings {
                    images: CollectedImages::Unused,
                    unused_for: hours(0),
                    keep_duration: Some(hours(720)),
                    ..default()
                },
            ),
            (
                json!({ "images": "dangling", "imagesKeepDuration": "1h" }),
                CollectionSettings {
                    images: CollectedImages::Dangling,
                    unused_for: hours(1),
                    keep_duration: Some(hours(1)),
                    ..default()
                },
            ),
        ] {
            assert_eq!(read(value.clone()), Ok(want), "{value}");
        }
    }

    #[test]
    fn once_it_begins_it_goes_on_to_its_target() {
        let settings =
            CollectionSettings { min_free: Space::Percent(5), target_free: Space::Percent(10), ..Default::default() };
        for (free, want) in [(1000, 50), (50, 50), (49, 100), (0, 100)] {
            assert_eq!(settings.wanted_free(1000, free), want, "{free}");
        }
        // Said in other words, the target may be the less of the two.
        let settings = CollectionSettings { target_free: Space::Bytes(7), ..settings };
        assert_eq!(settings.wanted_free(1000, 1), 50);
    }

    #[test]
    fn what_does_not_act_is_named() {
        for (value, words) in [
            (json!(1), "it: 1 is no object"),
            (json!({ "volumes": "unused" }), "it has the key \"volumes\", which does not act"),
            (json!({ "enabled": "yes" }), "enabled: \"yes\" is neither true nor false"),
            (json!({ "minFreeSpace": "much" }), "minFreeSpace: \"much\" is no size"),
            (json!({ "minFreeSpace": "20%", "targetFreeSpace": "10%" }), "\"10%\" is less than minFreeSpace"),
            (json!({ "targetFreeSpace": "1%" }), "\"1%\" is less than minFreeSpace, which is 5%"),
            (
                json!({ "images": "unused", "imagesUnusedFor": "2h", "imagesKeepDuration": "1h" }),
                "imagesKeepDuration: \"1h\" is less than imagesUnusedFor",
            ),
            (json!({ "maxSize": 0 }), "maxSize: 0 is nothing"),
            (json!({ "maxSize": "0%" }), "maxSize: \"0%\" is nothing"),
            (json!({ "images": "all" }), "images: \"all\" is none of"),
            (json!({ "images": "unused", "imagesUnusedFor": 5 }), "imagesUnusedFor: 5 is no duration"),
            (json!({ "imagesKeepDuration": "1h" }), "imagesKeepDuration does not act without images"),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains(words), "{value}: {error}");
        }
    }
}
