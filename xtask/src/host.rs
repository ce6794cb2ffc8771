//! Facts about the machine, and the one directory outside the tree that we write to.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Attempt, Failure};
use crate::steps;

/// Whether we are root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Fails unless we are root.
pub fn need_root(verb: &str) -> Result<(), Failure> {
    if is_root() {
        return Ok(());
    }
    Err(Failure::new(format!("cargo xtask {verb} has to be root: it makes namespaces, mounts and networks"))
        .with_hint(format!("run it as root, for example: sudo env PATH=\"$PATH\" cargo xtask {verb}")))
}

/// Where things are kept from one run to the next: `$DOZEN_CACHE`, else `$XDG_CACHE_HOME/dozen`, else
/// `/var/cache/dozen` for root and `~/.cache/dozen` for everyone else. Never in the work tree.
pub fn cache_directory() -> Result<PathBuf, Failure> {
    let directory = cache_choice(&|name| std::env::var(name).ok(), is_root())
        .ok_or_else(|| Failure::new("no place for the cache").with_hint("set DOZEN_CACHE or HOME"))?;
    std::fs::create_dir_all(&directory).attempting(format_args!("create {}", directory.display()))?;
    Ok(directory)
}

fn cache_choice(environment: &dyn Fn(&str) -> Option<String>, root: bool) -> Option<PathBuf> {
    let path = |name| environment(name).filter(|value| value.starts_with('/')).map(PathBuf::from);
    path("DOZEN_CACHE")
        .or_else(|| path("XDG_CACHE_HOME").map(|home| home.join("dozen")))
        .or_else(|| root.then(|| "/var/cache/dozen".into()))
        .or_else(|| path("HOME").map(|home| home.join(".cache/dozen")))
}

/// Debian's name of this processor: `amd64`.
pub fn debian_architecture() -> Result<String, Failure> {
    steps::capture(Command::new("dpkg").arg("--print-architecture"))
}

/// Debian's name of an architecture as OCI spells it (and its variant, unused for ours): image-spec config.md takes
/// Go's GOARCH.
pub fn oci_architecture(debian: &str) -> &str {
    match debian {
        "armhf" | "armel" => "arm",
        "i386" => "386",
        "ppc64el" => "ppc64le",
        other => other,
    }
}

/// Removes a cgroup and those below it. Empty ones only: the kernel refuses one with a process in it.
pub fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    std::fs::remove_dir(path)
}

/// Removes the roots of older recipes from a cache's directory, and those whose making was cut short.
pub fn forget_roots(directory: &Path) -> Result<(), Failure> {
    let entries = std::fs::read_dir(directory).attempting(format_args!("read {}", directory.display()))?;
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        std::fs::remove_dir_all(&path).attempting(format_args!("remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_lies_where_the_environment_says() {
        let check = |variables: &[(&str, &str)], root: bool, expected: Option<&str>| {
            let environment = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
            assert_eq!(cache_choice(&environment, root), expected.map(PathBuf::from), "{variables:?}");
        };
        check(&[("DOZEN_CACHE", "/c"), ("XDG_CACHE_HOME", "/x")], true, Some("/c"));
        check(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/root")], true, Some("/x/dozen"));
        check(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/root")], true, Some("/var/cache/dozen"));
        check(&[("HOME", "/home/a")], false, Some("/home/a/.cache/dozen"));
        check(&[], false, None);
    }
}
