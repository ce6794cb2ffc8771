//! What containers get whose request does not say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use crate::settings::Reader;
use crate::{SettingsError, UserSettings};

/// A profile is text of some kilobytes; what is longer is none.
const LARGEST_PROFILE_BYTES: u64 = 1 << 20;

/// What holds for containers that are made from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerSettings {
    /// `dns`, `dns-search`, `dns-opts`.
    pub dns: DnsSettings,
    /// `default-ulimits`, by name.
    pub ulimits: BTreeMap<String, UlimitSettings>,
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `cgroup-parent`, as a request has it; empty: the engine's own.
    pub cgroup_parent: String,
    /// `default-ipc-mode` is `shareable`.
    pub shareable_memory: bool,
    /// `default-cgroupns-mode` is `host`.
    pub host_cgroups: bool,
    /// `seccomp-profile`: `None` for the engine's own; else as `--security-opt seccomp=` has it, `unconfined` or the
    /// profile itself.
    pub seccomp: Option<String>,
    /// `userns-remap`, `userns-pool`.
    pub users: UserSettings,
}

/// Whom containers ask for names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Domains in which names are looked for.
    pub search: Vec<String>,
    /// Options of resolv.conf(5).
    pub options: Vec<String>,
}

/// One limit; -1 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "getrlimit(2)'s words")]
pub struct UlimitSettings {
    pub soft: i64,
    pub hard: i64,
}

impl ContainerSettings {
    pub(crate) fn of(reader: &Reader<'_>) -> Result<Self, SettingsError> {
        let servers = reader.texts("dns")?;
        let server =
            |text: &String| text.parse().map_err(|_| SettingsError::value("dns", format!("{text:?} is no IP address")));
        let of_words = |key: &str, words: &[&str]| match reader.text(key)? {
            Some(word) if words.contains(&word.as_str()) => Ok(Some(word)),
            Some(word) => Err(SettingsError::value(key, format!("{word:?} is none of {}", words.join(", ")))),
            None => Ok(None),
        };
        Ok(Self {
            dns: DnsSettings {
                servers: servers.iter().map(server).collect::<Result<_, _>>()?,
                search: reader.texts("dns-search")?,
                options: reader.texts("dns-opts")?,
            },
            ulimits: ulimits(reader.get("default-ulimits"))?,
            no_new_privileges: reader.switch("no-new-privileges")?.unwrap_or(false),
            cgroup_parent: reader.text("cgroup-parent")?.unwrap_or_default(),
            shareable_memory: of_words("default-ipc-mode", &["private", "shareable"])?.as_deref() == Some("shareable"),
            host_cgroups: of_words("default-cgroupns-mode", &["private", "host"])?.as_deref() == Some("host"),
            seccomp: seccomp(reader.text("seccomp-profile")?)?,
            users: UserSettings::of(reader)?,
        })
    }
}

/// `{"nofile": {"Name": "nofile", "Hard": 2048, "Soft": 1024}}`; the name may be left out.
fn ulimits(value: Option<&Value>) -> Result<BTreeMap<String, UlimitSettings>, SettingsError> {
    let bad = |value: &Value| {
        SettingsError::value(
            "default-ulimits",
            format!("{value}: write {{\"nofile\": {{\"Soft\": 1024, \"Hard\": 2048}}}}"),
        )
    };
    let Some(value) = value else { return Ok(BTreeMap::new()) };
    let limits = value.as_object().ok_or_else(|| bad(value))?;
    let limit = |(name, limit): (&String, &Value)| {
        let keys = limit.as_object().ok_or_else(|| bad(value))?;
        let is_known = keys.keys().all(|key| ["Name", "Soft", "Hard"].contains(&key.as_str()));
        let is_named = limit.get("Name").is_none_or(|other| other.as_str() == Some(name));
        let [soft, hard] = ["Soft", "Hard"].map(|which| limit.get(which).and_then(Value::as_i64));
        match (soft, hard) {
            (Some(soft), Some(hard)) if is_known && is_named => Ok((name.clone(), UlimitSettings { soft, hard })),
            _ => Err(bad(value)),
        }
    };
    limits.iter().map(limit).collect()
}

fn seccomp(named: Option<String>) -> Result<Option<String>, SettingsError> {
    let path = match named.as_deref() {
        None | Some("" | "builtin") => return Ok(None),
        Some("unconfined") => return Ok(named),
        Some(path) => Path::new(path),
    };
    let bad = |why: String| SettingsError::value("seccomp-profile", format!("{}: {why}", path.display()));
    if !path.is_absolute() {
        return Err(bad("want builtin, unconfined, or the absolute path of a file".to_owned()));
    }
    let length = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
    if length > LARGEST_PROFILE_BYTES {
        return Err(bad("it is too large for a profile".to_owned()));
    }
    std::fs::read_to_string(path).map(Some).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<ContainerSettings, String> {
        ContainerSettings::of(&Reader(value.as_object().unwrap())).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_holds() {
        let read = read(json!({
            "dns": ["192.0.2.1", "fd00::1"], "dns-search": ["lan"], "dns-opts": ["ndots:2"],
            "default-ulimits": { "nofile": { "Name": "nofile", "Soft": 64, "Hard": 128 }, "core": { "Soft": 0, "Hard": -1 } },
            "no-new-privileges": true, "default-cgroupns-mode": "host", "default-ipc-mode": "shareable",
            "cgroup-parent": "/team", "seccomp-profile": "unconfined",
        }));
        let limit = |name: &str, soft, hard| (name.to_owned(), UlimitSettings { soft, hard });
        assert_eq!(
            read,
            Ok(ContainerSettings {
                dns: DnsSettings {
                    servers: vec!["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()],
                    search: vec!["lan".into()],
                    options: vec!["ndots:2".into()],
                },
                ulimits: [limit("core", 0, -1), limit("nofile", 64, 128)].into(),
                no_new_privileges: true,
                cgroup_parent: "/team".into(),
                shareable_memory: true,
                host_cgroups: true,
                seccomp: Some("unconfined".into()),
                users: UserSettings::default(),
            })
        );
        assert_eq!(
            super::tests::read(json!({ "seccomp-profile": "builtin", "default-ipc-mode": "private" })),
            Ok(ContainerSettings::default())
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (value, words) in [
            (json!({ "dns": ["here"] }), "option dns: \"here\" is no IP address"),
            (json!({ "default-ulimits": ["nofile=1"] }), "write {\"nofile\": {\"Soft\": 1024, \"Hard\": 2048}}"),
            (json!({ "default-ulimits": { "nofile": { "Soft": 1 } } }), "write {\"nofile\""),
            (json!({ "default-ulimits": { "nofile": { "Name": "core", "Soft": 1, "Hard": 1 } } }), "write {\"nofile\""),
            (json!({ "default-ulimits": { "nofile": { "soft": 1, "Hard": 1, "Soft": 1 } } }), "write {\"nofile\""),
            (json!({ "default-ipc-mode": "host" }), "\"host\" is none of private, shareable"),
            (json!({ "default-cgroupns-mode": "mine" }), "\"mine\" is none of private, host"),
            (json!({ "seccomp-profile": "here.json" }), "here.json: want builtin, unconfined, or the absolute path"),
            (json!({ "seccomp-profile": "/no/such.json" }), "/no/such.json: No such file"),
            (json!({ "seccomp-profile": "/dev" }), "/dev: "),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains(words), "{value}: {error}");
        }
    }
}
