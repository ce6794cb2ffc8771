use dozen_model::Digest;
use serde_json::json;

use super::*;
use crate::convert::{fields, request};

fn image() -> ImageId {
    ImageId::new(Digest::from_sha256([7; 32]))
}

fn convert(body: Value, config: Value) -> Result<(ContainerSpec, Vec<String>), ApiError> {
    let request: Create = request::read(body, fields::CREATE)?;
    let defaults = ImageDefaults::of(&json!({ "config": config }))?;
    let find = |name: &str| match name {
        "web" => Ok("ab".repeat(32).parse().unwrap()),
        _ => Err(ApiError::new(dozen_model::ErrorKind::NotFound, format!("No such container: {name}"))),
    };
    spec(&request, image(), &defaults, &find)
}

#[track_caller]
fn made(body: Value, config: Value) -> ContainerSpec {
    convert(body, config).unwrap().0
}

#[track_caller]
fn refused(body: Value, status: u16, words: &str) {
    let mut whole = json!({ "Image": "x", "Cmd": ["sh"] });
    for (key, value) in body.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let error = convert(whole, json!({})).unwrap_err();
    assert!(error.message.contains(words) && error.status() == status, "{} {}", error.status(), error.message);
}

/// As the docker CLI 28.2 sends it for `docker create -it -p 8080:80 -v /a:/b --tmpfs /t debian sh`.
const CLI_28: &str = r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"ExposedPorts":{"80/tcp":{}},"Tty":true,"OpenStdin":true,"StdinOnce":true,"Env":null,"Cmd":["sh"],"Image":"debian","Volumes":{},"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{},"HostConfig":{"Binds":["/a:/b"],"ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"default","PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[0,0],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,"IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"Tmpfs":{"/t":""},"UTSMode":"","UsernsMode":"","ShmSize":0,"Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,"DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,"PidsLimit":0,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,"MaskedPaths":null,"ReadonlyPaths":null},"NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}}}}"#;

#[test]
fn the_clis_own_request_is_taken_whole() {
    let spec = made(serde_json::from_str(CLI_28).unwrap(), json!({ "Cmd": ["bash"] }));
    assert_eq!(spec.process.command, ["sh"]);
    assert_eq!((spec.process.terminal, spec.process.stdin, spec.process.attach), (true, StdinMode::Once, [true; 3]));
    assert_eq!((spec.ports.len(), spec.mounts.len(), spec.network), (1, 2, NetworkMode::Bridge));
    assert_eq!(spec.shm_size_bytes, 64 << 20);
}

#[test]
fn command_and_entrypoint_merge_as_dockers() {
    #[track_caller]
    fn check(own: Value, want_entrypoint: &[&str], want_command: &[&str]) {
        let mut body = json!({ "Image": "x" });
        for (key, value) in own.as_object().unwrap() {
            body[key] = value.clone();
        }
        let spec = made(body, json!({ "Entrypoint": ["ie"], "Cmd": ["ic"] }));
        assert_eq!((spec.process.entrypoint, spec.process.command), (strings(want_entrypoint), strings(want_command)));
    }
    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }
    check(json!({}), &["ie"], &["ic"]);
    check(json!({"Cmd": ["c"]}), &["ie"], &["c"]);
    check(json!({"Cmd": "one word"}), &["ie"], &["one word"]);
    check(json!({"Entrypoint": ["e"]}), &["e"], &[]);
    check(json!({"Entrypoint": "e", "Cmd": ["c"]}), &["e"], &["c"]);
    check(json!({"Entrypoint": [""], "Cmd": ["c"]}), &[], &["c"]);
    check(json!({"Entrypoint": [], "Cmd": ["c"]}), &["ie"], &["c"]);
    let error = convert(json!({"Image": "x", "Entrypoint": [""]}), json!({"Cmd": ["ic"]})).unwrap_err();
    assert_eq!(error.message, "no command specified");
}

#[test]
fn the_users_variables_win() {
    let image = ["A=1", "B=2", "C=3"].map(str::to_owned);
    let user = ["B=x", "C", "D=4", "D=5", "E", "F=a=b"].map(str::to_owned);
    assert_eq!(environment(&image, &user).unwrap(), ["B=x", "D=5", "F=a=b", "A=1"]);
    assert_eq!(environment(&[], &["=x".to_owned()]).unwrap_err().message, "invalid environment variable: =x");
}

#[test]
fn the_images_configuration_is_merged_in() {
    let config = json!({
        "Cmd": ["c"], "User": "app", "WorkingDir": "/srv", "Labels": {"a": "image", "b": "image"},
        "ExposedPorts": {"80/tcp": {}, "90-91/udp": {}}, "Volumes": {"/data": {}, "/b": {}}, "StopSignal": "SIGQUIT",
        "Env": ["PATH=/bin"],
    });
    let body = json!({
        "Image": "x:1", "Labels": {"a": "user"}, "HostConfig": {"Binds": ["/a:/b"]}, "Volumes": {"/v": {}},
    });
    let spec = made(body, config.clone());
    assert_eq!(spec.process.user.to_string(), "app");
    assert_eq!(spec.process.working_directory, "/srv");
    assert_eq!((spec.labels["a"].as_str(), spec.labels["b"].as_str()), ("user", "image"));
    assert_eq!((spec.exposed_ports.len(), spec.mounts.len(), spec.stop.signal.number()), (3, 3, 3));
    assert_eq!((spec.process.environment, spec.image_name.as_str()), (vec!["PATH=/bin".to_owned()], "x:1"));
    let own = json!({"Image": "x", "User": "0:0", "WorkingDir": "/w/../z/", "StopSignal": "9", "StopTimeout": 3});
    let spec = made(own, config);
    assert_eq!((spec.process.user.to_string().as_str(), spec.process.working_directory.as_str()), ("0:0", "/z"));
    assert_eq!((spec.stop.signal.number(), spec.stop.timeout_s), (9, Some(3)));
}

#[test]
fn network_modes_are_understood() {
    let with = |mode: &str| json!({"Image": "x", "Cmd": ["c"], "HostConfig": {"NetworkMode": mode}});
    for (mode, want) in [
        ("", NetworkMode::Bridge),
        ("default", NetworkMode::Bridge),
        ("none", NetworkMode::None),
        ("host", NetworkMode::Host),
    ] {
        assert_eq!(made(with(mode), json!({})).network, want);
    }
    assert!(matches!(made(with("container:web"), json!({})).network, NetworkMode::Container(_)));
    refused(json!({"HostConfig": {"NetworkMode": "container:no"}}), 404, "No such container: no");
    assert_eq!(made(with("backend"), json!({})).network, NetworkMode::Network("backend".into()));
}

#[test]
fn contradictions_are_refused_in_dockers_words() {
    let mode = |more: Value| {
        let mut host = json!({"NetworkMode": "container:web"});
        for (key, value) in more.as_object().unwrap() {
            host[key] = value.clone();
        }
        json!({ "HostConfig": host })
    };
    refused(
        mode(json!({"PublishAllPorts": true})),
        400,
        "conflicting options: port publishing and the container type network mode",
    );
    refused(mode(json!({"ExtraHosts": ["a:1.1.1.1"]})), 400, "custom host-to-IP mapping");
    refused(
        json!({"Hostname": "h1", "HostConfig": {"NetworkMode": "container:web"}}),
        400,
        "hostname and the network mode",
    );
    let body = json!({"Image": "x", "Cmd": ["c"], "HostConfig": {"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "1"}]}}});
    let (spec, warnings) = convert(body, json!({})).unwrap();
    assert_eq!((spec.ports, warnings.len()), (vec![], 1));
}

#[test]
fn bad_values_are_refused() {
    refused(
        json!({"WorkingDir": "srv"}),
        400,
        "the working directory 'srv' is invalid, it needs to be an absolute path",
    );
    refused(json!({"StopSignal": "SIGNOPE"}), 400, "invalid signal: SIGNOPE");
    refused(json!({"User": "a:b:c"}), 400, "invalid user");
    refused(json!({"Hostname": "a b"}), 400, "invalid hostname");
    refused(json!({"Hostname": "a".repeat(65)}), 400, "invalid hostname");
    refused(json!({"Cmd": ["a\0b"]}), 400, "null byte");
    refused(json!({"Env": ["=1"]}), 400, "invalid environment variable");
    refused(json!({"HostConfig": {"ShmSize": -1}}), 400, "SHM size can not be less than 0");
    refused(json!({"HostConfig": {"ExtraHosts": ["a"]}}), 400, "bad format for add-host");
    refused(json!({"HostConfig": {"ExtraHosts": ["a:nowhere"]}}), 400, "invalid IP address in add-host");
    refused(json!({"HostConfig": {"ExtraHosts": ["a\n1.2.3.4 b:1.1.1.1"]}}), 400, "bad format for add-host");
    refused(
        json!({"HostConfig": {"LogConfig": {"Type": "splunk"}}}),
        501,
        "the log driver \"splunk\" is not built yet",
    );
    refused(json!({"HostConfig": {"LogConfig": {"Config": {"tag": "{{.X}}"}}}}), 400, "the log option tag");
    refused(json!({"HostConfig": {"LogConfig": {"Config": {"x": "x"}}}}), 400, "unknown log opt 'x'");
    refused(json!({"HostConfig": {"KernelMemory": 5}}), 501, "HostConfig.KernelMemory is not built yet");
    refused(json!({"Tty": "yes"}), 400, "invalid request");
}

#[test]
fn hosts_parse() {
    let entry = |text: &str| host_entry(text).map(|e| (e.name, e.address.map(|a| a.to_string())));
    assert_eq!(entry("a:1.2.3.4"), Ok(("a".into(), Some("1.2.3.4".into()))));
    assert_eq!(entry("a=[::1]"), Ok(("a".into(), Some("::1".into()))));
    assert_eq!(entry("a:::1"), Ok(("a".into(), Some("::1".into()))));
    assert_eq!(entry("up:host-gateway"), Ok(("up".into(), None)));
}

#[test]
fn a_health_check_is_the_images_unless_the_user_says_otherwise() {
    let image = json!({"Cmd": ["c"], "Shell": ["/bin/ash", "-ec"], "Healthcheck": {"Test": ["CMD-SHELL", "true"]}});
    let command = |body: Value| {
        let (spec, warnings) = convert(body, image.clone()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        spec.health.unwrap().command()
    };
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    assert_eq!(command(json!({"Image": "x"})), words(&["/bin/ash", "-ec", "true"]));
    assert_eq!(command(json!({"Image": "x", "Healthcheck": {"Test": ["CMD", "own"]}})), words(&["own"]));
    assert_eq!(command(json!({"Image": "x", "Healthcheck": {"Test": ["NONE"]}})), None);
    let refused = json!({"Image": "x", "HostConfig": {"AutoRemove": true, "OnUnhealthy": "restart"}});
    assert!(convert(refused, image).unwrap_err().message.contains("can't create 'AutoRemove' container"));
}

proptest::proptest! {
    #[test]
    fn no_request_panics(host in "\\PC{0,12}", dir in "\\PC{0,12}", env in "\\PC{0,12}", user in "\\PC{0,12}", mode in "\\PC{0,12}") {
        let _ = convert(
            json!({"Image": "x", "Hostname": host, "WorkingDir": dir, "Env": [env], "User": user, "Cmd": ["a"],
                   "HostConfig": {"NetworkMode": mode, "ExtraHosts": [host], "SecurityOpt": [dir]}}),
            json!({"Env": [user]}),
        );
    }
}

/// Of a field that acts: a value of it, and that what becomes of it is not what would be without.
#[test]
fn every_field_that_acts_makes_a_difference() {
    let create = json!({
        "Hostname": "h", "Domainname": "d", "User": "u", "AttachStdin": true, "AttachStdout": true,
        "AttachStderr": true, "ExposedPorts": { "7/tcp": {} }, "Tty": true, "OpenStdin": true, "StdinOnce": true,
        "Env": ["A=1"], "Cmd": ["other"], "Image": "other", "Volumes": { "/v": {} }, "WorkingDir": "/w",
        "Entrypoint": ["e"], "Labels": { "a": "b" }, "StopSignal": "INT", "StopTimeout": 3,
    });
    let host = json!({
        "Binds": ["/a:/b"], "LogConfig": { "Config": { "max-size": "1m" } }, "NetworkMode": "none",
        "PortBindings": { "7/tcp": [{ "HostPort": "8" }] }, "AutoRemove": true, "ConsoleSize": [3, 4],
        "CapAdd": ["NET_ADMIN"], "CapDrop": ["CHOWN"], "ExtraHosts": ["a:1.2.3.4"], "Privileged": true,
        "Dns": ["1.2.3.4"], "DnsOptions": ["use-vc"], "DnsSearch": ["x"],
        "PublishAllPorts": true, "ReadonlyRootfs": true, "SecurityOpt": ["no-new-privileges"], "Tmpfs": { "/t": "" },
        "PidMode": "host", "IpcMode": "none",
        "UTSMode": "host", "CgroupnsMode": "host", "GroupAdd": ["7"], "Sysctls": { "net.core.somaxconn": "1" },
        "Annotations": { "a": "b" }, "VolumesFrom": ["other"], "VolumeDriver": "plugin",
        "ShmSize": 4096, "Init": true, "MaskedPaths": [], "ReadonlyPaths": [], "OnUnhealthy": "stop",
        "OomScoreAdj": 5, "CpuShares": 7, "CgroupParent": "/team",
        "Memory": 64 << 20, "NanoCpus": 500_000_000, "BlkioWeight": 10, "CpuPeriod": 5000, "CpuQuota": 5000,
        "CpusetCpus": "0", "CpusetMems": "0", "MemoryReservation": 64 << 20, "MemorySwap": -1, "MemorySwappiness": 5,
        "OomKillDisable": true, "PidsLimit": 5, "DeviceCgroupRules": ["c 1:3 r"],
    });
    let base = json!({ "Image": "x", "Cmd": ["c"] });
    let acts = |table: fields::Fields| {
        let acts = table.iter().filter(|(_, field)| matches!(field, fields::Field::Acts));
        acts.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    for (table, samples, is_host) in [(fields::CREATE, &create, false), (fields::HOST_CONFIG, &host, true)] {
        let names = acts(table);
        for (name, sample) in samples.as_object().unwrap() {
            assert!(names.contains(&name.as_str()), "{name} does not act: its sample is in vain");
            // What means something only together with another.
            let mut before = base.clone();
            match name.as_str() {
                "StdinOnce" => before["OpenStdin"] = json!(true),
                "MaskedPaths" => before["HostConfig"] = json!({ "ReadonlyPaths": [] }),
                "ReadonlyPaths" => before["HostConfig"] = json!({ "MaskedPaths": [] }),
                "VolumeDriver" => before["Volumes"] = json!({ "/v": {} }),
                "OnUnhealthy" => before["Healthcheck"] = json!({ "Test": ["CMD", "true"] }),
                _ => {}
            }
            let mut after = before.clone();
            if is_host {
                after["HostConfig"][name] = sample.clone();
            } else {
                after[name] = sample.clone();
            }
            let shown = |body: Value| convert(body, json!({})).map(|(spec, _)| spec).map_err(|error| error.message);
            assert_ne!(shown(before), shown(after), "{name} makes no difference");
        }
        // `endpoints` has its tests: it is a place's on a network. So has `user_namespace`, which is decided after all else.
        for name in names.into_iter().filter(|name| !["MacAddress", "UsernsMode"].contains(name)) {
            assert!(samples.get(name).is_some(), "{name} has no sample");
        }
    }
}
