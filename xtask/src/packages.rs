//! The declared Debian packages (`packages.txt`), compared with the machine.

use std::collections::BTreeSet;
use std::process::Command;

use crate::failure::{Attempt, Failure};
use crate::{host, steps};

/// A line of the list.
#[derive(Debug, PartialEq, Eq)]
struct Declared {
    name: String,
    reason: String,
    verbs: Vec<String>,
}

/// Makes sure that what `verb` needs is there: installs it as root on Debian, else says what to install.
pub fn ensure(verb: &str) -> Result<(), Failure> {
    let wanted = needed_by(verb)?;
    let missing = missing(&wanted.iter().map(String::as_str).collect::<Vec<_>>())?;
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// What the list says that `verb` needs.
pub fn needed_by(verb: &str) -> Result<Vec<String>, Failure> {
    let named = |declared: &Declared| declared.verbs.iter().any(|v| v == verb);
    Ok(read()?.into_iter().filter(named).map(|declared| declared.name).collect())
}

/// `cargo xtask packages`.
pub fn verb(install_them: bool) -> Result<(), Failure> {
    let declared = read()?;
    let names: Vec<&str> = declared.iter().map(|d| d.name.as_str()).collect();
    let missing = missing(&names)?;
    for package in &declared {
        let state = if missing.contains(&package.name) { "missing" } else { "present" };
        println!("{state}  {:<18} {} ({})", package.name, package.reason, package.verbs.join(", "));
    }
    match (missing.is_empty(), install_them) {
        (true, _) => Ok(()),
        (false, true) => install(&missing),
        (false, false) => Err(cannot_install("they are declared in packages.txt and not on this machine", &missing)
            .with_hint("cargo xtask packages --install")),
    }
}

/// Reads and checks the list: what [`verb`] and the checks share.
pub fn lint() -> Result<(), Failure> {
    read().map(|_| ())
}

fn read() -> Result<Vec<Declared>, Failure> {
    let path = steps::workspace_root().join("packages.txt");
    let text = std::fs::read_to_string(&path).attempting(format_args!("read {}", path.display()))?;
    parse(&text).map_err(|why| Failure::new(format!("{}: {why}", path.display())))
}

fn parse(text: &str) -> Result<Vec<Declared>, String> {
    let mut verbs: Vec<String> = Vec::new();
    let mut declared: Vec<Declared> = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(group) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            verbs = group.split_whitespace().map(str::to_owned).collect();
            continue;
        }
        let (name, reason) = line.split_once("  ").ok_or(format!("line {number}: '{line}' gives no reason"))?;
        if verbs.is_empty() {
            return Err(format!("line {number}: '{name}' stands in no group of verbs"));
        }
        if declared.iter().any(|other| other.name == name) {
            return Err(format!("line {number}: '{name}' is declared twice"));
        }
        declared.push(Declared { name: name.to_owned(), reason: reason.trim().to_owned(), verbs: verbs.clone() });
    }
    Ok(declared)
}

fn missing(wanted: &[&str]) -> Result<Vec<String>, Failure> {
    if steps::on_path("dpkg-query").is_none() {
        return Err(cannot_install("this machine is not Debian, so they cannot be looked up", wanted));
    }
    // dpkg-query fails as soon as one name is unknown to it; what it says of the others still counts.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .attempting("run dpkg-query")?;
    let installed = installed(&String::from_utf8_lossy(&output.stdout));
    Ok(wanted.iter().filter(|name| !installed.contains(**name)).map(|name| (*name).to_owned()).collect())
}

fn installed(answer: &str) -> BTreeSet<String> {
    answer.lines().filter_map(|line| line.strip_suffix(" installed")).map(str::to_owned).collect()
}

fn install(missing: &[String]) -> Result<(), Failure> {
    if !host::is_root() {
        return Err(cannot_install("only root may install them", missing));
    }
    steps::step(format_args!("installing Debian packages: {}", missing.join(" ")));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=300"]);
        command
    };
    let mut attempt = apt();
    attempt.args(["install", "--yes", "--no-install-recommends"]).args(missing);
    // Mostly the machine's own lists will do; a fresh machine has none, and old ones name files that are gone.
    if steps::capture(&mut attempt).is_ok() {
        return Ok(());
    }
    steps::run(apt().arg("update"))?;
    steps::run(apt().args(["install", "--yes", "--no-install-recommends"]).args(missing))
}

fn cannot_install(why: &str, names: &[impl AsRef<str>]) -> Failure {
    let names = names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(" ");
    Failure::new(format!("Debian packages are needed, and {why}: {names}"))
        .with_hint(format!("as root: apt-get install --no-install-recommends {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_groups_names_and_reasons() {
        let parsed = parse("# c\n[demo test]\ngcc   links\n\n[vm]\nqemu  a machine\n").unwrap();
        assert_eq!(parsed[0].verbs, ["demo", "test"]);
        assert_eq!((parsed[1].name.as_str(), parsed[1].reason.as_str()), ("qemu", "a machine"));
    }

    #[test]
    fn what_a_reader_would_trip_over_is_refused() {
        for (text, expected) in [
            ("gcc  links", "line 1: 'gcc' stands in no group of verbs"),
            ("[a]\ngcc", "line 2: 'gcc' gives no reason"),
            ("[a]\ngcc  x\n[b]\ngcc  y", "line 4: 'gcc' is declared twice"),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn only_installed_counts() {
        let answer = "gcc installed\nmmdebstrap config-files\nrunc not-installed\n";
        assert_eq!(installed(answer), BTreeSet::from(["gcc".to_owned()]));
    }

    #[test]
    fn our_own_list_is_sound() {
        assert!(read().unwrap().len() > 5);
    }
}
