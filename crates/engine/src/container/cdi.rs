//! The Container Device Interface: files of the host's that say what a device needs in a container (the specification is
//! at github.com/cncf-tags/container-device-interface, SPEC.md).
//!
//! Done are environment variables, device nodes and mounts. What else an edit may name is refused by name, and so are
//! files in YAML: every generator writes JSON when it is asked to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dozen_runtime::Spec;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType, MountBuilder};
use serde::Deserialize;
use serde_json::Value;

use crate::EngineError;
use crate::container::devices;

/// No specification is longer.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Specification {
    cdi_version: String,
    /// `vendor.com/class`.
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    mounts: Vec<Mount>,
    /// Hooks and whatever a later version may have.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceNode {
    path: PathBuf,
    host_path: Option<PathBuf>,
    r#type: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
    file_mode: Option<u32>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
    r#type: Option<String>,
}

/// Puts what these devices (`vendor.com/class=name`) need into a specification.
pub(crate) fn inject(spec: &mut Spec, names: &[String], directories: &[&Path]) -> Result<(), EngineError> {
    let specifications = read_all(directories)?;
    let mut kinds: Vec<&Path> = Vec::new();
    let missing: Vec<&str> =
        names.iter().filter(|name| find(&specifications, name).is_none()).map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(failed(format!("unresolvable CDI devices {}", missing.join(", "))));
    }
    for name in names {
        let Some((path, specification, device)) = find(&specifications, name) else { continue };
        // What all devices of a specification need, once.
        if !kinds.contains(&path) {
            kinds.push(path);
            edit(spec, &specification.container_edits, path)?;
        }
        edit(spec, &device.container_edits, path)?;
    }
    Ok(())
}

/// Whether any specification is about devices of this kind.
pub(crate) fn has_kind(kind: &str, directories: &[&Path]) -> Result<bool, EngineError> {
    Ok(read_all(directories)?.iter().any(|(_, specification)| specification.kind == kind))
}

/// The devices that there are, by their whole names. A specification that cannot be read hides all: who asks for one of
/// them is told why.
pub(crate) fn names(directories: &[&Path]) -> Vec<String> {
    let specifications = read_all(directories).unwrap_or_else(|error| {
        tracing::warn!(error = dozen_model::error_chain(&error), "devices by name cannot be listed");
        Vec::new()
    });
    let of_one = |(_, specification): &Read| {
        let name = |device: &Device| format!("{}={}", specification.kind, device.name);
        specification.devices.iter().map(name).collect::<Vec<_>>()
    };
    let names: std::collections::BTreeSet<String> = specifications.iter().flat_map(of_one).collect();
    names.into_iter().collect()
}

type Read = (PathBuf, Specification);

/// In order: the last that has a device counts.
fn read_all(directories: &[&Path]) -> Result<Vec<Read>, EngineError> {
    let mut specifications = Vec::new();
    for directory in directories {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => specifications.push((path.clone(), read(&path)?)),
                Some("yaml" | "yml") => {
                    return Err(EngineError::NotBuilt {
                        message: format!("CDI device injection failed: {}: YAML is not built yet", path.display()),
                        hint: Some("write it as JSON: nvidia-ctk cdi generate --format=json".to_owned()),
                    });
                }
                _ => {}
            }
        }
    }
    Ok(specifications)
}

fn read(path: &Path) -> Result<Specification, EngineError> {
    use std::io::Read;
    let mut text = String::new();
    let file = fs::File::open(path).map_err(EngineError::system(|| format!("open {}", path.display())))?;
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(EngineError::system(|| format!("read {}", path.display())))?;
    let specification: Specification =
        serde_json::from_str(&text).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    if !specification.cdi_version.starts_with("0.") && !specification.cdi_version.starts_with("1.") {
        let version = &specification.cdi_version;
        return Err(failed(format!("{}: cdiVersion {version:?} is not known", path.display())));
    }
    Ok(specification)
}

fn find<'a>(specifications: &'a [Read], name: &str) -> Option<(&'a Path, &'a Specification, &'a Device)> {
    let (kind, device) = name.split_once('=')?;
    specifications.iter().rev().filter(|(_, specification)| specification.kind == kind).find_map(
        |(path, specification)| {
            let device = specification.devices.iter().find(|known| known.name == device)?;
            Some((path.as_path(), specification, device))
        },
    )
}

fn edit(spec: &mut Spec, edits: &Edits, path: &Path) -> Result<(), EngineError> {
    let asks = |value: &Value| !matches!(value, Value::Null) && value.as_array().is_none_or(|list| !list.is_empty());
    if let Some((name, _)) = edits.others.iter().find(|(_, value)| asks(value)) {
        return Err(EngineError::NotBuilt {
            message: format!("CDI device injection failed: {}: containerEdits.{name} is not built yet", path.display()),
            hint: Some("env, deviceNodes and mounts are".to_owned()),
        });
    }
    if let Some(process) = spec.process_mut() {
        let mut environment = process.env().clone().unwrap_or_default();
        for variable in &edits.env {
            let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
            environment.retain(|known| name(known) != name(variable));
            environment.push(variable.clone());
        }
        process.set_env(Some(environment));
    }
    let (mut nodes, mut rules) = (Vec::new(), Vec::new());
    for node in &edits.device_nodes {
        let device = node.device()?;
        rules.push(devices::rule_for(&device, node.permissions.as_deref().unwrap_or("rwm")));
        nodes.push(device);
    }
    devices::add(spec, nodes, rules);
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for mount in &edits.mounts {
        let options = if mount.options.is_empty() { vec!["rbind".to_owned()] } else { mount.options.clone() };
        let built = MountBuilder::default()
            .destination(&mount.container_path)
            .source(&mount.host_path)
            .typ(mount.r#type.as_deref().unwrap_or("bind"))
            .options(options)
            .build();
        mounts.retain(|known| known.destination() != &mount.container_path);
        mounts.push(built.expect("a mount has its destination"));
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

impl DeviceNode {
    /// What the specification leaves out is the host's node's.
    fn device(&self) -> Result<LinuxDevice, EngineError> {
        let host = self.host_path.as_ref().unwrap_or(&self.path);
        let on_host = fs::metadata(host).ok().and_then(|metadata| devices::device(&metadata, &self.path));
        let kind = match self.r#type.as_deref() {
            Some("b") => Some(LinuxDeviceType::B),
            Some("c" | "u") => Some(LinuxDeviceType::C),
            Some("p") => Some(LinuxDeviceType::P),
            Some(other) => return Err(failed(format!("{}: {other:?} is no type of a device", self.path.display()))),
            None => on_host.as_ref().map(LinuxDevice::typ),
        };
        let major = self.major.or(on_host.as_ref().map(LinuxDevice::major));
        let minor = self.minor.or(on_host.as_ref().map(LinuxDevice::minor));
        let (Some(kind), Some(major), Some(minor)) = (kind, major, minor) else {
            return Err(failed(format!("{} is no device of this host", host.display())));
        };
        let of_host = |get: fn(&LinuxDevice) -> Option<u32>| on_host.as_ref().and_then(get);
        let built = LinuxDeviceBuilder::default()
            .path(&self.path)
            .typ(kind)
            .major(major)
            .minor(minor)
            .file_mode(self.file_mode.or(of_host(LinuxDevice::file_mode)).unwrap_or(0o666))
            .uid(self.uid.unwrap_or(0))
            .gid(self.gid.unwrap_or(0))
            .build();
        Ok(built.expect("every field of a device has a default"))
    }
}

fn failed(why: String) -> EngineError {
    EngineError::Invalid { message: format!("CDI device injection failed: {why}"), hint: None }
}

#[cfg(test)]
mod tests {
    use dozen_model::{CapabilityChange, SeccompChoice};
    use dozen_runtime::default_spec::{self, DefaultSpec};

    use super::*;

    fn spec() -> Spec {
        default_spec::docker(&DefaultSpec {
            privileged: false,
            capabilities: &CapabilityChange::default(),
            seccomp: &SeccompChoice::Unconfined,
            unmasked_system_paths: false,
            host_network: false,
            shm_size_bytes: 1 << 20,
        })
        .unwrap()
    }

    fn inject_from(json: &str, names: &[&str]) -> Result<Spec, String> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.json"), json).unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut spec = spec();
        inject(&mut spec, &names, &[directory.path()]).map(|()| spec).map_err(|error| error.to_string())
    }

    const ZERO: &str = r#"{"cdiVersion": "0.6.0", "kind": "vendor.com/class",
        "containerEdits": {"env": ["ALL=1"]},
        "devices": [
            {"name": "zero", "containerEdits": {
                "env": ["ONE=1"],
                "deviceNodes": [{"path": "/dev/mine", "hostPath": "/dev/zero", "permissions": "r", "uid": 7}],
                "mounts": [{"hostPath": "/etc", "containerPath": "/host-etc", "options": ["ro", "bind"]}]}},
            {"name": "other", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}}]}"#;

    #[test]
    fn what_a_device_needs_is_put_in() {
        let spec = inject_from(ZERO, &["vendor.com/class=zero"]).unwrap();
        let environment = spec.process().as_ref().unwrap().env().clone().unwrap();
        assert_eq!(environment, ["ALL=1", "ONE=1"]);
        let linux = spec.linux().as_ref().unwrap();
        let device = linux.devices().as_ref().unwrap().last().unwrap().clone();
        assert_eq!(device.path(), Path::new("/dev/mine"));
        assert_eq!((device.major(), device.minor(), device.uid()), (1, 5, Some(7)));
        let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
        assert_eq!(rules.last().unwrap().access().as_deref(), Some("r"));
        let mount = spec.mounts().as_ref().unwrap().last().unwrap().clone();
        assert_eq!((mount.destination().as_path(), mount.typ().as_deref()), (Path::new("/host-etc"), Some("bind")));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (json, name, words) in [
            (ZERO, "vendor.com/class=none", "unresolvable CDI devices vendor.com/class=none"),
            (ZERO, "vendor.com/gpu=zero", "unresolvable CDI devices vendor.com/gpu=zero"),
            (ZERO, "vendor.com/class=other", "containerEdits.hooks is not built yet"),
            ("{", "a.com/b=c", "CDI device injection failed"),
            (r#"{"cdiVersion": "9", "kind": "a.com/b"}"#, "a.com/b=c", "cdiVersion \"9\" is not known"),
        ] {
            let error = inject_from(json, &[name]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.yaml"), "").unwrap();
        let error = inject(&mut spec(), &["a.com/b=c".to_owned()], &[directory.path()]).unwrap_err();
        assert!(error.to_string().contains("YAML is not built yet"));
    }

    #[test]
    fn the_later_directory_comes_first() {
        let [earlier, later] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for (directory, value) in [(&earlier, "1"), (&later, "2")] {
            let json = format!(
                r#"{{"cdiVersion": "1.0.0", "kind": "a.com/b", "devices": [{{"name": "c", "containerEdits":
                    {{"env": ["FROM={value}"]}}}}]}}"#
            );
            fs::write(directory.path().join("x.json"), json).unwrap();
        }
        let mut spec = spec();
        inject(&mut spec, &["a.com/b=c".to_owned()], &[earlier.path(), later.path()]).unwrap();
        assert_eq!(spec.process().as_ref().unwrap().env().clone().unwrap(), ["FROM=2"]);
    }
}
