//! Containers with users and groups of their own: inside all is as it was, outside they are nobody.

#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use dozen_testbox::{Daemon, Engine, Machine, Side, docker_program, dozen_program, until};

/// First and count.
type Ids = (u32, u32);

/// What inspect shows of a container's range.
fn ids_of(engine: &Engine<'_>, container: &str) -> Ids {
    let shown = engine.dozen(&["inspect", "-f", "{{index .HostConfig.IDMappings.UidMap 0}}", container]).text();
    let numbers: Vec<u32> = shown.trim().split(':').map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers[0], 0);
    (numbers[1], numbers[2])
}

fn is_within((first, count): Ids, id: u32) -> bool {
    id >= first && id - first < count
}

/// `--network none`, unless the options say otherwise.
fn run(engine: &Engine<'_>, options: &[&str], script: &str) -> String {
    let network: &[&str] = if options.contains(&"--network") { &[] } else { &["--network", "none"] };
    engine.dozen(&[&["run", "--rm"], network, options, &["busybox", "sh", "-c", script]].concat()).text()
}

fn start(engine: &Engine<'_>, name: &str, options: &[&str]) {
    let line = [&["run", "-d", "--name", name], options, &["busybox", "sleep", "1000"]].concat();
    engine.dozen(&line).expect(0);
}

fn pid_of(engine: &Engine<'_>, container: &str) -> String {
    engine.dozen(&["inspect", "-f", "{{.State.Pid}}", container]).text().trim().to_owned()
}

/// The four users and four groups of a process, as the host sees them.
fn credentials(pid: &str) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let lines = status.lines().filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:"));
    lines.flat_map(|line| line.split_whitespace().skip(1)).map(|id| id.parse().unwrap()).collect()
}

fn volume(engine: &Engine<'_>, name: &str) -> PathBuf {
    engine.dozen(&["volume", "inspect", "-f", "{{.Mountpoint}}", name]).text().trim().into()
}

#[test]
fn a_container_has_users_of_its_own_and_the_host_has_none_of_them() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let bound = machine.directory().join("bound");
    std::fs::create_dir(&bound).unwrap();
    let bind = format!("{}:/b", bound.display());
    let mounts = ["-v", "data:/v", "-v", &bind, "--tmpfs", "/t", "--network", "none"];
    start(&engine, "one", &[&["--userns", "auto"], &mounts[..]].concat());
    start(&engine, "two", &["--userns", "auto:size=1000", "--network", "none"]);
    let (one, two) = (ids_of(&engine, "one"), ids_of(&engine, "two"));
    assert_eq!((one.1, two.1), (65536, 1000));
    assert!(one.0 >= 65536 && (one.0 + one.1 <= two.0 || two.0 + two.1 <= one.0), "{one:?} {two:?}");
    let modes = engine.dozen(&["inspect", "-f", "{{.HostConfig.UsernsMode}}", "one", "two"]).text();
    assert_eq!(modes, "auto\nauto:size=1000\n");

    let exec = |options: &[&str], script: &str| {
        engine.dozen(&[&["exec"], options, &["one", "sh", "-c", script]].concat()).text()
    };
    let map: Vec<u32> = exec(&[], "cat /proc/self/uid_map").split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert_eq!(map, [0, one.0, one.1]);
    assert_eq!(exec(&["-u", "7:8"], "id -u; id -g"), "7\n8\n");
    // Everything in it has the owners that the image's author gave it.
    let look = "stat -c %u:%g / /etc /etc/hosts /dev /dev/pts /dev/shm /v /b /t /proc/self/comm";
    assert_eq!(exec(&[], look), "0:0\n".repeat(10));
    let make = "for f in /f /v/f /b/f /t/f /dev/shm/f; do echo x >$f && chown 5:6 $f && stat -c %u:%g $f || exit; done; \
                echo 192.0.2.1 name >>/etc/hosts && grep -c name /etc/hosts; mkdir /v/d; ln -s f /v/l";
    assert_eq!(exec(&[], make), format!("{}1\n", "5:6\n".repeat(5)));
    // On disk it is as if there were no user namespace.
    let data = volume(&engine, "data");
    for (path, owner) in
        [(data.join("f"), (5, 6)), (bound.join("f"), (5, 6)), (data.join("d"), (0, 0)), (data.join("l"), (0, 0))]
    {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), owner, "{}", path.display());
    }
    assert_eq!(run(&engine, &["-v", "data:/v"], "stat -c %u:%g /v/f"), "5:6\n");

    // Its processes are nobody on the host, whoever brought them in.
    let first = pid_of(&engine, "one");
    let cgroup = std::fs::read_to_string(format!("/proc/{first}/cgroup")).unwrap();
    engine.dozen(&["exec", "-d", "--privileged", "one", "sleep", "1001"]).expect(0);
    let others: Vec<String> = std::fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|theirs| theirs == cgroup))
        .collect();
    assert!(others.len() >= 2, "{others:?}");
    for pid in others {
        let ids = credentials(&pid);
        assert!(ids.len() == 8 && ids.iter().all(|id| is_within(one, *id)), "{pid}: {ids:?}");
        let maps = ["uid_map", "gid_map"].map(|map| std::fs::read_to_string(format!("/proc/{pid}/{map}")).unwrap());
        assert_eq!(maps[0], maps[1]);
    }
    // All of its namespaces belong to its user namespace: what its root may do is for these alone.
    for kind in ["net", "pid", "ipc", "uts", "mnt", "cgroup", "user"] {
        let its = std::fs::read_link(format!("/proc/{first}/ns/{kind}")).unwrap();
        assert_ne!(its, std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap(), "{kind}");
    }
    engine.dozen(&["rm", "-f", "one", "two"]).expect(0);
    // With `host` and without a word it is root itself.
    for options in [&["--userns", "host"][..], &[], &["--userns="]] {
        let map = run(&engine, options, "cat /proc/self/uid_map");
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "0", "4294967295"], "{options:?}");
    }
    engine.dozen(&["create", "--name", "said", "--userns", "host", "busybox", "true"]).expect(0);
    assert_eq!(engine.dozen(&["inspect", "-f", "{{.HostConfig.UsernsMode}}", "said"]).text(), "host\n");
}

#[test]
fn what_a_container_has_anyway_it_has_with_users_of_its_own() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let auto = |options: &[&str], script: &str| run(&engine, &[&["--userns", "auto"], options].concat(), script);
    assert_eq!(auto(&["--init", "-u", "1000", "--group-add", "7"], "id -u; id -G"), "1000\n0 7\n");
    assert_eq!(auto(&["--init"], "grep -c dozen-init /proc/1/cmdline"), "1\n");
    assert_eq!(auto(&["--read-only"], "touch /x 2>&1 | grep -o 'Read-only file system'"), "Read-only file system\n");
    assert_eq!(auto(&["--hostname", "its"], "hostname; cat /etc/hostname"), "its\nits\n");
    assert_eq!(auto(&["--ulimit", "nofile=99:100"], "ulimit -Sn; ulimit -Hn"), "99\n100\n");
    let sysctls = "cd /proc/sys; cat kernel/msgmax net/core/somaxconn net/ipv4/ip_unprivileged_port_start";
    // Linux 6.1 shows net.core's to the host's users alone.
    if auto(&[], "ls /proc/sys/net/core").contains("somaxconn") {
        assert_eq!(auto(&["--sysctl", "net.core.somaxconn=9"], sysctls), "8192\n9\n0\n");
    } else {
        let line = ["run", "--rm", "--userns", "auto", "--network", "none", "--sysctl", "net.core.somaxconn=9"];
        engine.dozen(&[&line[..], &["busybox", "true"]].concat()).refuses(125, &["net/core/somaxconn", "--userns"]);
    }
    assert_eq!(auto(&["--userns", "auto:size=500"], "cat /proc/sys/net/ipv4/ping_group_range"), "0\t499\n");
    assert!(auto(&["--cgroupns", "host"], "cat /proc/self/cgroup").contains("dozen"));
    assert_eq!(auto(&["--uts", "host"], "hostname"), machine.run("hostname", &[]).text());
    assert_eq!(
        auto(&[], "ls -d /sys/class/net/*; ls -d /sys/fs/cgroup >/dev/null && echo yes"),
        "/sys/class/net/lo\nyes\n"
    );
    // The same paths are masked and read-only as without.
    let hidden = "mount | grep -E ' on /(proc|sys)/' | grep -v /sys/fs/cgroup | cut -d' ' -f3 | sort";
    assert_eq!(auto(&[], hidden), run(&engine, &[], hidden));
    // A terminal is its user's.
    let terminal = ["run", "--rm", "-t", "--userns", "auto", "--network", "none", "busybox", "sh", "-c"];
    let script = "stat -c %u:%g $(tty) /dev/console; echo heard >/dev/tty";
    let said = engine.dozen(&[&terminal[..], &[script]].concat()).text().replace('\r', "");
    assert_eq!(said, "0:5\n0:5\nheard\n");
    // Its output is a pipe of the monitor's.
    assert_eq!(auto(&["-u", "1000"], "echo out >/dev/stdout"), "out\n");
    // An image's files, and a part of them; the owner of a volume; a device.
    let image =
        |options: &str, script: &str| auto(&["--mount", &format!("type=image,src=busybox,dst=/m{options}")], script);
    let look = "stat -c %u:%g /m /m/bin/busybox; /m/bin/busybox touch /m/x 2>&1 | grep -o 'Read-only file system'";
    assert_eq!(image("", look), "0:0\n0:0\nRead-only file system\n");
    assert_eq!(image(",image-subpath=bin/busybox", "stat -c %u:%g /m; test -x /m && echo runs"), "0:0\nruns\n");
    let owner = ["--mount", "type=volume,src=data,dst=/m,uid=1000,gid=2000", "-u", "1000:2000"];
    assert_eq!(auto(&owner, "touch /m/f; stat -c %u:%g /m /m/f"), "1000:2000\n1000:2000\n");
    let made = std::fs::metadata(volume(&engine, "data").join("f")).unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0));
    // As it is: to whoever writes there without another owner it is root's.
    let same = ["--mount", "type=volume,src=data,dst=/m,uid=0"];
    assert_eq!(auto(&same, "stat -c %u:%g /m/f; touch /m/g; stat -c %u:%g /m/g"), "0:0\n0:0\n");
    let part = ["--mount", "type=volume,src=data,dst=/m,volume-subpath=f"];
    assert_eq!(auto(&part, "stat -c %u:%g /m; echo x >/m && echo written"), "0:0\nwritten\n");
    let device = ["--device", "/dev/fuse:/dev/mine/fuse"];
    assert_eq!(
        auto(&device, "stat -c %F:%t:%T /dev/mine/fuse; (exec 3<>/dev/mine/fuse) && echo opens"),
        "character special file:a:e5\nopens\n"
    );
}

#[test]
fn root_of_a_user_namespace_does_nothing_to_the_host() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    // With every right and no filter: they are rights over its own namespaces.
    let free = ["--userns", "auto", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"];
    let with_place = |script: &str| format!("mkdir -p /mnt; {script}");
    let say = |script: &str| run(&engine, &free, &with_place(script));
    assert_ne!(say("grep CapEff /proc/self/status"), "CapEff:\t0000000000000000\n", "it has rights");
    for (attack, what) in [
        ("mknod /null c 1 3", "a device node"),
        ("mknod /dev/vda b 254 0", "a disk"),
        ("chown 1 /dev/null", "the host's devices"),
        ("chmod 0 /dev/null", "the host's devices"),
        ("chown 0 /proc/cpuinfo", "the host's procfs"),
        ("mount -t ext4 /dev/vda /mnt", "a disk"),
        (
            "mount -o remount,rw /proc/sys; cd /proc/sys/kernel; v=$(cat core_pattern); echo $v >core_pattern",
            "values of the kernel",
        ),
        ("umount /proc/sys; echo 1 >/proc/sys/kernel/sysrq", "values of the kernel"),
        ("umount /proc/sysrq-trigger; echo h >/proc/sysrq-trigger", "the kernel"),
        ("mount -t sysfs s /mnt && echo 1 >/mnt/kernel/profiling", "the kernel"),
        ("! date -s 2000-01-01 2>&1 | grep -q 'not permitted'", "the clock"),
        ("mount -t tmpfs t /mnt && mknod /mnt/x c 1 5", "a device on a file system of its own"),
    ] {
        let done = engine.dozen(
            &[&["run", "--rm", "--network", "none"], &free[..], &["busybox", "sh", "-c", &with_place(attack)]].concat(),
        );
        assert!(done.code != 0, "{what}: {done:?}");
    }
    assert_eq!(
        say("mount -t tmpfs t /mnt && touch /mnt/x && hostname mine && hostname"),
        "mine\n",
        "these are its own"
    );
    // Whoever is not among its ids is nobody in there, and what is nobody's is closed to its root too.
    let bound = machine.directory().join("bound");
    std::fs::create_dir(&bound).unwrap();
    std::fs::write(bound.join("secret"), "secret").unwrap();
    std::os::unix::fs::chown(bound.join("secret"), Some(70_000), Some(70_000)).unwrap();
    std::fs::set_permissions(bound.join("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let bind = format!("{}:/b", bound.display());
    let look =
        "stat -c %u:%g /b/secret; cat /b/secret; chown 0 /b/secret; chmod 666 /b/secret; echo x >>/b/secret; true";
    let line = [&["run", "--rm", "-v", &bind], &free[..], &["--network", "none", "busybox", "sh", "-c", look]].concat();
    let done = engine.dozen(&line).expect(0);
    assert_eq!(done.out, "65534:65534\n", "{done:?}");
    assert_eq!(std::fs::metadata(bound.join("secret")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::read_to_string(bound.join("secret")).unwrap(), "secret");
    // What it makes in a volume is root's on disk, with all that its mode says.
    let make = "cp /bin/busybox /v/id; chown 0:0 /v/id; chmod 4755 /v/id";
    run(&engine, &["--userns", "auto", "-v", "data:/v"], make);
    let mode = std::fs::metadata(volume(&engine, "data").join("id")).unwrap();
    assert_eq!((mode.uid(), mode.mode() & 0o7777), (0, 0o4755));
    let rest = std::fs::metadata(machine.directory().join("data")).unwrap().mode();
    assert_eq!(rest & 0o077, 0, "nobody on the host comes to it there");
}

#[test]
fn what_cannot_be_had_with_users_of_its_own_is_refused() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    start(&engine, "own", &["--userns", "auto", "--network", "none", "--ipc", "shareable"]);
    start(&engine, "plain", &["--network", "none"]);
    let before = machine.snapshot();
    for (options, words) in [
        (&["--privileged"][..], "privileged mode is incompatible with user namespaces"),
        (&["--network", "host"], "cannot share the host's network namespace when user namespaces are enabled"),
        (&["--pid", "host"], "cannot share the host PID namespace when user namespaces are enabled"),
        (&["--ipc", "host"], "cannot share the host IPC namespace when user namespaces are enabled"),
        (&["-v", "/proc:/p"], "cannot bind /p in a user namespace: /proc: its file system"),
        (
            &["--mount", "type=bind,src=/tmp,dst=/p,bind-propagation=rslave"],
            "bind-propagation=rslave in a user namespace",
        ),
        (&["-u", "65536"], "65536 is not among the 65536 users and groups"),
        (&["--group-add", "70000"], "70000 is not among"),
        (&["--mount", "type=volume,src=data,dst=/p,uid=70000"], "70000 is not among"),
        (&["--network", "container:plain"], "it has other users than this one"),
        (&["--network", "container:own"], "it has other users than this one"),
        (
            &["--userns", "auto:size=4000000000"],
            "no range of 4000000000 users and groups is free in userns-pool 2013265920:134217728",
        ),
        (&["--userns", "auto:uidmapping=0:1:2"], "is not built"),
        (&["--userns", "keep-id"], "is not built"),
        (&["--userns", "mine"], "invalid userns mode: mine"),
        (&["--userns", "host", "--pid", "container:own"], "cannot join the PID namespace of container"),
    ] {
        let line = [&["run", "--rm", "--userns", "auto"], options, &["busybox", "true"]].concat();
        engine.dozen(&line).refuses(125, &[words]);
    }
    assert_eq!(machine.snapshot(), before, "nothing was made");
    engine
        .dozen(&["exec", "-u", "70000", "own", "true"])
        .refuses(126, &["is not among the ids of the container's user namespace"]);
    engine.dozen(&["rm", "-f", "own", "plain"]).expect(0);
}

#[test]
fn what_is_copied_has_the_owners_that_the_container_sees() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    start(&engine, "web", &["--userns", "auto", "--network", "none", "-v", "data:/v"]);
    let script = "mkdir /d; echo x >/d/f; chown -R 5:6 /d; cp -a /d /v/; rm /etc/group";
    engine.dozen(&["exec", "web", "sh", "-c", script]).expect(0);
    let owners = |what: &str| {
        let to = machine.directory().join("out.tar");
        let line = format!("{} cp web:{what} - >{}", dozen_program().display(), to.display());
        machine.run("sh", &["-c", &line]).expect(0);
        let listed = machine.run("tar", &["-tvn", "--numeric-owner", "-f", to.to_str().unwrap()]).text();
        listed.lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    let running = [owners("/d"), owners("/v/d"), owners("/etc/passwd"), owners("/proc/version")];
    assert_eq!(running, [vec!["5/6"; 2], vec!["5/6"; 2], vec!["0/0"], vec!["65534/65534"]]);
    // Back in, where it stands with these owners; with directories that are not there yet; and as its user.
    let put = |to: &str| {
        let line = format!("{} cp - web:{to} <{}/out.tar", dozen_program().display(), machine.directory().display());
        machine.run("sh", &["-c", &line])
    };
    owners("/d");
    for to in ["/v", "/mnt", "/dev/shm"] {
        engine.dozen(&["exec", "web", "mkdir", "-p", to]).expect(0);
        put(to).expect(0);
        let seen = engine.dozen(&["exec", "web", "stat", "-c", "%u:%g", &format!("{to}/d/f")]).text();
        assert_eq!(seen, "5:6\n", "{to}");
    }
    let file = machine.directory().join("of-nobody");
    std::fs::write(&file, "x").unwrap();
    std::os::unix::fs::chown(&file, Some(3_000_000), Some(0)).unwrap();
    engine.dozen(&["cp", file.to_str().unwrap(), "web:/"]).refuses(1, &["not in the container's user namespace"]);
    // What is made of its layer knows nothing of the range.
    let changes = engine.dozen(&["diff", "web"]).text();
    assert!(changes.contains("D /etc/group") && changes.contains("A /d/f"), "{changes}");
    engine.dozen(&["commit", "web", "made"]).expect(0);
    let look = ["run", "--rm", "--network", "none", "made", "stat", "-c", "%u:%g", "/d/f", "/mnt/d", "/etc"];
    assert_eq!(engine.dozen(&look).text(), "5:6\n5:6\n0:0\n");
    let exported = format!("{} export web | tar -tv --numeric-owner | grep -c '5/6'", dozen_program().display());
    assert_eq!(machine.run("sh", &["-c", &exported]).text(), "4\n");
    engine.dozen(&["stop", "-t", "0", "web"]).expect(0);
    assert_eq!([owners("/d"), owners("/v/d")], [vec!["5/6"; 2], vec!["5/6"; 2]]);
    engine.dozen(&["start", "web"]).expect(0);
    assert_eq!(engine.dozen(&["exec", "web", "stat", "-c", "%u:%g", "/d/f"]).text(), "5:6\n");
}

#[test]
fn who_joins_another_container_has_its_users() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    start(&engine, "db", &["--userns", "auto", "--ipc", "shareable", "--network", "none", "-v", "data:/v"]);
    engine
        .dozen(&[
            "exec",
            "db",
            "sh",
            "-c",
            "echo shared >/dev/shm/f; echo kept >/v/f; ip link add dummy0 type dummy 2>/dev/null; true",
        ])
        .expect(0);
    let db = ids_of(&engine, "db");
    let user_namespace = std::fs::read_link(format!("/proc/{}/ns/user", pid_of(&engine, "db"))).unwrap();
    for (flag, look, want) in [
        ("--network", "ls -d /sys/class/net/lo", "/sys/class/net/lo\n"),
        ("--pid", "grep -c sleep /proc/1/cmdline", "1\n"),
        (
            "--ipc",
            "stat -c %u:%g /dev/shm/f; cat /dev/shm/f; echo x >/dev/shm/g && ls -d /dev/mqueue",
            "0:0\nshared\n/dev/mqueue\n",
        ),
        ("--userns", "id -u", "0\n"),
        ("--volumes-from", "true", ""),
    ] {
        let options = match flag {
            "--volumes-from" => vec!["--userns", "container:db", flag, "db"],
            _ => vec![flag, "container:db"],
        };
        let inside = format!("{look}; readlink /proc/self/ns/user; touch /x && stat -c %u:%g /x /etc/hosts /etc");
        let said = run(&engine, &options, &inside);
        assert_eq!(said, format!("{want}{}\n0:0\n0:0\n0:0\n", user_namespace.display()), "{flag}");
    }
    // As many as three at once, and who stays keeps the range in use when the other is gone.
    let all = ["--network", "container:db", "--ipc", "container:db"];
    start(&engine, "beside", &all);
    assert_eq!(ids_of(&engine, "beside"), db);
    let shown = engine.dozen(&["inspect", "-f", "{{.HostConfig.UsernsMode}}", "beside"]).text();
    assert_eq!(shown, format!("container:{}", engine.dozen(&["inspect", "-f", "{{.Id}}", "db"]).text()));
    assert_eq!(engine.dozen(&["debug", "--image", "busybox", "db", "cat", "v/f"]).text(), "kept\n");
    engine.dozen(&["rm", "-f", "db"]).expect(0);
    start(&engine, "new", &["--userns", "auto", "--network", "none"]);
    let new = ids_of(&engine, "new");
    assert!(new.0 + new.1 <= db.0 || db.0 + db.1 <= new.0, "{new:?} {db:?}");
    engine.dozen(&["restart", "-t", "0", "beside"]).refuses(1, &["No such container"]);
    engine.dozen(&["rm", "-f", "beside", "new"]).expect(0);
}

#[test]
fn ids_outlive_the_engine_and_are_free_when_the_container_is_gone() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    engine.load("busybox");
    start(&engine, "one", &["--userns", "auto", "--network", "none"]);
    engine.dozen(&["create", "--name", "two", "--userns", "auto", "busybox", "true"]).expect(0);
    let before = (ids_of(&engine, "one"), ids_of(&engine, "two"));
    engine.kill();
    engine.restart();
    assert_eq!((ids_of(&engine, "one"), ids_of(&engine, "two")), before);
    start(&engine, "three", &["--userns", "auto", "--network", "none"]);
    let three = ids_of(&engine, "three");
    assert!(three != before.0 && three != before.1);
    // It goes on as it was, and begins again as it was.
    let map = |engine: &Engine<'_>| engine.dozen(&["exec", "one", "cat", "/proc/self/uid_map"]).text();
    let old = map(&engine);
    engine.dozen(&["exec", "one", "touch", "/made"]).expect(0);
    engine.dozen(&["restart", "-t", "0", "one"]).expect(0);
    assert_eq!(map(&engine), old);
    assert_eq!(engine.dozen(&["exec", "one", "stat", "-c", "%u:%g", "/made"]).text(), "0:0\n");
    engine.dozen(&["update", "--pids-limit", "50", "one"]).expect(0);
    assert_eq!(ids_of(&engine, "one"), before.0);
    // Who is gone leaves its range to the next.
    engine.dozen(&["rm", "two"]).expect(0);
    engine.dozen(&["create", "--name", "four", "--userns", "auto", "busybox", "true"]).expect(0);
    assert_eq!(ids_of(&engine, "four"), before.1);
    engine.dozen(&["rm", "-f", "one", "three", "four"]).expect(0);
}

#[test]
fn containers_with_users_of_their_own_are_reached_and_find_each_other() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["network", "create", "back"]).expect(0);
    let options = ["--userns", "auto", "--network", "back", "-p", "8080:80", "--name", "web", "--restart", "always"];
    let health = ["--health-cmd", "test $(id -u) = 0 && wget -qO- http://127.0.0.1", "--health-interval", "1s"];
    let serve = "mkdir -p /w; echo page >/w/index.html; exec httpd -f -p 80 -h /w";
    engine.dozen(&[&["run", "-d"], &options[..], &health, &["busybox", "sh", "-c", serve]].concat()).expect(0);
    let address = "198.51.100.2:8080".parse().unwrap();
    assert_eq!(machine.page(Side::Neighbour, address), "page\n");
    let fetch = "nslookup web >/dev/null && wget -qO- http://web";
    assert_eq!(run(&engine, &["--userns", "auto", "--network", "back"], fetch), "page\n");
    assert_eq!(run(&engine, &["--network", "back"], fetch), "page\n", "and by who has the host's");
    until("it is well", || {
        let status = engine.dozen(&["inspect", "-f", "{{.State.Health.Status}}", "web"]).text();
        (status == "healthy\n").then_some(())
    });
    // A further link, and a way back to life.
    engine.dozen(&["network", "create", "more"]).expect(0);
    engine.dozen(&["network", "connect", "more", "web"]).expect(0);
    let links =
        engine.dozen(&["exec", "web", "sh", "-c", "ls /sys/class/net; cat /sys/class/net/eth1/operstate"]).text();
    assert_eq!(links, "eth0\neth1\nlo\nup\n");
    let ids = ids_of(&engine, "web");
    engine.dozen(&["exec", "web", "kill", "1"]);
    assert_eq!(machine.page(Side::Neighbour, address), "page\n");
    assert_eq!(ids_of(&engine, "web"), ids);
    let shown = engine.dozen(&["top", "web", "-eo", "pid,uid,args"]).text();
    assert!(shown.contains(&format!("{}", ids.0)) && shown.contains("httpd"), "by the host's numbers: {shown}");
    engine.dozen(&["pause", "web"]).expect(0);
    engine.dozen(&["unpause", "web"]).expect(0);
    engine.dozen(&["rm", "-f", "web"]).expect(0);
    engine.dozen(&["network", "rm", "back", "more"]).expect(0);
}

#[test]
fn an_engine_gives_users_of_their_own_to_all_who_do_not_say() {
    let machine = Machine::new();
    let daemon = Daemon::with_file(&machine, r#"{ "userns-remap": "auto", "userns-pool": "3000000:140000" }"#);
    daemon.load("busybox");
    let docker = |arguments: &[&str]| machine.run(docker_program(), arguments);
    let map = ["busybox", "cat", "/proc/self/uid_map"];
    let said = |options: &[&str]| {
        let text = docker(&[&["run", "--rm", "--network", "none"], options, &map].concat()).text();
        text.split_whitespace().map(|number| number.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    let own = said(&[]);
    assert!(own[0] == 0 && own[1] >= 3_000_000 && own[1] + own[2] <= 3_140_000 && own[2] == 65536, "{own:?}");
    assert_eq!(said(&["--userns", "host"]), [0, 0, u32::MAX]);
    assert_eq!(said(&["--userns", "host", "--privileged"]), [0, 0, u32::MAX]);
    docker(&["run", "--rm", "--privileged", "busybox", "true"]).refuses(
        125,
        &["privileged mode is incompatible with user namespaces.  You must run the container in the host"],
    );
    docker(&["run", "--rm", "--network", "host", "busybox", "true"])
        .refuses(125, &["cannot share the host's network namespace when user namespaces are enabled"]);
    let options = docker(&["info", "-f", "{{.SecurityOptions}}"]).text();
    assert!(options.contains("name=userns"), "{options}");
    // Of 140000 two have their share.
    for name in ["one", "two"] {
        docker(&["create", "--name", name, "--network", "none", "busybox", "sleep", "1000"]).expect(0);
    }
    docker(&["create", "--name", "three", "busybox", "true"])
        .refuses(1, &["no range of 65536 users and groups is free in userns-pool 3000000:140000"]);
    docker(&["start", "one"]).expect(0);
    // Who joins has those, and needs none.
    assert_eq!(
        docker(&[&["run", "--rm", "--network", "container:one"], &map[..]].concat()).text().split_whitespace().nth(2),
        Some("65536")
    );
    docker(&["rm", "two"]).expect(0);
    docker(&["create", "--name", "three", "busybox", "true"]).expect(0);

    daemon.reload(r#"{ "userns-pool": "5000000:65536" }"#);
    assert_eq!(said(&[]), [0, 0, u32::MAX], "of those that are made from now on");
    let map = daemon.dozen(&["exec", "one", "cat", "/proc/self/uid_map"]).text();
    assert!(map.contains(" 30") && map.contains("65536"), "what is made stays as it was made: {map}");
    let own =
        daemon.dozen(&["run", "--rm", "--userns", "auto", "--network", "none", "busybox", "cat", "/proc/self/gid_map"]);
    assert!(own.text().contains("5000000"));
    daemon.dozen(&["rm", "-f", "one", "three"]).expect(0);
    drop(daemon);
    for (text, words) in [
        (r#"{ "userns-remap": "default" }"#, "one range that all containers would share"),
        (r#"{ "userns-pool": "1000:65536" }"#, "ids below 65536 are the host's own users'"),
    ] {
        let file = machine.directory().join("bad.json");
        std::fs::write(&file, text).unwrap();
        machine
            .run(dozen_program(), &["daemon", "--validate", "--config-file", file.to_str().unwrap()])
            .refuses(1, &[words]);
    }
}
