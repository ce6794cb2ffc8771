//! `cargo xtask fresh`: a newcomer's first minutes, again and again. A minimal Debian root with nothing in it but Rust and
//! what Rust needs, a clone of the committed tree, and both commands of the README.
//!
//! The root lies in the cache's directory and is entered as a container would be: mount, pid and cgroup namespaces of
//! its own. The network is the host's, because the package registries have to be reached.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::failure::{Attempt, Failure};
use crate::leftovers::Snapshot;
use crate::{demo, host, images, packages, steps};

/// Both commands of the README, and the way back from the first.
const COMMANDS: [&str; 3] = ["cargo xtask demo", "cargo xtask demo --down", "cargo xtask test"];
/// The cgroup, in every hierarchy.
const CGROUP: &str = "dozen-fresh";
/// Where the clone lies in the root.
const CLONE: &str = "root/dozen";
/// Where the toolchain appears in it, to be read only.
const TOOLCHAIN: &str = "usr/local/rust";

const ENTER: &str = include_str!("enter.sh");

/// Variables that say how this host reaches the package registries; everything else of the environment stays outside.
const REACH: [&str; 16] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "CARGO_HTTP_TIMEOUT",
    "CARGO_NET_RETRY",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "PIP_INDEX_URL",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_PROXY",
];

/// `cargo xtask fresh [COMMAND…]`.
pub fn verb(commands: &[String]) -> Result<(), Failure> {
    host::need_root("fresh")?;
    packages::ensure("fresh")?;
    let there = demo::traces();
    if !there.is_empty() {
        return Err(Failure::new(format!("a demo is on this host already:\n    {}", there.join("\n    ")))
            .with_hint("cargo xtask demo --down"));
    }
    let begun = Instant::now();
    let place = Place::new()?;
    let outcome = place.furnish().and_then(|()| place.run(commands));
    // Also after a failure: nothing of it stays.
    let removed = place.remove();
    steps::step(format_args!("{} s in all", begun.elapsed().as_secs()));
    outcome.and(removed)
}

/// The root and the cgroups.
struct Place {
    directory: PathBuf,
    cgroups: Vec<PathBuf>,
    _lock: std::fs::File,
}

impl Place {
    /// Takes the one place that there is, and empties it: an interrupted run could not.
    fn new() -> Result<Self, Failure> {
        let directory = host::cache_directory()?.join("fresh");
        std::fs::create_dir_all(&directory).attempting(format_args!("create {}", directory.display()))?;
        let lock = std::fs::File::open(&directory).attempting(format_args!("open {}", directory.display()))?;
        lock.try_lock().map_err(|_| Failure::new("another run of cargo xtask fresh is at work"))?;
        let table = std::fs::read_to_string("/proc/self/mountinfo").attempting("read the mount table")?;
        let cgroups = hierarchies(&table).into_iter().map(|point| point.join(CGROUP)).collect();
        let place = Self { directory, cgroups, _lock: lock };
        place.empty()?;
        Ok(place)
    }

    fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Debian, the clone, and what this host needs to reach the registries.
    fn furnish(&self) -> Result<(), Failure> {
        let names = packages::needed_by("cargo")?;
        let tree = steps::workspace_root();
        steps::step(format_args!("making a minimal Debian root with {}", names.join(", ")));
        let script = self.directory.join("script");
        std::fs::write(&script, include_str!("customize.sh")).attempting("write a script")?;
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).attempting("make a script executable")?;
        let root = self.root();
        images::install(&names.iter().map(String::as_str).collect::<Vec<_>>(), &script, &root)?;

        let revision = steps::capture(git(&tree).args(["log", "-1", "--format=%h %s"]))?;
        steps::step(format_args!("cloning the committed tree: {revision}"));
        let changed = steps::capture(git(&tree).args(["status", "--short", "--untracked-files=no"]))?;
        if !changed.is_empty() {
            eprintln!("    what is not committed is not in it:\n{changed}");
        }
        steps::run(git(&tree).args(["clone", "--quiet", "--no-hardlinks", "."]).arg(root.join(CLONE)))?;

        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        let mut files: Vec<(PathBuf, PathBuf)> = vec![("/etc/pip.conf".into(), root.join("etc/pip.conf"))];
        files.extend(home.map(|home| (home.join("config.toml"), root.join("root/.cargo/config.toml"))));
        // A bundle of certificate authorities that a variable names.
        let named = reach().into_values().map(PathBuf::from).filter(|path| path.is_absolute());
        files.extend(named.map(|path| (path.clone(), root.join(path.strip_prefix("/").unwrap_or(&path)))));
        for (from, to) in files.into_iter().filter(|(from, to)| from.is_file() && !to.exists()) {
            std::fs::create_dir_all(to.parent().unwrap_or(&root)).attempting("make a directory in the root")?;
            std::fs::copy(&from, &to).attempting(format_args!("copy {}", from.display()))?;
        }
        Ok(())
    }

    /// Runs each command, also after one that failed.
    fn run(&self, commands: &[String]) -> Result<(), Failure> {
        let usual = COMMANDS.map(str::to_owned);
        let commands = if commands.is_empty() { &usual[..] } else { commands };
        let toolchain = steps::capture(Command::new("rustc").args(["--print", "sysroot"]))?;
        let mut enter = Command::new("sh");
        enter.args(["-eu", "-c", ENTER, "sh"]).arg(self.root()).args([&toolchain, TOOLCHAIN]).args(commands);
        enter.env_clear().envs(reach());
        for name in ["PATH", "TERM"] {
            enter.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        enter.env("CGROUPS", self.cgroups.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" "));
        steps::run_here(&mut enter)
            .map_err(|_| Failure::new("what a newcomer does first does not work: the messages are above"))
    }

    /// The kernel has ended all processes and mounts with the namespaces.
    fn remove(&self) -> Result<(), Failure> {
        self.empty()?;
        std::fs::remove_dir(&self.directory).attempting(format_args!("remove {}", self.directory.display()))?;
        let host = Snapshot::take();
        let mut left: Vec<&str> = host.lines().filter(|line| line.contains(CGROUP)).collect();
        let demo = demo::traces();
        left.extend(demo.iter().map(String::as_str));
        if left.is_empty() {
            steps::step("nothing is left of the fresh root on this host");
            return Ok(());
        }
        Err(Failure::new(format!("the fresh root left behind:\n    {}", left.join("\n    "))))
    }

    fn empty(&self) -> Result<(), Failure> {
        for path in &self.cgroups {
            if path.exists() {
                host::remove_cgroup(path).attempting(format_args!("remove cgroup {}", path.display()))?;
            }
        }
        for entry in std::fs::read_dir(&self.directory).attempting("read the cache")?.flatten() {
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_directory { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.attempting(format_args!("remove {}", path.display()))?;
        }
        Ok(())
    }
}

fn git(tree: &Path) -> Command {
    let mut command = Command::new("git");
    // The tree may belong to the user who has become root.
    command.current_dir(tree).args(["-c", "safe.directory=*"]);
    command
}

fn reach() -> BTreeMap<&'static str, String> {
    REACH.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?))).collect()
}

/// Where the cgroup hierarchies are mounted (proc(5), "mountinfo").
fn hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    let point = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let is_cgroup = ["cgroup ", "cgroup2 "].iter().any(|kind| file_system.starts_with(kind));
        mount.split(' ').nth(4).filter(|_| is_cgroup).map(PathBuf::from)
    };
    mountinfo.lines().filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_the_mount_table() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                     35 31 0:32 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory\n\
                     41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(hierarchies(table), ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"].map(PathBuf::from));
    }

    #[test]
    fn the_readme_gives_the_commands_that_are_tried() {
        let readme = std::fs::read_to_string(steps::workspace_root().join("README.md")).unwrap();
        for command in COMMANDS {
            assert!(readme.contains(command), "{command}");
        }
        for package in packages::needed_by("cargo").unwrap() {
            assert!(readme.contains(&package), "README.md does not say that Rust needs {package}");
        }
    }
}
