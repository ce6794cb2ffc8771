//! User and time namespaces, joined ones, and none.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::bundle::{Bundle, failure, stdout};
use crate::oracle::same;
use serde_json::{Value, json};

/// Where the container's root is on the host.
pub const ROOT: u32 = 100_000;

/// With a user namespace, and a root that belongs to it.
pub fn mapped(command: &str) -> Bundle {
    let bundle = Bundle::new(command).with(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        for list in ["uidMappings", "gidMappings"] {
            spec["linux"][list] = json!([{"containerID": 0, "hostID": ROOT, "size": 65536}]);
        }
    });
    own(&bundle.root());
    bundle
}

pub fn own(path: &Path) {
    std::os::unix::fs::lchown(path, Some(ROOT), Some(ROOT)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| own(&entry.unwrap().path()));
    }
}

pub fn without(spec: &mut Value, kind: &str) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
}

pub fn join(spec: &mut Value, kind: &str, path: impl AsRef<Path>) {
    without(spec, kind);
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": kind, "path": path.as_ref()}));
}

#[test]
fn root_of_a_user_namespace_is_nobody_outside() {
    let script = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -u; stat -c '%u %g' / /tmp /proc/1 /dev/shm; \
        touch /tmp/made; hostname; cat /proc/sys/kernel/hostname; hostname other 2>&1; grep Cap /proc/self/status";
    let bundle = mapped(script);
    let output = same(&bundle);
    assert!(output.starts_with("         0     100000      65536\n"), "{output}");
    let made = fs::metadata(bundle.root().join("tmp/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (ROOT, ROOT));
}

/// All other namespaces are the user namespace's own: its root may do in them what root may.
#[test]
fn every_namespace_belongs_to_the_user_namespace() {
    let bundle = mapped(
        "hostname inside && hostname; mount -t tmpfs none /tmp && echo mounted; mkdir /tmp/proc; \
         mount -t proc none /tmp/proc && echo procfs; unshare -n true && echo network; \
         echo 7 > /proc/sys/net/ipv4/ip_default_ttl && cat /proc/sys/net/ipv4/ip_default_ttl",
    )
    .with(|spec| {
        spec["linux"]["seccomp"] = Value::Null;
        spec["linux"]["readonlyPaths"] = json!([]);
        spec["linux"]["maskedPaths"] = json!([]);
        for set in ["bounding", "effective", "permitted"] {
            let held = spec["process"]["capabilities"][set].as_array_mut().unwrap();
            held.extend(["CAP_SYS_ADMIN", "CAP_NET_ADMIN"].map(Value::from));
        }
    });
    assert_eq!(same(&bundle), "inside\nmounted\nprocfs\nnetwork\n7\n");
}

#[test]
fn sysctls_of_a_user_namespace() {
    let bundle = mapped("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/fs/mqueue/msg_max").with(|spec| {
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "7", "fs.mqueue.msg_max": "5"});
    });
    assert_eq!(stdout(&bundle.run()), "7\n5\n");
}

/// In version 2 a cgroup that the container may write to is its own to part (config-linux.md, "Cgroup ownership"); in
/// version 1 nobody gives any away.
#[test]
fn a_writable_cgroup_is_given_to_the_user_namespace() {
    let script = "cd /sys/fs/cgroup; if [ -e cgroup.procs ]; then stat -c '%n %u' . cgroup.procs cgroup.threads memory.max \
        2>/dev/null; mkdir sub && echo $$ > sub/cgroup.procs && grep ^0 /proc/self/cgroup; \
        else mkdir memory/sub 2>/dev/null || echo kept; fi";
    let writable = |spec: &mut Value| {
        for mount in spec["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "cgroup" {
                mount["options"].as_array_mut().unwrap().retain(|option| option != "ro");
            }
        }
    };
    let output = stdout(&mapped(script).with(writable).run());
    if Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
        assert!(output.starts_with(". 0\ncgroup.procs 0\ncgroup.threads 0\n"), "{output}");
        assert!(output.ends_with("/sub\n") && !output.contains("memory.max 0"), "{output}");
        // Read-only it stays the host's.
        assert!(String::from_utf8_lossy(&mapped(script).run().stdout).starts_with(". 65534\n"));
    } else {
        assert_eq!(output, "kept\n");
    }
}

#[test]
fn devices_and_mounts_are_there_in_a_user_namespace() {
    let data = tempfile::tempdir().unwrap();
    // Its owner alone may enter it: root outside, who binds it, not root inside.
    fs::set_permissions(data.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let shared = data.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("f"), "data").unwrap();
    let script = "cat /data/f; echo; echo x > /dev/null; head -c 3 /dev/zero | wc -c; \
        for f in /dev/null /dev/zero /dev/full /dev/tty; do stat -c '%n %A %t %T' $f; done; \
        touch /data/x 2>/dev/null || echo kept; ls /dev/mqueue /dev/pts; stat -c '%a %g' /dev/pts; \
        cut -d' ' -f5 /proc/self/mountinfo | grep -vE '/sys/fs/cgroup|/proc/|/sys/' | sort";
    let bundle = mapped(script).with(|spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/data", "type": "bind", "source": shared, "options": ["bind", "ro"]}));
    });
    symlink("busybox", bundle.root().join("bin/head")).unwrap();
    let output = stdout(&bundle.run());
    assert!(output.starts_with("data\n3\n/dev/null crw-rw-rw- 1 3\n"), "{output}");
    assert!(output.contains("kept\n") && output.contains("\n/dev/mqueue\n"), "{output}");
}

/// The bundle is in a directory of root's alone, through which root inside cannot go.
#[test]
fn hooks_are_run_in_a_user_namespace() {
    let bundle = mapped("cat /log").with(|spec| {
        for (stage, log) in [("createRuntime", "rootfs/log"), ("createContainer", "log"), ("startContainer", "/log")] {
            let script = format!("echo {stage} $(cut -d' ' -f8- /proc/self/uid_map) >> {log}; chmod 666 {log} || true");
            let env = ["PATH=/bin:/usr/bin"];
            spec["hooks"][stage] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": env}]);
        }
    });
    symlink("busybox", bundle.root().join("bin/chmod")).unwrap();
    let output = stdout(&bundle.run());
    let lines: Vec<Vec<&str>> = output.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][0], "createRuntime");
    assert_eq!(lines[1..], [["createContainer", "0", "100000", "65536"], ["startContainer", "0", "100000", "65536"]]);
}

#[test]
fn what_cannot_be_mapped_is_said() {
    let error = failure(&mapped("true").with(|spec| spec["linux"]["uidMappings"][0]["containerID"] = json!(1)).run());
    assert!(error.contains("must map 0"), "{error}");
    let own = mapped("true").with(|spec| join(spec, "user", "/proc/self/ns/user"));
    let error = failure(&own.run());
    assert!(error.contains("join namespace /proc/self/ns/user: invalid argument"), "{error}");
}

#[test]
fn users_in_a_user_namespace() {
    let bundle = mapped("id; grep Groups /proc/self/status; echo $HOME; cat /proc/self/oom_score_adj").with(|spec| {
        spec["process"]["user"] = json!({"uid": 33, "gid": 33, "additionalGids": [4]});
        spec["process"]["oomScoreAdj"] = json!(100);
    });
    same(&bundle);
    assert!(stdout(&mapped("id -un; id -G").live(json!({"user": "web"}))).starts_with("web\n33 4\n"));
}

#[test]
fn exec_joins_a_user_namespace_and_a_time_namespace() {
    let bundle = mapped("exec sleep 1000").with(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
    });
    let script = "id -u; cat /proc/self/uid_map; grep -E 'CapEff|Seccomp:' /proc/self/status; stat -c %u /proc/self/status; \
        cut -c1-3 /proc/uptime; echo out > /dev/stdout; readlink /proc/self/ns/user; readlink /proc/1/ns/user; \
        for n in user time pid net; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] && echo $n; done";
    let output = stdout(&bundle.live(json!({"exec": {"arguments": ["sh", "-c", script]}})));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["0", "         0     100000      65536"], "{output}");
    assert_eq!(lines[2..7], ["CapEff:\t00000000a80425fb", "Seccomp:\t2", "0", "100", "out"], "{output}");
    assert_eq!(lines[lines.len() - 4..], ["user", "time", "pid", "net"], "{output}");
}

/// Output goes to a pipe that root of the host has made, and is opened again by name.
#[test]
fn a_pipe_can_be_opened_again_in_a_user_namespace() {
    let bundle = mapped("echo out > /dev/stdout").with(|spec| {
        spec["process"]["user"] = json!({"uid": 33, "gid": 33});
    });
    assert_eq!(stdout(&bundle.run()), "out\n");
}

#[test]
fn a_terminal_in_a_user_namespace() {
    let output = stdout(&mapped("tty; stat -c %u /dev/console; stty size").live(json!({"terminal": [24, 80]})));
    assert_eq!(output.replace('\r', ""), "/dev/pts/0\n0\n24 80\n");
}

/// The overlay's layers belong to root of the host, as a store has them.
#[test]
fn an_overlay_has_the_owners_of_the_user_namespace() {
    let bundle = mapped("");
    let lower = Bundle::new("").with(|_| {});
    let store = bundle.directory.path().join("store");
    for name in ["upper", "work"] {
        fs::create_dir_all(store.join(name)).unwrap();
    }
    chown(lower.root().join("etc/group"), Some(33), Some(4)).unwrap();
    let script = "stat -c '%n %u %g' / /bin/busybox /etc/group /tmp; touch /etc/made && echo x >> /etc/group; \
        chown 33 /etc/passwd; stat -c %u /etc/made /etc/passwd";
    let bundle = bundle.with(|spec| spec["process"]["args"] = json!(["sh", "-c", script]));
    fs::create_dir(lower.root().join("bin/x")).unwrap();
    symlink("busybox", lower.root().join("bin/chown")).unwrap();
    let root = json!({"Overlay": {"lower": [lower.root()], "upper": store.join("upper"), "work": store.join("work")}});
    let output = stdout(&bundle.live(json!({ "root": root })));
    assert_eq!(output, "/ 0 0\n/bin/busybox 0 0\n/etc/group 33 4\n/tmp 0 0\n0\n33\n");
    let owner = |name: &str| fs::metadata(store.join("upper/etc").join(name)).unwrap().uid();
    assert_eq!([owner("made"), owner("group"), owner("passwd")], [0, 33, 33]);
}

#[test]
fn clocks_have_offsets() {
    let bundle = |offsets: Value| {
        Bundle::new("cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets; readlink /proc/self/ns/time").with(
            |spec| {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
                spec["linux"]["timeOffsets"] = offsets;
            },
        )
    };
    let output =
        stdout(&bundle(json!({"boottime": {"secs": 1_000_000_000, "nanosecs": 5}, "monotonic": {"secs": 7}})).run());
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].parse::<u64>().unwrap() >= 1_000_000_000, "{output}");
    assert!(lines[1].ends_with(" 7         0") && lines[2].ends_with(" 1000000000         5"), "{output}");
    let host = fs::read_link("/proc/self/ns/time").unwrap().display().to_string();
    assert_ne!(lines[3], host);
    assert_ne!(stdout(&bundle(json!({})).run()).lines().last(), Some(host.as_str()));
    let error = failure(&bundle(json!({"boottime": {"secs": -1_000_000_000}})).run());
    assert!(error.contains("set the clocks of the time namespace"), "{error}");
}

/// A process in namespaces of its own, and their paths.
pub struct Neighbour {
    process: Child,
}

impl Neighbour {
    /// Unshares these, and says so.
    fn new(options: &[&str]) -> Self {
        Self::who(options, ":")
    }

    /// Who does something in them first.
    pub fn who(options: &[&str], script: &str) -> Self {
        use std::io::Read;
        let script = format!("{{ {script}; }} && echo up && exec cat");
        let mut process = Command::new("unshare")
            .args(options)
            .args(["sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        process.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
        Self { process }
    }

    pub fn namespace(&self, name: &str) -> std::path::PathBuf {
        self.file("ns").join(name)
    }

    /// Its own in procfs.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        // With --fork, the one that `unshare` has forked.
        let parent = self.process.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let pid = children.split_whitespace().next().map_or(parent, |pid| pid.parse().unwrap());
        format!("/proc/{pid}/{name}").into()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // Its input's end is its own.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

pub fn inode(path: impl AsRef<Path>) -> String {
    fs::read_link(path).unwrap().display().to_string()
}

#[test]
fn namespaces_are_joined_by_path() {
    let neighbour = Neighbour::new(&["--net", "--ipc", "--uts", "--time", "--cgroup", "--boottime", "1000000"]);
    // Who has unshared its time is in it only since execve(2) takes it there, which older kernels do not.
    let names = ["net", "ipc", "uts", "time_for_children", "cgroup"];
    let bundle = Bundle::new("for n in net ipc uts time cgroup; do readlink /proc/self/ns/$n; done").with(|spec| {
        for (kind, name) in ["network", "ipc", "uts", "time", "cgroup"].into_iter().zip(names) {
            join(spec, kind, neighbour.namespace(name));
        }
        spec.as_object_mut().unwrap().remove("hostname");
    });
    let wanted = names.map(|name| inode(neighbour.namespace(name)));
    let output = stdout(&bundle.run());
    assert_eq!(output.lines().collect::<Vec<_>>(), wanted);
}

/// As in a pod: all that the first has unshared is its user namespace's own.
#[test]
fn a_user_namespace_is_joined_with_what_belongs_to_it() {
    let first = mapped("exec sleep 1000");
    first.write();
    let pid_file = first.directory.path().join("pid");
    let pid_path = pid_file.to_str().unwrap();
    let mut create = first.command(&["run", "--detach", "--bundle", first.path(), "--pid-file", pid_path, &first.id]);
    assert!(create.stdout(Stdio::null()).status().unwrap().success());
    let pid = fs::read_to_string(&pid_file).unwrap();
    let namespace = |name: &str| format!("/proc/{pid}/ns/{name}");
    let names = [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")];
    let script = "cat /proc/self/uid_map; id -u; for n in user net ipc uts pid; do readlink /proc/self/ns/$n; done; \
        ls /sys/class/net; cat /proc/1/comm";
    let second = mapped(script).with(|spec| {
        names.iter().for_each(|(kind, name)| join(spec, kind, namespace(name)));
        spec.as_object_mut().unwrap().remove("hostname");
    });
    let wanted = names.map(|(_, name)| inode(namespace(name)));
    let output = second.run();
    stdout(&first.command(&["delete", "--force", &first.id]).output().unwrap());
    let output = stdout(&output);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["         0     100000      65536", "0"], "{output}");
    assert_eq!(lines[2..7], wanted, "{output}");
    assert_eq!(lines[7..], ["lo", "sleep"], "{output}");
}

/// A pid namespace that belongs to others has no procfs for a user namespace: the host's is none for it.
#[test]
fn a_user_namespace_in_a_pid_namespace_of_others_does_not_see_the_hosts_processes() {
    let started = |bundle: &Bundle| {
        bundle.write();
        let pid_file = bundle.directory.path().join("pid");
        let run = ["run", "--detach", "--bundle", bundle.path(), "--pid-file", pid_file.to_str().unwrap(), &bundle.id];
        assert!(bundle.command(&run).stdout(Stdio::null()).status().unwrap().success());
        fs::read_to_string(pid_file).unwrap()
    };
    let (first, other) = (mapped("exec sleep 1000"), Bundle::new("exec sleep 1000"));
    let (user, pid) = (started(&first), started(&other));
    let within = |path: String| {
        mapped("ls -d /proc/[0-9]* | wc -l; readlink /proc/self/ns/pid").with(|spec| {
            join(spec, "user", format!("/proc/{user}/ns/user"));
            join(spec, "pid", path);
        })
    };
    let output = within(format!("/proc/{pid}/ns/pid")).run();
    // With the host's it is the host's processes that are there.
    let of_host = within("/proc/self/ns/pid".to_owned()).run();
    for bundle in [&first, &other] {
        stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
    }
    let error = failure(&output);
    assert!(error.contains("/proc: its pid namespace belongs to another user namespace"), "{error}");
    assert!(stdout(&of_host).ends_with(&format!("{}\n", inode("/proc/self/ns/pid"))));
}

/// The host's network, or one that an engine has made outside: sysfs is then the host's, by a bind.
#[test]
fn a_user_namespace_with_a_network_of_the_hosts() {
    let neighbour = Neighbour::new(&["--net"]);
    let joined = |spec: &mut Value| join(spec, "network", neighbour.namespace("net"));
    let output = stdout(&mapped("readlink /proc/self/ns/net; ls -d /sys/class/net").with(joined).run());
    assert_eq!(output, format!("{}\n/sys/class/net\n", inode(neighbour.namespace("net"))));
    let output =
        stdout(&mapped("readlink /proc/self/ns/net; ls -d /sys/class/net").with(|spec| without(spec, "network")).run());
    assert_eq!(output, format!("{}\n/sys/class/net\n", inode("/proc/self/ns/net")));
}

#[test]
fn a_container_can_do_without_namespaces() {
    let all = ["pid", "network", "ipc", "uts", "cgroup"];
    let bundle = Bundle::new("for n in pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done").with(|spec| {
        all.iter().for_each(|kind| without(spec, kind));
        spec.as_object_mut().unwrap().remove("hostname");
    });
    let wanted = ["pid", "net", "ipc", "uts", "cgroup"].map(|name| inode(format!("/proc/self/ns/{name}")));
    assert_eq!(stdout(&bundle.run()).lines().collect::<Vec<_>>(), wanted);
    // With a user namespace too.
    let bundle =
        mapped("for n in pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; ls /proc/1/status").with(|spec| {
            all.iter().for_each(|kind| without(spec, kind));
            spec.as_object_mut().unwrap().remove("hostname");
            spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "mqueue");
        });
    let output = stdout(&bundle.run());
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..5], wanted, "{output}");
    assert_eq!(lines[5..], ["/proc/1/status"], "{output}");
}

/// A container's run in a network of its own, with one end of a cable.
fn run_with_cable(bundle: &Bundle, before: &str, after: &str) -> std::process::Output {
    bundle.write();
    let ours = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
    let script = format!("ip link add v0 type veth peer name v1 && {before} && \"$@\"; code=$?; {after}; exit $code");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script, "sh"]).arg(ours.get_program()).args(ours.get_args());
    let output = command.stdin(Stdio::null()).output().unwrap();
    bundle.check_nothing_is_left();
    output
}

#[test]
fn network_devices_are_moved() {
    let script =
        "ls /sys/class/net; ip -o addr show dev inside | grep -o 'inet6* [^ ]*'; cat /sys/class/net/inside/flags";
    let devices = json!({"v0": {"name": "inside"}});
    let cable = |bundle: Bundle| {
        symlink("busybox", bundle.root().join("bin/ip")).unwrap();
        bundle.with(|spec| spec["linux"]["netDevices"] = devices.clone())
    };
    let before =
        "ip addr add 10.9.8.7/24 broadcast 10.9.8.255 dev v0 && ip addr add fd00::7/64 dev v0 && ip link set v0 up";
    for bundle in [cable(Bundle::new(script)), cable(mapped(script))] {
        let output = stdout(&run_with_cable(&bundle, before, "ip -br link | grep -c ^v0"));
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines[..2], ["inside", "lo"], "{output}");
        assert!(lines.contains(&"inet 10.9.8.7/24") && lines.contains(&"inet6 fd00::7/64"), "{output}");
        // IFF_UP is the first bit; outside there is none any more.
        assert!(lines[lines.len() - 2].ends_with('3') && lines[lines.len() - 1] == "0", "{output}");
    }
    let missing = cable(Bundle::new("true")).with(|spec| spec["linux"]["netDevices"] = json!({"nope": {}}));
    let error = failure(&run_with_cable(&missing, "true", "true"));
    assert!(error.contains("move network device nope to the container: no such device"), "{error}");
    let hosts = cable(Bundle::new("true")).with(|spec| join(spec, "network", "/proc/self/ns/net"));
    let error = failure(&run_with_cable(&hosts, "true", "true"));
    assert!(error.contains("linux.netDevices: the network namespace is the host's"), "{error}");
}

#[test]
fn a_killed_create_leaves_nothing_of_a_user_namespace() {
    for failpoint in
        dozen_runtime::THRESHOLD_FAILPOINTS.iter().chain(["create.cloned", "create.limited", "child.begun"].iter())
    {
        let bundle = mapped("exec sleep 1000").with(|spec| spec["linux"]["netDevices"] = json!({"v0": {}}));
        bundle.write();
        let failpoints = bundle.directory.path().join("failpoints");
        fs::create_dir(&failpoints).unwrap();
        let armed = failpoints.join(format!("runtime.{failpoint}"));
        fs::write(&armed, "").unwrap();
        let ours = bundle.command(&["create", "--bundle", bundle.path(), &bundle.id]);
        let mut create = Command::new("unshare");
        create.args(["--net", "sh", "-c", "ip link add v0 type veth peer name v1 && exec \"$@\"", "sh"]);
        create.arg(ours.get_program()).args(ours.get_args()).stdin(Stdio::null());
        let create = create.env("DOZEN_FAILPOINTS", &failpoints).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(!create.status().unwrap().success(), "{failpoint}");
        assert!(!armed.exists(), "{failpoint} was never reached");
        bundle.command(&["delete", "--force", &bundle.id]).output().unwrap();
        bundle.check_nothing_is_left();
    }
}

/// Nobody in a user namespace makes devices: the runtime makes those that the spec names, as it names them, also what the
/// host has not.
#[test]
fn devices_have_their_owners_in_a_user_namespace() {
    let devices = |spec: &mut Value| {
        spec["linux"]["devices"] = json!([
            {"path": "/dev/none", "type": "c", "major": 1, "minor": 3, "uid": 10, "gid": 11, "fileMode": 0o157},
            {"path": "/dev/five", "type": "c", "major": 1, "minor": 5},
            // Nobody inside has this number: it is the host's own.
            {"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "uid": 70_000, "gid": 0, "fileMode": 0o600},
        ]);
    };
    let script = "stat -c '%n %a %u %g' /dev/none /dev/five /dev/full; head -c 3 /dev/five | wc -c; echo x > /dev/none && echo written";
    let expected = "/dev/none 157 10 11\n/dev/five 666 0 0\n/dev/full 666 65534 65534\n3\nwritten\n";
    assert_eq!(stdout(&mapped(script).with(devices).run()), expected);
}
