//! A bundle with Docker's default spec: docker itself is asked for it, so that the runtimes get what they get in earnest.

use std::path::Path;

use serde_json::{Value, json};

use super::super::image;
use super::engine::Engine;
use crate::failure::{Attempt, Failure};

/// Where docker's containerd keeps the bundles of running containers.
const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/moby";
/// The bundle that the runtimes are given; its root file system is there already.
pub const DIRECTORY: &str = "/bench/bundle";

/// Writes the bundle's config.json, in docker's cell.
pub fn write(docker: &Engine) -> Result<(), Failure> {
    let id = docker.start_container(&[image::NAME, "sleep", "1000"])?;
    let path = Path::new(BUNDLES).join(&id).join("config.json");
    let text = std::fs::read(&path).attempting(format_args!("read {}", path.display()));
    docker.remove(&[id])?;
    let spec = serde_json::from_slice(&text?).attempting(format_args!("parse {}", path.display()))?;
    let target = Path::new(DIRECTORY).join("config.json");
    std::fs::write(&target, adapted(spec).to_string()).attempting(format_args!("write {}", target.display()))
}

/// The spec without what ties it to a container of docker's: its hook, its files, its place.
fn adapted(mut spec: Value) -> Value {
    spec["process"]["args"] = json!(["/bin/true"]);
    spec["root"]["path"] = json!("rootfs");
    spec["linux"]["cgroupsPath"] = json!("/runtime");
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["type"] != "bind");
    }
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("hooks");
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dockers_own_goes() {
        let spec = json!({
            "process": { "args": ["sleep", "1000"], "cwd": "/" }, "root": { "path": "/var/lib/docker/x/merged" },
            "mounts": [{ "destination": "/proc", "type": "proc" }, { "destination": "/etc/hosts", "type": "bind" }],
            "hooks": { "prestart": [] }, "linux": { "cgroupsPath": "/docker/x", "seccomp": { "a": 1 } },
        });
        let expected = json!({
            "process": { "args": ["/bin/true"], "cwd": "/" }, "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/proc", "type": "proc" }],
            "linux": { "cgroupsPath": "/runtime", "seccomp": { "a": 1 } },
        });
        assert_eq!(adapted(spec), expected);
    }
}
