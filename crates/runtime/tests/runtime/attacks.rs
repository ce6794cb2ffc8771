//! What has led out of containers elsewhere, tried here: hostile images, hostile neighbours, hostile bundles.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use crate::bundle::{Bundle, PROBE, failure, stdout};
use serde_json::{Value, json};

/// Capabilities and system calls of a container that is trusted with much, though not with the host.
fn powerful(spec: &mut Value) {
    for set in ["bounding", "effective", "permitted"] {
        let held = spec["process"]["capabilities"][set].as_array_mut().unwrap();
        held.extend(["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"].map(Value::from));
    }
    spec["linux"]["seccomp"] = Value::Null;
}

fn bind(source: impl AsRef<Path>, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source.as_ref(), "options": ["rbind", "rw"]})
}

fn push_mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

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

/// Links that an image may have where files of the runtime's and of the engine's go.
#[test]
fn links_in_an_image_lead_nowhere_outside() {
    let outside = tempfile::tempdir().unwrap();
    let name = outside.path().display().to_string();
    for (link, target) in [
        ("etc/hosts", format!("{name}/absolute")),
        ("etc/hosts", format!("../../../../../../../..{name}/relative")),
        ("etc/hosts", format!("/proc/1/root{name}/magic")),
        ("etc/hosts", format!("/proc/self/cwd/../..{name}/magic")),
        ("etc/hosts", "../run/resolve/not/there".to_owned()),
        ("etc/hosts", "hosts".to_owned()),
    ] {
        let file = outside.path().join("file");
        fs::write(&file, "mounted\n").unwrap();
        let bundle = Bundle::new("cat /etc/hosts").with(|spec| push_mount(spec, bind(&file, "/etc/hosts")));
        symlink(&target, bundle.root().join(link)).unwrap();
        let output = bundle.run();
        match target.as_str() {
            // Nobody can follow a link to itself, nor make what procfs has not.
            "hosts" => assert!(failure(&output).contains("too many levels")),
            target if target.starts_with("/proc") => drop(failure(&output)),
            _ => assert_eq!(stdout(&output), "mounted\n", "{target}"),
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{target}: made outside");
    }
}

#[test]
fn links_in_place_of_system_directories_are_refused() {
    for (link, target) in
        [("proc", "/tmp"), ("sys", "../tmp"), ("dev", "/etc"), ("dev", "/proc/1/root/dev"), ("sys", "not/there")]
    {
        let bundle = Bundle::new("true");
        symlink(target, bundle.root().join(link)).unwrap();
        let error = failure(&bundle.run());
        assert!(error.contains("must be an ordinary directory"), "{link} -> {target}: {error}");
        let made = bundle.root().join("not");
        assert!(!made.exists(), "{} was made before it was refused", made.display());
    }
    // Below a /dev of the container's own nothing of the image's is seen.
    let bundle = Bundle::new("[ -c /dev/console ] && stat -c %t:%T /dev/null");
    fs::create_dir(bundle.root().join("dev")).unwrap();
    for name in ["console", "null", "pts"] {
        symlink("/etc/passwd", bundle.root().join("dev").join(name)).unwrap();
    }
    assert_eq!(stdout(&bundle.live(json!({"terminal": [24, 80]}))).trim(), "1:3");
}

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

/// CVE-2023-28642, CVE-2025-52881: a link in a volume must not lead a mount over procfs.
#[test]
fn procfs_is_what_lies_on_proc() {
    let (volume, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for target in ["/proc", "/proc/sys", "/proc/self/attr"] {
        let link = volume.path().join("link");
        symlink(target, &link).unwrap();
        let bundle = Bundle::new("true").with(|spec| {
            push_mount(spec, bind(&volume, "/vol"));
            push_mount(spec, bind(&data, "/vol/link"));
        });
        let error = failure(&bundle.run());
        assert!(error.contains("cannot be mounted because, in this root, it leads into /proc"), "{error}");
        fs::remove_file(link).unwrap();
    }
    for (destination, words) in [
        ("/proc", "/proc: only a procfs can be mounted there"),
        ("/proc/sys/kernel", "\"/proc/sys/kernel\" cannot be mounted because it is inside /proc"),
        ("/proc/../proc/self", "\"/proc/self\" cannot be mounted because it is inside /proc"),
    ] {
        let error = failure(&Bundle::new("true").with(|spec| push_mount(spec, bind(&data, destination))).run());
        assert!(error.contains(words), "{error}");
    }
    // What lxcfs does.
    let file = data.path().join("uptime");
    fs::write(&file, "1 1\n").unwrap();
    let bundle = Bundle::new("cat /proc/uptime").with(|spec| push_mount(spec, bind(&file, "/proc/uptime")));
    assert_eq!(stdout(&bundle.run()), "1 1\n");
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
         unshare -UrmC true 2>/dev/null && echo unshared; echo done",
    );
    assert_eq!(stdout(&bundle.run()), "done\n");
}

/// CVE-2024-21626: no directory of the host's by a descriptor, for a first process and for a further one.
#[test]
fn a_working_directory_of_the_hosts_is_refused() {
    for number in 3..16 {
        for directory in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../..")] {
            let bundle = Bundle::new("ls /").with(|spec| spec["process"]["cwd"] = json!(directory));
            bundle.write();
            let mut command = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
            let forgotten = fs::File::open("/").unwrap();
            rustix::io::fcntl_setfd(&forgotten, rustix::io::FdFlags::empty()).unwrap();
            let output = command.output().unwrap();
            let seen = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(!output.status.success() || !seen.contains("boot"), "{directory}: {seen}");
        }
    }
}

/// A container in the pid namespace of another: those who are in it already must see nothing of the host's through
/// who comes.
#[test]
fn joining_a_pid_namespace_shows_nothing_of_the_host() {
    let marker = tempfile::tempdir().unwrap();
    let hunt = format!(
        "echo ready; while :; do for process in /proc/[0-9]*; do [ $process = /proc/1 ] && continue; \
         [ -e $process/root{0} ] && echo escaped by root; \
         for link in $process/fd/* $process/cwd; do [ -e $link{0} ] && echo escaped by $link; done; \
         done; done 2>/dev/null",
        marker.path().display()
    );
    let hunter = Bundle::new(&hunt).with(powerful);
    hunter.write();
    let log = hunter.directory.path().join("log");
    let pid_file = hunter.directory.path().join("pid");
    let run = ["run", "--detach", "--bundle", hunter.path(), "--pid-file", pid_file.to_str().unwrap(), &hunter.id];
    let started = hunter.command(&run).stdout(fs::File::create(&log).unwrap()).stderr(Stdio::inherit()).status();
    assert!(started.unwrap().success());
    while fs::read_to_string(&log).unwrap() != "ready\n" {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let namespace = format!("/proc/{}/ns/pid", fs::read_to_string(&pid_file).unwrap());
    for _ in 0..30 {
        let script = "[ $$ != 1 ] && grep -q ^NSpid:.$$ /proc/self/status; ps | grep -c '[e]cho ready'; \
            dd if=/proc/interrupts bs=1 count=1 2>/dev/null | wc -c; touch /proc/sys/x 2>/dev/null || echo kept";
        let bundle = Bundle::new(script).with(|spec| {
            for namespace_of in spec["linux"]["namespaces"].as_array_mut().unwrap() {
                if namespace_of["type"] == "pid" {
                    namespace_of["path"] = json!(namespace);
                }
            }
        });
        assert_eq!(stdout(&bundle.run()), "1\n0\nkept\n");
        assert_eq!(fs::read_to_string(&log).unwrap(), "ready\n");
    }
    let missing = Bundle::new("").with(|spec| {
        spec["process"]["args"] = json!(["nope"]);
        spec["linux"]["namespaces"][2]["path"] = json!(namespace);
    });
    assert_eq!(missing.spec["linux"]["namespaces"][2]["type"], "pid");
    assert!(failure(&missing.run()).contains("executable file not found"));
    stdout(&hunter.command(&["delete", "--force", &hunter.id]).output().unwrap());
    hunter.check_nothing_is_left();
}

/// Who may trace (CAP_SYS_PTRACE) could take the rights of a process on its way into the container: it has none that
/// the container has not, and is under its filter, from the moment on at which it is seen.
#[test]
fn an_exec_brings_no_rights_along() {
    let script = "while read name value; do [ $name = CapPrm: ] && own=$value; done < /proc/self/status; echo ready; \
        while :; do for status in /proc/[0-9]*/status; do while read name value; do case $name in \
          CapPrm:|CapBnd:) [ $value = $own ] || echo escaped with $name $value;; \
          Seccomp:) [ $value = 2 ] || echo escaped with $name $value;; \
        esac; done < $status; done; done 2>/dev/null";
    let hunter = Bundle::new(script).with(|spec| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
        }
    });
    hunter.write();
    let log = hunter.directory.path().join("log");
    let run = ["run", "--detach", "--bundle", hunter.path(), &hunter.id];
    let started = hunter.command(&run).stdout(fs::File::create(&log).unwrap()).stderr(Stdio::inherit()).status();
    assert!(started.unwrap().success());
    while fs::read_to_string(&log).unwrap() != "ready\n" {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    for _ in 0..100 {
        stdout(&hunter.command(&["exec", &hunter.id, "true"]).output().unwrap());
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), "ready\n");
    stdout(&hunter.command(&["delete", "--force", &hunter.id]).output().unwrap());
    hunter.check_nothing_is_left();
}

/// A filter that forbids what it takes to be brought in early is still in force in time.
#[test]
fn an_exec_comes_in_under_any_filter() {
    for forbidden in ["clone", "setsid", "close_range", "recvmsg"] {
        let bundle = Bundle::new("exec sleep 1000").with(|spec| {
            let rule = json!({"names": [forbidden], "action": "SCMP_ACT_ERRNO", "errnoRet": 1});
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        });
        let exec = json!({"arguments": ["grep", "Seccomp:", "/proc/self/status"], "user": "web"});
        assert_eq!(stdout(&bundle.live(json!({"exec": exec}))), "Seccomp:\t2\n", "{forbidden}");
    }
}

/// Limits are those of the container's, also where they would stand in the way of who comes in.
#[test]
fn an_exec_has_the_tightest_limits() {
    let bundle = Bundle::new("exec sleep 1000").with(|spec| {
        spec["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NPROC", "soft": 1, "hard": 2}, {"type": "RLIMIT_NOFILE", "soft": 4, "hard": 5},
        ]);
    });
    let exec = json!({"arguments": ["grep", "-E", "processes|open files", "/proc/self/limits"], "user": "4711"});
    let output = stdout(&bundle.live(json!({"exec": exec})));
    let words: Vec<&str> = output.split_whitespace().filter(|word| word.parse::<u32>().is_ok()).collect();
    assert_eq!(words, ["1", "2", "4", "5"], "{output}");
}

/// A bundle is its author's word against the host's peace: refused with a reason, and nothing is left.
#[test]
fn hostile_bundles_are_refused() {
    let refused = |change: &dyn Fn(&mut Value), words: &str| {
        let error = failure(&Bundle::new("true").with(change).run());
        assert!(error.contains(words), "want {words:?}: {error}");
        assert!(!error.contains("panicked"), "{error}");
    };
    refused(&|spec| spec["hostname"] = json!("a\0b"), "hostname: \"a\\0b\" contains a null byte");
    refused(&|spec| spec["process"]["env"] = json!(["A=\0"]), "null byte");
    refused(
        &|spec| {
            let env = spec["process"]["env"].as_array_mut().unwrap();
            env.push(json!(format!("A={}", "x".repeat(4 << 20))));
        },
        "argument list too long",
    );
    refused(&|spec| spec["linux"]["cgroupsPath"] = json!("../.."), "invalid cgroup name");
    refused(&|spec| spec["linux"]["cgroupsPath"] = json!("/"), "invalid cgroup name");
    refused(&|spec| spec["root"]["path"] = json!("../../no/such"), "invalid rootfs");
    refused(&|spec| spec["root"]["path"] = json!("config.json"), "invalid rootfs");
    refused(&|spec| spec["linux"]["sysctl"] = json!({"kernel/../vm/drop_caches": "1"}), "invalid sysctl");
    refused(&|spec| spec["linux"]["sysctl"] = json!({"kernel.core_pattern": "|/x"}), "separate kernel namespace");
    refused(&|spec| spec["process"]["capabilities"]["bounding"] = json!(["CAP_NONSENSE"]), "CAP_NONSENSE");
    refused(&|spec| spec["mounts"] = json!({"destination": 1}), "config.json");
    refused(&|spec| push_mount(spec, bind("/tmp", "/../..")), "hide the root");
    refused(&|spec| push_mount(spec, json!({"destination": "/x\0y", "type": "tmpfs"})), "null byte");
    refused(&|spec| spec["linux"]["devices"] = json!([{"path": "../x", "type": "c", "major": -1, "minor": 1}]), "");
    // What the specification does not know is not ours to refuse (config.md, "Extensibility").
    let bundle = Bundle::new("echo ran").with(|spec| spec["unknown"] = json!({"linux": [1]}));
    assert_eq!(stdout(&bundle.run()), "ran\n");
    let bundle = Bundle::new("echo ran").with(|spec| spec["linux"]["cgroupsPath"] = json!(""));
    assert_eq!(stdout(&bundle.run()), "ran\n");
}

#[test]
fn sysctls_of_the_hosts_network_are_not_a_containers() {
    let own = fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
    let with_network = |network: Value| {
        let bundle = Bundle::new("true").with(|spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "network");
            namespaces.extend(network.is_object().then_some(network));
            spec["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
        });
        failure(&bundle.run())
    };
    assert!(with_network(Value::Null).contains("is not in a separate kernel namespace"));
    let joined = with_network(json!({"type": "network", "path": "/proc/self/ns/net"}));
    assert!(joined.contains("the host's network"), "{joined}");
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap(), own);
}

#[test]
fn many_mounts_are_made_and_gone() {
    let data = tempfile::tempdir().unwrap();
    let bundle = Bundle::new("grep -c /many/ /proc/self/mountinfo").with(|spec| {
        (0..3000).for_each(|number| push_mount(spec, bind(&data, &format!("/many/{number}"))));
    });
    assert_eq!(stdout(&bundle.run()), "3000\n");
}

/// A cgroup in which others are must not become a container's: it is killed with it.
#[test]
fn a_cgroup_of_others_is_not_taken() {
    let other = Bundle::new("exec sleep 1000");
    other.write();
    let run = ["run", "--detach", "--bundle", other.path(), &other.id];
    assert!(other.command(&run).stdout(Stdio::null()).status().unwrap().success());
    let bundle = Bundle::new("true").with(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{}", other.id)));
    let error = failure(&bundle.run());
    assert!(error.contains("is in use"), "{error}");
    let state: Value = serde_json::from_str(&stdout(&other.command(&["state", &other.id]).output().unwrap())).unwrap();
    assert_eq!(state["status"], "running");
    stdout(&other.command(&["delete", "--force", &other.id]).output().unwrap());
    other.check_nothing_is_left();
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

/// Whoever is user inside reads passwd with all rights: it must be a file of the image's.
#[test]
fn a_passwd_that_is_a_file_of_procfs_is_not_read() {
    let bundle = Bundle::new("echo $HOME");
    fs::remove_file(bundle.root().join("etc/passwd")).unwrap();
    symlink("/proc/kmsg", bundle.root().join("etc/passwd")).unwrap();
    assert_eq!(stdout(&bundle.run()), "/\n");
}
