use super::super::fields;
use super::super::request;
use super::*;

fn host() -> HostResources {
    HostResources {
        processors: 2,
        cpus: "0-1".into(),
        memory_nodes: "0".into(),
        memory: true,
        swap: true,
        reservation: true,
        swappiness: true,
        oom_kill_disable: true,
        pids: true,
        cpu_shares: true,
        cpu_quota: true,
        cpuset: true,
        block_io: true,
        block_io_weight: true,
    }
}

fn read(config: Value) -> Result<Resources, ApiError> {
    let create: request::Create = request::read(json!({ "HostConfig": config }), fields::CREATE)?;
    Ok(create.host_config.resources)
}

#[track_caller]
fn accepted(config: Value, expected: impl FnOnce(&mut ResourceSpec)) {
    let mut warnings = Vec::new();
    let asked = spec(&read(config).unwrap(), &host(), &mut warnings).unwrap();
    let mut wanted = ResourceSpec::default();
    expected(&mut wanted);
    assert_eq!((asked, warnings), (wanted, Vec::<String>::new()));
}

#[track_caller]
fn refused(config: Value, words: &str) {
    let error = read(config).and_then(|asked| spec(&asked, &host(), &mut Vec::new())).unwrap_err();
    assert!(error.message.contains(words), "{}", error.message);
}

#[test]
fn limits_are_read_as_docker_means_them() {
    accepted(json!({}), |_| {});
    accepted(json!({"Memory": 64 << 20}), |spec| {
        spec.memory.limit_bytes = Some(64 << 20);
        spec.memory.with_swap_bytes = Some(128 << 20);
    });
    accepted(json!({"Memory": 64 << 20, "MemorySwap": -1, "MemorySwappiness": 0}), |spec| {
        spec.memory.limit_bytes = Some(64 << 20);
        spec.memory.with_swap_bytes = Some(-1);
        spec.memory.swappiness = Some(0);
    });
    accepted(json!({"MemorySwappiness": -1, "PidsLimit": -1, "OomKillDisable": null, "CpuQuota": 0}), |_| {});
    accepted(json!({"PidsLimit": 0}), |_| {});
    accepted(json!({"NanoCpus": 1_500_000_000_i64, "PidsLimit": 7, "OomScoreAdj": -5}), |spec| {
        spec.cpu.nano_cpus = Some(1_500_000_000);
        spec.pids_max = Some(7);
        spec.oom_score_adjustment = -5;
    });
    accepted(json!({"CpuPeriod": 50_000, "CpuQuota": -7, "CpuShares": 2, "CpusetCpus": "0,1"}), |spec| {
        spec.cpu.period_us = Some(50_000);
        spec.cpu.quota_us = Some(-1);
        spec.cpu.shares = Some(2);
        spec.cpu.cpus = "0,1".into();
    });
    accepted(
        json!({
            "BlkioWeight": 10, "BlkioWeightDevice": [{"path": "/dev/sda", "Weight": 30}],
            "BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 5}],
        }),
        |spec| {
            spec.block_io.weight = Some(10);
            spec.block_io.device_weights = vec![BlockDeviceRate { path: "/dev/sda".into(), rate: 30 }];
            spec.block_io.write_iops = vec![BlockDeviceRate { path: "/dev/sda".into(), rate: 5 }];
        },
    );
    accepted(
        json!({"Ulimits": [{"Name": "core", "Soft": 1, "Hard": 2}, {"Name": "core", "Soft": -1, "Hard": -1}]}),
        |spec| spec.ulimits = vec![Ulimit { name: "core".into(), soft: -1, hard: -1 }],
    );
}

#[test]
fn what_cannot_be_is_refused_in_dockers_words() {
    refused(json!({"Memory": 1 << 20}), "Minimum memory limit allowed is 6MB");
    refused(json!({"Memory": -1}), "Minimum memory limit allowed is 6MB");
    refused(json!({"Memory": 64 << 20, "MemorySwap": 32 << 20}), "Minimum memoryswap limit should be larger");
    refused(json!({"MemorySwap": 32 << 20}), "You should always set the Memory limit");
    refused(json!({"MemorySwap": -2}), "invalid MemorySwap");
    refused(json!({"MemorySwappiness": 101}), "valid memory swappiness range is 0-100");
    refused(json!({"MemoryReservation": 5}), "Minimum memory reservation allowed is 6MB");
    refused(json!({"Memory": 64 << 20, "MemoryReservation": 65 << 20}), "can not be less than memory reservation");
    refused(json!({"NanoCpus": 1_000_000_000, "CpuPeriod": 1000}), "Nano CPUs and CPU Period cannot both be set");
    refused(json!({"NanoCpus": 1_000_000_000, "CpuQuota": 1000}), "Nano CPUs and CPU Quota cannot both be set");
    refused(json!({"NanoCpus": 2_000_000_001_i64}), "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs");
    refused(json!({"NanoCpus": 1}), "Range of CPUs is from 0.01");
    refused(json!({"CpuShares": -1}), "invalid CPU shares (-1)");
    refused(json!({"CpuPeriod": 999}), "CPU cfs period can not be less than 1ms");
    refused(json!({"CpuQuota": 999}), "CPU cfs quota can not be less than 1ms");
    refused(json!({"CpusetCpus": "0-2"}), "Requested CPUs are not available - requested 0-2, available: 0-1");
    refused(json!({"CpusetMems": "1"}), "Requested memory nodes are not available - requested 1, available: 0");
    refused(json!({"CpusetCpus": "all"}), "Invalid value all for cpuset cpus");
    refused(json!({"BlkioWeight": 9}), "Range of blkio weight is from 10 to 1000");
    refused(json!({"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 1001}]}), "invalid weight 1001");
    refused(json!({"BlkioDeviceReadBps": [{"Rate": 1}]}), "invalid device path");
    refused(json!({"OomScoreAdj": 1001}), "range for oom score adj is [-1000, 1000]");
    refused(json!({"Ulimits": [{"Name": "files"}]}), "invalid ulimit type: files");
    refused(json!({"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]}), "less than or equal to hard limit: 2 > 1");
    refused(json!({"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": 1}]}), "less than or equal to hard limit");
    refused(json!({"KernelMemory": 1}), "HostConfig.KernelMemory is not built yet");
    refused(json!({"CpuRealtimeRuntime": 1}), "HostConfig.CpuRealtimeRuntime is not built yet");
}

#[test]
fn what_the_kernel_lacks_is_dropped_and_said() {
    let bare = HostResources { processors: 2, ..HostResources::default() };
    let config = json!({
        "Memory": 64 << 20, "MemorySwappiness": 5, "MemoryReservation": 8 << 20, "OomKillDisable": true, "PidsLimit": 5,
        "CpuShares": 5, "CpuQuota": 5000, "CpusetCpus": "9", "BlkioWeight": 50,
        "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1}],
    });
    let mut warnings = Vec::new();
    let asked = spec(&read(config).unwrap(), &bare, &mut warnings).unwrap();
    let mut expected = ResourceSpec::default();
    expected.memory.with_swap_bytes = Some(-1);
    assert_eq!(asked, expected);
    assert_eq!(warnings.len(), 10, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.starts_with("Your kernel does not support ")), "{warnings:?}");
    let without_swap = HostResources { swap: false, ..host() };
    let mut warnings = Vec::new();
    let asked = spec(&read(json!({"Memory": 64 << 20})).unwrap(), &without_swap, &mut warnings).unwrap();
    assert_eq!((asked.memory.limit_bytes, asked.memory.with_swap_bytes), (Some(64 << 20), Some(-1)));
    assert!(warnings[0].contains("Memory limited without swap."), "{warnings:?}");
    let error = spec(&read(json!({"NanoCpus": 1_000_000_000})).unwrap(), &bare, &mut Vec::new()).unwrap_err();
    assert!(error.message.contains("NanoCPUs can not be set"));
    let mut warnings = Vec::new();
    spec(&read(json!({"OomKillDisable": true})).unwrap(), &host(), &mut warnings).unwrap();
    assert!(warnings[0].starts_with("OOM killer is disabled for the container, but no memory limit is set"));
}

#[test]
fn an_update_names_what_it_changes() {
    let read = |body: Value| {
        let asked: UpdateRequest = request::read(body, UPDATE)?;
        change(&asked.resources, &host(), &mut Vec::new())
    };
    assert_eq!(read(json!({})).unwrap(), ResourceChange::default());
    // What docker's command line sends beside what was asked for.
    let sent = json!({
        "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": null,
        "CpusetCpus": "", "Devices": null, "MemorySwap": 0, "MemorySwappiness": null, "OomKillDisable": null,
        "PidsLimit": 0, "Ulimits": null, "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
    });
    assert_eq!(read(sent).unwrap(), ResourceChange { pids_max: Some(None), ..ResourceChange::default() });
    let changed = read(json!({"memory": 64 << 20, "NanoCpus": 1_000_000_000, "CpusetCpus": "1", "PidsLimit": 3}));
    assert_eq!(
        changed.unwrap(),
        ResourceChange {
            limit_bytes: Some(64 << 20),
            nano_cpus: Some(1_000_000_000),
            cpus: Some("1".into()),
            pids_max: Some(Some(3)),
            ..ResourceChange::default()
        }
    );
    let refused = |body: Value| read(body).unwrap_err().message;
    assert!(refused(json!({"Memory": 5})).contains("Minimum memory limit allowed is 6MB"));
    assert!(refused(json!({"Ulimits": [{"Name": "core"}]})).contains("Ulimits is not built yet"));
    let asked: UpdateRequest = request::read(json!({"RestartPolicy": {"Name": "always"}}), UPDATE).unwrap();
    assert_eq!(asked.restart_policy.name, "always");
}

#[test]
fn what_was_asked_for_is_shown() {
    let config = json!({
        "Memory": 64 << 20, "MemorySwap": -1, "MemoryReservation": 32 << 20, "MemorySwappiness": 5, "PidsLimit": 9,
        "NanoCpus": 1_000_000_000, "CpuShares": 7, "CpusetCpus": "0", "CpusetMems": "0", "BlkioWeight": 20,
        "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 30}],
        "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 5}], "OomKillDisable": true, "OomScoreAdj": 4,
        "Ulimits": [{"Name": "core", "Hard": 2, "Soft": 1}],
    });
    let asked = spec(&read(config.clone()).unwrap(), &host(), &mut Vec::new()).unwrap();
    let mut shown = json!({});
    show(&asked, &mut shown);
    for (key, value) in config.as_object().unwrap() {
        assert_eq!(&shown[key], value, "{key}");
    }
    assert_eq!((&shown["CpuPeriod"], &shown["BlkioDeviceWriteBps"]), (&json!(0), &json!([])));
}
