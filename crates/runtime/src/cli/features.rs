//! `features`: what the runtime knows, whatever the host has (features.md and features-linux.md of the runtime
//! specification).

use oci_spec::runtime::{
    LinuxNamespaceType, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator as Operator,
    MemoryPolicyFlagType, MemoryPolicyModeType,
};
use serde_json::{Value, json};

use crate::{capability, plan, seccomp};

/// The newest version of which all is known; `linux.netDevices` and `linux.memoryPolicy` came with it.
const NEWEST_SPEC_VERSION: &str = "1.3.0";

const NAMESPACES: [LinuxNamespaceType; 8] = [
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Time,
    LinuxNamespaceType::User,
    LinuxNamespaceType::Uts,
];

const ACTIONS: [Action; 9] = [
    Action::ScmpActAllow,
    Action::ScmpActErrno,
    Action::ScmpActKill,
    Action::ScmpActKillProcess,
    Action::ScmpActKillThread,
    Action::ScmpActLog,
    Action::ScmpActNotify,
    Action::ScmpActTrace,
    Action::ScmpActTrap,
];

const OPERATORS: [Operator; 7] = [
    Operator::ScmpCmpEq,
    Operator::ScmpCmpGe,
    Operator::ScmpCmpGt,
    Operator::ScmpCmpLe,
    Operator::ScmpCmpLt,
    Operator::ScmpCmpMaskedEq,
    Operator::ScmpCmpNe,
];

const FLAGS: [Flag; 4] = [
    Flag::SeccompFilterFlagLog,
    Flag::SeccompFilterFlagSpecAllow,
    Flag::SeccompFilterFlagTsync,
    Flag::SeccompFilterFlagWaitKillableRecv,
];

const POLICY_MODES: [MemoryPolicyModeType; 7] = [
    MemoryPolicyModeType::MpolBind,
    MemoryPolicyModeType::MpolDefault,
    MemoryPolicyModeType::MpolInterleave,
    MemoryPolicyModeType::MpolLocal,
    MemoryPolicyModeType::MpolPreferred,
    MemoryPolicyModeType::MpolPreferredMany,
    MemoryPolicyModeType::MpolWeightedInterleave,
];

const POLICY_FLAGS: [MemoryPolicyFlagType; 3] = [
    MemoryPolicyFlagType::MpolFNumaBalancing,
    MemoryPolicyFlagType::MpolFRelativeNodes,
    MemoryPolicyFlagType::MpolFStaticNodes,
];

/// The names are those of a spec.
pub(super) fn features() -> Value {
    let capabilities: Vec<String> = capability::names(capability::ALL).map(|name| format!("CAP_{name}")).collect();
    let architectures: Vec<_> = seccomp::architectures().collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": NEWEST_SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": plan::mount_options(),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": ACTIONS,
                "operators": OPERATORS,
                "archs": architectures,
                "knownFlags": FLAGS,
                "supportedFlags": FLAGS,
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true},
            "memoryPolicy": {"modes": POLICY_MODES, "flags": POLICY_FLAGS},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        // None of them changes what is done.
        "potentiallyUnsafeConfigAnnotations": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn names(value: &Value) -> Vec<String> {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn accepts(change: impl FnOnce(&mut Value)) {
        let mut spec = json!({
            "ociVersion": NEWEST_SPEC_VERSION,
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
        });
        change(&mut spec);
        let parsed = serde_json::from_value(spec.clone()).unwrap();
        if let Err(error) = Plan::new(&parsed, std::path::Path::new("/bundle"), None, false) {
            panic!("{error}: {spec}");
        }
    }

    /// A feature that is told of is one that a spec may ask for, by this very name.
    #[test]
    fn what_is_told_is_accepted() {
        let features = features();
        let linux = &features["linux"];
        for kind in names(&linux["namespaces"]) {
            accepts(|spec| {
                let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
                list.retain(|namespace| namespace["type"] != kind);
                list.push(json!({"type": kind}));
                if kind == "user" {
                    let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
                    (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
                }
            });
        }
        for option in names(&features["mountOptions"]) {
            let of_tmpfs = ["tmpcopyup", "sync", "dirsync", "lazytime"].contains(&option.as_str());
            let mut options = vec![option.clone()];
            if !of_tmpfs {
                options.push("rbind".to_owned());
            }
            let kind = if of_tmpfs { "tmpfs" } else { "none" };
            let mut mount = json!({"destination": "/x", "source": "/", "type": kind, "options": options});
            if option.contains("idmap") {
                let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
                (mount["uidMappings"], mount["gidMappings"]) = (map.clone(), map);
            }
            accepts(|spec| spec["mounts"] = json!([mount]));
        }
        let seccomp = &linux["seccomp"];
        let profile = |change: &dyn Fn(&mut Value)| {
            let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                    "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_EQ"}]}]});
            change(&mut profile);
            accepts(|spec| spec["linux"]["seccomp"] = profile);
        };
        names(&seccomp["actions"]).iter().for_each(|name| profile(&|p| p["syscalls"][0]["action"] = json!(name)));
        names(&seccomp["operators"])
            .iter()
            .for_each(|name| profile(&|p| p["syscalls"][0]["args"][0]["op"] = json!(name)));
        names(&seccomp["archs"]).iter().for_each(|name| profile(&|p| p["architectures"] = json!([name])));
        names(&seccomp["supportedFlags"]).iter().for_each(|name| profile(&|p| p["flags"] = json!([name])));
        for capability in names(&linux["capabilities"]) {
            accepts(|spec| spec["process"]["capabilities"] = json!({"bounding": [capability]}));
        }
        for stage in names(&features["hooks"]) {
            accepts(|spec| spec["hooks"] = json!({stage: [{"path": "/bin/true"}]}));
        }
        for mode in names(&linux["memoryPolicy"]["modes"]) {
            let nodes = if ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&mode.as_str()) { "" } else { "0" };
            accepts(|spec| spec["linux"]["memoryPolicy"] = json!({"mode": mode, "nodes": nodes}));
        }
        for flag in names(&linux["memoryPolicy"]["flags"]) {
            accepts(|spec| {
                spec["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]});
            });
        }
    }

    #[test]
    fn names_are_the_specifications() {
        let features = features();
        let linux = &features["linux"];
        assert_eq!(linux["namespaces"], json!(["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]));
        assert_eq!(linux["seccomp"]["archs"][4], "SCMP_ARCH_ARM");
        assert_eq!(linux["seccomp"]["knownFlags"][3], "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV");
        assert_eq!(
            (&linux["seccomp"]["operators"][5], &linux["seccomp"]["actions"][6]),
            (&json!("SCMP_CMP_MASKED_EQ"), &json!("SCMP_ACT_NOTIFY"))
        );
        let options = names(&features["mountOptions"]);
        for option in ["bind", "rbind", "rro", "rnosymfollow", "rslave", "tmpcopyup", "ridmap", "defaults"] {
            assert!(options.iter().any(|known| known == option), "{option}");
        }
        assert!(options.is_sorted() && options.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
