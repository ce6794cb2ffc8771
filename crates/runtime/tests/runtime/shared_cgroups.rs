//! A cgroup's name that others have, too: nobody ends with a container who has not begun with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::bundle::{Bundle, failure, stdout};
use crate::oracle::without_version_2;
use dozen_runtime::Cgroup;
use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::json;

/// A process of nobody's container.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap())
    }

    fn enter(&self, cgroup: &Path) {
        let file = cgroup.join("cgroup.procs");
        fs::write(&file, self.0.id().to_string()).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    fn check_it_lives(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "a stranger has been killed");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command of the runtime's, executed by something.
fn within(bundle: &Bundle, surroundings: &[String], arguments: &[&str]) -> Command {
    let command = bundle.command(arguments);
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_owned());
    let mut words = surroundings.iter().map(Into::into).chain(words);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).stdin(Stdio::null());
    command
}

/// Where the machine's hierarchies are mounted.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|fields| fields[2].starts_with("cgroup")).map(|fields| PathBuf::from(fields[1])).collect()
}

#[test]
fn a_cgroup_in_which_somebody_is_in_one_hierarchy_is_refused() {
    let bundle = Bundle::new("true");
    let name = format!("{}-taken", bundle.id);
    let bundle = bundle.with(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{name}")));
    bundle.write();
    let cgroup = Cgroup::create(&name).unwrap();
    for hierarchy in hierarchies() {
        let mut stranger = Stranger::new();
        stranger.enter(&hierarchy.join(&name));
        let run = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]).output().unwrap();
        assert!(failure(&run).contains("container's cgroup is not empty"), "{}", hierarchy.display());
        stranger.check_it_lives();
        assert!(cgroup.pids().unwrap().contains(&(stranger.0.id() as i32)));
    }
    cgroup.delete().unwrap();
    bundle.check_nothing_is_left();
}

/// Without cgroup.kill the list of whom to kill is our own.
#[test]
fn who_is_in_one_hierarchy_only_is_killed() {
    let bundle = Bundle::new("exec sleep 1000").with(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    bundle.write();
    let surroundings = without_version_2();
    let run = |arguments: &[&str]| within(&bundle, &surroundings, arguments);
    detached(&bundle, &surroundings, &bundle.id);
    let mut stranger = Stranger::new();
    let hierarchies = hierarchies();
    stranger.enter(&hierarchies.iter().rfind(|place| place.join(&bundle.id).exists()).unwrap().join(&bundle.id));
    stdout(&run(&["kill", "--all", &bundle.id, "KILL"]).output().unwrap());
    // It was in the container's cgroup: it is the container's.
    assert!(!stranger.0.wait().unwrap().success());
    stdout(&run(&["delete", "--force", &bundle.id]).output().unwrap());
    bundle.check_nothing_is_left();
}

/// Creates it and starts it; nothing of it holds a pipe of ours.
fn detached(bundle: &Bundle, surroundings: &[String], id: &str) {
    bundle.write();
    let run = within(bundle, surroundings, &["run", "--detach", "--bundle", bundle.path(), id])
        .stdout(Stdio::null())
        .status();
    assert!(run.unwrap().success());
}

/// Two containers of one name of a cgroup, of which the first has ended: nothing that is said of it meets the second.
fn second_is_left_alone(surroundings: &[String], is_same_root: bool) {
    let first = Bundle::new("exec sleep 1000");
    let path = json!(format!("/{}-shared", first.id));
    let first = first.with(|spec| spec["linux"]["cgroupsPath"] = path.clone());
    let other = Bundle::new("exec sleep 1000").with(|spec| spec["linux"]["cgroupsPath"] = path.clone());
    let run = |bundle: &Bundle, arguments: &[&str]| within(bundle, surroundings, arguments).output().unwrap();
    detached(&first, surroundings, &first.id);
    let (second, id) = match is_same_root {
        true => (&first, format!("{}-second", first.id)),
        false => (&other, other.id.clone()),
    };
    second.write();
    let early = run(second, &["run", "--detach", "--bundle", second.path(), &id]);
    assert!(failure(&early).contains("is in use"));
    // What it has made below stays, empty.
    let below = hierarchies().into_iter().map(|place| place.join(path.as_str().unwrap().trim_start_matches('/')));
    below.filter(|place| place.exists()).for_each(|place| fs::create_dir_all(place.join("below/it")).unwrap());
    let state = |bundle: &Bundle, id: &str| -> serde_json::Value {
        serde_json::from_str(&stdout(&run(bundle, &["state", id]))).unwrap()
    };
    let process = |bundle: &Bundle, id: &str| {
        let pid = rustix::process::Pid::from_raw(state(bundle, id)["pid"].as_i64().unwrap() as i32).unwrap();
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
    };
    let ends = process(&first, &first.id);
    stdout(&run(&first, &["kill", &first.id, "KILL"]));
    rustix::event::poll(&mut [PollFd::new(&ends, PollFlags::IN)], None).unwrap();
    detached(second, surroundings, &id);
    let lives = process(second, &id);
    stdout(&run(&first, &["kill", "--all", &first.id, "KILL"]));
    assert_eq!(stdout(&run(&first, &["ps", "--format", "json", &first.id])), "[]\n");
    stdout(&run(&first, &["delete", &first.id]));
    // Who is killed has ended when its cgroup is gone; who is not, never.
    assert_eq!(state(second, &id)["status"], "running");
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut [PollFd::new(&lives, PollFlags::IN)], Some(&now)), Ok(0));
    assert!(stdout(&run(second, &["ps", "--format", "json", &id])).len() > 3);
    stdout(&run(second, &["delete", "--force", &id]));
    for left in hierarchies() {
        assert!(!left.join(path.as_str().unwrap().trim_start_matches('/')).exists(), "{}", left.display());
    }
    first.check_nothing_is_left();
    other.check_nothing_is_left();
}

#[test]
fn who_has_a_cgroup_next_is_left_alone() {
    second_is_left_alone(&[], true);
    second_is_left_alone(&[], false);
}

#[test]
fn who_has_a_cgroup_next_is_left_alone_without_version_2() {
    second_is_left_alone(&without_version_2(), true);
    second_is_left_alone(&without_version_2(), false);
}

/// Its directories are empty, and yet they are not for anybody else: it may be about to enter them.
#[test]
fn the_cgroup_of_a_container_that_is_being_created_is_taken() {
    let bundle = Bundle::new("true");
    let path = json!(format!("/{}-shared", bundle.id));
    let bundle = bundle.with(|spec| spec["linux"]["cgroupsPath"] = path);
    bundle.write();
    let failpoints = bundle.directory.path().join("failpoints");
    fs::create_dir(&failpoints).unwrap();
    for armed in ["create.cgroup", "command.create.cgroup"] {
        fs::write(failpoints.join(format!("runtime.{armed}")), "").unwrap();
        let mut create = bundle.command(&["create", "--bundle", bundle.path(), &bundle.id]);
        assert!(!create.env("DOZEN_FAILPOINTS", &failpoints).stdout(Stdio::null()).status().unwrap().success());
        let second = format!("{}-second", bundle.id);
        let run = || bundle.command(&["run", "--bundle", bundle.path(), &second]).output().unwrap();
        assert!(failure(&run()).contains(&format!("is in use: by container {}", bundle.id)));
        stdout(&bundle.command(&["delete", "--force", &bundle.id]).output().unwrap());
        stdout(&run());
        bundle.check_nothing_is_left();
    }
}

/// Not even by a creation that fails.
#[test]
fn who_a_hook_has_left_goes_when_the_creation_fails() {
    for surroundings in [Vec::new(), without_version_2()] {
        let bundle = Bundle::new("true").with(|spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
            let shell =
                |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]});
            let daemon = "setsid sleep 1000 </dev/null >/dev/null 2>&1 &";
            spec["hooks"]["createContainer"] = json!([shell(daemon), shell("exit 3")]);
        });
        bundle.write();
        let create =
            within(&bundle, &surroundings, &["create", "--bundle", bundle.path(), &bundle.id]).output().unwrap();
        assert!(failure(&create).contains("createContainer"));
        bundle.check_nothing_is_left();
    }
}
