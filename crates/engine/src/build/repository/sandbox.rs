//! Git, where it can do no harm. It speaks with servers that a stranger's Dockerfile names and reads what they send, so it
//! runs in a container of this engine's: with the host's own programs, read-only, and one directory to write to; as nobody,
//! without a capability, under the default filter of system calls.
//!
//! What it reaches is what a RUN reaches, and nothing else: it has a network namespace of its own on the default bridge. So
//! the host's loopback is out of reach wherever a name, a redirection or a submodule leads, and whatever the name means at
//! the moment of connecting. Who may have the host's network (`--allow network.host`) has it. The container is removed with
//! its build, or by the next engine, like any other step's.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dozen_model::{
    BindPropagation, BindRecursion, BuildStep, CapabilityChange, ContainerSpec, Isolation, Mount, MountOwner,
    MountSource, NetworkMode, ProcessSpec, RestartPolicy, StdinMode, StopSpec, Ulimit,
};
use dozen_monitor::protocol::SecretEnvironment;
use tokio::time::timeout;

use super::super::failure::StepError;
use super::super::job::Job;
use super::super::mounts::Mounted;
use super::super::run::frame;
use crate::container::Container;
use crate::{AttachOptions, CreateRequest, EngineError, OutputStream, WaitCondition};

/// Where distributions have programs and what these need to run. Nothing of a host's own is in there, but for what its
/// users may all read.
const PROGRAMS: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];
/// Where the linker finds libraries in unusual places (ld.so(8)).
const LINKER_CACHE: &str = "/etc/ld.so.cache";
/// What git is told (git-config(1)).
const HOME: &str = "/run/git";
/// Where certificate authorities are.
pub(super) const AUTHORITIES: &str = "/run/git/authorities.crt";
/// The directory to write to.
const WORK: &str = "/repository";
const GIT: &str = "git";
/// Nobody's number, as on most systems.
const NOBODY: u32 = 65534;
/// No file that git writes is larger.
const LARGEST_FILE_BYTES: i64 = 64 << 30;
/// Of what it prints.
const MOST_OUTPUT_BYTES: usize = 4 << 20;
const MOST_ERROR_BYTES: usize = 64 << 10;
/// In which it says nothing of how far it is: whoever sends has stopped.
const SILENCE: Duration = Duration::from_secs(300);

/// Something that git is to do.
#[derive(Debug, Default)]
pub(super) struct Errand {
    /// For a shell.
    pub(super) script: &'static str,
    /// Where git is.
    pub(super) programs: PathBuf,
    /// `$1` and so on.
    pub(super) arguments: Vec<String>,
    pub(super) variables: Vec<(&'static str, String)>,
    /// Variables that nobody else sees.
    pub(super) secrets: SecretEnvironment,
    /// Git's configuration, with passwords in it.
    pub(super) configuration: String,
    /// Certificate authorities in PEM.
    pub(super) authorities: Vec<u8>,
    /// What it may write to.
    pub(super) directory: Option<PathBuf>,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) is_well: bool,
    /// The end of it, if it is long.
    pub(super) errors: String,
    pub(super) output: Vec<u8>,
}

/// Runs it to its end.
pub(super) async fn run(job: &Arc<Job>, errand: Errand) -> Result<Ran, StepError> {
    let own_ids = job.request.own_ids;
    let user = own_ids.map_or(NOBODY, |count| NOBODY.min(count.saturating_sub(1)));
    let held = job.clone();
    let (errand, mounts) = job
        .shared
        .blocking(move || {
            let mounts = mounts(&held, &errand, user)?;
            Ok((errand, mounts))
        })
        .await?;
    let spec = specification(job, &errand, mounts.clone(), user)?;
    let mounted = Mounted::of(mounts);
    let running = job.begin_step(CreateRequest { name: None, spec, own_ids }, mounted).await?;
    let given = job.shared.secrets.give(running.container.id(), errand.secrets);
    let ran = follow(&running.container).await;
    drop(given);
    running.end().await;
    ran
}

async fn follow(container: &Container) -> Result<Ran, StepError> {
    let ended = container.wait(WaitCondition::NextExit);
    let options = AttachOptions { stdin: false, stdout: true, stderr: true, log: false };
    let attached = container.attach(options).await?;
    container.start().await?;
    let mut stream = attached.connected().await?;
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    loop {
        let piece = timeout(SILENCE, frame(&mut stream)).await;
        let silent = format!("git has said nothing for {} s, and is given up", SILENCE.as_secs());
        let Some((stream, bytes)) = piece.map_err(|_| StepError::said(silent))? else { break };
        match stream {
            OutputStream::Stdout if output.len() + bytes.len() > MOST_OUTPUT_BYTES => {
                return Err(StepError::said("git has printed more than anybody would read"));
            }
            OutputStream::Stdout => output.extend(bytes),
            OutputStream::Stderr => {
                errors.extend(bytes);
                let more = errors.len().saturating_sub(MOST_ERROR_BYTES);
                errors.drain(..more);
            }
        }
    }
    let status = ended.wait().await.ok_or_else(|| EngineError::NoSuchContainer(container.id().to_string()))?;
    let is_well = status.exit_code == 0 && status.error.is_none();
    let mut errors = String::from_utf8_lossy(&errors).into_owned();
    if let Some(why) = &status.error {
        errors.push_str(&format!("\nfatal: {why}"));
    }
    if status.out_of_memory {
        errors.push_str("\nfatal: it ran out of memory");
    }
    Ok(Ran { is_well, errors, output })
}

/// The directory of the host's git, as it is seen in there, too. Blocks.
pub(super) fn find_git() -> Result<PathBuf, StepError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_program =
        |path: &PathBuf| path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    let Some(found) = std::env::split_paths(&path).map(|directory| directory.join(GIT)).find(is_program) else {
        return Err(StepError::with_hint(
            "repositories are fetched by git, and the engine finds no such program in its PATH",
            "install it on the engine's machine: apt-get install git, dnf install git, apk add git",
        ));
    };
    // A name of it that leads there may lie elsewhere.
    let real = found.canonicalize().unwrap_or_else(|_| found.clone());
    let is_seen = |path: &&PathBuf| PROGRAMS.iter().any(|place| path.starts_with(place)) && path.ends_with(GIT);
    match [&real, &found].into_iter().find(is_seen).and_then(|path| path.parent()) {
        Some(directory) if PROGRAMS.iter().any(|place| real.starts_with(place)) => Ok(directory.to_owned()),
        _ => Err(StepError::with_hint(
            format!("repositories are fetched by git, and {} lies in none of {}", real.display(), PROGRAMS.join(", ")),
            "install git where programs are on this system; the builder shows it these directories and no others",
        )),
    }
}

/// Blocks.
fn mounts(job: &Job, errand: &Errand, user: u32) -> Result<Vec<Mount>, EngineError> {
    let is_there = |path: &&str| Path::new(path).exists();
    let programs = PROGRAMS.into_iter().chain([LINKER_CACHE]).filter(is_there);
    let mut mounts: Vec<Mount> = programs.map(|path| mount(path, PathBuf::from(path), true)).collect();
    let configuration = job.site.secret(errand.configuration.as_bytes(), (user, user), 0o400)?;
    mounts.push(mount(&format!("{HOME}/.gitconfig"), configuration, true));
    if !errand.authorities.is_empty() {
        let authorities = job.site.secret(&errand.authorities, (user, user), 0o400)?;
        mounts.push(mount(AUTHORITIES, authorities, true));
    }
    if let Some(directory) = &errand.directory {
        let owned = std::os::unix::fs::chown(directory, Some(user), Some(user));
        owned.map_err(EngineError::system(|| format!("give {} to git", directory.display())))?;
        mounts.push(mount(WORK, directory.clone(), false));
    }
    Ok(mounts)
}

fn mount(target: &str, path: PathBuf, read_only: bool) -> Mount {
    let (propagation, recursion) = (BindPropagation::default(), BindRecursion::default());
    let source = MountSource::Bind { path, create_missing: false, propagation, recursion };
    Mount { target: target.into(), source, read_only, structured: true, owner: MountOwner::default(), inherited: false }
}

/// Limits, names of hosts and the rest of what the caller of the build said hold for this container, too.
fn specification(job: &Job, errand: &Errand, mounts: Vec<Mount>, user: u32) -> Result<ContainerSpec, StepError> {
    let base = &job.request.container;
    let words = ["/bin/sh", "-c", errand.script, "git"].map(str::to_owned);
    let path = format!("{}:{}", errand.programs.display(), std::env::var("PATH").unwrap_or_default());
    let own = [
        ("PATH", path.as_str()),
        ("HOME", HOME),
        // Messages are read.
        ("LC_ALL", "C"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ASKPASS", "/bin/false"),
    ];
    let said = errand.variables.iter().map(|(name, value)| (*name, value.as_str()));
    let mut resources = base.resources.clone();
    if !resources.ulimits.iter().any(|limit| limit.name == "fsize") {
        let (soft, hard) = (LARGEST_FILE_BYTES, LARGEST_FILE_BYTES);
        resources.ulimits.push(Ulimit { name: "fsize".to_owned(), soft, hard });
    }
    let may_reach_host = job.check_entitled(super::super::remote::ENTITLEMENT).is_ok();
    let working_directory = if errand.directory.is_some() { WORK } else { "/" };
    let user = format!("{user}:{user}").parse();
    Ok(ContainerSpec {
        process: ProcessSpec {
            entrypoint: Vec::new(),
            command: words.into_iter().chain(errand.arguments.iter().cloned()).collect(),
            environment: own.into_iter().chain(said).map(|(name, value)| format!("{name}={value}")).collect(),
            working_directory: working_directory.to_owned(),
            user: user.map_err(|error: dozen_model::UserSpecError| StepError::said(error.to_string()))?,
            stdin: StdinMode::Closed,
            attach: [false, true, true],
            ..ProcessSpec::default()
        },
        stop: StopSpec::default(),
        mounts,
        endpoints: None,
        network: if may_reach_host { NetworkMode::Host } else { NetworkMode::Bridge },
        isolation: Isolation {
            privileged: false,
            capabilities: CapabilityChange { add: Default::default(), drop: ["ALL".to_owned()].into() },
            no_new_privileges: true,
            ..base.isolation.clone()
        },
        resources,
        restart: RestartPolicy::No,
        auto_remove: false,
        health: None,
        build_step: Some(BuildStep { layers: Vec::new() }),
        ..base.clone()
    })
}
