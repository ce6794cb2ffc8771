//! The same bundle under other people's runtimes: the process must see the same.
//!
//! runc and crun as Debian installs them, and the newer crun that `cargo xtask bench` has unpacked, where it has. crun
//! does not run on a hybrid of cgroups, so there it is not shown version 2.

use std::path::{Path, PathBuf};

use crate::bundle::{Bundle, stdout};
use serde_json::json;

/// What to execute, before a runtime's own arguments.
type Judge = (String, Vec<String>);

pub fn judges() -> Vec<Judge> {
    let installed = |name: &str| {
        let places = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(|directory| Path::new(directory).join(name));
        let place = places.into_iter().find(|path| path.exists());
        place.unwrap_or_else(|| panic!("{name} is not installed: cargo xtask packages --install"))
    };
    let text = |path: PathBuf| path.display().to_string();
    let mut judges = vec![
        ("runc".to_owned(), vec![text(installed("runc"))]),
        ("crun".to_owned(), [without_version_2(), vec![text(installed("crun"))]].concat()),
    ];
    for root in peers() {
        // By its own loader, with its own libraries.
        let libraries = root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        let loader = std::fs::read_dir(&libraries).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_loader =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"ld-linux"));
        if let (Some(loader), true) = (loader.into_iter().find(is_loader), root.join("usr/bin/crun").exists()) {
            let command =
                vec![text(loader), "--library-path".to_owned(), text(libraries), text(root.join("usr/bin/crun"))];
            judges.push(("the bench's crun".to_owned(), [without_version_2(), command].concat()));
        }
    }
    judges
}

/// Roots of the bench's peers, in the cache of xtask's.
fn peers() -> Vec<PathBuf> {
    let cache = std::env::var_os("DOZEN_CACHE").map(PathBuf::from);
    let other = std::env::var_os("XDG_CACHE_HOME").map(|path| PathBuf::from(path).join("dozen"));
    let cache = cache.or(other).unwrap_or_else(|| "/var/cache/dozen".into());
    let entries = std::fs::read_dir(cache.join("peers")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir() && path.extension().is_none()).collect()
}

/// On a hybrid: what comes after is executed where version 2 is not mounted.
pub fn without_version_2() -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let of_type = |kind: &str| mounts.lines().find(|line| line.split(' ').nth(2) == Some(kind));
    let (Some(unified), Some(_)) = (of_type("cgroup2"), of_type("cgroup")) else { return Vec::new() };
    let script = format!("umount {} && exec \"$@\"", unified.split(' ').nth(1).unwrap());
    ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

/// Output and exit code of the bundle under every other runtime whose name ends in one of these.
pub fn others(bundle: &Bundle, names: &[&str]) -> Vec<(String, String, Option<i32>)> {
    let run = |(name, command): Judge| {
        let output = bundle.run_with(&command);
        assert!(!output.stdout.is_empty(), "{name}: {output:?}");
        (name, String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    };
    let wanted = |(name, _): &Judge| names.iter().any(|wanted| name.ends_with(wanted));
    judges().into_iter().filter(wanted).map(run).collect()
}

/// What ours writes, which is what theirs do.
#[track_caller]
pub fn same(bundle: &Bundle) -> String {
    same_as(bundle, &["runc", "crun"])
}

/// Of these alone: not each of them has everything.
#[track_caller]
pub fn same_as(bundle: &Bundle, names: &[&str]) -> String {
    let ours = bundle.run();
    let text = String::from_utf8_lossy(&ours.stdout).into_owned();
    assert!(!text.is_empty(), "{ours:?}");
    for (name, output, code) in others(bundle, names) {
        assert_eq!((text.as_str(), ours.status.code()), (output.as_str(), code), "left ours, right {name}'s");
    }
    text
}

#[test]
fn status_limits_and_environment() {
    // Not compared: numbers of processes, sizes, and the signal that runtimes in Go leave ignored.
    same(&Bundle::new(
        "grep -vE '^(Name|Umask|.*[Pp]id|Vm|Rss|Huge|.*ctxt|Threads|SigQ|Ngid|Cpus|Mems|Core|Untag|THP|Kthread|x86|Speculation|Groups|State|FDSize|NS|SigCgt|SigIgn|Tgid|untag)' /proc/self/status; \
         cat /proc/self/limits; umask; env | sort | grep -v SHLVL; pwd; hostname; exit 3",
    )
    // runc 1.1 is built by a Go that raises its own soft limit, and hands that on where the spec says nothing.
    .with(|spec| spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 1000, "hard": 2000}])));
}

#[test]
fn devices_and_links() {
    // /dev/core: crun links it also where the kernel has no /proc/kcore.
    same(&Bundle::new("rm -f /dev/core; for f in /dev/*; do stat -c '%n %A %t %T %u %g' $f; readlink $f; done"));
}

#[test]
fn mounts() {
    // Runtimes differ in how they mount cgroups, and in what else than "read-only" they say of what they mask.
    same(&Bundle::new(
        "cut -d' ' -f4-6 /proc/self/mountinfo | grep -vE '/sys/fs/cgroup|/proc/acpi|/sys/firmware' | tail -n +2 | \
         while read root place options; do \
           case $root in /null) options=;; /?*) options=${options%%,*};; esac; echo $root $place $options; \
         done | sort",
    ));
}

#[test]
fn how_a_process_ends() {
    for end in ["exit 0", "exit 255", "kill -TERM $$; kill -KILL $$"] {
        same(&Bundle::new(&format!("echo {end}; {end}")));
    }
    // Process 1 of a pid namespace is not killed by itself; its child is.
    same(&Bundle::new("sh -c 'kill -9 $$'; echo $?; exec sh -c 'exit 77'"));
}

#[test]
fn limits_of_the_cgroup() {
    // By the file's own name on each version; of version 2 the container sees its own cgroup at the top. crun adds the
    // machine's console (5:1) to the devices that were asked for.
    same(
        &Bundle::new(
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares pids/pids.max \
               memory.max cpu.max cpu.weight pids.max 2>/dev/null; grep -v 5:1 devices/devices.list 2>/dev/null | sort",
        )
        .with(|spec| {
            spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
            spec["linux"]["resources"]["cpu"] = json!({"shares": 512, "quota": 50000, "period": 100000});
            spec["linux"]["resources"]["pids"] = json!({"limit": 50});
        }),
    );
}

#[test]
fn what_mounts_permit() {
    let data = tempfile::tempdir().unwrap();
    let mount = |to: &str, options: &[&str]| json!({"destination": to, "type": "bind", "source": data.path(), "options": options});
    same(
        &Bundle::new(
            "grep -E ' /(a|b|c/d/e|t) ' /proc/self/mountinfo | cut -d' ' -f5-6; touch /a/x /b/x 2>&1; stat -c '%a %u' /a",
        )
        .with(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.extend([
                mount("/a", &["rbind", "ro"]),
                mount("/b", &["bind", "rw", "nosuid", "nodev", "noexec"]),
                mount("/c/d/e", &["rbind", "rprivate", "noatime"]),
                json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1750", "size=64k"]}),
            ]);
        }),
    );
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
