//! Every field of Docker's requests, and what becomes of it: the one table behind "accepted means it acts".
//!
//! A field that acts is `Acts`. One that is not built is refused by name, unless its value asks for nothing:
//! null, "", 0, false, [] and {} never do, and what else the docker CLI (20.10 to 28) and docker-py send by
//! default stands beside the field. Fields that are not in the table are ignored, as Docker ignores them.

use serde_json::{Map, Value};

use super::devices::{DEVICE, DEVICE_REQUEST};
use super::endpoints::ENDPOINT;
use super::resources::{THROTTLE_DEVICE, ULIMIT, WEIGHT_DEVICE};
use crate::error::ApiError;

/// What becomes of a field.
pub(crate) enum Field {
    /// Dozen acts on it: the typed request has it.
    Acts,
    /// It asks for nothing that a container could notice; the comment beside it says why.
    Ignored,
    /// Not built: refused unless it is empty.
    Refused,
    /// The same, with further values (as JSON) that ask for nothing.
    RefusedUnless(&'static [&'static str]),
    /// An object with fields of its own.
    Within(Fields),
    /// A list of such objects.
    Each(Fields),
    /// A map from names to such objects.
    Values(Fields),
}

/// The fields of an object.
pub(crate) type Fields = &'static [(&'static str, Field)];

use Field::{Acts, Each, Ignored, Refused, RefusedUnless, Values, Within};

/// The body of `POST /containers/create`.
pub(crate) const CREATE: Fields = &[
    ("Hostname", Acts),
    ("Domainname", Acts),
    ("User", Acts),
    ("AttachStdin", Acts),
    ("AttachStdout", Acts),
    ("AttachStderr", Acts),
    ("ExposedPorts", Acts),
    ("Tty", Acts),
    ("OpenStdin", Acts),
    ("StdinOnce", Acts),
    ("Env", Acts),
    ("Cmd", Acts),
    ("Healthcheck", Within(HEALTHCHECK)),
    ("ArgsEscaped", Ignored), // Windows only
    ("Image", Acts),
    ("Volumes", Acts),
    ("WorkingDir", Acts),
    ("Entrypoint", Acts),
    ("NetworkDisabled", Refused),
    ("MacAddress", Acts),
    ("OnBuild", Refused),
    ("Labels", Acts),
    ("StopSignal", Acts),
    ("StopTimeout", Acts),
    ("Shell", Refused),
    ("HostConfig", Within(HOST_CONFIG)),
    ("NetworkingConfig", Within(NETWORKING_CONFIG)),
];

const HEALTHCHECK: Fields = &[
    ("Test", Acts),
    ("Interval", Acts),
    ("Timeout", Acts),
    ("StartPeriod", Acts),
    ("StartInterval", Acts),
    ("Retries", Acts),
];

/// Of a commit's configuration, which does not act.
const NO_HEALTHCHECK: Fields = &[
    ("Test", RefusedUnless(&[r#"["NONE"]"#])),
    ("Interval", Refused),
    ("Timeout", Refused),
    ("StartPeriod", Refused),
    ("StartInterval", Refused),
    ("Retries", Refused),
];

pub(crate) const HOST_CONFIG: Fields = &[
    ("Binds", Acts),
    ("ContainerIDFile", Ignored), // the CLI writes it
    ("LogConfig", Acts),
    ("NetworkMode", Acts),
    ("PortBindings", Acts),
    ("RestartPolicy", Within(RESTART_POLICY)),
    ("OnUnhealthy", Acts), // dozen's own
    ("AutoRemove", Acts),
    ("VolumeDriver", Acts),
    ("VolumesFrom", Acts),
    ("ConsoleSize", Acts),
    ("Annotations", Acts),
    ("CapAdd", Acts),
    ("CapDrop", Acts),
    ("Capabilities", Refused),
    ("CgroupnsMode", Acts),
    ("Dns", Acts),
    ("DnsOptions", Acts),
    ("DnsSearch", Acts),
    ("ExtraHosts", Acts),
    ("GroupAdd", Acts),
    ("IpcMode", Acts),
    ("Cgroup", Refused),
    ("Links", Refused),
    ("OomScoreAdj", Acts),
    ("PidMode", Acts),
    ("Privileged", Acts),
    ("PublishAllPorts", Acts),
    ("ReadonlyRootfs", Acts),
    ("SecurityOpt", Acts),
    ("StorageOpt", Refused),
    ("Tmpfs", Acts),
    ("UTSMode", Acts),
    ("UsernsMode", Acts),
    ("ShmSize", Acts),
    ("Sysctls", Acts),
    ("Runtime", RefusedUnless(&[r#""dozen""#])), // as inspect shows it
    ("Isolation", RefusedUnless(&[r#""default""#])),
    ("Init", Acts),
    ("Mounts", Each(MOUNT)),
    ("MaskedPaths", Acts),
    ("ReadonlyPaths", Acts),
    // Resources
    ("CpuShares", Acts),
    ("Memory", Acts),
    ("NanoCpus", Acts),
    ("CgroupParent", Acts),
    ("BlkioWeight", Acts),
    ("BlkioWeightDevice", Each(WEIGHT_DEVICE)),
    ("BlkioDeviceReadBps", Each(THROTTLE_DEVICE)),
    ("BlkioDeviceWriteBps", Each(THROTTLE_DEVICE)),
    ("BlkioDeviceReadIOps", Each(THROTTLE_DEVICE)),
    ("BlkioDeviceWriteIOps", Each(THROTTLE_DEVICE)),
    ("CpuPeriod", Acts),
    ("CpuQuota", Acts),
    ("CpuRealtimePeriod", Refused),
    ("CpuRealtimeRuntime", Refused),
    ("CpusetCpus", Acts),
    ("CpusetMems", Acts),
    ("Devices", Each(DEVICE)),
    ("DeviceCgroupRules", Acts),
    ("DeviceRequests", Each(DEVICE_REQUEST)),
    ("KernelMemory", Refused),
    ("KernelMemoryTCP", Refused),
    ("MemoryReservation", Acts),
    ("MemorySwap", Acts),
    ("MemorySwappiness", Acts),
    ("OomKillDisable", Acts),
    ("PidsLimit", Acts),
    ("Ulimits", Each(ULIMIT)),
    ("CpuCount", Refused),
    ("CpuPercent", Refused),
    ("IOMaximumIOps", Refused),
    ("IOMaximumBandwidth", Refused),
];

pub(crate) const RESTART_POLICY: Fields = &[("Name", Acts), ("MaximumRetryCount", Acts)];

const MOUNT: Fields = &[
    ("Type", Acts),
    ("Source", Acts),
    ("Target", Acts),
    ("ReadOnly", Acts),
    ("Consistency", Ignored), // only ever meant something on a Mac
    ("BindOptions", Within(BIND_OPTIONS)),
    ("VolumeOptions", Within(VOLUME_OPTIONS)),
    ("ImageOptions", Within(IMAGE_OPTIONS)),
    ("TmpfsOptions", Within(TMPFS_OPTIONS)),
    ("ClusterOptions", Refused),
    ("ArtifactOptions", Within(ARTIFACT_OPTIONS)), // our own
    ("Owner", Within(MOUNT_OWNER)),                // our own
];

const IMAGE_OPTIONS: Fields = &[("Subpath", Acts)];

const ARTIFACT_OPTIONS: Fields = &[("Digest", Acts), ("Title", Acts), ("Name", Acts)];

const MOUNT_OWNER: Fields = &[("UID", Acts), ("GID", Acts)];

const BIND_OPTIONS: Fields = &[
    ("Propagation", Acts),
    ("NonRecursive", Acts),
    ("CreateMountpoint", Acts),
    ("ReadOnlyNonRecursive", Acts),
    ("ReadOnlyForceRecursive", Acts),
];

const VOLUME_OPTIONS: Fields =
    &[("NoCopy", Acts), ("Labels", Acts), ("Subpath", Acts), ("DriverConfig", Within(DRIVER_CONFIG))];

const DRIVER_CONFIG: Fields = &[("Name", Acts), ("Options", Acts)];

const TMPFS_OPTIONS: Fields = &[("SizeBytes", Acts), ("Mode", Acts), ("Options", Acts)];

const NETWORKING_CONFIG: Fields = &[("EndpointsConfig", Values(ENDPOINT))];

/// The body of `POST /containers/{id}/exec`.
pub(crate) const EXEC: Fields = &[
    ("User", Acts),
    ("Privileged", Acts),
    ("Tty", Acts),
    ("ConsoleSize", Acts),
    ("AttachStdin", Acts),
    ("AttachStdout", Acts),
    ("AttachStderr", Acts),
    ("Detach", Ignored), // decided when it is started
    ("DetachKeys", Acts),
    ("Env", Acts),
    ("WorkingDir", Acts),
    ("Cmd", Acts),
];

/// The body of `POST /exec/{id}/start`.
pub(crate) const EXEC_START: Fields = &[("Detach", Acts), ("Tty", Acts), ("ConsoleSize", Acts)];

/// The body of `POST /volumes/create`.
pub(crate) const VOLUME: Fields =
    &[("Name", Acts), ("Labels", Acts), ("Driver", Acts), ("DriverOpts", Acts), ("ClusterVolumeSpec", Refused)];

/// The body of `POST /volumes/{name}/snapshots`, ours.
pub(crate) const VOLUME_SNAPSHOT: Fields = &[("Name", Acts), ("Pause", Acts)];

/// The body of `POST /commit`: a whole configuration that replaces the container's. Only `changes` is built.
pub(crate) const COMMIT: Fields = &[
    ("Hostname", Ignored), // an image has neither of the two
    ("Domainname", Ignored),
    ("User", Refused),
    ("AttachStdin", Ignored),
    ("AttachStdout", Ignored),
    ("AttachStderr", Ignored),
    ("ExposedPorts", Refused),
    ("Tty", Ignored),
    ("OpenStdin", Ignored),
    ("StdinOnce", Ignored),
    ("Env", Refused),
    ("Cmd", Refused),
    ("Healthcheck", Within(NO_HEALTHCHECK)),
    ("ArgsEscaped", Ignored),
    ("Image", Ignored), // the container's
    ("NetworkDisabled", Ignored),
    ("Volumes", Refused),
    ("WorkingDir", Refused),
    ("Entrypoint", Refused),
    ("OnBuild", Refused),
    ("Labels", Refused),
    ("StopSignal", Refused),
    ("StopTimeout", Refused),
    ("Shell", Refused),
];

/// Brings a request into the shape that the typed requests expect: names as Docker writes them (Go reads them in
/// any case), nulls gone (Go takes them for absent). Refuses what is not built by its name: `HostConfig.Memory`.
pub(crate) fn check(body: &mut Value, fields: Fields) -> Result<(), ApiError> {
    if body.is_null() {
        *body = Value::Object(Map::new());
    }
    walk(body, fields, "")
}

fn walk(value: &mut Value, fields: Fields, path: &str) -> Result<(), ApiError> {
    let Value::Object(object) = value else {
        let what = if path.is_empty() { "the request's body" } else { path };
        return Err(ApiError::invalid(format!("{what} has to be a JSON object")));
    };
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (key, value) in std::mem::take(object) {
        let Some((name, field)) = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key)) else { continue };
        if value.is_null() {
            continue;
        }
        let mut value = value;
        let path = join(name);
        match field {
            Acts => {}
            Ignored => continue,
            Refused => refuse_unless_empty(&value, &[], &path)?,
            RefusedUnless(neutral) => refuse_unless_empty(&value, neutral, &path)?,
            Within(fields) => walk(&mut value, fields, &path)?,
            Each(fields) => match &mut value {
                Value::Array(items) => items.iter_mut().try_for_each(|item| walk(item, fields, &path))?,
                _ => return Err(ApiError::invalid(format!("{path} has to be a list"))),
            },
            Values(fields) => match &mut value {
                Value::Object(items) => {
                    items.values_mut().filter(|item| !item.is_null()).try_for_each(|item| walk(item, fields, &path))?;
                }
                _ => return Err(ApiError::invalid(format!("{path} has to be a JSON object"))),
            },
        }
        if object.insert((*name).to_owned(), value).is_some() {
            return Err(ApiError::invalid(format!("{path} is given twice, in different case")));
        }
    }
    Ok(())
}

fn refuse_unless_empty(value: &Value, neutral: &[&str], path: &str) -> Result<(), ApiError> {
    if asks_for_nothing(value) || neutral.contains(&value.to_string().as_str()) {
        return Ok(());
    }
    Err(ApiError::not_built(path).with_hint("leave it out; what is built is listed in the README"))
}

/// Null, "", 0, false, and lists and objects of nothing but such.
fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(asks_for_nothing),
        Value::Object(fields) => fields.values().all(asks_for_nothing),
    }
}

#[cfg(test)]
mod models;
#[cfg(test)]
mod named;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[track_caller]
    fn refused(body: Value, words: &str) {
        let mut body = body;
        let error = check(&mut body, CREATE).unwrap_err();
        assert!(error.message.contains(words), "{}", error.message);
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        refused(json!({"HostConfig": {"KernelMemory": 1}}), "HostConfig.KernelMemory is not built yet");
        refused(json!({"hostconfig": {"kernelmemory": 1}}), "HostConfig.KernelMemory is not built yet");
        refused(json!({"HostConfig": {"Mounts": [{"ClusterOptions": {"x": true}}]}}), "Mounts.ClusterOpt");
        refused(
            json!({"NetworkingConfig": {"EndpointsConfig": {"x": {"Links": ["a"]}}}}),
            "NetworkingConfig.EndpointsConfig.Links is not built yet",
        );
        refused(json!({"HostConfig": {"CpuPercent": 100}}), "HostConfig.CpuPercent");
        refused(json!({"Cmd": 1, "cmd": 2}), "given twice");
        refused(json!([]), "has to be a JSON object");
        refused(json!({"HostConfig": {"Mounts": {}}}), "has to be a list");
    }

    #[test]
    fn neutral_values_nulls_and_unknown_fields_pass() {
        let mut body = json!({
            "Image": "x", "Cmd": null, "Unheard": {"of": 1},
            "HostConfig": {
                "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "MemorySwappiness": -1, "PidsLimit": null,
                "Memory": 0, "Ulimits": [], "OomKillDisable": false, "CgroupnsMode": "private", "Dns": [],
            },
            "Healthcheck": {"Test": ["NONE"]},
        });
        assert_eq!(check(&mut body, CREATE), Ok(()));
        assert!(body.get("Cmd").is_none() && body.get("Unheard").is_none());
    }

    #[test]
    fn no_table_names_a_field_twice() {
        for table in [CREATE, HOST_CONFIG, MOUNT, ENDPOINT, EXEC, EXEC_START, VOLUME, COMMIT] {
            let names: std::collections::BTreeSet<_> = table.iter().map(|(name, _)| name.to_lowercase()).collect();
            assert_eq!(names.len(), table.len());
        }
    }

    type Table<'a> = (&'a str, Fields, &'a dyn Fn(Value) -> Result<(), ApiError>);

    /// Every table with what reads a body of its kind.
    fn with_each_table(mut visit: impl FnMut(Table<'_>)) {
        use crate::convert::request::{self, Create, Exec, ExecStart, Volume};
        fn read<T: serde::de::DeserializeOwned>(body: Value, table: Fields) -> Result<(), ApiError> {
            request::read::<T>(body, table).map(drop)
        }
        let host = |config: Value| read::<Create>(json!({ "HostConfig": config }), CREATE);
        let mount = |mount: Value| host(json!({ "Mounts": [mount] }));
        visit(("", CREATE, &|body| read::<Create>(body, CREATE)));
        visit(("HostConfig", HOST_CONFIG, &host));
        visit(("HostConfig.RestartPolicy", RESTART_POLICY, &|body| host(json!({ "RestartPolicy": body }))));
        visit(("HostConfig.Mounts", MOUNT, &mount));
        visit(("HostConfig.Mounts.BindOptions", BIND_OPTIONS, &|body| mount(json!({ "BindOptions": body }))));
        visit(("HostConfig.Mounts.VolumeOptions", VOLUME_OPTIONS, &|body| mount(json!({ "VolumeOptions": body }))));
        visit(("HostConfig.Mounts.VolumeOptions.DriverConfig", DRIVER_CONFIG, &|body| {
            mount(json!({ "VolumeOptions": { "DriverConfig": body } }))
        }));
        visit(("HostConfig.Mounts.ImageOptions", IMAGE_OPTIONS, &|body| mount(json!({ "ImageOptions": body }))));
        visit(("HostConfig.Mounts.ArtifactOptions", ARTIFACT_OPTIONS, &|body| {
            mount(json!({ "ArtifactOptions": body }))
        }));
        visit(("HostConfig.Mounts.Owner", MOUNT_OWNER, &|body| mount(json!({ "Owner": body }))));
        visit(("HostConfig.Mounts.TmpfsOptions", TMPFS_OPTIONS, &|body| mount(json!({ "TmpfsOptions": body }))));
        visit(("Healthcheck", HEALTHCHECK, &|body| read::<Create>(json!({ "Healthcheck": body }), CREATE)));
        visit(("NetworkingConfig.EndpointsConfig", ENDPOINT, &|body| {
            read::<Create>(json!({ "NetworkingConfig": { "EndpointsConfig": { "bridge": body } } }), CREATE)
        }));
        visit(("NetworkingConfig.EndpointsConfig.IPAMConfig", super::super::endpoints::ADDRESSES, &|body| {
            let endpoint = json!({ "IPAMConfig": body });
            read::<Create>(json!({ "NetworkingConfig": { "EndpointsConfig": { "bridge": endpoint } } }), CREATE)
        }));
        use super::super::endpoints::{CONNECT, Connect, DISCONNECT, Disconnect};
        use super::super::network_request::{CreateNetwork, IPAM, IPAM_CONFIG, NETWORK};
        visit(("", CONNECT, &|body| read::<Connect>(body, CONNECT)));
        visit(("", DISCONNECT, &|body| read::<Disconnect>(body, DISCONNECT)));
        visit(("", NETWORK, &|body| read::<CreateNetwork>(body, NETWORK)));
        visit(("IPAM", IPAM, &|body| read::<CreateNetwork>(json!({ "IPAM": body }), NETWORK)));
        visit(("IPAM.Config", IPAM_CONFIG, &|body| {
            read::<CreateNetwork>(json!({ "IPAM": { "Config": [body] } }), NETWORK)
        }));
        visit(("", EXEC, &|body| read::<Exec>(body, EXEC)));
        visit(("", EXEC_START, &|body| read::<ExecStart>(body, EXEC_START)));
        visit(("", VOLUME, &|body| read::<Volume>(body, VOLUME)));
        visit(("", COMMIT, &|body| read::<Map<String, Value>>(body, COMMIT)));
    }

    /// One value of every kind that asks for something.
    fn values() -> [Value; 5] {
        [json!("x"), json!(7), json!(true), json!([[7]]), json!({ "x": 7 })]
    }

    #[test]
    fn what_acts_is_read_and_what_is_refused_is_refused() {
        with_each_table(|(path, table, read)| {
            for (name, field) in table {
                let at = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
                let mut answers = values().map(|value| read(json!({ *name: value }))).into_iter();
                match field {
                    // A typed request that did not have the field would take any value for it.
                    Acts => assert!(answers.any(|answer| answer.is_err()), "nobody reads {at}"),
                    Ignored => assert!(answers.all(|answer| answer.is_ok()), "{at} is not ignored"),
                    Refused | RefusedUnless(_) => assert!(
                        answers.all(|answer| answer.unwrap_err().message.contains(&format!("{at} is not built yet"))),
                        "{at} is not refused by name"
                    ),
                    Within(_) | Each(_) | Values(_) => {}
                }
                if let RefusedUnless(neutral) = field {
                    for value in *neutral {
                        let value: Value = serde_json::from_str(value).unwrap();
                        assert_eq!(read(json!({ *name: value })), Ok(()), "{at}");
                    }
                }
            }
        });
    }

    proptest! {
        #[test]
        fn no_json_panics(text in r#"[{}\[\]":,a-zA-Z0-9]{0,60}"#) {
            if let Ok(mut value) = serde_json::from_str::<Value>(&text) {
                let _ = check(&mut value, CREATE);
            }
        }
    }
}
