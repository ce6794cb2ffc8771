//! The host's devices in a container: nodes and directories of them, rules, and what the Container Device Interface
//! describes ([`super::cdi`]). Looked up anew at each start: a device may have other numbers by then.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use dozen_model::{DeviceMapping, DeviceRequest, DeviceRule, DeviceSpec};
use dozen_runtime::Spec;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use crate::EngineError;
use crate::container::cdi;

/// What is another thing in every container, and is left out of a directory (as of `--device /dev`).
const OWN: [&str; 9] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", ".lxc", ".lxd-mounts", ".udev"];
/// What a GPU's driver can be asked for besides itself (docs.docker.com, "Access an NVIDIA GPU").
const GPU_CAPABILITIES: [&str; 9] =
    ["gpu", "nvidia", "compute", "utility", "video", "graphics", "display", "compat32", "ngx"];

/// Adds everything that was asked for to a specification.
pub(crate) fn apply(spec: &mut Spec, asked: &DeviceSpec, cdi_directories: &[PathBuf]) -> Result<(), EngineError> {
    if *asked == DeviceSpec::default() {
        return Ok(());
    }
    let (mut devices, mut rules) = (Vec::new(), Vec::new());
    for mapping in &asked.mappings {
        for device in nodes(mapping)? {
            rules.push(rule_for(&device, &mapping.access));
            devices.push(device);
        }
    }
    rules.extend(asked.rules.iter().map(rule));
    add(spec, devices, rules);
    let directories: Vec<&Path> = cdi_directories.iter().map(PathBuf::as_path).collect();
    let mut names = Vec::new();
    for request in &asked.requests {
        names.extend(names_of(request, &directories)?);
    }
    if names.is_empty() { Ok(()) } else { cdi::inject(spec, &names, &directories) }
}

/// Puts devices, and rules that allow them, behind those that are there.
pub(super) fn add(spec: &mut Spec, devices: Vec<LinuxDevice>, rules: Vec<LinuxDeviceCgroup>) {
    let Some(linux) = spec.linux_mut() else { return };
    let mut all = linux.devices().clone().unwrap_or_default();
    // The later of two at one place counts.
    all.retain(|known| !devices.iter().any(|device| device.path() == known.path()));
    all.extend(devices);
    linux.set_devices((!all.is_empty()).then_some(all));
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut all = resources.devices().clone().unwrap_or_default();
    all.extend(rules);
    resources.set_devices(Some(all));
    linux.set_resources(Some(resources));
}

/// The device at a path of the host, or those in a directory; links are followed, as the host's administrator made them.
fn nodes(mapping: &DeviceMapping) -> Result<Vec<LinuxDevice>, EngineError> {
    let fail = |why: &str| {
        let path = mapping.host_path.display();
        let message = format!("error gathering device information while adding custom device \"{path}\": {why}");
        Err(EngineError::Invalid { message, hint: None })
    };
    let metadata = match fs::metadata(&mapping.host_path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return fail("no such file or directory"),
        Err(error) => return fail(&error.to_string()),
    };
    if metadata.is_dir() {
        let mut found = Vec::new();
        below(&mapping.host_path, &mapping.path, &mut found)
            .map_err(EngineError::system(|| format!("list the devices in {}", mapping.host_path.display())))?;
        return if found.is_empty() { fail("no device is in this directory") } else { Ok(found) };
    }
    match device(&metadata, &mapping.path) {
        Some(device) => Ok(vec![device]),
        None => fail("not a device node"),
    }
}

fn below(directory: &Path, target: &Path, found: &mut Vec<LinuxDevice>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        let name = entry.file_name();
        if OWN.iter().any(|own| name == *own) {
            continue;
        }
        // One that is gone meanwhile is none; a link is another's name.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            below(&entry.path(), &target.join(&name), found)?;
        } else {
            found.extend(device(&metadata, &target.join(&name)));
        }
    }
    Ok(())
}

/// `None`: it is something else.
pub(super) fn device(metadata: &fs::Metadata, target: &Path) -> Option<LinuxDevice> {
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    let built = LinuxDeviceBuilder::default()
        .path(target)
        .typ(kind)
        .major(i64::from(rustix::fs::major(metadata.rdev())))
        .minor(i64::from(rustix::fs::minor(metadata.rdev())))
        .file_mode(metadata.mode() & 0o7777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build();
    Some(built.expect("every field of a device has a default"))
}

pub(super) fn rule_for(device: &LinuxDevice, access: &str) -> LinuxDeviceCgroup {
    let built = LinuxDeviceCgroupBuilder::default().allow(true).typ(device.typ()).access(access);
    let built = built.major(device.major()).minor(device.minor()).build();
    built.expect("every field of a device rule has a default")
}

fn rule(asked: &DeviceRule) -> LinuxDeviceCgroup {
    let kind = match asked.kind {
        'b' => LinuxDeviceType::B,
        'c' => LinuxDeviceType::C,
        _ => LinuxDeviceType::A,
    };
    let built = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access(asked.access.as_str()).build();
    let mut rule = built.expect("every field of a device rule has a default");
    rule.set_major(asked.major.map(i64::from)).set_minor(asked.minor.map(i64::from));
    rule
}

/// Which devices of the Container Device Interface a request is for.
///
/// # Errors
/// No driver of this host has what is asked for; the words are Docker's.
fn names_of(request: &DeviceRequest, directories: &[&Path]) -> Result<Vec<String>, EngineError> {
    let DeviceRequest { driver, count, ids, capabilities, options } = request;
    if driver == "cdi" {
        return Ok(ids.clone());
    }
    let is_known = |set: &Vec<String>| {
        set.iter().any(|word| word == "gpu") && set.iter().all(|word| GPU_CAPABILITIES.contains(&word.as_str()))
    };
    let kind = "nvidia.com/gpu";
    let can = matches!(driver.as_str(), "" | "nvidia")
        && capabilities.iter().any(is_known)
        && cdi::has_kind(kind, directories)?;
    if !can {
        let sets: Vec<String> = capabilities.iter().map(|set| format!("[{}]", set.join(" "))).collect();
        let message = format!("could not select device driver {driver:?} with capabilities: [{}]", sets.join(" "));
        let hint =
            "GPUs are found by a specification: nvidia-ctk cdi generate --format=json --output=/etc/cdi/nvidia.json";
        return Err(EngineError::Invalid { message, hint: Some(hint.to_owned()) });
    }
    if let Some(option) = options.keys().next() {
        return Err(EngineError::NotBuilt {
            message: format!("the option {option:?} of a device request is not built yet"),
            hint: None,
        });
    }
    Ok(match count {
        _ if !ids.is_empty() => ids.iter().map(|id| format!("{kind}={id}")).collect(),
        ..0 => vec![format!("{kind}=all")],
        count => (0..*count).map(|number| format!("{kind}={number}")).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host: &Path, path: &str) -> DeviceMapping {
        DeviceMapping { host_path: host.into(), path: path.into(), access: "rw".into() }
    }

    #[test]
    fn nodes_links_and_directories() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let found = nodes(&mapping(&link, "/dev/mine")).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path().as_path(), found[0].major(), found[0].minor()), (Path::new("/dev/mine"), 1, 3));
        let rule = rule_for(&found[0], "rw");
        assert_eq!(
            (rule.major(), rule.minor(), rule.access().as_deref(), rule.typ()),
            (Some(1), Some(3), Some("rw"), Some(LinuxDeviceType::C))
        );
        let found = nodes(&mapping(Path::new("/dev"), "/host")).unwrap();
        assert!(found.iter().any(|device| device.path() == Path::new("/host/zero")));
        assert!(!found.iter().any(|device| device.path().starts_with("/host/pts")));
        std::fs::write(directory.path().join("file"), "").unwrap();
        for (path, words) in
            [("missing", "no such file or directory"), ("file", "not a device node"), ("", "no device is")]
        {
            let error = nodes(&mapping(&directory.path().join(path), "/x")).unwrap_err().to_string();
            assert!(error.contains("error gathering device information") && error.contains(words), "{error}");
        }
    }

    #[test]
    fn gpus_are_devices_of_a_specification_or_refused_in_dockers_words() {
        let directory = tempfile::tempdir().unwrap();
        let gpus = |count, ids: &[&str]| DeviceRequest {
            count,
            ids: ids.iter().map(|&id| id.to_owned()).collect(),
            capabilities: vec![vec!["gpu".to_owned()]],
            ..DeviceRequest::default()
        };
        let error = names_of(&gpus(-1, &[]), &[directory.path()]).unwrap_err();
        assert_eq!(error.to_string(), r#"could not select device driver "" with capabilities: [[gpu]]"#);
        let json = r#"{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": []}"#;
        std::fs::write(directory.path().join("nvidia.json"), json).unwrap();
        let names = |request: DeviceRequest| names_of(&request, &[directory.path()]).map_err(|error| error.to_string());
        assert_eq!(names(gpus(-1, &[])).unwrap(), ["nvidia.com/gpu=all"]);
        assert_eq!(names(gpus(2, &[])).unwrap(), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
        assert_eq!(names(gpus(0, &["GPU-1"])).unwrap(), ["nvidia.com/gpu=GPU-1"]);
        let other = DeviceRequest { capabilities: vec![vec!["tpu".to_owned()]], ..gpus(-1, &[]) };
        assert!(names(other).unwrap_err().contains("with capabilities: [[tpu]]"));
        let driver = DeviceRequest { driver: "amd".to_owned(), ..gpus(-1, &[]) };
        assert!(names(driver).unwrap_err().contains(r#"device driver "amd""#));
        let option = DeviceRequest { options: [("a".to_owned(), "b".to_owned())].into(), ..gpus(-1, &[]) };
        assert!(names(option).unwrap_err().contains("not built yet"));
    }
}
