//! `cargo xtask bench`: dozen and its peers at the same works, in one run, in turn.
//!
//! Each engine has a cell (see `cell.rs`) and in it its own defaults; the same client and the same clock measure all.
//! The table is printed and written to `bench/`. Nothing here fails because something is slow.

mod cell;
mod cgroups;
mod disk;
mod figures;
mod http;
mod image;
mod inside;
mod janitor;
mod large;
mod others;
pub mod peers;
mod report;
mod table;
mod work;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::failure::{Attempt, Failure};
use crate::{host, packages, steps};
use cell::{Cell, Shared};
use figures::{Outcome, Row, shown};
use janitor::Janitor;
use work::{Mark, Subject, Work};

/// `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Options {
    /// How many rounds are counted, at most.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only this row of the table; may be repeated.
    #[arg(long, value_name = "WORK")]
    only: Vec<String>,
    /// The floor too: processor time, system calls, forks.
    #[arg(long)]
    syscalls: bool,
    /// Only print the table, do not write it to bench/.
    #[arg(long)]
    no_file: bool,
    /// A part of the bench that it runs itself: see cell.rs.
    #[arg(long, hide = true, num_args = 1..)]
    inside: Vec<String>,
}

/// The cell of the runtimes; the others bear the names of their engines.
const RUNTIMES: &str = "runtimes";
/// In the order in which they start.
const CELLS: [&str; 4] = ["dozen", "docker", "podman", RUNTIMES];

/// Measures, or does the part that `--inside` names.
pub fn verb(options: &Options) -> Result<(), Failure> {
    let words: Vec<&str> = options.inside.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => measure(options),
        ["enter", name, cgroup, scratch, root] => cell::enter(name, cgroup, Path::new(scratch), Path::new(root)),
        ["first", name, scratch, root] => inside::first(name, Path::new(scratch), Path::new(root)),
        ["agent", name] => inside::agent(name),
        ["janitor", prefix, scratch] => janitor::work(prefix, Path::new(scratch)),
        ["serve"] => inside::traffic::serve().attempting("serve"),
        ["load", by, address] => inside::traffic::load_and_print(by, address).attempting("load a server"),
        ["talk"] => inside::talk::talk().attempting("talk"),
        ["ask"] => inside::names::ask().attempting("ask for names"),
        _ => Err(Failure::new("--inside is for the bench itself")),
    }
}

fn measure(options: &Options) -> Result<(), Failure> {
    host::need_root("bench")?;
    packages::ensure("bench")?;
    let works = work::chosen(&options.only, options.syscalls).map_err(|name| {
        let names: Vec<&str> = work::ALL.iter().map(|work| work.name).collect();
        Failure::new(format!("no work is named '{name}'")).with_hint(format!("there is: {}", names.join(", ")))
    })?;
    let (dozen, profile) = release_build()?;
    let root = peers::root()?;
    let date = steps::capture(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let circumstances = report::Circumstances::look(&dozen, profile)?;

    let name = format!("dozen-bench-{}", std::process::id());
    let scratch = host::cache_directory()?.join(&name);
    let prefix = format!("{name}-");
    let janitor = Janitor::hire(&prefix, &scratch)?;
    let measured = disk::mount(&scratch).and_then(|scratch| {
        let shared = Shared { root, scratch, prefix };
        in_cells(&shared, &dozen, &works, options)
    });
    janitor.finish()?;
    let text = report::render(&date, options.rounds, &circumstances, &measured?);
    println!("{text}");
    if !options.no_file {
        let path = report::write(&date, &text)?;
        steps::step(format_args!("written to {}", path.display()));
    }
    Ok(())
}

/// The binary that users get. `DOZEN_BINARY` names another one.
fn release_build() -> Result<(PathBuf, &'static str), Failure> {
    if let Some(path) = std::env::var_os("DOZEN_BINARY").map(PathBuf::from) {
        return Ok((path, "a binary named by DOZEN_BINARY"));
    }
    steps::step("building dozen (cargo build --release --package dozen)");
    let mut command = steps::cargo();
    command.args(["build", "--release", "--package", "dozen", "--message-format", "json-render-diagnostics"]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().attempting("run cargo build")?;
    if !output.status.success() {
        return Err(Failure::new("dozen does not build: the compiler's messages are above"));
    }
    let path = steps::executables(&output.stdout, |message| message["target"]["name"] == "dozen").pop();
    Ok((path.ok_or_else(|| Failure::new("cargo built no executable named dozen"))?, "release build"))
}

/// What the cells told.
struct Measured {
    rows: Vec<Row>,
    /// Cells that did not start: which, and why.
    absent: Vec<(String, String)>,
    /// What the peers say of themselves.
    versions: Vec<String>,
    /// The part of the processors' time, of 1, that others used meanwhile.
    others: f64,
}

fn in_cells(shared: &Shared, dozen: &Path, works: &[&'static Work], options: &Options) -> Result<Measured, Failure> {
    fill_bench_directory(&shared.bench(), dozen)?;
    if works.iter().any(|work| work.is_of_archives()) {
        steps::step("writing the large image's archive");
        large::prepare(&shared.bench().join(large::FILE))?;
    }
    let watch = others::Watch::start()?;
    let mut cells = BTreeMap::new();
    let (mut absent, mut versions) = (Vec::new(), Vec::new());
    for name in CELLS.into_iter().filter(|name| needs_cell(works, name)) {
        steps::step(format_args!("starting the cell of {name}"));
        let mut cell = Cell::start(name, shared)?;
        match cell.ask(&json!({ "do": "start" })) {
            Ok(answer) => {
                let said = answer["versions"].as_array().into_iter().flatten().filter_map(|line| line.as_str());
                versions.extend(said.map(str::to_owned));
                cells.insert(name, cell);
            }
            Err(failure) => {
                eprintln!("    {name} takes no part: {failure}");
                absent.push((name.to_owned(), failure.to_string()));
            }
        }
    }
    if let (true, Some(docker)) = (cells.contains_key(RUNTIMES), cells.get_mut("docker"))
        && let Err(failure) = docker.ask(&json!({ "do": "bundle" }))
    {
        eprintln!("    docker gives no spec: {failure}");
    }
    let mut rows = Vec::new();
    for works in groups(works) {
        let measured = measure_rows(works, &mut cells, options);
        measured.iter().for_each(tell);
        rows.extend(measured);
    }
    let others = watch.share(&shared.prefix)?;
    if others > 0.05 {
        steps::step(format_args!(
            "this machine had other work to do ({:.0} %): take the times with care",
            others * 100.0
        ));
    }
    Ok(Measured { rows, absent, versions, others })
}

/// What the cells see as `/bench`: our programs, the image, the bundle's root file system.
fn fill_bench_directory(directory: &Path, dozen: &Path) -> Result<(), Failure> {
    let programs = directory.join("bin");
    std::fs::create_dir_all(&programs).attempting(format_args!("create {}", programs.display()))?;
    let ourselves = std::env::current_exe().attempting("find our own program")?;
    for (program, name) in [(dozen, "dozen"), (&ourselves, "xtask")] {
        std::fs::copy(program, programs.join(name)).attempting(format_args!("copy {}", program.display()))?;
    }
    image::prepare(&directory.join(format!("{}.tar", image::NAME)), &directory.join("bundle/rootfs"))
}

/// The cell in which a subject does a work.
fn cell_of(work: &Work, subject: Subject) -> &'static str {
    match subject {
        _ if work.is_of_runtimes() => RUNTIMES,
        Subject::Buildkit | Subject::Classic => Subject::Docker.name(),
        Subject::Buildah => Subject::Podman.name(),
        engine => engine.name(),
    }
}

fn needs_cell(works: &[&Work], cell: &str) -> bool {
    // Docker is asked for the runtimes' spec.
    let asked = |work: &&Work| cell == "docker" && work.is_of_runtimes();
    works.iter().any(|work| asked(work) || work.subjects.iter().any(|subject| cell_of(work, *subject) == cell))
}

/// Rows that are judged by one another are measured together: what disturbs one disturbs the other.
fn groups<'a>(works: &'a [&'static Work]) -> impl Iterator<Item = &'a [&'static Work]> {
    works.chunk_by(|one, next| matches!(next.mark, Mark::AsFastAs(name) if name == one.name))
}

/// All rounds of some rows: A B C A B C …, the first of each not counted.
fn measure_rows(works: &[&'static Work], cells: &mut BTreeMap<&'static str, Cell>, options: &Options) -> Vec<Row> {
    let mut ask = |what: &str, work: &Work, subject: Subject| {
        let cell = cells.get_mut(cell_of(work, subject))?;
        Some(cell.ask(&json!({ "do": what, "work": work.name, "subject": subject.name() })))
    };
    let mut rows: Vec<Row> = works.iter().map(|work| Row { work, outcomes: BTreeMap::new() }).collect();
    for row in &mut rows {
        for subject in row.work.subjects {
            let outcome = match ask("prepare", row.work, *subject) {
                None => continue,
                Some(Ok(_)) => Outcome::Values(Vec::new()),
                Some(Err(failure)) => Outcome::Failed(failure.to_string()),
            };
            row.outcomes.insert(*subject, outcome);
        }
    }
    for round in 0..=options.rounds {
        for row in rows.iter_mut().filter(|row| round <= row.work.most_rounds) {
            for (subject, outcome) in &mut row.outcomes {
                let Outcome::Values(values) = outcome else { continue };
                match ask("round", row.work, *subject).map(|answer| answer.map(|answer| answer["value"].as_f64())) {
                    Some(Ok(Some(value))) if round > 0 => values.push(value),
                    Some(Ok(Some(_))) => {}
                    Some(Err(failure)) => *outcome = Outcome::Failed(failure.to_string()),
                    Some(Ok(None)) | None => *outcome = Outcome::Failed("no value came back".to_owned()),
                }
            }
        }
    }
    for row in &mut rows {
        for (subject, outcome) in &mut row.outcomes {
            if let (Some(Err(failure)), Outcome::Values(_)) = (ask("finish", row.work, *subject), &*outcome) {
                *outcome = Outcome::Failed(failure.to_string());
            }
        }
    }
    rows
}

/// What is said while it runs.
fn tell(row: &Row) {
    let figures = row.outcomes.keys().map(|subject| match row.median(*subject) {
        Some(value) => format!("{} {}", subject.name(), shown(value, row.work.unit)),
        None => format!("{} failed", subject.name()),
    });
    let figures = figures.collect::<Vec<_>>().join(", ");
    steps::step(format_args!("{} ({}): {figures}", row.work.title, row.work.unit.name()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_compared_are_measured_together() {
        let only = ["rm", "bridge-stream", "port-stream", "port-requests"].map(str::to_owned);
        let works = work::chosen(&only, false).unwrap();
        let names: Vec<Vec<&str>> = groups(&works).map(|group| group.iter().map(|work| work.name).collect()).collect();
        assert_eq!(names, [vec!["rm"], vec!["bridge-stream", "port-stream"], vec!["port-requests"]]);
    }

    #[test]
    fn only_the_cells_that_are_needed_start() {
        let needed = |names: &[&str]| {
            let only: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let works = work::chosen(&only, false).unwrap();
            CELLS.into_iter().filter(|cell| needs_cell(&works, cell)).collect::<Vec<_>>()
        };
        assert_eq!(needed(&["runtime"]), ["docker", RUNTIMES]);
        assert_eq!(needed(&["rest"]), ["dozen", "docker"]);
        assert_eq!(needed(&["build-cold"]), ["dozen", "docker", "podman"]);
        assert_eq!(needed(&["build-memory"]), ["dozen"]);
        assert_eq!(needed(&["exec"]), ["dozen", "docker", "podman"]);
    }
}
