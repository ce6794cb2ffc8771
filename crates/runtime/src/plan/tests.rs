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
    refused(|v| v["linux"]["intelRdt"] = json!({"closID": "x"}), "linux.intelRdt is not built yet");
    refused(
        |v| v["mounts"] = json!([{"destination": "/a", "type": "proc", "options": ["remount", "ro"]}]),
        "remount without bind, of a whole file system, is not built yet",
    );
    // It might be somebody else's.
    for before in [
        json!([{"destination": "/a", "type": "tmpfs"}, {"destination": "/a", "source": "/b", "options": ["bind"]}]),
        json!([]),
    ] {
        refused(
            |v| {
                v["mounts"] = before;
                let remount = json!({"destination": "/a", "type": "tmpfs", "options": ["remount"]});
                v["mounts"].as_array_mut().unwrap().push(remount);
            },
            "/a: remount: no tmpfs of the spec's is mounted there",
        );
    }
    refused(
        |v| {
            v["linux"]["namespaces"][1]["path"] = json!("/proc/1/ns/pid");
            with_user_namespace(v);
        },
        "a new user namespace with the pid namespace of another is not built yet",
    );
}

#[test]
fn a_mount_namespace_that_is_joined_has_limits() {
    let join = |v: &mut serde_json::Value| v["linux"]["namespaces"][0]["path"] = json!("/x");
    let joined = plan(&spec(join)).unwrap();
    assert!(joined.joined_mounts.is_some() && joined.join.is_empty() && joined.is_new(libc::CLONE_NEWNS));
    let with = |change: fn(&mut serde_json::Value), words: &str| {
        refused(
            |v| {
                change(v);
                join(v);
            },
            words,
        );
    };
    with(with_user_namespace, "join the user namespace that this one belongs to");
    with(|v| v["linux"]["rootfsPropagation"] = json!("shared"), "rootfsPropagation=shared needs a new mount namespace");
    with(
        |v| v["mounts"] = json!([{"destination": "/a", "source": "/b", "options": ["bind", "unbindable"]}]),
        "the mount on /a is unbindable",
    );
}

#[test]
fn what_cannot_be_right_is_refused() {
    refused(|v| v["process"]["args"] = json!([]), "args must not be empty");
    refused(|v| v["process"]["cwd"] = json!("a"), "absolute");
    let limit = json!({"type": "RLIMIT_CPU", "soft": 1, "hard": 2});
    refused(|v| v["process"]["rlimits"] = json!([limit, limit]), "RLIMIT_CPU is given twice");
    refused(|v| v["process"]["rlimits"] = json!([{"type": "RLIMIT_CPU", "soft": 3, "hard": 2}]), "above the hard one");
    refused(|v| v["process"]["commandLine"] = json!("a"), "commandLine");
    refused(|v| v["process"]["apparmorProfile"] = json!("a\0"), "null byte");
    refused(|v| v["process"]["selinuxLabel"] = json!("a\nb"), "line's end");
    refused(|v| v["process"]["args"] = json!(["a\0b"]), "null byte");
    refused(|v| v["mounts"] = json!([{"destination": "/a/..", "type": "tmpfs"}]), "hide the root");
    refused(|v| v["linux"]["sysctl"] = json!({"kernel.panic": "1"}), "separate kernel namespace");
    refused(|v| v["linux"]["sysctl"] = json!({"kernel.hostname": "x"}), "conflicts with the OCI");
    refused(|v| v["linux"]["sysctl"] = json!({"net/../kernel/panic": "1"}), "invalid sysctl");
    // Without a network namespace it is the host's.
    refused(|v| v["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"}), "separate kernel namespace");
    refused(|v| v["hostname"] = json!("a\0"), "null byte");
    refused(|v| v["mounts"] = json!([{"destination": "/proc/sys", "type": "tmpfs"}]), "inside /proc");
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
fn no_option_of_a_mount_is_passed_over() {
    for (mount, words) in [
        (json!({"type": "cgroup", "options": ["ro", "bogus=1"]}), "the cgroup mount on /a has option \"bogus\""),
        (json!({"type": "cgroup2", "options": ["none", "name=nothing"]}), "the cgroup mount on /a has option \"none\""),
        (json!({"source": "/b", "options": ["bind", "remount", "bogus"]}), "the remount of /a has option \"bogus\""),
        (json!({"source": "/b", "options": ["bind", "remount", "size=5"]}), "the remount of /a has option \"size\""),
        (json!({"source": "/b", "options": ["bind", "size=5"]}), "the bind on /a has option \"size\""),
    ] {
        refused(
            |v| {
                v["mounts"] = json!([mount]);
                v["mounts"][0]["destination"] = json!("/a");
            },
            words,
        );
    }
}

#[test]
fn the_number_that_leaves_an_id_as_it_is_is_none() {
    let none = u32::MAX;
    refused(|v| v["process"]["user"] = json!({"uid": none, "gid": 0}), "process.user.uid: 4294967295 is no id");
    refused(|v| v["process"]["user"] = json!({"uid": 0, "gid": none}), "process.user.gid: 4294967295 is no id");
    refused(
        |v| v["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [1, none]}),
        "process.user.additionalGids: 4294967295 is no id",
    );
    for owner in ["uid", "gid"] {
        refused(
            |v| {
                v["linux"]["devices"] = json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]);
                v["linux"]["devices"][0][owner] = json!(none);
            },
            "4294967295 is no id",
        );
    }
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
    let (kind, source) = ("tmpfs".to_owned(), "shm".to_owned());
    assert_eq!(shm.kind, MountKind::New { kind, source, options, copy_up: false });
    assert_eq!((bind.target.as_path(), bind.set_below), (Path::new("/a/c"), libc::MOUNT_ATTR_RDONLY));
    assert_eq!((bind.propagation, bind.propagation_below), (libc::MS_SLAVE, true));
    assert_eq!(bind.kind, MountKind::Bind { source: "/bundle/data".into(), recursive: true, copy_link: false });
}

fn with_user_namespace(v: &mut serde_json::Value) {
    v["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for list in ["uidMappings", "gidMappings"] {
        v["linux"][list] = json!([{"containerID": 0, "hostID": 1000, "size": 1},
            {"containerID": 1, "hostID": 100000, "size": 65535}]);
    }
}

#[test]
fn user_namespaces_are_mapped() {
    let planned = plan(&spec(with_user_namespace)).unwrap();
    let Some(UserNamespace::New(map)) = &planned.user_namespace else { panic!("{planned:?}") };
    assert_eq!(map_text(&map.users), "0 1000 1\n1 100000 65535\n");
    assert!(planned.needs_threshold() && !planned.is_new(libc::CLONE_NEWUSER));
    // Engines give a map to what is joined, too.
    let joined = plan(&spec(|v| {
        with_user_namespace(v);
        v["linux"]["namespaces"][5]["path"] = json!("/proc/1/ns/user");
    }));
    let joined = joined.unwrap().user_namespace.unwrap();
    assert_eq!(joined.map(), Some(map));
    assert!(matches!(joined, UserNamespace::Joined { path, .. } if path == Path::new("/proc/1/ns/user")));
    let changed = |change: fn(&mut serde_json::Value), words: &str| {
        refused(
            |v| {
                with_user_namespace(v);
                change(v);
            },
            words,
        );
    };
    changed(|v| v["linux"]["gidMappings"] = json!([]), "gidMappings is empty");
    changed(|v| v["linux"]["uidMappings"][0]["containerID"] = json!(70000), "must map 0");
    changed(|v| v["linux"]["uidMappings"][1]["hostID"] = json!(1000), "overlap");
    changed(|v| v["linux"]["namespaces"][5] = json!({"type": "network"}), "need a user namespace");
    refused(|v| v["linux"]["namespaces"][4] = json!({"type": "user"}), "needs linux.uidMappings");
    refused(|v| v["linux"]["namespaces"][4] = json!({"type": "network", "path": "net"}), "not an absolute path");
}

#[test]
fn clocks_have_offsets() {
    let offsets = |offsets: serde_json::Value| {
        plan(&spec(|v| {
            v["linux"]["namespaces"][4] = json!({"type": "time"});
            v["linux"]["timeOffsets"] = offsets;
        }))
    };
    let both = json!({"boottime": {"secs": -7, "nanosecs": 5}, "monotonic": {"secs": 600}});
    assert_eq!(offsets(both).unwrap().time_offsets.unwrap(), "monotonic 600 0\nboottime -7 5\n");
    assert_eq!(offsets(json!({})).unwrap().time_offsets.unwrap(), "");
    let refusal = |value| offsets(value).unwrap_err().to_string();
    assert!(refusal(json!({"realtime": {"secs": 1}})).contains("no clock \"realtime\" has an offset"));
    assert!(refusal(json!({"boottime": {"nanosecs": 1_000_000_000}})).contains("more than a second"));
    refused(|v| v["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}}), "need a new time namespace");
}

#[test]
fn binds_can_be_idmapped() {
    let mount = |options: serde_json::Value, list: serde_json::Value| {
        plan(&spec(|v| {
            with_user_namespace(v);
            let (uids, gids) = (list.clone(), list);
            v["mounts"] = json!([{"destination": "/a", "type": "bind", "source": "/x", "options": options,
                "uidMappings": uids, "gidMappings": gids}]);
        }))
        .map(|plan| plan.mounts[0].id_map.clone())
    };
    let own = |text: &str| {
        let map = mount(json!(["bind", format!("idmap={text}")]), json!([]))?.unwrap().own.unwrap();
        Ok::<_, RuntimeError>((map_text(&map.users), map_text(&map.groups)))
    };
    let text = |text: &str| text.to_owned();
    assert_eq!(own("uids=0-1-10#10-11-10;gids=0-100-10").unwrap(), (text("0 1 10\n10 11 10\n"), text("0 100 10\n")));
    // Ids of the container, as its own map has them.
    assert_eq!(own("uids=@5-3-10;gids=@0-0-1").unwrap(), (text("5 100002 10\n"), text("0 1000 1\n")));
    for wrong in ["uids=1-2", "uids=a-b-c", "x=1-2-3", "uids=@0-70000-1;gids=0-0-1", "uids=0-0-1"] {
        assert!(own(wrong).is_err(), "{wrong}");
    }
    assert!(mount(json!(["bind", "ridmap"]), json!([])).unwrap().is_some_and(|map| map.below && map.own.is_none()));
    let list = json!([{"containerID": 0, "hostID": 5, "size": 1}]);
    assert!(mount(json!(["bind"]), list).unwrap().is_some_and(|map| !map.below && map.own.is_some()));
    assert!(mount(json!(["bind"]), json!([])).unwrap().is_none());
    let refuse = |mount: serde_json::Value, words: &str| refused(|v| v["mounts"] = json!([mount]), words);
    refuse(json!({"destination": "/a", "type": "bind", "source": "/x", "options": ["idmap"]}), "or a user namespace");
    refuse(
        json!({"destination": "/a", "type": "tmpfs", "options": ["idmap=uids=0-0-1;gids=0-0-1"]}),
        "only a bind can be idmapped",
    );
    refuse(json!({"destination": "/a", "type": "proc", "options": ["tmpcopyup"]}), "not for this kind of mount");
    refuse(json!({"destination": "/a", "type": "tmpfs", "options": ["copy-symlink"]}), "not for this kind of mount");
}

#[test]
fn an_overlay_is_layers_if_its_options_are_lists_of_layers() {
    let kind = |options: serde_json::Value| {
        let mount = json!([{"destination": "/a", "type": "overlay", "source": "overlay", "options": options}]);
        plan(&spec(|v| v["mounts"] = mount)).unwrap().mounts.pop().unwrap().kind
    };
    let lower: Vec<PathBuf> = vec!["/l1".into(), "/l2".into()];
    let layers = |written| MountKind::Layers { lower: lower.clone(), written };
    let written = Written { upper: "/u".into(), work: "/w".into() };
    assert_eq!(kind(json!(["ro", "lowerdir+=/l1", "lowerdir+=/l2"])), layers(None));
    let options = json!(["upperdir=/u", "lowerdir+=/l1", "workdir=/w", "lowerdir+=/l2"]);
    assert_eq!(kind(options), layers(Some(written)));
    for other in [
        json!(["lowerdir=/l1:/l2"]),
        json!(["lowerdir+=/l1", "upperdir=/u"]),
        json!(["lowerdir+=/l1", "upperdir=/u", "workdir=/w", "metacopy=on"]),
        json!(["lowerdir+=/l1", "upperdir=/u", "workdir=/w", "upperdir=/v"]),
        json!(["upperdir=/u", "workdir=/w"]),
        json!(["lowerdir+"]),
        json!([]),
    ] {
        assert!(matches!(kind(other.clone()), MountKind::New { .. }), "{other}");
    }
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
