//! Options of the `local` driver: what is mounted on a volume's directory while somebody uses it.
//!
//! The options are Docker's (docs.docker.com/reference/cli/docker/volume/create, "Driver-specific options"): `type`, `device`
//! and `o`, as mount(8) has them, and `size`, a quota, which is refused.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use dozen_model::{Classified, ErrorKind, error_chain};
use dozen_monitor::protocol::Failure;
use dozen_runtime::{FileSystem, is_unknown_file_system};

use super::address;
use crate::EngineError;

/// What is asked for with any of these is a file system.
const OF_A_FILE_SYSTEM: [&str; 3] = ["type", "device", "o"];

/// What is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalOptions {
    kind: String,
    device: String,
    options: String,
}

impl LocalOptions {
    /// `None`: nothing is mounted, the volume is a directory of the engine's. Docker's rules and words.
    pub(crate) fn new(asked: &BTreeMap<String, String>) -> Result<Option<Self>, EngineError> {
        let known = |name: &&String| *name == "size" || OF_A_FILE_SYSTEM.contains(&name.as_str());
        if let Some(unknown) = asked.keys().find(|name| !known(name)) {
            return Err(invalid(format!("invalid option: {unknown:?}"), "local has type, device, o and size"));
        }
        let get = |name: &str| asked.get(name).cloned();
        if let (Some("cifs"), Some(device)) = (get("type").as_deref(), get("device"))
            && host_of_share(&device).is_some_and(|host| host.rsplit_once(':').is_some_and(|(_, port)| is_digits(port)))
        {
            let words = "port not allowed in CIFS device URL, include 'port' in 'o='";
            return Err(invalid(words.to_owned(), "-o o=port=445,…"));
        }
        if let Some(size) = asked.get("size") {
            check_size(size)?;
        }
        let missing = |name: &str| invalid(format!("missing required option: {name:?}"), "give both type and device");
        match (get("type"), get("device"), get("o")) {
            (None, None, None) => Ok(None),
            (_, None, _) => Err(missing("device")),
            (None, ..) => Err(missing("type")),
            (Some(kind), Some(device), options) => {
                let local = Self { kind, device, options: options.unwrap_or_default() };
                local.file_system(&local.device, &local.options)?;
                Ok(Some(local))
            }
        }
    }

    fn file_system(&self, device: &str, options: &str) -> Result<FileSystem, EngineError> {
        Ok(FileSystem::new(&self.kind, device, options)?)
    }

    /// Mounts it. Blocks, for as long as a server lets us wait.
    pub(super) fn mount(&self, place: &Path) -> Result<(), EngineError> {
        let mount = || -> Result<(), Failure> {
            let (device, options) = self.resolved(&address::of_host)?;
            let failure = |error: dozen_runtime::RuntimeError| Failure {
                kind: ErrorKind::Internal,
                hint: match is_unknown_file_system(&error) {
                    true => {
                        Some(format!("this kernel knows no file system {:?}, or its module is not there", self.kind))
                    }
                    false => error.hint(),
                },
                message: error_chain(&error),
            };
            let file_system = FileSystem::new(&self.kind, &device, &options).map_err(failure)?;
            file_system.mount(place).map_err(failure)
        };
        mount().map_err(|failure| {
            // Docker's words around mount(2)'s.
            let message = format!(
                "error while mounting volume '{}': failed to mount local volume: {}",
                place.display(),
                failure.message
            );
            Failure { message, ..failure }.into()
        })
    }

    /// Device and options, with addresses in place of hosts' names, which the kernel does not look up.
    fn resolved(&self, look_up: &dyn Fn(&str) -> Result<IpAddr, Failure>) -> Result<(String, String), Failure> {
        let as_is = || Ok((self.device.clone(), self.options.clone()));
        if !matches!(self.kind.as_str(), "nfs" | "nfs4" | "cifs" | "smb3") {
            return as_is();
        }
        let named = |host: &str| !host.is_empty() && host.parse::<Ipv4Addr>().is_err();
        let address = self.options.split(',').find_map(|word| word.strip_prefix("addr="));
        if let Some(host) = address.filter(|host| named(host)) {
            let options = self.options.replacen(&format!("addr={host}"), &format!("addr={}", look_up(host)?), 1);
            return Ok((self.device.clone(), options));
        }
        match host_of_share(&self.device) {
            Some(host) if !self.kind.starts_with("nfs") && named(host) => {
                Ok((self.device.replacen(host, &look_up(host)?.to_string(), 1), self.options.clone()))
            }
            _ => as_is(),
        }
    }
}

/// `//HOST/share`.
fn host_of_share(device: &str) -> Option<&str> {
    device.strip_prefix("//")?.split('/').next().filter(|host| !host.is_empty())
}

/// Docker asks for project quotas of the file system below; we set none.
fn check_size(text: &str) -> Result<(), EngineError> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let bytes: f64 = number.parse().map_err(|_| invalid(format!("invalid size: '{text}'"), "such as size=100m"))?;
    if bytes == 0.0 {
        return Ok(());
    }
    Err(invalid(
        "quota size requested but no quota support".to_owned(),
        "give it a file system of its own: -o type=tmpfs -o device=tmpfs -o o=size=100m, or a disk",
    ))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn invalid(message: String, hint: &str) -> EngineError {
    EngineError::Invalid { message, hint: Some(hint.to_owned()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is asked for is refused or can be tried, one option by one.
        #[test]
        fn no_options_panic(
            kind in "[a-z0-9]{0,8}",
            device in "[/:a-z0-9\\x00,=]{0,12}",
            o in "(bind|rbind|ro|remount|addr=|idmap|source=|,|=|[a-z0-9\\x00]){0,6}",
        ) {
            let asked = options(&[("type", &kind), ("device", &device), ("o", &o)]);
            if let Ok(Some(local)) = LocalOptions::new(&asked) {
                prop_assert!(!device.contains('\0') && !o.contains('\0'));
                let _ = local.resolved(&|_| Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)));
            }
        }
    }

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_dockers_and_so_are_the_refusals() {
        assert_eq!(LocalOptions::new(&options(&[])).unwrap(), None);
        assert_eq!(LocalOptions::new(&options(&[("size", "0")])).unwrap(), None);
        let tmpfs = options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]);
        assert_eq!(LocalOptions::new(&tmpfs).unwrap().unwrap().options, "size=1m");
        for (pairs, words) in [
            (&[("colour", "red")][..], "invalid option: \"colour\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (&[("device", "tmpfs")], "missing required option: \"type\""),
            (&[("o", "bind"), ("type", "none")], "missing required option: \"device\""),
            (&[("size", "10m")], "quota size requested but no quota support"),
            (&[("size", "much")], "invalid size: 'much'"),
            (&[("type", "cifs"), ("device", "//host:445/share")], "port not allowed in CIFS device URL"),
            (&[("type", "none"), ("device", "data"), ("o", "bind")], "mount path must be absolute"),
            (&[("type", "none"), ("device", "/a"), ("o", "bind,remount")], "mount option \"remount\""),
        ] {
            let error = LocalOptions::new(&options(pairs)).unwrap_err();
            assert!(error_chain(&error).contains(words), "{pairs:?}: {error}");
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn names_of_servers_become_addresses() {
        let look_up = |host: &str| match host {
            "nas" | "fe80::1" => Ok("10.0.0.9".parse().unwrap()),
            _ => Err(Failure { kind: ErrorKind::Unavailable, message: format!("no {host}"), hint: None }),
        };
        let resolved = |kind: &str, device: &str, o: &str| {
            let local = LocalOptions { kind: kind.into(), device: device.into(), options: o.into() };
            local.resolved(&look_up).map_err(|failure| failure.message)
        };
        for (kind, device, o, want) in [
            ("nfs", ":/srv", "addr=nas,ro", (":/srv", "addr=10.0.0.9,ro")),
            ("nfs", ":/srv", "addr=10.1.1.1", (":/srv", "addr=10.1.1.1")),
            ("nfs", "nas:/srv", "ro", ("nas:/srv", "ro")),
            ("cifs", "//nas/share", "user=a", ("//10.0.0.9/share", "user=a")),
            ("cifs", "//nas/share", "addr=10.1.1.1", ("//10.0.0.9/share", "addr=10.1.1.1")),
            ("cifs", "//nas/share", "addr=nas", ("//nas/share", "addr=10.0.0.9")),
            ("ext4", "/dev/nas", "addr=nas", ("/dev/nas", "addr=nas")),
        ] {
            assert_eq!(resolved(kind, device, o), Ok((want.0.to_owned(), want.1.to_owned())), "{kind} {device} {o}");
        }
        assert_eq!(resolved("nfs", ":/srv", "addr=elsewhere"), Err("no elsewhere".to_owned()));
    }
}
