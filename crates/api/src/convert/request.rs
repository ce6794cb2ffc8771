//! The parts of Docker's requests that act, as `fields` leaves them: names exact, nulls gone.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::endpoints::Endpoint;
use super::fields::{self, Fields};
use super::{health, restart};
use crate::error::ApiError;

/// Checks a body against its table and reads what acts.
pub(crate) fn read<T: DeserializeOwned>(mut body: Value, table: Fields) -> Result<T, ApiError> {
    fields::check(&mut body, table)?;
    serde_json::from_value(body).map_err(|error| ApiError::invalid(format!("invalid request: {error}")))
}

/// `POST /containers/create`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Create {
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) user: String,
    pub(crate) attach_stdin: bool,
    pub(crate) attach_stdout: bool,
    pub(crate) attach_stderr: bool,
    pub(crate) exposed_ports: BTreeMap<String, Value>,
    pub(crate) tty: bool,
    pub(crate) open_stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "words")]
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) image: String,
    pub(crate) healthcheck: Option<health::Requested>,
    pub(crate) volumes: BTreeMap<String, Value>,
    pub(crate) working_dir: String,
    pub(crate) mac_address: String,
    #[serde(deserialize_with = "words")]
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) stop_signal: String,
    pub(crate) stop_timeout: Option<i64>,
    pub(crate) host_config: HostConfig,
    pub(crate) networking_config: NetworkingConfig,
}

/// `HostConfig` of a create request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct HostConfig {
    pub(crate) binds: Vec<String>,
    pub(crate) log_config: LogConfig,
    pub(crate) network_mode: String,
    pub(crate) port_bindings: BTreeMap<String, Option<Vec<HostPort>>>,
    pub(crate) restart_policy: restart::Requested,
    pub(crate) on_unhealthy: String,
    pub(crate) auto_remove: bool,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) extra_hosts: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_options: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) privileged: bool,
    pub(crate) publish_all_ports: bool,
    pub(crate) readonly_rootfs: bool,
    pub(crate) security_opt: Vec<String>,
    pub(crate) tmpfs: BTreeMap<String, String>,
    pub(crate) shm_size: i64,
    pub(crate) init: bool,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) console_size: Option<(u16, u16)>,
    pub(crate) masked_paths: Option<Vec<String>>,
    pub(crate) readonly_paths: Option<Vec<String>>,
    #[serde(flatten)]
    pub(crate) resources: super::resources::Resources,
    pub(crate) pid_mode: String,
    pub(crate) ipc_mode: String,
    #[serde(rename = "UTSMode")]
    pub(crate) uts_mode: String,
    pub(crate) userns_mode: String,
    pub(crate) cgroupns_mode: String,
    pub(crate) group_add: Vec<String>,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) volumes_from: Vec<String>,
    pub(crate) volume_driver: String,
}

/// Which log driver, with its options.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct LogConfig {
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) r#type: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) config: BTreeMap<String, String>,
}

/// The host's side of a published port.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HostPort {
    #[serde(rename = "HostIp", deserialize_with = "null_is_default")]
    pub(crate) ip: String,
    #[serde(rename = "HostPort", deserialize_with = "null_is_default")]
    pub(crate) port: String,
}

/// A mount of `--mount`'s kind.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Mount {
    pub(crate) r#type: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) bind_options: Option<BindOptions>,
    pub(crate) volume_options: Option<VolumeOptions>,
    pub(crate) image_options: Option<ImageOptions>,
    pub(crate) tmpfs_options: Option<TmpfsOptions>,
    /// Two fields of our own.
    pub(crate) artifact_options: Option<ArtifactOptions>,
    pub(crate) owner: MountOwner,
    /// The image that `source` names, once the route has looked it up.
    #[serde(skip)]
    pub(crate) image: Option<dozen_model::ImageId>,
    /// The same of an artifact.
    #[serde(skip)]
    pub(crate) artifact: Option<dozen_model::ArtifactMount>,
}

/// Who owns in the container what the source's owner owns on disk.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MountOwner {
    #[serde(rename = "UID")]
    pub(crate) user: Option<u32>,
    #[serde(rename = "GID")]
    pub(crate) group: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct BindOptions {
    pub(crate) propagation: String,
    pub(crate) create_mountpoint: bool,
    pub(crate) non_recursive: bool,
    pub(crate) read_only_non_recursive: bool,
    pub(crate) read_only_force_recursive: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct VolumeOptions {
    pub(crate) no_copy: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) subpath: String,
    pub(crate) driver_config: DriverConfig,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DriverConfig {
    pub(crate) name: String,
    pub(crate) options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ArtifactOptions {
    pub(crate) digest: String,
    pub(crate) title: String,
    pub(crate) name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageOptions {
    pub(crate) subpath: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TmpfsOptions {
    pub(crate) size_bytes: i64,
    pub(crate) mode: u32,
    pub(crate) options: Vec<Vec<String>>,
}

/// Networks by name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NetworkingConfig {
    pub(crate) endpoints_config: BTreeMap<String, Option<Endpoint>>,
}

/// `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Exec {
    pub(crate) user: String,
    pub(crate) privileged: bool,
    pub(crate) tty: bool,
    pub(crate) attach_stdin: bool,
    pub(crate) attach_stdout: bool,
    pub(crate) attach_stderr: bool,
    pub(crate) env: Vec<String>,
    pub(crate) working_dir: String,
    #[serde(deserialize_with = "words")]
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) detach_keys: String,
    /// Rows, columns.
    pub(crate) console_size: Option<[u16; 2]>,
}

/// `POST /exec/{id}/start`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ExecStart {
    pub(crate) detach: bool,
    pub(crate) tty: bool,
    /// Rows, columns.
    pub(crate) console_size: Option<[u16; 2]>,
}

/// `POST /volumes/create`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) driver_opts: BTreeMap<String, String>,
}

/// `POST /volumes/{name}/snapshots`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct VolumeSnapshot {
    pub(crate) name: String,
    pub(crate) pause: Option<bool>,
}

/// A command line: a list, or one string, which is a list of one (Docker's strslice).
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<Words>::deserialize(deserializer)?.map(|words| match words {
        Words::One(word) => vec![word],
        Words::Many(words) => words,
    }))
}

/// For values inside lists and maps, where `fields` leaves nulls.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
