//! CVE-2019-5736: our own binary, which runs inside, must not be written to from there.
//!
//! Guarded by `own_binary`: it is executed from a detached, read-only mount. Without the mount the program can be
//! opened for writing as soon as it has ended (ETXTBSY until then). That the mount is in no namespace either, also while
//! the engine has it open, is tried on the engine itself.

use super::*;

/// With CAP_SYS_ADMIN: whoever finds the program at /proc/1/exe does not get it for writing, by no way.
#[test]
fn our_own_binary_cannot_be_made_writable() {
    let bundle = Bundle::new("/bin/probe attack exe").with(powerful);
    copy_program(Path::new(PROBE), &bundle.root().join("bin/probe"));
    assert_eq!(stdout(&bundle.live(json!({"init": true}))), "tried\n");
    // An image whose program is /proc/self/exe: ours is executed inside, as an attacker wants it.
    let bundle = Bundle::new("").with(powerful).with(|spec| {
        spec["process"]["args"] = json!(["/proc/self/exe", "attack", "exe"]);
    });
    assert_eq!(stdout(&bundle.run()), "tried\n");
}

/// One that lies on a read-only mount of the host's is not protected by that: the host makes it writable for every
/// update. Guarded by the mark that tells our own mount from others, `own_binary::is_own_mount`.
#[test]
fn a_binary_on_a_read_only_mount_of_the_hosts_is_protected_too() {
    let bundle = Bundle::new("echo ready; read -r word; /bin/probe attack exe").with(powerful);
    copy_program(Path::new(PROBE), &bundle.root().join("bin/probe"));
    bundle.write();
    let script = "mkdir host; cp $2 host/dozen; mount --bind host host; mount -o remount,bind,ro host; mkfifo in out; \
        host/dozen runtime --root state run --init --bundle . $1 <in >out & \
        exec 3>in 4<out; read -r ready <&4; mount -o remount,bind,rw host; echo go >&3; cat <&4; wait $!";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh", &bundle.id, PROBE]);
    let output = command.current_dir(bundle.path()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(stdout(&output), "tried\n");
    bundle.check_nothing_is_left();
}
