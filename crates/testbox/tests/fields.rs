//! Fields of requests that no command line's test comes across: each is asked for by the API alone, and looked at from
//! inside the container, or where the kernel has it. `api/convert/fields/named.rs` names the test of every field.

#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code, reason = "the golden test has use for all of it")]
#[path = "golden/http.rs"]
mod http;

use dozen_testbox::{Engine, Machine};
use serde_json::{Value, json};

/// An engine with the busybox image, and its API.
struct Api<'a> {
    machine: &'a Machine,
    engine: Engine<'a>,
}

impl<'a> Api<'a> {
    fn on(machine: &'a Machine) -> Self {
        let engine = machine.engine();
        engine.load("busybox");
        Self { machine, engine }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let response = http::ask(&self.machine.socket(), method, path, "application/json", body.as_bytes());
        (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask("POST", path, body);
        assert!(status < 300, "{path} {body}: {status} {answer}");
        answer
    }

    fn get(&self, path: &str) -> Value {
        self.ask("GET", path, &Value::Null).1
    }

    /// A container that lives, of this name and with these fields beside; what create has answered.
    #[track_caller]
    fn lives(&self, name: &str, fields: &Value) -> Value {
        let mut body = json!({ "Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"} });
        merge(&mut body, fields);
        let made = self.post(&format!("/v1.43/containers/create?name={name}"), &body);
        self.post(&format!("/containers/{name}/start"), &Value::Null);
        made
    }

    /// What a script says in a container.
    #[track_caller]
    fn says(&self, name: &str, script: &str) -> String {
        self.engine.dozen(&["exec", name, "sh", "-c", script]).text()
    }

    /// What a cgroup's file says, by its name in version 1 and in version 2; nothing where the kernel has neither.
    fn kernel(&self, id: &str, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| {
            let script =
                format!("cat \"$(find /sys/fs/cgroup -path '*/{id}/{name}' | head -n 1)\" 2>/dev/null || true");
            Some(self.machine.run("sh", &["-c", &script]).text().trim().to_owned()).filter(|text| !text.is_empty())
        })
    }
}

/// Objects field by field; the rest is replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.iter().for_each(|(name, value)| merge(into.entry(name).or_insert(Value::Null), value));
        }
        (into, from) => *into = from.clone(),
    }
}

#[test]
fn a_console_has_its_size_from_the_beginning() {
    let machine = Machine::new();
    let dozen = Api::on(&machine);
    let size = |lines: &Value| lines.to_string();
    dozen.lives(
        "sized",
        &json!({
            "Tty": true, "Cmd": ["sh", "-c", "stty size; sleep 1000"], "HostConfig": {"ConsoleSize": [33, 111]},
        }),
    );
    dozen_testbox::until("the size is said", || {
        let log = http::ask(&machine.socket(), "GET", "/containers/sized/logs?stdout=1", "", b"").body;
        (log == b"33 111\r\n").then_some(())
    });
    assert_eq!(size(&dozen.get("/containers/sized/json")["HostConfig"]["ConsoleSize"]), "[33,111]");
    // Of an exec it may be said when it is made, and again when it is started.
    for (made, started, want) in [(json!([22, 77]), Value::Null, "22 77"), (json!([22, 77]), json!([23, 78]), "23 78")]
    {
        let exec = dozen.post(
            "/containers/sized/exec",
            &json!({
                "Cmd": ["sh", "-c", "stty size"], "Tty": true, "AttachStdout": true, "ConsoleSize": made,
            }),
        );
        let path = format!("/exec/{}/start", exec["Id"].as_str().unwrap());
        let body = json!({ "Tty": true, "ConsoleSize": started }).to_string();
        let said = http::ask(&machine.socket(), "POST", &path, "application/json", body.as_bytes()).body;
        assert_eq!(String::from_utf8_lossy(&said).trim(), want);
    }
}

#[test]
fn what_is_masked_and_read_only_is_what_was_asked() {
    let machine = Machine::new();
    let dozen = Api::on(&machine);
    let domain = "echo x >/proc/sys/kernel/domainname 2>/dev/null && echo written || echo refused; wc -c </etc/hosts";
    dozen.lives("usual", &json!({}));
    assert!(dozen.says("usual", domain).starts_with("refused\n"));
    dozen.lives("open", &json!({"HostConfig": {"MaskedPaths": [], "ReadonlyPaths": []}}));
    assert!(dozen.says("open", domain).starts_with("written\n"));
    // Lists of one's own are refused by name.
    for field in ["MaskedPaths", "ReadonlyPaths"] {
        let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {field: ["/var"]}});
        let (status, answer) = dozen.ask("POST", "/containers/create", &body);
        assert!(status == 501 && answer["message"].to_string().contains(field), "{status} {answer}");
    }
}

#[test]
fn memory_that_is_shared_or_on_tmpfs_is_as_asked() {
    let machine = Machine::new();
    let dozen = Api::on(&machine);
    dozen.lives(
        "shared",
        &json!({"HostConfig": {
            "ShmSize": 2_097_152,
            "Mounts": [{"Type": "tmpfs", "Target": "/scratch",
                "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 0o1750, "Options": [["noexec"], ["uid", "33"]]}}],
        }}),
    );
    let sizes = "df -k /dev/shm /scratch | tail -n 2 | awk '{print $2}'";
    assert_eq!(dozen.says("shared", sizes), "2048\n1024\n");
    assert_eq!(
        dozen.says("shared", "stat -c '%a %u' /scratch; grep -c ' /scratch tmpfs .*noexec' /proc/mounts"),
        "1750 33\n1\n"
    );
}

#[test]
fn a_mount_makes_its_source_and_labels_its_volume() {
    let machine = Machine::new();
    let dozen = Api::on(&machine);
    let missing = machine.directory().join("missing/source");
    let bind = |made: bool| {
        json!({"HostConfig": {"Mounts": [{"Type": "bind", "Source": missing, "Target": "/given",
            "BindOptions": {"CreateMountpoint": made}}]}, "Image": "busybox", "Cmd": ["true"]})
    };
    let (status, answer) = dozen.ask("POST", "/containers/create?name=refused", &bind(false));
    let words = answer["message"].to_string();
    assert!(status == 400 && words.contains("bind source path does not exist"), "{status} {answer}");
    assert!(!missing.exists());
    dozen.post("/containers/create?name=made", &bind(true));
    dozen.post("/containers/made/start", &Value::Null);
    assert!(missing.is_dir());
    dozen.lives(
        "labelled",
        &json!({"HostConfig": {"Mounts": [
        {"Type": "volume", "Source": "data", "Target": "/data", "VolumeOptions": {"Labels": {"a": "b"}}}]}}),
    );
    assert_eq!(dozen.get("/volumes/data")["Labels"], json!({"a": "b"}));
}

#[test]
fn limits_that_no_option_of_ours_has_are_in_force_or_a_warning() {
    let machine = Machine::new();
    let dozen = Api::on(&machine);
    let made = dozen.lives(
        "limited",
        &json!({"HostConfig": {
            "BlkioWeight": 300, "CpuPeriod": 50000, "CpuQuota": 20000, "CpusetMems": "0", "MemorySwappiness": 7,
            "OomKillDisable": true, "Memory": 67_108_864,
        }}),
    );
    let id = made["Id"].as_str().unwrap().to_owned();
    let warnings = made["Warnings"].to_string();
    for (field, names, values, lacking) in [
        ("CpuPeriod", &["cpu.cfs_period_us", "cpu.max"][..], &["50000", "20000 50000"][..], "CPU CFS"),
        ("CpuQuota", &["cpu.cfs_quota_us", "cpu.max"], &["20000", "20000 50000"], "CPU CFS"),
        ("CpusetMems", &["cpuset.mems"], &["0"], "cpuset"),
        ("MemorySwappiness", &["memory.swappiness"], &["7"], "swappiness"),
        ("OomKillDisable", &["memory.oom_control"], &["oom_kill_disable 1"], "OomKillDisable"),
        (
            "BlkioWeight",
            &["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"],
            &["300", "default 300", "default 2930"],
            "Block I/O weight",
        ),
    ] {
        match dozen.kernel(&id, names) {
            Some(value) if !warnings.contains(lacking) => {
                assert!(values.iter().any(|want| value.lines().any(|line| line == *want)), "{field}: {value}");
            }
            _ => assert!(warnings.contains(lacking), "{field} is neither in force nor a warning: {warnings}"),
        }
    }
}

#[test]
fn an_update_changes_every_limit_that_it_may() {
    let machine = Machine::new();
    let dozen = Api::on(&machine);
    let made = dozen.lives("changed", &json!({}));
    let id = made["Id"].as_str().unwrap().to_owned();
    let answer = dozen.post(
        "/containers/changed/update",
        &json!({
            "CpuShares": 512, "CpuPeriod": 50000, "CpuQuota": 20000, "CpusetMems": "0", "MemoryReservation": 33_554_432,
            "BlkioWeight": 300,
        }),
    );
    let warnings = answer["Warnings"].to_string();
    for (field, names, values) in [
        ("CpuShares", &["cpu.shares", "cpu.weight"][..], &["512", "20"][..]),
        ("CpuPeriod", &["cpu.cfs_period_us", "cpu.max"], &["50000", "20000 50000"]),
        ("CpuQuota", &["cpu.cfs_quota_us", "cpu.max"], &["20000", "20000 50000"]),
        ("CpusetMems", &["cpuset.mems"], &["0"]),
        ("MemoryReservation", &["memory.soft_limit_in_bytes", "memory.low"], &["33554432"]),
    ] {
        let value = dozen.kernel(&id, names).unwrap_or_else(|| panic!("no {names:?}"));
        assert!(values.contains(&value.as_str()), "{field}: {value}");
    }
    match dozen.kernel(&id, &["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"]) {
        Some(value) if !warnings.contains("Block I/O weight") => {
            assert!(
                ["300", "default 300", "default 2930"].iter().any(|want| value.lines().any(|line| line == *want)),
                "{value}"
            );
        }
        _ => assert!(warnings.contains("Block I/O weight"), "neither in force nor a warning: {warnings}"),
    }
}

#[test]
fn rates_of_a_device_are_in_force_or_a_warning() {
    let machine = Machine::new();
    let dozen = Api::on(&machine);
    // A loop device is a disk that every machine has, whether or not somebody's file is in it.
    let device = "/dev/loop0";
    machine.run("sh", &["-c", "[ -b /dev/loop0 ] || mknod /dev/loop0 b 7 0"]).expect(0);
    let rate = |rate: u64| json!([{"Path": device, "Rate": rate}]);
    let made = dozen.lives(
        "slow",
        &json!({"HostConfig": {
            "BlkioDeviceReadBps": rate(1001), "BlkioDeviceWriteBps": rate(1002), "BlkioDeviceReadIOps": rate(1003),
            "BlkioDeviceWriteIOps": rate(1004),
        }}),
    );
    let id = made["Id"].as_str().unwrap().to_owned();
    let warnings = made["Warnings"].to_string();
    for (file, key, value, lacking) in [
        ("blkio.throttle.read_bps_device", "rbps", 1001, "BPS Block I/O read limit"),
        ("blkio.throttle.write_bps_device", "wbps", 1002, "BPS Block I/O write limit"),
        ("blkio.throttle.read_iops_device", "riops", 1003, "IOPS Block read limit"),
        ("blkio.throttle.write_iops_device", "wiops", 1004, "IOPS Block write limit"),
    ] {
        match dozen.kernel(&id, &[file, "io.max"]) {
            Some(text) => {
                let ours = text.lines().find(|line| line.starts_with("7:0 ")).unwrap_or_default();
                assert!(ours == format!("7:0 {value}") || ours.contains(&format!("{key}={value}")), "{file}: {text}");
            }
            None => assert!(warnings.contains(lacking), "{file} is neither in force nor a warning: {warnings}"),
        }
    }
    // A weight is for schedulers that know weights: a kernel without, or a device, says no to it by its file's name.
    let weighted = json!({"Image": "busybox", "Cmd": ["sleep", "1000"],
        "HostConfig": {"NetworkMode": "none", "BlkioWeightDevice": [{"Path": device, "Weight": 300}]}});
    let made = dozen.post("/containers/create?name=weighted", &weighted);
    let (status, answer) = dozen.ask("POST", "/containers/weighted/start", &Value::Null);
    let files = ["blkio.weight_device", "blkio.bfq.weight_device", "io.bfq.weight", "io.weight"];
    match dozen.kernel(made["Id"].as_str().unwrap(), &files) {
        Some(text) if status == 204 && text.lines().any(|line| line.starts_with("7:0 ")) => {}
        _ => {
            let said = format!("{} {}", made["Warnings"], answer["message"]);
            assert!(
                said.contains("weight_device") || said.contains("7:0 "),
                "neither in force nor said: {status} {said}"
            );
        }
    }
}

#[test]
fn an_exec_may_have_all_rights_and_keys_to_leave_by() {
    let machine = Machine::new();
    let dozen = Api::on(&machine);
    dozen.lives("plain", &json!({}));
    let mount = ["plain", "sh", "-c", "mount -t tmpfs x /tmp 2>/dev/null && echo mounted || echo refused"];
    assert_eq!(dozen.engine.docker(&[&["exec"][..], &mount].concat()).text(), "refused\n");
    assert_eq!(dozen.engine.docker(&[&["exec", "--privileged"][..], &mount].concat()).text(), "mounted\n");
    let docker = dozen_testbox::docker_program();
    let mut screen = machine.screen(&docker, &["exec", "-it", "--detach-keys", "ctrl-a", "plain", "sh"]);
    screen.type_in("echo he''re\r");
    screen.shows("here\r\n");
    screen.type_in("\x01");
    screen.end();
    assert_eq!(dozen.get("/containers/plain/json")["State"]["Running"], json!(true));
}

#[test]
fn a_network_gives_the_addresses_that_it_was_told_to() {
    let machine = Machine::new();
    let dozen = Api::on(&machine);
    dozen.post(
        "/networks/create",
        &json!({
            "Name": "planned", "EnableIPv4": true, "EnableIPv6": true, "Attachable": true,
            "Options": {"com.docker.network.driver.mtu": "1400", "com.docker.network.bridge.name": "planned0"},
            "IPAM": {"Config": [
                {"Subnet": "10.88.0.0/16", "IPRange": "10.88.5.0/30", "Gateway": "10.88.0.254",
                 "AuxiliaryAddresses": {"router": "10.88.5.1"}},
                {"Subnet": "fd88::/64", "Gateway": "fd88::fe"},
            ]},
        }),
    );
    let on = |name: &str, place: Value| {
        let body = json!({"HostConfig": {"NetworkMode": "planned"},
            "NetworkingConfig": {"EndpointsConfig": {"planned": place}}, "MacAddress": "02:42:0a:58:00:0a"});
        let mut body = body;
        if name != "first" {
            body["MacAddress"] = json!("");
        }
        dozen.lives(name, &body);
        dozen.get(&format!("/containers/{name}/json"))["NetworkSettings"]["Networks"]["planned"].clone()
    };
    let first = on("first", json!({}));
    let address = first["IPAddress"].as_str().unwrap();
    // Of the range's four, one is the router's.
    assert!(["10.88.5.0", "10.88.5.2", "10.88.5.3"].contains(&address), "{first}");
    assert_eq!((&first["Gateway"], &first["IPv6Gateway"]), (&json!("10.88.0.254"), &json!("fd88::fe")));
    assert_eq!(first["MacAddress"], json!("02:42:0a:58:00:0a"));
    let seen =
        "cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu; ip route | grep default; ip -6 route | grep default";
    let seen = dozen.says("first", seen);
    assert!(seen.starts_with("02:42:0a:58:00:0a\n1400\ndefault via 10.88.0.254"), "{seen}");
    assert!(seen.contains("default via fd88::fe"), "{seen}");
    let fixed = on("fixed", json!({"IPAMConfig": {"IPv4Address": "10.88.9.9", "IPv6Address": "fd88::99"}}));
    assert_eq!((&fixed["IPAddress"], &fixed["GlobalIPv6Address"]), (&json!("10.88.9.9"), &json!("fd88::99")));
    assert!(dozen.says("fixed", "ip -6 addr show dev eth0").contains("fd88::99/64"));
    // The same of one that is connected while it runs, and by force when it has gone.
    dozen.lives("late", &json!({"HostConfig": {"NetworkMode": "bridge"}}));
    let place = json!({"MacAddress": "02:42:0a:58:00:0b",
        "IPAMConfig": {"IPv4Address": "10.88.7.7", "IPv6Address": "fd88::77"}});
    dozen.post("/networks/planned/connect", &json!({"Container": "late", "EndpointConfig": place}));
    let seen = dozen.says("late", "cat /sys/class/net/eth1/address; ip addr show dev eth1");
    assert!(["02:42:0a:58:00:0b", "10.88.7.7/16", "fd88::77/64"].iter().all(|text| seen.contains(text)), "{seen}");
    let gone = |force: bool| {
        dozen.ask("POST", "/networks/planned/disconnect", &json!({"Container": "gone", "Force": force})).0
    };
    assert_eq!((gone(false), gone(true)), (404, 200));
    assert_eq!(dozen.get("/networks/planned")["Attachable"], json!(true));
    machine.run("ip", &["link", "show", "planned0"]).expect(0);
}

#[test]
fn a_container_has_the_names_that_it_was_given() {
    let machine = Machine::new();
    let dozen = Api::on(&machine);
    dozen.lives(
        "named",
        &json!({"Hostname": "front", "Domainname": "example.org", "HostConfig": {"NetworkMode": "bridge"}}),
    );
    let seen = dozen
        .says("named", "uname -n; cat /proc/sys/kernel/domainname; grep -q front.example.org /etc/hosts && echo hosts");
    assert_eq!(seen, "front\nexample.org\nhosts\n");
}
