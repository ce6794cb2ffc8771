//! The project's own verbs: `cargo xtask images | demo | test | check | packages | bench | fresh |
//! fuzz | judges | vm`.
//!
//! Each verb does all of its own set-up, so that a fresh Debian machine with Rust needs nothing else. Talk goes to
//! standard error; standard output carries only what a script may want to read.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool of the terminal: printing is what it does")]

mod arrows;
mod bench;
mod check;
mod clients;
mod demo;
mod failure;
mod fresh;
mod fuzz;
mod golden;
mod host;
mod images;
mod judges;
mod leftovers;
mod packages;
mod processes;
mod steps;
mod suite;
mod vm;

use clap::{Parser, Subcommand};

use failure::Failure;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "dozen's own chores", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build everything, run a Flask application in a container and print its address.
    Demo {
        /// Remove every trace of the demo.
        #[arg(long)]
        down: bool,
        /// Install Flask from Debian's packages by apt-get instead of from PyPI by pip.
        #[arg(long, conflicts_with = "down")]
        apt: bool,
    },
    /// Run every test, those that need root and real clients included.
    Test {
        /// Without the applications that need images of their own: databases, web servers.
        #[arg(long)]
        quick: bool,
        /// Only tests whose name contains this.
        filter: Option<String>,
    },
    /// Work and kill an engine for an hour, or a registry's server, and look whether anything is lost, left or grows.
    Soak {
        /// What is worked with.
        #[arg(long, value_enum, default_value = "engine")]
        of: suite::Of,
        /// How long.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
    },
    /// Build test images from Debian's packages into OCI archives, outside the tree.
    Images {
        /// Which; without any, those of the tests and the demo.
        names: Vec<String>,
        /// Print the paths of the archives on standard output.
        #[arg(long)]
        path: bool,
        /// Every recipe.
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Build again what the cache already has.
        #[arg(long)]
        rebuild: bool,
    },
    /// Print where a test client is (a python and a node with the SDKs, the docker CLI), making it if needed.
    Clients {
        /// `python`, `node`, `docker`, or `peers`: the root of the other engines.
        name: String,
    },
    /// Formatting, clippy, the arrows between crates, the declared packages. Needs no root.
    Check,
    /// Compare the declared Debian packages with this machine.
    Packages {
        /// Install what is missing.
        #[arg(long)]
        install: bool,
    },
    /// Measure dozen against docker, podman, crun and runc, and write the table to bench/.
    Bench(bench::Options),
    /// Record what docker 20.10 and 26.1 answer, for the test that compares dozen's answers with theirs.
    Golden,
    /// Let the suites of crun and runc, and podman, docker and containerd, judge the runtime.
    Judges(judges::Options),
    /// Make a minimal Debian root with Rust in it, clone the committed tree there, and run both commands of the README.
    Fresh {
        /// What to run there instead, a shell's line each.
        commands: Vec<String>,
    },
    /// Run the fuzzers (needs the nightly toolchain and cargo-fuzz), and print how far they came.
    Fuzz {
        /// Which targets; without any, all, one after the other.
        targets: Vec<String>,
        /// Minutes for each target.
        #[arg(long, default_value_t = 1)]
        minutes: u32,
    },
    /// Boot a small Debian machine (systemd, pure cgroup v2) and run the end-to-end tests in it.
    Vm(vm::Options),
}

fn main() -> std::process::ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            if let Some(hint) = failure.hint() {
                eprintln!("hint: {hint}");
            }
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Demo { down: true, .. } => demo::down(),
        Verb::Demo { apt, .. } => demo::up(if apt { demo::Way::Apt } else { demo::Way::Pip }),
        Verb::Test { quick, filter } => suite::test(quick, filter.as_deref()),
        Verb::Soak { of, minutes } => suite::soak(of, minutes),
        Verb::Images { names, path, all, rebuild } => images::verb(&names, all, path, rebuild),
        Verb::Clients { name } => clients::verb(&name),
        Verb::Check => check::check(),
        Verb::Packages { install } => packages::verb(install),
        Verb::Fresh { commands } => fresh::verb(&commands),
        Verb::Fuzz { targets, minutes } => fuzz::verb(&targets, minutes),
        Verb::Golden => golden::verb(),
        Verb::Judges(options) => judges::verb(&options),
        Verb::Bench(options) => bench::verb(&options),
        Verb::Vm(options) => vm::verb(&options),
    }
}
