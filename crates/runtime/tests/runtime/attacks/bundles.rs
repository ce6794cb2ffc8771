//! A bundle is its author's word against the host's peace.

use super::*;

/// A bundle is its author's word against the host's peace: refused with a reason, and nothing is left.
#[test]
fn hostile_bundles_are_refused() {
    let refused = |change: &dyn Fn(&mut Value), words: &str| {
        let error = failure(&Bundle::new("true").with(change).run());
        assert!(error.contains(words), "want {words:?}: {error}");
        assert!(!error.contains("panicked"), "{error}");
    };
    refused(&|spec| spec["hostname"] = json!("a\0b"), "hostname: \"a\\0b\" contains a null byte");
    refused(&|spec| spec["process"]["env"] = json!(["A=\0"]), "null byte");
    refused(
        &|spec| {
            let env = spec["process"]["env"].as_array_mut().unwrap();
            env.push(json!(format!("A={}", "x".repeat(4 << 20))));
        },
        "argument list too long",
    );
    refused(&|spec| spec["linux"]["cgroupsPath"] = json!("../.."), "invalid cgroup name");
    refused(&|spec| spec["linux"]["cgroupsPath"] = json!("/"), "invalid cgroup name");
    refused(&|spec| spec["root"]["path"] = json!("../../no/such"), "invalid rootfs");
    refused(&|spec| spec["root"]["path"] = json!("config.json"), "invalid rootfs");
    refused(&|spec| spec["linux"]["sysctl"] = json!({"kernel/../vm/drop_caches": "1"}), "invalid sysctl");
    refused(&|spec| spec["linux"]["sysctl"] = json!({"kernel.core_pattern": "|/x"}), "separate kernel namespace");
    refused(&|spec| spec["mounts"] = json!({"destination": 1}), "config.json");
    refused(&|spec| push_mount(spec, bind("/tmp", "/../..")), "hide the root");
    refused(&|spec| push_mount(spec, json!({"destination": "/x\0y", "type": "tmpfs"})), "null byte");
    refused(&|spec| spec["linux"]["devices"] = json!([{"path": "../x", "type": "c", "major": -1, "minor": 1}]), "");
    // What the specification does not know is not ours to refuse (config.md, "Extensibility").
    let bundle = Bundle::new("echo ran").with(|spec| spec["unknown"] = json!({"linux": [1]}));
    assert_eq!(stdout(&bundle.run()), "ran\n");
    let bundle = Bundle::new("echo ran").with(|spec| spec["linux"]["cgroupsPath"] = json!(""));
    assert_eq!(stdout(&bundle.run()), "ran\n");
}
