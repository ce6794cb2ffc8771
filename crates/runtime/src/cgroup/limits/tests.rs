use super::*;

const V1: &str = "1 1 0:1 / /c/cpu rw - cgroup c rw,cpu\n1 1 0:2 / /c/memory rw - cgroup c rw,memory\n\
    1 1 0:3 / /c/devices rw - cgroup c rw,devices\n1 1 0:4 / /c/pids rw - cgroup c rw,pids\n\
    1 1 0:5 / /c/blkio rw - cgroup c rw,blkio\n1 1 0:6 / /c/net rw - cgroup c rw,net_cls,net_prio";
/// A hybrid as systemd mounts it: version 2 has the processes, and a controller that version 1 does not want.
const HYBRID: &str = "1 1 0:2 / /c/memory rw - cgroup c rw,memory\n1 1 0:9 / /c/unified rw - cgroup2 c rw";
const V2: &str = "1 1 0:9 / /c rw - cgroup2 c rw";

fn layout(mountinfo: &str) -> CgroupLayout {
    let controllers = match mountinfo {
        V2 => &["cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma"][..],
        _ => &["hugetlb", "rdma"],
    };
    CgroupLayout::parse(mountinfo).with_unified_controllers(controllers)
}

fn decided(mountinfo: &str, resources: &str, present: Present<'_>) -> Result<Vec<String>, String> {
    let resources: LinuxResources = serde_json::from_str(resources).unwrap();
    let (layout, name) = (layout(mountinfo), Path::new("x"));
    let first = decide_first(&layout, name, &resources);
    let settings = first.and_then(|mut first| {
        first.extend(decide(&layout, name, &resources, present)?);
        Ok(first)
    });
    let line = |setting: Setting| {
        let instead = match setting.if_absent {
            IfAbsent::Fail => String::new(),
            IfAbsent::Pass => " or not".to_owned(),
            IfAbsent::Write(file, value) => format!(" or {file} = {value}"),
        };
        let (directory, file, value) = (setting.directory.display(), setting.file, setting.value);
        let directory = directory.to_string();
        format!("{}/{file} = {value}{instead}", directory.trim_start_matches("/c/").trim_end_matches("/x"))
    };
    settings.map(|settings| settings.into_iter().map(line).collect()).map_err(|error| error.to_string())
}

#[track_caller]
fn check(mountinfo: &str, resources: &str, expected: &[&str]) {
    assert_eq!(decided(mountinfo, resources, &|_, _| None).unwrap(), expected, "{resources}");
}

#[track_caller]
fn refused(mountinfo: &str, resources: &str, why: &str) {
    let error = decided(mountinfo, resources, &|_, _| None).unwrap_err();
    assert!(error.contains(why), "{resources}: {error}");
}

#[test]
fn memory() {
    check(V1, "{}", &[]);
    let both = r#"{"memory": {"limit": 1048576, "swap": 3145728, "reservation": 524288}}"#;
    check(
        V1,
        both,
        &[
            "memory/memory.limit_in_bytes = 1048576",
            "memory/memory.memsw.limit_in_bytes = 3145728",
            "memory/memory.soft_limit_in_bytes = 524288",
        ],
    );
    check(HYBRID, r#"{"memory": {"limit": 5}}"#, &["memory/memory.limit_in_bytes = 5"]);
    check(V2, both, &["x/memory.max = 1048576", "x/memory.swap.max = 2097152", "x/memory.low = 524288"]);
    check(V2, r#"{"memory": {"limit": 7, "swap": 7}}"#, &["x/memory.max = 7", "x/memory.swap.max = 0 or not"]);
    let none = r#"{"memory": {"limit": -1}}"#;
    check(V1, none, &["memory/memory.limit_in_bytes = -1", "memory/memory.memsw.limit_in_bytes = -1 or not"]);
    check(V2, none, &["x/memory.max = max", "x/memory.swap.max = max or not"]);
    check(V2, r#"{"memory": {"limit": -1, "swap": 9}}"#, &["x/memory.max = max", "x/memory.swap.max = 9"]);
    let old = r#"{"memory": {"kernel": -1, "kernelTCP": 4096, "swappiness": 10, "disableOOMKiller": true,
        "useHierarchy": true}}"#;
    check(
        V1,
        old,
        &[
            "memory/memory.use_hierarchy = 1",
            "memory/memory.kmem.limit_in_bytes = -1",
            "memory/memory.kmem.tcp.limit_in_bytes = 4096",
            "memory/memory.swappiness = 10",
            "memory/memory.oom_control = 1",
        ],
    );
    check(V2, r#"{"memory": {"useHierarchy": true, "disableOOMKiller": false, "kernel": -1}}"#, &[]);
    for only_version_1 in [
        r#"{"memory": {"kernel": 4096}}"#,
        r#"{"memory": {"kernelTCP": 4096}}"#,
        r#"{"memory": {"swappiness": 0}}"#,
        r#"{"memory": {"disableOOMKiller": true}}"#,
        r#"{"memory": {"useHierarchy": false}}"#,
    ] {
        refused(V2, only_version_1, "version 2 of cgroups has nothing like");
    }
    refused(V2, r#"{"memory": {"limit": 10, "swap": 9}}"#, "Minimum memoryswap limit");
    refused(V2, r#"{"memory": {"swap": 9}}"#, "without memory limit");
    refused(V1, r#"{"memory": {"limit": -2}}"#, "neither an amount nor -1");
    refused(V1, r#"{"memory": {"swappiness": 101}}"#, "between 0 and 100");
}

#[test]
fn memory_that_is_limited_already() {
    let limit = |_: &str, file: &str| (file == "memory.max").then(|| "100\n".to_owned());
    let swap = r#"{"memory": {"swap": 150}}"#;
    assert_eq!(decided(V2, swap, &limit).unwrap(), ["x/memory.swap.max = 50"]);
    let unlimited = |_: &str, file: &str| (file == "memory.max").then(|| "max\n".to_owned());
    assert_eq!(decided(V2, swap, &unlimited).unwrap(), ["x/memory.swap.max = 150"]);
    let oom = |_: &str, file: &str| (file == "memory.oom_control").then(String::new);
    let enable = r#"{"memory": {"disableOOMKiller": false}}"#;
    assert_eq!(decided(V1, enable, &oom).unwrap(), ["memory/memory.oom_control = 0"]);
}

#[test]
fn processors() {
    let cpu = r#"{"cpu": {"shares": 512, "quota": 50000, "period": 20000, "burst": 1000, "idle": 0}}"#;
    check(
        V1,
        cpu,
        &[
            "cpu/cpu.shares = 512",
            "cpu/cpu.cfs_burst_us = 1000",
            "cpu/cpu.cfs_period_us = 20000",
            "cpu/cpu.cfs_quota_us = 50000",
        ],
    );
    check(V2, cpu, &["x/cpu.weight = 20", "x/cpu.max.burst = 1000", "x/cpu.max = 50000 20000"]);
    check(V2, r#"{"cpu": {"quota": -1}}"#, &["x/cpu.max = max 100000"]);
    check(
        V2,
        r#"{"cpu": {"idle": 1, "cpus": "0-1", "mems": "0"}}"#,
        &["x/cpu.idle = 1", "x/cpuset.cpus = 0-1", "x/cpuset.mems = 0"],
    );
    let realtime = r#"{"cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 5000}}"#;
    check(V1, realtime, &["cpu/cpu.rt_period_us = 1000000", "cpu/cpu.rt_runtime_us = 5000"]);
    refused(V2, realtime, "nothing like cpu.rt_period_us");
    refused(V1, r#"{"cpu": {"cpus": "0"}}"#, "no cgroup controller \"cpuset\"");
    refused(V1, r#"{"cpu": {"quota": 10000, "burst": 10001}}"#, "more than the quota");
    assert_eq!([2, 1024, 262_144].map(cpu::weight_of_shares), [1, 39, 10_000]);
}

/// Version 2 has both in one file: what is not named stays.
#[test]
fn half_of_a_quota_is_changed() {
    let now = |_: &str, file: &str| (file == "cpu.max").then(|| "30000 60000\n".to_owned());
    assert_eq!(decided(V2, r#"{"cpu": {"quota": 20000}}"#, &now).unwrap(), ["x/cpu.max = 20000 60000"]);
    assert_eq!(decided(V2, r#"{"cpu": {"period": 50000}}"#, &now).unwrap(), ["x/cpu.max = 30000 50000"]);
    assert_eq!(decided(V2, r#"{"cpu": {"quota": -1}}"#, &now).unwrap(), ["x/cpu.max = max 60000"]);
}

#[test]
fn processes() {
    check(V1, r#"{"pids": {"limit": 5}}"#, &["pids/pids.max = 5"]);
    check(V2, r#"{"pids": {"limit": -1}}"#, &["x/pids.max = max"]);
    // 0 says nothing, and no limit needs no controller.
    check(V2, r#"{"pids": {"limit": 0}}"#, &[]);
    check(HYBRID, r#"{"pids": {"limit": -1}}"#, &[]);
    refused(HYBRID, r#"{"pids": {"limit": 1}}"#, "no cgroup controller \"pids\"");
}

#[test]
fn block_devices() {
    let weights = r#"{"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}}"#;
    check(
        V1,
        weights,
        &[
            "blkio/blkio.weight = 500 or blkio.bfq.weight = 500",
            "blkio/blkio.weight_device = 8:0 10 or blkio.bfq.weight_device = 8:0 10",
        ],
    );
    check(
        V2,
        weights,
        &["x/io.bfq.weight = 500 or io.weight = default 4950", "x/io.bfq.weight = 8:0 10 or io.weight = 8:0 1"],
    );
    let leaves = r#"{"blockIO": {"leafWeight": 10, "weightDevice": [{"major": 8, "minor": 1, "leafWeight": 20}]}}"#;
    check(V1, leaves, &["blkio/blkio.leaf_weight = 10", "blkio/blkio.leaf_weight_device = 8:1 20"]);
    refused(V2, leaves, "nothing like blkio.leaf_weight");
    let throttles = r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}]}}"#;
    check(
        V1,
        throttles,
        &["blkio/blkio.throttle.read_bps_device = 8:0 600", "blkio/blkio.throttle.write_iops_device = 8:0 0"],
    );
    check(V2, throttles, &["x/io.max = 8:0 rbps=600", "x/io.max = 8:0 wiops=max"]);
    refused(V1, r#"{"blockIO": {"weight": 9}}"#, "not between 10 and 1000");
    refused(V1, r#"{"blockIO": {"weightDevice": [{"major": 8, "minor": 1}]}}"#, "no weight");
    assert_eq!([10, 1000].map(io::weight_of_blkio), [1, 10_000]);
}

#[test]
fn huge_pages_networks_and_rdma() {
    let huge = r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#;
    // A controller of version 2 beside version 1's.
    check(HYBRID, huge, &["unified/hugetlb.2MB.rsvd.max = 4194304 or not", "unified/hugetlb.2MB.max = 4194304"]);
    refused(V1, huge, "no cgroup controller \"hugetlb\", which a limit needs (for hugetlb.2MB.rsvd.limit_in_bytes)");
    refused(V2, r#"{"hugepageLimits": [{"pageSize": "2MB/../x", "limit": 1}]}"#, "is no size");
    let network = r#"{"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]}}"#;
    check(V1, network, &["net/net_cls.classid = 1048577", "net/net_prio.ifpriomap = eth0 5"]);
    refused(V2, network, "\"net_cls\"");
    let rdma = r#"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "a": {"hcaObjects": 1}}}"#;
    check(V2, rdma, &["x/rdma.max = a hca_object=1", "x/rdma.max = mlx5_1 hca_handle=3 hca_object=10000"]);
    refused(V2, r#"{"rdma": {"a": {}}}"#, "neither hcaHandles nor hcaObjects");
    refused(V1, rdma, "no cgroup controller \"rdma\"");
}

#[test]
fn files_of_version_2() {
    let lines = r#"{"unified": {"io.max": "8:0 rbps=1\n8:16 wbps=2", "cgroup.max.depth": "3"}}"#;
    check(V2, lines, &["x/cgroup.max.depth = 3", "x/io.max = 8:0 rbps=1", "x/io.max = 8:16 wbps=2"]);
    check(HYBRID, r#"{"unified": {"hugetlb.2MB.max": "0"}}"#, &["unified/hugetlb.2MB.max = 0"]);
    let absent = "unified resource \"memory.max\" can't be set: controller \"memory\" not available";
    refused(HYBRID, r#"{"unified": {"memory.max": "1"}}"#, absent);
    refused(V1, r#"{"unified": {"cgroup.freeze": "1"}}"#, "invalid configuration: cannot use unified on cgroup v1");
    refused(V2, r#"{"unified": {"no.max": "1"}}"#, "unified resource \"no.max\" can't be set: controller \"no\" not");
    for bad in ["memory", "../memory.max", ".max", "memory."] {
        refused(V2, &format!(r#"{{"unified": {{"{bad}": "1"}}}}"#), "names no control file");
    }
}
