//! A mount namespace that others have made, joined by path.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::bundle::{Bundle, PROBE, failure, stdout};
use crate::namespaces::{Neighbour, inode, join, mapped, without};
use crate::oracle::judges;
use serde_json::json;

/// A neighbour who has another root, and another directory, where a bundle has them on the host.
fn neighbour(bundle: &Bundle) -> Neighbour {
    let path = bundle.path();
    fs::create_dir_all(bundle.directory.path().join("data")).unwrap();
    let script = format!(
        "mkdir {path}/other && cp -a {path}/rootfs {path}/other && echo joined > {path}/other/rootfs/etc/which && \
         mount --bind {path}/other/rootfs {path}/rootfs && mount -t tmpfs data {path}/data && echo there > {path}/data/file"
    );
    Neighbour::who(&["--mount"], &script)
}

/// What the container of such a bundle says, and is to say.
fn bundle(command: &str) -> Bundle {
    let bundle = Bundle::new(&format!("cat /etc/which /data/file; readlink /proc/self/ns/mnt; {command}"));
    fs::write(bundle.root().join("etc/which"), "host\n").unwrap();
    let data = json!({"destination": "/data", "type": "bind", "source": "data", "options": ["bind", "ro"]});
    bundle.with(|spec| spec["mounts"].as_array_mut().unwrap().push(data))
}

fn expected(neighbour: &Neighbour) -> String {
    format!("joined\nthere\n{}\n", inode(neighbour.namespace("mnt")))
}

/// Names are those of the namespace that is joined, as with runc and crun, and its root is the container's afterwards.
#[test]
fn a_mount_namespace_is_joined() {
    let run = |runtime: Option<&[String]>| {
        let bundle = bundle("wc -c < /proc/version; touch /proc/sys/x /data/x 2>/dev/null || echo refused");
        let neighbour = neighbour(&bundle);
        let wanted = expected(&neighbour) + "0\nrefused\n";
        let bundle = bundle.with(|spec| {
            join(spec, "mount", neighbour.namespace("mnt"));
            spec["linux"]["maskedPaths"] = json!(["/proc/version"]);
        });
        let output = runtime.map_or_else(|| bundle.run(), |command| bundle.run_with(command));
        assert_eq!(stdout(&output), wanted, "{runtime:?}");
        assert_eq!(fs::read_to_string(neighbour.file("root/etc/which")).unwrap(), "joined\n", "{runtime:?}");
        let mounts = fs::read_to_string(neighbour.file("mountinfo")).unwrap();
        let roots = mounts.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
        assert_eq!(roots.count(), 1, "{runtime:?}: {mounts}");
    };
    run(None);
    judges().iter().for_each(|(_, command)| run(Some(command)));
}

/// As in a pod, where the second has its root from a volume of the first's: the user namespace that it belongs to is joined
/// with it.
#[test]
fn a_mount_namespace_is_joined_with_its_user_namespace() {
    let second =
        mapped("cat /proc/self/uid_map; for n in user mnt; do readlink /proc/self/ns/$n; done; tty").with(|spec| {
            spec["process"]["terminal"] = json!(true);
        });
    let first = mapped("exec sleep 1000").with(|spec| {
        let path = second.path();
        let volume = json!({"destination": path, "type": "bind", "source": path, "options": ["bind"]});
        spec["mounts"].as_array_mut().unwrap().push(volume);
    });
    first.write();
    let pid_file = first.directory.path().join("pid");
    let run = ["run", "--detach", "--bundle", first.path(), "--pid-file", pid_file.to_str().unwrap(), &first.id];
    assert!(first.command(&run).stdout(Stdio::null()).status().unwrap().success());
    let namespace = |name: &str| format!("/proc/{}/ns/{name}", fs::read_to_string(&pid_file).unwrap());
    let second = second.with(|spec| {
        join(spec, "mount", namespace("mnt"));
        join(spec, "user", namespace("user"));
    });
    let wanted = format!(
        "         0     100000      65536\n{}\n{}\n/dev/pts/0\n",
        inode(namespace("user")),
        inode(namespace("mnt"))
    );
    let output = second.run();
    stdout(&first.command(&["delete", "--force", &first.id]).output().unwrap());
    assert_eq!(stdout(&output), wanted);
}

#[test]
fn a_terminal_is_one_of_the_mounts_that_stay() {
    let bundle = bundle("tty; [ -c /dev/console ] && ls -l /proc/self/fd/0 | grep -c /dev/pts/0");
    let neighbour = neighbour(&bundle);
    let wanted = expected(&neighbour);
    let bundle = bundle.with(|spec| {
        join(spec, "mount", neighbour.namespace("mnt"));
        spec["process"]["terminal"] = json!(true);
        spec["root"]["readonly"] = json!(true);
    });
    assert_eq!(stdout(&bundle.run()), wanted.clone() + "/dev/pts/0\n1\n");
    // Once more, where it has been joined before: by the names that its root has now.
    let again = Bundle::new("true").with(|spec| join(spec, "mount", neighbour.namespace("mnt")));
    let error = failure(&again.run());
    assert!(error.contains("rootfs: no such file or directory"), "{error}");
}

/// Its procfs is masked before those who are there see it.
#[test]
fn a_mount_namespace_is_joined_with_a_pid_namespace() {
    let command = "wc -c < /proc/version; touch /proc/sys/x 2>/dev/null || echo refused; readlink /proc/self/ns/pid; \
        cat /proc/1/comm; tty";
    for terminal in [false, true, false, false, false] {
        let bundle = bundle(command);
        let path = bundle.path();
        // It looks, over and over, from when the root is the container's.
        let script = format!(
            "mkdir -p {path}/data; echo there > {path}/data/file; echo joined > {path}/rootfs/etc/which; exec 5> {path}/seen; \
             (while true; do [ -e /etc/which ] && read all < /proc/version && echo $all; done >&5 2> /dev/null) & true"
        );
        let neighbour = Neighbour::who(&["--mount", "--pid", "--fork", "--mount-proc"], &script);
        let wanted = expected(&neighbour) + &format!("0\nrefused\n{}\ncat\n", inode(neighbour.namespace("pid")));
        let wanted = wanted + if terminal { "/dev/pts/0\n" } else { "not a tty\n" };
        let bundle = bundle.with(|spec| {
            join(spec, "mount", neighbour.namespace("mnt"));
            join(spec, "pid", neighbour.namespace("pid"));
            spec["linux"]["maskedPaths"] = json!(["/proc/version"]);
            spec["process"]["terminal"] = json!(terminal);
        });
        let output = bundle.run();
        assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
        assert_eq!(fs::read_to_string(bundle.directory.path().join("seen")).unwrap(), "");
    }
}

/// What goes wrong before the end leaves no trace in the namespace.
#[test]
fn a_container_that_fails_leaves_a_joined_mount_namespace_as_it_was() {
    let bundle = bundle("exec sleep 1000");
    let neighbour = neighbour(&bundle);
    let mounts = || fs::read_to_string(neighbour.file("mountinfo")).unwrap();
    let before = mounts();
    let bundle = bundle.with(|spec| {
        join(spec, "mount", neighbour.namespace("mnt"));
        let last = json!({"destination": "/last", "type": "tmpfs", "source": "tmpfs", "options": ["nonsense=1"]});
        spec["mounts"].as_array_mut().unwrap().push(last);
    });
    let error = failure(&bundle.run());
    assert!(error.contains("tmpfs has no option \"nonsense\""), "{error}");
    assert_eq!(mounts(), before);
    // Killed in the middle of it, it leaves what the next one takes away.
    let bundle = bundle.with(|spec| drop(spec["mounts"].as_array_mut().unwrap().pop()));
    let failpoints = bundle.directory.path().join("failpoints");
    fs::create_dir(&failpoints).unwrap();
    let armed = failpoints.join(format!("runtime.{}", dozen_runtime::JOIN_FAILPOINTS[0]));
    fs::write(&armed, "").unwrap();
    bundle.write();
    let mut create = bundle.command(&["create", "--bundle", bundle.path(), &bundle.id]);
    create.env("DOZEN_FAILPOINTS", &failpoints).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(!create.status().unwrap().success());
    assert!(!armed.exists(), "the failpoint was never reached");
    bundle.command(&["delete", "--force", &bundle.id]).output().unwrap();
    bundle.check_nothing_is_left();
}

/// The host is not told of any of it, also where its mounts and the namespace's are shared.
#[test]
fn a_joined_mount_namespace_leaves_the_hosts_mounts_alone() {
    let bundle = Bundle::new("exit 0");
    let names = bundle.directory.path().join("names");
    let bundle = bundle.with(|spec| join(spec, "mount", names.join("mnt")));
    bundle.write();
    let script = "mount --make-rshared / && mkdir $1/names $1/a && mount -t tmpfs names $1/names && \
        mount --make-private $1/names && touch $1/names/mnt && mount -t tmpfs a $1/a && \
        unshare --mount=$1/names/mnt --propagation unchanged true && before=$(grep -c . /proc/self/mountinfo) && \
        $2 runtime --root $1/state run --bundle $1 $3 && [ $before = $(grep -c . /proc/self/mountinfo) ]";
    // A name is given only to a namespace with a higher number than one's own (mnt_ns_loop() in fs/namespace.c), and since
    // Linux 6.18 each processor has numbers of its own to give.
    let allowed = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = allowed.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap();
    let processor = allowed.split([',', '-']).next().unwrap();
    let status = std::process::Command::new("taskset")
        .args(["-c", processor, "unshare", "--mount", "sh", "-ec", script, "sh", bundle.path(), PROBE, &bundle.id])
        .stdin(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "mounts of the host are gone, or more");
    bundle.check_nothing_is_left();
}

/// Whose root must not become a container's, and what is no such namespace.
#[test]
fn the_hosts_mount_namespace_is_not_joined() {
    let pipe = tempfile::tempdir().unwrap();
    let pipe = pipe.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    // In a container of somebody's its process 1 may have more rights than we.
    let of_process_1 = match fs::read_link("/proc/1/ns/mnt") {
        Ok(_) => "it is the host's mount namespace",
        Err(_) => "permission denied",
    };
    for (path, why) in [
        (Path::new("/proc/self/ns/mnt"), "it is the host's mount namespace"),
        (Path::new("/proc/1/ns/mnt"), of_process_1),
        (Path::new("/proc/self/ns/uts"), "it is no mount namespace"),
        (Path::new("/etc/passwd"), "it is no mount namespace"),
        (&pipe, "it is no mount namespace"),
    ] {
        let error = failure(&Bundle::new("true").with(|spec| join(spec, "mount", path)).run());
        assert!(error.contains(why), "{}: {error}", path.display());
    }
}

/// Who lives in it may have put links to the host there, or files that look like the kernel's own: nothing of the host's is
/// bound, and nothing is written to. Guarded by RESOLVE_NO_MAGICLINKS in `joined::clone_tree`, and by where the root is built.
#[test]
fn a_hostile_mount_namespace_gets_nothing_of_the_hosts() {
    let outside = Bundle::new("true");
    fs::write(outside.root().join("etc/which"), "escaped\n").unwrap();
    let magic = format!("/proc/{}/root{}/rootfs", std::process::id(), outside.path());
    for (place, leads) in [("rootfs", magic.clone()), ("data", format!("{magic}/etc"))] {
        let bundle = bundle("cat /data/which");
        let path = bundle.path();
        let script = format!(
            "mount --bind {path}/rootfs /mnt && mount -t tmpfs all {path} && mkdir {path}/rootfs && \
             mount --move /mnt {path}/rootfs && if [ {place} = rootfs ]; then umount {path}/rootfs && rmdir {path}/rootfs; fi && \
             ln -s {leads} {path}/{place}"
        );
        let neighbour = Neighbour::who(&["--mount"], &script);
        let bundle = bundle.with(|spec| join(spec, "mount", neighbour.namespace("mnt")));
        let error = failure(&bundle.run());
        assert!(error.contains("too many levels of symbolic links"), "{place}: {error}");
    }
    let bundle = bundle("grep -c dozen-test /proc/self/cgroup; cat /proc/self/oom_score_adj").with(|spec| {
        spec["process"]["oomScoreAdj"] = json!(500);
        without(spec, "cgroup");
    });
    let path = bundle.path();
    fs::create_dir_all(bundle.directory.path().join("data")).unwrap();
    let script = format!(
        "echo joined > {path}/rootfs/etc/which && echo there > {path}/data/file && \
         mount -t tmpfs false /proc && mkdir /proc/self && : > /proc/self/oom_score_adj && \
         mount -t tmpfs false /sys && mkdir -p /sys/fs/cgroup && cd /proc"
    );
    let neighbour = Neighbour::who(&["--mount"], &script);
    let bundle = bundle.with(|spec| join(spec, "mount", neighbour.namespace("mnt")));
    let output = stdout(&bundle.run());
    let lines: Vec<&str> = output.lines().skip(3).collect();
    assert!(lines[0].parse::<u32>().unwrap() > 0, "{output}");
    assert_eq!(lines[1], "500");
    let false_file = neighbour.file("cwd/self/oom_score_adj");
    assert_eq!(fs::read_to_string(false_file).unwrap(), "");
}
