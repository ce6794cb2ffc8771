//! How much builds may keep: `builder.gc`, as BuildKit in Docker has it (docs.docker.com, "Build garbage collection").

use std::time::Duration;

use dozen_model::moment::duration_ns;
use serde_json::{Map, Value};

use crate::SettingsError;
use crate::settings::{Reader, size_bytes};

/// Of the disk, unless something is said; or [`KEPT_BYTES`], if that is less.
const KEPT_PERCENT: u8 = 10;
const KEPT_BYTES: u64 = 20_000_000_000;

/// What is done about the build cache by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuilderSettings {
    /// `gc.enabled`: after each build, and when the engine starts, what is too much goes.
    pub is_swept: bool,
    /// `gc.policy`, or what stands for it: one after the other.
    pub rules: Vec<CacheRule>,
}

/// What goes, and how much stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheRule {
    /// Also what images have, too.
    pub all: bool,
    /// Only what no build has wanted for so long.
    pub unused_for: Option<Duration>,
    /// Only this kind, in BuildKit's words.
    pub kind: Option<String>,
    /// So much stays, whatever the next two say. With none of the three nothing has to.
    pub reserved: Option<Space>,
    /// No more than this stays: each of these. Empty: no matter.
    pub max_used: Vec<Space>,
    /// As much goes as it takes to have so much of the disk free.
    pub min_free: Option<Space>,
}

/// Some of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Of it all, 0 to 100.
    Percent(u8),
    #[expect(missing_docs, reason = "plain")]
    Bytes(u64),
}

impl Space {
    /// In bytes, of a disk of this size.
    pub fn of(self, disk_bytes: u64) -> u64 {
        match self {
            Self::Percent(share) => disk_bytes / 100 * u64::from(share),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl std::str::FromStr for Space {
    type Err = ();

    /// As in the file.
    fn from_str(text: &str) -> Result<Self, ()> {
        space(&Value::from(text)).ok_or(())
    }
}

impl Space {
    /// Of every disk; of a part and of a size nobody knows.
    pub(crate) fn is_less_than(self, other: Self) -> bool {
        match (self, other) {
            (Self::Percent(one), Self::Percent(other)) => one < other,
            (Self::Bytes(one), Self::Bytes(other)) => one < other,
            _ => false,
        }
    }
}

impl Default for BuilderSettings {
    fn default() -> Self {
        let max_used = vec![Space::Percent(KEPT_PERCENT), Space::Bytes(KEPT_BYTES)];
        Self { is_swept: true, rules: vec![CacheRule { max_used, ..CacheRule::default() }] }
    }
}

impl BuilderSettings {
    pub(crate) fn of(reader: &Reader<'_>) -> Result<Self, SettingsError> {
        let default = Self::default();
        let Some(builder) = reader.get("builder") else { return Ok(default) };
        let builder = object("", builder, &["gc"])?;
        let Some(gc) = builder.get("gc") else { return Ok(default) };
        let gc = object(
            "gc",
            gc,
            &[
                "enabled",
                "policy",
                "defaultKeepStorage",
                "defaultReservedSpace",
                "defaultMaxUsedSpace",
                "defaultMinFreeSpace",
            ],
        )?;
        let is_swept = match gc.get("enabled") {
            None => true,
            Some(value) => value.as_bool().ok_or_else(|| bad("gc.enabled", value, "neither true nor false"))?,
        };
        let said = spaces(
            "gc",
            gc,
            "defaultKeepStorage",
            "defaultReservedSpace",
            "defaultMaxUsedSpace",
            "defaultMinFreeSpace",
        )?;
        let rules = match gc.get("policy") {
            None if said.is_unlimited() => default.rules,
            None => vec![said],
            Some(Value::Array(rules)) => {
                let rules = rules.iter().enumerate();
                rules.map(|(number, value)| rule(number, value, &said)).collect::<Result<_, _>>()?
            }
            Some(other) => return Err(bad("gc.policy", other, "no list of rules")),
        };
        Ok(Self { is_swept, rules })
    }
}

impl CacheRule {
    fn is_unlimited(&self) -> bool {
        self.reserved.is_none() && self.max_used.is_empty() && self.min_free.is_none()
    }
}

/// One of `gc.policy`. What it says nothing of is as `said` has it.
fn rule(number: usize, value: &Value, said: &CacheRule) -> Result<CacheRule, SettingsError> {
    let path = format!("gc.policy[{number}]");
    let keys = ["all", "filter", "keepDuration", "keepStorage", "reservedSpace", "maxUsedSpace", "minFreeSpace"];
    let value = object(&path, value, &keys)?;
    let mut rule = spaces(&path, value, "keepStorage", "reservedSpace", "maxUsedSpace", "minFreeSpace")?;
    if rule.is_unlimited() {
        rule = said.clone();
    }
    rule.all = match value.get("all") {
        None => false,
        Some(all) => all.as_bool().ok_or_else(|| bad(&format!("{path}.all"), all, "neither true nor false"))?,
    };
    let not_a_filter = |filter: &Value| {
        bad(
            &format!("{path}.filter"),
            filter,
            "no filter that acts: write \"unused-for=48h\", or \"type=exec.cachemount\"",
        )
    };
    let filters = match value.get("filter") {
        None => &[][..],
        Some(Value::Array(filters)) => filters,
        Some(other) => return Err(not_a_filter(other)),
    };
    for filter in filters {
        let (name, wanted) =
            filter.as_str().and_then(|text| text.split_once('=')).ok_or_else(|| not_a_filter(filter))?;
        match name.trim() {
            "unused-for" | "until" => {
                rule.unused_for = Some(duration(wanted.trim()).ok_or_else(|| not_a_filter(filter))?);
            }
            "type" => rule.kind = Some(wanted.trim().to_owned()),
            _ => return Err(not_a_filter(filter)),
        }
    }
    if let Some(kept) = value.get("keepDuration") {
        let read = kept.as_str().and_then(duration);
        rule.unused_for =
            Some(read.ok_or_else(|| bad(&format!("{path}.keepDuration"), kept, "no duration: write \"48h\""))?);
    }
    if rule.is_unlimited() && rule.unused_for.is_none() {
        let why = "it would leave nothing of any build: say how much stays (\"keepStorage\": \"10GB\"), or \
                   \"filter\": [\"unused-for=48h\"]";
        return Err(SettingsError::value("builder", format!("{path}: {why}")));
    }
    Ok(rule)
}

/// How much stays, by these names; of the first two the second is the newer one.
fn spaces(
    path: &str,
    object: &Map<String, Value>,
    kept: &str,
    reserved: &str,
    max_used: &str,
    min_free: &str,
) -> Result<CacheRule, SettingsError> {
    let space = |key: &str| {
        let Some(value) = object.get(key) else { return Ok(None) };
        let read = space(value)
            .ok_or_else(|| bad(&format!("{path}.{key}"), value, "no size: write \"10GB\", \"10%\", or bytes"))?;
        // As in Docker: nothing is said.
        Ok(Some(read).filter(|space| !matches!(space, Space::Bytes(0) | Space::Percent(0))))
    };
    if object.contains_key(kept) && object.contains_key(reserved) {
        let why = format!("{path}: {kept} and {reserved} are one thing: say it once");
        return Err(SettingsError::value("builder", why));
    }
    Ok(CacheRule {
        reserved: space(reserved)?.or(space(kept)?),
        max_used: space(max_used)?.into_iter().collect(),
        min_free: space(min_free)?,
        ..CacheRule::default()
    })
}

/// Bytes, as `10GB`, or a part of the disk, as `10%`.
pub(crate) fn space(value: &Value) -> Option<Space> {
    match value.as_str().and_then(|text| text.trim().strip_suffix('%')) {
        Some(share) => share.trim().parse().ok().filter(|share| *share <= 100).map(Space::Percent),
        None => size_bytes(value).map(Space::Bytes),
    }
}

fn duration(text: &str) -> Option<Duration> {
    u64::try_from(duration_ns(text)?).ok().map(Duration::from_nanos)
}

/// An object with no other keys than these.
fn object<'a>(path: &str, value: &'a Value, keys: &[&str]) -> Result<&'a Map<String, Value>, SettingsError> {
    let shown = if path.is_empty() { "it" } else { path };
    let Value::Object(object) = value else { return Err(bad(shown, value, "no object")) };
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(unknown) => {
            let why =
                format!("{shown} has the key {unknown:?}, which does not act; those that do: {}", keys.join(", "));
            Err(SettingsError::value("builder", why))
        }
        None => Ok(object),
    }
}

fn bad(path: &str, value: &Value, why: &str) -> SettingsError {
    let shown: String = value.to_string().chars().take(100).collect();
    SettingsError::value("builder", format!("{path}: {shown} is {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<BuilderSettings, String> {
        let keys = json!({ "builder": value });
        BuilderSettings::of(&Reader(keys.as_object().unwrap())).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_to_stay_is_read_as_docker_writes_it() {
        let rule = CacheRule::default;
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        let gb = |count: u64| Some(Space::Bytes(count << 30));
        let default = BuilderSettings::default().rules;
        for (value, rules) in [
            (json!({}), default.clone()),
            (json!({ "gc": { "enabled": true } }), default),
            (json!({ "gc": { "defaultKeepStorage": "10GB" } }), vec![CacheRule { reserved: gb(10), ..rule() }]),
            (
                json!({ "gc": { "defaultReservedSpace": "10%", "defaultMaxUsedSpace": "30GB", "defaultMinFreeSpace": 0 } }),
                vec![CacheRule {
                    reserved: Some(Space::Percent(10)),
                    max_used: gb(30).into_iter().collect(),
                    ..rule()
                }],
            ),
            (
                json!({ "gc": { "defaultKeepStorage": "1GB", "policy": [
                    { "keepStorage": "10GB", "filter": ["unused-for=2200h"] },
                    { "filter": ["type=exec.cachemount", "until=48h"] },
                    { "maxUsedSpace": "100GB", "all": true, "keepDuration": "1h" },
                ] } }),
                vec![
                    CacheRule { reserved: gb(10), unused_for: hours(2200), ..rule() },
                    CacheRule {
                        reserved: gb(1),
                        unused_for: hours(48),
                        kind: Some("exec.cachemount".into()),
                        ..rule()
                    },
                    CacheRule { all: true, max_used: gb(100).into_iter().collect(), unused_for: hours(1), ..rule() },
                ],
            ),
            (json!({ "gc": { "policy": [] } }), Vec::new()),
        ] {
            assert_eq!(read(value.clone()).map(|read| read.rules), Ok(rules), "{value}");
        }
        assert!(!read(json!({ "gc": { "enabled": false } })).unwrap().is_swept);
        assert_eq!((Space::Percent(10).of(1000), Space::Bytes(7).of(1000)), (100, 7));
    }

    #[test]
    fn what_does_not_act_is_named() {
        for (value, words) in [
            (json!("x"), "it: \"x\" is no object"),
            (json!({ "entitlements": {} }), "it has the key \"entitlements\", which does not act"),
            (json!({ "gc": { "colour": 1 } }), "gc has the key \"colour\""),
            (json!({ "gc": { "enabled": 1 } }), "gc.enabled: 1 is neither true nor false"),
            (json!({ "gc": { "policy": {} } }), "gc.policy: {} is no list of rules"),
            (json!({ "gc": { "policy": [{ "all": true }] } }), "gc.policy[0]: it would leave nothing of any build"),
            (
                json!({ "gc": { "policy": [{ "filter": ["parents=x"] }] } }),
                "gc.policy[0].filter: \"parents=x\" is no filter",
            ),
            (
                json!({ "gc": { "policy": [{ "filter": ["until=soon"] }] } }),
                "gc.policy[0].filter: \"until=soon\" is no filter",
            ),
            (json!({ "gc": { "defaultKeepStorage": "" } }), "gc.defaultKeepStorage: \"\" is no size"),
            (json!({ "gc": { "defaultKeepStorage": "101%" } }), "gc.defaultKeepStorage: \"101%\" is no size"),
            (
                json!({ "gc": { "defaultKeepStorage": "1g", "defaultReservedSpace": "1g" } }),
                "defaultKeepStorage and defaultReservedSpace are one thing",
            ),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains(words), "{value}: {error}");
        }
    }
}
