//! The host's devices in a container: what was asked for may be used as it was asked, and nothing else.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::Machine;

#[test]
fn a_device_may_be_used_as_it_was_asked_for() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let say = |options: &[&str], script: &str| {
        let line = [&["run", "--rm", "--network", "none"], options, &["busybox", "sh", "-c", script]].concat();
        let [docker, dozen] = [engine.docker(&line), engine.dozen(&line)].map(|done| done.text());
        assert_eq!(docker, dozen);
        docker
    };
    // Which no container may open unless it was asked for (10:229).
    let open = "(exec 3</dev/fuse) 2>/dev/null && echo opens; (exec 3>/dev/fuse) 2>/dev/null && echo writes; ls /dev";
    let with_node = "mknod /dev/fuse c 10 229; ";
    assert!(!say(&[], &format!("{with_node}{open}")).contains("opens"));
    let all = say(&["--device", "/dev/fuse"], open);
    assert!(all.contains("opens\nwrites\n") && all.contains("fuse\n"), "{all}");
    let read = say(&["--device", "/dev/fuse:/dev/fuse:r"], open);
    assert!(read.contains("opens") && !read.contains("writes"), "{read}");
    let elsewhere = say(&["--device", "/dev/fuse:/dev/mine/fuse"], "stat -c %F:%t:%T /dev/mine/fuse");
    assert_eq!(elsewhere, "character special file:a:e5\n");
    let rule = say(&["--device-cgroup-rule", "c 10:229 r"], &format!("{with_node}{open}"));
    assert!(rule.contains("opens") && !rule.contains("writes"), "{rule}");
    let directory = say(&["--device", "/dev/net"], "ls /dev/net");
    assert_eq!(directory, "tun\n");
    let created = ["create", "--name", "shown", "--device", "/dev/fuse:r", "busybox", "true"];
    engine.docker(&created).expect(0);
    let shown = engine.docker(&["inspect", "--format", "{{json .HostConfig.Devices}}", "shown"]).text();
    assert!(shown.contains(r#""PathOnHost":"/dev/fuse""#) && shown.contains(r#""CgroupPermissions":"r""#), "{shown}");
}

#[test]
fn what_is_not_there_is_refused() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    for (options, words) in [
        (&["--device", "/dev/no-such"][..], "error gathering device information while adding custom device"),
        (&["--device", "/etc/passwd"], "not a device node"),
        (&["--gpus", "all"], "could not select device driver \"\" with capabilities: [[gpu]]"),
        (&["--device", "vendor.com/class=none"], "CDI device injection failed: unresolvable CDI devices vendor.com/"),
    ] {
        let line = [&["run", "--rm", "--network", "none"], options, &["busybox", "true"]].concat();
        for done in [engine.docker(&line), engine.dozen(&line)] {
            assert!(done.code != 0 && done.err.contains(words), "{done:?}");
        }
    }
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
}
