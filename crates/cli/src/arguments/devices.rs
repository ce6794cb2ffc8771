//! The host's devices: `--device`, `--device-cgroup-rule`, `--gpus`.

use clap::{Arg, ArgMatches};
use serde_json::{Map, Value, json};

use super::flags::{invalid, list, texts};
use crate::failure::Failure;

/// The flags.
pub fn flags() -> [Arg; 3] {
    [
        list("device", None, "Add a host device to the container"),
        list("device-cgroup-rule", None, "Add a rule to the cgroup allowed devices list"),
        list("gpus", None, "GPU devices to add to the container ('all' to pass all GPUs)"),
    ]
}

/// Puts what was asked for into `HostConfig`.
pub fn apply(matches: &ArgMatches, host: &mut Map<String, Value>) -> Result<(), Failure> {
    let (mut mappings, mut names) = (Vec::new(), Vec::new());
    for device in texts(matches, "device") {
        if is_qualified_name(device) {
            names.push(device);
        } else {
            mappings.push(mapping(device).map_err(|why| invalid(device, "device", why))?);
        }
    }
    let mut requests = Vec::new();
    for gpus in texts(matches, "gpus") {
        requests.push(gpu_request(gpus).map_err(|why| invalid(gpus, "gpus", why))?);
    }
    if !names.is_empty() {
        requests.push(json!({ "Driver": "cdi", "DeviceIDs": names }));
    }
    let rules: Vec<Value> = texts(matches, "device-cgroup-rule").into_iter().map(Value::from).collect();
    for (key, values) in [("Devices", mappings), ("DeviceRequests", requests), ("DeviceCgroupRules", rules)] {
        if !values.is_empty() {
            host.insert(key.to_owned(), values.into());
        }
    }
    Ok(())
}

/// `vendor.com/class=name`, as the Container Device Interface calls its devices.
fn is_qualified_name(text: &str) -> bool {
    let Some((kind, name)) = text.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    let starts = |word: &str| word.starts_with(|letter: char| letter.is_ascii_alphabetic());
    let is_of =
        |word: &str, more: &str| word.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter));
    starts(vendor)
        && is_of(vendor, "_-.")
        && starts(class)
        && is_of(class, "_-.")
        && name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && is_of(name, "_-.:")
}

/// `/dev/a`, `/dev/a:/dev/b`, `/dev/a:rw`, `/dev/a:/dev/b:r`.
fn mapping(text: &str) -> Result<Value, String> {
    let is_access = |text: &str| {
        (1..=3).contains(&text.len())
            && text.chars().all(|letter| "rwm".contains(letter))
            && text.chars().all(|letter| text.matches(letter).count() == 1)
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, access) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, access] if is_access(access) => (host, host, access),
        [host, inside] => (host, inside, "rwm"),
        [host, inside, access] if is_access(access) => (host, inside, access),
        [_, _, access] => return Err(format!("bad mode specified: {access}")),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if !host.starts_with('/') || !inside.starts_with('/') {
        return Err(format!("{text} is not an absolute path"));
    }
    Ok(json!({ "PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": access }))
}

/// `all`, a number, or `device=0,capabilities=utility`: fields as of CSV, a quoted one may have commas.
fn gpu_request(text: &str) -> Result<Value, String> {
    let mut request = json!({ "Driver": "", "Count": 0, "Capabilities": [["gpu"]], "Options": {} });
    let count = |text: &str| match text {
        "all" => Ok(-1),
        text => text
            .parse::<i64>()
            .map_err(|_| format!("invalid count ({text}): value must be either \"all\" or an integer")),
    };
    for field in fields(text) {
        let list = |value: &str| -> Vec<String> { value.split(',').map(str::to_owned).collect() };
        match field.split_once('=') {
            None => request["Count"] = json!(count(&field)?),
            Some(("count", value)) => request["Count"] = json!(count(value)?),
            Some(("driver", value)) => request["Driver"] = json!(value),
            Some(("device", value)) => request["DeviceIDs"] = json!(list(value)),
            Some(("capabilities", value)) => {
                let mut words = list(value);
                words.push("gpu".to_owned());
                request["Capabilities"] = json!([words]);
            }
            Some(("options", _)) => return Err("options are not built yet".to_owned()),
            Some((key, _)) => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if request["Count"] == json!(0) && request.get("DeviceIDs").is_none() {
        request["Count"] = json!(1);
    }
    Ok(request)
}

/// Parted at commas, but for those in double quotes.
fn fields(text: &str) -> Vec<String> {
    let (mut fields, mut is_quoted) = (vec![String::new()], false);
    for letter in text.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            letter => fields.last_mut().expect("there is always one").push(letter),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(arguments: &[&str]) -> Result<Value, String> {
        let command = clap::Command::new("x").args(flags());
        let matches = command.try_get_matches_from([&["x"], arguments].concat()).unwrap();
        let mut host = Map::new();
        apply(&matches, &mut host).map_err(|failure| failure.message)?;
        Ok(Value::Object(host))
    }

    #[test]
    fn devices_become_the_apis() {
        let device = |host: &str, inside: &str, access: &str| json!({"Devices": [{"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": access}]});
        let gpus = |request: Value| json!({ "DeviceRequests": [request] });
        let gpu = |count: i64| json!({"Driver": "", "Count": count, "Capabilities": [["gpu"]], "Options": {}});
        for (arguments, body) in [
            (&["--device", "/dev/fuse"][..], device("/dev/fuse", "/dev/fuse", "rwm")),
            (&["--device", "/dev/fuse:r"], device("/dev/fuse", "/dev/fuse", "r")),
            (&["--device", "/dev/fuse:/dev/x"], device("/dev/fuse", "/dev/x", "rwm")),
            (&["--device", "/dev/fuse:/dev/x:rw"], device("/dev/fuse", "/dev/x", "rw")),
            (
                &["--device", "vendor.com/class=a:0"],
                json!({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.com/class=a:0"]}]}),
            ),
            (&["--device-cgroup-rule", "c 42:* rmw"], json!({"DeviceCgroupRules": ["c 42:* rmw"]})),
            (&["--gpus", "all"], gpus(gpu(-1))),
            (&["--gpus", "2"], gpus(gpu(2))),
            (
                &["--gpus", "\"device=0,GPU-1\",capabilities=utility"],
                gpus(json!({
                    "Driver": "", "Count": 0, "DeviceIDs": ["0", "GPU-1"], "Capabilities": [["utility", "gpu"]],
                    "Options": {},
                })),
            ),
        ] {
            assert_eq!(asked(arguments), Ok(body), "{arguments:?}");
        }
        for (arguments, words) in [
            (["--device", "fuse"], "fuse is not an absolute path"),
            (["--device", "/dev/a:/dev/b:x"], "bad mode specified: x"),
            (["--device", "/a:/b:r:w"], "invalid device specification"),
            (["--gpus", "some"], "value must be either \"all\" or an integer"),
            (["--gpus", "x=1"], "unexpected key 'x'"),
        ] {
            let message = asked(&arguments).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
