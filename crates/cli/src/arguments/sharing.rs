//! What a container shares with the host or with others, and what it is told: the flags, and their fields of `HostConfig`.

use clap::{Arg, ArgMatches};
use serde_json::{Map, Value, json};

use super::flags::{invalid, list, text, texts, value};
use crate::failure::Failure;

/// Flags with one word, and their fields.
const WORDS: [(&str, &str, &str); 6] = [
    ("cgroupns", "CgroupnsMode", "Cgroup namespace to use (host, private)"),
    ("ipc", "IpcMode", "IPC mode to use (private, shareable, host, none, container:NAME)"),
    ("pid", "PidMode", "PID namespace to use (host, container:NAME)"),
    ("userns", "UsernsMode", "User namespace to use (host, auto, auto:size=N, container:NAME)"),
    ("uts", "UTSMode", "UTS namespace to use (host)"),
    ("volume-driver", "VolumeDriver", "Optional volume driver for the container (local is the only one)"),
];

/// Flags with lists of words.
const LISTS: [(&str, &str, &str); 2] = [
    ("group-add", "GroupAdd", "Add additional groups to join"),
    ("volumes-from", "VolumesFrom", "Mount volumes from the specified container(s)"),
];

/// Flags with lists of NAME=VALUE.
const MAPS: [(&str, &str, &str); 2] = [
    ("annotation", "Annotations", "Add an annotation to the container (passed through to the OCI runtime)"),
    ("sysctl", "Sysctls", "Sysctl options"),
];

/// The flags.
pub fn flags() -> impl Iterator<Item = Arg> {
    let words = WORDS.iter().map(|(flag, _, help)| value(flag, None, "string", help));
    words.chain(LISTS.iter().chain(&MAPS).map(|(flag, _, help)| list(flag, None, help)))
}

/// Puts what was given into `HostConfig`.
pub fn apply(matches: &ArgMatches, host: &mut Map<String, Value>) -> Result<(), Failure> {
    for (flag, key, _) in WORDS {
        if let Some(word) = text(matches, flag).filter(|word| !word.is_empty()) {
            host.insert(key.to_owned(), word.into());
        }
    }
    for (flag, key, _) in LISTS {
        let words = texts(matches, flag);
        if !words.is_empty() {
            host.insert(key.to_owned(), json!(words));
        }
    }
    for (flag, key, _) in MAPS {
        let mut map = Map::new();
        for entry in texts(matches, flag) {
            match entry.split_once('=') {
                Some((name, value)) if !name.is_empty() => drop(map.insert(name.to_owned(), value.into())),
                _ => return Err(invalid(entry, flag, "want NAME=VALUE")),
            }
        }
        if !map.is_empty() {
            host.insert(key.to_owned(), map.into());
        }
    }
    Ok(())
}
