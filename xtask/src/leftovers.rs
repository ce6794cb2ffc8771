//! What a run could leave on the host, seen before and after it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;
use crate::{processes, steps};

/// Everything of the host that an engine touches, a line per thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    lines: BTreeSet<String>,
}

impl Snapshot {
    /// Looks.
    pub fn take() -> Self {
        let mut lines = BTreeSet::new();
        lines.extend(mounts().into_iter().map(|point| format!("mount {point}")));
        lines.extend(names_in("/sys/class/net").into_iter().map(|name| format!("interface {name}")));
        lines.extend(names_in("/run/netns").into_iter().map(|name| format!("network namespace /run/netns/{name}")));
        lines.extend(tables().into_iter().map(|table| format!("nftables table {table}")));
        lines.extend(cgroups().into_iter().map(|path| format!("cgroup {path}")));
        lines.extend(processes::of_dozen().into_iter().map(|(pid, line)| format!("process {pid} ({line})")));
        for root in ["/run", "/var/lib", "/tmp", "/var/tmp"] {
            let ours = names_in(root).into_iter().filter(|name| name.starts_with("dozen"));
            lines.extend(ours.map(|name| format!("path {root}/{name}")));
        }
        Self { lines }
    }

    /// What is there now and was not there before.
    pub fn new_since(&self, before: &Self) -> Vec<String> {
        self.lines.difference(&before.lines).cloned().collect()
    }

    /// Its lines: a kind, then a name.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

/// Fails when anything is there that was not there before.
pub fn compare(before: &Snapshot, what: &str) -> Result<(), Failure> {
    let left = Snapshot::take().new_since(before);
    if left.is_empty() {
        steps::step(format_args!("nothing is left of {what}: no mount, interface, table, cgroup, process, directory"));
        return Ok(());
    }
    Err(Failure::new(format!("{what} left behind:\n    {}", left.join("\n    "))))
}

fn names_in(directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn mounts() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
}

fn tables() -> Vec<String> {
    let Ok(answer) = steps::capture(Command::new("nft").args(["list", "tables"])) else { return Vec::new() };
    answer.lines().filter_map(|line| line.strip_prefix("table ")).map(str::to_owned).collect()
}

/// The directories near the top of every hierarchy that bear our name; what lies in them goes with them.
fn cgroups() -> Vec<String> {
    let mut found = Vec::new();
    visit(Path::new("/sys/fs/cgroup"), 4, &mut found);
    found
}

fn visit(directory: &Path, depth: usize, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with("dozen") {
            found.push(entry.path().display().to_string());
        } else if depth > 1 {
            visit(&entry.path(), depth - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_counts() {
        let of = |lines: &[&str]| Snapshot { lines: lines.iter().map(|line| (*line).to_owned()).collect() };
        assert_eq!(
            of(&["interface dozen0", "mount /"]).new_since(&of(&["mount /", "interface lo"])),
            ["interface dozen0"]
        );
    }

    #[test]
    fn this_machine_has_something_to_see() {
        let seen: Vec<String> = Snapshot::take().lines().map(str::to_owned).collect();
        for line in ["mount /", "interface lo"] {
            assert!(seen.iter().any(|seen| seen == line), "{seen:?}");
        }
    }
}
