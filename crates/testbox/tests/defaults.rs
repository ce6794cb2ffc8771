//! What an engine's configuration says of containers and networks that do not say: that it acts.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;
use std::process::Child;

use dozen_testbox::{Done, Machine, docker_program, dozen_program, image_archive, until};
use rustix::process::{Pid, Signal, kill_process};

struct Daemon<'a> {
    machine: &'a Machine,
    process: Child,
    log: PathBuf,
}

impl<'a> Daemon<'a> {
    fn start(machine: &'a Machine, arguments: &[&str]) -> Self {
        let log = machine.directory().join("daemon.log");
        let file = std::fs::File::create(&log).unwrap();
        let mut command = machine.command(dozen_program());
        command.arg("daemon").args(["-H", "unix://"]).args(arguments);
        let mut process = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        until("the engine listens", || {
            let said = std::fs::read_to_string(&log).unwrap();
            assert!(process.try_wait().unwrap().is_none(), "the engine has ended: {said}");
            said.contains("listening on").then_some(())
        });
        let daemon = Self { machine, process, log };
        daemon.dozen(&["load", "--input", image_archive("busybox").to_str().unwrap()]).expect(0);
        daemon
    }

    /// With this file.
    fn with_file(machine: &'a Machine, text: &str) -> Self {
        let path = machine.directory().join("daemon.json");
        std::fs::write(&path, text).unwrap();
        Self::start(machine, &["--config-file", path.to_str().unwrap()])
    }

    fn dozen(&self, arguments: &[&str]) -> Done {
        self.machine.run(dozen_program(), arguments)
    }

    /// What a new container says.
    fn run(&self, arguments: &[&str]) -> String {
        self.dozen(&[&["run", "--rm"][..], arguments].concat()).text().trim().to_owned()
    }

    fn reload(&self, text: &str) {
        std::fs::write(self.machine.directory().join("daemon.json"), text).unwrap();
        let said = |words: &str| std::fs::read_to_string(&self.log).unwrap().matches(words).count();
        let before = said("the settings have been read again");
        kill_process(Pid::from_raw(self.process.id().cast_signed()).unwrap(), Signal::HUP).unwrap();
        until("the settings are read again", || (said("the settings have been read again") > before).then_some(()));
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_raw(self.process.id().cast_signed()).unwrap(), Signal::TERM);
            let _ = self.process.wait();
        }
    }
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
    let resolv_conf = daemon.run(&["busybox", "grep", "-v", "^#", "/etc/resolv.conf"]);
    assert_eq!(resolv_conf, "nameserver 192.0.2.53\nsearch lan.example\noptions ndots:3");
    assert!(
        daemon.run(&["--dns", "192.0.2.9", "busybox", "cat", "/etc/resolv.conf"]).contains("nameserver 192.0.2.9\n")
    );
    assert_eq!(daemon.run(&["busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn"]), "321\n654");
    assert_eq!(daemon.run(&["--ulimit", "nofile=99:100", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn"]), "99\n100");
    let status = ["busybox", "grep", "NoNewPrivs", "/proc/self/status"];
    assert_eq!(daemon.run(&status), "NoNewPrivs:\t1");
    let own = [&["--security-opt", "no-new-privileges:false"][..], &status].concat();
    assert_eq!(daemon.run(&own), "NoNewPrivs:\t0");
    // The host's view of cgroups: a path below the machine's, and not the root.
    let cgroup = ["busybox", "sh", "-c", "cut -d: -f3 /proc/self/cgroup | sort -u"];
    assert!(daemon.run(&cgroup).contains("dozen"));
    assert!(!daemon.run(&[&["--cgroupns", "private"][..], &cgroup].concat()).contains("dozen"));
    let mkdir = ["busybox", "sh", "-c", "mkdir /x && echo made || echo refused"];
    assert_eq!(daemon.run(&mkdir), "refused");
    assert_eq!(daemon.run(&[&["--security-opt", "seccomp=builtin"][..], &mkdir].concat()), "made");
    assert_eq!(daemon.run(&[&["--privileged"][..], &mkdir].concat()), "made");
    let options = daemon.dozen(&["info", "-f", "{{.SecurityOptions}}"]).text();
    assert!(options.contains("name=seccomp,profile=custom") && options.contains("name=no-new-privileges"), "{options}");

    daemon.dozen(&["run", "-d", "--name", "old", "busybox", "sleep", "1000"]).expect(0);
    daemon.reload(r#"{ "dns": ["192.0.2.54"] }"#);
    assert!(daemon.run(&["busybox", "cat", "/etc/resolv.conf"]).contains("nameserver 192.0.2.54"));
    assert_eq!(daemon.run(&mkdir), "made");
    assert_eq!(daemon.run(&status), "NoNewPrivs:\t0");
    let old = daemon.dozen(&["exec", "old", "cat", "/etc/resolv.conf"]).text();
    assert!(old.contains("nameserver 192.0.2.53"), "what is made stays as it was made: {old}");
    daemon.dozen(&["rm", "-f", "old"]).expect(0);
}

#[test]
fn networks_get_their_addresses_from_the_pools_and_the_bridge_is_as_it_was_asked() {
    let machine = Machine::new();
    let pools = "base=10.77.0.0/16,size=24";
    let flags = ["--bip", "10.88.0.1/24", "--fixed-cidr", "10.88.0.128/28", "--mtu", "1400", "--ipv6=false"];
    let daemon = Daemon::start(&machine, &[&flags[..], &["--icc=false", "--default-address-pool", pools]].concat());
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
    assert_eq!(daemon.run(&["busybox", "cat", "/sys/class/net/eth0/mtu"]), "1400");
    let fetch = "wget -q -T 3 -O - http://10.88.0.128/hostname >/dev/null && echo reached || echo refused";
    assert_eq!(daemon.run(&["busybox", "sh", "-c", fetch]), "refused");
    let options = daemon.dozen(&["network", "inspect", "-f", "{{json .Options}}", "bridge"]).text();
    assert!(options.contains(r#""com.docker.network.driver.mtu":"1400""#), "{options}");
    assert!(options.contains(r#""com.docker.network.bridge.enable_icc":"false""#), "{options}");
    drop(daemon);

    // While a container is on it the bridge stays; and moves when there is none.
    let daemon = Daemon::start(&machine, &["--bip", "10.99.0.1/24"]);
    assert!(daemon.run(&["busybox", "ip", "route"]).contains("default via 10.88.0.1"));
    assert!(std::fs::read_to_string(&daemon.log).unwrap().contains("containers on the default bridge keep it"));
    daemon.dozen(&["rm", "-f", "web"]).expect(0);
    drop(daemon);
    let daemon = Daemon::start(&machine, &["--bip", "10.99.0.1/24"]);
    assert!(daemon.run(&["busybox", "ip", "route"]).contains("default via 10.99.0.1"));
    drop(daemon);
    // What is somebody else's is refused by name.
    let daemon = Daemon::start(&machine, &["--bip", "198.51.100.9/24"]);
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
    let old = [("DOCKER_API_VERSION", "1.43")];
    let refused = machine.run_with(docker_program(), &["ps"], b"", &old).expect(1);
    assert!(
        refused.err.contains("client version 1.43 is too old. Minimum supported API version is 1.44"),
        "{refused:?}"
    );
    machine.run_with(docker_program(), &["ps"], b"", &[("DOCKER_API_VERSION", "1.44")]).expect(0);
    let version = machine.run(docker_program(), &["version", "-f", "{{.Server.MinAPIVersion}}"]).text();
    assert_eq!(version.trim(), "1.44");
    assert_eq!(daemon.run(&["--device", "example.com/thing=one", "busybox", "sh", "-c", "echo $THING"]), "one");
    assert_eq!(daemon.dozen(&["info", "-f", "{{.CDISpecDirs}}"]).text().trim(), format!("[{directory}]"));
}
