//! Devices: Docker's fields and the model's.

use std::collections::BTreeMap;
use std::path::Path;

use dozen_model::{DeviceMapping, DeviceRequest, DeviceRule, DeviceSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::fields::Field::Acts;
use super::fields::Fields;
use super::mounts;
use crate::error::ApiError;

/// One of `Devices`.
pub(crate) const DEVICE: Fields = &[("PathOnHost", Acts), ("PathInContainer", Acts), ("CgroupPermissions", Acts)];
/// One of `DeviceRequests`.
pub(crate) const DEVICE_REQUEST: Fields =
    &[("Driver", Acts), ("Count", Acts), ("DeviceIDs", Acts), ("Capabilities", Acts), ("Options", Acts)];

/// The part of Docker's `Resources` that is about devices.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Devices {
    devices: Vec<Device>,
    device_cgroup_rules: Vec<String>,
    device_requests: Vec<Request>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Device {
    path_on_host: String,
    path_in_container: String,
    cgroup_permissions: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Request {
    driver: String,
    count: i64,
    #[serde(rename = "DeviceIDs")]
    device_ids: Vec<String>,
    capabilities: Vec<Vec<String>>,
    options: BTreeMap<String, String>,
}

pub(crate) fn spec(asked: &Devices) -> Result<DeviceSpec, ApiError> {
    Ok(DeviceSpec {
        mappings: asked.devices.iter().map(mapping).collect::<Result<_, _>>()?,
        rules: asked.device_cgroup_rules.iter().map(|text| rule(text)).collect::<Result<_, _>>()?,
        requests: asked.device_requests.iter().map(request).collect::<Result<_, _>>()?,
    })
}

fn mapping(asked: &Device) -> Result<DeviceMapping, ApiError> {
    let Device { path_on_host, path_in_container, cgroup_permissions } = asked;
    let inside = if path_in_container.is_empty() { path_on_host } else { path_in_container };
    let clean = |text: &str| {
        mounts::clean(Path::new(text))
            .filter(|_| !text.contains('\0'))
            .ok_or_else(|| ApiError::invalid(format!("invalid device path {text:?}: want an absolute path")))
    };
    let access = if cgroup_permissions.is_empty() { "rwm" } else { cgroup_permissions };
    if !is_access(access) {
        return Err(ApiError::invalid(format!("bad mode specified: {access}")));
    }
    Ok(DeviceMapping { host_path: clean(path_on_host)?, path: clean(inside)?, access: access.to_owned() })
}

/// Of r, w and m, each once.
fn is_access(text: &str) -> bool {
    let known = |letter| text.matches(letter).count() <= 1;
    (1..=3).contains(&text.len())
        && text.chars().all(|letter| "rwm".contains(letter))
        && ['r', 'w', 'm'].into_iter().all(known)
}

/// `c 42:* rmw`.
fn rule(text: &str) -> Result<DeviceRule, ApiError> {
    let bad = || ApiError::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(bad()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map(Some).map_err(|_| bad()),
        _ => Err(bad()),
    };
    let (major, minor): (Option<u32>, Option<u32>) = (number(major)?, number(minor)?);
    let kind = match kind {
        "a" => 'a',
        "b" => 'b',
        "c" => 'c',
        _ => return Err(bad()),
    };
    if !is_access(access) {
        return Err(bad());
    }
    if kind == 'a' && (major, minor, access.len()) != (None, None, 3) {
        return Err(ApiError::invalid(format!(
            "device cgroup rule '{text}': one of type a is for all access to all devices"
        ))
        .with_hint("a *:* rwm, or a rule each for b and c"));
    }
    Ok(DeviceRule { kind, major, minor, access: access.to_owned() })
}

fn request(asked: &Request) -> Result<DeviceRequest, ApiError> {
    let Request { driver, count, device_ids, capabilities, options } = asked.clone();
    if count != 0 && !device_ids.is_empty() {
        return Err(ApiError::invalid("cannot set both Count and DeviceIDs on device request"));
    }
    if count > 4096 {
        return Err(ApiError::invalid(format!("a device request for {count} devices")));
    }
    Ok(DeviceRequest { driver, count, ids: device_ids, capabilities, options })
}

/// Puts what was asked for into an inspect's HostConfig.
pub(crate) fn show(spec: &DeviceSpec, shown: &mut Map<String, Value>) {
    let mapping = |mapping: &DeviceMapping| {
        json!({
            "PathOnHost": mapping.host_path, "PathInContainer": mapping.path, "CgroupPermissions": mapping.access,
        })
    };
    shown.insert("Devices".to_owned(), spec.mappings.iter().map(mapping).collect());
    let null_if_empty = |list: Vec<Value>| if list.is_empty() { Value::Null } else { Value::Array(list) };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let rule = |rule: &DeviceRule| {
        json!(format!("{} {}:{} {}", rule.kind, number(rule.major), number(rule.minor), rule.access))
    };
    shown.insert("DeviceCgroupRules".to_owned(), null_if_empty(spec.rules.iter().map(rule).collect()));
    let request = |request: &DeviceRequest| {
        json!({
            "Driver": request.driver, "Count": request.count,
            "DeviceIDs": if request.ids.is_empty() { Value::Null } else { json!(request.ids) },
            "Capabilities": request.capabilities, "Options": request.options,
        })
    };
    shown.insert("DeviceRequests".to_owned(), null_if_empty(spec.requests.iter().map(request).collect()));
}

#[cfg(test)]
mod tests {
    use super::super::{fields, request as requests};
    use super::*;

    fn read(config: Value) -> Result<DeviceSpec, String> {
        let create: Result<requests::Create, _> = requests::read(json!({ "HostConfig": config }), fields::CREATE);
        let asked = create.map_err(|error| error.message)?.host_config.resources.devices;
        spec(&asked).map_err(|error| error.message)
    }

    #[test]
    fn devices_are_read_and_shown() {
        let config = json!({
            "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/x", "CgroupPermissions": "rw"}],
            "DeviceCgroupRules": ["c 42:* rmw", "a *:* rwm"],
            "DeviceRequests": [{"Driver": "", "Count": -1, "DeviceIDs": null, "Capabilities": [["gpu"]], "Options": {}}],
        });
        let asked = read(config.clone()).unwrap();
        let mut shown = Map::new();
        show(&asked, &mut shown);
        assert_eq!(Value::Object(shown), config);
        let asked = read(json!({"Devices": [{"PathOnHost": "/dev/fuse"}]})).unwrap();
        let wanted = DeviceMapping { host_path: "/dev/fuse".into(), path: "/dev/fuse".into(), access: "rwm".into() };
        assert_eq!(asked.mappings, [wanted]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (config, words) in [
            (json!({"Devices": [{"PathOnHost": "fuse"}]}), "want an absolute path"),
            (json!({"Devices": [{"PathOnHost": "/dev/fuse", "CgroupPermissions": "rx"}]}), "bad mode specified: rx"),
            (json!({"Devices": [{"PathOnHost": "/dev/fuse", "CgroupPermissions": "rr"}]}), "bad mode specified: rr"),
            (json!({"DeviceCgroupRules": ["c 42 rwm"]}), "invalid device cgroup rule format: 'c 42 rwm'"),
            (json!({"DeviceCgroupRules": ["d 1:1 r"]}), "invalid device cgroup rule format"),
            (json!({"DeviceCgroupRules": ["c 1:+1 r"]}), "invalid device cgroup rule format"),
            (json!({"DeviceCgroupRules": ["c 1:: r"]}), "invalid device cgroup rule format"),
            (json!({"DeviceCgroupRules": ["a 1:* rwm"]}), "for all access to all devices"),
            (json!({"DeviceRequests": [{"Count": 1, "DeviceIDs": ["a"]}]}), "cannot set both Count and DeviceIDs"),
        ] {
            let error = read(config).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
