//! What a process is besides its program: scheduler, processors, personality, capabilities, labels, keys, descriptors.

use crate::bundle::{Bundle, failure, stdout};
use serde_json::{Value, json};

/// Nice value, real-time priority and policy: fields 19, 40 and 41 of /proc/PID/stat (proc_pid_stat(5)).
fn scheduler_of(stat: &str) -> [i64; 3] {
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split_whitespace().collect();
    let [nice, priority, policy] = [19, 40, 41].map(|number| fields[number - 3].parse().unwrap());
    // Only SCHED_OTHER and SCHED_BATCH have a nice value of their own.
    [if [0, 3].contains(&policy) { nice } else { 0 }, priority, policy]
}

fn program(arguments: &[&str]) -> Bundle {
    Bundle::new("").with(|spec| spec["process"]["args"] = json!(arguments))
}

#[test]
fn the_scheduler_is_the_one_that_was_asked_for() {
    for (scheduler, expected) in [
        (json!({"policy": "SCHED_OTHER", "nice": 7}), [7, 0, 0]),
        (json!({"policy": "SCHED_BATCH", "nice": -3}), [-3, 0, 3]),
        (json!({"policy": "SCHED_IDLE"}), [0, 0, 5]),
        (
            json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 10_000_000,
                "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            [0, 0, 6],
        ),
    ] {
        let bundle = program(&["cat", "/proc/self/stat"]).with(|spec| spec["process"]["scheduler"] = scheduler.clone());
        assert_eq!(scheduler_of(&stdout(&bundle.run())), expected, "{scheduler}");
        // The library's callers have the types' own name for it.
        let scheduler = scheduler.to_string().replace("SCHED_FLAG_RESET", "SCHED_RESET");
        let exec = Bundle::new("exec sleep 1000")
            .with(|spec| spec["process"]["scheduler"] = serde_json::from_str(&scheduler).unwrap());
        let output = exec.live(json!({"exec": {"arguments": ["cat", "/proc/self/stat"]}}));
        assert_eq!(scheduler_of(&stdout(&output)), expected, "a further process: {scheduler}");
    }
    let iso = program(&["true"]).with(|spec| spec["process"]["scheduler"] = json!({"policy": "SCHED_ISO"}));
    assert!(failure(&iso.run()).contains("set the scheduler: invalid argument"));
}

#[test]
fn io_priority_and_personality() {
    std::thread::scope(|scope| {
        for (class, words) in [("BE", "best-effort: prio 6"), ("RT", "realtime: prio 6"), ("IDLE", "idle")] {
            scope.spawn(move || {
                let set = |spec: &mut Value| {
                    spec["process"]["ioPriority"] = json!({"class": format!("IOPRIO_CLASS_{class}"), "priority": 6});
                    spec["linux"]["personality"] = json!({"domain": "LINUX32"});
                };
                let arguments = ["busybox", "sh", "-c", "busybox ionice; busybox uname -m"];
                let expected = format!("{words}\ni686\n");
                assert_eq!(stdout(&program(&arguments).with(set).run()).replace("idle: prio 6", "idle"), expected);
                let exec = Bundle::new("exec sleep 1000").with(set).live(json!({"exec": {"arguments": arguments}}));
                assert_eq!(stdout(&exec).replace("idle: prio 6", "idle"), expected);
            });
        }
    });
}

#[test]
fn processors_are_a_further_processs_own() {
    let bundle = || {
        Bundle::new("exec sleep 1000").with(|spec| {
            spec["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "1"});
        })
    };
    let show = ["grep", "Cpus_allowed_list", "/proc/self/status"];
    let output = bundle().live(json!({"exec": {"arguments": show}}));
    assert_eq!(stdout(&output), "Cpus_allowed_list:\t1\n");
    // Without a final one it stays where it began, unless its cgroup says otherwise.
    let initial = bundle().with(|spec| spec["process"]["execCPUAffinity"] = json!({"initial": "0"}));
    assert_eq!(stdout(&initial.live(json!({"exec": {"arguments": show}}))), "Cpus_allowed_list:\t0\n");
    // The first process is not concerned.
    assert_ne!(
        stdout(
            &program(&show)
                .with(|spec| spec["process"] = {
                    let mut process = bundle().spec["process"].clone();
                    process["args"] = json!(show);
                    process
                })
                .run()
        ),
        "Cpus_allowed_list:\t1\n"
    );
    let nowhere = bundle().with(|spec| spec["process"]["execCPUAffinity"] = json!({"final": "8000"}));
    let error = failure(&nowhere.live(json!({"exec": {"arguments": show}})));
    assert!(error.contains("set the final CPU affinity: invalid argument"), "{error}");
}

#[test]
fn memory_comes_from_the_nodes_that_were_asked_for() {
    let policies = |policy: Value| {
        let bundle = Bundle::new("cut -d' ' -f2 /proc/self/numa_maps | sort | tail -1");
        bundle.with(|spec| spec["linux"]["memoryPolicy"] = policy).run()
    };
    assert_eq!(stdout(&policies(json!({"mode": "MPOL_BIND", "nodes": "0"}))), "bind:0\n");
    let flags = json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    assert_eq!(stdout(&policies(flags)), "interleave=static:0\n");
    assert_eq!(stdout(&policies(json!({"mode": "MPOL_DEFAULT"}))), "default\n");
    assert!(failure(&policies(json!({"mode": "MPOL_BIND"}))).contains("set the memory policy"));
}

#[test]
fn capabilities_are_exactly_those_of_the_five_sets() {
    let show = ["grep", "^Cap", "/proc/self/status"];
    let sets = json!({"bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_CHOWN"], "inheritable": ["CAP_KILL", "CAP_NET_RAW"], "ambient": ["CAP_KILL"]});
    // execve(2) gives root all of the bounding set, another user what is ambient (capabilities(7)).
    let user = |uid: u32| {
        stdout(
            &program(&show)
                .with(|spec| {
                    spec["process"]["capabilities"] = sets.clone();
                    spec["process"]["user"] = json!({"uid": uid, "gid": 0});
                })
                .run(),
        )
    };
    let lines = |sets: [u64; 5]| {
        let names = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
        names.iter().zip(sets).map(|(name, set)| format!("{name}:\t{set:016x}\n")).collect::<String>()
    };
    assert_eq!(user(1000), lines([0x2020, 0x20, 0x20, 0x2021, 0x20]));
    assert_eq!(user(0), lines([0x2020, 0x2021, 0x2021, 0x2021, 0x20]));
}

#[test]
fn capabilities_that_cannot_be_granted_are_told_of() {
    let bundle = program(&["grep", "CapAmb", "/proc/self/status"]).with(|spec| {
        spec["process"]["capabilities"]["ambient"] = json!(["CAP_CHOWN"]);
        spec["process"]["capabilities"]["bounding"].as_array_mut().unwrap().push(json!("CAP_TEST"));
    });
    bundle.write();
    let log = bundle.directory.path().join("log");
    let arguments = ["--log", log.to_str().unwrap(), "run", "--bundle", bundle.path(), &bundle.id];
    let output = bundle.command(&arguments).output().unwrap();
    assert_eq!(stdout(&output), "CapAmb:\t0000000000000000\n");
    let told = std::fs::read_to_string(log).unwrap();
    assert!(told.contains("unknown or unavailable capability") && told.contains("CAP_TEST"), "{told}");
    assert!(told.contains("CAP_CHOWN cannot be granted"), "{told}");
    bundle.check_nothing_is_left();
}
