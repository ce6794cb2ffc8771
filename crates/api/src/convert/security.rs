//! Capabilities and `--security-opt`.

use dozen_model::{Capabilities, CapabilityChange, Isolation, SeccompChoice};

use super::request::HostConfig;
use crate::error::ApiError;

/// capabilities(7), as of Linux 5.9, which brought the last.
const KNOWN: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// What keeps the container apart from the host.
pub(crate) fn isolation(host: &HostConfig) -> Result<Isolation, ApiError> {
    let mut isolation = Isolation {
        privileged: host.privileged,
        capabilities: CapabilityChange {
            add: capabilities(&host.cap_add, "CapAdd")?,
            drop: capabilities(&host.cap_drop, "CapDrop")?,
        },
        read_only_root: host.readonly_rootfs,
        unmasked_system_paths: unmasked(host)?,
        ..Isolation::default()
    };
    for option in &host.security_opt {
        security_option(option, &mut isolation)?;
    }
    Ok(isolation)
}

/// `cap_net_admin`, `NET_ADMIN`, `all` → `NET_ADMIN`, `ALL`.
fn capabilities(names: &[String], field: &str) -> Result<Capabilities, ApiError> {
    let one = |name: &String| {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if upper == "ALL" || KNOWN.contains(&bare) {
            Ok(bare.to_owned())
        } else {
            Err(ApiError::invalid(format!("invalid {field}: unknown capability: {name:?}")))
        }
    };
    names.iter().map(one).collect()
}

/// The CLI turns `systempaths=unconfined` into two lists that are there and empty.
fn unmasked(host: &HostConfig) -> Result<bool, ApiError> {
    match (host.masked_paths.as_deref(), host.readonly_paths.as_deref()) {
        (None, None) => Ok(false),
        (Some([]), Some([])) => Ok(true),
        (Some(_), _) => Err(ApiError::not_built("HostConfig.MaskedPaths with paths of your own")),
        (None, Some(_)) => Err(ApiError::not_built("HostConfig.ReadonlyPaths with paths of your own")),
    }
}

fn security_option(option: &str, isolation: &mut Isolation) -> Result<(), ApiError> {
    let bad =
        || ApiError::invalid(format!("invalid --security-opt: {:?}", option.chars().take(200).collect::<String>()));
    if option == "no-new-privileges" {
        isolation.no_new_privileges = true;
        return Ok(());
    }
    // Docker took a colon once, and still does where there is no `=`.
    let (name, value) = option.split_once('=').or_else(|| option.split_once(':')).ok_or_else(bad)?;
    match (name, value) {
        ("no-new-privileges", "true") => isolation.no_new_privileges = true,
        ("no-new-privileges", "false") => isolation.no_new_privileges = false,
        ("seccomp", "unconfined") => isolation.seccomp = SeccompChoice::Unconfined,
        ("seccomp", "builtin") => isolation.seccomp = SeccompChoice::Default,
        ("seccomp", profile) => {
            let value: serde_json::Value = serde_json::from_str(profile).map_err(|error| {
                ApiError::invalid(format!("opening seccomp profile failed: the profile is not JSON: {error}"))
                    .with_hint("the API takes the profile itself, not the path of a file")
            })?;
            if !value.is_object() {
                return Err(ApiError::invalid("opening seccomp profile failed: the profile is not a JSON object"));
            }
            isolation.seccomp = SeccompChoice::Profile(profile.to_owned());
        }
        ("systempaths", "unconfined") => isolation.unmasked_system_paths = true,
        // Neither of the two confines a container of ours, so there is nothing to take away.
        ("apparmor", "unconfined") | ("label", "disable") => {}
        ("apparmor" | "label", _) => return Err(ApiError::not_built(format_args!("--security-opt {name}"))),
        _ => return Err(bad()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(cap_add: &[&str], options: &[&str]) -> HostConfig {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        HostConfig { cap_add: own(cap_add), security_opt: own(options), ..HostConfig::default() }
    }

    #[test]
    fn capabilities_are_normalised_or_refused() {
        let add = isolation(&host(&["cap_net_admin", "SYS_TIME", "all"], &[])).unwrap().capabilities.add;
        assert_eq!(add.into_iter().collect::<Vec<_>>(), ["ALL", "NET_ADMIN", "SYS_TIME"]);
        let error = isolation(&host(&["FLY"], &[])).unwrap_err();
        assert_eq!(error.message, "invalid CapAdd: unknown capability: \"FLY\"");
        assert!(isolation(&host(&["CAP_ALL_"], &[])).is_err());
    }

    #[test]
    fn security_options_act_or_are_refused() {
        let all =
            isolation(&host(&[], &["no-new-privileges:true", "seccomp=unconfined", "systempaths=unconfined"])).unwrap();
        assert!(all.no_new_privileges && all.unmasked_system_paths && all.seccomp == SeccompChoice::Unconfined);
        let profile = isolation(&host(&[], &[r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#])).unwrap().seccomp;
        assert!(matches!(profile, SeccompChoice::Profile(_)));
        assert!(isolation(&host(&[], &["apparmor=unconfined", "label=disable"])).is_ok());
        for (bad, status) in [
            ("seccomp=/etc/x.json", 400),
            ("seccomp=[]", 400),
            ("apparmor=x", 501),
            ("label=type:x", 501),
            ("x", 400),
            ("a=b", 400),
        ] {
            assert_eq!(isolation(&host(&[], &[bad])).unwrap_err().status(), status, "{bad}");
        }
    }

    #[test]
    fn empty_path_lists_unmask_and_others_are_refused() {
        let lists = |masked: Option<&[&str]>, read_only: Option<&[&str]>| {
            let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
            HostConfig { masked_paths: masked.map(own), readonly_paths: read_only.map(own), ..HostConfig::default() }
        };
        assert!(isolation(&lists(Some(&[]), Some(&[]))).unwrap().unmasked_system_paths);
        assert!(isolation(&lists(Some(&["/proc/x"]), None)).is_err());
        assert!(isolation(&lists(None, Some(&[]))).is_err());
    }
}
