//! A bundle with a root of busybox's, and the runtimes that run it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

pub const PROBE: &str = env!("CARGO_BIN_EXE_dozen-runtime-probe");
const APPLETS: &[&str] = &[
    "cat", "chroot", "cut", "dd", "env", "false", "grep", "hostname", "id", "kill", "ls", "mkdir", "mknod", "mount",
    "ps", "pwd", "readlink", "sh", "sleep", "sort", "stat", "stty", "tail", "touch", "true", "tty", "ulimit", "umount",
    "unshare", "wc",
];

pub struct Bundle {
    pub directory: tempfile::TempDir,
    pub spec: Value,
    pub id: String,
}

/// What Docker runs where nothing else is asked for.
fn docker_spec() -> Value {
    use dozen_model::{CapabilityChange, SeccompChoice};
    use dozen_runtime::default_spec::{DefaultSpec, docker};
    let spec = docker(&DefaultSpec {
        privileged: false,
        capabilities: &CapabilityChange::default(),
        seccomp: &SeccompChoice::Default,
        unmasked_system_paths: false,
        host_network: false,
        shm_size_bytes: 64 << 20,
    });
    let mut spec = serde_json::to_value(spec.unwrap()).unwrap();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    spec["process"]["env"] = json!([path, "TERM=xterm"]);
    spec["hostname"] = json!("dozen");
    spec
}

/// A program's copy, which may be executed at once: this process never has it open for writing, and so no child that
/// another test starts at this moment has, which would keep it busy until its own execve (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").args([from, to]).status().unwrap();
    assert!(status.success(), "cannot copy {}", from.display());
}

impl Bundle {
    /// Docker's defaults, and a shell command.
    pub fn new(command: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("rootfs");
        for name in ["bin", "etc", "tmp"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        copy_program(Path::new("/bin/busybox"), &root.join("bin/busybox"));
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/false\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\nadm:x:4:web\n").unwrap();
        let mut spec = docker_spec();
        spec["process"]["args"] = json!(["sh", "-c", command]);
        let id = format!("dozen-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { directory, spec, id }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    pub fn write(&self) {
        fs::write(self.directory.path().join("config.json"), self.spec.to_string()).unwrap();
    }

    /// `PROBE runtime --root … ARGUMENTS`
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROBE);
        command.arg("runtime").arg("--root").arg(self.directory.path().join("state")).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// `run`, to its end.
    pub fn run(&self) -> Output {
        self.write();
        let output = self.command(&["run", "--bundle", self.path(), &self.id]).output().unwrap();
        self.check_nothing_is_left();
        output
    }

    /// `run` of another runtime. Its standard input is a file that ends at once, and not the null device: crun gives the
    /// host's own to the container's user.
    pub fn run_with(&self, runtime: &[String]) -> Output {
        self.write();
        let state = self.directory.path().join("other");
        let mut command = Command::new(&runtime[0]);
        command.args(&runtime[1..]).arg("--root").arg(state).args(["run", "--bundle", self.path(), &self.id]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdin.take());
        child.wait_with_output().unwrap()
    }

    /// By the library's own calls; `life` beside id, spec and root.
    pub fn live(&self, life: Value) -> Output {
        let mut whole = json!({"id": self.id, "spec": self.spec, "root": {"Directory": self.root()}});
        for (key, value) in life.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let file = self.directory.path().join("life.json");
        fs::write(&file, whole.to_string()).unwrap();
        let output = Command::new(PROBE).arg("library").arg(&file).stdin(Stdio::null()).output().unwrap();
        self.check_nothing_is_left();
        output
    }

    pub fn path(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    /// No cgroup, no mount, no process.
    pub fn check_nothing_is_left(&self) {
        assert_eq!(cgroups(Path::new("/sys/fs/cgroup"), &self.id, 3), Vec::<PathBuf>::new());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.path()), "{mounts}");
        assert!(!self.directory.path().join("state").join(&self.id).exists());
    }
}

fn cgroups(directory: &Path, name: &str, depth: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name() == name {
                found.push(entry.path());
            } else if depth > 0 {
                found.extend(cgroups(&entry.path(), name, depth - 1));
            }
        }
    }
    found
}

/// Standard output of a run that must succeed.
#[track_caller]
pub fn stdout(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error of a run that must fail.
#[track_caller]
pub fn failure(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}
