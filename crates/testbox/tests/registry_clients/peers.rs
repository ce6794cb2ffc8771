//! Other people's engines on the machine: Debian 13's docker.io, podman and buildah, in a root of their own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};

use dozen_testbox::{Done, Machine, peers_root, until};

/// The first process of their root: sh -eu -c THIS sh ROOT SCRATCH. What is written there goes to SCRATCH; /var/lib lies on
/// the disk itself, since they make overlays in it. It ends with its standard input. There is no umount(8) in that root, so
/// the machine's own stays, below /host.
const ENTER: &str = r#"
root=$1
scratch=$2
mkdir -p "$scratch/upper" "$scratch/work" "$scratch/root" "$scratch/lib" "$scratch/tmp"
cell=$scratch/root
mount -t overlay overlay -o "lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work" "$cell"
mkdir -p "$cell/host" "$cell/root"
mount --bind "$scratch/lib" "$cell/var/lib"
mount --bind "$scratch/tmp" "$cell/tmp"
mount -t tmpfs -o mode=755 tmpfs "$cell/run"
for directory in proc sys dev; do mount --rbind "/$directory" "$cell/$directory"; done
cd "$cell"
pivot_root . host
echo ready
read -r _ || true
"#;

pub struct Peers<'a> {
    machine: &'a Machine,
    first: Child,
    _lifeline: ChildStdin,
    engine: Option<Child>,
}

impl<'a> Peers<'a> {
    pub fn enter(machine: &'a Machine) -> Self {
        let mut command = machine.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-eu", "-c", ENTER, "sh"]);
        command.arg(peers_root()).arg(machine.directory().join("peers"));
        let mut first = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lifeline = first.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "their root could not be made: its messages are above");
        let peers = Self { machine, first, _lifeline: lifeline, engine: None };
        // buildah wants it to be there.
        peers.write("/run/docker-config/config.json", "{}");
        peers
    }

    /// With docker's own engine, which makes no network and no rules.
    pub fn with_dockerd(machine: &'a Machine) -> Self {
        let mut peers = Self::enter(machine);
        let log = std::fs::File::create(machine.directory().join("dockerd.log")).unwrap();
        let mut command = machine.command("nsenter");
        command.args([&peers.namespace(), "--", "dockerd", "--host", VARIABLES[2].1]);
        command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]);
        command.envs(VARIABLES).stdout(log.try_clone().unwrap()).stderr(log);
        peers.engine = Some(command.spawn().unwrap());
        until("docker's engine answers", || (peers.run("docker", &["version"]).code == 0).then_some(()));
        peers
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> Done {
        self.run_with(program, arguments, b"")
    }

    pub fn run_with(&self, program: &str, arguments: &[&str], input: &[u8]) -> Done {
        let namespace = self.namespace();
        let all = [&[namespace.as_str(), "--", program], arguments].concat();
        self.machine.run_with("nsenter", &all, input, &VARIABLES)
    }

    /// Puts a file into their root.
    pub fn write(&self, path: &str, text: &str) {
        let path = format!("/proc/{}/root{path}", self.first.id());
        std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn namespace(&self) -> String {
        format!("--mount=/proc/{}/ns/mnt", self.first.id())
    }
}

/// Theirs, not our engine's.
const VARIABLES: [(&str, &str); 5] = [
    ("HOME", "/root"),
    ("TMPDIR", "/tmp"),
    ("DOCKER_HOST", "unix:///run/docker.sock"),
    ("DOCKER_CONFIG", "/run/docker-config"),
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
];

impl Drop for Peers<'_> {
    fn drop(&mut self) {
        // What else is there ends with the machine.
        for child in self.engine.iter_mut().chain([&mut self.first]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
