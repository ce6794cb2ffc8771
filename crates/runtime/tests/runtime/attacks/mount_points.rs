//! Where mounts go, and what neighbours make of the places meanwhile.

use super::*;

#[test]
fn many_mounts_are_made_and_gone() {
    let data = tempfile::tempdir().unwrap();
    let bundle = Bundle::new("grep -c /many/ /proc/self/mountinfo").with(|spec| {
        (0..3000).for_each(|number| push_mount(spec, bind(&data, &format!("/many/{number}"))));
    });
    assert_eq!(stdout(&bundle.run()), "3000\n");
}

/// A root that shares its mounts with the host's must not unmount them there when it lets go of the host.
#[test]
fn a_shared_root_leaves_the_hosts_mounts_alone() {
    let bundle = Bundle::new("true").with(|spec| spec["linux"]["rootfsPropagation"] = json!("shared"));
    bundle.write();
    // A host whose mounts are shared, as systemd makes them, with one below another.
    let script = "mount --make-rshared / && mkdir -p $1/a && mount -t tmpfs a $1/a && mkdir $1/a/b && \
        mount -t tmpfs b $1/a/b && before=$(grep -c . /proc/self/mountinfo) && \
        $2 runtime --root $1/state run --bundle $1 $3 && [ $before = $(grep -c . /proc/self/mountinfo) ]";
    let status = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-ec", script, "sh", bundle.path(), PROBE, &bundle.id])
        .stdin(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "mounts of the host are gone");
    bundle.check_nothing_is_left();
}
