//! What has led out of containers elsewhere, tried here: hostile images, hostile neighbours, hostile bundles.
//!
//! Each test says which code it guards; without that code it fails.
//!
//! | CVE | the attack | tried in |
//! |---|---|---|
//! | 2019-5736 | the runtime's own program, found at /proc/PID/exe, is written to | `own_binary` |
//! | 2019-19921, 2023-28642 | /proc is a link, or swapped: masks and labels miss it | `images`, `procfs`, `mount_points` |
//! | 2021-30465 | a mount's place is swapped for a link out of the root | `mount_points` |
//! | 2022-0492 | release_agent of a hierarchy is written to | `cgroups` |
//! | 2024-21626 | a directory of the host's is open, and entered | `descriptors` |
//! | 2024-45310 | what a mount lies on is made outside, by a swapped directory | `mount_points` |
//! | 2025-31133 | /dev/null, which masks files, is something else | `devices` |
//! | 2025-52565 | /dev/console is a link: the terminal lies over another file | `devices` |
//! | 2025-52881 | what is written to /proc goes elsewhere in it | `procfs` |
//! | 2026-41579 | /dev is a link: nodes are made and removed outside | `images` |

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bundle::{Bundle, PROBE, copy_program, failure, stdout};
use serde_json::{Value, json};

mod bundles;
mod cgroups;
mod descriptors;
mod devices;
mod images;
mod mount_points;
mod own_binary;
mod processes;
mod procfs;

/// Capabilities and system calls of a container that is trusted with much, though not with the host.
fn powerful(spec: &mut Value) {
    for set in ["bounding", "effective", "permitted"] {
        let held = spec["process"]["capabilities"][set].as_array_mut().unwrap();
        held.extend(["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"].map(Value::from));
    }
    spec["linux"]["seccomp"] = Value::Null;
}

fn bind(source: impl AsRef<Path>, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source.as_ref(), "options": ["rbind", "rw"]})
}

fn push_mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

/// A neighbour who does the same over and over, as fast as he can, until this is dropped.
struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Neighbour {
    fn who(mut acts: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let work = move || {
            while !stopped.load(Ordering::Relaxed) {
                acts();
            }
        };
        Self { stop, thread: Some(std::thread::spawn(work)) }
    }

    /// Swaps two names.
    fn who_swaps(one: PathBuf, other: PathBuf) -> Self {
        Self::who(move || {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let _ = rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &other, flags);
        })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

/// A container that runs beside the test, and not longer.
struct Running<'a> {
    bundle: &'a Bundle,
    log: PathBuf,
    pid_file: PathBuf,
}

impl<'a> Running<'a> {
    fn new(bundle: &'a Bundle) -> Self {
        Self::start(bundle, |command| command)
    }

    /// `change`: to the command that starts it.
    fn start(bundle: &'a Bundle, change: impl FnOnce(std::process::Command) -> std::process::Command) -> Self {
        bundle.write();
        let at = |name: &str| bundle.directory.path().join(name);
        let running = Self { bundle, log: at("log"), pid_file: at("pid") };
        let pid_file = running.pid_file.to_str().unwrap();
        let run = ["run", "--detach", "--bundle", bundle.path(), "--pid-file", pid_file, &bundle.id];
        let mut command = change(bundle.command(&run));
        let log = fs::File::create(&running.log).unwrap();
        let started = command.stdin(Stdio::null()).stdout(log).stderr(Stdio::inherit()).status();
        assert!(started.unwrap().success());
        running
    }

    /// What it has said.
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Once it has said anything.
    fn first_words(&self) -> String {
        while !self.log().ends_with('\n') {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.log()
    }

    fn pid(&self) -> String {
        fs::read_to_string(&self.pid_file).unwrap()
    }

    fn exec(&self, arguments: &[&str]) -> std::process::Command {
        self.bundle.command(&[&["exec"], arguments].concat())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let done = self.bundle.command(&["delete", "--force", &self.bundle.id]).output();
        if !std::thread::panicking() {
            stdout(&done.unwrap());
            self.bundle.check_nothing_is_left();
        }
    }
}
