//! Options of mounts: owners, copies, links, propagation.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use crate::bundle::{Bundle, copy_program, failure, stdout};
use crate::namespaces::{join, mapped, without};
use crate::oracle::{same, same_as};
use serde_json::{Value, json};

fn with_mount(bundle: Bundle, mount: Value) -> Bundle {
    bundle.with(|spec| spec["mounts"].as_array_mut().unwrap().push(mount))
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

/// A file of root's, one of user 5's, and a directory.
fn files() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(data.path().join("root"), "").unwrap();
    fs::write(data.path().join("five"), "").unwrap();
    chown(data.path().join("five"), Some(5), Some(6)).unwrap();
    fs::create_dir(data.path().join("below")).unwrap();
    data
}

#[test]
fn a_bind_is_mapped_to_the_container() {
    let data = files();
    let script = "cd /data; stat -c '%n %u %g' . root five; touch made; stat -c '%u' made; rm made";
    let bundle = with_mount(mapped(script), bind(data.path(), "/data", &["bind", "idmap"]));
    symlink("busybox", bundle.root().join("bin/rm")).unwrap();
    assert_eq!(same_as(&bundle, &["crun"]), ". 0 0\nroot 0 0\nfive 5 6\n0\n");
    // Without it these are nobody's.
    let plain = with_mount(mapped("stat -c '%u %g' /data/root"), bind(data.path(), "/data", &["bind"]));
    assert_eq!(same(&plain), "65534 65534\n");
}

#[test]
fn a_bind_is_mapped_as_it_says() {
    let data = files();
    let script = "cd /data; stat -c '%n %u %g' root five; touch made; stat -c '%u' made";
    let expected = "root 1000 1000\nfive 1005 6000\n";
    let list = |host: u32, count: u32| json!([{"containerID": 0, "hostID": host, "size": count}]);
    // By the fields of the specification, without a user namespace: root inside is nobody on disk, and may not write.
    let mut mount = bind(data.path(), "/data", &["bind", "idmap"]);
    mount["uidMappings"] = list(1000, 10);
    mount["gidMappings"] =
        json!([{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 6, "hostID": 6000, "size": 1}]);
    let output = stdout(&with_mount(Bundle::new(&format!("{script} 2>/dev/null; true")), mount).run());
    assert!(output.starts_with(expected) && !data.path().join("made").exists(), "{output}");
    // By crun's option; user 3 inside, 100003 outside, is root on disk.
    let option = "idmap=uids=@0-3-1#5-0-1;gids=0-100000-10";
    let bundle =
        with_mount(mapped("stat -c '%n %u %g' /data/root /data/five"), bind(data.path(), "/data", &["bind", option]));
    assert_eq!(stdout(&bundle.run()), "/data/root 3 0\n/data/five 0 6\n");
}

#[test]
fn a_mount_below_is_mapped_if_asked() {
    let (data, below) = (files(), files());
    let script = "stat -c %u /data/root /data/below/root";
    for (option, wanted) in [("idmap", "0\n65534\n"), ("ridmap", "0\n0\n")] {
        let bundle = with_mount(mapped(script), bind(data.path(), "/data", &["rbind", option]));
        bundle.write();
        // What is mounted is so in a mount namespace of the command's own.
        let ours = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"", "sh"]);
        command.arg(below.path()).arg(data.path().join("below")).arg(ours.get_program()).args(ours.get_args());
        assert_eq!(stdout(&command.output().unwrap()), wanted, "{option}");
        bundle.check_nothing_is_left();
    }
}

#[test]
fn what_cannot_be_idmapped_is_said() {
    // procfs cannot; what is half made goes again.
    let bundle = with_mount(mapped("true"), bind("/proc/fs".as_ref(), "/data", &["bind", "idmap"]));
    let error = failure(&bundle.run());
    assert!(error.contains("its file system cannot be idmapped by this kernel"), "{error}");
}

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
}

/// A directory in the root with something of each kind in it.
fn furnish(root: &Path) {
    let directory = root.join("data");
    fs::create_dir_all(directory.join("a/b")).unwrap();
    fs::write(directory.join("a/b/f"), "data\n").unwrap();
    fs::write(directory.join("x"), "#!/bin/sh\n").unwrap();
    chown(directory.join("x"), Some(33), Some(4)).unwrap();
    fs::set_permissions(directory.join("x"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("../../etc/passwd", directory.join("a/link")).unwrap();
    fs::set_permissions(directory.join("a"), fs::Permissions::from_mode(0o1755)).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o751)).unwrap();
}

const LOOK: &str = "cd /data; for f in . a a/b a/b/f a/link x; do stat -c '%n %A %u %g' $f; done; cat a/b/f; readlink a/link; \
    stat -f -c %T . ; touch made && echo writable";

#[test]
fn a_tmpfs_begins_with_what_it_hides() {
    let bundle = with_mount(Bundle::new(LOOK), tmpfs("/data", &["tmpcopyup", "nosuid", "size=1m"]));
    furnish(&bundle.root());
    let times = fs::metadata(bundle.root().join("data/a/b/f")).unwrap().mtime();
    // With crun the directory itself has a tmpfs's own permissions.
    let output = same_as(&bundle, &["runc"]);
    assert!(output.contains("x -rwsr-xr-x 33 4\n") && output.ends_with("tmpfs\nwritable\n"), "{output}");
    assert!(!bundle.root().join("data/made").exists());
    let own =
        with_mount(Bundle::new("stat -c %Y /data/a/b/f; stat -c %a /data"), tmpfs("/data", &["tmpcopyup", "mode=700"]));
    furnish(&own.root());
    let output = stdout(&own.run());
    assert!(
        output.ends_with("\n700\n") && output.split('\n').next().unwrap().parse::<i64>().unwrap() >= times,
        "{output}"
    );
    // Read-only, with its contents; and in a user namespace.
    let read_only = with_mount(Bundle::new(LOOK), tmpfs("/data", &["tmpcopyup", "ro"]));
    furnish(&read_only.root());
    assert!(String::from_utf8_lossy(&read_only.run().stdout).ends_with("../../etc/passwd\ntmpfs\n"));
    let in_namespace = with_mount(mapped(LOOK), tmpfs("/data", &["tmpcopyup"]));
    furnish(&in_namespace.root());
    crate::namespaces::own(&in_namespace.root());
    assert!(stdout(&in_namespace.run()).ends_with("tmpfs\nwritable\n"));
}

/// A program that may more than its user does so on a copy, too.
#[test]
fn capabilities_of_a_file_are_copied_up() {
    // struct vfs_cap_data, revision 2 with the effective bit: CAP_NET_RAW (capabilities(7), "File capabilities").
    let mut capability = [0u8; 20];
    capability[..4].copy_from_slice(&0x0200_0001u32.to_le_bytes());
    capability[4..8].copy_from_slice(&(1u32 << 13).to_le_bytes());
    for tmpcopyup in [true, false] {
        let bundle = Bundle::new("/data/cat /proc/self/status | grep CapEff").with(|spec| {
            spec["process"]["user"] = json!({"uid": 33, "gid": 33});
        });
        let bundle = if tmpcopyup { with_mount(bundle, tmpfs("/data", &["tmpcopyup"])) } else { bundle };
        fs::create_dir(bundle.root().join("data")).unwrap();
        let program = bundle.root().join("data/cat");
        copy_program(&bundle.root().join("bin/busybox"), &program);
        let file = fs::File::open(&program).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(&file, "security.capability", &capability, flags).unwrap();
        drop(file);
        assert_eq!(stdout(&bundle.run()), "CapEff:\t0000000000002000\n", "{tmpcopyup}");
    }
}

#[test]
fn a_hostile_image_is_copied_up_from_inside() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "").unwrap();
    let bundle = with_mount(Bundle::new("ls /data | wc -l; ls /data"), tmpfs("/data", &["tmpcopyup"]));
    // The directory is a link to one of the host's: which is none, inside.
    symlink(outside.path(), bundle.root().join("data")).unwrap();
    let output = stdout(&bundle.run());
    assert_eq!(output, "0\n");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    // Deeper than any stack or table of descriptors: an error, and an end.
    let bundle = with_mount(Bundle::new("true"), tmpfs("/data", &["tmpcopyup"])).with(|spec| {
        spec["process"]["rlimits"] = json!([]);
    });
    let mut path = bundle.root().join("data");
    fs::create_dir(&path).unwrap();
    let mut directory = fs::File::open(&path).unwrap();
    for _ in 0..200 {
        rustix::fs::mkdirat(&directory, "d", rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        directory = rustix::fs::openat(&directory, "d", flags, rustix::fs::Mode::empty()).unwrap().into();
    }
    bundle.write();
    let mut limited = std::process::Command::new("sh");
    let ours = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
    limited.args(["-c", "ulimit -n 256; exec \"$@\"", "sh"]).arg(ours.get_program()).args(ours.get_args());
    let error = failure(&limited.output().unwrap());
    assert!(error.contains("copy up d: too many open files"), "{error}");
    bundle.check_nothing_is_left();
    path.push("d");
    assert!(path.exists());
}

#[test]
fn a_tmpfs_has_the_mode_of_what_it_hides() {
    let script = "stat -c %a /a /c /d; stat -c %u /a";
    let bundle = Bundle::new(script).with(|spec| {
        let mounts = [tmpfs("/a", &[]), tmpfs("/c", &["size=1m"]), tmpfs("/d", &[])];
        spec["mounts"].as_array_mut().unwrap().extend(mounts);
    });
    for (name, mode) in [("a", 0o750), ("c", 0o1777), ("d", 0o711)] {
        fs::create_dir(bundle.root().join(name)).unwrap();
        fs::set_permissions(bundle.root().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    assert_eq!(same_as(&bundle, &["runc"]), "750\n1777\n711\n0\n");
}

#[test]
fn a_link_is_copied() {
    let data = tempfile::tempdir().unwrap();
    symlink("../no/such", data.path().join("link")).unwrap();
    fs::write(data.path().join("file"), "file\n").unwrap();
    let script = "readlink /etc/made; cat /etc/file; ls /no 2>/dev/null; grep -c ' /etc' /proc/self/mountinfo";
    let bundle = |command: &str| {
        let link = bind(&data.path().join("link"), "/etc/made", &["bind", "copy-symlink"]);
        let file = bind(&data.path().join("file"), "/etc/file", &["bind", "copy-symlink", "ro"]);
        with_mount(with_mount(Bundle::new(command), link), file)
    };
    // crun has it since 1.9.
    assert_eq!(same_as(&bundle(script), &["the bench's crun"]), "../no/such\nfile\n1\n");
    // The same link may be there, another may not.
    let same = bundle(script);
    symlink("../no/such", same.root().join("etc/made")).unwrap();
    stdout(&same.run());
    let other = bundle(script);
    symlink("other", other.root().join("etc/made")).unwrap();
    let error = failure(&other.run());
    assert!(error.contains("/etc/made is there already, and is no link to ../no/such"), "{error}");
    // It is made inside, wherever its directory leads.
    let outside = tempfile::tempdir().unwrap();
    let hostile = bundle("true");
    fs::rename(hostile.root().join("etc"), hostile.root().join("old")).unwrap();
    symlink(outside.path(), hostile.root().join("etc")).unwrap();
    hostile.run();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_bind_is_remounted() {
    let data = files();
    let script = "grep ' /data ' /proc/self/mountinfo | cut -d' ' -f5-6; touch /data/made 2>/dev/null || echo kept";
    let bundle = with_mount(Bundle::new(script), bind(data.path(), "/data", &["bind", "nosuid", "noexec"]));
    let bundle = with_mount(bundle, bind(data.path(), "/data", &["bind", "remount", "ro", "nodev"]));
    let output = stdout(&bundle.run());
    assert_eq!(output, "/data ro,nodev,relatime\nkept\n");
    let error = failure(&with_mount(Bundle::new("true"), bind(data.path(), "/tmp", &["bind", "remount", "ro"])).run());
    assert!(error.contains("/tmp: remount: nothing is mounted there"), "{error}");
    // A link must not have another mount's restrictions lifted.
    let bundle = with_mount(Bundle::new("true"), bind(data.path(), "/data", &["bind", "ro"]));
    let bundle = with_mount(bundle, bind(data.path(), "/link", &["bind", "remount", "rw"]));
    symlink("data", bundle.root().join("link")).unwrap();
    assert!(failure(&bundle.run()).contains("too many levels of symbolic links"));
}

#[test]
fn a_tmpfs_is_remounted() {
    let script = "while read id parent device root place options rest; do [ $place = /t ] && echo $options $rest; done \
        < /proc/self/mountinfo; touch /t/made 2>/dev/null || echo kept";
    let tmpfs = |options: &[&str]| json!({"destination": "/t", "type": "tmpfs", "source": "t", "options": options});
    let remounted = |first: &[&str], then: &[&str]| {
        let bundle = with_mount(with_mount(Bundle::new(script), tmpfs(first)), tmpfs(then));
        let output = stdout(&bundle.run());
        let (options, rest) = output.split_once(' ').unwrap();
        // Some kernels say that too.
        (options.to_owned(), rest.split_once(" t ").unwrap().1.replace(",inode64", ""))
    };
    let (options, whole) = remounted(&["nosuid", "mode=755", "size=64k"], &["remount", "nodev", "size=128k"]);
    assert_eq!((options.as_str(), whole.as_str()), ("rw,nodev,relatime", "rw,size=128k,mode=755\n"));
    let (options, whole) = remounted(&["mode=755", "size=64k"], &["remount", "ro"]);
    assert_eq!((options.as_str(), whole.as_str()), ("ro,relatime", "ro,size=64k,mode=755\nkept\n"));
    let (options, whole) = remounted(&["ro", "mode=755", "size=64k"], &["remount", "rw"]);
    assert_eq!((options.as_str(), whole.as_str()), ("rw,relatime", "rw,size=64k,mode=755\n"));
    let wrong = with_mount(with_mount(Bundle::new(script), tmpfs(&[])), tmpfs(&["remount", "nonsense"]));
    assert!(failure(&wrong.run()).contains("tmpfs has no option \"nonsense\""));
}

#[test]
fn every_propagation_of_the_root() {
    let root_of = "while read id parent device root place options rest; do [ $place = / ] && for o in $rest; do \
        case $o in -) break;; *) echo ${o%%:*};; esac; done; done < /proc/self/mountinfo; true";
    for (propagation, wanted) in [
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared\n"),
        ("rshared", "shared\n"),
        ("unbindable", "unbindable\n"),
        ("runbindable", "unbindable\n"),
    ] {
        let bundle = Bundle::new(root_of).with(|spec| spec["linux"]["rootfsPropagation"] = json!(propagation));
        assert_eq!(stdout(&bundle.run()), wanted, "{propagation}");
    }
    let error = failure(&Bundle::new("true").with(|spec| spec["linux"]["rootfsPropagation"] = json!("odd")).run());
    assert!(error.contains("rootfsPropagation=odd is not supported"), "{error}");
}

#[test]
fn every_propagation_of_a_mount() {
    let data = files();
    // Where the host's mount is shared, the bind is its slave besides.
    let script = "while read id parent device root place options rest; do [ $place = /data ] && for o in $rest; do \
        case $o in -) break;; master:*) ;; *) echo ${o%%:*};; esac; done; done < /proc/self/mountinfo; true";
    for (propagation, wanted) in [
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared\n"),
        ("rshared", "shared\n"),
        ("unbindable", "unbindable\n"),
        ("runbindable", "unbindable\n"),
    ] {
        let bundle = with_mount(Bundle::new(script), bind(data.path(), "/data", &["rbind", propagation]));
        assert_eq!(stdout(&bundle.run()), wanted, "{propagation}");
        let bundle = with_mount(Bundle::new(script), tmpfs("/data", &[propagation]));
        assert_eq!(stdout(&bundle.run()), wanted, "{propagation}");
    }
}

/// Root of a user namespace may mount there, and the host's mounts reach it; its own stay its own.
#[test]
fn no_mount_of_a_user_namespace_reaches_the_host() {
    for (options, shown) in [(&["rbind", "rshared"][..], "shared"), (&["rbind", "shared"], "shared"), (&["rbind"], "")]
    {
        let (data, outside) = (files(), files());
        fs::create_dir(outside.path().join("sub")).unwrap();
        let script = "mount -t tmpfs none /data/below/sub && echo mounted; grep -c ' /data/below/sub ' /proc/self/mountinfo; \
            grep ' /data ' /proc/self/mountinfo | cut -d' ' -f7 | cut -d: -f1";
        let bundle = with_mount(mapped(script), bind(data.path(), "/data", options)).with(|spec| {
            spec["linux"]["seccomp"] = Value::Null;
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_ADMIN"));
            }
        });
        bundle.write();
        let ours = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
        let mut command = std::process::Command::new("unshare");
        let mounts = "mount --bind \"$1\" \"$1\" && mount --make-shared \"$1\" && mount --bind \"$3\" \"$2\" && \
            mount --make-shared \"$2\" && below=$2 && shift 3 && \"$@\"; grep -c \" $below/sub \" /proc/self/mountinfo";
        command.args(["--mount", "sh", "-c", mounts, "sh"]).arg(data.path()).arg(data.path().join("below"));
        command.arg(outside.path()).arg(ours.get_program()).args(ours.get_args());
        let output = command.output().unwrap();
        let shown = if shown.is_empty() { "-" } else { shown };
        let expected = format!("mounted\n1\n{shown}\n0\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{options:?}: {output:?}");
        bundle.check_nothing_is_left();
    }
}

/// Every option of the specification's table that is a mount's own, on a mount and on what is below it.
#[test]
fn every_option_of_a_mount() {
    let (data, below) = (files(), files());
    let flags = ["ro", "nosuid", "nodev", "noexec", "nodiratime", "noatime", "nosymfollow"];
    let script = "grep -E ' /data(/below)? ' /proc/self/mountinfo | cut -d' ' -f6";
    let run = |options: &[&str]| {
        let bundle = with_mount(Bundle::new(script), bind(data.path(), "/data", options));
        bundle.write();
        let ours = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
        let mut command = std::process::Command::new("unshare");
        let mount =
            "mount --bind \"$1\" \"$2\" && mount -o remount,bind,nosuid,nodev,noexec \"$2\" && shift 2 && exec \"$@\"";
        command.args(["--mount", "sh", "-c", mount, "sh"]);
        command.arg(below.path()).arg(data.path().join("below")).arg(ours.get_program()).args(ours.get_args());
        let output = stdout(&command.output().unwrap());
        let lines: Vec<String> = output.lines().map(str::to_owned).collect();
        <[String; 2]>::try_from(lines).unwrap()
    };
    let plain = run(&["rbind"]);
    assert_eq!(plain[1], "rw,nosuid,nodev,noexec,relatime");
    for flag in flags {
        let alone = run(&["rbind", flag]);
        assert!(alone[0].split(',').any(|shown| shown == flag), "{flag}: {alone:?}");
        assert_eq!(alone[1], plain[1], "{flag}");
        let all = run(&["rbind", &format!("r{flag}")]);
        assert!(all.iter().all(|shown| shown.split(',').any(|shown| shown == flag)), "{flag}: {all:?}");
    }
    for (opposite, flag) in
        [("rsuid", "nosuid"), ("rdev", "nodev"), ("rexec", "noexec"), ("rrw", "ro"), ("rsymfollow", "nosymfollow")]
    {
        let all = run(&["rbind", opposite]);
        assert!(!all.iter().any(|shown| shown.split(',').any(|shown| shown == flag)), "{opposite}: {all:?}");
    }
    for (time, shown) in [("rstrictatime", false), ("rrelatime", true), ("ratime", true), ("rdiratime", true)] {
        let all = run(&["rbind", time]);
        assert_eq!(all.map(|options| options.contains("relatime")), [shown; 2], "{time}");
    }
    // Of the file system as a whole.
    let script = "grep ' /data ' /proc/self/mountinfo | sed 's/.* - //'";
    let bundle = with_mount(
        Bundle::new(script),
        tmpfs("/data", &["sync", "dirsync", "lazytime", "silent", "loud", "async", "nolazytime", "defaults", "sync"]),
    );
    symlink("busybox", bundle.root().join("bin/sed")).unwrap();
    let output = stdout(&bundle.run());
    assert!(output.contains("sync,dirsync"), "{output}");
}

#[test]
fn the_last_of_two_options_counts() {
    let data = files();
    let script = "touch /a/x && echo written; touch /b/x 2>/dev/null || echo kept; mount -t tmpfs none /c 2>/dev/null || echo kept";
    let bundle = with_mount(Bundle::new(script), bind(data.path(), "/a", &["bind", "ro", "rw"]));
    // With crun any "ro" counts.
    assert_eq!(
        same_as(&with_mount(bundle, bind(data.path(), "/b", &["bind", "rw", "ro"])), &["runc"]),
        "written\nkept\nkept\n"
    );
}

#[test]
fn cgroups_without_a_cgroup_namespace() {
    // In version 2 the path of /proc/self/cgroup fits what is mounted; in version 1 what is mounted is the container's own.
    let script = "cd /sys/fs/cgroup; if [ -e cgroup.procs ]; then procs=.$(grep ^0 /proc/self/cgroup | cut -d: -f3)/cgroup.procs; \
        else procs=memory/cgroup.procs; fi; grep -qx 1 $procs && echo seen; (echo 1 > $procs) 2>/dev/null || echo kept";
    let bundle = Bundle::new(script).with(|spec| without(spec, "cgroup"));
    assert_eq!(stdout(&bundle.run()), "seen\nkept\n");
    // As a user namespace has it.
    let bundle = mapped(script).with(|spec| without(spec, "cgroup"));
    assert_eq!(stdout(&bundle.run()), "seen\nkept\n");
}

#[test]
fn figures_are_shown_over_a_joined_procfs() {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("uptime"), "figures\n").unwrap();
    let bundle = Bundle::new("cat /proc/uptime; head -c 5 /proc/1/comm > /dev/null && echo there").with(|spec| {
        join(spec, "pid", "/proc/self/ns/pid");
        spec["mounts"].as_array_mut().unwrap().push(bind(&data.path().join("uptime"), "/proc/uptime", &["bind", "ro"]));
    });
    symlink("busybox", bundle.root().join("bin/head")).unwrap();
    assert_eq!(stdout(&bundle.run()), "figures\nthere\n");
}

/// Where the kernel has no SELinux, a label would be a promise that nobody keeps.
#[test]
fn a_label_needs_selinux() {
    if fs::read_to_string("/proc/filesystems").unwrap().contains("selinuxfs") {
        return;
    }
    let label = "system_u:object_r:container_file_t:s0";
    let error = failure(&Bundle::new("true").with(|spec| spec["linux"]["mountLabel"] = json!(label)).run());
    assert!(error.contains("linux.mountLabel and option \"context\" are SELinux's"), "{error}");
    assert_eq!(stdout(&Bundle::new("echo x").with(|spec| spec["linux"]["mountLabel"] = json!("")).run()), "x\n");
}

/// What is in a read-only /dev comes before it is read-only; then nobody writes to it, by no other mount of it either.
#[test]
fn a_dev_is_read_only_when_all_is_in_it() {
    let look = "cut -d' ' -f2-4 /proc/mounts | grep '^/dev tmpfs ' | cut -d, -f1; test -c /dev/zero && ls -d /dev/pts /dev/shm; \
        echo x > /dev/made || echo kept; echo x > /dev/shm/made && echo shm";
    let read_only = |spec: &mut Value| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        let dev = mounts.iter_mut().find(|mount| mount["destination"] == "/dev").unwrap();
        dev["options"].as_array_mut().unwrap().push(json!("ro"));
    };
    let expected = "/dev tmpfs ro\n/dev/pts\n/dev/shm\nkept\nshm\n";
    assert_eq!(same(&Bundle::new(&format!("{{ {look}; }} 2>/dev/null")).with(read_only)), expected);
    assert_eq!(stdout(&mapped(&format!("{{ {look}; }} 2>/dev/null")).with(read_only).run()), expected);
}

/// What is said of cgroups' mounts is so of all of them.
#[test]
fn cgroups_are_propagated_as_it_is_said() {
    for (option, expected) in
        [("rshared", "shared:"), ("rslave", "master:"), ("runbindable", "unbindable"), ("rprivate", "")]
    {
        let bundle = Bundle::new("grep ' /sys/fs/cgroup' /proc/self/mountinfo").with(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            let cgroups = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").unwrap();
            cgroups["options"].as_array_mut().unwrap().push(json!(option));
        });
        let output = stdout(&bundle.run());
        assert!(!output.is_empty());
        for line in output.lines() {
            let optional: Vec<&str> = line.split(" - ").next().unwrap().split(' ').skip(6).collect();
            let said = optional.join(" ");
            // A slave of nobody is private.
            let is_private = said.is_empty() && matches!(option, "rslave" | "rprivate");
            assert!(is_private || !expected.is_empty() && said.starts_with(expected), "{option}: {line}");
        }
    }
}
