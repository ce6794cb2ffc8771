//! The second disk: dozen, the tests, clients and images of this run, and which tests are to be run.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::report::Test;
use super::{Options, choice, disks};
use crate::failure::{Attempt, Failure};
use crate::{clients, images, steps};

/// The crates whose tests need a kernel.
const CRATES: [&str; 6] = ["testbox", "runtime", "network", "monitor", "keeper", "image"];
/// Runs the tests in the machine.
const RUNNER: &str = include_str!("runner.sh");

/// The disk, and what is going to be run from it.
pub struct Payload {
    /// An ext4 file system.
    pub disk: PathBuf,
    /// In order.
    pub plan: Vec<Test>,
}

/// Builds everything and fills the disk, in `scratch`.
pub fn make(scratch: &Path, options: &Options) -> Result<Payload, Failure> {
    let root = scratch.join("payload");
    let dozen = steps::build_dozen()?;
    copy_program(&dozen, &root.join("dozen"))?;
    let names = images::USUAL.iter().chain(images::HEAVY.iter().filter(|_| options.heavy));
    for archive in images::ensure(&names.copied().collect::<Vec<_>>(), false)? {
        copy(&archive, &root.join("images").join(archive.file_name().unwrap_or_default()))?;
    }
    let python = clients::python()?;
    copy(python.parent().and_then(Path::parent).expect("bin/python lies in an environment"), &root.join("python"))?;
    copy_docker(&root)?;

    let built = Built::new()?;
    let mut plan = Vec::new();
    for (binary, path) in &built.tests {
        let tests = choice::choose(binary, &list(path)?, options);
        if !tests.is_empty() || options.shell {
            copy_program(path, &root.join("tests").join(binary))?;
        }
        plan.extend(tests);
    }
    if plan.is_empty() && !options.shell {
        return Err(Failure::new("no test is chosen by these words"));
    }
    let mut paths = String::new();
    for path in &built.programs {
        copy_program(path, &root.join("programs").join(path.file_name().unwrap_or_default()))?;
        paths += &format!("{}\n", path.display());
    }
    write(&root.join("programs.list"), &paths)?;
    write(&root.join("plan"), &plan.iter().map(|test| format!("{} {}\n", test.binary, test.name)).collect::<String>())?;
    write(&root.join("environment"), &environment(options))?;
    if options.shell {
        write(&root.join("shell"), "")?;
    }
    write(&root.join("run"), RUNNER)?;
    std::fs::set_permissions(root.join("run"), PermissionsExt::from_mode(0o755)).attempting("make it executable")?;
    let disk = scratch.join("payload.ext4");
    disks::ext4(&disk, &root, "4G")?;
    std::fs::remove_dir_all(&root).attempting("remove the copies")?;
    Ok(Payload { disk, plan })
}

/// What cargo has built for the tests.
struct Built {
    /// `testbox::run`, or `runtime` for a library's own; and the executable.
    tests: Vec<(String, PathBuf)>,
    /// Programs that the tests know by their paths (`CARGO_BIN_EXE_…`).
    programs: Vec<PathBuf>,
}

impl Built {
    fn new() -> Result<Self, Failure> {
        steps::step("building the tests");
        let mut build = steps::cargo();
        // The whole workspace, as `cargo xtask test` has it: the same features, and so the same artefacts.
        build.args(["test", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"]);
        let output =
            build.stdin(Stdio::null()).stderr(Stdio::inherit()).output().attempting("run cargo test --no-run")?;
        if !output.status.success() {
            return Err(Failure::new("the tests do not build: the compiler's messages are above"));
        }
        let mut built = Self { tests: Vec::new(), programs: Vec::new() };
        for line in output.stdout.split(|byte| *byte == b'\n') {
            let Ok(message) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
            let (Some(path), Some(crate_name)) = (message["executable"].as_str(), crate_of(&message)) else { continue };
            let name = message["target"]["name"].as_str().unwrap_or_default();
            let is = |kind: &str| message["target"]["kind"][0] == kind;
            match (message["profile"]["test"] == true, is("test"), is("bin")) {
                (true, true, _) => built.tests.push((format!("{crate_name}::{name}"), path.into())),
                (true, false, false) => built.tests.push((crate_name, path.into())),
                (false, _, true) => built.programs.push(path.into()),
                _ => {}
            }
        }
        built.tests.sort();
        Ok(built)
    }
}

/// The directory's name of a crate whose tests are run in the machine.
fn crate_of(message: &serde_json::Value) -> Option<String> {
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let name = manifest.parent()?.file_name()?.to_str()?;
    CRATES.contains(&name).then(|| name.to_owned())
}

/// A binary's tests, by name, and whether each is ignored by default.
fn list(binary: &Path) -> Result<Vec<(String, bool)>, Failure> {
    let names = |more: &[&str]| -> Result<Vec<String>, Failure> {
        let said = steps::capture(Command::new(binary).args(["--list", "--format", "terse"]).args(more))?;
        Ok(said.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    };
    let ignored = names(&["--ignored"])?;
    Ok(names(&[])?.into_iter().map(|name| (name.clone(), ignored.contains(&name))).collect())
}

/// A script that the runner reads. Variables that choose what the crash suite plays are passed on.
fn environment(options: &Options) -> String {
    let mut variables = vec![
        ("DOZEN_BINARY".to_owned(), "/payload/dozen".to_owned()),
        ("DOZEN_TEST_IMAGES".to_owned(), "/payload/images".to_owned()),
        ("DOZEN_TEST_PYTHON".to_owned(), "/payload/python/bin/python".to_owned()),
        ("DOZEN_TEST_DOCKER".to_owned(), "/payload/docker-cli/docker".to_owned()),
        ("DOZEN_TEST_PATIENCE".to_owned(), super::SLOWER.to_string()),
    ];
    if let Some(minutes) = options.soak {
        variables.push(("DOZEN_TEST_SOAK_MINUTES".to_owned(), minutes.to_string()));
        variables.push(("DOZEN_VM_CRASH_LIMIT".to_owned(), format!("{}m", options.minutes())));
    }
    let passed_on = ["DOZEN_TEST_FAILPOINT", "DOZEN_TEST_SHARE", "DOZEN_TEST_SEED", "DOZEN_TEST_ROUNDS"];
    let given = passed_on.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
    variables.extend(given);
    variables.iter().map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''"))).collect()
}

fn copy_docker(root: &Path) -> Result<(), Failure> {
    let docker = clients::docker()?;
    // Debian 13's lies in a directory with its libraries; the host's own is one program.
    let unpacked =
        docker.parent().filter(|root| root.join("usr/bin/docker").is_file() && root.join("docker").is_file());
    match unpacked {
        Some(directory) => copy(directory, &root.join("docker-cli")),
        None => copy(&docker, &root.join("docker-cli/docker")),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(to.parent().expect("it lies in the payload")).attempting("make a directory")?;
    steps::run(Command::new("cp").args(["--archive", "-H"]).arg(from).arg(to))
}

/// Without what only a debugger reads: nine tenths of it, which the machine would have to read from its disk.
fn copy_program(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(to.parent().expect("it lies in the payload")).attempting("make a directory")?;
    steps::run(Command::new("strip").args(["--strip-debug", "-o"]).arg(to).arg(from))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).attempting(format_args!("write {}", path.display()))
}
