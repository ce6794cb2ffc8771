//! `--pid`, `--ipc`, `--uts`, `--cgroupns`, `--group-add`, `--sysctl`, `--annotation` and `--volumes-from`.

use dozen_model::{
    ContainerId, ContainerSpec, FurtherGroup, IpcMode, Mount, MountSource, NetworkMode, PidMode, SharingSpec,
};
use serde_json::{Value, json};

use super::request::{Create, HostConfig};
use crate::error::ApiError;

/// What is shared. `find` looks up containers.
pub(crate) fn sharing(
    request: &Create,
    network: &NetworkMode,
    find: &dyn Fn(&str) -> Result<ContainerId, ApiError>,
) -> Result<SharingSpec, ApiError> {
    let host = &request.host_config;
    let invalid = |what: &str, text: &str| ApiError::invalid(format!("invalid {what}: {}", shorten(text)));
    let pid = match host.pid_mode.as_str() {
        "" | "private" => PidMode::Private,
        "host" => PidMode::Host,
        text => match text.strip_prefix("container:").filter(|name| !name.is_empty()) {
            Some(name) => PidMode::Container(find(name)?),
            None => return Err(invalid("PID mode", text)),
        },
    };
    let ipc = match host.ipc_mode.as_str() {
        "" | "private" => IpcMode::Private,
        "host" => IpcMode::Host,
        "none" => IpcMode::None,
        "shareable" => IpcMode::Shareable,
        text => match text.strip_prefix("container:").filter(|name| !name.is_empty()) {
            Some(name) => IpcMode::Container(find(name)?),
            None => return Err(invalid("IPC mode", text)),
        },
    };
    let of_the_host = |what: &str, text: &str| match text {
        "" | "private" => Ok(false),
        "host" => Ok(true),
        _ => Err(invalid(what, text)),
    };
    let host_uts = of_the_host("UTS mode", &host.uts_mode)?;
    if host_uts && !(request.hostname.is_empty() && request.domainname.is_empty()) {
        return Err(ApiError::invalid("conflicting options: hostname and the UTS mode"));
    }
    if let Some(name) = host.sysctls.keys().find(|name| !is_own(name, network, &ipc)) {
        return Err(ApiError::invalid(format!("sysctl {:?} is not in a separate kernel namespace", shorten(name))));
    }
    Ok(SharingSpec {
        pid,
        ipc,
        host_uts,
        host_cgroups: of_the_host("cgroup namespace mode", &host.cgroupns_mode)?,
        groups: groups(host)?,
        sysctls: host.sysctls.clone(),
        annotations: host.annotations.clone(),
        volumes_from: host.volumes_from.clone(),
    })
}

/// Docker's list (docs.docker.com/reference/cli/docker/container/run, "Configure namespaced kernel parameters"): what
/// belongs to a namespace of the container's own.
fn is_own(name: &str, network: &NetworkMode, ipc: &IpcMode) -> bool {
    let name = name.replace('/', ".");
    if name.starts_with("net.") {
        return !matches!(network, NetworkMode::Host | NetworkMode::Container(_));
    }
    const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    let is_ipc = name.starts_with("fs.mqueue.") || name.strip_prefix("kernel.").is_some_and(|rest| IPC.contains(&rest));
    is_ipc && !matches!(ipc, IpcMode::Host | IpcMode::Container(_))
}

/// Names are looked up in the container when it starts.
fn groups(host: &HostConfig) -> Result<Vec<FurtherGroup>, ApiError> {
    let one = |text: &String| match text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok()) {
        Some(number) => Ok(FurtherGroup::Number(number)),
        None if text.is_empty() || text.chars().any(|c| c.is_control() || c == ':') => {
            Err(ApiError::invalid(format!("invalid group {:?}", shorten(text))))
        }
        None => Ok(FurtherGroup::Name(text.clone())),
    };
    host.group_add.iter().map(one).collect()
}

/// Adds the mounts of other containers where the container has none of its own. `find` gives their specs.
pub(crate) fn add_volumes_from(
    spec: &mut ContainerSpec,
    find: &dyn Fn(&str) -> Result<std::sync::Arc<ContainerSpec>, ApiError>,
) -> Result<(), ApiError> {
    let mut taken = Vec::new();
    for text in &spec.sharing.volumes_from {
        let (name, mode) = text.split_once(':').unwrap_or((text, ""));
        if name.is_empty() {
            return Err(ApiError::invalid("malformed volumes-from specification: empty string"));
        }
        let words = || mode.split(',').filter(|word| !word.is_empty());
        if words().any(|word| !matches!(word, "ro" | "rw" | "z" | "Z")) {
            return Err(ApiError::invalid(format!("invalid mode: {}", shorten(mode))));
        }
        let read_only = words().any(|word| word == "ro");
        for mount in &find(name)?.mounts {
            let mut mount = mount.clone();
            match &mut mount.source {
                // What the image has is there already.
                MountSource::Volume { copy_up, .. } => *copy_up = false,
                // Its files are not another's.
                MountSource::Tmpfs(_) => continue,
                MountSource::Bind { .. }
                | MountSource::Image { .. }
                | MountSource::Artifact(_)
                | MountSource::Layers { .. } => {}
            }
            (mount.read_only, mount.inherited) = (mount.read_only || read_only, true);
            taken.retain(|earlier: &Mount| earlier.target != mount.target);
            taken.push(mount);
        }
    }
    for mount in taken {
        let standing = spec.mounts.iter().position(|own| own.target == mount.target);
        match standing.map(|at| (at, &spec.mounts[at].source)) {
            // It was only asked for that there be some volume.
            Some((at, MountSource::Volume { anonymous: true, .. })) => spec.mounts[at] = mount,
            Some(_) => {}
            None => spec.mounts.push(mount),
        }
    }
    Ok(())
}

/// Its part of inspect's HostConfig.
pub(crate) fn show(host: &mut Value, spec: &ContainerSpec) {
    let sharing = &spec.sharing;
    host["PidMode"] = match &sharing.pid {
        PidMode::Private => json!(""),
        PidMode::Host => json!("host"),
        PidMode::Container(other) => json!(format!("container:{other}")),
    };
    host["IpcMode"] = match &sharing.ipc {
        IpcMode::Private => json!("private"),
        IpcMode::Host => json!("host"),
        IpcMode::None => json!("none"),
        IpcMode::Shareable => json!("shareable"),
        IpcMode::Container(other) => json!(format!("container:{other}")),
    };
    if sharing.host_uts {
        host["UTSMode"] = json!("host");
    }
    if sharing.host_cgroups {
        host["CgroupnsMode"] = json!("host");
    }
    if !sharing.groups.is_empty() {
        let shown = |group: &FurtherGroup| match group {
            FurtherGroup::Number(number) => json!(number.to_string()),
            FurtherGroup::Name(name) => json!(name),
        };
        host["GroupAdd"] = sharing.groups.iter().map(shown).collect();
    }
    if !sharing.volumes_from.is_empty() {
        host["VolumesFrom"] = json!(sharing.volumes_from);
    }
    if !sharing.sysctls.is_empty() {
        host["Sysctls"] = json!(sharing.sysctls);
    }
    if !sharing.annotations.is_empty() {
        host["Annotations"] = json!(sharing.annotations);
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(host: Value) -> Result<SharingSpec, ApiError> {
        let request: Create = serde_json::from_value(json!({ "HostConfig": host })).unwrap();
        let find = |name: &str| match name {
            "web" => Ok("a".repeat(64).parse().unwrap()),
            _ => Err(ApiError::invalid(format!("No such container: {name}"))),
        };
        sharing(&request, &NetworkMode::Bridge, &find)
    }

    #[test]
    fn mounts_of_others_are_shown_where_they_are_asked_for() {
        let spec = |host: Value| {
            let request: Create =
                serde_json::from_value(json!({"Image": "x", "Cmd": ["x"], "HostConfig": host})).unwrap();
            let image = dozen_model::ImageId::new(format!("sha256:{}", "a".repeat(64)).parse().unwrap());
            let find = |_: &str| Err(ApiError::invalid("none"));
            super::super::create::spec(&request, image, &Default::default(), &find).unwrap().0
        };
        let other = std::sync::Arc::new(spec(json!({
            "Binds": ["data:/d", "/srv:/s:ro"],
            "Mounts": [{"Type": "volume", "Source": "more", "Target": "/m"}],
        })));
        let mut own = spec(json!({"Binds": ["own:/own"], "VolumesFrom": ["other"]}));
        add_volumes_from(&mut own, &|_| Ok(other.clone())).unwrap();
        assert_eq!(own.mounts.len(), 4);
        let host = super::super::inspect::host_config(&own);
        assert_eq!((&host["Binds"], &host["Mounts"]), (&json!(["own:/own"]), &Value::Null));
    }

    #[test]
    fn modes_act_or_are_refused() {
        assert_eq!(of(json!({})), Ok(SharingSpec::default()));
        let all = json!({
            "PidMode": "container:web", "IpcMode": "none", "UTSMode": "host", "CgroupnsMode": "host",
            "GroupAdd": ["7", "audio"], "Sysctls": {"net.core.somaxconn": "1"}, "Annotations": {"a": "b"},
        });
        let all = of(all).unwrap();
        assert!(matches!(&all.pid, PidMode::Container(id) if id.as_str().starts_with("aaa")));
        assert!(all.ipc == IpcMode::None && all.host_uts && all.host_cgroups);
        assert_eq!(all.groups, [FurtherGroup::Number(7), FurtherGroup::Name("audio".to_owned())]);
        assert_eq!(of(json!({"IpcMode": "shareable"})).unwrap().ipc, IpcMode::Shareable);
        assert!(matches!(of(json!({"IpcMode": "container:web"})).unwrap().ipc, IpcMode::Container(_)));
        for (field, value, words) in [
            ("PidMode", json!("x"), "invalid PID mode: x"),
            ("PidMode", json!("container:"), "invalid PID mode"),
            ("PidMode", json!("container:db"), "No such container: db"),
            ("IpcMode", json!("x"), "invalid IPC mode: x"),
            ("IpcMode", json!("container:"), "invalid IPC mode"),
            ("IpcMode", json!("container:db"), "No such container: db"),
            ("UTSMode", json!("x"), "invalid UTS mode: x"),
            ("CgroupnsMode", json!("x"), "invalid cgroup namespace mode: x"),
            ("GroupAdd", json!([""]), "invalid group"),
            ("GroupAdd", json!(["a:b"]), "invalid group"),
            ("Sysctls", json!({"kernel.panic": "1"}), "is not in a separate kernel namespace"),
        ] {
            let error = of(json!({ field: value })).unwrap_err();
            assert!(error.message.contains(words), "{field}: {}", error.message);
        }
        let error = of(json!({"IpcMode": "host", "Sysctls": {"kernel.sem": "1"}})).unwrap_err();
        assert!(error.message.contains("separate kernel namespace"));
    }
}
