//! What an engine's configuration says of containers and networks that do not say: that it acts.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Daemon, Machine, docker_program, dozen_program};

/// What a new container says.
fn run(daemon: &Daemon<'_>, arguments: &[&str]) -> String {
    daemon.dozen(&[&["run", "--rm"][..], arguments].concat()).text().trim().to_owned()
}

#[test]
fn containers_get_what_the_file_says_unless_they_say() {
    let machine = Machine::new();
    let profile = machine.directory().join("no-mkdir.json");
    let text = r#"{ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }] }"#;
    std::fs::write(&profile, text).unwrap();
    let file = format!(
        r#"{{ "dns": ["192.0.2.53"], "dns-search": ["lan.example"], "dns-opts": ["ndots:3"],
            "default-ulimits": {{ "nofile": {{ "Name": "nofile", "Soft": 321, "Hard": 654 }} }},
            "no-new-privileges": true, "default-cgroupns-mode": "host", "default-ipc-mode": "private",
            "seccomp-profile": "{}" }}"#,
        profile.display()
    );
    let daemon = Daemon::with_file(&machine, &file);
    daemon.load("busybox");
    let resolv_conf = run(&daemon, &["busybox", "grep", "-v", "^#", "/etc/resolv.conf"]);
    assert_eq!(resolv_conf, "nameserver 192.0.2.53\nsearch lan.example\noptions ndots:3");
    assert!(
        run(&daemon, &["--dns", "192.0.2.9", "busybox", "cat", "/etc/resolv.conf"]).contains("nameserver 192.0.2.9\n")
    );
    assert_eq!(run(&daemon, &["busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn"]), "321\n654");
    assert_eq!(
        run(&daemon, &["--ulimit", "nofile=99:100", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn"]),
        "99\n100"
    );
    let status = ["busybox", "grep", "NoNewPrivs", "/proc/self/status"];
    assert_eq!(run(&daemon, &status), "NoNewPrivs:\t1");
    let own = [&["--security-opt", "no-new-privileges:false"][..], &status].concat();
    assert_eq!(run(&daemon, &own), "NoNewPrivs:\t0");
    // The host's view of cgroups: a path below the machine's, and not the root.
    let cgroup = ["busybox", "sh", "-c", "cut -d: -f3 /proc/self/cgroup | sort -u"];
    assert!(run(&daemon, &cgroup).contains("dozen"));
    assert!(!run(&daemon, &[&["--cgroupns", "private"][..], &cgroup].concat()).contains("dozen"));
    let mkdir = ["busybox", "sh", "-c", "mkdir /x && echo made || echo refused"];
    assert_eq!(run(&daemon, &mkdir), "refused");
    assert_eq!(run(&daemon, &[&["--security-opt", "seccomp=builtin"][..], &mkdir].concat()), "made");
    assert_eq!(run(&daemon, &[&["--privileged"][..], &mkdir].concat()), "made");
    let options = daemon.dozen(&["info", "-f", "{{.SecurityOptions}}"]).text();
    assert!(options.contains("name=seccomp,profile=custom") && options.contains("name=no-new-privileges"), "{options}");

    daemon.dozen(&["run", "-d", "--name", "old", "busybox", "sleep", "1000"]).expect(0);
    daemon.reload(r#"{ "dns": ["192.0.2.54"] }"#);
    assert!(run(&daemon, &["busybox", "cat", "/etc/resolv.conf"]).contains("nameserver 192.0.2.54"));
    assert_eq!(run(&daemon, &mkdir), "made");
    assert_eq!(run(&daemon, &status), "NoNewPrivs:\t0");
    let old = daemon.dozen(&["exec", "old", "cat", "/etc/resolv.conf"]).text();
    assert!(old.contains("nameserver 192.0.2.53"), "what is made stays as it was made: {old}");
    daemon.dozen(&["rm", "-f", "old"]).expect(0);
}

#[test]
fn memory_is_shared_and_cgroups_lie_where_the_engine_is_told() {
    let machine = Machine::new();
    let daemon = Daemon::start(&machine, &["--default-ipc-mode", "shareable", "--cgroup-parent", "/team/web"]);
    daemon.load("busybox");
    daemon.dozen(&["run", "-d", "--name", "db", "busybox", "sleep", "1000"]).expect(0);
    assert_eq!(run(&daemon, &["--ipc", "container:db", "busybox", "sh", "-c", "touch /dev/shm/x && echo ok"]), "ok");
    assert_eq!(daemon.dozen(&["exec", "db", "ls", "/dev/shm"]).text(), "x\n");
    let shown = daemon.dozen(&["inspect", "-f", "{{.HostConfig.IpcMode}} {{.HostConfig.CgroupParent}}", "db"]).text();
    assert_eq!(shown, "shareable /team/web\n");
    let cgroup = ["--cgroupns", "host", "busybox", "cat", "/proc/self/cgroup"];
    let seen = run(&daemon, &cgroup);
    assert!(seen.contains("/team/web/"), "{seen}");
    let own = [&["--cgroup-parent", "other"][..], &cgroup].concat();
    let seen = run(&daemon, &own);
    assert!(seen.contains("/other/") && !seen.contains("/team/"), "{seen}");
    let private = daemon.dozen(&["run", "--rm", "--ipc", "private", "busybox", "ls", "/dev/shm"]);
    assert_eq!(private.text(), "");
    daemon.dozen(&["rm", "-f", "db"]).expect(0);
    drop(daemon);
    let refused = machine.run(dozen_program(), &["daemon", "--cgroup-parent", "/dozen/x"]).expect(1);
    assert!(refused.err.contains("that cgroup is dozen's own"), "{refused:?}");
    let ours = "find /sys/fs/cgroup -depth -type d \\( -path '*/team/web' -o -path '*/team' -o -path '*/other' \\)";
    machine.run("sh", &["-c", &format!("{ours} -exec rmdir {{}} +")]).expect(0);
}

#[test]
fn networks_get_their_addresses_from_the_pools_and_the_bridge_is_as_it_was_asked() {
    let machine = Machine::new();
    let pools = "base=10.77.0.0/16,size=24";
    let flags = ["--bip", "10.88.0.1/24", "--fixed-cidr", "10.88.0.128/28", "--mtu", "1400", "--ipv6=false"];
    let daemon = Daemon::start(&machine, &[&flags[..], &["--icc=false", "--default-address-pool", pools]].concat());
    daemon.load("busybox");
    for (name, subnet) in [("one", "10.77.0.0/24"), ("two", "10.77.1.0/24")] {
        daemon.dozen(&["network", "create", name]).expect(0);
        let shown = daemon.dozen(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name]).text();
        assert_eq!(shown.trim(), subnet);
    }
    let web = ["run", "-d", "--name", "web", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc"];
    daemon.dozen(&web).expect(0);
    let shown = |format: &str| daemon.dozen(&["inspect", "-f", format, "web"]).text().trim().to_owned();
    let network = "{{.NetworkSettings.Networks.bridge.Gateway}} {{.NetworkSettings.Networks.bridge.IPAddress}}";
    assert_eq!(shown(network), "10.88.0.1 10.88.0.128");
    assert_eq!(shown("{{.NetworkSettings.Networks.bridge.GlobalIPv6Address}}"), "");
    assert_eq!(run(&daemon, &["busybox", "cat", "/sys/class/net/eth0/mtu"]), "1400");
    let fetch = "wget -q -T 3 -O - http://10.88.0.128/hostname >/dev/null && echo reached || echo refused";
    assert_eq!(run(&daemon, &["busybox", "sh", "-c", fetch]), "refused");
    let options = daemon.dozen(&["network", "inspect", "-f", "{{json .Options}}", "bridge"]).text();
    assert!(options.contains(r#""com.docker.network.driver.mtu":"1400""#), "{options}");
    assert!(options.contains(r#""com.docker.network.bridge.enable_icc":"false""#), "{options}");
    drop(daemon);

    // While a container is on it the bridge stays; and moves when there is none.
    let daemon = Daemon::start(&machine, &["--bip", "10.99.0.1/24"]);
    daemon.load("busybox");
    assert!(run(&daemon, &["busybox", "ip", "route"]).contains("default via 10.88.0.1"));
    assert!(daemon.said().contains("containers on the default bridge keep it"));
    daemon.dozen(&["rm", "-f", "web"]).expect(0);
    drop(daemon);
    let daemon = Daemon::start(&machine, &["--bip", "10.99.0.1/24"]);
    daemon.load("busybox");
    assert!(run(&daemon, &["busybox", "ip", "route"]).contains("default via 10.99.0.1"));
    drop(daemon);
    // What is somebody else's is refused by name.
    let daemon = Daemon::start(&machine, &["--bip", "198.51.100.9/24"]);
    daemon.load("busybox");
    let refused = daemon.dozen(&["run", "--rm", "busybox", "true"]);
    assert!(refused.code != 0 && refused.err.contains("cannot have 198.51.100.0/24: it overlaps"), "{refused:?}");
}

#[test]
fn old_clients_are_refused_and_devices_are_found_elsewhere() {
    let machine = Machine::new();
    let directory = machine.directory().join("cdi");
    std::fs::create_dir(&directory).unwrap();
    let specification = r#"{ "cdiVersion": "0.6.0", "kind": "example.com/thing",
        "devices": [{ "name": "one", "containerEdits": { "env": ["THING=one"] } }] }"#;
    std::fs::write(directory.join("thing.json"), specification).unwrap();
    let directory = directory.to_str().unwrap();
    let daemon = Daemon::start(&machine, &["--min-api-version", "1.44", "--cdi-spec-dir", directory]);
    daemon.load("busybox");
    let old = [("DOCKER_API_VERSION", "1.43")];
    let refused = machine.run_with(docker_program(), &["ps"], b"", &old).expect(1);
    assert!(
        refused.err.contains("client version 1.43 is too old. Minimum supported API version is 1.44"),
        "{refused:?}"
    );
    machine.run_with(docker_program(), &["ps"], b"", &[("DOCKER_API_VERSION", "1.44")]).expect(0);
    let version = machine.run(docker_program(), &["version", "-f", "{{.Server.MinAPIVersion}}"]).text();
    assert_eq!(version.trim(), "1.44");
    assert_eq!(run(&daemon, &["--device", "example.com/thing=one", "busybox", "sh", "-c", "echo $THING"]), "one");
    assert_eq!(daemon.dozen(&["info", "-f", "{{.CDISpecDirs}}"]).text().trim(), format!("[{directory}]"));
    let listed = daemon.dozen(&["info", "-f", "{{json .DiscoveredDevices}} {{.FirewallBackend.Driver}}"]).text();
    assert_eq!(listed.trim(), r#"[{"ID":"example.com/thing=one","Source":"cdi"}] nftables"#);
}
