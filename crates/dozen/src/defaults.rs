//! The flags of `dozen daemon` about containers and networks whose request does not say, by the names that the
//! configuration file has.

use std::path::PathBuf;

use clap::Args;
use dozen_settings::Keys;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(crate) struct Defaults {
    /// Name server of containers that name none
    #[arg(long)]
    dns: Vec<String>,
    /// Domain in which they look for names
    #[arg(long)]
    dns_search: Vec<String>,
    /// Option of their resolv.conf
    #[arg(long)]
    dns_opt: Vec<String>,
    /// Limit of containers that do not say: NAME=SOFT[:HARD]
    #[arg(long)]
    default_ulimit: Vec<String>,
    /// Whether containers see where their cgroup lies: private (they do not) or host
    #[arg(long)]
    default_cgroupns_mode: Option<String>,
    /// Cgroup in which the cgroups of containers lie that do not say: /team, team.slice
    #[arg(long)]
    cgroup_parent: Option<String>,
    /// IPC namespace of containers that do not say: private, or shareable with others
    #[arg(long)]
    default_ipc_mode: Option<String>,
    /// Set no-new-privileges for containers that do not say
    #[arg(long)]
    no_new_privileges: bool,
    /// Seccomp profile of containers that name none: a file, builtin or unconfined
    #[arg(long)]
    seccomp_profile: Option<String>,
    /// Whether containers that do not say have users and groups of their own: auto (they do)
    #[arg(long)]
    userns_remap: Option<String>,
    /// Ids of the host's that are given to them: FIRST:COUNT
    #[arg(long)]
    userns_pool: Option<String>,
    /// Subnets for networks that name none: base=172.30.0.0/16,size=24
    #[arg(long)]
    default_address_pool: Vec<String>,
    /// Address of the default bridge: 172.30.0.1/24
    #[arg(long)]
    bip: Option<String>,
    /// Part of its subnet from which containers get addresses
    #[arg(long)]
    fixed_cidr: Option<String>,
    /// Largest packet on the default bridge, in bytes
    #[arg(long)]
    mtu: Option<u32>,
    /// Whether the default bridge has IPv6 (it has, unless this is false)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    ipv6: Option<bool>,
    /// Whether containers on the default bridge reach each other (they do, unless this is false)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    icc: Option<bool>,
    /// Where specifications of devices lie (CDI)
    #[arg(long)]
    cdi_spec_dir: Vec<PathBuf>,
    /// The oldest version of the API that is spoken: 1.44
    #[arg(long)]
    min_api_version: Option<String>,
}

impl Defaults {
    /// Puts what was said among the keys.
    pub(crate) fn say(&self, keys: &mut Keys) -> Result<(), String> {
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                keys.insert(key.to_owned(), value);
            }
        };
        let list = |words: &[String]| (!words.is_empty()).then(|| json!(words));
        put("dns", list(&self.dns));
        put("dns-search", list(&self.dns_search));
        put("dns-opts", list(&self.dns_opt));
        let limits: Keys = self.default_ulimit.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?;
        put("default-ulimits", (!limits.is_empty()).then_some(Value::Object(limits)));
        let texts = [
            ("default-cgroupns-mode", &self.default_cgroupns_mode),
            ("cgroup-parent", &self.cgroup_parent),
            ("default-ipc-mode", &self.default_ipc_mode),
            ("seccomp-profile", &self.seccomp_profile),
            ("bip", &self.bip),
            ("fixed-cidr", &self.fixed_cidr),
            ("min-api-version", &self.min_api_version),
            ("userns-remap", &self.userns_remap),
            ("userns-pool", &self.userns_pool),
        ];
        for (key, text) in texts {
            put(key, text.as_ref().map(|text| json!(text)));
        }
        put("no-new-privileges", self.no_new_privileges.then_some(json!(true)));
        let pools: Vec<Value> = self.default_address_pool.iter().map(|text| pool(text)).collect::<Result<_, _>>()?;
        put("default-address-pools", (!pools.is_empty()).then(|| json!(pools)));
        put("mtu", self.mtu.map(|bytes| json!(bytes)));
        put("ipv6", self.ipv6.map(|is_on| json!(is_on)));
        put("icc", self.icc.map(|is_on| json!(is_on)));
        let directories = self.cdi_spec_dir.iter().map(|path| crate::arguments::text(path));
        let directories: Vec<Value> = directories.collect::<Result<_, _>>()?;
        put("cdi-spec-dirs", (!directories.is_empty()).then(|| json!(directories)));
        Ok(())
    }
}

/// `nofile=1024:2048`, `core=0`.
fn ulimit(text: &str) -> Result<(String, Value), String> {
    let read = || {
        let (name, limits) = text.split_once('=')?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard): (i64, i64) = (soft.parse().ok()?, hard.parse().ok()?);
        Some((name.to_owned(), json!({ "Name": name, "Soft": soft, "Hard": hard })))
    };
    read().ok_or_else(|| format!("--default-ulimit {text}: write NAME=SOFT[:HARD]"))
}

/// `base=172.30.0.0/16,size=24`.
fn pool(text: &str) -> Result<Value, String> {
    let bad = || format!("--default-address-pool {text}: write base=172.30.0.0/16,size=24");
    let mut pool = Keys::new();
    for word in text.split(',') {
        let value = match word.split_once('=').ok_or_else(bad)? {
            ("base", base) => ("base", json!(base)),
            ("size", size) => ("size", json!(size.parse::<u64>().map_err(|_| bad())?)),
            _ => return Err(bad()),
        };
        pool.insert(value.0.to_owned(), value.1);
    }
    Ok(Value::Object(pool))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        defaults: Defaults,
    }

    fn said(words: &[&str]) -> Result<Value, String> {
        let line = Line::try_parse_from([&["daemon"], words].concat()).map_err(|error| error.to_string())?;
        let mut keys = Keys::new();
        line.defaults.say(&mut keys).map(|()| Value::Object(keys))
    }

    #[test]
    fn flags_speak_by_the_names_of_the_file() {
        let flags = "--dns 192.0.2.1 --dns fd00::1 --dns-search lan --dns-opt ndots:2 --default-ulimit nofile=64:128 \
                     --default-ulimit core=-1 --default-cgroupns-mode host --default-ipc-mode shareable --cgroup-parent /team --no-new-privileges \
                     --seccomp-profile unconfined --default-address-pool base=10.0.0.0/8,size=24 --bip 10.1.0.1/24 \
                     --fixed-cidr 10.1.0.128/25 --mtu 1400 --ipv6=false --icc --cdi-spec-dir /cdi --min-api-version 1.44 \
                     --userns-remap auto --userns-pool 1000000:655360";
        let flags: Vec<&str> = flags.split_whitespace().collect();
        assert_eq!(
            said(&flags),
            Ok(json!({
                "dns": ["192.0.2.1", "fd00::1"], "dns-search": ["lan"], "dns-opts": ["ndots:2"],
                "default-ulimits": {
                    "nofile": { "Name": "nofile", "Soft": 64, "Hard": 128 },
                    "core": { "Name": "core", "Soft": -1, "Hard": -1 },
                },
                "default-cgroupns-mode": "host", "default-ipc-mode": "shareable", "cgroup-parent": "/team", "no-new-privileges": true,
                "seccomp-profile": "unconfined", "default-address-pools": [{ "base": "10.0.0.0/8", "size": 24 }],
                "bip": "10.1.0.1/24", "fixed-cidr": "10.1.0.128/25", "mtu": 1400, "ipv6": false, "icc": true,
                "cdi-spec-dirs": ["/cdi"], "min-api-version": "1.44", "userns-remap": "auto",
                "userns-pool": "1000000:655360",
            }))
        );
        assert_eq!(said(&[]), Ok(json!({})));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for words in [
            ["--default-ulimit", "nofile"],
            ["--default-ulimit", "nofile=a"],
            ["--default-address-pool", "10.0.0.0/8"],
            ["--default-address-pool", "base=10.0.0.0/8,size=x"],
            ["--default-address-pool", "base=10.0.0.0/8,sise=1"],
        ] {
            assert!(said(&words).unwrap_err().contains(words[1]), "{words:?}");
        }
    }
}
