//! `cargo xtask golden`: what docker 20.10 and 26.1, as Debian packages them, answer to the row of requests that the
//! test `golden` plays on dozen. The shapes are small and part of the tree; they are recorded anew when the row changes.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use crate::failure::{Attempt, Failure};
use crate::judges::cell::Place;
use crate::{host, images, packages, steps};

/// Debian's release, the version of the API that its docker speaks, and how its recording is called.
const PEERS: [(&str, &str, &str); 2] = [("bookworm", "1.41", "docker-20.10"), ("trixie", "1.45", "docker-26.1")];
const PACKAGES: [&str; 5] = ["docker.io", "containerd", "runc", "iptables", "ca-certificates"];
/// Nobody but the recorder is to see it: `/tmp` of the cell is a directory on the host's disk.
const SOCKET: &str = "docker.sock";
/// It ends when its standard input does, which is when we do.
const DAEMON: &str = "containerd >/tmp/containerd.log 2>&1 &
while [ ! -S /run/containerd/containerd.sock ]; do sleep 0.05; done
dockerd --host unix:///tmp/docker.sock --containerd /run/containerd/containerd.sock \
    --exec-opt native.cgroupdriver=cgroupfs --storage-driver overlay2 >/tmp/dockerd.log 2>&1 &
read -r end || true";
/// The cell's cgroup, in every hierarchy.
const CGROUP: &str = "dozen-golden";
/// dockerd makes its bridge and its rules first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Records both.
pub fn verb() -> Result<(), Failure> {
    host::need_root("golden")?;
    packages::ensure("test")?;
    images::ensure(&["busybox"], false)?;
    for (suite, api, name) in PEERS {
        let place = Place::of("golden", CGROUP, root(suite)?, PathBuf::new())?;
        let file = steps::workspace_root().join(format!("crates/testbox/tests/golden/{name}.json"));
        steps::step(format_args!("recording {name} in {}", file.display()));
        let mut daemon = place.start(DAEMON)?;
        let recorded = record(place.tmp(), api, &file, &mut daemon);
        drop(daemon.stdin.take());
        daemon.wait().attempting("wait for the cell")?;
        place.empty()?;
        recorded?;
    }
    Ok(())
}

fn record(tmp: PathBuf, api: &str, file: &Path, daemon: &mut Child) -> Result<(), Failure> {
    let socket = tmp.join(SOCKET);
    let deadline = Instant::now() + PATIENCE;
    while UnixStream::connect(&socket).is_err() {
        let ended = daemon.try_wait().attempting("look after dockerd")?;
        if ended.is_some() || Instant::now() > deadline {
            let log = std::fs::read_to_string(tmp.join("dockerd.log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(10).collect();
            return Err(Failure::new(format!("dockerd does not answer; last of its log first:\n{}", last.join("\n"))));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // The test compiles without a recording, too.
    if !file.exists() {
        std::fs::write(file, "{}\n").attempting(format_args!("write {}", file.display()))?;
    }
    let mut test = steps::cargo();
    test.args(["test", "--quiet", "--package", "dozen-testbox", "--test", "golden", "answers_at"]);
    test.env("DOZEN_GOLDEN_SOCKET", socket).env("DOZEN_GOLDEN_API", api).env("DOZEN_GOLDEN_FILE", file);
    steps::run(test.env("DOZEN_TEST_IMAGES", images::directory()?))
}

/// A root with that release's docker, made where the cache has none.
fn root(suite: &str) -> Result<PathBuf, Failure> {
    let directory = host::cache_directory()?.join("golden");
    let root = directory.join(suite);
    if root.is_dir() {
        return Ok(root);
    }
    steps::step(format_args!("making a root with docker from Debian's packages ({suite}) in {}", root.display()));
    std::fs::create_dir_all(&directory).attempting(format_args!("create {}", directory.display()))?;
    let new = directory.join(format!("{suite}.new"));
    if new.exists() {
        std::fs::remove_dir_all(&new).attempting(format_args!("remove {}", new.display()))?;
    }
    images::install_other(suite, &PACKAGES, Path::new("/bin/true"), &new)?;
    // Where a cell shows what the host gives it.
    std::fs::create_dir_all(new.join("cell")).attempting("make a mount point")?;
    std::fs::rename(&new, &root).attempting(format_args!("rename {}", new.display()))?;
    Ok(root)
}
