//! Device nodes, the null device and the console.

use super::*;

/// CVE-2025-52565: with a /dev of the image's own, its console could be a link to a file that is to be masked.
#[test]
fn a_console_that_is_a_link_is_refused() {
    let bundle = Bundle::new("true").with(|spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev");
    });
    fs::create_dir(bundle.root().join("dev")).unwrap();
    symlink("/proc/sysrq-trigger", bundle.root().join("dev/console")).unwrap();
    let error = failure(&bundle.live(json!({"terminal": [24, 80]})));
    assert!(error.contains("/dev/console in the root must not be a link"), "{error}");
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
