//! Labels that a module of the kernel's judges by, with profiles and a policy that are the tests' own. Only `cargo xtask vm`
//! runs these: a host's own policy is not for tests to change.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::bundle::{Bundle, failure, stdout};
use crate::namespaces::mapped;
use serde_json::{Value, json};

/// Says what the process is, and what it may not do.
const TRY: &str = "cat /proc/self/attr/current; for name in allowed denied; do \
    (echo x > /tmp/$name) 2>/dev/null && echo $name; done; true";

/// A profile in the kernel, until it is dropped.
struct Profile(String);

impl Profile {
    fn load(word: &str) -> Self {
        let profile = Self(format!("dozen-test-{word}-{}", std::process::id()));
        profile.parser("--replace");
        profile
    }

    /// apparmor_parser(8), apparmor.d(5).
    fn parser(&self, what: &str) {
        let text = format!(
            "profile {} flags=(attach_disconnected, mediate_deleted) {{\n\
             file, capability, network, mount, umount, pivot_root, signal, ptrace, unix,\n\
             deny /tmp/denied w,\n}}\n",
            self.0
        );
        let mut parser = Command::new("apparmor_parser");
        let mut parser = parser.args(["--quiet", "--skip-cache", what]).stdin(Stdio::piped()).spawn().unwrap();
        parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success());
    }

    fn said(&self) -> String {
        format!("{} (enforce)\nallowed\n", self.0)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}

/// Runs it to its end, and as a further process of a container that is there.
fn check(bundle: impl Fn(&str) -> Bundle, change: impl Fn(&mut Value), expected: &str) {
    assert_eq!(stdout(&bundle(TRY).with(&change).run()), expected);
    let live = bundle("exec sleep 1000").with(&change).live(json!({"exec": {"arguments": ["sh", "-c", TRY]}}));
    assert_eq!(stdout(&live), expected, "a further process");
}

#[test]
#[ignore = "needs AppArmor: cargo xtask vm"]
fn vm_only_apparmor_confines() {
    let profile = Profile::load("confines");
    let confined = |spec: &mut Value| spec["process"]["apparmorProfile"] = json!(profile.0);
    check(Bundle::new, confined, &profile.said());
    check(mapped, confined, &profile.said());
    // From what is not confined any profile may be entered, also by who can gain no privileges.
    let tight = |spec: &mut Value| {
        confined(spec);
        spec["process"]["noNewPrivileges"] = json!(true);
        spec["process"]["user"] = json!({"uid": 0, "gid": 0});
    };
    check(Bundle::new, tight, &profile.said());
    // And without it everything is as it was.
    check(Bundle::new, |_| {}, "unconfined\nallowed\ndenied\n");
}

/// By the command line: the container's own profile, or another one.
#[test]
#[ignore = "needs AppArmor: cargo xtask vm"]
fn vm_only_apparmor_confines_who_comes_later() {
    let (own, other) = (Profile::load("own"), Profile::load("other"));
    let bundle = Bundle::new("exec sleep 1000").with(|spec| spec["process"]["apparmorProfile"] = json!(own.0));
    bundle.write();
    let mut run = bundle.command(&["run", "--detach", "--bundle", bundle.path(), &bundle.id]);
    assert!(run.stdout(Stdio::null()).status().unwrap().success());
    let exec = |options: &[&str]| {
        let whole = [&["exec"], options, &[bundle.id.as_str(), "sh", "-c", TRY]].concat();
        bundle.command(&whole).output().unwrap()
    };
    assert_eq!(stdout(&exec(&[])), own.said());
    assert_eq!(stdout(&exec(&["--apparmor", &other.0])), other.said());
    let refused = failure(&exec(&["--apparmor", "dozen-test-nothing"]));
    assert!(refused.contains("AppArmor profile \"dozen-test-nothing\": no such profile is loaded"), "{refused}");
    stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
    bundle.check_nothing_is_left();
}

#[test]
#[ignore = "needs AppArmor: cargo xtask vm"]
fn vm_only_apparmor_has_no_such_profile() {
    for bundle in [Bundle::new("true"), mapped("true")] {
        let error =
            failure(&bundle.with(|spec| spec["process"]["apparmorProfile"] = json!("dozen-test-nothing")).run());
        assert!(error.contains("AppArmor profile \"dozen-test-nothing\": no such profile is loaded"), "{error}");
    }
}

/// A policy of two types: `confined_t` may not write to what is `base_t`'s, and of all else nothing is said.
fn policy() -> String {
    // Each context that the kernel needs before it knows of any (security/selinux/include/initial_sid_to_string.h).
    const INITIAL: &str = "kernel security unlabeled fs file file_labels init any_socket port netif netmsg node \
        igmp_packet icmp_socket tcp_socket sysctl_modprobe sysctl sysctl_fs sysctl_kernel sysctl_net sysctl_net_unix \
        sysctl_vm sysctl_dev kmod policy scmp_packet devnull";
    const BASE: &str = "user_u:base_r:base_t";
    let each = |line: &dyn Fn(&str) -> String| INITIAL.split_whitespace().map(line).collect::<String>();
    let declared = each(&|name| format!("sid {name}\n"));
    let labelled = each(&|name| format!("sid {name} {BASE}\n"));
    format!(
        "class process\nclass file\n{declared}\
         class process {{ transition dyntransition }}\nclass file {{ write }}\n\
         type base_t;\ntype confined_t;\ntype shared_t;\nrole base_r;\nrole base_r types {{ base_t confined_t shared_t }};\n\
         allow base_t {{ base_t confined_t }}:process transition;\n\
         allow base_t {{ base_t confined_t shared_t }}:file write;\n\
         allow confined_t {{ confined_t shared_t }}:file write;\n\
         user user_u roles {{ base_r }};\n{labelled}\
         fs_use_xattr ext4 {BASE};\nfs_use_trans tmpfs {BASE};\nfs_use_trans devpts {BASE};\n\
         genfscon proc / {BASE}\ngenfscon sysfs / {BASE}\ngenfscon cgroup2 / {BASE}\n"
    )
}

/// Loads it into a kernel that has none, and has it obeyed.
fn enforce() {
    let selinux = std::path::Path::new("/sys/fs/selinux");
    if !selinux.join("load").exists() {
        assert!(Command::new("mount").args(["-t", "selinuxfs", "selinuxfs"]).arg(selinux).status().unwrap().success());
    }
    let scratch = tempfile::tempdir().unwrap();
    let (text, binary) = (scratch.path().join("policy.conf"), scratch.path().join("policy"));
    fs::write(&text, policy()).unwrap();
    let version = fs::read_to_string(selinux.join("policyvers")).unwrap();
    let mut checkpolicy = Command::new("checkpolicy");
    checkpolicy.args(["-U", "allow", "-c", version.trim(), "-o"]).arg(&binary).arg(&text);
    let made = checkpolicy.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // One write(2), as a whole.
    let policy = fs::read(&binary).unwrap();
    let mut load = fs::File::options().write(true).open(selinux.join("load")).unwrap();
    assert_eq!(load.write(&policy).unwrap(), policy.len());
    fs::write(selinux.join("enforce"), "1").unwrap();
}

#[test]
#[ignore = "needs SELinux: cargo xtask vm --security selinux"]
fn vm_only_selinux_confines() {
    enforce();
    const LABEL: &str = "user_u:base_r:confined_t";
    let script = "cat /proc/self/attr/current; echo; (echo x > /tmp/denied) 2>/dev/null && echo denied; \
        echo x > /dev/shm/allowed && echo allowed";
    let confined = |spec: &mut Value| {
        spec["process"]["selinuxLabel"] = json!(LABEL);
        spec["linux"]["mountLabel"] = json!("user_u:base_r:shared_t");
    };
    // What the kernel says of a context ends with a null byte.
    let said = |output: String| output.replace('\0', "");
    for bundle in [Bundle::new, mapped] {
        // There already: who may write to it is all that is judged.
        let prepared = |command: &str| {
            let bundle = bundle(command).with(confined);
            let path = bundle.root().join("tmp/denied");
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
            bundle
        };
        let expected = format!("{LABEL}\nallowed\n");
        assert_eq!(said(stdout(&prepared(script).run())), expected);
        let live = prepared("exec sleep 1000").live(json!({"exec": {"arguments": ["sh", "-c", script]}}));
        assert_eq!(said(stdout(&live)), expected, "a further process");
    }
    let unlabelled = stdout(&Bundle::new(script).run());
    assert_eq!(said(unlabelled), "user_u:base_r:base_t\ndenied\nallowed\n");
    let error = failure(&Bundle::new("true").with(|spec| spec["process"]["selinuxLabel"] = json!("a:b:c")).run());
    assert!(error.contains("set the SELinux label \"a:b:c\""), "{error}");
}
