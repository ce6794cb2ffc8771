//! CVE-2019-5736: our own binary, which runs inside, must not be written to from there.

use super::*;

/// CVE-2019-5736, with CAP_SYS_ADMIN: a read-only mount must not be made writable by who finds it at /proc/1/exe.
#[test]
fn our_own_binary_cannot_be_made_writable() {
    let bundle = Bundle::new("/bin/probe overwrite").with(powerful);
    fs::copy(PROBE, bundle.root().join("bin/probe")).unwrap();
    let output = bundle.live(json!({"init": true}));
    assert!(output.status.success(), "{output:?}");
    // An image whose program is /proc/self/exe: ours is executed inside, as an attacker wants it.
    let bundle = Bundle::new("").with(powerful).with(|spec| {
        spec["process"]["args"] = json!(["/proc/self/exe", "overwrite"]);
    });
    let output = bundle.run();
    assert!(output.status.success(), "{output:?}");
}
