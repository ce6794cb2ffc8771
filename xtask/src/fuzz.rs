//! `cargo xtask fuzz`: the fuzzers of `fuzz/`, one after the other, and a table of how far they came.
//!
//! The committed corpora are only read; what a run adds to them is kept in the cache, for the next run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::{Attempt, Failure};
use crate::{host, packages, steps};

/// An input that takes more is a finding: a load is to stay below it with whatever it is given.
const MEMORY_LIMIT_MB: u32 = 512;
/// An input that takes longer is a finding.
const INPUT_LIMIT_S: u32 = 20;

/// How far a target came, in libFuzzer's own figures.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reached {
    executions: u64,
    /// Edges of the program that were met.
    edges: u64,
    /// Edges told apart by how often they were met.
    features: u64,
}

/// Runs the named targets, or all of them, for `minutes` each.
pub fn verb(names: &[String], minutes: u32) -> Result<(), Failure> {
    host::need_root("fuzz")?;
    packages::ensure("fuzz")?;
    ensure_tools()?;
    let all = targets()?;
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        return Err(Failure::new(format!("there is no fuzz target {unknown:?}")).with_hint(all.join(", ")));
    }
    let chosen = if names.is_empty() { &all } else { names };
    steps::step("building the fuzzers");
    steps::run(cargo_fuzz("build").args(chosen.iter().take(usize::from(chosen.len() == 1))))?;
    let mut failed = Vec::new();
    let mut table = Vec::new();
    for target in chosen {
        steps::step(format_args!("fuzzing {target} for {minutes} min"));
        let (reached, found) = run(target, minutes)?;
        let Reached { executions, edges, features } = reached;
        let verdict = if found { "FOUND SOMETHING" } else { "nothing found" };
        table.push(format!("{target:<12} {executions:>12} {edges:>8} {features:>9}  {verdict}"));
        if found {
            failed.push(target.as_str());
        }
    }
    println!("{:<12} {:>12} {:>8} {:>9}", "target", "executions", "edges", "features");
    table.iter().for_each(|line| println!("{line}"));
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("findings of: {}", failed.join(", "))).with_hint(
        "the inputs lie in fuzz/artifacts/TARGET; mend what they show and put them in fuzz/corpus/TARGET, \
         which an ordinary test runs again",
    ))
}

/// cargo-fuzz with the nightly toolchain: libFuzzer's instrumentation is not in the stable one.
///
/// Without a sanitizer: what is fuzzed has no `unsafe` of its own, the C of zstd and SQLite would not be instrumented,
/// and everything runs three times as often.
fn cargo_fuzz(verb: &str) -> Command {
    let mut command = Command::new("cargo");
    // What the cargo that runs us has set is about the stable toolchain.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    let root = steps::workspace_root();
    command.current_dir(&root).args(["+nightly", "fuzz", verb, "--sanitizer", "none", "--target-dir"]);
    command.arg(root.join("target/fuzz"));
    command
}

fn ensure_tools() -> Result<(), Failure> {
    if steps::capture(Command::new("cargo").env_remove("RUSTUP_TOOLCHAIN").args(["+nightly", "--version"])).is_err() {
        return Err(Failure::new("the fuzzers need the nightly toolchain of Rust")
            .with_hint("rustup toolchain install nightly --profile minimal"));
    }
    if steps::on_path("cargo-fuzz").is_none() {
        return Err(Failure::new("the fuzzers need cargo-fuzz").with_hint("cargo install --locked cargo-fuzz"));
    }
    Ok(())
}

/// The targets' names, which are those of their files.
fn targets() -> Result<Vec<String>, Failure> {
    let directory = steps::workspace_root().join("fuzz/fuzz_targets");
    let files = std::fs::read_dir(&directory).attempting(format_args!("read {}", directory.display()))?;
    let mut names: Vec<String> =
        files.flatten().filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// Runs one target; true if it found something.
fn run(target: &str, minutes: u32) -> Result<(Reached, bool), Failure> {
    let grown = host::cache_directory()?.join("fuzz").join(target);
    std::fs::create_dir_all(&grown).attempting(format_args!("create {}", grown.display()))?;
    // Trees are unpacked and removed a thousand times a second: in memory.
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let scratch = scratch.attempting("make a scratch directory")?;
    let mut command = cargo_fuzz("run");
    command.arg(target).arg(&grown).arg(steps::workspace_root().join("fuzz/corpus").join(target)).args([
        "--",
        "-print_final_stats=1",
        &format!("-max_total_time={}", minutes * 60),
        &format!("-rss_limit_mb={MEMORY_LIMIT_MB}"),
        &format!("-timeout={INPUT_LIMIT_S}"),
    ]);
    command.env("TMPDIR", scratch.path()).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().attempting("run cargo fuzz")?;
    let mut reached = Reached::default();
    let said = child.stderr.take().expect("it was asked for");
    for line in BufReader::new(said).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if !reached.read(&line) {
            eprintln!("{line}");
        }
    }
    let status = child.wait().attempting("wait for cargo fuzz")?;
    Ok((reached, !status.success()))
}

impl Reached {
    /// Takes what a line of libFuzzer's says; false if it says nothing of these.
    fn read(&mut self, line: &str) -> bool {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = count.trim().parse().unwrap_or(self.executions);
            return true;
        }
        // `#1024 NEW    cov: 57 ft: 80 corp: 12/3Kb …`
        let is_status = line.starts_with('#') && line.contains(" cov: ");
        if is_status {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |key: &str| {
                words.iter().position(|word| *word == key).and_then(|at| words.get(at + 1)?.parse::<u64>().ok())
            };
            self.edges = after("cov:").unwrap_or(self.edges);
            self.features = after("ft:").unwrap_or(self.features);
            self.executions = words[0][1..].parse().unwrap_or(self.executions).max(self.executions);
        }
        is_status || line.starts_with("stat::")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_the_fuzzer_says() {
        let mut reached = Reached::default();
        assert!(reached.read("#1024\tNEW    cov: 57 ft: 80 corp: 12/3Kb lim: 4 exec/s: 0 rss: 40Mb"));
        assert_eq!(reached, Reached { executions: 1024, edges: 57, features: 80 });
        assert!(!reached.read("thread '<unnamed>' panicked at src/x.rs:1:2:"));
        assert!(reached.read("stat::number_of_executed_units: 5000"));
        assert_eq!(reached, Reached { executions: 5000, edges: 57, features: 80 });
    }

    #[test]
    fn every_target_has_a_corpus_and_an_entry() {
        let root = steps::workspace_root();
        let manifest = std::fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        for target in targets().unwrap() {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
            assert!(std::fs::read_dir(root.join("fuzz/corpus").join(&target)).unwrap().count() > 0, "{target}");
        }
    }
}
