//! Limits, as a container feels them and as the kernel has them; with docker's command line and with our own.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Engine, Machine, next_second, until};

/// What a cgroup's file says, by its name in version 1 and in version 2.
fn kernel(machine: &Machine, id: &str, version_1: &str, version_2: &str) -> String {
    let script = format!(
        "f=$(find /sys/fs/cgroup -path '*/{id}/{version_1}' | head -n 1); \
         [ \"$f\" ] || f=$(find /sys/fs/cgroup -path '*/{id}/{version_2}' | head -n 1); cat $f"
    );
    machine.run("sh", &["-c", &script]).text().trim().to_owned()
}

/// Starts a container that lives; its whole id.
fn background(engine: &Engine<'_>, name: &str, options: &[&str]) -> String {
    let line = [&["run", "-d", "--name", name, "--network", "none", "--init"], options, &["busybox", "sleep", "1000"]]
        .concat();
    engine.dozen(&line).text().trim().to_owned()
}

fn inspect(engine: &Engine<'_>, name: &str, field: &str) -> String {
    engine.dozen(&["inspect", "--format", &format!("{{{{json .HostConfig.{field}}}}}"), name]).text().trim().to_owned()
}

fn is_unified() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[test]
fn limits_are_in_force_and_shown() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let options = [
        "--memory",
        "64m",
        "--memory-reservation",
        "32m",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
        "--pids-limit",
        "50",
        "--ulimit",
        "nofile=100:200",
        "--ulimit",
        "core=0",
        "--oom-score-adj",
        "500",
    ];
    let id = background(&engine, "limited", &options);
    for (version_1, version_2, old, new) in [
        ("memory.limit_in_bytes", "memory.max", "67108864", "67108864"),
        ("memory.memsw.limit_in_bytes", "memory.swap.max", "134217728", "67108864"),
        ("memory.soft_limit_in_bytes", "memory.low", "33554432", "33554432"),
        ("cpu.cfs_quota_us", "cpu.max", "50000", "50000 100000"),
        ("cpu.shares", "cpu.weight", "512", "20"),
        ("cpuset.cpus", "cpuset.cpus", "0", "0"),
        ("pids.max", "pids.max", "50", "50"),
    ] {
        let expected = if is_unified() { new } else { old };
        assert_eq!(kernel(&machine, &id, version_1, version_2), expected, "{version_1}");
    }
    for (field, value) in [
        ("Memory", "67108864"),
        ("MemorySwap", "134217728"),
        ("MemoryReservation", "33554432"),
        ("NanoCpus", "500000000"),
        ("CpuShares", "512"),
        ("CpusetCpus", "\"0\""),
        ("PidsLimit", "50"),
        ("OomScoreAdj", "500"),
    ] {
        assert_eq!(inspect(&engine, "limited", field), value, "{field}");
    }
    let felt = engine.docker(&[
        "exec",
        "limited",
        "sh",
        "-c",
        "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/1/oom_score_adj; nproc",
    ]);
    assert_eq!(felt.text(), "100\n200\n0\n500\n1\n");
    // What runs out of it is killed, and that is told.
    let line = ["run", "--name", "greedy", "-m", "16m", "--network", "none", "busybox", "sh", "-c", "tail /dev/zero"];
    engine.docker(&line).expect(137);
    let told = engine.docker(&["inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "greedy"]).text();
    assert_eq!(told, "true 137\n");
    let forks = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done 2>&1; echo ended";
    let done = engine.docker(&["run", "--rm", "--pids-limit", "4", "--network", "none", "busybox", "sh", "-c", forks]);
    assert!(format!("{}{}", done.out, done.err).contains("can't fork"), "{done:?}");
}

#[test]
fn what_the_host_cannot_give_is_refused() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    for (options, words) in [
        (&["--memory", "1m"][..], "Minimum memory limit allowed is 6MB"),
        (&["--cpus", "10000"], "Range of CPUs is from 0.01 to"),
        (&["--cpuset-cpus", "8000"], "Requested CPUs are not available - requested 8000, available: 0"),
        (&["--memory", "64m", "--memory-swap", "32m"], "Minimum memoryswap limit should be larger than memory limit"),
        (&["--ulimit", "nofile=99999999999"], "99999999999 is above fs.nr_open"),
        (&["--device-read-bps", "/dev/null:1m"], "/dev/null is no block device"),
        (&["--device-read-bps", "/dev/no-such-device:1m"], "the host has no block device /dev/no-such-device"),
    ] {
        let line = [&["run", "--rm", "--network", "none"], options, &["busybox", "true"]].concat();
        let mut all = vec![engine.dozen(&line)];
        // Docker's client of version 26 reads the rates of devices and then sends none.
        if !options[0].starts_with("--device-") {
            all.push(engine.docker(&line));
        }
        for done in all {
            assert_eq!(done.code, 125, "{done:?}");
            assert!(done.err.contains(words), "{done:?}");
        }
    }
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
}

#[test]
fn limits_change_while_a_container_runs_and_stay_changed() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    let id = background(&engine, "changed", &["--memory", "64m", "--pids-limit", "30"]);
    let memory = || kernel(&machine, &id, "memory.limit_in_bytes", "memory.max");
    let pids = || kernel(&machine, &id, "pids.max", "pids.max");
    let done = engine.docker(&["update", "--memory", "96m", "--cpus", "0.25", "--cpuset-cpus", "0", "changed"]);
    assert_eq!(done.text(), "changed\n");
    assert_eq!((memory().as_str(), pids().as_str()), ("100663296", "30"));
    assert_eq!(kernel(&machine, &id, "cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("25000"));
    engine.dozen(&["update", "--memory", "200m", "changed"]).refuses(1, &["Memory limit should be smaller than"]);
    engine.dozen(&["update", "--cpu-quota", "5000", "changed"]).refuses(1, &["CPU Quota cannot be updated"]);
    engine.dozen(&["update", "changed"]).refuses(1, &["you must provide one or more flags"]);
    engine.dozen(&["update", "--memory", "200m", "--memory-swap", "-1", "--pids-limit", "-1", "changed"]).expect(0);
    assert_eq!((memory().as_str(), pids().as_str()), ("209715200", "max"));
    let shown = |engine: &Engine<'_>| {
        ["Memory", "MemorySwap", "NanoCpus", "PidsLimit"].map(|field| inspect(engine, "changed", field))
    };
    assert_eq!(shown(&engine), ["209715200", "-1", "250000000", "null"]);
    // An engine that comes next, and the next run, have them too.
    engine.kill();
    engine.restart();
    assert_eq!(shown(&engine), ["209715200", "-1", "250000000", "null"]);
    engine.dozen(&["stop", "-t", "0", "changed"]).expect(0);
    engine.docker(&["update", "--pids-limit", "40", "--memory", "80m", "--memory-swap", "80m", "changed"]).expect(0);
    engine.dozen(&["start", "changed"]).expect(0);
    assert_eq!((memory().as_str(), pids().as_str()), ("83886080", "40"));
    let updates =
        engine.docker(&["events", "--since", "1h", "--until", &next_second(), "--filter", "event=update"]).text();
    // Also those of the engine before.
    assert_eq!(updates.lines().count(), 3, "{updates}");
}

/// What the kernel refuses leaves everything as it was.
#[test]
fn an_update_that_the_kernel_refuses_changes_nothing() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let eater = "dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null; echo full; sleep 1000";
    let line = ["run", "-d", "--name", "full", "--network", "none", "--memory", "64m", "--memory-swap", "64m"];
    let id = engine.dozen(&[&line[..], &["busybox", "sh", "-c", eater]].concat()).text().trim().to_owned();
    until("it is full", || engine.dozen(&["logs", "full"]).out.contains("full").then_some(()));
    if is_unified() {
        // Version 2 does not refuse that: it kills (cgroup-v2.rst, "memory.max").
        return;
    }
    // Shared memory that cannot be swapped is in use, so version 1 says that it is busy.
    let done = engine.dozen(&["update", "--memory", "16m", "--memory-swap", "16m", "--pids-limit", "77", "full"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("Cannot update container"), "{done:?}");
    assert_eq!(inspect(&engine, "full", "Memory"), "67108864");
    assert_eq!(inspect(&engine, "full", "PidsLimit"), "null");
    assert_eq!(kernel(&machine, &id, "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(kernel(&machine, &id, "memory.memsw.limit_in_bytes", "memory.swap.max"), "67108864");
    assert_eq!(kernel(&machine, &id, "pids.max", "pids.max"), "max");
}
