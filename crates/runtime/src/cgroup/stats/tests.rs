use super::*;

fn of(version_2: bool, files: &[(&str, &str)]) -> CgroupStats {
    let read = |_: &str, file: &str| files.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned());
    collect(&|_| version_2, &read)
}

#[test]
fn nothing_is_zero() {
    for version_2 in [true, false] {
        assert_eq!(of(version_2, &[]), CgroupStats::default());
        let garbage =
            [("cpu.stat", "x\ny z\n"), ("memory.stat", "\0 1 2"), ("io.stat", "8 0 rbytes=1\n8:0 =\n8:0 rios=-1")];
        assert_eq!(of(version_2, &garbage), CgroupStats::default());
    }
}

#[test]
fn version_1() {
    let stats = of(
        false,
        &[
            ("cpuacct.usage", "3000\n"),
            ("cpuacct.usage_user", "2000\n"),
            ("cpuacct.stat", "user 7\nsystem 5\n"),
            ("cpuacct.usage_percpu", "1000 2000 \n"),
            ("cpuacct.usage_all", "cpu user system\n0 800 200\n1 1200 800\n"),
            ("cpu.stat", "nr_periods 4\nnr_throttled 3\nthrottled_time 99\n"),
            ("memory.stat", "cache 4096\nrss 8192\n"),
            ("memory.usage_in_bytes", "12288\n"),
            ("memory.max_usage_in_bytes", "20480\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.failcnt", "2\n"),
            ("memory.memsw.usage_in_bytes", "16384\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 1024\n8:0 Total 1024\nTotal 1024\n"),
            ("blkio.bfq.io_serviced_recursive", "8:0 Write 2\n"),
            ("blkio.throttle.io_serviced_recursive", "8:0 Write 3\n"),
            ("blkio.time_recursive", "8:0 77\n"),
            ("cpuset.cpus", "0-2,7\n"),
            ("cpuset.mems", "0\n"),
            ("cpuset.sched_relax_domain_level", "-1\n"),
        ],
    );
    assert_eq!((stats.cpu.total_ns, stats.cpu.user_ns, stats.cpu.kernel_ns), (3000, 2000, 50_000_000));
    assert_eq!((stats.cpu.per_cpu_ns, stats.cpu.per_cpu_kernel_ns), (vec![1000, 2000], vec![200, 800]));
    assert_eq!((stats.cpu.periods, stats.cpu.throttled_periods, stats.cpu.throttled_ns), (4, 3, 99));
    assert_eq!((stats.cpuset.cpus, stats.cpuset.mems), (vec![0, 1, 2, 7], vec![0]));
    assert_eq!(stats.cpuset.flags, BTreeMap::from([("sched_relax_domain_level", -1)]));
    let usage = Amount { usage: 12288, peak: 20480, limit: 9_223_372_036_854_771_712, failures: 2 };
    assert_eq!((stats.memory.usage, stats.memory.with_swap.usage), (usage, 16384));
    assert_eq!((stats.memory.cache_bytes, stats.memory.oom_kills, stats.memory.raw.len()), (4096, 1, 2));
    assert_eq!(stats.pids, PidsStats { current: 3, limit: None });
    let entry = |operation: &str, value| IoEntry { major: 8, minor: 0, operation: operation.to_owned(), value };
    assert_eq!(stats.io.service_bytes, [entry("Read", 1024), entry("Total", 1024)]);
    assert_eq!((stats.io.serviced, stats.io.time), (vec![entry("Write", 2)], vec![entry("", 77)]));
}

#[test]
fn version_2() {
    let stats = of(
        true,
        &[
            ("cpu.stat", "usage_usec 3\nuser_usec 2\nsystem_usec 1\nnr_periods 4\nnr_throttled 3\nthrottled_usec 9\n"),
            ("memory.stat", "anon 1\nfile 4096\n"),
            ("memory.current", "5000\n"),
            ("memory.peak", "6000\n"),
            ("memory.max", "7000\n"),
            ("memory.swap.current", "10\n"),
            ("memory.swap.max", "max\n"),
            ("memory.events", "low 0\nmax 8\noom 2\noom_kill 1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "5\n"),
            ("cpuset.cpus", "\n"),
            ("cpuset.cpus.effective", "0-1\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 rbytes=9\n"),
        ],
    );
    assert_eq!((stats.cpu.total_ns, stats.cpu.kernel_ns, stats.cpu.throttled_ns), (3000, 1000, 9000));
    assert_eq!(stats.memory.usage, Amount { usage: 5000, peak: 6000, limit: 7000, failures: 8 });
    assert_eq!((stats.memory.with_swap.usage, stats.memory.with_swap.limit), (5010, u64::MAX));
    assert_eq!((stats.memory.cache_bytes, stats.memory.oom_kills), (4096, 1));
    assert_eq!(stats.pids, PidsStats { current: 3, limit: Some(5) });
    assert_eq!(stats.cpuset.cpus, [0, 1]);
    let values = |list: &[IoEntry]| list.iter().map(|entry| (entry.minor, entry.value)).collect::<Vec<_>>();
    assert_eq!(values(&stats.io.service_bytes), [(0, 1), (0, 2), (16, 9)]);
    assert_eq!(values(&stats.io.serviced), [(0, 3), (0, 4)]);
}

#[test]
fn sizes_of_huge_pages() {
    let sizes = ["hugepages-64kB", "hugepages-2048kB", "hugepages-1048576kB", "x"].map(huge_page_size);
    assert_eq!(sizes, [Some("64KB".to_owned()), Some("2MB".to_owned()), Some("1GB".to_owned()), None]);
}
