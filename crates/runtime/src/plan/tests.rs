use serde_json::json;

use super::*;

fn spec(change: impl FnOnce(&mut serde_json::Value)) -> Spec {
    let mut value = json!({
        "ociVersion": "1.0.2",
        "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}]},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn plan(spec: &Spec) -> Result<Plan, RuntimeError> {
    Plan::new(spec, Path::new("/bundle"), None, false)
}

#[track_caller]
fn refused(change: impl FnOnce(&mut serde_json::Value), words: &str) {
    let error = plan(&spec(change)).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    refused(|v| v["linux"]["namespaces"][4] = json!({"type": "user"}), "user namespace is not built yet");
    refused(|v| v["process"]["apparmorProfile"] = json!("x"), "apparmorProfile is not built yet");
    refused(|v| v["linux"]["namespaces"][0] = json!({"type": "mount", "path": "/x"}), "not built yet");
    refused(|v| v["linux"]["rootfsPropagation"] = json!("unbindable"), "not built yet");
    refused(
        |v| v["mounts"] = json!([{"destination": "/a", "type": "tmpfs", "options": ["tmpcopyup"]}]),
        "not built yet",
    );
}

#[test]
fn what_cannot_be_right_is_refused() {
    refused(|v| v["process"]["args"] = json!([]), "args must not be empty");
    refused(|v| v["process"]["cwd"] = json!("a"), "absolute");
    refused(|v| v["process"]["args"] = json!(["a\0b"]), "null byte");
    refused(|v| v["mounts"] = json!([{"destination": "/a/..", "type": "tmpfs"}]), "hide the root");
    refused(|v| v["linux"]["sysctl"] = json!({"kernel.panic": "1"}), "separate kernel namespace");
    refused(|v| v["linux"]["sysctl"] = json!({"net/../kernel/panic": "1"}), "invalid sysctl");
    // Without a network namespace it is the host's.
    refused(|v| v["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"}), "separate kernel namespace");
    refused(|v| v["hostname"] = json!("a\0"), "null byte");
    refused(|v| v["mounts"] = json!([{"destination": "/proc/sys", "type": "tmpfs"}]), "inside /proc");
    refused(
        |v| {
            v["linux"]["namespaces"][1]["path"] = json!("/proc/1/ns/pid");
            v["mounts"] = json!([{"destination": "/proc/uptime", "type": "bind", "source": "/x"}]);
        },
        "not built yet",
    );
    refused(|v| v["linux"]["namespaces"][1] = json!({"type": "mount"}), "twice");
    refused(
        |v| {
            v["hostname"] = json!("x");
            v["linux"]["namespaces"][3] = json!({"type": "network"});
        },
        "UTS",
    );
}

#[test]
fn mount_options_are_parted() {
    let plan = plan(&spec(|v| {
        v["mounts"] = json!([
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "ro", "rw", "mode=1777", "size=64k"]},
            {"destination": "a/b/../c", "source": "data", "options": ["rbind", "rro", "rslave"]},
        ]);
    }))
    .unwrap();
    let [shm, bind] = plan.mounts.as_slice() else { panic!("{:?}", plan.mounts) };
    assert_eq!(shm.set, libc::MOUNT_ATTR_NOSUID);
    let options = vec![("mode".to_owned(), Some("1777".to_owned())), ("size".to_owned(), Some("64k".to_owned()))];
    assert_eq!(shm.kind, MountKind::New { kind: "tmpfs".to_owned(), source: "shm".to_owned(), options });
    assert_eq!((bind.target.as_path(), bind.set_below), (Path::new("/a/c"), libc::MOUNT_ATTR_RDONLY));
    assert_eq!((bind.propagation, bind.propagation_below), (libc::MS_SLAVE, true));
    assert_eq!(bind.kind, MountKind::Bind { source: "/bundle/data".into(), recursive: true });
}

#[test]
fn devices_of_the_spec_replace_default_ones() {
    let plan = plan(&spec(|v| {
        v["linux"]["devices"] = json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 384},
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]);
        v["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "5"});
        v["linux"]["namespaces"][4] = json!({"type": "network"});
    }))
    .unwrap();
    assert_eq!(plan.devices.len(), 7);
    let null = plan.devices.iter().find(|device| device.path == Path::new("/dev/null")).unwrap();
    assert_eq!(null.mode, libc::S_IFCHR | 0o600);
    assert_eq!(
        plan.sysctls,
        [("kernel/shmmax".to_owned(), "5".to_owned()), ("net/ipv4/ip_forward".to_owned(), "1".to_owned())]
    );
}
