//! Whose users and groups containers have.

use dozen_model::IdRange;

use crate::SettingsError;
use crate::settings::Reader;

/// Where ranges come from unless `userns-pool` says otherwise: 2013265920 to 2147483647. Nobody else's by default: below lie
/// systemd's for its containers (up to 1879048191; systemd's UIDS-GIDS.md) and those by which FreeIPA and sssd number a
/// domain's users (up to 2000200000), and what lies above is negative for programs that take an id for a signed number.
const POOL: IdRange = IdRange::new(0x7800_0000, 0x0800_0000).expect("it ends before the last id");

/// Of the lower ones are the host's own users: programs' below 1000, people's, and what systemd makes up.
const LOWEST: u32 = 1 << 16;

/// `userns-remap` and `userns-pool`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserSettings {
    /// `userns-remap` is `auto`: containers have ids of their own unless they say otherwise.
    pub own_ids: bool,
    /// `userns-pool`: of which ids of the host containers get theirs.
    pub pool: IdRange,
}

impl Default for UserSettings {
    fn default() -> Self {
        Self { own_ids: false, pool: POOL }
    }
}

impl UserSettings {
    pub(crate) fn of(reader: &Reader<'_>) -> Result<Self, SettingsError> {
        let own_ids = match reader.text("userns-remap")?.as_deref() {
            None | Some("") => false,
            Some("auto") => true,
            Some(other) => {
                let why = "is one range that all containers would share: what got out of one of them could do to the \
                           others whatever it liked; \"auto\" gives each a range of its own, from userns-pool";
                return Err(SettingsError::value("userns-remap", format!("{other:?} {why}")));
            }
        };
        let pool = match reader.text("userns-pool")? {
            None => POOL,
            Some(text) => {
                let bad = |why: String| SettingsError::value("userns-pool", why);
                let pool: IdRange = text.parse().map_err(|error: dozen_model::IdRangeError| bad(error.to_string()))?;
                if pool.first() < LOWEST {
                    return Err(bad(format!("{text}: ids below {LOWEST} are the host's own users'")));
                }
                pool
            }
        };
        Ok(Self { own_ids, pool })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: Value) -> Result<UserSettings, String> {
        UserSettings::of(&Reader(value.as_object().unwrap())).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_holds() {
        assert_eq!(read(json!({})), Ok(UserSettings::default()));
        assert_eq!(read(json!({ "userns-remap": "" })), Ok(UserSettings::default()));
        let said = read(json!({ "userns-remap": "auto", "userns-pool": "1000000:655360" })).unwrap();
        assert_eq!((said.own_ids, said.pool.to_string()), (true, "1000000:655360".to_owned()));
        assert_eq!(UserSettings::default().pool.end(), 1 << 31);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (value, words) in [
            (json!({ "userns-remap": "default" }), "option userns-remap: \"default\" is one range that all containers"),
            (json!({ "userns-remap": "dockremap:dockremap" }), "\"auto\" gives each a range of its own"),
            (json!({ "userns-remap": true }), "true is no text"),
            (json!({ "userns-pool": "1000:65536" }), "ids below 65536 are the host's own users'"),
            (json!({ "userns-pool": "many" }), "option userns-pool: \"many\" is no range of ids"),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains(words), "{value}: {error}");
        }
    }
}
