//! Cgroups: CVE-2022-0492, and a container's own being its own.

use super::*;

/// CVE-2022-0492: no cgroup in a container can be written, and no file of the host's root cgroup is there.
#[test]
fn cgroups_let_nobody_out() {
    let bundle = Bundle::new(
        "cd /sys/fs/cgroup; ls release_agent */release_agent 2>/dev/null; \
         for f in cgroup.procs */cgroup.procs */notify_on_release */tasks; do \
           [ -e $f ] && (echo 0 > $f) 2>/dev/null && echo wrote $f; \
         done; \
         mkdir x */x 2>/dev/null && echo made; \
         mount -t cgroup -o memory x /tmp 2>/dev/null && echo mounted; \
         unshare -Ur true 2>/dev/null && echo unshared; echo done",
    );
    assert_eq!(stdout(&bundle.run()), "done\n");
}

/// The same in a user namespace of its own making, with every capability there and no filter of system calls: what is
/// mounted read-only stays so, and what is mounted anew is the container's own part. Guarded by `add_cgroups` (the mounts
/// are read-only by themselves, and begin at the container's cgroup) and by the cgroup namespace.
#[test]
fn cgroups_let_nobody_out_of_a_user_namespace() {
    let inside = "for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do \
          mount -o remount,rw,bind $hierarchy 2>/dev/null && echo remounted $hierarchy; \
          mkdir $hierarchy/x 2>/dev/null && echo made $hierarchy/x; done; \
        for kind in memory pids rdma none,name=new; do mkdir /tmp/$kind; \
          mount -t cgroup -o $kind x /tmp/$kind 2>/dev/null || continue; \
          [ -e /tmp/$kind/release_agent ] && echo seen $kind; \
          (echo /x > /tmp/$kind/release_agent) 2>/dev/null && echo wrote $kind; done; \
        echo done";
    let bundle = Bundle::new(&format!("exec /bin/probe attack namespaces /bin/sh -c '{inside}'"))
        .with(|spec| spec["linux"]["seccomp"] = Value::Null);
    copy_program(Path::new(PROBE), &bundle.root().join("bin/probe"));
    assert_eq!(stdout(&bundle.run()), "done\n");
}

/// A cgroup in which others are must not become a container's: it is killed with it.
#[test]
fn a_cgroup_of_others_is_not_taken() {
    let other = Bundle::new("exec sleep 1000");
    let _running = Running::new(&other);
    let bundle = Bundle::new("true").with(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{}", other.id)));
    let error = failure(&bundle.run());
    assert!(error.contains("is in use"), "{error}");
    let state: Value = serde_json::from_str(&stdout(&other.command(&["state", &other.id]).output().unwrap())).unwrap();
    assert_eq!(state["status"], "running");
}

/// Whoever may write to its cgroups nests them deeper than a path is long: they go with the container all the same, and
/// who is in them too. Guarded by `cgroup::below`; by path nothing of them could be reached.
#[test]
fn cgroups_nested_however_deep_are_removed() {
    let script = "/bin/probe attack nest /sys/fs/cgroup/pids /sys/fs/cgroup; exec sleep 1000";
    let bundle = Bundle::new(script).with(powerful);
    copy_program(Path::new(PROBE), &bundle.root().join("bin/probe"));
    let running = Running::new(&bundle);
    assert_eq!(running.first_words(), "nested\n");
    stdout(&bundle.command(&["kill", "--all", &bundle.id, "CONT"]).output().unwrap());
}
