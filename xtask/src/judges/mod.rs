//! `cargo xtask judges`: other people's suites judge the runtime. Those of crun and runc run twice, with their own runtime
//! and with `dozen runtime`; what passes with theirs has to pass with ours, but for what docs/compatibility.md excepts,
//! with reasons. podman, docker and containerd run containers by it, and all of that has to work. BuildKit and buildah build
//! what `dozen build` builds, and the images have to be the same.
//!
//! ```text
//! root.rs     a Debian root with the runtimes, the engines, the sources of the suites and their helpers, cached
//! cell.rs     a suite in namespaces and cgroups of its own over that root, which stays as it is
//! tap.rs      what a suite says
//! verdict.rs  theirs beside ours, and the exceptions
//! builds/     a corpus of Dockerfiles, and the images that come of them
//! ```

mod builds;
pub mod cell;
mod root;
mod tap;
mod verdict;

use clap::ValueEnum;

use crate::failure::Failure;
use crate::leftovers::Snapshot;
use crate::{host, packages, steps};
use cell::{Place, Suite};
use tap::Outcome;

/// `cargo xtask judges`.
#[derive(clap::Args)]
pub struct Options {
    /// Which judge; without one, all.
    #[arg(value_enum)]
    judge: Option<Judge>,
    /// Only tests and cases whose name contains this; of runc's suite, a file's name (`exec.bats`) means all in it.
    filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Judge {
    /// crun's suite.
    Crun,
    /// runc's suite.
    Runc,
    /// podman, docker, containerd.
    Engines,
    /// BuildKit, buildah: the images that come of Dockerfiles.
    Builds,
}

/// Where `dozen runtime` is in a cell: by this name it needs no further word.
const OURS: &str = "/cell/dozen-runtime";

/// Judges.
pub fn verb(options: &Options) -> Result<(), Failure> {
    host::need_root("judges")?;
    packages::ensure("judges")?;
    let dozen = steps::build_dozen()?;
    let place = Place::new(root::root()?, dozen)?;
    let judges = match options.judge {
        Some(judge) => vec![judge],
        None => Judge::value_variants().to_vec(),
    };
    let filter = options.filter.as_deref();
    let mut worse = Vec::new();
    for judge in judges {
        worse.extend(match judge {
            Judge::Crun => compare(&place, Suite::Crun, "/usr/bin/crun", filter)?,
            Judge::Runc => compare(&place, Suite::Runc, "/usr/sbin/runc", filter)?,
            Judge::Engines => all_pass(&place, filter)?,
            Judge::Builds => builds::compare(&place, filter)?,
        });
    }
    place.empty()?;
    let host = Snapshot::take();
    worse.extend(host.lines().filter(|line| line.contains(cell::CGROUP)).map(|line| format!("left behind: {line}")));
    if worse.is_empty() {
        steps::step("what passes with theirs passes with ours, exceptions apart, and nothing is left on this host");
        return Ok(());
    }
    Err(Failure::new(format!("the judges find fault with dozen:\n    {}", worse.join("\n    "))))
}

/// A suite with its own runtime, then with ours; what is worse with ours.
fn compare(place: &Place, suite: Suite, theirs: &str, filter: Option<&str>) -> Result<Vec<String>, Failure> {
    let exceptions = verdict::exceptions(suite.name())?;
    let theirs = place.run(suite, theirs, filter)?;
    let ours = place.run(suite, OURS, filter)?;
    let verdict = verdict::Verdict::of(&theirs, &ours, &exceptions);
    print!("{}", verdict.table(suite.name()));
    Ok(verdict.worse)
}

/// The engines' containers, by our runtime.
fn all_pass(place: &Place, filter: Option<&str>) -> Result<Vec<String>, Failure> {
    let results = place.run(Suite::Engines, OURS, filter)?;
    for result in &results {
        println!("{:<7} {}", result.outcome.word(), result.name);
    }
    let failed = results.iter().filter(|result| result.outcome != Outcome::Passed);
    Ok(failed.map(|result| format!("{}: {}", result.name, result.said.join(" "))).collect())
}
