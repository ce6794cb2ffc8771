//! Containers on the real kernel: what a process in one sees, may and may not, and what is left of it.

use std::fs;
use std::os::unix::fs::symlink;

use crate::bundle::{Bundle, failure, stdout};
use serde_json::json;

#[test]
fn a_process_ends_with_its_own_code() {
    assert_eq!(Bundle::new("exit 7").run().status.code(), Some(7));
    assert_eq!(Bundle::new("true").run().status.code(), Some(0));
    assert_eq!(Bundle::new("kill -9 $$").live(json!({"init": true})).status.code(), Some(128 + 9));
}

#[test]
fn programs_that_cannot_be_executed_have_dockers_words() {
    let run = |args: &[&str]| failure(&Bundle::new("").with(|spec| spec["process"]["args"] = json!(args)).run());
    assert!(run(&["nope"]).contains(r#"exec: "nope": executable file not found in $PATH"#));
    assert!(run(&["/nope"]).contains(r#"exec: "/nope": no such file or directory"#));
    assert!(run(&["/etc/passwd"]).contains(r#"exec: "/etc/passwd": permission denied"#));
    assert!(run(&["/bin"]).contains(r#"exec: "/bin": is a directory"#));
    // Found and executable, but no program: only execve itself can tell.
    let bundle = Bundle::new("").with(|spec| spec["process"]["args"] = json!(["/bin/text"]));
    let text = bundle.root().join("bin/text");
    fs::write(&text, "\x7fELF").unwrap();
    fs::set_permissions(&text, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(failure(&bundle.run()).contains(r#"exec: "/bin/text": exec format error"#));
}

#[test]
fn it_is_alone() {
    let output = stdout(
        &Bundle::new("echo $$; ps > /tmp/list; wc -l < /tmp/list; hostname; ls /sys/class/net; cat /proc/self/cgroup")
            .run(),
    );
    let lines: Vec<&str> = output.lines().collect();
    // The header, the shell and ps.
    assert_eq!(&lines[..4], ["1", "3", "dozen", "lo"], "{output}");
    assert!(lines[4..].iter().all(|line| line.ends_with(":/")), "{output}");
}

#[test]
fn no_descriptor_of_the_hosts_is_inherited() {
    let bundle = Bundle::new("cd /proc/self/fd && for fd in *; do readlink $fd > /dev/null && echo $fd; done; true");
    bundle.write();
    let mut command = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
    // One that whoever starts us forgot to close.
    let forgotten = fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&forgotten, rustix::io::FdFlags::empty()).unwrap();
    let output = stdout(&command.output().unwrap());
    let beyond: Vec<&str> = output.lines().filter(|fd| !["0", "1", "2"].contains(fd)).collect();
    // What the shell itself opens to list the directory is closed again before anything is looked at.
    assert!(beyond.is_empty(), "{output}");
}

#[test]
fn the_environment_has_a_home() {
    let home = |user: &str| stdout(&Bundle::new("echo $HOME").live(json!({"user": user})));
    assert_eq!((home(""), home("web"), home("77")), ("/root\n".into(), "/var/www\n".into(), "/\n".into()));
    let own = Bundle::new("echo $HOME").with(|spec| spec["process"]["env"] = json!(["PATH=/bin", "HOME=/mine"]));
    assert_eq!(stdout(&own.run()), "/mine\n");
}

#[test]
fn users_are_looked_up_inside() {
    let id = |user: &str| {
        stdout(
            &Bundle::new("id -u; id -g; id -G; grep -E 'CapEff|CapPrm' /proc/self/status").live(json!({"user": user})),
        )
    };
    let none = "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n";
    assert_eq!(id("web"), format!("33\n33\n33 4\n{none}"));
    assert_eq!(id("web:adm"), format!("33\n4\n4\n{none}"));
    assert_eq!(id("12:34"), format!("12\n34\n34\n{none}"));
    assert!(id("").starts_with("0\n0\n0\nCapPrm:\t00000000a80425fb\n"));
    let error = failure(&Bundle::new("true").live(json!({"user": "nobody"})));
    assert!(error.contains("unable to find user nobody: no matching entries in passwd file"), "{error}");
}

#[test]
fn secrets_of_the_host_are_masked_and_its_switches_read_only() {
    let output = stdout(
        &Bundle::new(
            "wc -c < /proc/keys; ls -A /sys/firmware /proc/acpi | grep -v : ; \
             (echo 1 > /proc/sys/vm/drop_caches) 2>/dev/null || echo kept; \
             (echo 1 > /proc/irq/default_smp_affinity) 2>/dev/null || echo kept; \
             (echo x > /sys/fs/cgroup/x) 2>/dev/null || echo kept; \
             touch /sys/x 2>/dev/null || echo kept",
        )
        .run(),
    );
    assert_eq!(output.replace("\n\n", "\n"), "0\nkept\nkept\nkept\nkept\n");
}

#[test]
fn seccomp_forbids() {
    let output =
        stdout(&Bundle::new("unshare -m true 2>&1; mount -t tmpfs x /tmp 2>&1; grep Seccomp: /proc/self/status").run());
    assert_eq!(output.matches("ermission").count() + output.matches("not permitted").count(), 2, "{output}");
    assert!(output.contains("Seccomp:\t2"));
    let kill = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]});
    let own = Bundle::new("mkdir /tmp/x 2>&1").with(|spec| spec["linux"]["seccomp"] = kill).run();
    assert!(String::from_utf8_lossy(&own.stdout).contains("not supported"), "{own:?}");
}

#[test]
fn no_new_privileges_is_set() {
    let bundle =
        Bundle::new("grep NoNewPrivs /proc/self/status").with(|s| s["process"]["noNewPrivileges"] = json!(true));
    assert_eq!(stdout(&bundle.run()), "NoNewPrivs:\t1\n");
}

#[test]
fn a_read_only_root_cannot_be_written_and_a_tmpfs_on_it_can() {
    let bundle = Bundle::new("touch /x 2>/dev/null || echo kept; touch /tmp/x && echo made").with(|spec| {
        spec["root"]["readonly"] = json!(true);
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"]}),
        );
    });
    assert_eq!(stdout(&bundle.run()), "kept\nmade\n");
}

#[test]
fn binds_are_read_only_if_asked_and_links_in_the_image_lead_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), "data").unwrap();
    let bundle = Bundle::new("cat /out/f /etc/inside/f; touch /out/x 2>/dev/null || echo kept");
    // A hostile image: the target lies behind a link, which must be followed inside the root.
    symlink("/etc", bundle.root().join("out-link")).unwrap();
    let mount = |to: &str, option: &str| json!({"destination": to, "type": "bind", "source": outside.path(), "options": ["rbind", option]});
    let bundle = bundle.with(|spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.extend([mount("/out", "ro"), mount("/out-link/inside", "rw")]);
    });
    assert_eq!(stdout(&bundle.run()), "datadatakept\n");
    assert!(bundle.root().join("etc/inside").exists() && !std::path::Path::new("/etc/inside").exists());
    assert!(!outside.path().join("x").exists());
}

#[test]
fn a_link_in_place_of_proc_is_refused() {
    let bundle = Bundle::new("true");
    symlink("tmp", bundle.root().join("proc")).unwrap();
    let error = failure(&bundle.run());
    assert!(error.contains("must be an ordinary directory"), "{error}");
}

#[test]
fn nothing_is_mounted_in_proc_but_what_shows_figures() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), "figures").unwrap();
    let with = |to: &str, from: &std::path::Path| {
        let mount = json!({"destination": to, "type": "bind", "source": from, "options": ["rbind"]});
        Bundle::new("cat /proc/meminfo; ls /proc/self/status").with(|spec| {
            spec["mounts"].as_array_mut().unwrap().push(mount);
        })
    };
    let file = outside.path().join("f");
    assert_eq!(stdout(&with("/proc/meminfo", &file).run()), "figures/proc/self/status\n");
    assert!(stdout(&with("/proc", "/proc".as_ref()).run()).contains("/proc/self/status"));
    for (to, from, words) in [
        ("/proc/sys", outside.path(), "\"/proc/sys\" cannot be mounted because it is inside /proc"),
        ("/proc/self/attr/current", &file, "inside /proc"),
        ("/proc", outside.path(), "only a procfs can be mounted there"),
    ] {
        let error = failure(&with(to, from).run());
        assert!(error.contains(words), "{to}: {error}");
    }
    // A hostile image: the volume's place is a link.
    for link in ["/proc/sys", "/proc", "../proc/sys/kernel", "/proc/self/task/1/attr", "/proc/meminfo"] {
        let from = if link.ends_with("meminfo") { &file } else { outside.path() };
        let bundle = with("/data", from);
        symlink(link, bundle.root().join("data")).unwrap();
        let error = failure(&bundle.run());
        assert!(
            error.contains("/data cannot be mounted because, in this root, it leads into /proc"),
            "{link}: {error}"
        );
    }
}

#[test]
fn a_false_null_device_is_refused() {
    let bundle = Bundle::new("true").with(|spec| {
        // /dev is the image's own: a bind.
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        mounts.push(json!({"destination": "/dev", "type": "bind", "source": "rootfs/tmp", "options": ["bind"]}));
    });
    fs::write(bundle.root().join("tmp/null"), "").unwrap();
    let error = failure(&bundle.run());
    assert!(error.contains("is not the null device"), "{error}");
}

/// What podman asks for.
#[test]
fn default_devices_are_there_whatever_is_forbidden() {
    let bundle = Bundle::new(
        "echo x > /dev/null && cat /dev/null && dd if=/dev/zero bs=1 count=3 2>/dev/null | wc -c; mknod /tmp/b b 8 0 && \
         cat /tmp/b 2>/dev/null || echo kept",
    )
    .with(|spec| spec["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}]));
    assert_eq!(crate::oracle::same(&bundle), "3\nkept\n");
}

#[test]
fn the_working_directory_is_made() {
    let bundle = Bundle::new("pwd; stat -c %u .").with(|spec| spec["process"]["cwd"] = json!("/srv/a/b"));
    assert_eq!(stdout(&bundle.run()), "/srv/a/b\n0\n");
}

#[test]
fn limits_and_sysctls_are_set() {
    let bundle = Bundle::new("ulimit -n; ulimit -c; cat /proc/sys/net/ipv4/ip_unprivileged_port_start").with(|spec| {
        spec["process"]["rlimits"] =
            json!([{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "0"});
    });
    assert_eq!(stdout(&bundle.run()), "99\n0\n0\n");
}

#[test]
fn devices_are_limited() {
    // Major 1, minor 1 is /dev/mem: it can be made, and not opened.
    let bundle = Bundle::new(
        "mknod /tmp/mem c 1 1 && dd if=/tmp/mem of=/dev/null count=1 2>&1 | tail -1; echo x > /dev/null && echo ok",
    );
    let output = stdout(&bundle.run());
    assert!(output.contains("not permitted") && output.ends_with("ok\n"), "{output}");
}

/// However long the rules of devices take to be written (in version 1, one by one, the first against all): until the
/// last one is there, devices can be neither made nor opened.
#[test]
fn devices_are_made_under_all_of_their_rules() {
    let bundle = Bundle::new("stat -c %d /dev /dev/null; stat -Lc %d /dev/stdin").with(|spec| {
        let rules = spec["linux"]["resources"]["devices"].as_array_mut().unwrap();
        assert_eq!(rules[0]["allow"], false);
        let more =
            (0..8000).map(|minor| json!({"allow": true, "type": "c", "major": 240, "minor": minor, "access": "r"}));
        rules.splice(1..1, more);
        // So that the child is still at its mounts when the first rule is written.
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.extend((0..200).map(|number| json!({"destination": format!("/tmp/{number}"), "type": "tmpfs"})));
    });
    let output = stdout(&bundle.run());
    let numbers: Vec<&str> = output.lines().collect();
    assert!(numbers.len() == 3 && numbers.iter().all(|number| *number == numbers[0]), "{output}");
}

#[test]
fn limits_of_the_cgroup_are_set() {
    let bundle =
        Bundle::new("cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max");
    let bundle = bundle.with(|spec| spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20}));
    assert_eq!(stdout(&bundle.run()), format!("{}\n", 64 << 20));
}

#[test]
fn an_overlay_is_seen_inside_only() {
    let bundle = Bundle::new("echo new > /made; cat /low /made; grep -c overlay /proc/mounts");
    let under = |name: &str| {
        let path = bundle.directory.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (upper, work, top) = (under("upper"), under("work"), under("top"));
    fs::write(top.join("low"), "top\n").unwrap();
    fs::write(bundle.root().join("low"), "bottom\n").unwrap();
    let root = json!({"Overlay": {"lower": [top, bundle.root()], "upper": upper, "work": work}});
    assert_eq!(stdout(&bundle.live(json!({"root": root}))), "top\nnew\n1\n");
    assert_eq!(fs::read_to_string(upper.join("made")).unwrap(), "new\n");
}

#[test]
fn a_terminal_is_the_containers_own() {
    let bundle = Bundle::new("tty; stty size; [ -c /dev/console ] && echo console; ls -1 /dev/pts");
    let output = stdout(&bundle.live(json!({"terminal": [30, 90]})));
    assert_eq!(output.replace('\r', ""), "/dev/pts/0\n30 90\nconsole\n0\nptmx\n");
}

#[test]
fn init_reaps_forwards_and_ends_as_its_child() {
    let bundle = Bundle::new("echo $$; cat /proc/1/comm; readlink /proc/1/exe > /dev/null; (sleep 0.01 &) ; exit 9");
    let output = bundle.live(json!({"init": true}));
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(lines.starts_with("2\n"), "{lines}");
    // Nothing in the container can write to our binary (CVE-2019-5736).
    let attack = Bundle::new("(echo evil >> /proc/1/exe) 2>/dev/null || echo kept");
    assert_eq!(stdout(&attack.live(json!({"init": true}))), "kept\n");
    let missing = Bundle::new("").with(|spec| spec["process"]["args"] = json!(["nope"])).live(json!({"init": true}));
    assert!(failure(&missing).contains("executable file not found in $PATH"));
}

#[test]
fn exec_joins_and_is_as_confined() {
    let script = "echo $$; hostname; grep -E 'CapEff|Seccomp:' /proc/self/status; ls /proc/self/fd | wc -l; cut -d: -f3 /proc/self/cgroup | sort | head -1";
    let exec = |exec: serde_json::Value| Bundle::new("exec sleep 1000").live(json!({ "exec": exec }));
    let output = stdout(&exec(json!({"arguments": ["sh", "-c", script.replace("| head -1", "| tail -1")]})));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[1..4], ["dozen", "CapEff:\t00000000a80425fb", "Seccomp:\t2"], "{output}");
    // 0, 1, 2, and the one by which ls reads.
    assert_eq!(lines[4..], ["4", "/"], "{output}");
    let code = |arguments: &[&str]| exec(json!({ "arguments": arguments })).status.code();
    assert_eq!((code(&["sh", "-c", "exit 3"]), code(&["nope"])), (Some(3), Some(125)));
    let user = stdout(&exec(json!({"arguments": ["id", "-un"], "user": "web"})));
    assert_eq!(user, "web\n");
    let privileged = stdout(&exec(json!({"arguments": ["grep", "Seccomp:", "/proc/self/status"], "privileged": true})));
    assert_eq!(privileged, "Seccomp:\t0\n");
}

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    let fails = |change: fn(&mut serde_json::Value), words: &str| {
        let error = failure(&Bundle::new("true").with(change).run());
        assert!(error.contains(words), "{error}");
    };
    let mount = |mount: serde_json::Value| {
        move |spec: &mut serde_json::Value| spec["mounts"].as_array_mut().unwrap().push(mount)
    };
    fails(|spec| spec["linux"]["resources"]["memory"] = json!({"limit": 1, "swap": 1, "swappiness": 1000}), "memory");
    fails(|spec| spec["linux"]["sysctl"] = json!({"net.no.such": "1"}), "sysctl");
    fails(|spec| spec["hostname"] = json!("x".repeat(70)), "hostname");
    let missing = json!({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]});
    let error = failure(&Bundle::new("true").with(mount(missing)).run());
    assert!(error.contains("bind source path does not exist: /no/such"), "{error}");
    let unknown = json!({"destination": "/x", "type": "tmpfs", "source": "x", "options": ["nonsense=1"]});
    let error = failure(&Bundle::new("true").with(mount(unknown)).run());
    assert!(error.contains("nonsense"), "{error}");
}

#[test]
fn descriptors_of_the_caller_are_handed_on_by_number() {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    let bundle = Bundle::new("cat <&3");
    bundle.write();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = bundle.command(&["run", "--preserve-fds", "1", "--bundle", bundle.path(), &bundle.id]);
    // Above 3, so that dup2 makes a new one, without close-on-exec.
    let reader = rustix::io::fcntl_dupfd_cloexec(&reader, 10).unwrap();
    let number = reader.as_raw_fd();
    // SAFETY: dup2 is safe between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::dup2(number, 3) {
            3 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    std::io::Write::write_all(&mut writer, b"handed on").unwrap();
    drop(writer);
    assert_eq!(stdout(&command.output().unwrap()), "handed on");
}
