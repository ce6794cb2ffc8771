//! Device nodes, the null device and the console.

use super::*;

/// A container whose /dev is a directory of the image's, or of a volume's: whoever else has it may change it.
fn with_dev_of_the_image(script: &str) -> Bundle {
    let bundle = Bundle::new(script).with(|spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev");
    });
    fs::create_dir(bundle.root().join("dev")).unwrap();
    bundle
}

/// CVE-2025-31133: what masks files is the null device and nothing else, whatever a neighbour puts into its place, be
/// it at the last moment. Guarded by `RootTree::null_device`; without its look at the device a file is masked by what
/// the neighbour wants.
#[test]
fn files_are_masked_by_the_null_device_only() {
    let script = "stat -c %t:%T /proc/interrupts /proc/timer_list";
    let mut ran = 0;
    for round in 0..24 {
        let bundle = with_dev_of_the_image(script);
        let dev = bundle.root().join("dev");
        match round % 3 {
            0 => fs::write(dev.join("decoy"), "decoy").unwrap(),
            1 => symlink("../proc/sys/kernel/core_pattern", dev.join("decoy")).unwrap(),
            _ => drop(rustix::fs::mknodat(
                rustix::fs::CWD,
                dev.join("decoy"),
                rustix::fs::FileType::Fifo,
                0o666.into(),
                0,
            )),
        }
        let neighbour = Neighbour::who_swaps(dev.join("null"), dev.join("decoy"));
        let output = bundle.run();
        drop(neighbour);
        if output.status.success() {
            assert_eq!(stdout(&output), "1:3\n1:3\n");
            ran += 1;
        }
    }
    assert!(ran > 0);
}

/// CVE-2025-52565: the terminal lies over /dev/console, be it a link at the last moment, and over nothing that the link
/// leads to. Guarded by O_NOFOLLOW in `RootTree::make_no_link`.
#[test]
fn the_terminal_lies_over_the_console_only() {
    let mut ran = 0;
    for _ in 0..16 {
        let bundle = with_dev_of_the_image("stat -c %t:%T /proc/uptime");
        let dev = bundle.root().join("dev");
        symlink("../proc/uptime", dev.join("decoy")).unwrap();
        fs::write(dev.join("console"), "").unwrap();
        let neighbour = Neighbour::who_swaps(dev.join("console"), dev.join("decoy"));
        let output = bundle.live(json!({"terminal": [24, 80]}));
        drop(neighbour);
        if output.status.success() {
            assert_eq!(stdout(&output).trim(), "0:0");
            ran += 1;
        }
    }
    assert!(ran > 0);
}

/// The same for a link that is there from the beginning, as an image has it.
#[test]
fn a_console_that_is_a_link_is_refused() {
    let bundle = with_dev_of_the_image("true");
    symlink("/proc/sysrq-trigger", bundle.root().join("dev/console")).unwrap();
    let error = failure(&bundle.live(json!({"terminal": [24, 80]})));
    assert!(error.contains("/dev/console in the root must not be a link"), "{error}");
}

/// A terminal is opened of a devpts, and of nothing that an image has at its place. Guarded by the look at the file
/// system in `open_multiplexer`.
#[test]
fn a_terminal_is_one_of_a_devpts() {
    for target in ["/proc/self/fd", "/tmp", "../dev"] {
        let bundle = with_dev_of_the_image("true").with(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/dev/pts");
        });
        symlink(target, bundle.root().join("dev/pts")).unwrap();
        fs::write(bundle.root().join("tmp/ptmx"), "").unwrap();
        let error = failure(&bundle.live(json!({"terminal": [24, 80]})));
        assert!(error.contains("a terminal needs a devpts") || target.starts_with("/proc"), "{target}: {error}");
    }
}

/// Where no node can be made, as for an owner who is not in the user namespace, the host's own is bound, if it is the one
/// that was asked for: by its kind, too. Guarded by the look at it in `RootTree::bind_device`.
#[test]
fn a_device_of_another_kind_is_not_bound() {
    let with_null = |kind: &str| {
        Bundle::new("stat -c %F:%t:%T /dev/null").with(|spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            for map in ["uidMappings", "gidMappings"] {
                spec["linux"][map] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
            }
            spec["linux"]["devices"] =
                json!([{"path": "/dev/null", "type": kind, "major": 1, "minor": 3, "uid": 70_000}]);
        })
    };
    assert_eq!(stdout(&with_null("c").run()), "character special file:1:3\n");
    let error = failure(&with_null("b").run());
    assert!(error.contains("bind the host's /dev/null"), "{error}");
}

/// What is mounted in a /dev of the image's does not lead over procfs either. Guarded by `keep_off_procfs`.
#[test]
fn links_in_dev_lead_nothing_over_procfs() {
    for name in ["pts", "shm", "mqueue"] {
        for target in ["/proc/sys", "../proc/self/attr"] {
            let bundle = with_dev_of_the_image("true");
            symlink(target, bundle.root().join("dev").join(name)).unwrap();
            let error = failure(&bundle.run());
            assert!(error.contains("leads into /proc"), "{name} -> {target}: {error}");
        }
    }
}

/// The machine's own console is not a container's, whatever node it makes (devices.txt: 5:1).
#[test]
fn devices_of_the_host_cannot_be_opened() {
    let bundle = Bundle::new(
        "for number in '5 1' '1 1' '1 2' '1 11' '4 0' '4 64' '10 1'; do \
           mknod /tmp/node c $number && (: < /tmp/node) 2>/dev/null && echo opened $number; rm -f /tmp/node; \
         done; echo done",
    );
    assert_eq!(stdout(&bundle.run()), "done\n");
}

/// What no rule allows is forbidden, also where none forbids everything; and a rule that is for everything says so. In
/// version 1 of cgroups both would have allowed all. Guarded by `device_filter::rules`.
#[test]
fn rules_of_devices_allow_no_more_than_they_say() {
    let script = "mknod /tmp/mem c 1 1; (: < /tmp/mem) 2>/dev/null && echo opened; echo done";
    let with_rules = |rules: Value| Bundle::new(script).with(|spec| spec["linux"]["resources"]["devices"] = rules);
    let tun = json!({"allow": true, "type": "c", "major": 10, "minor": 200});
    assert_eq!(stdout(&with_rules(json!([tun])).run()), "done\n");
    let untyped = json!({"allow": true, "major": 10, "minor": 200, "access": "rw"});
    let error = failure(&with_rules(json!([{"allow": false}, untyped])).run());
    assert!(error.contains("a rule without a type, or of type a, is for all access (rwm) to all devices"), "{error}");
}
