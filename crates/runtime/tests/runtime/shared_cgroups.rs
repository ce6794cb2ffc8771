//! A cgroup's name that others have, too: nobody ends with a container who has not begun with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::bundle::{Bundle, failure, stdout};
use crate::oracle::without_version_2;
use dozen_runtime::Cgroup;
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
    let mut stranger = Stranger::new();
    for hierarchy in hierarchies() {
        stranger.enter(&hierarchy.join(&name));
        let run = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]).output().unwrap();
        assert!(failure(&run).contains("container's cgroup is not empty"), "{}", hierarchy.display());
        stranger.check_it_lives();
        assert!(cgroup.pids().unwrap().contains(&(stranger.0.id() as i32)));
        stranger.enter(&hierarchy);
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
    let run = |arguments: &[&str]| {
        let command = bundle.command(arguments);
        let words = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_owned());
        let mut words = without_version_2().into_iter().map(Into::into).chain(words);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).stdin(Stdio::null());
        command
    };
    let create = run(&["run", "--detach", "--bundle", bundle.path(), &bundle.id]).stdout(Stdio::null()).status();
    assert!(create.unwrap().success());
    let mut stranger = Stranger::new();
    let hierarchies = hierarchies();
    stranger.enter(&hierarchies.iter().rfind(|place| place.join(&bundle.id).exists()).unwrap().join(&bundle.id));
    stdout(&run(&["kill", "--all", &bundle.id, "KILL"]).output().unwrap());
    // It was in the container's cgroup: it is the container's.
    assert!(!stranger.0.wait().unwrap().success());
    stdout(&run(&["delete", "--force", &bundle.id]).output().unwrap());
    bundle.check_nothing_is_left();
}
