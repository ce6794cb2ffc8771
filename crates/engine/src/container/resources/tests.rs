use dozen_model::{MemorySpec, Ulimit};
use serde_json::{Value, json};

use super::*;

const VERSION_1: fn() -> HostResources =
    || HostResources { cpus: "0-7".into(), memory_nodes: "0".into(), swappiness: true, ..HostResources::default() };

#[track_caller]
fn check_limits(change: impl FnOnce(&mut ResourceSpec), expected: Value) {
    let mut asked = ResourceSpec::default();
    change(&mut asked);
    let limits = limits(&asked, &|path| Ok((8, i64::from(path.ends_with("sdb"))))).unwrap();
    assert_eq!(serde_json::to_value(limits).unwrap(), expected);
}

#[test]
fn limits_become_the_runtimes() {
    check_limits(|_| {}, json!({}));
    check_limits(
        |asked| asked.cpu.nano_cpus = Some(1_500_000_000),
        json!({"cpu": {"quota": 150_000, "period": 100_000}}),
    );
    check_limits(|asked| asked.cpu.quota_us = Some(-1), json!({"cpu": {"quota": -1}}));
    check_limits(
        |asked| {
            asked.cpu.shares = Some(512);
            asked.cpu.cpus = "0-1".into();
            asked.cpu.memory_nodes = "0".into();
        },
        json!({"cpu": {"shares": 512, "cpus": "0-1", "mems": "0"}}),
    );
    check_limits(
        |asked| {
            asked.memory = MemorySpec {
                limit_bytes: Some(64 << 20),
                with_swap_bytes: Some(128 << 20),
                reservation_bytes: Some(32 << 20),
                swappiness: Some(7),
                oom_kill_disabled: true,
            }
        },
        json!({"memory": {
            "limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20, "swappiness": 7, "disableOOMKiller": true,
        }}),
    );
    check_limits(|asked| asked.pids_max = Some(50), json!({"pids": {"limit": 50}}));
    let rate = |path: &str, rate| vec![BlockDeviceRate { path: path.into(), rate }];
    check_limits(
        |asked| {
            asked.block_io.weight = Some(300);
            asked.block_io.device_weights = rate("/dev/sda", 20);
            asked.block_io.read_bps = rate("/dev/sdb", 1 << 20);
            asked.block_io.write_iops = rate("/dev/sda", 10);
        },
        json!({"blockIO": {
            "weight": 300,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 20}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 1 << 20}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 10}],
        }}),
    );
}

#[track_caller]
fn check_difference(host: &HostResources, before: &ResourceSpec, after: &ResourceSpec, there: Value, back: Value) {
    assert_eq!(serde_json::to_value(difference(before, after, host)).unwrap(), there);
    assert_eq!(serde_json::to_value(difference(after, before, host)).unwrap(), back);
}

#[test]
fn a_change_names_what_is_changed_and_can_be_taken_back() {
    let none = ResourceSpec::default();
    let host = VERSION_1();
    check_difference(&host, &none, &none, json!({}), json!({}));
    let mut after = ResourceSpec::default();
    after.cpu.nano_cpus = Some(500_000_000);
    after.cpu.shares = Some(2);
    after.cpu.cpus = "1".into();
    check_difference(
        &host,
        &none,
        &after,
        json!({"cpu": {"quota": 50_000, "period": 100_000, "shares": 2, "cpus": "1"}}),
        json!({"cpu": {"quota": -1, "period": 100_000, "shares": 1024, "cpus": "0-7"}}),
    );
    let (mut before, mut after) = (ResourceSpec::default(), ResourceSpec::default());
    before.memory.limit_bytes = Some(64 << 20);
    before.memory.with_swap_bytes = Some(128 << 20);
    before.pids_max = Some(9);
    after.memory = MemorySpec { limit_bytes: Some(100 << 20), ..before.memory.clone() };
    after.block_io.weight = Some(20);
    check_difference(
        &host,
        &before,
        &after,
        json!({"memory": {"limit": 100 << 20, "swap": 128 << 20}, "pids": {"limit": -1}, "blockIO": {"weight": 20}}),
        json!({"memory": {"limit": 64 << 20, "swap": 128 << 20}, "pids": {"limit": 9}}),
    );
    let mut reserved = ResourceSpec::default();
    reserved.memory.reservation_bytes = Some(1 << 20);
    let there = json!({"memory": {"reservation": 1 << 20}});
    check_difference(&host, &none, &reserved, there.clone(), json!({"memory": {"reservation": -1}}));
    let version_2 = HostResources { swappiness: false, ..VERSION_1() };
    check_difference(&version_2, &none, &reserved, there, json!({"unified": {"memory.low": "0"}}));
}

#[test]
fn limits_of_processes_beyond_the_hosts_are_refused() {
    let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                  Max open files            1024                 20000                files     \n\
                  Max stack size            8388608              unlimited            bytes     \n";
    assert_eq!(hard_limit(limits, "nofile"), Some(20_000));
    assert_eq!(hard_limit(limits, "stack"), Some(u64::MAX));
    assert_eq!(hard_limit(limits, "core"), None);
    let limit = |name: &str, hard| Ulimit { name: name.into(), soft: 1, hard };
    for (limit, may_raise, own, refused) in [
        (limit("nofile", 20_000), false, Some(20_000), None),
        (limit("nofile", 20_001), false, Some(20_000), Some("20001 is above the engine's own")),
        (limit("nofile", 20_001), true, Some(20_000), None),
        (limit("nofile", 1 << 21), true, Some(20_000), Some("2097152 is above fs.nr_open, 1048576")),
        (limit("nproc", -1), false, Some(5), Some("unlimited is above")),
        (limit("nproc", -1), false, Some(u64::MAX), None),
        (limit("core", -1), false, None, None),
    ] {
        let result = check_ulimit(&limit, may_raise, own, Some(1 << 20));
        match refused {
            None => assert!(result.is_ok(), "{limit:?}: {result:?}"),
            Some(words) => assert!(result.unwrap_err().to_string().contains(words), "{limit:?}"),
        }
    }
    for name in Ulimit::NAMES {
        assert_eq!(rlimit(&limit(name, -1)).hard(), u64::MAX);
        assert!(hard_limit(&std::fs::read_to_string("/proc/self/limits").unwrap(), name).is_some(), "{name}");
    }
}

#[test]
fn only_block_devices_have_rates() {
    assert!(block_device(Path::new("/dev/null")).unwrap_err().to_string().contains("/dev/null is no block device"));
    assert!(block_device(Path::new("/dev/no-such-device")).is_err());
}
