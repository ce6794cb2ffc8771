//! The same bundle under other people's runtimes: the process must see the same.
//!
//! A runtime that is not installed, or does not run on this machine's cgroups (crun 1.8 refuses a hybrid), judges
//! nothing; that at least one of the two does is asserted.

use crate::bundle::{Bundle, stdout};
use serde_json::json;

const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// Output of the bundle under every runtime that runs here.
fn others(bundle: &Bundle) -> Vec<(&'static str, String, Option<i32>)> {
    let installed = |name: &&&str| {
        ["/usr/bin", "/usr/sbin", "/usr/local/bin"].iter().any(|path| std::path::Path::new(path).join(name).exists())
    };
    let runs: Vec<_> = RUNTIMES
        .iter()
        .filter(installed)
        .map(|name| (*name, bundle.run_with(name)))
        .filter(|(_, output)| !String::from_utf8_lossy(&output.stderr).contains("cgroups in hybrid mode not supported"))
        .map(|(name, output)| (name, String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code()))
        .collect();
    assert!(!runs.is_empty(), "neither runc nor crun runs here");
    runs
}

#[track_caller]
fn same(bundle: &Bundle) {
    let ours = bundle.run();
    let text = String::from_utf8_lossy(&ours.stdout).into_owned();
    assert!(!text.is_empty(), "{ours:?}");
    for (name, output, code) in others(bundle) {
        assert_eq!((text.as_str(), ours.status.code()), (output.as_str(), code), "left ours, right {name}'s");
    }
}

#[test]
fn status_limits_and_environment() {
    // Not compared: numbers of processes, sizes, and the signal that runtimes in Go leave ignored.
    same(&Bundle::new(
        "grep -vE '^(Name|Umask|.*[Pp]id|Vm|Rss|Huge|.*ctxt|Threads|SigQ|Ngid|Cpus|Mems|Core|Untag|THP|Kthread|x86|Speculation|Groups|State|FDSize|NS|SigCgt|SigIgn|Tgid|untag)' /proc/self/status; \
         cat /proc/self/limits; umask; env | sort | grep -v SHLVL; pwd; hostname; exit 3",
    ));
}

#[test]
fn devices_and_links() {
    same(&Bundle::new("for f in /dev/*; do stat -c '%n %A %t %T %u %g' $f; readlink $f; done"));
}

#[test]
fn mounts() {
    // Runtimes differ in how they mount cgroups, and in whether a mask's own flags say read-only twice.
    same(&Bundle::new(
        "cut -d' ' -f4-6 /proc/self/mountinfo | grep -vE '/sys/fs/cgroup|/proc/acpi|/sys/firmware' | tail -n +2 | sort",
    ));
}

#[test]
fn namespaces_are_new() {
    let bundle = Bundle::new("for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done");
    let host: Vec<String> = ["cgroup", "ipc", "mnt", "net", "pid", "uts"]
        .iter()
        .map(|name| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string())
        .collect();
    let inside = stdout(&bundle.run());
    assert_eq!(inside.lines().count(), 6);
    for (inside, host) in inside.lines().zip(&host) {
        assert_ne!(inside, host);
    }
}

#[test]
fn other_users() {
    same(&Bundle::new("id; grep -E 'Cap|Groups' /proc/self/status; touch /tmp/x 2>&1").with(|spec| {
        spec["process"]["user"] = json!({"uid": 33, "gid": 33, "additionalGids": [4, 7], "umask": 63});
    }));
}

#[test]
fn system_calls() {
    same(&Bundle::new(
        "unshare -m true; echo $?; unshare -n true; echo $?; mount -t tmpfs x /tmp; echo $?; chroot / true; echo $?; \
         mknod /dev/shm/n c 1 3; echo $?; hostname x; echo $?; mknod /dev/shm/b b 8 0; cat /dev/shm/b; echo $?",
    ));
}
