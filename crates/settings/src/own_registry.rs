//! Where the engine serves a registry of its own: `registry-listen`, which is dozen's own key.

use std::net::{Ipv4Addr, SocketAddr};

use crate::SettingsError;
use crate::settings::Reader;

const KEY: &str = "registry-listen";
/// Nobody else's: 5000, which is the usual one, people want for a registry in a container, or for what they develop.
const PORT: u16 = 12012;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnRegistrySettings {
    /// On loopback, always: it has no TLS. Port 0 is any that is free. `None`: there is none.
    pub listen: Option<SocketAddr>,
}

impl Default for OwnRegistrySettings {
    fn default() -> Self {
        Self { listen: Some((Ipv4Addr::LOCALHOST, PORT).into()) }
    }
}

impl OwnRegistrySettings {
    pub(crate) fn of(reader: &Reader<'_>) -> Result<Self, SettingsError> {
        let Some(text) = reader.text(KEY)? else { return Ok(Self::default()) };
        if text == "off" {
            return Ok(Self { listen: None });
        }
        let bad = |why: &str| SettingsError::value(KEY, format!("{text:?} {why}"));
        let address: SocketAddr = text.parse().map_err(|_| bad("is neither ADDRESS:PORT nor off"))?;
        match address.ip().is_loopback() {
            true => Ok(Self { listen: Some(address) }),
            false => Err(bad("is not on loopback: others are served by dozen registry serve, with TLS")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: Value) -> Result<Option<SocketAddr>, String> {
        let read = OwnRegistrySettings::of(&Reader(value.as_object().unwrap()));
        read.map(|settings| settings.listen).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_on_loopback_or_not_at_all() {
        let at = |text: &str| Ok(Some(text.parse().unwrap()));
        assert_eq!(read(json!({})), at("127.0.0.1:12012"));
        assert_eq!(read(json!({ "registry-listen": "127.0.0.2:5000" })), at("127.0.0.2:5000"));
        assert_eq!(read(json!({ "registry-listen": "[::1]:0" })), at("[::1]:0"));
        assert_eq!(read(json!({ "registry-listen": "off" })), Ok(None));
        for (value, words) in [
            (json!("0.0.0.0:5000"), "\"0.0.0.0:5000\" is not on loopback: others are served by dozen registry serve"),
            (json!("localhost:5000"), "\"localhost:5000\" is neither ADDRESS:PORT nor off"),
            (json!("5000"), "is neither"),
            (json!(""), "is neither"),
            (json!(false), "false is no text"),
        ] {
            let error = read(json!({ "registry-listen": value })).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
