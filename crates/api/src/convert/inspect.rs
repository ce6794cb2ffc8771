//! A container's inspect: Docker's whole shape, from its snapshot.

use dozen_engine::{Phase, Snapshot};
use dozen_model::{
    BindPropagation, ContainerSpec, ExecId, HostEntry, Mount, MountSource, SeccompChoice, Signal, StdinMode,
};
use serde_json::{Map, Value, json};

use super::{dns, health, log, networks, restart, sharing, user_namespace};
use crate::time::NEVER;

/// The name of what runs containers, as `info` shows it too.
pub(crate) const RUNTIME: &str = "dozen";

/// `GET /containers/{id}/json`. `mountpoint` finds a volume's directory.
pub(crate) fn inspect(snapshot: &Snapshot, execs: &[ExecId], mountpoint: &dyn Fn(&str) -> Option<String>) -> Value {
    let spec = &snapshot.spec;
    let mut arguments = spec.process.arguments();
    let path = arguments.next();
    let file = |name: &str| snapshot.directory.join(name);
    json!({
        "Id": snapshot.id.as_str(),
        "Created": snapshot.created.to_string(),
        "Path": path,
        "Args": arguments.collect::<Vec<_>>(),
        "State": state(snapshot),
        "Image": spec.image.to_string(),
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": log::file_name(&spec.log).map(file).unwrap_or_default(),
        "Name": format!("/{}", snapshot.name),
        "RestartCount": snapshot.restarts.count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": if execs.is_empty() { Value::Null } else { json!(execs.iter().map(ExecId::as_str).collect::<Vec<_>>()) },
        "HostConfig": host_config(spec),
        "GraphDriver": { "Name": "overlay2", "Data": null },
        "Mounts": mounts(spec, mountpoint),
        "Config": config(snapshot),
        "NetworkSettings": networks::settings(snapshot),
    })
}

/// Docker's booleans.
fn state(snapshot: &Snapshot) -> Value {
    let (exit, failure) = match &snapshot.phase {
        Phase::Created { last_failure } => (None, last_failure.as_ref()),
        Phase::Exited(exit) => (Some(exit), None),
        Phase::Waiting(waiting) => (Some(&waiting.exit), waiting.failure.as_ref()),
        _ => (None, None),
    };
    let unremoved = match &snapshot.phase {
        Phase::Removing { failure, .. } => failure.clone(),
        _ => None,
    };
    let last = exit.or(snapshot.last_exit.as_ref());
    let run = snapshot.phase.run();
    let mut state = json!({
        "Status": snapshot.status(),
        "Running": run.is_some(),
        "Paused": false,
        "Restarting": false,
        "OOMKilled": exit.is_some_and(|exit| exit.out_of_memory),
        "Dead": unremoved.is_some(),
        "Pid": run.map_or(0, |run| run.pid),
        "ExitCode": failure.map(|f| f.exit_code).or(exit.map(|exit| exit.exit_code)).unwrap_or(0),
        "Error": unremoved.clone().or_else(|| failure.map(|f| f.message.clone())).or_else(|| exit.and_then(|exit| exit.error.clone())).unwrap_or_default(),
        "StartedAt": run.map(|run| run.started).or(last.map(|exit| exit.started)).map_or(NEVER.into(), |t| t.to_string()),
        "FinishedAt": last.map_or(NEVER.into(), |exit| exit.finished.to_string()),
    });
    restart::add_to_state(snapshot, &mut state);
    health::add_to_state(snapshot, &mut state);
    state
}

fn config(snapshot: &Snapshot) -> Value {
    let spec = &snapshot.spec;
    let process = &spec.process;
    let ports: Map<String, Value> =
        spec.exposed_ports.iter().map(|(port, protocol)| (format!("{port}/{protocol}"), json!({}))).collect();
    let volumes: Map<String, Value> = spec
        .mounts
        .iter()
        .filter(|mount| {
            !mount.structured && !mount.inherited && matches!(mount.source, MountSource::Volume { anonymous: true, .. })
        })
        .map(|mount| (mount.target.display().to_string(), json!({})))
        .collect();
    let mut config = json!({
        "Hostname": spec.hostname.as_deref().unwrap_or_else(|| snapshot.id.short()),
        "Domainname": spec.domainname.as_deref().unwrap_or(""),
        "User": process.user.to_string(),
        "AttachStdin": process.attach[0],
        "AttachStdout": process.attach[1],
        "AttachStderr": process.attach[2],
        "Tty": process.terminal,
        "OpenStdin": process.stdin != StdinMode::Closed,
        "StdinOnce": process.stdin == StdinMode::Once,
        "Env": process.environment,
        "Cmd": null_if_empty(&process.command),
        "Image": spec.image_name,
        "Volumes": if volumes.is_empty() { Value::Null } else { Value::Object(volumes) },
        "WorkingDir": process.working_directory,
        "Entrypoint": null_if_empty(&process.entrypoint),
        "OnBuild": null,
        "Labels": spec.labels,
    });
    if !ports.is_empty() {
        config["ExposedPorts"] = Value::Object(ports);
    }
    if spec.stop.signal != Signal::TERM {
        config["StopSignal"] = json!(spec.stop.signal.to_string());
    }
    if let Some(timeout) = spec.stop.timeout_s {
        config["StopTimeout"] = json!(timeout);
    }
    health::add_to_config(spec.health.as_ref(), &mut config);
    config
}

/// Rendered back from the spec; what is not built has Docker's neutral value.
pub(crate) fn host_config(spec: &ContainerSpec) -> Value {
    let isolation = &spec.isolation;
    let mut value = json!({
        "Binds": null_if_empty(&binds(spec)),
        "ContainerIDFile": "",
        "LogConfig": log::config(&spec.log),
        "NetworkMode": networks::mode(&spec.network),
        "PortBindings": port_bindings(spec),
        "RestartPolicy": restart::shown(spec.restart),
        "AutoRemove": spec.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "ConsoleSize": spec.process.terminal_size.unwrap_or_default(),
        "CapAdd": null_if_empty(&isolation.capabilities.add.iter().map(capability).collect::<Vec<_>>()),
        "CapDrop": null_if_empty(&isolation.capabilities.drop.iter().map(capability).collect::<Vec<_>>()),
        "CgroupnsMode": if isolation.privileged { "host" } else { "private" },
        "ExtraHosts": null_if_empty(&spec.extra_hosts.iter().map(host_entry).collect::<Vec<_>>()),
        "GroupAdd": null,
        "IpcMode": "private",
        "Cgroup": "",
        "Links": null,
        "OomScoreAdj": 0,
        "PidMode": "",
        "Privileged": isolation.privileged,
        "PublishAllPorts": spec.publish_all,
        "ReadonlyRootfs": isolation.read_only_root,
        "SecurityOpt": null_if_empty(&security_options(spec)),
        "UTSMode": "",
        "ShmSize": spec.shm_size_bytes,
        "Runtime": RUNTIME,
        "Isolation": "",
    });
    let resources = json!({
        "CpuShares": 0,
        "Memory": 0,
        "NanoCpus": 0,
        "CgroupParent": "",
        "BlkioWeight": 0,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [],
        "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteIOps": [],
        "CpuPeriod": 0,
        "CpuQuota": 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": "",
        "CpusetMems": "",
        "Devices": [],
        "DeviceCgroupRules": null,
        "DeviceRequests": null,
        "MemoryReservation": 0,
        "MemorySwap": 0,
        "MemorySwappiness": null,
        "OomKillDisable": false,
        "PidsLimit": null,
        "Ulimits": [],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    });
    if let (Value::Object(value), Value::Object(resources)) = (&mut value, resources) {
        value.extend(resources);
    }
    dns::show(&mut value, &spec.dns);
    super::resources::show(&spec.resources, &mut value);
    let tmpfs: Map<String, Value> = spec
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Tmpfs(options) if !mount.structured => {
                let mut words: Vec<String> = options.options.clone();
                words.extend(options.size_bytes.map(|size| format!("size={size}")));
                words.extend(options.mode.map(|mode| format!("mode={mode:o}")));
                words.extend(mount.read_only.then(|| "ro".to_owned()));
                Some((mount.target.display().to_string(), json!(words.join(","))))
            }
            _ => None,
        })
        .collect();
    if !tmpfs.is_empty() {
        value["Tmpfs"] = Value::Object(tmpfs);
    }
    if spec.init {
        value["Init"] = json!(true);
    }
    health::add_to_host_config(spec.health.as_ref(), &mut value);
    if let Some(mounts) = super::mounts::shown(spec) {
        value["Mounts"] = mounts;
    }
    if isolation.unmasked_system_paths || isolation.privileged {
        value["MaskedPaths"] = json!([]);
        value["ReadonlyPaths"] = json!([]);
    }
    sharing::show(&mut value, spec);
    user_namespace::show(&mut value, spec);
    value
}

fn security_options(spec: &ContainerSpec) -> Vec<String> {
    let mut options = Vec::new();
    if spec.isolation.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match &spec.isolation.seccomp {
        SeccompChoice::Default => {}
        SeccompChoice::Unconfined => options.push("seccomp=unconfined".into()),
        SeccompChoice::Profile(profile) => options.push(format!("seccomp={profile}")),
    }
    options
}

/// Docker writes them back with their prefix, `ALL` without.
fn capability(name: &String) -> String {
    if name == "ALL" { name.clone() } else { format!("CAP_{name}") }
}

fn host_entry(entry: &HostEntry) -> String {
    let address = entry.address.map_or("host-gateway".to_owned(), |address| address.to_string());
    format!("{}:{address}", entry.name)
}

fn port_bindings(spec: &ContainerSpec) -> Value {
    let mut ports = Map::new();
    for binding in &spec.ports {
        let host_port = binding.host_port.map_or(String::new(), |range| {
            if range.first() == range.last() {
                range.first().to_string()
            } else {
                format!("{}-{}", range.first(), range.last())
            }
        });
        let host = json!({
            "HostIp": binding.host_address.map(|address| address.to_string()).unwrap_or_default(), "HostPort": host_port,
        });
        let entry =
            ports.entry(format!("{}/{}", binding.container_port, binding.protocol)).or_insert_with(|| json!([]));
        if let Value::Array(hosts) = entry {
            hosts.push(host);
        }
    }
    Value::Object(ports)
}

fn binds(spec: &ContainerSpec) -> Vec<String> {
    spec.mounts.iter().filter(|mount| !mount.structured && !mount.inherited).filter_map(bind).collect()
}

/// `-v`'s form; anonymous volumes and tmpfs have none.
fn bind(mount: &Mount) -> Option<String> {
    let (source, mut words) = match &mount.source {
        MountSource::Bind { path, propagation, .. } => {
            let words = (*propagation != BindPropagation::Rprivate).then(|| propagation.word());
            (path.display().to_string(), words.into_iter().collect::<Vec<_>>())
        }
        MountSource::Volume { name, anonymous: false, copy_up, .. } => {
            (name.to_string(), (!copy_up).then_some("nocopy").into_iter().collect())
        }
        _ => return None,
    };
    if mount.read_only {
        words.insert(0, "ro");
    }
    let options = if words.is_empty() { String::new() } else { format!(":{}", words.join(",")) };
    Some(format!("{source}:{}{options}", mount.target.display()))
}

/// `Mounts`, as inspect and listings have them. Docker leaves `--tmpfs` out of it; so do we.
pub(crate) fn mounts(spec: &ContainerSpec, mountpoint: &dyn Fn(&str) -> Option<String>) -> Value {
    let list: Vec<Value> = spec
        .mounts
        .iter()
        .filter_map(|mount| {
            let target = mount.target.display().to_string();
            let writable = !mount.read_only;
            let mode = if mount.read_only { "ro" } else { "" };
            match &mount.source {
                MountSource::Bind { path, propagation, .. } => Some(json!({
                    "Type": "bind", "Source": path, "Destination": target, "Mode": mode, "RW": writable,
                    "Propagation": propagation.word(),
                })),
                MountSource::Volume { name, .. } => Some(json!({
                    "Type": "volume", "Name": name.as_str(), "Source": mountpoint(name.as_str()).unwrap_or_default(),
                    "Destination": target, "Driver": "local", "Mode": mode, "RW": writable, "Propagation": "",
                })),
                MountSource::Image { name, .. } => Some(json!({
                    "Type": "image", "Source": name, "Destination": target, "Mode": "", "RW": false, "Propagation": "",
                })),
                // What its name led to when the container was made, and the container has since.
                MountSource::Artifact(artifact) => Some(json!({
                    "Type": "artifact", "Name": artifact.name, "Source": artifact.manifest, "Destination": target,
                    "Mode": "", "RW": false, "Propagation": "",
                })),
                MountSource::Tmpfs(_) if mount.structured => Some(json!({
                    "Type": "tmpfs", "Source": "", "Destination": target, "Mode": "", "RW": writable, "Propagation": "",
                })),
                MountSource::Tmpfs(_) | MountSource::Layers { .. } => None,
            }
        })
        .collect();
    Value::Array(list)
}

fn null_if_empty(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

#[cfg(test)]
pub(crate) mod tests;
