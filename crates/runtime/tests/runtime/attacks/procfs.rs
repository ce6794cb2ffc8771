//! Procfs: what is mounted over it, what is masked in it, and what the runtime itself writes through it.

use super::*;

/// CVE-2023-28642, CVE-2025-52881: a link in a volume must not lead a mount over procfs.
#[test]
fn procfs_is_what_lies_on_proc() {
    let (volume, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for target in ["/proc", "/proc/sys", "/proc/self/attr"] {
        let link = volume.path().join("link");
        symlink(target, &link).unwrap();
        let bundle = Bundle::new("true").with(|spec| {
            push_mount(spec, bind(&volume, "/vol"));
            push_mount(spec, bind(&data, "/vol/link"));
        });
        let error = failure(&bundle.run());
        assert!(error.contains("cannot be mounted because, in this root, it leads into /proc"), "{error}");
        fs::remove_file(link).unwrap();
    }
    for (destination, words) in [
        ("/proc", "/proc: only a procfs can be mounted there"),
        ("/proc/sys/kernel", "\"/proc/sys/kernel\" cannot be mounted because it is inside /proc"),
        ("/proc/../proc/self", "\"/proc/self\" cannot be mounted because it is inside /proc"),
    ] {
        let error = failure(&Bundle::new("true").with(|spec| push_mount(spec, bind(&data, destination))).run());
        assert!(error.contains(words), "{error}");
    }
    // What lxcfs does.
    let file = data.path().join("uptime");
    fs::write(&file, "1 1\n").unwrap();
    let bundle = Bundle::new("cat /proc/uptime").with(|spec| push_mount(spec, bind(&file, "/proc/uptime")));
    assert_eq!(stdout(&bundle.run()), "1 1\n");
}

#[test]
fn sysctls_of_the_hosts_network_are_not_a_containers() {
    let own = fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
    let with_network = |network: Value| {
        let bundle = Bundle::new("true").with(|spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "network");
            namespaces.extend(network.is_object().then_some(network));
            spec["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
        });
        failure(&bundle.run())
    };
    assert!(with_network(Value::Null).contains("is not in a separate kernel namespace"));
    let joined = with_network(json!({"type": "network", "path": "/proc/self/ns/net"}));
    assert!(joined.contains("the host's network"), "{joined}");
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap(), own);
}

/// CVE-2019-19921 (and what was known to be left of it): who shares the container's whole root puts another directory
/// at /proc while procfs is being masked. Guarded by `RootTree::open_on_own`: masks belong to the procfs that was
/// mounted, wherever it has gone meanwhile. With `open` in its place some twentieth round has it unmasked.
#[test]
fn procfs_is_masked_whatever_its_directory_is_called() {
    let script = "for proc in /proc /other; do [ -d $proc/self/attr ] || continue; \
        dd if=$proc/interrupts bs=1 count=1 2>/dev/null | wc -c; \
        (: >> $proc/sys/kernel/core_pattern) 2>/dev/null && echo $proc/sys is writable; done; echo done";
    let mut ran = 0;
    for _ in 0..24 {
        let bundle = Bundle::new(script);
        let (proc, other) = (bundle.root().join("proc"), bundle.root().join("other"));
        fs::create_dir(&proc).unwrap();
        fs::create_dir(&other).unwrap();
        let neighbour = Neighbour::who_swaps(proc, other);
        let output = bundle.run();
        drop(neighbour);
        if output.status.success() {
            let seen = stdout(&output);
            assert!(seen.lines().all(|line| matches!(line, "0" | "done")), "{seen}");
            ran += 1;
        }
    }
    assert!(ran > 0);
}

/// Nothing in /proc and /sys can be opened for writing by root of a container but what concerns processes: not
/// core_pattern, modprobe, sysrq-trigger, uevent_helper, nor what the next kernel brings. Guarded by the default masked and
/// read-only paths, and by the mounts' own options; without any of them files are named here.
#[test]
fn root_inside_can_write_to_nothing_of_the_kernels() {
    let bundle = Bundle::new("/bin/probe attack writable /proc /sys");
    copy_program(Path::new(PROBE), &bundle.root().join("bin/probe"));
    assert_eq!(beside_pressure(&stdout(&bundle.run())), ["tried"]);
}

/// Whoever may, asks /proc/pressure to be told of pressure by writing to it (accounting/psi.rst): that is no harm.
fn beside_pressure(said: &str) -> Vec<&str> {
    said.lines().filter(|line| !line.starts_with("/proc/pressure/")).collect()
}

/// The same from a user namespace of its own making, with every capability there and no filter of system calls: no
/// procfs or sysfs without masks can be had, and those that there are stay.
#[test]
fn a_user_namespace_inside_shows_no_more() {
    let inside = "mkdir /tmp/proc /tmp/sys; mount -t proc x /tmp/proc 2>/dev/null && echo proc; \
        mount -t sysfs x /tmp/sys 2>/dev/null && echo sysfs; \
        umount /proc/interrupts 2>/dev/null && echo unmasked; umount -l /proc/sys 2>/dev/null && echo writable; \
        mount -o remount,rw,bind /proc/sys 2>/dev/null && echo remounted; \
        mount --bind / /tmp && dd if=/tmp/proc/interrupts bs=1 count=1 2>/dev/null | wc -c; \
        /bin/probe attack writable /proc /sys";
    let bundle = Bundle::new(&format!("exec /bin/probe attack namespaces /bin/sh -c '{inside}'"))
        .with(|spec| spec["linux"]["seccomp"] = Value::Null);
    copy_program(Path::new(PROBE), &bundle.root().join("bin/probe"));
    assert_eq!(beside_pressure(&stdout(&bundle.run())), ["tried"]);
}
